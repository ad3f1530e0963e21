//! The JSON output of each command, as README.md describes it.

use serde_json::{Value, json};

use crate::fixture::{Fixture, KEY, Ran};

fn json_of(fixture: &Fixture, args: &[&str]) -> Value {
    let ran = fixture.run(&[&["--json"], args].concat());
    assert_eq!(ran.code, 0, "{ran:?}");
    ran.json()
}

fn fixture_with_alice() -> Fixture {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture
}

fn immediate() -> Value {
    json!({ "kind": "immediate" })
}

/// Removes `store` from a result, after checking the path and the form of the random store id.
fn without_store(fixture: &Fixture, mut result: Value) -> Value {
    let store = result.as_object_mut().unwrap().remove("store").unwrap();
    let path = format!("file:{}/keys.db (store ", fixture.directory().canonicalize().unwrap().display());
    let id = store.as_str().and_then(|store| store.strip_prefix(&path)?.strip_suffix(')')).unwrap_or_default();
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{store}");
    result
}

#[test]
fn init() {
    let fixture = Fixture::empty();
    let root = fixture.path("root.secret").display().to_string();
    assert_eq!(without_store(&fixture, json_of(&fixture, &["init"])), json!({ "root_secret_file": root }));
}

#[test]
fn generate() {
    let fixture = Fixture::new();
    let made = json_of(&fixture, &["generate"]);
    assert_eq!((made["format"].as_str(), made["key"].as_str().map(str::len)), (Some("hex"), Some(64)));
    assert_eq!(json_of(&fixture, &["generate", "--out", "key"]), json!({ "file": "key" }));
    assert_eq!(json_of(&fixture, &["generate", "alice"]), json!({ "created": true }));
}

#[test]
fn get() {
    let fixture = fixture_with_alice();
    assert_eq!(json_of(&fixture, &["get", "alice"]), json!({ "format": "hex", "key": KEY }));
    let base64 = json_of(&fixture, &["get", "alice", "--format", "base64"]);
    assert_eq!(base64, json!({ "format": "base64", "key": "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=" }));
    assert_eq!(json_of(&fixture, &["get", "alice", "--out", "key"]), json!({ "file": "key" }));
    assert!(fixture.run(&["--json", "get", "alice", "--format", "raw"]).failed(2).contains("raw bytes"));
}

#[test]
fn put_and_create() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.run_with(&["--json", "put", "alice"], KEY).json(),
        json!({ "stored": true, "unchanged": false })
    );
    assert_eq!(fixture.run_with(&["--json", "put", "alice"], KEY).json(), json!({ "stored": true, "unchanged": true }));
    assert_eq!(fixture.run_with(&["--json", "create", "bob"], KEY).json(), json!({ "created": true }));
}

#[test]
fn delete() {
    assert_eq!(
        json_of(&fixture_with_alice(), &["delete", "alice", "--yes"]),
        json!({ "deleted": true, "finality": immediate() })
    );
}

#[test]
fn erase() {
    assert_eq!(
        json_of(&fixture_with_alice(), &["erase", "alice", "--yes"]),
        json!({ "existed": true, "verified": true, "finality": immediate(), "receipt": null })
    );
}

#[test]
fn list_is_a_value_a_line() {
    let fixture = fixture_with_alice();
    fixture.run(&["generate", "b\"ob"]).done();
    let lines = fixture.run(&["--json", "list"]).done();
    let mut ids: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(ids, [json!({ "id": "alice" }), json!({ "id": "b\"ob" })]);
}

#[test]
fn count() {
    assert_eq!(json_of(&fixture_with_alice(), &["count"]), json!({ "count": 1, "damaged": 0 }));
}

#[test]
fn exists() {
    let fixture = fixture_with_alice();
    assert_eq!(json_of(&fixture, &["exists", "alice"]), json!({ "exists": true, "erased": false }));
    let ran: Ran = fixture.run(&["--json", "exists", "bob"]);
    assert_eq!((ran.code, ran.json()), (3, json!({ "exists": false, "erased": false })));
}

#[test]
fn verify() {
    let fixture = fixture_with_alice();
    let intact =
        json!({ "intact": 1, "damaged_rows": [], "unreadable": 0, "structural_faults": 0, "in_rotation": false });
    assert_eq!(json_of(&fixture, &["verify"]), intact);
    fixture.damage("keys.db");
    let damaged = fixture.run(&["--json", "verify"]).json();
    assert_eq!(damaged["intact"], 0);
    assert_eq!(damaged["damaged_rows"][0].as_str().map(str::len), Some(64));
}

#[test]
fn rotate() {
    let fixture = fixture_with_alice();
    let told = without_store(&fixture, json_of(&fixture, &["rotate", "--new-root-secret-file", "new"]));
    assert_eq!(told, json!({ "root_secret_file": "new", "clean": true }));
}

#[test]
fn scrub() {
    assert_eq!(json_of(&Fixture::new(), &["scrub"]), json!({ "clean": true }));
}

#[test]
fn backup() {
    assert_eq!(json_of(&Fixture::new(), &["backup", "copy.db"]), json!({ "file": "copy.db" }));
}

#[test]
fn restore() {
    let fixture = Fixture::new();
    fixture.run(&["backup", "copy.db"]).done();
    let mut told = without_store(&fixture, json_of(&fixture, &["restore", "copy.db", "--yes"]));
    let replaced = told["replaced_store"].take();
    let beginning = format!("{}/keys.db.replaced-", fixture.directory().canonicalize().unwrap().display());
    assert!(replaced.as_str().is_some_and(|path| path.starts_with(&beginning)), "{replaced}");
    assert_eq!(told, json!({ "replaced_store": null }));
}

#[test]
fn doctor() {
    let fixture = fixture_with_alice();
    let told = without_store(&fixture, json_of(&fixture, &["doctor"]));
    assert_eq!(
        told["capabilities"],
        json!({ "durability": "host", "consistency": "strong", "deletion": "immediate", "listing": "strong" })
    );
    let checks =
        ["reach", "read", "list", "structure"].map(|check| json!({ "check": check, "ok": true, "error": null }));
    assert_eq!(told["checks"], json!(checks));
    assert_eq!((&told["keys"], &told["tier"]), (&json!({ "count": 1, "limit": null }), &Value::Null));
    let costs = &told["costs"];
    assert_eq!((&costs["users"], &costs["currency"], &costs["reads_a_day"]), (&json!(1), &json!("USD"), &json!(1)));
    assert_eq!(costs["backends"][0], json!({ "backend": "file", "limit": null, "monthly": 0.0 }));
}

#[test]
fn completions() {
    let told = json_of(&Fixture::empty(), &["completions", "bash"]);
    assert_eq!(told["shell"], "bash");
    assert!(told["script"].as_str().is_some_and(|script| script.contains("keystead")));
}

#[test]
fn conformance_is_the_suites_own_report() {
    let told = fixture_with_alice().run(&["--json", "--store", "memory:", "conformance", "delete.missing"]).json();
    assert_eq!(
        (&told["suite"], &told["store"], &told["failed"]),
        (&json!("keystead-conformance"), &json!("memory"), &json!(0))
    );
}

#[test]
fn an_error_is_a_value_on_standard_error() {
    let text = Fixture::new().run(&["--json", "get", "alice"]).failed(3);
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(
        told["error"],
        json!({
            "exit_code": 3,
            "message": "get on file failed: not found",
            "causes": [],
            "advice": ["there is no key with this id: check its spelling; ids are compared byte by byte"],
            "kind": "not_found",
            "operation": "get",
            "store": "file",
            "retryable": false,
            "retry_after_seconds": null,
            "may_have_been_applied": false,
            "aws": null,
        })
    );
}

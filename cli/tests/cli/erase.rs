//! `erase --ids-file` on a file store.

use std::fs;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::receipts::Fenced;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

#[test]
fn many_users_are_erased_and_counted() {
    let fenced = Fenced::with_users(100);
    let fixture = &fenced.fixture;
    let ids: Vec<String> = (0..90).map(|number| format!("user-{number}")).collect();
    // An empty line, a repeated id, an id without a key, and no line break at the end.
    fs::write(fixture.path("ids"), format!("{}\n\nuser-7\r\nnobody", ids.join("\n"))).unwrap();
    let ran = fenced.run(&["erase", "--ids-file", "ids", "--yes", "--receipts", "log"]);
    let text = ran.stdout.as_str();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(text.starts_with("complete: 90 of 91 users' keys were erased and verified\n"), "{text}");
    assert!(text.contains("there was no key, verified: 1") && text.contains("of an earlier line: 1"), "{text}");
    assert!(ran.stderr.contains("not reached by the erasure: backups"), "{ran:?}");
    assert_eq!(fixture.run(&["count"]).done(), "10\n");
    let told = fixture.run(&["--json", "receipt", "verify", "log"]).json();
    assert_eq!(told["receipts"], 91, "{told}");
    fenced.run(&["receipt", "check", "log", "user-89"]).done();
    assert!(fixture.run(&["generate", "user-3", "--tombstones", &fenced.tombstones]).failed(4).contains("erased"));
}

#[test]
fn each_user_has_a_line_of_json_with_a_receipt() {
    let fenced = Fenced::with_users(3);
    let ids = "user-2\nuser-0\nuser-1\n";
    fs::write(fenced.fixture.path("ids"), ids).unwrap();
    let args = ["--json", "erase", "--ids-file", "-", "--yes", "--tombstones", &fenced.tombstones];
    let ran = fenced.fixture.run_with(&args, ids);
    let mut told = lines(&ran.stdout);
    let summary = told.pop().unwrap();
    assert_eq!(
        summary,
        json!({
            "complete": true, "users": 3, "erased": 3, "no_key": 0, "erased_before": 0, "not_verified": 0,
            "recoverable": 0, "failed": 0, "not_begun": 0, "receipts_not_kept": 0, "repeated_lines": 0,
        })
    );
    told.sort_by_key(|value| value["line"].as_u64());
    for (value, line) in told.iter().zip(1..) {
        assert_eq!((&value["line"], &value["existed"], &value["verified"]), (&json!(line), &json!(true), &json!(true)));
        assert_eq!(value["receipt"]["tombstone"].as_str().map(str::len), Some(64), "{value}");
    }
    assert_eq!(told.len(), 3);
    assert!(!ran.stdout.contains("user-") && ran.stderr.is_empty(), "{ran:?}");
    // The printed receipts can be checked.
    fs::write(fenced.fixture.path("printed"), &ran.stdout).unwrap();
    assert!(fenced.run(&["receipt", "check", "printed"]).done().contains("proved: 3 of 3"));
}

#[test]
fn without_a_log_each_receipt_is_told_and_without_tombstones_there_is_none() {
    let fenced = Fenced::with_users(2);
    fs::write(fenced.fixture.path("ids"), "user-0\nnobody\n").unwrap();
    let text = fenced.run(&["erase", "--ids-file", "ids", "--yes"]).done();
    let mut told: Vec<&str> = text.lines().take(2).collect();
    told.sort_unstable();
    assert!(told[0].starts_with("line 1: erased; verified") && told[0].contains("; tombstone "), "{text}");
    assert!(told[1].starts_with("line 2: there was no key; verified"), "{text}");
    let text = fenced.fixture.run(&["erase", "--ids-file", "ids", "--yes"]).done();
    assert_eq!(text, "complete: 0 of 2 users' keys were erased and verified\n  there was no key, verified: 2\n");
    assert_eq!(fenced.fixture.run(&["count"]).done(), "1\n");
}

#[test]
fn all_lines_are_checked_before_the_first_key_is_erased() {
    let fixture = Fixture::new();
    fixture.fill(["alice-canary".to_owned()]);
    let long = "x".repeat(129);
    for (text, why) in [
        ("alice-canary\nca\u{7}nary\n", "line 2 of the ids"),
        (&format!("alice-canary\n\n{long}canary\n"), "line 3 of the ids"),
        ("alice-canary\n  \n", "only blanks"),
        ("\u{feff}alice-canary\n", "byte order mark"),
        ("", "contains no id"),
        ("\n\n", "contains no id"),
    ] {
        fs::write(fixture.path("ids"), text).unwrap();
        let refusal = fixture.run(&["erase", "--ids-file", "ids", "--yes"]).failed(2);
        assert!(refusal.contains(why) && !refusal.contains("canary"), "{refusal}");
    }
    fs::write(fixture.path("ids"), b"alice-canary\n\xff\n").unwrap();
    assert!(fixture.run(&["erase", "--ids-file", "ids", "--yes"]).failed(2).contains("line 2 of the ids"));
    fixture.run(&["erase", "--ids-file", "missing", "--yes"]).failed(2);
    fixture.run(&["erase", "alice-canary", "--ids-file", "ids", "--yes"]).failed(2);
    fixture.run(&["erase", "--yes"]).failed(2);
    assert_eq!(fixture.run(&["exists", "alice-canary"]).done(), "yes\n");
}

#[test]
fn many_users_are_not_erased_unasked() {
    let fenced = Fenced::with_users(2);
    let args = ["erase", "--ids-file", "-", "--tombstones", &fenced.tombstones, "--receipts", "log"];
    let refusal = fenced.fixture.run_with(&args, "user-0\nuser-1\n").failed(4);
    assert!(refusal.contains("nothing was erased") && refusal.contains("--yes"), "{refusal}");
    assert_eq!(fenced.fixture.run(&["count"]).done(), "2\n");
    assert!(!fenced.fixture.path("log").exists());
}

#[test]
fn a_blank_at_the_end_of_an_id_is_told() {
    let fixture = Fixture::new();
    fs::write(fixture.path("ids"), "alice\nbob \n").unwrap();
    let ran = fixture.run(&["erase", "--ids-file", "ids", "--yes"]);
    assert!(ran.code == 0 && ran.stderr.contains("the id on line 2 begins or ends with a blank"), "{ran:?}");
}

#[test]
fn resume_leaves_out_whom_the_log_proves() {
    let fenced = Fenced::with_users(4);
    let fixture = &fenced.fixture;
    fs::write(fixture.path("ids"), "user-0\nuser-1\nuser-2\n").unwrap();
    let args = ["erase", "--ids-file", "ids", "--yes", "--receipts", "log", "--resume"];
    assert!(fenced.run(&args).failed(2).contains("no receipt log log to resume from"));
    fenced.erase(1, &[]).done();
    let text = fenced.run(&args).done();
    assert!(text.starts_with("complete: 2 of 3 users") && text.contains("receipts in the log: 1"), "{text}");
    let before = fs::read(fixture.path("log")).unwrap();
    let text = fenced.run(&args).done();
    assert!(text.starts_with("complete: 0 of 3 users") && text.contains("receipts in the log: 3"), "{text}");
    assert_eq!(fs::read(fixture.path("log")).unwrap(), before);
    // Without --resume, all users are erased again.
    let text = fenced.run(&args[..6]).done();
    assert!(text.contains("there was no key, verified: 3"), "{text}");

    // The log has no receipts of this other store.
    let directory = fixture.directory().display();
    let other = format!("file://{directory}/other.db?root_secret_file={directory}/other.secret");
    fixture.run(&["--store", &other, "init"]).done();
    let text = fenced.run(&[&["--store", &other], &args[..]].concat()).done();
    assert!(text.contains("there was no key, verified: 3"), "{text}");

    // A log that is not whole is not trusted.
    let log = fs::read_to_string(fixture.path("log")).unwrap();
    fs::write(fixture.path("log"), log.replacen("\"existed\":true", "\"existed\":false", 1)).unwrap();
    assert!(fenced.run(&args).failed(7).contains("nothing was erased: line 3 of the log"));
}

#[test]
fn resume_erases_again_whom_the_tombstones_do_not_prove() {
    let fenced = Fenced::with_users(2);
    let fixture = &fenced.fixture;
    fs::write(fixture.path("ids"), "user-0\n").unwrap();
    fenced.erase(0, &[]).done();
    // Another store of tombstones, which has none of this user.
    let directory = fixture.directory().display();
    let other = format!("file://{directory}/other.db?root_secret_file={directory}/other.secret");
    fixture.run(&["--store", &other, "init"]).done();
    let args = ["erase", "--ids-file", "ids", "--yes", "--receipts", "log", "--resume", "--tombstones", &other];
    let text = fixture.run(&args).done();
    assert!(text.contains("there was no key, verified: 1"), "{text}");
}

#[test]
fn a_damaged_key_among_many_is_erased_like_the_others() {
    let fenced = Fenced::with_users(3);
    fenced.fixture.damage("keys.db");
    fs::write(fenced.fixture.path("ids"), "user-0\nuser-1\nuser-2\n").unwrap();
    let ran = fenced.run(&["--json", "erase", "--ids-file", "ids", "--yes"]);
    let told = lines(&ran.stdout);
    let summary = told.last().unwrap();
    assert_eq!((ran.code, &summary["erased"]), (0, &json!(3)), "{ran:?}");
}

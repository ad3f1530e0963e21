//! `generate`, `put`, `create`, `get`, `exists`, `delete`, `erase`, `list` and `count`.

use std::fs;

use serde_json::json;

use crate::fixture::{Fixture, KEY};

#[test]
fn a_key_is_put_and_read_in_every_format() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run_with(&["put", "alice"], KEY).done(), "stored\n");
    assert_eq!(fixture.run(&["get", "alice"]).done(), format!("{KEY}\n"));
    assert_eq!(
        fixture.run(&["get", "alice", "--format", "base64"]).done(),
        "ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\n"
    );
    let raw = fixture.command(&["get", "alice", "--format", "raw"]).output().unwrap().stdout;
    assert_eq!((raw.len(), raw[1], raw[31]), (32, 0x11, 0xff));

    for (format, written) in
        [("raw", raw), ("base64", b"ABEiM0RVZneImaq7zN3u/wARIjNEVWZ3iJmqu8zd7v8=\n".to_vec()), ("hex", KEY.into())]
    {
        assert_eq!(fixture.run_with(&["put", format, "--format", format], written).done(), "stored\n");
        assert_eq!(fixture.run(&["get", format]).done(), format!("{KEY}\n"));
    }
    assert_eq!(fixture.run(&["count"]).done(), "4\n");
}

#[test]
fn put_replaces_a_key_only_when_told_to_and_create_never() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run_with(&["create", "alice"], "aa\n").done(), "created\n");
    let refusal = fixture.run_with(&["create", "alice"], "bb\n").failed(4);
    assert!(refusal.contains("already exists") && refusal.contains("left unchanged"), "{refusal}");
    for args in [&["create", "alice"][..], &["put", "alice"], &["generate", "alice"]] {
        let refusal = fixture.run_with(args, "bb\n").failed(4);
        assert!(refusal.contains("left unchanged"), "{refusal}");
        // The store's own name of the operation is `create` in each case.
        assert!(refusal.starts_with(&format!("error: {} on file failed: already exists\n", args[0])), "{refusal}");
    }
    assert_eq!(fixture.run(&["get", "alice"]).done(), "aa\n");
    assert_eq!(fixture.run_with(&["put", "alice"], "aa").done(), "the same key is already stored\n");
    fixture.run_with(&["create", "alice"], "aa").failed(4);
    assert_eq!(fixture.run_with(&["put", "alice", "--overwrite"], "cc").done(), "stored\n");
    assert_eq!(fixture.run(&["get", "alice"]).done(), "cc\n");
}

#[test]
fn a_generated_key_goes_to_standard_output_a_file_or_the_store() {
    let fixture = Fixture::new();
    let key = fixture.run_storeless(&["generate"]).done();
    assert_eq!(key.len(), 65);
    assert_ne!(fixture.run_storeless(&["generate"]).done(), key);
    assert_eq!(fixture.run_storeless(&["generate", "--length", "5"]).done().len(), 11);
    assert!(fixture.run_storeless(&["generate", "--length", "0"]).failed(2).contains("empty"));

    assert!(fixture.run_storeless(&["generate", "--out", "key.hex"]).done().starts_with("the key is in key.hex"));
    let written = fs::read_to_string(fixture.path("key.hex")).unwrap();
    assert_eq!(written.len(), 65);
    assert_eq!(mode(&fixture, "key.hex"), 0o600);
    assert!(fixture.run_storeless(&["generate", "--out", "key.hex"]).failed(4).contains("left unchanged"));
    assert_eq!(fs::read_to_string(fixture.path("key.hex")).unwrap(), written);

    assert_eq!(fixture.run(&["generate", "alice"]).done(), "created\n");
    assert_eq!(fixture.run(&["get", "alice"]).done().len(), 65);
    fixture.run(&["generate", "alice"]).failed(4);
    fixture.run(&["generate", "bob", "--format", "raw"]).failed(2);
}

#[test]
fn a_key_goes_from_file_to_file_and_no_file_is_overwritten() {
    let fixture = Fixture::new();
    fs::write(fixture.path("in"), KEY).unwrap();
    fixture.run(&["put", "alice", "--key-file", "in"]).done();
    fixture.run(&["get", "alice", "--out", "out"]).done();
    assert_eq!(fs::read_to_string(fixture.path("out")).unwrap(), format!("{KEY}\n"));
    assert_eq!(mode(&fixture, "out"), 0o600);
    fixture.run(&["get", "alice", "--out", "in"]).failed(4);
    assert!(fixture.run(&["put", "alice", "--key-file", "missing"]).failed(2).contains("the key cannot be read"));
}

#[test]
fn an_id_comes_from_the_command_line_a_file_or_standard_input() {
    let fixture = Fixture::new();
    fs::write(fixture.path("id"), "alice@example.com\n").unwrap();
    fixture.run_with(&["put", "--id-file", "id"], KEY).done();
    assert_eq!(fixture.run_with(&["exists", "-"], "alice@example.com\n").done(), "yes\n");
    assert_eq!(fixture.run(&["exists", "alice@example.com"]).done(), "yes\n");
    assert_eq!(fixture.run(&["exists", "--", "-n"]).code, 3);

    assert!(fixture.run_with(&["put", "-"], KEY).failed(2).contains("the id and the key cannot both"));
    assert!(fixture.run(&["get", "a\tb"]).failed(2).contains("control character"));
    assert!(fixture.run(&["get", &"x".repeat(129)]).failed(2).contains("at most 128"));
    assert!(fixture.run_with(&["get", "-"], vec![b'x'; 5000]).failed(2).contains("longer than 130 bytes"));
    assert!(fixture.run_with(&["get", "-"], [0xff]).failed(2).contains("UTF-8"));
    fixture.run(&["get"]).failed(2);
    fixture.run(&["get", "alice", "--id-file", "id"]).failed(2);
}

#[test]
fn what_is_no_key_is_refused_before_the_store_is_opened() {
    let fixture = Fixture::new();
    for (args, stdin) in [
        (vec!["put", "alice"], "xyz".to_owned()),
        (vec!["put", "alice"], String::new()),
        (vec!["put", "alice", "--format", "base64"], "A-_A".to_owned()),
        (vec!["put", "alice", "--format", "raw"], "x".repeat(3073)),
        (vec!["put", "alice"], "0".repeat(70_000)),
    ] {
        fixture.run_with(&args, stdin).failed(2);
    }
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

#[test]
fn a_missing_key_is_its_own_exit_code() {
    let fixture = Fixture::new();
    let text = fixture.run(&["get", "alice"]).failed(3);
    assert!(text.starts_with("error: get on file failed: not found\n  "), "{text}");
    fixture.run(&["delete", "alice", "--yes"]).failed(3);
    let ran = fixture.run(&["exists", "alice"]);
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (3, "no\n", ""));
}

#[test]
fn a_key_is_deleted_and_erased() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    assert_eq!(fixture.run(&["delete", "alice", "--yes"]).done(), "deleted: its bytes are beyond recovery\n");
    fixture.run(&["get", "alice"]).failed(3);

    fixture.run(&["generate", "bob"]).done();
    let refusal = fixture.run(&["erase", "bob"]).failed(4);
    assert!(refusal.contains("no terminal") && refusal.contains("--yes"), "{refusal}");
    assert_eq!(fixture.run(&["exists", "bob"]).done(), "yes\n");
    assert_eq!(
        fixture.run(&["erase", "bob", "--yes"]).done(),
        "erased; verified: a read finds nothing; its bytes are beyond recovery\n"
    );
    assert_eq!(
        fixture.run(&["erase", "bob", "--yes"]).done(),
        "there was no key; verified: a read finds nothing; its bytes are beyond recovery\n"
    );
}

#[test]
fn an_erasure_with_tombstones_gives_a_receipt_and_stays() {
    let fixture = Fixture::new();
    let url =
        |secret: &str| format!("file://{0}/tombstones.db?root_secret_file={0}/{secret}", fixture.directory().display());
    let tombstones = url("tombstones.secret");
    fixture.run(&["--store", &tombstones, "init"]).done();
    fixture.run(&["generate", "alice", "--tombstones", &tombstones]).done();

    let receipt = fixture.run(&["erase", "alice", "--yes", "--tombstones", &tombstones]).done();
    let lines: Vec<&str> = receipt.lines().collect();
    assert!(lines[0].starts_with("erased; verified"), "{receipt}");
    let starts = ["store      file:", "tombstone  ", "erased     20", "finished   20"];
    assert!(lines[1..].iter().zip(starts).all(|(line, start)| line.starts_with(start)), "{receipt}");
    let again = fixture.run(&["--json", "erase", "alice", "--yes", "--tombstones", &tombstones]).json();
    let tombstone = again["receipt"]["tombstone"].as_str().unwrap();
    assert!(receipt.contains(tombstone) && tombstone.len() == 64, "{again}");
    assert_eq!((&again["existed"], &again["receipt"]["verified"]), (&false.into(), &true.into()));

    assert!(fixture.run_with(&["put", "alice", "--tombstones", &tombstones], KEY).failed(4).contains("erased"));
    fixture.run(&["generate", "alice", "--tombstones", &tombstones]).failed(4);
    fixture.run(&["generate", "bob", "--tombstones", &tombstones]).done();
    assert_eq!(fixture.run(&["list"]).done(), "bob\n");

    assert!(
        fixture.run(&["erase", "bob", "--yes", "--tombstones", "memory:"]).failed(2).contains("a store that lasts")
    );
    fixture.run(&["erase", "bob", "--yes", "--tombstones", &url("missing")]).failed(2);
    fixture.run(&["generate", "--tombstones", &tombstones]).failed(2);
    assert_eq!(fixture.run(&["exists", "bob"]).done(), "yes\n");
}

#[test]
fn a_restore_is_reconciled_with_the_tombstones() {
    let fixture = Fixture::new();
    let directory = fixture.directory().display().to_string();
    let tombstones = format!("file://{directory}/tombstones.db?root_secret_file={directory}/tombstones.secret");
    fixture.run(&["--store", &tombstones, "init"]).done();
    fixture.fill(["alice".to_owned(), "bob".to_owned(), "carol".to_owned()]);
    fixture.run(&["backup", "monday.db"]).done();
    fixture.run(&["erase", "alice", "--yes", "--tombstones", &tombstones]).done();
    let restored = format!("file://{directory}/monday.db?root_secret_file={directory}/root.secret");
    let reconcile = ["--store", &restored, "reconcile", "--tombstones", &tombstones];
    assert!(fixture.run(&reconcile).failed(4).contains("nothing was erased"));
    assert_eq!(fixture.run(&["--store", &restored, "exists", "alice"]).done(), "yes\n");

    let told = fixture.run(&[&["--json"], &reconcile[..], &["--dry-run"]].concat()).json();
    assert_eq!(told, json!({ "dry_run": true, "listed": 3, "to_erase": 1, "unlisted": 0 }));
    let told = fixture.run(&[&reconcile[..], &["--dry-run"]].concat()).done();
    assert!(told.ends_with("keys of erased users that would be erased again: 1\n"), "{told}");
    assert_eq!(fixture.run(&["--store", &restored, "exists", "alice"]).done(), "yes\n");

    let reconcile = [&reconcile[..], &["--yes"]].concat();
    let told = fixture.run(&reconcile).done();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("erased again: tombstone ") && lines[0].contains("; verified; "), "{told}");
    assert_eq!(lines[1], "reconciled: 3 keys are listed; keys of erased users that were erased again: 1");
    assert_eq!(fixture.run(&["--store", &restored, "exists", "alice"]).code, 3);
    let again = fixture.run(&[&["--json"], &reconcile[..]].concat()).json();
    assert_eq!((&again["complete"], &again["listed"], &again["erased"]), (&true.into(), &2.into(), &0.into()));
}

#[test]
fn tombstones_in_the_store_of_the_keys_are_refused() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let refusal = fixture.run(&["erase", "alice", "--yes", "--tombstones", &fixture.url()]).failed(2);
    assert!(refusal.contains("a store of their own"), "{refusal}");
    assert_eq!(fixture.run(&["exists", "alice"]).done(), "yes\n");
}

#[test]
fn the_ids_are_listed_and_counted() {
    let fixture = Fixture::new();
    assert_eq!(fixture.run(&["list"]).done(), "");
    let ids: Vec<String> = (0..1_000).map(|number| format!("user-{number:04}")).collect();
    fixture.fill(ids.clone());
    let listed = fixture.run(&["list"]).done();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ids);
    assert_eq!(fixture.run(&["count"]).done(), "1000\n");
}

#[test]
fn a_damaged_record_is_told_and_the_rest_is_listed() {
    let fixture = Fixture::new();
    fixture.fill(["alice".to_owned(), "bob".to_owned()]);
    fixture.damage("keys.db");
    let ran = fixture.run(&["count"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (7, "1\n"), "{ran:?}");
    assert!(ran.stderr.contains("1 entry is damaged"), "{ran:?}");
    assert_eq!(fixture.run(&["list"]).code, 7);
    let codes = [fixture.run(&["get", "alice"]).code, fixture.run(&["get", "bob"]).code];
    assert!(codes == [0, 7] || codes == [7, 0], "{codes:?}");
}

fn mode(fixture: &Fixture, name: &str) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(fixture.path(name)).unwrap().permissions().mode() & 0o777
}

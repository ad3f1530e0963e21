//! A key appears in no process list, no environment, no message, and no file other than its destination.

use std::fs;
use std::io::Write;

use crate::fixture::{Fixture, KEY};

#[test]
fn a_key_on_its_way_in_is_in_no_argument_no_environment_and_no_text() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["put", "alice"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(KEY.as_bytes()).unwrap();
    let process = format!("/proc/{}", child.id());
    let seen = [fs::read(format!("{process}/cmdline")).unwrap(), fs::read(format!("{process}/environ")).unwrap()];
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let raw: Vec<u8> = (0..32).map(|byte: u8| (byte % 16) * 0x11).collect();
    for text in seen.iter().chain([&output.stdout, &output.stderr]) {
        expect_no_key_in(text, &raw);
    }
    for entry in fs::read_dir(fixture.directory()).unwrap() {
        expect_no_key_in(&fs::read(entry.unwrap().path()).unwrap(), &raw);
    }
    assert_eq!(fixture.run(&["get", "alice"]).done(), format!("{KEY}\n"));
}

#[test]
fn a_key_where_none_belongs_is_refused_and_not_repeated() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    for args in [
        &["put", "alice", KEY][..],
        &["put", "alice", "--key", KEY],
        &["put", "alice", "--format", KEY],
        &["put", KEY, KEY, KEY],
        &["get", "alice", KEY],
        &[KEY],
        &["--store", KEY, "get", "alice"],
        &["generate", "--length", KEY],
        &["get", KEY],
        &["delete", KEY],
        &["create", KEY],
        &["put", "alice", "--key-file", "/dev/null"],
    ] {
        let ran = fixture.run(args);
        assert_ne!(ran.code, 0, "{args:?}");
        assert!(!ran.stderr.contains(&KEY[..16]) && ran.stdout.is_empty(), "{args:?}: {ran:?}");
    }
    let almost = format!("{KEY}x");
    for format in ["hex", "base64"] {
        let text = fixture.run_with(&["put", "alice", "--format", format], &almost).failed(2);
        assert!(!text.contains(&KEY[..16]), "{text}");
    }
}

#[test]
fn an_id_is_in_no_error() {
    let fixture = Fixture::new();
    for args in [&["get", "alice-canary"][..], &["delete", "alice-canary", "--yes"], &["--json", "get", "alice-canary"]]
    {
        let text = fixture.run(args).failed(3);
        assert!(!text.contains("canary"), "{text}");
    }
}

fn expect_no_key_in(text: &[u8], raw: &[u8]) {
    let holds = |part: &[u8]| text.windows(part.len()).any(|window| window == part);
    assert!(!holds(raw) && !holds(&KEY.as_bytes()[..32]), "a key stands where none belongs");
}

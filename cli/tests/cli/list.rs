//! `list`: the selection and the form of the ids, and the number of writes.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fixture::{Fixture, sorted_lines};
use crate::terminal::in_terminal;

const PROGRAM: &str = env!("CARGO_BIN_EXE_keystead");

fn tenants() -> Fixture {
    let fixture = Fixture::new();
    fixture.fill(["tenant-1:a", "tenant-1:b", "tenant-2:a", "x-tenant-1:"].map(str::to_owned));
    fixture
}

#[test]
fn the_ids_that_begin_with_a_text_are_listed() {
    let fixture = tenants();
    assert_eq!(sorted_lines(&fixture.run(&["list", "--prefix", "tenant-1:"]).done()), ["tenant-1:a", "tenant-1:b"]);
    assert_eq!(sorted_lines(&fixture.run(&["list", "--prefix", ""]).done()).len(), 4);
    assert_eq!(fixture.run(&["list", "--prefix", "tenant-3"]).done(), "");
}

#[test]
fn no_more_ids_are_listed_than_was_said() {
    let fixture = tenants();
    for (limit, count) in [("1", 1), ("3", 3), ("4", 4), ("1000", 4)] {
        assert_eq!(fixture.run(&["list", "--limit", limit]).done().lines().count(), count);
    }
    let listed = fixture.run(&["list", "--limit", "1", "--prefix", "tenant-2"]).done();
    assert_eq!(listed, "tenant-2:a\n");
    for limit in ["0", "-1", "many"] {
        fixture.run(&["list", "--limit", limit]).failed(2);
    }
}

#[test]
fn json_lines_keep_every_id_as_it_is() {
    let fixture = Fixture::new();
    let ids = ["two\u{2028}lines", "a\u{202e}b", "\"quoted\"", "plain"];
    fixture.fill(ids.map(str::to_owned));
    let text = fixture.run(&["list", "--json"]).done();
    let mut listed: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    listed.sort_unstable();
    let mut ids = ids.map(str::to_owned);
    ids.sort_unstable();
    assert_eq!(listed, ids);
}

#[test]
fn a_pipe_gets_the_bytes_of_an_id_and_a_terminal_what_cannot_mislead() {
    let fixture = Fixture::new();
    let ids = ["a\u{202e}b", "c\u{2066}d", "e\u{2028}f", "k\u{200f}l\u{61c}", "ジョン", "m\\n"];
    fixture.fill(ids.map(str::to_owned));
    let mut sorted = ids.to_vec();
    sorted.sort_unstable();
    let piped = fixture.run(&["list"]).done();
    let mut lines: Vec<&str> = piped.split_terminator('\n').collect();
    lines.sort_unstable();
    assert_eq!(lines, sorted);

    let session = in_terminal(&fixture, &fixture.url(), 80, &[PROGRAM, "list"], json!([]));
    let mut lines: Vec<&str> = session.shown.split_terminator("\r\n").collect();
    lines.sort_unstable();
    let shown = [r"a\u202eb", r"c\u2066d", r"e\u2028f", r"k\u200fl\u061c", "m\\n", "ジョン"];
    assert_eq!(lines, shown);

    let session = in_terminal(&fixture, &fixture.url(), 80, &[PROGRAM, "list", "--json"], json!([]));
    let raw = ['\u{202e}', '\u{2066}', '\u{2028}', '\u{200f}', '\u{61c}'];
    assert!(!session.shown.contains(raw), "{}", session.shown);
    let mut listed: Vec<String> = session
        .shown
        .split_terminator("\r\n")
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].as_str().unwrap().to_owned())
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, sorted);
}

#[test]
fn many_ids_take_few_writes() {
    let fixture = Fixture::new();
    fixture.fill((0..5_000).map(|number| format!("user-{number}")));
    // Each write becomes one message.
    let (here, there) = UnixDatagram::pair().unwrap();
    here.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut child = fixture.command(&["list"]).stdout(Stdio::from(OwnedFd::from(there))).spawn().unwrap();
    let mut text = Vec::new();
    let mut writes = 0;
    let mut message = vec![0; 1 << 20];
    while text.iter().filter(|byte| **byte == b'\n').count() < 5_000 {
        let len = here.recv(&mut message).unwrap();
        text.extend_from_slice(&message[..len]);
        writes += 1;
    }
    assert!(child.wait().unwrap().success());
    assert!(writes <= 100, "{writes} writes");
}

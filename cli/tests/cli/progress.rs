//! The progress of `copy`, on terminals of any width and elsewhere.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::fixture::Fixture;
use crate::terminal::in_terminal;

/// Creates a fixture with a second store, and returns the URL of that store, too.
fn two_stores(keys: usize) -> (Fixture, String) {
    let fixture = Fixture::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", fixture.directory().display());
    fixture.run(&["--store", &other, "init"]).done();
    fixture.fill((0..keys).map(|number| format!("user-{number}")));
    (fixture, other)
}

#[test]
fn no_line_of_progress_is_wider_than_the_terminal() {
    for (columns, last) in [(20, "copying 100%"), (40, "copying 1000 of 1000, "), (80, "] 1000 of 1000, ")] {
        let (fixture, other) = two_stores(1_000);
        let program = [env!("CARGO_BIN_EXE_keystead"), "copy", "--to", other.as_str()];
        let session = in_terminal(&fixture, &fixture.url(), columns, &program, json!([]));
        assert_eq!(session.code, 0, "{}", session.shown);
        assert!(session.shown.contains(last), "{columns}: {}", session.shown);
        let mut told = 0;
        // A rewritten line begins with a carriage return and ends by clearing the rest of the line.
        for line in session.shown.split("\u{1b}[K").filter_map(|line| line.rsplit('\r').next()) {
            if line.starts_with("copying") || line.starts_with("counting") || line.starts_with("checking") {
                assert!(line.len() < usize::from(columns), "{columns}: {line:?}");
                told += 1;
            }
        }
        assert!(told >= 3, "{}", session.shown);
    }
}

#[test]
fn a_slow_copy_tells_its_first_keys_at_once_and_goes_on_telling() {
    let (fixture, other) = two_stores(40);
    let program =
        [env!("CARGO_BIN_EXE_keystead"), "copy", "--to", other.as_str(), "--rate", "10", "--concurrency", "1"];
    let session = in_terminal(&fixture, &fixture.url(), 80, &program, json!([]));
    assert_eq!(session.code, 0, "{}", session.shown);
    let told: Vec<u64> =
        session.shown.split("] ").skip(1).filter_map(|rest| rest.split_once(" of 40, ")?.0.parse().ok()).collect();
    // Two seconds are ten keys of each store, told each half a second.
    assert!(
        told.first().is_some_and(|first| *first <= 20) && told.iter().any(|done| (1..40).contains(done)),
        "{told:?}"
    );
}

#[test]
fn elsewhere_the_first_line_comes_with_the_first_keys() {
    let (fixture, other) = two_stores(200);
    let mut child = fixture
        .command(&["copy", "--to", &other, "--rate", "5"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let start = Instant::now();
    let mut line = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("copying: ") && start.elapsed() < Duration::from_secs(9), "{line} {:?}", start.elapsed());
}

#[test]
fn what_is_quick_and_has_no_terminal_tells_nothing_else_on_standard_error() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let output = fixture.command(&["verify"]).stderr(File::create(fixture.path("err")).unwrap()).output().unwrap();
    assert!(output.status.success());
    assert_eq!(std::fs::read_to_string(fixture.path("err")).unwrap(), "");
}

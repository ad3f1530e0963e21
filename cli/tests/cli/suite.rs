//! `conformance` on a memory store and on a file store.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, Ran};

/// Returns the names of the suite's directories beside the store.
fn scratch(fixture: &Fixture) -> Vec<String> {
    let entries = fs::read_dir(fixture.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("keystead-conformance-")).collect()
}

/// Reads the standard error of a run until the suite is under way. Returns the name of its namespace,
/// which is empty for `memory:`. A thread reads the rest.
pub(crate) fn namespace_of_running(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let mut namespace = String::new();
    for line in &mut lines {
        if let Some((_, rest)) = line.split_once("--clean-up ") {
            namespace = rest.split(' ').next().unwrap().to_owned();
        }
        if line.starts_with("cases [") {
            break;
        }
    }
    std::thread::spawn(move || lines.for_each(drop));
    namespace
}

#[test]
fn the_suite_runs_over_a_memory_store_and_a_file_store() {
    let fixture = Fixture::new();
    for (store, name) in [("memory:", "memory"), (fixture.url().as_str(), "file")] {
        let ran = fixture.run(&["--store", store, "conformance", "--scale", "0.1", "get.", "delete."]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.starts_with(&format!("{name}: ")) && ran.stdout.contains(" 0 failed, "), "{ran:?}");
        assert!(ran.stderr.contains(" cases against ") && ran.stderr.contains("\ncases [...."), "{ran:?}");
        assert_eq!(ran.stderr.contains("--clean-up ks"), name == "file", "{ran:?}");
    }
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
    assert_eq!(scratch(&fixture), [""; 0]);
}

#[test]
fn the_suite_writes_a_report_for_ci_and_replaces_no_other_file() {
    let fixture = Fixture::empty();
    let run = |file: &str| fixture.run(&["--store", "memory:", "conformance", "delete.missing", "--junit", file]);
    run("report.xml").done();
    let report = fs::read_to_string(fixture.path("report.xml")).unwrap();
    assert!(report.contains("<testsuite"));
    run("report.xml").done();

    fs::create_dir(fixture.path("directory")).unwrap();
    for (name, contents) in [
        ("keys.db", "precious"),
        ("empty", ""),
        ("other.xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"somebody else's\"/>"),
    ] {
        fs::write(fixture.path(name), contents).unwrap();
        let text = run(name).failed(4);
        assert!(text.contains("left unchanged") && !text.contains("cases against"), "{text}");
        assert_eq!(fs::read_to_string(fixture.path(name)).unwrap(), contents);
    }
    assert!(run("directory").failed(4).contains("left unchanged"));
    assert!(run("nowhere/report.xml").failed(2).contains("no directory nowhere"));
}

#[test]
fn the_result_is_shown_even_if_the_report_cannot_be_written() {
    let fixture = Fixture::empty();
    let mut child = fixture.spawn(&["--store", "memory:", "conformance", "--scale", "0.1", "--junit", "report.xml"]);
    assert_eq!(namespace_of_running(&mut child), "");
    fs::create_dir(fixture.path("report.xml")).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.code == 4 && ran.stdout.starts_with("memory: ") && ran.stdout.contains(" 0 failed, "), "{ran:?}");
}

#[test]
fn the_line_that_runs_a_case_again_repeats_the_scale() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["conformance", "--scale", "0.1", "--jobs", "1"]);
    let namespace = namespace_of_running(&mut child);
    // Each case that begins from now on fails.
    let directory = fixture.path(&format!("keystead-conformance-{namespace}"));
    fs::rename(&directory, fixture.path("away")).unwrap();
    fs::write(&directory, "").unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.stdout.contains("\n   rerun: keystead conformance --scale 0.1 "), "{ran:?}");
    // The file in its place is not one of the suite's.
    assert_eq!(ran.code, 11, "{ran:?}");
    assert_eq!(fs::read(&directory).unwrap(), b"");
}

#[test]
fn what_the_suite_cannot_run_is_refused_before_anything_is_made() {
    let fixture = Fixture::new();
    assert!(fixture.run(&["conformance", "no.such.case"]).failed(2).contains("no case"));
    fixture.run(&["conformance", "--scale", "0"]).failed(2);
    fixture.run(&["conformance", "get.", "--junit", "root.secret"]).failed(4);
    assert_eq!(scratch(&fixture), [""; 0]);
    fixture.run(&["--store", "ssm:///x/%s", "conformance"]).failed(2);
    for name in ["", "..", "ks", "ks/../../../../..", "KS0123456789abcd", "ks0123456789abcd/.."] {
        fixture.run(&["conformance", "--clean-up", name]).failed(2);
    }
    fixture.run(&["conformance", "--clean-up", "ks0123456789abcd", "get."]).failed(2);
    fixture.run(&["--store", "memory:", "conformance", "--clean-up", "ks0123456789abcd"]).failed(2);
}

#[test]
fn a_run_that_is_interrupted_leaves_nothing() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["conformance"]);
    let namespace = namespace_of_running(&mut child);
    assert_eq!(scratch(&fixture), [format!("keystead-conformance-{namespace}")]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(scratch(&fixture), [""; 0]);
}

#[test]
fn what_a_run_that_was_killed_has_left_is_deleted_by_its_name() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["conformance"]);
    let namespace = namespace_of_running(&mut child);
    let directory = format!("keystead-conformance-{namespace}");
    while fs::read_dir(fixture.path(&directory)).unwrap().next().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch(&fixture), [directory.as_str()]);
    let clean_up = ["conformance", "--clean-up", namespace.as_str()];

    fs::write(fixture.path(&directory).join("notes.txt"), "mine").unwrap();
    assert!(fixture.run(&clean_up).failed(4).contains("left unchanged"));
    fs::remove_file(fixture.path(&directory).join("notes.txt")).unwrap();

    let text = fixture.run(&clean_up).done();
    assert!(text.starts_with("deleted what ks"), "{text}");
    assert_eq!(scratch(&fixture), [""; 0]);
    assert_eq!(fixture.run(&clean_up).done(), format!("nothing is left of {namespace}\n"));
    assert_eq!(
        fixture.run(&["--json", "conformance", "--clean-up", &namespace]).json(),
        serde_json::json!({ "namespace": namespace, "deleted": 0 })
    );
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

//! `conformance`: the suite over stores that were not written for it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Child;

use rustix::process::{Pid, Signal, kill_process};

use crate::room::{Ran, Room};

/// Returns the names that the suite has made beside the store.
fn scratch(room: &Room) -> Vec<String> {
    let entries = fs::read_dir(room.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("keystead-conformance-")).collect()
}

/// Reads a run's standard error until the suite is under way, and returns the name of its namespace; an empty one over
/// `memory:`. Another thread reads on.
pub(crate) fn namespace_of_running(child: &mut Child) -> String {
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let mut namespace = String::new();
    for line in &mut lines {
        if let Some((_, rest)) = line.split_once("--clean-up ") {
            namespace = rest.split(',').next().unwrap().to_owned();
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
    let room = Room::new();
    for (store, name) in [("memory:", "memory"), (room.url().as_str(), "file")] {
        let ran = room.run(&["--store", store, "conformance", "--scale", "0.1", "get.", "delete."]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.starts_with(&format!("{name}: ")) && ran.stdout.contains(" 0 failed, "), "{ran:?}");
        assert!(ran.stderr.contains(" cases over ") && ran.stderr.contains("\ncases [...."), "{ran:?}");
        assert_eq!(ran.stderr.contains("--clean-up ks"), name == "file", "{ran:?}");
    }
    assert_eq!(room.run(&["count"]).done(), "0\n");
    assert_eq!(scratch(&room), [""; 0]);
}

#[test]
fn the_suite_writes_a_report_for_ci_and_replaces_no_other_file() {
    let room = Room::empty();
    let run = |file: &str| room.run(&["--store", "memory:", "conformance", "delete.missing", "--junit", file]);
    run("report.xml").done();
    let report = fs::read_to_string(room.path("report.xml")).unwrap();
    assert!(report.contains("<testsuite"));
    run("report.xml").done();

    fs::create_dir(room.path("directory")).unwrap();
    for (name, contents) in [
        ("keys.db", "precious"),
        ("empty", ""),
        ("other.xml", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"somebody else's\"/>"),
    ] {
        fs::write(room.path(name), contents).unwrap();
        let text = run(name).failed(4);
        assert!(text.contains("left unchanged") && !text.contains("cases over"), "{text}");
        assert_eq!(fs::read_to_string(room.path(name)).unwrap(), contents);
    }
    assert!(run("directory").failed(4).contains("left unchanged"));
    assert!(run("nowhere/report.xml").failed(2).contains("no directory nowhere"));
}

#[test]
fn the_result_is_shown_even_if_the_report_cannot_be_written() {
    let room = Room::empty();
    let mut child = room.spawn(&["--store", "memory:", "conformance", "--scale", "0.1", "--junit", "report.xml"]);
    assert_eq!(namespace_of_running(&mut child), "");
    fs::create_dir(room.path("report.xml")).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.code == 4 && ran.stdout.starts_with("memory: ") && ran.stdout.contains(" 0 failed, "), "{ran:?}");
}

#[test]
fn the_line_that_runs_a_case_again_repeats_the_scale() {
    let room = Room::new();
    let mut child = room.spawn(&["conformance", "--scale", "0.1", "--jobs", "1"]);
    let namespace = namespace_of_running(&mut child);
    // Every case that begins from now on fails.
    let directory = room.path(&format!("keystead-conformance-{namespace}"));
    fs::rename(&directory, room.path("away")).unwrap();
    fs::write(&directory, "").unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert!(ran.stdout.contains("\n   rerun: keystead conformance --scale 0.1 "), "{ran:?}");
    // The file that is in its place now is not the suite's.
    assert_eq!(ran.code, 11, "{ran:?}");
    assert_eq!(fs::read(&directory).unwrap(), b"");
}

#[test]
fn what_the_suite_cannot_run_is_refused_before_anything_is_made() {
    let room = Room::new();
    assert!(room.run(&["conformance", "no.such.case"]).failed(2).contains("no case"));
    room.run(&["conformance", "--scale", "0"]).failed(2);
    room.run(&["conformance", "get.", "--junit", "root.secret"]).failed(4);
    assert_eq!(scratch(&room), [""; 0]);
    room.run(&["--store", "ssm:///x/%s", "conformance"]).failed(2);
    for name in ["", "..", "ks", "ks/../../../../..", "KS0123456789abcd", "ks0123456789abcd/.."] {
        room.run(&["conformance", "--clean-up", name]).failed(2);
    }
    room.run(&["conformance", "--clean-up", "ks0123456789abcd", "get."]).failed(2);
    room.run(&["--store", "memory:", "conformance", "--clean-up", "ks0123456789abcd"]).failed(2);
}

#[test]
fn a_run_that_is_interrupted_leaves_nothing() {
    let room = Room::new();
    let mut child = room.spawn(&["conformance"]);
    let namespace = namespace_of_running(&mut child);
    assert_eq!(scratch(&room), [format!("keystead-conformance-{namespace}")]);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(scratch(&room), [""; 0]);
}

#[test]
fn what_a_run_that_was_killed_has_left_is_deleted_by_its_name() {
    let room = Room::new();
    let mut child = room.spawn(&["conformance"]);
    let namespace = namespace_of_running(&mut child);
    let directory = format!("keystead-conformance-{namespace}");
    while fs::read_dir(room.path(&directory)).unwrap().next().is_none() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(scratch(&room), [directory.as_str()]);
    let clean_up = ["conformance", "--clean-up", namespace.as_str()];

    fs::write(room.path(&directory).join("notes.txt"), "mine").unwrap();
    assert!(room.run(&clean_up).failed(4).contains("left unchanged"));
    fs::remove_file(room.path(&directory).join("notes.txt")).unwrap();

    let text = room.run(&clean_up).done();
    assert!(text.starts_with("deleted what ks"), "{text}");
    assert_eq!(scratch(&room), [""; 0]);
    assert_eq!(room.run(&clean_up).done(), format!("nothing is left of {namespace}\n"));
    assert_eq!(
        room.run(&["--json", "conformance", "--clean-up", &namespace]).json(),
        serde_json::json!({ "namespace": namespace, "deleted": 0 })
    );
    assert_eq!(room.run(&["count"]).done(), "0\n");
}

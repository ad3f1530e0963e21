//! `conformance`: the suite over stores that were not written for it.

use std::fs;

use crate::room::Room;

#[test]
fn the_suite_runs_over_a_memory_store_and_a_file_store() {
    let room = Room::new();
    for (store, name) in [("memory:", "memory"), (room.url().as_str(), "file")] {
        let ran = room.run(&["--store", store, "conformance", "--scale", "0.1", "get.", "delete."]);
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stdout.starts_with(&format!("{name}: ")) && ran.stdout.contains(" 0 failed, "), "{ran:?}");
        assert!(ran.stderr.contains(" cases over "), "{ran:?}");
    }
    assert_eq!(room.run(&["count"]).done(), "0\n");
    let left = fs::read_dir(room.directory()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("conformance")), "its directory is left");
}

#[test]
fn the_suite_writes_a_report_for_ci() {
    let room = Room::empty();
    room.run(&["--store", "memory:", "conformance", "delete.missing", "--junit", "report.xml"]).done();
    assert!(fs::read_to_string(room.path("report.xml")).unwrap().contains("<testsuite"));
}

#[test]
fn what_the_suite_cannot_run_is_refused() {
    let room = Room::empty();
    assert!(room.run(&["--store", "memory:", "conformance", "no.such.case"]).failed(2).contains("no case"));
    room.run(&["--store", "memory:", "conformance", "--scale", "0"]).failed(2);
    room.run(&["--store", "ssm:///x/%s", "conformance"]).failed(2);
}

//! `copy`, and `verify --against`.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::room::{KEY, Ran, Room};

/// A room with a second store, and the URL of that.
fn two_stores() -> (Room, String) {
    let room = Room::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", room.directory().display());
    room.run(&["--store", &other, "init"]).done();
    (room, other)
}

fn count(room: &Room, store: &str) -> String {
    room.run(&["--store", store, "count"]).done()
}

#[test]
fn all_keys_are_copied_and_compared() {
    let (room, other) = two_stores();
    room.run_with(&["put", "alice"], KEY).done();
    room.fill((0..200).map(|number| format!("user-{number}")));

    let text = room.run(&["verify", "--against", &other]);
    assert_eq!(
        (text.code, text.stdout.as_str()),
        (1, "NOT equal: 0 keys are the same in both\n  missing in the other: 201\n")
    );
    assert_eq!(
        room.run(&["copy", "--to", &other, "--dry-run"]).done(),
        "a dry run: nothing was changed; the source lists 201\n  to be copied: 201\n"
    );
    assert_eq!(count(&room, &other), "0\n");
    let complete = "complete: every key of the source was read back at the target; the source lists 201\n";
    assert_eq!(room.run(&["copy", "--to", &other]).done(), format!("{complete}  copied: 201\n"));
    assert_eq!(room.run(&["copy", "--to", &other]).done(), format!("{complete}  there already, the same: 201\n"));
    assert_eq!(room.run(&["--store", &other, "get", "alice"]).done(), format!("{KEY}\n"));
    assert_eq!(room.run(&["verify", "--against", &other]).done(), "equal: 201 keys are the same in both\n");
}

#[test]
fn a_key_that_differs_is_left_skipped_or_overwritten_as_it_is_said() {
    let (room, other) = two_stores();
    room.run_with(&["put", "alice"], KEY).done();
    room.run_with(&["--store", &other, "put", "alice"], "ff").done();

    let ran = room.run(&["copy", "--to", &other]);
    assert!(
        ran.code == 4 && ran.stdout.contains("NOT complete") && ran.stdout.contains("different, left: 1"),
        "{ran:?}"
    );
    assert!(!ran.stdout.contains("alice") && ran.stderr.contains("--on-conflict"), "{ran:?}");
    assert!(room.run(&["copy", "--to", &other, "--show-ids"]).stdout.ends_with("different, left: 1\n    alice\n"));
    assert!(room.run(&["verify", "--against", &other, "--show-ids"]).stdout.ends_with("different: 1\n    alice\n"));

    let text = room.run(&["copy", "--to", &other, "--on-conflict", "skip"]).done();
    assert!(text.contains("different, skipped: 1"), "{text}");
    assert_eq!(room.run(&["--store", &other, "get", "alice"]).done(), "ff\n");
    let text = room.run(&["copy", "--to", &other, "--on-conflict", "overwrite"]).done();
    assert!(text.contains("overwritten: 1"), "{text}");
    assert_eq!(room.run(&["--store", &other, "get", "alice"]).done(), format!("{KEY}\n"));
}

#[test]
fn a_copy_that_is_killed_goes_on_with_its_journal() {
    let (room, other) = two_stores();
    room.fill((0..2_000).map(|number| format!("user-{number}")));
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    for round in 0..8 {
        let args = [&copy[..], if room.path("journal").exists() { &["--resume"] } else { &[] }].concat();
        let mut child = room.spawn(&args);
        sleep(Duration::from_millis(20 + 25 * round));
        // Dead at once: nothing can be tidied up.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    if room.path("journal").exists() {
        assert!(room.run(&copy).failed(4).contains("--resume"));
    }
    let args = [&copy[..], if room.path("journal").exists() { &["--resume"] } else { &[] }].concat();
    let text = room.run(&args).done();
    assert!(text.starts_with("complete: ") && text.contains("the source lists 2000"), "{text}");
    assert_eq!(room.run(&["verify", "--against", &other]).done(), "equal: 2000 keys are the same in both\n");
    let journal = fs::read(room.path("journal")).unwrap();
    assert!(!journal.windows(5).any(|window| window == b"user-"));
}

#[test]
fn a_journal_is_begun_or_gone_on_with_as_it_is_said() {
    let (room, other) = two_stores();
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    assert!(room.run(&[&copy[..], &["--resume"]].concat()).failed(2).contains("leave out --resume"));
    room.run(&copy).done();
    room.run(&copy).failed(4);
    room.run(&[&copy[..], &["--resume"]].concat()).done();
    room.run(&["copy", "--to", &other, "--resume"]).failed(2);
}

#[test]
fn keys_are_deleted_at_the_source_only_after_a_yes() {
    let (room, other) = two_stores();
    room.run(&["generate", "alice"]).done();
    let text = room.run(&["copy", "--to", &other, "--delete-source"]).failed(4);
    assert!(text.contains("nothing was copied"), "{text}");
    assert_eq!(count(&room, &other), "0\n");
    let text = room.run(&["copy", "--to", &other, "--delete-source", "--yes"]).done();
    assert!(text.contains("deleted at the source: 1"), "{text}");
    assert_eq!((count(&room, &room.url()), count(&room, &other)), ("0\n".to_owned(), "1\n".to_owned()));
}

#[test]
fn a_damaged_key_does_not_stop_the_others() {
    let (room, other) = two_stores();
    room.fill((0..10).map(|number| number.to_string()));
    room.damage();
    let ran = room.run(&["copy", "--to", &other]);
    assert!(ran.code == 7 && ran.stdout.contains("NOT complete") && ran.stdout.contains("copied: 9"), "{ran:?}");
    assert_eq!(room.run(&["verify", "--against", &other]).code, 7);
}

#[test]
fn json_of_copy_and_of_a_comparison() {
    let (room, other) = two_stores();
    room.run(&["generate", "alice"]).done();
    let none = json!({ "total": 0, "ids": null });
    let no_failure = json!({ "total": 0, "first": [] });
    let told = |ran: Ran| ran.json();
    let report = told(room.run(&["--json", "copy", "--to", &other]));
    assert_eq!(
        report,
        json!({
            "complete": true, "dry_run": false, "was_complete": false, "listed": 1, "done_before": 0, "copied": 1,
            "already_there": 0, "overwritten": 0, "skipped": 0, "vanished": 0, "deleted_at_source": 0, "unlisted": 0,
            "unsettled": 0, "conflicts": none, "unreadable": no_failure, "failed": no_failure,
            "removed_at_target": none, "left_at_target": none, "left_at_source": none,
        })
    );
    room.run_with(&["--store", &other, "put", "alice"], "ff").done();
    let report = told(room.run(&["--json", "verify", "--against", &other, "--show-ids"]));
    let none = json!({ "total": 0, "ids": [] });
    assert_eq!(
        report,
        json!({
            "is_equal": false, "equal": 0, "different": { "total": 1, "ids": ["alice"] }, "missing": none, "extra": none,
            "unreadable": no_failure, "unlisted": 0,
        })
    );
}

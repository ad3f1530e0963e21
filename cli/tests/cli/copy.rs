//! `copy` and `verify --against`.

use std::fs;
use std::thread::sleep;
use std::time::Duration;

use serde_json::json;

use crate::fixture::{Fixture, KEY, Ran};

/// Creates a fixture with a second store, and returns the URL of that store, too.
fn two_stores() -> (Fixture, String) {
    let fixture = Fixture::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", fixture.directory().display());
    fixture.run(&["--store", &other, "init"]).done();
    (fixture, other)
}

fn count(fixture: &Fixture, store: &str) -> String {
    fixture.run(&["--store", store, "count"]).done()
}

#[test]
fn all_keys_are_copied_and_compared() {
    let (fixture, other) = two_stores();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.fill((0..200).map(|number| format!("user-{number}")));

    let text = fixture.run(&["verify", "--against", &other]);
    assert_eq!(
        (text.code, text.stdout.as_str()),
        (1, "NOT equal: 0 keys are the same in both\n  missing in the other: 201\n")
    );
    assert_eq!(
        fixture.run(&["copy", "--to", &other, "--dry-run"]).done(),
        "a dry run: nothing was changed; the source lists 201\n  to be copied: 201\n"
    );
    assert_eq!(count(&fixture, &other), "0\n");
    let complete = "complete: every key of the source was read back at the target; the source lists 201\n";
    assert_eq!(fixture.run(&["copy", "--to", &other]).done(), format!("{complete}  copied: 201\n"));
    assert_eq!(fixture.run(&["copy", "--to", &other]).done(), format!("{complete}  already there, the same: 201\n"));
    assert_eq!(fixture.run(&["--store", &other, "get", "alice"]).done(), format!("{KEY}\n"));
    assert_eq!(fixture.run(&["verify", "--against", &other]).done(), "equal: 201 keys are the same in both\n");
}

#[test]
fn a_key_that_differs_is_left_skipped_or_overwritten_as_it_is_said() {
    let (fixture, other) = two_stores();
    fixture.run_with(&["put", "alice"], KEY).done();
    fixture.run_with(&["--store", &other, "put", "alice", "--overwrite"], "ff").done();

    let ran = fixture.run(&["copy", "--to", &other]);
    assert!(
        ran.code == 4 && ran.stdout.contains("NOT complete") && ran.stdout.contains("different, left unchanged: 1"),
        "{ran:?}"
    );
    assert!(!ran.stdout.contains("alice") && ran.stderr.contains("--on-conflict"), "{ran:?}");
    assert!(
        fixture
            .run(&["copy", "--to", &other, "--show-ids"])
            .stdout
            .ends_with("different, left unchanged: 1\n    alice\n")
    );
    assert!(fixture.run(&["verify", "--against", &other, "--show-ids"]).stdout.ends_with("different: 1\n    alice\n"));

    let text = fixture.run(&["copy", "--to", &other, "--on-conflict", "skip"]).done();
    assert!(text.contains("different, skipped: 1"), "{text}");
    assert_eq!(fixture.run(&["--store", &other, "get", "alice"]).done(), "ff\n");
    let text = fixture.run(&["copy", "--to", &other, "--on-conflict", "overwrite"]).done();
    assert!(text.contains("overwritten: 1"), "{text}");
    assert_eq!(fixture.run(&["--store", &other, "get", "alice"]).done(), format!("{KEY}\n"));
}

#[test]
fn a_copy_that_is_killed_goes_on_with_its_journal() {
    let (fixture, other) = two_stores();
    fixture.fill((0..2_000).map(|number| format!("user-{number}")));
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    for round in 0..8 {
        let args = [&copy[..], if fixture.path("journal").exists() { &["--resume"] } else { &[] }].concat();
        let mut child = fixture.spawn(&args);
        sleep(Duration::from_millis(20 + 25 * round));
        // Killed, so that the program cannot clean up.
        child.kill().unwrap();
        child.wait().unwrap();
    }
    if fixture.path("journal").exists() {
        assert!(fixture.run(&copy).failed(4).contains("--resume"));
    }
    let args = [&copy[..], if fixture.path("journal").exists() { &["--resume"] } else { &[] }].concat();
    let text = fixture.run(&args).done();
    assert!(text.starts_with("complete: ") && text.contains("the source lists 2000"), "{text}");
    assert_eq!(fixture.run(&["verify", "--against", &other]).done(), "equal: 2000 keys are the same in both\n");
    let journal = fs::read(fixture.path("journal")).unwrap();
    assert!(!journal.windows(5).any(|window| window == b"user-"));
}

#[test]
fn a_journal_is_begun_or_gone_on_with_as_it_is_said() {
    let (fixture, other) = two_stores();
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    assert!(fixture.run(&[&copy[..], &["--resume"]].concat()).failed(2).contains("leave out --resume"));
    fixture.run(&copy).done();
    fixture.run(&copy).failed(4);
    fixture.run(&[&copy[..], &["--resume"]].concat()).done();
    fixture.run(&["copy", "--to", &other, "--resume"]).failed(2);
}

#[test]
fn keys_are_deleted_at_the_source_only_after_a_yes() {
    let (fixture, other) = two_stores();
    fixture.run(&["generate", "alice"]).done();
    let text = fixture.run(&["copy", "--to", &other, "--delete-source"]).failed(4);
    assert!(text.contains("nothing was copied"), "{text}");
    assert_eq!(count(&fixture, &other), "0\n");
    let text = fixture.run(&["copy", "--to", &other, "--delete-source", "--yes"]).done();
    assert!(text.contains("deleted at the source: 1"), "{text}");
    assert_eq!((count(&fixture, &fixture.url()), count(&fixture, &other)), ("0\n".to_owned(), "1\n".to_owned()));
}

#[test]
fn a_damaged_key_does_not_stop_the_others() {
    let (fixture, other) = two_stores();
    fixture.fill((0..10).map(|number| number.to_string()));
    fixture.damage("keys.db");
    let ran = fixture.run(&["copy", "--to", &other]);
    assert!(ran.code == 7 && ran.stdout.contains("NOT complete") && ran.stdout.contains("copied: 9"), "{ran:?}");
    assert_eq!(fixture.run(&["verify", "--against", &other]).code, 7);
}

#[test]
fn json_of_copy_and_of_a_comparison() {
    let (fixture, other) = two_stores();
    fixture.run(&["generate", "alice"]).done();
    let none = json!({ "total": 0, "ids": null });
    let no_failure = json!({ "total": 0, "first": [] });
    let told = |ran: Ran| ran.json();
    let report = told(fixture.run(&["--json", "copy", "--to", &other]));
    assert_eq!(
        report,
        json!({
            "complete": true, "dry_run": false, "was_complete": false, "listed": 1, "done_before": 0, "not_rechecked": 0, "copied": 1,
            "already_there": 0, "overwritten": 0, "skipped": 0, "vanished": 0, "deleted_at_source": 0, "unlisted": 0,
            "unsettled": 0, "removals_to_confirm": 0, "withheld": null, "remaining_at_source": 0, "probe_left": false, "conflicts": none, "unreadable": no_failure, "failed": no_failure,
            "removed_at_target": none, "left_at_target": none, "left_at_source": none,
        })
    );
    fixture.run_with(&["--store", &other, "put", "alice", "--overwrite"], "ff").done();
    let report = told(fixture.run(&["--json", "verify", "--against", &other, "--show-ids"]));
    let none = json!({ "total": 0, "ids": [] });
    assert_eq!(
        report,
        json!({
            "is_equal": false, "equal": 0, "different": { "total": 1, "ids": ["alice"] }, "missing": none, "extra": none,
            "unreadable": no_failure, "unlisted": 0,
        })
    );
}

#[test]
fn a_store_that_ends_with_the_command_keeps_no_keys() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let memory: [&[&str]; 8] = [
        &["--store", "memory:", "put", "alice"],
        &["--store", "memory:", "create", "alice"],
        &["--store", "memory:", "generate", "alice"],
        &["--store", "memory:", "delete", "alice", "--yes"],
        &["--store", "MEMORY:", "erase", "alice", "--yes"],
        &["--store", "memory:", "copy", "--to", "memory:"],
        &["copy", "--to", "memory:"],
        &["copy", "--to", "memory:", "--delete-source", "--yes", "--accept-durability", "host"],
    ];
    for args in memory {
        let ran = fixture.run_with(args, KEY);
        assert!(
            ran.failed(2).contains("a store with the URL memory: ends with this command: give a store that lasts"),
            "{args:?}"
        );
    }
    assert!(fixture.run(&["--store", "memory:", "init"]).failed(2).contains("only on file stores"));
    assert_eq!(fixture.run(&["count"]).done(), "1\n");
    // Commands that only read or try a store accept it.
    assert_eq!(fixture.run(&["--store", "memory:", "count"]).done(), "0\n");
    fixture.run(&["--store", "memory:", "doctor", "--write"]).done();
    let text = fixture.run(&["copy", "--to", "memory:", "--delete-source", "--accept-durability", "process"]).failed(2);
    assert!(text.contains("possible values: host, replicated"), "{text}");
}

#[test]
fn a_run_that_goes_on_reads_again_what_was_copied_unless_it_is_told_not_to() {
    let (fixture, other) = two_stores();
    fixture.fill((0..5).map(|number| format!("user-{number}")));
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    let resume = [&copy[..], &["--resume"]].concat();
    fixture.run(&copy).done();
    fixture.run(&["--store", &other, "delete", "user-3", "--yes"]).done();
    let blind = fixture.run(&[&resume[..], &["--no-recheck"]].concat());
    assert!(blind.stderr.contains("--no-recheck"), "{blind:?}");
    assert_eq!(
        blind.done(),
        "nothing is left to copy, but not every key was checked: 0 keys were read back at the target; 5 that earlier runs \
         copied were not read again; the source lists 5\n  copied by earlier runs, not read again: 5\n"
    );
    assert_eq!(
        fixture.run(&resume).done(),
        "complete: every key of the source was read back at the target; the source lists 5\n  copied: 1\n  \
         copied by earlier runs, read again: 4\n"
    );
    let told = fixture.run(&[&["--json"], &resume[..], &["--no-recheck"]].concat()).json();
    assert_eq!((&told["complete"], &told["not_rechecked"]), (&json!(false), &json!(5)));
    fixture.run(&["copy", "--to", &other, "--no-recheck"]).failed(2);
}

#[test]
fn many_losses_are_removed_only_when_their_number_is_confirmed() {
    let (fixture, other) = two_stores();
    fixture.fill((0..30).map(|number| format!("user-{number}")));
    fixture.run_with(&["--store", &other, "put", "user-29", "--overwrite"], "ff").done();
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    // An incomplete copy, whose keys count as written by this journal.
    assert_eq!(fixture.run(&copy).code, 4);
    for number in 0..12 {
        fixture.run(&["delete", &format!("user-{number}"), "--yes"]).done();
    }
    let resume = [&copy[..], &["--resume", "--on-conflict", "skip"]].concat();
    for confirmed in [&[][..], &["--confirm-removals", "11"], &["--confirm-removals", "13"]] {
        let ran = fixture.run(&[&resume[..], confirmed].concat());
        assert_eq!(ran.code, 4, "{ran:?}");
        assert!(ran.stdout.starts_with("NOT complete: "), "{ran:?}");
        assert!(ran.stderr.contains("--resume --confirm-removals 12"), "{ran:?}");
        assert_eq!(count(&fixture, &other), "30\n");
    }
    let text = fixture.run(&[&resume[..], &["--confirm-removals", "12"]].concat()).done();
    assert!(text.contains("removed at the target: 12"), "{text}");
    assert_eq!(count(&fixture, &other), "18\n");
}

#[test]
fn a_store_is_not_copied_to_itself() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    for args in [&["copy", "--to", &fixture.url()][..], &["verify", "--against", &fixture.url()]] {
        assert!(fixture.run(args).failed(2).contains("one store"), "{args:?}");
    }
}

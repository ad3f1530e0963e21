//! Ctrl-C at different moments of a command.

use std::fs;
use std::io::{Read, Write};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::fixture::{Fixture, KEY};

/// Sends the signal of Ctrl-C.
fn interrupt(child: &Child) {
    send(child, Signal::INT);
}

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until the program catches the signal of Ctrl-C.
fn wait_until_listening(child: &Child) {
    let start = Instant::now();
    loop {
        let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        // The program has already ended.
        if status.contains("State:\tZ") {
            return;
        }
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        // SIGINT is signal 2, the second bit.
        if u64::from_str_radix(caught, 16).unwrap() & 2 != 0 {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "it does not listen");
        sleep(Duration::from_millis(2));
    }
}

#[track_caller]
fn expect_interrupted(output: &Output) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("error: interrupted: "), "{text}");
}

#[test]
fn a_listing_that_nobody_reads_is_ended() {
    let fixture = Fixture::new();
    fixture.fill((0..4_000).map(|number| format!("user-{number:030}")));
    let mut child = fixture.spawn(&["list"]);
    let mut first = [0; 10];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut first).unwrap();
    interrupt(&child);
    expect_interrupted(&child.wait_with_output().unwrap());
    drop(stdout);
    assert_eq!(fixture.run(&["count"]).done(), "4000\n");
}

#[test]
fn a_put_that_waits_for_its_key_is_ended_and_stores_nothing() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["put", "alice"]);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&KEY.as_bytes()[..10]).unwrap();
    wait_until_listening(&child);
    interrupt(&child);
    expect_interrupted(&child.wait_with_output().unwrap());
    drop(stdin);
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

#[test]
fn being_asked_to_end_is_an_interruption() {
    let fixture = Fixture::new();
    let mut child = fixture.spawn(&["put", "alice"]);
    let stdin = child.stdin.take();
    wait_until_listening(&child);
    send(&child, Signal::TERM);
    expect_interrupted(&child.wait_with_output().unwrap());
    drop(stdin);
}

#[test]
fn a_put_that_is_interrupted_at_any_moment_is_made_whole_or_not_at_all() {
    let fixture = Fixture::new();
    let other = "ff".repeat(32);
    fixture.run_with(&["put", "alice"], KEY).done();
    let mut interrupted = 0;
    for round in 0..30 {
        let mut child = fixture.spawn(&["put", "alice", "--overwrite"]);
        wait_until_listening(&child);
        child.stdin.take().unwrap().write_all(if round % 2 == 0 { &other } else { KEY }.as_bytes()).unwrap();
        sleep(Duration::from_millis(round));
        interrupt(&child);
        let output = child.wait_with_output().unwrap();
        match output.status.code() {
            Some(0) => {}
            _ => {
                expect_interrupted(&output);
                interrupted += 1;
            }
        }
        let key = fixture.run(&["get", "alice"]).done();
        assert!(key.trim() == KEY || key.trim() == other);
    }
    assert!(interrupted > 0, "none was interrupted in time");
    assert_eq!(
        fixture.run(&["verify"]).done(),
        "records: 1 intact, 0 damaged; unreadable parts of the file: 0; structural faults: 0\n"
    );
}

#[test]
fn a_rotation_that_is_interrupted_is_ended_by_resume() {
    let fixture = Fixture::new();
    fixture.fill((0..3_000).map(|number| format!("user-{number}")));
    let mut child = fixture.spawn(&["rotate", "--new-root-secret-file", "new.secret"]);
    while !fixture.path("new.secret").exists() {
        assert!(child.try_wait().unwrap().is_none());
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(3));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 130)), "{output:?}");

    let new = format!("file://{0}/keys.db?root_secret_file={0}/new.secret", fixture.directory().display());
    let with_new = |args: &[&str]| fixture.run(&[&["--store", new.as_str()], args].concat());
    if with_new(&["count"]).code == 0 {
        with_new(&["rotate", "--resume"]).done();
        assert_eq!(with_new(&["count"]).done(), "3000\n");
        fixture.run(&["count"]).failed(5);
    } else {
        assert_eq!(fixture.run(&["count"]).done(), "3000\n");
    }
}

#[test]
fn a_backup_that_is_interrupted_leaves_no_file() {
    let fixture = Fixture::new();
    fixture.fill((0..3_000).map(|number| format!("user-{number}")));
    let child = fixture.spawn(&["backup", "copy.db"]);
    wait_until_listening(&child);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    match output.status.code() {
        Some(0) => assert!(fixture.path("copy.db").exists()),
        _ => {
            expect_interrupted(&output);
            assert!(!fixture.path("copy.db").exists());
        }
    }
}

#[test]
fn a_copy_that_is_interrupted_goes_on_with_its_journal() {
    let fixture = Fixture::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", fixture.directory().display());
    fixture.run(&["--store", &other, "init"]).done();
    fixture.fill((0..6_000).map(|number| format!("user-{number}")));
    let copy = ["copy", "--to", &other, "--journal", "journal"];
    let child = fixture.spawn(&copy);
    while !fixture.path("journal").exists() {
        sleep(Duration::from_millis(1));
    }
    sleep(Duration::from_millis(50));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    expect_interrupted(&output);
    assert!(String::from_utf8_lossy(&output.stderr).contains("--resume"), "{output:?}");
    let text = fixture.run(&[&copy[..], &["--resume"]].concat()).done();
    assert!(text.starts_with("complete: "), "{text}");
    assert_eq!(fixture.run(&["verify", "--against", &other]).done(), "equal: 6000 keys are the same in both\n");
}

/// Interrupts a command while it reads the passphrase of its store from a pipe that is never closed.
fn interrupted_while_it_opens(fixture: &Fixture, args: &[&str]) -> String {
    let store = format!("file://{}/phrase.db", fixture.directory().display());
    let child = fixture.spawn(&[&["--store", &store, "--passphrase-file", "pipe"], args].concat());
    wait_until_listening(&child);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    expect_interrupted(&output);
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn what_may_have_happened_is_told_by_command() {
    let fixture = Fixture::new();
    assert!(Command::new("mkfifo").args(["-m", "600"]).arg(fixture.path("pipe")).status().unwrap().success());
    let writer = fs::File::options().read(true).write(true).open(fixture.path("pipe")).unwrap();
    let other = fixture.url();
    let copy = ["copy", "--to", other.as_str()];
    let unchanged = "error: interrupted: nothing was changed\n";
    for (args, text) in [
        (&["list"][..], unchanged),
        (&["count"], unchanged),
        (&["get", "alice"], unchanged),
        (&["exists", "alice"], unchanged),
        (&["verify"], unchanged),
        (&["doctor"], unchanged),
        (&[&copy[..], &["--dry-run"]].concat(), unchanged),
        (&["init"], "if there is no store, run init again, with --existing-root-secret if that file exists"),
        (&["generate", "alice"], "the key was written completely or not at all"),
        (&["delete", "alice"], "the key may have been deleted"),
        (&["erase", "alice", "--yes"], "the user may already count as erased; run erase again"),
        (&["reconcile", "--tombstones", &other, "--yes"], "run reconcile again to finish"),
        (&["rotate", "--new-root-secret-file", "new.secret"], "run rotate again, with another new file"),
        (&["scrub"], "no key was changed: run scrub again"),
        (&["backup", "copy.db"], "the unfinished copy was removed, and the store was not changed"),
        (&["restore", "copy.db", "--yes"], "run restore again with the same backup"),
        (&["doctor", "--write"], "find it with list --prefix keystead-doctor-"),
        (
            &copy,
            "the source was not changed; run the same command again: keys that are at the target are not written again\n",
        ),
        (
            &[&copy[..], &["--journal", "j"]].concat(),
            "the source was not changed; resume with --resume and the same journal\n",
        ),
        (&[&copy[..], &["--on-conflict", "overwrite"]].concat(), "different keys at the target may have been replaced"),
        (
            &[&copy[..], &["--delete-source", "--yes"]].concat(),
            "keys were deleted at the source only after they were read at the target; a key whose id begins with \
             keystead-copy- may be left at the target; run the same command again",
        ),
    ] {
        let told = interrupted_while_it_opens(&fixture, args);
        assert!(told.contains(text), "{args:?}: {told}");
    }
    drop(writer);
}

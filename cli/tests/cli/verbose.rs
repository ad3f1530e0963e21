//! `--verbose`: the reported steps, which contain no id and no key.

use crate::fixture::{Fixture, KEY};

#[test]
fn the_steps_are_told_on_standard_error() {
    let fixture = Fixture::new();
    let ran = fixture.run_with(&["-v", "put", "alice-canary"], KEY);
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "stored\n"), "{ran:?}");
    let directory = fixture.directory().display();
    let steps = [
        "keystead: reading the key from standard input".to_owned(),
        format!("keystead: reading the secret of the store from {directory}/root.secret"),
        format!("keystead: opening the file store {directory}/keys.db"),
        format!("keystead: opened file:{directory}/keys.db (store "),
        format!("keystead: closing file:{directory}/keys.db (store "),
    ];
    let lines: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(lines.len(), steps.len(), "{ran:?}");
    for (line, step) in lines.iter().zip(&steps) {
        assert!(line.starts_with(step), "{line}");
    }
    assert!(!ran.stderr.contains("canary") && !ran.stderr.contains(&KEY[..16]), "{ran:?}");
}

#[test]
fn the_steps_of_reading_comparing_and_copying_are_told() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", fixture.directory().display());
    fixture.run(&["--store", &other, "init"]).done();
    for (args, step) in [
        (&["list"][..], "listing the ids"),
        (&["count"], "listing the ids, to count them"),
        (&["get", "alice"], "reading the key"),
        (&["exists", "alice"], "reading the key"),
        (&["verify"], "reading every record"),
        (&["backup", "copy.db"], "copying the store to copy.db"),
        (&["copy", "--to", &other], "copying file:"),
        (&["verify", "--against", &other], "comparing file:"),
    ] {
        let ran = fixture.run(&[args, &["--verbose"]].concat());
        assert_eq!(ran.code, 0, "{ran:?}");
        assert!(ran.stderr.contains(&format!("\nkeystead: {step}")), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("alice"), "{ran:?}");
    }
}

#[test]
fn nothing_is_told_without_it() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    assert_eq!(fixture.run(&["get", "alice"]).stderr, "");
}

//! Commands on two stores with different passphrases.

use serde_json::json;

use crate::fixture::{Fixture, Ran};
use crate::terminal::in_terminal;

/// Creates a fixture with two stores that have different passphrases, and returns their URLs, too. Only
/// the first store has a key.
fn two_stores() -> (Fixture, String, String) {
    let fixture = Fixture::empty();
    let url = |name: &str| format!("file://{}/{name}.db", fixture.directory().display());
    for name in ["old", "new"] {
        fixture.write_secret(&format!("{name}.phrase"), &format!("passphrase of {name}"));
        let phrase = format!("{name}.phrase");
        fixture.run(&["--store", &url(name), "--passphrase-file", &phrase, "init"]).done();
    }
    let old = url("old");
    let new = url("new");
    fixture.run(&["--store", &old, "--passphrase-file", "old.phrase", "generate", "alice"]).done();
    (fixture, old, new)
}

/// Runs the program with the store `old`.
fn run(fixture: &Fixture, old: &str, args: &[&str]) -> Ran {
    fixture.run(&[&["--store", old, "--passphrase-file", "old.phrase"], args].concat())
}

#[test]
fn the_second_store_of_copy_and_verify_has_a_passphrase_of_its_own() {
    let (fixture, old, new) = two_stores();
    let text = run(&fixture, &old, &["copy", "--to", &new, "--to-passphrase-file", "new.phrase"]).done();
    assert!(text.contains("copied: 1"), "{text}");
    let verify = ["verify", "--against", new.as_str(), "--against-passphrase-file", "new.phrase"];
    assert_eq!(run(&fixture, &old, &verify).done(), "equal: 1 keys are the same in both\n");
}

#[test]
fn without_one_the_second_store_opens_with_that_of_the_first_or_with_what_its_url_names() {
    let (fixture, old, new) = two_stores();
    assert!(run(&fixture, &old, &["copy", "--to", &new]).failed(5).contains("root secret"));
    run(&fixture, &old, &["backup", "copy.db"]).done();
    let copy = format!("file://{}/copy.db", fixture.directory().display());
    run(&fixture, &old, &["verify", "--against", &copy]).done();

    // The passphrase of the first store is not used for a second one whose URL names a root secret.
    let other = fixture.url();
    fixture.run(&["init"]).done();
    run(&fixture, &old, &["copy", "--to", &other]).done();
    run(&fixture, &old, &["verify", "--against", &other]).done();
}

#[test]
fn a_passphrase_that_is_given_twice_or_to_no_file_store_is_refused() {
    let (fixture, old, new) = two_stores();
    fixture.run(&["init"]).done();
    let text = run(&fixture, &old, &["copy", "--to", &fixture.url(), "--to-passphrase-file", "new.phrase"]).failed(2);
    assert!(text.contains("given twice") && text.contains("--to-passphrase-file"), "{text}");
    let text =
        run(&fixture, &old, &["verify", "--against", "memory:", "--against-passphrase-file", "new.phrase"]).failed(2);
    assert!(text.contains("--against-passphrase-file applies only to file stores"), "{text}");
    run(&fixture, &old, &["verify", "--against-passphrase-file", "new.phrase"]).failed(2);
    let text = fixture.run(&["--store", &fixture.url(), "copy", "--to", &new]).failed(4);
    assert!(text.contains("give --to-passphrase-file FILE"), "{text}");
}

#[test]
fn both_passphrases_are_asked_for_on_a_terminal() {
    let (fixture, old, new) = two_stores();
    let steps = json!([["old.db: ", "passphrase of old\n"], ["new.db: ", "passphrase of new\n"]]);
    let program = [env!("CARGO_BIN_EXE_keystead"), "copy", "--to", new.as_str()];
    let session = in_terminal(&fixture, &old, 200, &program, steps);
    assert!(session.code == 0 && session.shown.contains("copied: 1"), "{}", session.shown);
}

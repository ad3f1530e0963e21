//! Two stores, each with its own passphrase.

use serde_json::json;

use crate::room::{Ran, Room};
use crate::terminal::in_terminal;

/// A room with two stores that have no key, each with a passphrase of its own, and their URLs.
fn two_stores() -> (Room, String, String) {
    let room = Room::empty();
    let url = |name: &str| format!("file://{}/{name}.db", room.directory().display());
    for name in ["old", "new"] {
        room.write_secret(&format!("{name}.phrase"), &format!("passphrase of {name}"));
        let phrase = format!("{name}.phrase");
        room.run(&["--store", &url(name), "--passphrase-file", &phrase, "init"]).done();
    }
    let (old, new) = (url("old"), url("new"));
    room.run(&["--store", &old, "--passphrase-file", "old.phrase", "generate", "alice"]).done();
    (room, old, new)
}

/// Runs the program over the store `old`.
fn run(room: &Room, old: &str, args: &[&str]) -> Ran {
    room.run(&[&["--store", old, "--passphrase-file", "old.phrase"], args].concat())
}

#[test]
fn the_second_store_of_copy_and_verify_has_a_passphrase_of_its_own() {
    let (room, old, new) = two_stores();
    let text = run(&room, &old, &["copy", "--to", &new, "--to-passphrase-file", "new.phrase"]).done();
    assert!(text.contains("copied: 1"), "{text}");
    let verify = ["verify", "--against", new.as_str(), "--against-passphrase-file", "new.phrase"];
    assert_eq!(run(&room, &old, &verify).done(), "equal: 1 keys are the same in both\n");
}

#[test]
fn without_one_the_second_store_opens_with_that_of_the_first_or_with_what_its_url_names() {
    let (room, old, new) = two_stores();
    assert!(run(&room, &old, &["copy", "--to", &new]).failed(5).contains("root secret"));
    run(&room, &old, &["backup", "copy.db"]).done();
    let copy = format!("file://{}/copy.db", room.directory().display());
    run(&room, &old, &["verify", "--against", &copy]).done();

    // A passphrase for the first store is none for a second one whose URL has a root secret.
    let other = room.url();
    room.run(&["init"]).done();
    run(&room, &old, &["copy", "--to", &other]).done();
    run(&room, &old, &["verify", "--against", &other]).done();
}

#[test]
fn a_passphrase_that_is_given_twice_or_to_no_file_store_is_refused() {
    let (room, old, new) = two_stores();
    room.run(&["init"]).done();
    let text = run(&room, &old, &["copy", "--to", &room.url(), "--to-passphrase-file", "new.phrase"]).failed(2);
    assert!(text.contains("given twice") && text.contains("--to-passphrase-file"), "{text}");
    let text =
        run(&room, &old, &["verify", "--against", "memory:", "--against-passphrase-file", "new.phrase"]).failed(2);
    assert!(text.contains("leave out --against-passphrase-file"), "{text}");
    run(&room, &old, &["verify", "--against-passphrase-file", "new.phrase"]).failed(2);
    let text = room.run(&["--store", &room.url(), "copy", "--to", &new]).failed(4);
    assert!(text.contains("give --to-passphrase-file FILE"), "{text}");
}

#[test]
fn both_passphrases_are_asked_for_on_a_terminal() {
    let (room, old, new) = two_stores();
    let steps = json!([["old.db: ", "passphrase of old\n"], ["new.db: ", "passphrase of new\n"]]);
    let program = [env!("CARGO_BIN_EXE_keystead"), "copy", "--to", new.as_str()];
    let session = in_terminal(&room, &old, 200, &program, steps);
    assert!(session.code == 0 && session.shown.contains("copied: 1"), "{}", session.shown);
}

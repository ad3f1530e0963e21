//! A person at a terminal: a pseudo-terminal that Python opens.

use serde_json::{Value, json};

use crate::room::{KEY, Room};

const PHRASE: &str = "correct horse battery";

struct Session {
    shown: String,
    code: i64,
}

/// Runs the program in a terminal, waits for each first text and then types the second.
fn typed(room: &Room, store: &str, args: &[&str], steps: Value) -> Session {
    typed_to(env!("CARGO_BIN_EXE_keystead"), room, store, args, steps)
}

fn typed_to(program: &str, room: &Room, store: &str, args: &[&str], steps: Value) -> Session {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/terminal.py");
    let mut command = keystead_aws_testbed::isolated("python3");
    command.arg(script).arg(steps.to_string()).arg(program).args(args);
    let output = command.current_dir(room.directory()).env("KEYSTEAD_STORE", store).output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(told["steps_left"], 0, "{told}");
    assert_ne!(told["echoes"], false, "the terminal was left without echo: {told}");
    Session { shown: told["shown"].as_str().unwrap().to_owned(), code: told["code"].as_i64().unwrap() }
}

fn bare(room: &Room) -> String {
    format!("file://{}/phrase.db", room.directory().display())
}

#[test]
fn a_passphrase_is_asked_for_twice_at_first_then_once_and_never_shown() {
    let room = Room::empty();
    let phrase = format!("{PHRASE}\n");
    let session =
        typed(&room, &bare(&room), &["init"], json!([["new passphrase: ", phrase], ["the same again: ", phrase]]));
    assert!(session.code == 0 && session.shown.contains("created file:"), "{}", session.shown);
    assert!(!session.shown.contains("horse"), "{}", session.shown);

    let session = typed(&room, &bare(&room), &["count"], json!([["phrase.db: ", phrase]]));
    assert!(session.code == 0 && session.shown.ends_with("0\r\n"), "{}", session.shown);
    let session = typed(&room, &bare(&room), &["count"], json!([["phrase.db: ", "wrong\n"]]));
    assert_eq!(session.code, 5, "{}", session.shown);
}

#[test]
fn two_different_passphrases_and_an_empty_one_make_no_store() {
    let room = Room::empty();
    let steps = json!([["new passphrase: ", "one\n"], ["the same again: ", "two\n"]]);
    let session = typed(&room, &bare(&room), &["init"], steps);
    assert!(session.code == 2 && session.shown.contains("differ"), "{}", session.shown);
    let session = typed(&room, &bare(&room), &["init"], json!([["new passphrase: ", "\n"]]));
    assert_eq!(session.code, 2, "{}", session.shown);
    assert!(!room.path("phrase.db").exists());
}

#[test]
fn ctrl_c_at_the_prompt_leaves_the_terminal_as_it_was() {
    let room = Room::empty();
    let session = typed(&room, &bare(&room), &["init"], json!([["new passphrase: ", "\u{3}"]]));
    assert!(session.code == 130 && session.shown.contains("interrupted"), "{}", session.shown);
    assert!(!room.path("phrase.db").exists());
}

#[test]
fn rotate_asks_for_the_new_passphrase() {
    let room = Room::new();
    let phrase = format!("{PHRASE}\n");
    let steps = json!([["new passphrase: ", phrase], ["the same again: ", phrase]]);
    let session = typed(&room, &room.url(), &["rotate", "--new-passphrase"], steps);
    assert_eq!(session.code, 0, "{}", session.shown);
    let store = format!("file://{}/keys.db", room.directory().display());
    let session = typed(&room, &store, &["verify"], json!([["keys.db: ", phrase]]));
    assert_eq!(session.code, 0, "{}", session.shown);
}

#[test]
fn erase_asks_and_takes_nothing_but_yes() {
    let room = Room::new();
    room.run(&["generate", "alice"]).done();
    for answer in ["no\n", "y\n", "\n", "\u{4}"] {
        let session = typed(&room, &room.url(), &["erase", "alice"], json!([["type yes: ", answer]]));
        assert!(session.code == 4 && session.shown.contains("nothing was erased"), "{}", session.shown);
        assert!(!session.shown.contains("alice"), "{}", session.shown);
    }
    assert_eq!(room.run(&["exists", "alice"]).done(), "yes\n");
    let session = typed(&room, &room.url(), &["erase", "alice"], json!([["type yes: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("verified"), "{}", session.shown);
    room.run(&["get", "alice"]).failed(3);
}

#[test]
fn erase_of_many_asks_with_their_number_even_if_their_ids_are_piped_in() {
    let room = Room::new();
    room.fill(["alice".to_owned(), "bob".to_owned()]);
    std::fs::write(room.path("ids"), "alice\nbob\nalice\n").unwrap();
    let steps = |answer: &str| json!([["type yes: ", answer]]);
    let session = typed(&room, &room.url(), &["erase", "--ids-file", "ids"], steps("no\n"));
    assert!(session.code == 4 && session.shown.contains("nothing was erased"), "{}", session.shown);
    assert!(session.shown.contains("erase 2 users' keys from file:"), "{}", session.shown);
    assert_eq!(room.run(&["count"]).done(), "2\n");
    let piped = format!("'{}' erase --ids-file - < ids", env!("CARGO_BIN_EXE_keystead"));
    let session = typed_to("/bin/sh", &room, &room.url(), &["-c", &piped], steps("yes\n"));
    assert!(session.code == 0 && session.shown.contains("complete: 2 of 2 users"), "{}", session.shown);
    assert!(session.shown.contains("erasing [") && session.shown.contains("] 2 of 2, "), "{}", session.shown);
    assert_eq!(room.run(&["count"]).done(), "0\n");
}

#[test]
fn restore_asks_and_takes_nothing_but_yes() {
    let room = Room::new();
    room.run(&["backup", "copy.db"]).done();
    room.run(&["generate", "alice"]).done();
    for answer in ["no\n", "y\n", "\n", "\u{4}"] {
        let session = typed(&room, &room.url(), &["restore", "copy.db"], json!([["type yes: ", answer]]));
        assert!(session.code == 4 && session.shown.contains("nothing was restored"), "{}", session.shown);
    }
    assert_eq!(room.run(&["count"]).done(), "1\n");
    let session = typed(&room, &room.url(), &["restore", "copy.db"], json!([["type yes: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("kept as"), "{}", session.shown);
    assert_eq!(room.run(&["count"]).done(), "0\n");
}

#[test]
fn raw_bytes_do_not_go_to_a_terminal_by_accident() {
    let room = Room::new();
    room.run_with(&["put", "alice"], KEY).done();
    let raw = ["get", "alice", "--format", "raw"];
    let session = typed(&room, &room.url(), &raw, json!([]));
    assert!(session.code == 4 && session.shown.contains("--force"), "{}", session.shown);
    let session = typed(&room, &room.url(), &["generate", "--format", "raw"], json!([]));
    assert_eq!(session.code, 4, "{}", session.shown);
    let session = typed(&room, &room.url(), &[&raw[..], &["--force"]].concat(), json!([]));
    assert!(session.code == 0 && session.shown.contains("3DUfw"), "{}", session.shown);
}

#[test]
fn a_key_is_not_read_from_the_keyboard() {
    let room = Room::new();
    let session = typed(&room, &room.url(), &["put", "alice"], json!([]));
    assert!(session.code == 4 && session.shown.contains("pipe it in"), "{}", session.shown);
}

#[test]
fn copy_draws_a_bar_and_asks_before_it_deletes() {
    let room = Room::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", room.directory().display());
    room.run(&["--store", &other, "init"]).done();
    room.fill((0..1_000).map(|number| number.to_string()));
    let args = ["copy", "--to", other.as_str(), "--delete-source"];
    let session = typed(&room, &room.url(), &args, json!([["type yes: ", "no\n"]]));
    assert!(session.code == 4 && session.shown.contains("nothing was copied"), "{}", session.shown);
    let session = typed(&room, &room.url(), &args, json!([["type yes: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("deleting ["), "{}", session.shown);
    assert!(
        session.shown.contains("copying [")
            && session.shown.contains("] 1000 of 1000, ")
            && session.shown.contains("\u{1b}[K"),
        "{}",
        session.shown
    );
    assert!(session.shown.contains("/s, ") && session.shown.contains(" left"), "{}", session.shown);
    assert_eq!(room.run(&["count"]).done(), "0\n");
}

#[test]
fn progress_is_shown_to_who_looks_on() {
    let room = Room::new();
    room.fill((0..1_000).map(|number| number.to_string()));
    let session = typed(&room, &room.url(), &["verify"], json!([]));
    assert!(session.shown.contains("] 1000 of 1000, "), "{}", session.shown);
}

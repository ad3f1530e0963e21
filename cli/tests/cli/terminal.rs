//! Questions on a terminal, which is a pseudo-terminal that a Python program opens.

use serde_json::{Value, json};

use crate::fixture::{Fixture, KEY};

const PHRASE: &str = "correct horse battery";

pub(crate) struct Session {
    pub(crate) shown: String,
    pub(crate) code: i64,
    /// For each step, whether the terminal showed what was typed.
    echoes_at_steps: Vec<bool>,
}

/// Runs the program in a terminal. Each step is a text to wait for and a text to type then.
fn typed(fixture: &Fixture, store: &str, args: &[&str], steps: Value) -> Session {
    in_terminal(fixture, store, 80, &[&[env!("CARGO_BIN_EXE_keystead")], args].concat(), steps)
}

/// Runs any program in a terminal with this number of columns.
pub(crate) fn in_terminal(fixture: &Fixture, store: &str, columns: u16, program: &[&str], steps: Value) -> Session {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/terminal.py");
    let mut command = keystead_aws_testbed::isolated("python3");
    command.arg(script).arg(steps.to_string()).arg(columns.to_string()).args(program);
    command.current_dir(fixture.directory()).env("KEYSTEAD_STORE", store);
    let output = command.output().unwrap();
    let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    assert_eq!(told["steps_left"], 0, "{told}");
    assert_ne!(told["echoes"], false, "the terminal was left without echo: {told}");
    let echoes_at_steps = serde_json::from_value(told["echoes_at_steps"].clone()).unwrap();
    let shown = told["shown"].as_str().unwrap().to_owned();
    Session { shown, code: told["code"].as_i64().unwrap(), echoes_at_steps }
}

/// Runs a command line in a shell with job control in a terminal. `PROGRAM` stands for the program.
fn in_shell(fixture: &Fixture, store: &str, shell: &[&str], line: &str, steps: Value) -> Session {
    let line = line.replace("PROGRAM", env!("CARGO_BIN_EXE_keystead"));
    let Value::Array(steps) = steps else { panic!("the steps are a list") };
    // Typed in two parts, so that the typed text is not mistaken for the prompt.
    let prompt = json!(["", "PS1='rea''dy> '\n"]);
    let begin = json!(["ready> ", format!("{line}\n")]);
    let steps = [vec![prompt, begin], steps, vec![json!(["ready> ", "exit\n"])]].concat();
    in_terminal(fixture, store, 200, shell, Value::Array(steps))
}

fn bare(fixture: &Fixture) -> String {
    format!("file://{}/phrase.db", fixture.directory().display())
}

#[test]
fn a_passphrase_is_asked_for_twice_at_first_then_once_and_never_shown() {
    let fixture = Fixture::empty();
    let phrase = format!("{PHRASE}\n");
    let session = typed(
        &fixture,
        &bare(&fixture),
        &["init"],
        json!([["new passphrase of ", phrase], ["the same again: ", phrase]]),
    );
    assert!(session.code == 0 && session.shown.contains("created file:"), "{}", session.shown);
    assert!(!session.shown.contains("horse"), "{}", session.shown);

    let session = typed(&fixture, &bare(&fixture), &["count"], json!([["phrase.db: ", phrase]]));
    assert!(session.code == 0 && session.shown.ends_with("0\r\n"), "{}", session.shown);
    let session = typed(&fixture, &bare(&fixture), &["count"], json!([["phrase.db: ", "wrong\n"]]));
    assert_eq!(session.code, 5, "{}", session.shown);
}

#[test]
fn two_different_passphrases_and_an_empty_one_make_no_store() {
    let fixture = Fixture::empty();
    let steps = json!([["new passphrase of ", "one\n"], ["the same again: ", "two\n"]]);
    let session = typed(&fixture, &bare(&fixture), &["init"], steps);
    assert!(session.code == 2 && session.shown.contains("differ"), "{}", session.shown);
    let session = typed(&fixture, &bare(&fixture), &["init"], json!([["new passphrase of ", "\n"]]));
    assert_eq!(session.code, 2, "{}", session.shown);
    assert!(!fixture.path("phrase.db").exists());
}

#[test]
fn ctrl_c_at_the_prompt_leaves_the_terminal_as_it_was() {
    let fixture = Fixture::empty();
    let session = typed(&fixture, &bare(&fixture), &["init"], json!([["new passphrase of ", "\u{3}"]]));
    assert!(session.code == 130 && session.shown.contains("interrupted"), "{}", session.shown);
    assert!(!fixture.path("phrase.db").exists());
}

#[test]
fn ctrl_c_at_the_prompt_leaves_the_terminal_to_the_shell_as_it_was() {
    let fixture = Fixture::empty();
    let steps = json!([["new passphrase of ", "half\u{3}"], ["ready> ", "echo code $?\n"]]);
    // This shell does not restore the terminal by itself.
    let session = in_shell(&fixture, &bare(&fixture), &["/bin/sh", "-i"], "PROGRAM init", steps);
    assert_eq!(session.echoes_at_steps, [true, true, false, true, true], "{}", session.shown);
    assert!(session.shown.contains("code 130") && !session.shown.contains("half"), "{}", session.shown);
    assert!(session.shown.contains("phrase.db: \r\nerror: interrupted"), "{}", session.shown);
}

/// Creates a store with a passphrase.
fn store_with_passphrase() -> (Fixture, String) {
    let fixture = Fixture::empty();
    fixture.write_secret("phrase", PHRASE);
    let store = bare(&fixture);
    fixture.run(&["--store", &store, "--passphrase-file", "phrase", "init"]).done();
    (fixture, store)
}

#[test]
fn ctrl_z_gives_the_terminal_back_and_fg_hides_what_is_typed_and_asks_again() {
    let (fixture, store) = store_with_passphrase();
    for shell in [&["/bin/sh", "-i"][..], &["/bin/bash", "--norc", "--noediting", "-i"]] {
        let steps = json!([
            ["phrase.db: ", "half a phr\u{1a}"],
            ["ready> ", "fg\n"],
            ["phrase.db: ", format!("{PHRASE}\n")],
            ["0\r\n", ""],
        ]);
        let session = in_shell(&fixture, &store, shell, "PROGRAM count", steps);
        // Twice at the shell's prompt, at the question, at the prompt while the program is stopped, at
        // the question again, and at the end.
        assert_eq!(
            session.echoes_at_steps,
            [true, true, false, true, false, true, true],
            "{shell:?}: {}",
            session.shown
        );
        assert!(session.shown.contains("Stopped"), "{shell:?}: {}", session.shown);
        assert!(!session.shown.contains("half") && !session.shown.contains("horse"), "{shell:?}: {}", session.shown);
    }
}

#[test]
fn a_question_is_repeated_after_ctrl_z_and_fg() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let steps = json!([
        ["type yes to confirm: ", "\u{1a}"],
        ["ready> ", "fg\n"],
        ["type yes to confirm: ", "\u{1a}"],
        ["ready> ", "fg\n"],
        ["type yes to confirm: ", "yes\n"],
        ["verified", ""],
    ]);
    in_shell(&fixture, &fixture.url(), &["/bin/sh", "-i"], "PROGRAM erase alice", steps);
    fixture.run(&["get", "alice"]).failed(3);
}

#[test]
fn fg_asks_again_after_a_stop_that_cannot_be_noticed() {
    let (fixture, store) = store_with_passphrase();
    // The process id is passed in a file, because the job cannot set a variable of the shell.
    let line = "sh -c 'sleep 1; kill -STOP $(cat pid)' & sh -c 'echo $$ > pid; exec PROGRAM count'";
    let steps =
        json!([["phrase.db: ", ""], ["ready> ", "fg %2\n"], ["phrase.db: ", format!("{PHRASE}\n")], ["0\r\n", ""]]);
    let session = in_shell(&fixture, &store, &["/bin/sh", "-i"], line, steps);
    // The shell does not get the restored terminal at that moment, but at the end it does.
    assert_eq!(session.echoes_at_steps, [true, true, false, false, false, true, true], "{}", session.shown);
    assert!(!session.shown.contains("horse"), "{}", session.shown);
}

#[test]
fn ctrl_z_where_no_shell_waits_stops_nothing_and_shows_nothing() {
    let (fixture, store) = store_with_passphrase();
    // The system discards what was typed before Ctrl-Z.
    let steps = json!([["phrase.db: ", "half\u{1a}"], ["", format!("{PHRASE}\n"), 1.0]]);
    let session = typed(&fixture, &store, &["count"], steps);
    assert!(session.code == 0 && session.shown.ends_with("0\r\n"), "{}", session.shown);
    assert_eq!(session.echoes_at_steps, [false, false]);
    assert!(!session.shown.contains("half") && !session.shown.contains("horse"), "{}", session.shown);
}

#[test]
fn questions_are_asked_on_the_terminal_wherever_input_and_output_lead() {
    let (fixture, store) = store_with_passphrase();
    let steps = json!([["phrase.db: ", format!("{PHRASE}\n")], ["ready> ", "cat out err; echo end\n"]]);
    let line = "PROGRAM count </dev/null >out 2>err";
    let session = in_shell(&fixture, &store, &["/bin/sh", "-i"], line, steps);
    assert!(session.shown.contains("\n0\r\nend") && !session.shown.contains("horse"), "{}", session.shown);
    assert_eq!(session.echoes_at_steps, [true, true, false, true, true]);

    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    let steps = json!([["type yes to confirm: ", "yes\n"]]);
    in_shell(
        &fixture,
        &fixture.url(),
        &["/bin/sh", "-i"],
        "PROGRAM erase alice </dev/null >/dev/null 2>/dev/null",
        steps,
    );
    fixture.run(&["get", "alice"]).failed(3);
}

#[test]
fn without_a_terminal_nothing_is_asked() {
    let (fixture, store) = store_with_passphrase();
    let text = fixture.run(&["--store", &store, "count"]).failed(4);
    assert!(text.contains("no terminal") && text.contains("--passphrase-file"), "{text}");
    let fixture = Fixture::new();
    assert!(fixture.run(&["erase", "alice"]).failed(4).contains("--yes"));
}

#[test]
fn rotate_asks_for_the_new_passphrase() {
    let fixture = Fixture::new();
    let phrase = format!("{PHRASE}\n");
    let steps = json!([["new passphrase of ", phrase], ["the same again: ", phrase]]);
    let session = typed(&fixture, &fixture.url(), &["rotate", "--new-passphrase"], steps);
    assert_eq!(session.code, 0, "{}", session.shown);
    let store = format!("file://{}/keys.db", fixture.directory().display());
    let session = typed(&fixture, &store, &["verify"], json!([["keys.db: ", phrase]]));
    assert_eq!(session.code, 0, "{}", session.shown);
}

#[test]
fn erase_asks_and_takes_nothing_but_yes() {
    let fixture = Fixture::new();
    fixture.run(&["generate", "alice"]).done();
    for answer in ["no\n", "y\n", "\n", "\u{4}"] {
        let session = typed(&fixture, &fixture.url(), &["erase", "alice"], json!([["type yes to confirm: ", answer]]));
        assert!(session.code == 4 && session.shown.contains("nothing was erased"), "{}", session.shown);
        assert!(!session.shown.contains("alice"), "{}", session.shown);
    }
    assert_eq!(fixture.run(&["exists", "alice"]).done(), "yes\n");
    let session = typed(&fixture, &fixture.url(), &["erase", "alice"], json!([["type yes to confirm: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("verified"), "{}", session.shown);
    fixture.run(&["get", "alice"]).failed(3);
}

#[test]
fn erase_of_many_asks_with_their_number_even_if_their_ids_are_piped_in() {
    let fixture = Fixture::new();
    fixture.fill(["alice".to_owned(), "bob".to_owned()]);
    std::fs::write(fixture.path("ids"), "alice\nbob\nalice\n").unwrap();
    let steps = |answer: &str| json!([["type yes to confirm: ", answer]]);
    let session = typed(&fixture, &fixture.url(), &["erase", "--ids-file", "ids"], steps("no\n"));
    assert!(session.code == 4 && session.shown.contains("nothing was erased"), "{}", session.shown);
    assert!(session.shown.contains("erase 2 users' keys from file:"), "{}", session.shown);
    assert_eq!(fixture.run(&["count"]).done(), "2\n");
    let piped = format!("'{}' erase --ids-file - < ids", env!("CARGO_BIN_EXE_keystead"));
    let session = in_terminal(&fixture, &fixture.url(), 80, &["/bin/sh", "-c", &piped], steps("yes\n"));
    assert!(session.code == 0 && session.shown.contains("complete: 2 of 2 users"), "{}", session.shown);
    assert!(session.shown.contains("erasing [") && session.shown.contains("] 2 of 2, "), "{}", session.shown);
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

#[test]
fn restore_asks_and_takes_nothing_but_yes() {
    let fixture = Fixture::new();
    fixture.run(&["backup", "copy.db"]).done();
    fixture.run(&["generate", "alice"]).done();
    for answer in ["no\n", "y\n", "\n", "\u{4}"] {
        let session =
            typed(&fixture, &fixture.url(), &["restore", "copy.db"], json!([["type yes to confirm: ", answer]]));
        assert!(session.code == 4 && session.shown.contains("nothing was restored"), "{}", session.shown);
    }
    assert_eq!(fixture.run(&["count"]).done(), "1\n");
    let session = typed(&fixture, &fixture.url(), &["restore", "copy.db"], json!([["type yes to confirm: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("kept as"), "{}", session.shown);
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

#[test]
fn raw_bytes_do_not_go_to_a_terminal_by_accident() {
    let fixture = Fixture::new();
    fixture.run_with(&["put", "alice"], KEY).done();
    let raw = ["get", "alice", "--format", "raw"];
    let session = typed(&fixture, &fixture.url(), &raw, json!([]));
    assert!(session.code == 4 && session.shown.contains("--force"), "{}", session.shown);
    let session = typed(&fixture, &fixture.url(), &["generate", "--format", "raw"], json!([]));
    assert_eq!(session.code, 4, "{}", session.shown);
    let session = typed(&fixture, &fixture.url(), &[&raw[..], &["--force"]].concat(), json!([]));
    assert!(session.code == 0 && session.shown.contains("3DUfw"), "{}", session.shown);
}

#[test]
fn a_key_is_not_read_from_the_keyboard() {
    let fixture = Fixture::new();
    let session = typed(&fixture, &fixture.url(), &["put", "alice"], json!([]));
    assert!(session.code == 4 && session.shown.contains("pipe it in"), "{}", session.shown);
}

#[test]
fn copy_draws_a_bar_and_asks_before_it_deletes() {
    let fixture = Fixture::new();
    let other = format!("file://{0}/other.db?root_secret_file={0}/other.secret", fixture.directory().display());
    fixture.run(&["--store", &other, "init"]).done();
    fixture.fill((0..1_000).map(|number| number.to_string()));
    let args = ["copy", "--to", other.as_str(), "--delete-source"];
    let session = typed(&fixture, &fixture.url(), &args, json!([["type yes to confirm: ", "no\n"]]));
    assert!(session.code == 4 && session.shown.contains("nothing was copied"), "{}", session.shown);
    let session = typed(&fixture, &fixture.url(), &args, json!([["type yes to confirm: ", "yes\n"]]));
    assert!(session.code == 0 && session.shown.contains("deleting ["), "{}", session.shown);
    assert!(
        session.shown.contains("copying [")
            && session.shown.contains("] 1000 of 1000, ")
            && session.shown.contains("\u{1b}[K"),
        "{}",
        session.shown
    );
    assert!(session.shown.contains("/s, ") && session.shown.contains(" left"), "{}", session.shown);
    assert_eq!(fixture.run(&["count"]).done(), "0\n");
}

#[test]
fn progress_is_shown_to_who_looks_on() {
    let fixture = Fixture::new();
    fixture.fill((0..1_000).map(|number| number.to_string()));
    let session = typed(&fixture, &fixture.url(), &["verify"], json!([]));
    assert!(session.shown.contains("] 1000 of 1000, "), "{}", session.shown);
}

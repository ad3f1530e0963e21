//! The help of each command, as the files in tests/help have it. `KEYSTEAD_BLESS=1` writes them again.

use std::fs;
use std::path::Path;

use crate::room::Room;

const COMMANDS: &[&str] = &[
    "backup",
    "completions",
    "conformance",
    "copy",
    "count",
    "create",
    "delete",
    "doctor",
    "erase",
    "exists",
    "generate",
    "get",
    "init",
    "list",
    "put",
    "receipt",
    "reconcile",
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    "reencrypt",
    "restore",
    "rotate",
    "scrub",
    "verify",
];

/// The commands within a command.
const NESTED: &[[&str; 2]] = &[["receipt", "check"], ["receipt", "keygen"], ["receipt", "verify"]];

fn is_as_frozen(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(format!("{name}.txt"));
    if std::env::var_os("KEYSTEAD_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, frozen, "the help of {name} has changed: if it is meant to, run with KEYSTEAD_BLESS=1");
}

#[test]
fn the_help_of_each_command_is_as_frozen() {
    let room = Room::empty();
    // The list of commands is shorter without the AWS stores.
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    is_as_frozen("keystead", &room.run_storeless(&["--help"]).done());
    for command in COMMANDS {
        let text = room.run_storeless(&[command, "--help"]).done();
        assert_eq!(room.run_storeless(&["help", command]).done(), text);
        is_as_frozen(command, &text);
    }
    for [command, nested] in NESTED {
        let text = room.run_storeless(&[command, nested, "--help"]).done();
        is_as_frozen(&format!("{command}-{nested}"), &text);
    }
}

#[test]
fn the_help_of_every_command_is_frozen() {
    let text = Room::empty().run_storeless(&["--help"]).done();
    let listed = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // What is indented further goes on from the line before.
    let mut listed: Vec<&str> = listed
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    listed.sort_unstable();
    assert_eq!(listed, COMMANDS);
}

#[test]
fn help_does_not_show_what_the_environment_says() {
    let room = Room::empty();
    let text = room.command(&["count", "--help"]).env("KEYSTEAD_STORE", "hunter2").output().unwrap().stdout;
    assert!(!String::from_utf8(text).unwrap().contains("hunter2"));
}

#[test]
fn a_command_that_is_none_is_wrong_usage() {
    let room = Room::empty();
    assert!(room.run(&[]).failed(2).contains("Usage:"));
    room.run(&["frobnicate"]).failed(2);
    assert!(room.run(&["--version"]).done().starts_with("keystead 0."));
}

#[test]
fn completions_are_written_for_each_shell() {
    let room = Room::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = room.run_storeless(&["completions", shell]).done();
        assert!(script.contains("keystead") && script.contains("doctor"), "{shell}");
    }
}

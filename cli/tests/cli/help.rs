//! The help of each command, frozen in tests/help. `KEYSTEAD_BLESS=1` writes these files again.

use std::fs;
use std::path::Path;

use crate::fixture::Fixture;

const COMMANDS: &[&str] = &[
    "allow",
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
    "man",
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

/// The subcommands of commands.
const NESTED: &[[&str; 2]] = &[["receipt", "check"], ["receipt", "keygen"], ["receipt", "verify"]];

fn expect_frozen(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help").join(format!("{name}.txt"));
    if std::env::var_os("KEYSTEAD_BLESS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let frozen = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, frozen, "the help of {name} has changed: if it is meant to, run with KEYSTEAD_BLESS=1");
}

#[test]
fn the_help_of_each_command_is_as_frozen() {
    let fixture = Fixture::empty();
    // The list of commands is shorter without the AWS stores.
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    expect_frozen("keystead", &fixture.run_storeless(&["--help"]).done());
    for command in COMMANDS {
        let text = fixture.run_storeless(&[command, "--help"]).done();
        assert_eq!(fixture.run_storeless(&["help", command]).done(), text);
        expect_frozen(command, &text);
    }
    for [command, nested] in NESTED {
        let text = fixture.run_storeless(&[command, nested, "--help"]).done();
        expect_frozen(&format!("{command}-{nested}"), &text);
    }
}

/// Returns the commands that the help of the program lists, in alphabetical order.
pub(crate) fn commands_in(help: &str) -> Vec<&str> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A line with more indentation continues the line before.
    let mut listed: Vec<&str> = listed
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' '))?.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    listed.sort_unstable();
    listed
}

#[test]
fn the_help_of_every_command_is_frozen() {
    assert_eq!(commands_in(&Fixture::empty().run_storeless(&["--help"]).done()), COMMANDS);
}

/// Returns the command lines of the examples in a help text.
fn examples_in(help: &str) -> Vec<&str> {
    let examples = help.lines().skip_while(|line| *line != "Examples:").skip(1).map(str::trim);
    examples.filter(|line| line.contains("keystead ") || line.starts_with("export ")).collect()
}

#[test]
fn each_command_has_examples_that_the_program_takes() {
    let fixture = Fixture::empty();
    fixture.write_secret("bob.key", crate::fixture::KEY);
    let bin = Path::new(env!("CARGO_BIN_EXE_keystead")).parent().unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut run = 0;
    for command in [&["help"][..], COMMANDS].concat() {
        let help = match command {
            "help" => fixture.run_storeless(&["--help"]).done(),
            command => fixture.run_storeless(&[command, "--help"]).done(),
        };
        let examples = examples_in(&help);
        assert!(!examples.is_empty(), "{command} has no example");
        for example in examples {
            let mut shell = keystead_aws_testbed::isolated("setsid");
            let ran = shell
                .args(["sh", "-c", example])
                .current_dir(fixture.directory())
                .env("PATH", &path)
                .env("HOME", fixture.directory())
                .env("XDG_CONFIG_HOME", fixture.path("config"))
                .env("KEYSTEAD_STORE", "memory:")
                .stdin(std::process::Stdio::null())
                .output()
                .unwrap();
            let text = String::from_utf8(ran.stderr).unwrap();
            // These texts end the parser's messages about invalid arguments.
            assert!(!text.contains("--help'") && !text.contains("Usage:"), "{example}: {text}");
            run += 1;
        }
    }
    assert!(run > COMMANDS.len(), "{run}");
}

#[test]
fn help_does_not_show_what_the_environment_says() {
    let fixture = Fixture::empty();
    let text = fixture.command(&["count", "--help"]).env("KEYSTEAD_STORE", "hunter2").output().unwrap().stdout;
    assert!(!String::from_utf8(text).unwrap().contains("hunter2"));
}

#[test]
fn the_program_alone_shows_its_help_as_an_error() {
    let fixture = Fixture::empty();
    for ran in [fixture.run(&[]), fixture.run_storeless(&[]), fixture.run(&["--json"])] {
        let text = ran.failed(2);
        assert!(text.contains("Usage:") && text.contains("Commands:") && text.contains("Examples:"), "{text}");
        assert!(!text.contains("error:"), "{text}");
    }
    assert!(fixture.run(&["--version"]).done().starts_with("keystead 0."));
}

#[test]
fn the_usage_line_does_not_ask_for_a_store_that_the_environment_names() {
    let fixture = Fixture::empty();
    for (args, usage) in
        [(&["get"][..], "Usage: keystead get <ID>\n"), (&["copy"], "Usage: keystead copy --to <URL|NAME>\n")]
    {
        let text = fixture.run(args).failed(2);
        assert!(text.contains(usage), "{text}");
    }
}

#[test]
fn an_unknown_command_is_shown_if_it_is_a_word_and_else_not() {
    let fixture = Fixture::empty();
    for word in ["frobnicate", "lst", "re-encrypt", "keys"] {
        let text = fixture.run(&[word]).failed(2);
        assert!(text.contains(&format!("unrecognized subcommand '{word}'")), "{text}");
    }
    let key = crate::fixture::KEY;
    for secret in
        [key, &key[..16], "deadbeef", "dead-beef", "Hunter", "hunter2", "correct-horse-battery-staple", "übel"]
    {
        for args in [&[secret][..], &["help", secret], &["--json", secret]] {
            let text = fixture.run(args).failed(2);
            assert!(text.contains("(not shown)") && !text.contains(secret), "{args:?}: {text}");
        }
    }
    // In any other position, the text is not shown.
    assert!(!fixture.run(&["get", "alice", "canary"]).failed(2).contains("canary"));
}

#[test]
fn no_command_that_deletes_or_replaces_is_proposed() {
    let fixture = Fixture::empty();
    assert!(fixture.run(&["lst"]).failed(2).contains("similar subcommand exists: 'list'"));
    // Similar to erase and to create: neither is suggested.
    assert!(!fixture.run(&["eraze", "bob"]).failed(2).contains("similar"));
    for mistyped in ["delet", "erse", "rotat", "pt", "putt", "restor", "reconcil", "re-encrypt", "reencript", "eras"] {
        for args in [&[mistyped][..], &["help", mistyped]] {
            let text = fixture.run(args).failed(2);
            for command in ["delete", "erase", "rotate", "put", "restore", "reconcile", "reencrypt"] {
                assert!(!text.contains(&format!("'{command}'")), "{args:?}: {text}");
            }
            assert!(!text.contains("tip:\n") && text.contains("Usage:"), "{text}");
        }
    }
}

#[test]
fn completions_are_written_for_each_shell() {
    let fixture = Fixture::empty();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = fixture.run_storeless(&["completions", shell]).done();
        assert!(script.contains("keystead") && script.contains("doctor"), "{shell}");
    }
}

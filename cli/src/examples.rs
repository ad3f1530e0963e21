//! The examples in the help and on the manual page of each command.

use clap::Command;

/// An example: what it does and the lines to type.
pub(crate) type Example = (&'static str, &'static [&'static str]);

/// The examples of the program, then those of each command by its name. No line is longer than 76
/// characters, so that none wraps on a terminal of 80 columns.
const EXAMPLES: &[(&str, &[Example])] = &[
    (
        "keystead",
        &[
            (
                "Name a store, create it, and give a user a key:",
                &[
                    "export KEYSTEAD_STORE=\"file://$PWD/db/keys?root_secret_file=$PWD/secret\"",
                    "keystead init",
                    "keystead generate alice@example.com",
                ],
            ),
            (
                "Erase the user; what is encrypted with the key becomes unreadable:",
                &["keystead erase alice@example.com"],
            ),
        ],
    ),
    (
        "init",
        &[
            (
                "With a new root secret in a file:",
                &["keystead init --store \"file://$PWD/db/keys?root_secret_file=$PWD/secret\""],
            ),
            ("With a passphrase, which is asked for:", &["keystead init --store \"file://$PWD/db/keys\""]),
        ],
    ),
    (
        "generate",
        &[
            ("Into the store, without showing the key:", &["keystead generate alice@example.com"]),
            ("To a new file that only its owner can read:", &["keystead generate --out alice.key"]),
        ],
    ),
    (
        "get",
        &[
            ("As hexadecimal digits:", &["keystead get alice@example.com"]),
            ("To a new file, with an id that no process list shows:", &["keystead get - --out key < id.txt"]),
        ],
    ),
    (
        "put",
        &[
            ("From a file:", &["keystead put bob --key-file bob.key"]),
            ("Replacing a different key, which is lost:", &["keystead put bob --key-file bob.key --overwrite"]),
        ],
    ),
    ("create", &[("From another program:", &["openssl rand -hex 32 | keystead create bob"])]),
    ("delete", &[("With a question:", &["keystead delete bob"]), ("In a script:", &["keystead delete bob --yes"])]),
    (
        "erase",
        &[
            ("With a question:", &["keystead erase alice@example.com"]),
            (
                "In a script, with the tombstones that the configuration file names:",
                &["keystead --store live erase alice@example.com --yes"],
            ),
            (
                "Many users, with a log of their receipts:",
                &["keystead --store live erase --ids-file ids --receipts receipts.log"],
            ),
        ],
    ),
    ("allow", &[("", &["keystead --store live allow alice@example.com"])]),
    (
        "receipt",
        &[
            ("Check that a log is whole:", &["keystead receipt verify receipts.log"]),
            ("Check receipts against the stores:", &["keystead --store live receipt check receipts.log"]),
            ("Generate a key to sign receipts with:", &["keystead receipt keygen receipts.key"]),
        ],
    ),
    (
        "list",
        &[
            ("Ids that begin with a text:", &["keystead list --prefix tenant-7:"]),
            ("As JSON, one value per line:", &["keystead list --limit 1000 --json > ids.jsonl"]),
        ],
    ),
    ("count", &[("", &["keystead count"])]),
    ("exists", &[("In a script:", &["keystead exists alice@example.com && echo \"has a key\""])]),
    (
        "copy",
        &[
            ("See what would be done:", &["keystead --store old copy --to new --dry-run"]),
            (
                "Copy, so that it can be resumed if it is interrupted:",
                &["keystead --store old copy --to new --journal move.j"],
            ),
            (
                "Resume, and empty the source at the end:",
                &["keystead --store old copy --to new --journal move.j --resume --delete-source"],
            ),
        ],
    ),
    (
        "verify",
        &[
            ("Read every record of a file store:", &["keystead verify"]),
            ("Compare two stores:", &["keystead --store old verify --against new"]),
        ],
    ),
    (
        "reconcile",
        &[
            ("Count the keys that would be erased again:", &["keystead --store live reconcile --dry-run"]),
            ("Erase them, with a question:", &["keystead --store live reconcile"]),
        ],
    ),
    ("rotate", &[("", &["keystead rotate --new-root-secret-file new.secret"])]),
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    (
        "reencrypt",
        &[("After the KMS key of the store \"live\" was changed:", &["keystead --store live reencrypt --exclusive"])],
    ),
    ("scrub", &[("", &["keystead scrub"])]),
    ("backup", &[("", &["keystead backup copies/monday.db"])]),
    ("restore", &[("", &["keystead restore copies/monday.db"])]),
    (
        "doctor",
        &[
            ("Check the store, and estimate the cost of 10,000 users:", &["keystead doctor --users 10000"]),
            ("Check the permissions to write, too:", &["keystead doctor --write"]),
        ],
    ),
    (
        "conformance",
        &[
            ("A quick run with a report for CI:", &["keystead conformance --scale 0.1 --junit report.xml"]),
            ("Some cases only:", &["keystead conformance delete. erase."]),
            ("After a run that was killed:", &["keystead conformance --clean-up ks0123456789abcd"]),
        ],
    ),
    ("completions", &[("", &["keystead completions bash > keystead.bash"])]),
    ("man", &[("", &["keystead man ~/.local/share/man/man1"])]),
];

/// Returns the examples of a command, or of the program itself.
pub(crate) fn of(name: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(command, _)| *command == name).map_or(&[], |(_, examples)| examples)
}

/// Adds the examples to the help of the program and of each of its commands.
pub(crate) fn in_help(program: Command) -> Command {
    let name = program.get_name().to_owned();
    let with_help = |command: Command, name: &str| match of(name) {
        [] => command,
        examples => command.after_help(text(examples)),
    };
    with_help(program, &name).mut_subcommands(|command| {
        let name = command.get_name().to_owned();
        with_help(command, &name)
    })
}

fn text(examples: &[Example]) -> String {
    let mut text = "Examples:".to_owned();
    for (what, lines) in examples {
        let indent = if what.is_empty() { "  " } else { "    " };
        if !what.is_empty() {
            text.push_str(&format!("\n  {what}"));
        }
        for line in *lines {
            text.push_str(&format!("\n{indent}{line}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    /// Splits a line like a shell, as far as the examples need it.
    fn words(line: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for c in line.chars() {
            match c {
                '"' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.into_iter().filter(|word| !word.is_empty()).collect()
    }

    #[test]
    fn each_example_is_taken_by_the_parser() {
        let mut parsed = 0;
        for (name, examples) in EXAMPLES {
            for (_, lines) in *examples {
                let calls = lines.iter().filter_map(|line| line.split(" | ").last());
                for call in calls.filter(|call| call.starts_with("keystead ")) {
                    let call = call.split(['<', '>', '&']).next().unwrap();
                    let parsing = args::command().try_get_matches_from(words(call));
                    let matches = parsing.unwrap_or_else(|e| panic!("{call}: {e}"));
                    assert!(*name == "keystead" || matches.subcommand_name() == Some(name), "{name}: {call}");
                    parsed += 1;
                }
            }
        }
        assert!(parsed >= EXAMPLES.len(), "{parsed}");
    }

    #[test]
    fn each_command_has_examples_and_each_line_fits_on_a_terminal() {
        for command in args::command().get_subcommands() {
            assert!(!of(command.get_name()).is_empty(), "{} has no example", command.get_name());
        }
        for line in EXAMPLES.iter().flat_map(|(_, examples)| *examples).flat_map(|(_, lines)| *lines) {
            assert!(line.len() <= 76, "{line}");
        }
    }
}

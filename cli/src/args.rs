//! [`Cli`]: what may stand on the command line. Never a key.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use keystead::Durability;
use serde::Deserialize;

use crate::commands::conformance::ConformanceArgs;
use crate::commands::copy::CopyArgs;
use crate::commands::delete::DeleteArgs;
use crate::commands::doctor::DoctorArgs;
use crate::commands::erase::EraseArgs;
use crate::commands::generate::GenerateArgs;
use crate::commands::get::GetArgs;
use crate::commands::init::InitArgs;
use crate::commands::list::ListArgs;
use crate::commands::put::{CreateArgs, PutArgs};
use crate::commands::receipt::ReceiptCommand;
use crate::commands::reconcile::ReconcileArgs;
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
use crate::commands::reencrypt::ReencryptArgs;
use crate::commands::restore::RestoreArgs;
use crate::commands::rotate::RotateArgs;
use crate::commands::verify::VerifyArgs;
use crate::examples;
use crate::exit::{Code, CommandError};

/// Keeps one secret encryption key per user, in the store you trust: delete the key and the user's data is gone.
///
/// Keys go in by standard input or from files, never as arguments. Results go to standard output, all else to standard
/// error. Exit codes: 0 done, 1 failed, 2 wrong command or configuration, 3 not found, 4 refused, 5 denied,
/// 6 unavailable, 7 damaged, 8 not verified, 9 recoverable, 10 receipt not kept, 11 something left
/// behind, 130 interrupted, 141 nobody reads the output any more.
#[derive(Debug, Parser)]
#[command(name = "keystead", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Stands for a text that may be a secret.
const NOT_SHOWN: &str = "(not shown)";

/// Commands that delete or replace something. None of them is proposed to somebody who has mistyped another one.
const DESTRUCTIVE: &[&str] = &["allow", "delete", "erase", "put", "reconcile", "reencrypt", "restore", "rotate"];

/// The heading of what every command takes.
const EVERYWHERE: &str = "Options of every command";

/// What every command takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// The store: a URL such as file:///PATH?root_secret_file=FILE, ssm:///app/user-keys/%s?kms_key=alias/app or memory:,
    /// or a name from the configuration file
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL|NAME", env = "KEYSTEAD_STORE", hide_env_values = true)]
    pub(crate) store: Option<String>,
    /// The configuration file, instead of keystead/config.toml in the user's directory of configuration files
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Reads the passphrase of a file store whose URL names no root secret here, instead of asking on the terminal
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The store that keeps a tombstone of each erased user, a URL or a name: an erasure leaves one there, and nobody who has
    /// one gets a key. The configuration file or the variable KEYSTEAD_TOMBSTONES can name it instead
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL|NAME")]
    pub(crate) tombstones: Option<String>,
    /// Accepts tombstones that are less durable than the keys: `host` for a file store beside keys in AWS. If that host is
    /// lost, erased users can be created again
    #[arg(long, global = true, help_heading = EVERYWHERE, value_enum, value_name = "DURABILITY", hide_possible_values = true)]
    pub(crate) accept_tombstone_durability: Option<DurabilityArg>,
    /// Goes around the tombstones: an erased user can get a key again
    #[arg(long, global = true, help_heading = EVERYWHERE, conflicts_with_all = ["tombstones", "accept_tombstone_durability"])]
    pub(crate) no_tombstones: bool,
    /// The region of an AWS store whose URL names none
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The profile of an AWS store whose URL names none
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Ends the command after so many seconds, as Ctrl-C would
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) timeout: Option<u64>,
    /// Writes results and errors as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Says on standard error what is being done; given twice (-vv), also a line about each attempt of a call to AWS:
    /// operation, status, code, request id and time. No id and no key
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates a file store, with a new root secret or a passphrase
    Init(InitArgs),
    /// Makes a random key: straight into the store if an id is given, else to standard output or a file
    Generate(GenerateArgs),
    /// Reads a key
    Get(GetArgs),
    /// Stores a key; another one that stands already is left, unless --overwrite is given
    Put(PutArgs),
    /// Stores a key, unless the user has one already, be it the same key
    Create(CreateArgs),
    /// Deletes a key; asks before
    Delete(DeleteArgs),
    /// Erases a user, or many: deletes the key if there is one, proves that it is gone, and tells so; asks before
    ///
    /// Exit codes: 0 if the key is gone, verified, and beyond recovery now or later without anybody's help; 8 if no
    /// read has verified it; 9 if an operator can still bring the key back; 10 if the user is erased and the receipt
    /// could not be added to the log. Of many users the worst counts: 10, then the code of the first failure, then 8,
    /// then 9.
    Erase(EraseArgs),
    /// Allows an erased user to get a new key, once no cache can show the old one any more
    Allow(IdArgs),
    /// Lists the ids, one a line, in no order
    ///
    /// A pipe or a file gets the bytes of each id as they are. A terminal shows line separators and
    /// marks of reading order as \uXXXX, so take an id with such a character from a pipe. With
    /// --json each line is {"id": "..."}.
    List(ListArgs),
    /// Counts the keys
    Count,
    /// Says whether there is a key; the exit code is 3 if there is none
    Exists(IdArgs),
    /// Copies all keys to another store and reads each back; can go on where it was cut off
    Copy(CopyArgs),
    /// Reads every record of a file store and reports the damaged ones, or compares any store with another; changes nothing
    Verify(VerifyArgs),
    /// Erases again every listed user who has a tombstone: after a restore of the keys from a backup; asks before
    Reconcile(ReconcileArgs),
    /// Checks receipts of erasures and logs of receipts, and makes keys that sign them
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Gives a file store a new root secret, while it is in use
    Rotate(RotateArgs),
    /// Encrypts each key of an AWS store under the KMS key, and in the tier, that the URL names,
    /// and reads it back; can be repeated
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    Reencrypt(ReencryptArgs),
    /// Removes what is left of deleted and overwritten keys from the files of a file store
    Scrub,
    /// Copies a file store as it is at this moment, while it is in use
    Backup {
        /// The new file; nothing is ever overwritten
        #[arg(value_name = "FILE")]
        target: PathBuf,
    },
    /// Puts a backup in the place of a file store, which is kept beside it; asks before
    Restore(RestoreArgs),
    /// Says whether a store can be reached, read and listed, how full it is, and what it costs
    Doctor(DoctorArgs),
    /// Runs the conformance suite over a store of this kind, in a scratch namespace
    Conformance(ConformanceArgs),
    /// Writes the completions for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages of all commands to a directory
    ///
    /// A page that an earlier run wrote there is replaced; any other file is left, and then no page is written.
    Man {
        /// An existing directory, such as ~/.local/share/man/man1, which man searches by itself
        directory: PathBuf,
    },
}

/// Whose key.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdArgs {
    /// The id; - reads it from standard input, so that it is in no history and no list of processes
    #[arg(value_name = "ID", required_unless_present = "id_file", conflicts_with = "id_file")]
    pub(crate) id: Option<String>,
    /// Reads the id from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) id_file: Option<PathBuf>,
}

/// A durability that can be accepted although the keys' own is stronger.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DurabilityArg {
    // No doc comment: with one, the help of every command would be in the long form.
    Host,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Host => Self::Host,
        }
    }
}

/// The program's arguments, with examples in the help.
pub(crate) fn command() -> clap::Command {
    examples::in_help(Cli::command())
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches()?;
    Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command()))
}

/// Shows help, or says what is wrong with the arguments without repeating values: one of them may be a key.
pub(crate) fn report(mut e: clap::Error) -> ExitCode {
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match e.print() {
                Ok(()) => Code::Done.into(),
                Err(e) => CommandError::stdout(e).report(false),
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {}
        // Without a command, but with an option or the variable for the store.
        ErrorKind::MissingSubcommand => {
            let _ = write!(io::stderr(), "{}", command().render_help());
            return Code::Usage.into();
        }
        ErrorKind::InvalidSubcommand => e = unknown_command(&e),
        _ => redact(&mut e),
    }
    let _ = e.print();
    Code::Usage.into()
}

fn redact(e: &mut clap::Error) {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
        let Some(ContextValue::String(text)) = e.get(kind) else { continue };
        // Options and the names of our own arguments may stand, and an empty value is how clap says that one is missing.
        let is_ours = kind == ContextKind::InvalidArg && text.starts_with(['-', '<', '[']);
        if !is_ours && !text.is_empty() {
            e.insert(kind, ContextValue::String(NOT_SHOWN.to_owned()));
        }
    }
}

/// Returns the error about an unknown command, which shows what was typed only if it is a word, and
/// proposes no command that deletes or replaces something.
fn unknown_command(e: &clap::Error) -> clap::Error {
    let mut shown = clap::Error::new(ErrorKind::InvalidSubcommand).with_cmd(&command());
    let typed = match e.get(ContextKind::InvalidSubcommand) {
        Some(ContextValue::String(typed)) if is_word(typed) => typed,
        _ => NOT_SHOWN,
    };
    shown.insert(ContextKind::InvalidSubcommand, ContextValue::String(typed.to_owned()));
    if let Some(ContextValue::Strings(similar)) = e.get(ContextKind::SuggestedSubcommand) {
        let harmless = similar.iter().filter(|name| !DESTRUCTIVE.contains(&name.as_str()));
        let harmless: Vec<String> = harmless.cloned().collect();
        // Beside one that destroys, a harmless one is hardly what was meant.
        if !harmless.is_empty() && harmless.len() == similar.len() {
            shown.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(harmless));
        }
    }
    if let Some(ContextValue::StyledStr(usage)) = e.get(ContextKind::Usage) {
        shown.insert(ContextKind::Usage, ContextValue::StyledStr(usage.clone()));
    }
    shown
}

/// Reports whether a text is a word, as the name of a command is, and no part of a key.
fn is_word(text: &str) -> bool {
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !is_hex
}

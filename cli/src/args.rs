//! [`Cli`]: the command line, on which a key never appears.

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

/// Keeps one secret encryption key per user in a store that you trust; deleting the key makes the
/// user's data unreadable
///
/// Keys are read from standard input or from files, never from arguments. Results go to standard
/// output, everything else to standard error. Exit codes: 0 done, 1 failed, 2 wrong command or
/// configuration, 3 not found, 4 refused, 5 denied, 6 unavailable, 7 damaged, 8 not verified,
/// 9 recoverable, 10 receipt not kept, 11 something left behind, 130 interrupted, 141 standard
/// output closed by its reader.
#[derive(Debug, Parser)]
#[command(name = "keystead", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
    /// The name of the command.
    #[arg(skip)]
    pub(crate) command_name: String,
}

/// The placeholder for a text that may be a secret.
const NOT_SHOWN: &str = "(not shown)";

/// The commands that delete or replace something. A mistyped command is never answered with a
/// suggestion of one of these.
const DESTRUCTIVE: &[&str] = &["allow", "delete", "erase", "put", "reconcile", "reencrypt", "restore", "rotate"];

/// The help heading of the options that every command takes.
const EVERYWHERE: &str = "Options of every command";

/// The options that every command takes.
#[derive(Args, Debug)]
pub(crate) struct Global {
    /// The store: a URL, such as file:///PATH?root_secret_file=FILE,
    /// ssm:///app/user-keys/%s?kms_key=alias/app or memory:, or a name from the configuration file
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        value_name = "URL|NAME",
        env = "KEYSTEAD_STORE",
        hide_env_values = true
    )]
    pub(crate) store: Option<String>,
    /// The configuration file; by default keystead/config.toml in the user's configuration
    /// directory
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Reads the passphrase of a file store from this file instead of asking for it on the
    /// terminal; only for a store whose URL names no root secret
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
    /// The store of the tombstones, a URL or a name: each erasure leaves a tombstone there, and a
    /// user who has one gets no key. The configuration file or the variable KEYSTEAD_TOMBSTONES can
    /// name it instead
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "URL|NAME")]
    pub(crate) tombstones: Option<String>,
    /// Accepts tombstones that are less durable than the keys: `host` accepts tombstones in a file
    /// store for keys in AWS. If that host is lost, erased users can get keys again
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        value_enum,
        value_name = "DURABILITY",
        hide_possible_values = true
    )]
    pub(crate) accept_tombstone_durability: Option<DurabilityArg>,
    /// Ignores the tombstones: an erased user can get a key again
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        conflicts_with_all = ["tombstones", "accept_tombstone_durability"]
    )]
    pub(crate) no_tombstones: bool,
    /// The region of an AWS store, if its URL names none
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "REGION")]
    pub(crate) region: Option<String>,
    /// The profile of an AWS store, if its URL names none
    #[arg(long, global = true, help_heading = EVERYWHERE, value_name = "PROFILE")]
    pub(crate) profile: Option<String>,
    /// Ends the command after this many seconds, as Ctrl-C would
    #[arg(
        long,
        global = true,
        help_heading = EVERYWHERE,
        value_name = "SECONDS",
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub(crate) timeout: Option<u64>,
    /// Writes results and errors as JSON
    #[arg(long, global = true, help_heading = EVERYWHERE)]
    pub(crate) json: bool,
    /// Reports each step on standard error; given twice (-vv), also each attempt of a call to AWS,
    /// with its operation, status, code, request id and duration. Never shows an id or a key
    #[arg(short, long, global = true, help_heading = EVERYWHERE, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Creates a file store with a new root secret or a passphrase
    Init(InitArgs),
    /// Generates a random key; stores it if an id is given, otherwise writes it to standard output
    /// or a file
    Generate(GenerateArgs),
    /// Reads a key
    Get(GetArgs),
    /// Stores a key; leaves a different key that exists unchanged, unless --overwrite is given
    Put(PutArgs),
    /// Stores a key, unless the user already has one, even the same one
    Create(CreateArgs),
    /// Deletes a key, after asking
    Delete(DeleteArgs),
    /// Erases one user or many, after asking: deletes the key, if there is one, and proves that it
    /// is gone
    ///
    /// Exit codes: 0 if the key is verified to be gone and its bytes are beyond recovery, or will
    /// be without anybody's help; 8 if no read has verified that the key is gone; 9 if an operator
    /// can still bring the key back; 10 if the user is erased but the receipt could not be added to
    /// the log. For many users, the worst outcome decides: 10, then the code of the first failure,
    /// then 8, then 9.
    Erase(EraseArgs),
    /// Allows an erased user to get a new key, once no cache can still return the old one
    Allow(IdArgs),
    /// Lists the ids, one per line, in no particular order
    ///
    /// A pipe or a file receives the exact bytes of each id. A terminal shows line separators and
    /// bidirectional controls as \uXXXX: use a pipe to get the exact bytes of such an id. With
    /// --json, each line is {"id": "..."}.
    List(ListArgs),
    /// Counts the keys
    Count,
    /// Reports whether a user has a key; the exit code is 3 if not
    Exists(IdArgs),
    /// Copies all keys to another store and reads each one back; an interrupted copy can be resumed
    Copy(CopyArgs),
    /// Reads every record of a file store and reports the damaged ones, or compares two stores of
    /// any kind; changes nothing
    Verify(VerifyArgs),
    /// Erases again, after asking, every user who has both a tombstone and a key; needed after the
    /// keys were restored from a backup
    Reconcile(ReconcileArgs),
    /// Checks receipts of erasures and receipt logs, and generates keys to sign them
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Gives a file store a new root secret while the store is in use
    Rotate(RotateArgs),
    /// Re-encrypts each key of an AWS store under the KMS key and in the tier that the URL names,
    /// and reads it back; can be repeated
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    Reencrypt(ReencryptArgs),
    /// Removes the remains of deleted and overwritten keys from the files of a file store
    Scrub,
    /// Copies a file store to a new file while the store is in use
    Backup {
        /// The new file; an existing file is never overwritten
        #[arg(value_name = "FILE")]
        target: PathBuf,
    },
    /// Replaces a file store with a backup, after asking, and keeps the replaced store beside it
    Restore(RestoreArgs),
    /// Reports whether a store can be reached, read and listed, how full it is, and what it costs
    Doctor(DoctorArgs),
    /// Runs the conformance suite against a store of this kind, in a scratch namespace
    Conformance(ConformanceArgs),
    /// Writes the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Writes the manual pages of all commands to a directory
    ///
    /// Pages that an earlier run wrote are replaced. If any other file is in the way, no page is
    /// written.
    Man {
        /// An existing directory, such as ~/.local/share/man/man1, which man searches by default
        directory: PathBuf,
    },
}

/// The id of a user.
#[derive(Args, Clone, Debug)]
pub(crate) struct IdArgs {
    /// The id; - reads it from standard input, which keeps it out of the shell history and the
    /// process list
    #[arg(value_name = "ID", required_unless_present = "id_file", conflicts_with = "id_file")]
    pub(crate) id: Option<String>,
    /// Reads the id from this file
    #[arg(long, value_name = "FILE")]
    pub(crate) id_file: Option<PathBuf>,
}

/// A durability of tombstones that can be accepted although that of the keys is higher.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DurabilityArg {
    // A doc comment would switch the help of every command to the long form.
    Host,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Host => Self::Host,
        }
    }
}

/// Returns the parser of the command line, with examples in the help.
pub(crate) fn command() -> clap::Command {
    examples::in_help(Cli::command())
}

/// Parses the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let matches = command().try_get_matches()?;
    let mut cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command()))?;
    cli.command_name = matches.subcommand_name().unwrap_or_default().to_owned();
    Ok(cli)
}

/// Shows the help, or reports what is wrong with the arguments. Values are not repeated, because
/// one of them may be a key.
pub(crate) fn report(mut e: clap::Error) -> ExitCode {
    match e.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return match e.print() {
                Ok(()) => Code::Done.into(),
                Err(e) => CommandError::stdout(e).report(false),
            };
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {}
        // No command, but an option or the variable of the store was given.
        ErrorKind::MissingSubcommand => {
            let _ = write!(io::stderr(), "{}", command().render_help());
            return Code::Usage.into();
        }
        ErrorKind::InvalidSubcommand => e = unknown_command(&e),
        _ => redact(&mut e),
    }
    leave_out_store(&mut e);
    let _ = e.print();
    Code::Usage.into()
}

fn redact(e: &mut clap::Error) {
    for kind in [ContextKind::InvalidArg, ContextKind::InvalidValue] {
        let Some(ContextValue::String(text)) = e.get(kind) else { continue };
        // The names of our own options and arguments may be shown. An empty value means that the
        // value is missing.
        let is_ours = kind == ContextKind::InvalidArg && text.starts_with(['-', '<', '[']);
        if !is_ours && !text.is_empty() {
            e.insert(kind, ContextValue::String(NOT_SHOWN.to_owned()));
        }
    }
}

/// Removes `--store` from the usage line. clap shows it there if the environment names the store,
/// as if the option were required.
fn leave_out_store(e: &mut clap::Error) {
    let Some(ContextValue::StyledStr(usage)) = e.get(ContextKind::Usage) else { return };
    let usage = usage.to_string();
    let without_store = usage.replace(" --store <URL|NAME>", "");
    if without_store != usage {
        e.insert(ContextKind::Usage, ContextValue::StyledStr(without_store.into()));
    }
}

/// Returns the error about an unknown command. It shows the typed text only if that is a word, and
/// never suggests a command that deletes or replaces something.
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
        // If a destructive command is similar, too, a harmless one is probably not what was meant.
        if !harmless.is_empty() && harmless.len() == similar.len() {
            shown.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(harmless));
        }
    }
    if let Some(ContextValue::StyledStr(usage)) = e.get(ContextKind::Usage) {
        shown.insert(ContextKind::Usage, ContextValue::StyledStr(usage.clone()));
    }
    shown
}

/// Reports whether a text is a word like the name of a command, and cannot be part of a key.
fn is_word(text: &str) -> bool {
    let is_hex = text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'-') && !is_hex
}

//! The commands, with one file for each command or family of commands.

mod allow;
mod backup;
mod completions;
pub(crate) mod conformance;
pub(crate) mod copy;
pub(crate) mod delete;
pub(crate) mod doctor;
pub(crate) mod erase;
mod erase_many;
mod eraser;
pub(crate) mod generate;
pub(crate) mod get;
pub(crate) mod init;
pub(crate) mod list;
mod man;
mod prices;
pub(crate) mod put;
pub(crate) mod receipt;
pub(crate) mod reconcile;
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub(crate) mod reencrypt;
pub(crate) mod restore;
pub(crate) mod rotate;
mod scrub;
pub(crate) mod verify;

use crate::args::Command;
use crate::exit::Outcome;
use crate::session::Session;

pub(crate) async fn run(session: Session, command: Command) -> Outcome {
    match command {
        Command::Init(args) => init::run(&session, args).await,
        Command::Generate(args) => generate::run(&session, args).await,
        Command::Get(args) => get::run(&session, args).await,
        Command::Put(args) => put::put(&session, args).await,
        Command::Create(args) => put::create(&session, args).await,
        Command::Delete(args) => delete::run(&session, args).await,
        Command::Erase(args) => erase::run(&session, args).await,
        Command::Allow(id) => allow::run(&session, id).await,
        Command::List(args) => list::list(&session, args).await,
        Command::Count => list::count(&session).await,
        Command::Exists(id) => get::exists(&session, id).await,
        Command::Copy(args) => copy::run(&session, args).await,
        Command::Verify(args) => verify::run(&session, args).await,
        Command::Reconcile(args) => reconcile::run(&session, args).await,
        Command::Receipt(command) => receipt::run(&session, command).await,
        Command::Rotate(args) => rotate::run(&session, args).await,
        #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
        Command::Reencrypt(args) => reencrypt::run(&session, args).await,
        Command::Scrub => scrub::run(&session).await,
        Command::Backup { target } => backup::run(&session, target).await,
        Command::Restore(args) => restore::run(&session, args).await,
        Command::Doctor(args) => doctor::run(&session, args).await,
        Command::Conformance(args) => conformance::run(&session, args).await,
        Command::Completions { shell } => completions::run(&session, shell),
        Command::Man { directory } => man::run(&session, &directory),
    }
}

/// Returns what may have happened if the command is interrupted, and what to do.
pub(crate) fn when_interrupted(command: &Command) -> String {
    let text = match command {
        Command::Init(_) => {
            "the store and the file of its root secret may already exist: run doctor; if there is no store, run init \
             again, with --existing-root-secret if that file exists"
        }
        Command::Generate(args) if !args.has_id() => "no store was opened",
        Command::Generate(_) | Command::Put(_) | Command::Create(_) => {
            "the key was written completely or not at all, and in AWS it may still appear within moments: check with \
             exists, then repeat the command"
        }
        Command::Delete(_) => {
            "the key may have been deleted, and in AWS it may still disappear within moments: check with exists, then \
             repeat the command"
        }
        Command::Erase(_) => {
            "the erasure may have begun: the key may be deleted, and with tombstones the user may already count as \
             erased; run erase again to finish it and to get the proof"
        }
        Command::Rotate(_) => {
            "if the store opens with the new root secret, the rotation has begun or is complete: run rotate --resume; \
             if it opens with the old one, nothing was changed: run rotate again, with another new file"
        }
        #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
        Command::Reencrypt(_) => {
            "one key may be encrypted under the new KMS key without having been checked: if others could write, look \
             at the history of its parameter; run reencrypt again to finish"
        }
        Command::Reconcile(args) if args.dry_run => "nothing was changed",
        Command::Reconcile(_) => {
            "each erasure may have begun or be complete, and up to eight complete ones may have no receipt: run \
             reconcile again to finish"
        }
        Command::Copy(args) => return args.when_interrupted(),
        Command::Scrub => "no key was changed: run scrub again",
        Command::Backup { .. } => "the unfinished copy was removed, and the store was not changed",
        Command::Restore(_) => {
            "the store may be the old one, the restored one, or one that refuses to open: run restore again with the \
             same backup; once the backup is in place, users who were erased since may have their keys again: run \
             reconcile, too"
        }
        Command::Doctor(args) if args.write => {
            "the key that was created for a random id may be left: find it with list --prefix keystead-doctor-, and \
             delete it"
        }
        Command::Conformance(args) => args.when_interrupted(),
        _ => "nothing was changed",
    };
    text.to_owned()
}

//! The commands, one file each or one a family.

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
mod list;
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

use keystead::PutMode;

use crate::args::Command;
use crate::exit::Outcome;
use crate::session::Session;

pub(crate) async fn run(session: Session, command: Command) -> Outcome {
    match command {
        Command::Init(args) => init::run(&session, args).await,
        Command::Generate(args) => generate::run(&session, args).await,
        Command::Get(args) => get::run(&session, args).await,
        Command::Put(args) => put::run(&session, args, PutMode::Overwrite).await,
        Command::Create(args) => put::run(&session, args, PutMode::Create).await,
        Command::Delete(args) => delete::run(&session, args).await,
        Command::Erase(args) => erase::run(&session, args).await,
        Command::List => list::list(&session).await,
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
    }
}

/// What is to be said of a command that was cut off.
pub(crate) fn when_interrupted(command: &Command) -> &'static str {
    match command {
        Command::Init(_) => "the store may stand already: try doctor, and init again if there is none",
        Command::Generate(_) | Command::Put(_) | Command::Create(_) | Command::Delete(_) => {
            "the write was made whole or not at all: look with exists, then repeat it"
        }
        Command::Erase(_) => {
            "the key is erased or stands, and the receipt may be missing: erase again, which is safe and gives another \
             receipt"
        }
        Command::Rotate(_) => {
            "if the store opens with the new root secret, the rotation has begun: end it with rotate --resume; \
             if it opens with the old one, nothing was changed"
        }
        #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
        Command::Reencrypt(_) => {
            "one key may stand under the new KMS key without having been checked: look at its parameter's history if \
             others could write; run reencrypt again to finish"
        }
        Command::Reconcile(_) => {
            "each erasure was made whole or not at all, and up to eight that were may have no receipt: run reconcile \
             again to finish"
        }
        Command::Copy(_) => {
            "no key was deleted at the source unless the target has it. Keys that the source lost may have been removed at the \
             target, and conflicting keys replaced, as was asked for: go on with --resume and the same journal, or copy again"
        }
        Command::Backup { .. } => "the copy was removed, the store is as it was",
        Command::Restore(_) => {
            "the store opens as it was or as the backup, or it refuses to open: run restore again with the same backup"
        }
        Command::Conformance(_) => {
            "what the suite wrote may still stand in its scratch namespace, nothing else was touched"
        }
        _ => "nothing was changed",
    }
}

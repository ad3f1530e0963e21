//! `restore`: replaces a file store with a backup.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keystead::KeyStore;
use serde_json::json;

use crate::commands::reconcile::{self, AgainArgs};
use crate::exit::{Code, Outcome};
use crate::session::Session;
use crate::{output, stores, terminal};

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup, which is only read; it must open with the root secret of the store
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Does not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    again: AgainArgs,
}

pub(crate) async fn run(session: &Session, args: RestoreArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    let root = stores::root_secret(&asked, &url).await?;
    // Opened first, so that nothing is done if this fails.
    let tombstones = match asked.tombstones() {
        Some(named) => {
            let store = stores::open_tombstones(session, named).await?;
            stores::must_hold_tombstones(&*store, "nothing was restored").await?;
            Some((store, named))
        }
        None => None,
    };
    if !args.yes {
        let path = url.path().display();
        let erased = match &tombstones {
            Some((store, _)) => format!("and erase again every user who has a tombstone in {}", store.info()),
            None => "with the keys of users who were erased since then".to_owned(),
        };
        let question = format!("replace {path} with the backup {}, {erased}?", args.backup.display());
        terminal::confirm(&question, "nothing was restored").await?;
    }
    let store = url.options().restore(&args.backup, url.path(), root).await?;
    session.close_later(&store);
    let shown = store.info().to_string();
    let replaced = store.replaced_store().map(|path| path.display().to_string());
    let mut text = format!("restored {shown}");
    if let Some(replaced) = &replaced {
        text.push_str(&format!("\nthe replaced store is kept as {replaced}"));
    }
    session.output.result(text, json!({ "store": shown, "replaced_store": replaced }))?;
    if replaced.is_some() {
        output::note(
            "remove the replaced store and the log beside it (-wal) when you no longer need them: they keep the keys \
             of users who are erased from now on",
        );
    }
    let Some((tombstones, named)) = tombstones else {
        if asked.keeps_tombstones {
            output::note(
                "warning: this store keeps tombstones, and those that are newer than the backup are gone: users who \
                 were erased since then can come back; erase them again",
            );
            return Ok(Code::Done);
        }
        output::note(
            "users who were erased since the backup may have their keys again: before the store is used, erase them \
             again with keystead reconcile and your tombstones",
        );
        return Ok(Code::Done);
    };
    let again = async {
        let fence = stores::fence(Arc::new(store), tombstones, named)?;
        reconcile::erase_again(session, &fence, &args.again).await
    };
    again.await.map_err(|failure| {
        failure.advise(
            "the backup is in place, but users who were erased since then may have their keys again: run reconcile \
             before the store is used",
        )
    })
}

//! `restore`: a backup in the place of a file store.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use keystead::KeyStore;
use keystead::layers::is_fence_key;
use serde_json::json;

use crate::commands::reconcile::{self, AgainArgs};
use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::{output, stores, terminal};

#[derive(Args, Debug)]
pub(crate) struct RestoreArgs {
    /// The backup, which is only read; it opens with the root secret that the store is given with
    #[arg(value_name = "FILE")]
    backup: PathBuf,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    again: AgainArgs,
}

pub(crate) async fn run(session: &Session, args: RestoreArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    let root = stores::root_secret(&asked, &url).await?;
    // Opened first: if that fails, nothing was done.
    let tombstones = match asked.tombstones() {
        Some(named) => {
            let store = stores::open_tombstones(session, named).await?;
            must_hold_tombstones(&*store).await?;
            Some((store, named))
        }
        None => None,
    };
    if !args.yes {
        let path = url.path().display();
        let erased = match &tombstones {
            Some((store, _)) => format!("and erase again whoever has a tombstone in {}", store.info()),
            None => "with the keys of users who were erased since".to_owned(),
        };
        let question = format!("put the backup {} in the place of {path}, {erased}?", args.backup.display());
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
            "remove the replaced store, and the log beside it (-wal), when you no longer need it: it still contains the keys of \
             users who are erased later",
        );
    }
    let Some((tombstones, named)) = tombstones else {
        if asked.keeps_tombstones {
            output::note(
                "warning: this store keeps tombstones, and those that are younger than the backup are gone from it: users who \
                 were erased since can come back, unless they are erased once more",
            );
            return Ok(Code::Done);
        }
        output::note(
            "users who were erased since the backup may have their keys again: before the store serves anybody, erase these \
             with keystead reconcile and your tombstones",
        );
        return Ok(Code::Done);
    };
    let again = async {
        let fence = stores::fence(Arc::new(store), tombstones, named)?;
        reconcile::erase_again(session, &fence, &args.again).await
    };
    again.await.map_err(|failure| {
        failure.advise(
            "the backup stands in its place, but users who were erased since may have their keys again: run reconcile before \
             the store serves anybody",
        )
    })
}

/// Refuses a store of tombstones that no fence has used yet: it cannot tell who was erased since the backup.
async fn must_hold_tombstones(store: &dyn KeyStore) -> Outcome<()> {
    let mut ids = store.list_keys();
    while let Some(id) = ids.next().await {
        if is_fence_key(&id?) {
            return Ok(());
        }
    }
    Err(CommandError::refused(format!(
        "nothing was restored: {} holds no tombstones, so it cannot tell who was erased since the backup",
        store.info()
    ))
    .advise("give the right store of tombstones; if nobody was ever erased, say --no-tombstones"))
}

//! `restore`: a backup in the place of a file store.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use keystead::KeyStore;
use serde_json::json;

use crate::commands::reconcile;
use crate::exit::{Code, Outcome};
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
}

pub(crate) async fn run(session: &Session, args: RestoreArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    let root = stores::root_secret(&asked, &url).await?;
    // Opened first: if that fails, nothing was done.
    let tombstones = match asked.tombstones() {
        Some(named) => Some((stores::open_tombstones(session, named).await?, named)),
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
            "remove the replaced store, and the log beside it (-wal), when you no longer need it: it keeps the keys of users \
             who are erased from now on",
        );
    }
    let Some((tombstones, named)) = tombstones else {
        output::note(
            "users who were erased since the backup may have their keys again: before the store serves anybody, erase these \
             with keystead reconcile and your tombstones",
        );
        return Ok(Code::Done);
    };
    let fence = stores::fence(Arc::new(store), tombstones, named)?;
    reconcile::erase_again(session, &fence, false).await.map_err(|failure| {
        failure.advise(
            "the backup stands in its place, but users who were erased since may have their keys again: run reconcile before \
             the store serves anybody",
        )
    })
}

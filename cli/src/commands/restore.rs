//! `restore`: a backup in the place of a file store.

use std::path::{Path, PathBuf};

use clap::Args;
use keystead::KeyStore;
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
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
    let url = stores::file_url(session)?;
    let root = stores::root_secret(session, &url).await?;
    if !args.yes {
        confirm(url.path()).await?;
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
    output::note("what to do now:");
    output::note(
        "  1. users who were erased since the backup may have their keys again: before the store serves anybody,",
    );
    output::note("     erase these with keystead reconcile and your tombstones");
    if replaced.is_some() {
        output::note(
            "  2. remove the replaced store, and the log beside it (-wal), when you no longer need it: it keeps \
             the keys",
        );
        output::note("     of users who are erased from now on");
    }
    Ok(Code::Done)
}

async fn confirm(path: &Path) -> Outcome<()> {
    let path = path.display();
    let question =
        format!("put the backup in the place of {path}, with the keys of users who were erased since? type yes: ");
    match terminal::confirms(question).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::refused("nothing was restored: the answer was not yes")),
        None => Err(Failure::refused("nothing was restored: there is no terminal to ask on, say --yes")),
    }
}

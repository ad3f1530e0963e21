//! `erase`: deletes a user's key and proves that it is gone.

use std::path::PathBuf;

use clap::Args;
use keystead::layers::ErasureReceipt;
use serde_json::json;

use super::erase_many;
use super::eraser::{Erased, Eraser};
use crate::args::IdArgs;
use crate::exit::{Code, Outcome};
use crate::finality::{FinalityArgs, left_elsewhere};
use crate::output::{self, utc};
use crate::receipts::ReceiptsArgs;
use crate::session::Session;
use crate::terminal;

#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    /// The id; - reads it from standard input, which keeps it out of the shell history and the
    /// process list
    #[arg(
        value_name = "ID",
        required_unless_present_any = ["id_file", "ids_file"],
        conflicts_with_all = ["id_file", "ids_file"]
    )]
    id: Option<String>,
    /// Reads the id from this file
    #[arg(long, value_name = "FILE", conflicts_with = "ids_file")]
    id_file: Option<PathBuf>,
    /// Erases many users, 32 at a time: reads one id per line from this file, or from standard
    /// input if this is -. The command can safely be repeated
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
    /// Skips users who have a verified receipt of this store in the log of --receipts, if their
    /// tombstones still prove the erasure. Trusts the log about what was verified, and does not
    /// look for keys that were put back by other means, such as a restore: use reconcile for these
    #[arg(long, requires = "ids_file", requires = "receipts")]
    pub(super) resume: bool,
    /// Does not ask for confirmation
    #[arg(long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) receipts: ReceiptsArgs,
    #[command(flatten)]
    pub(super) finality: FinalityArgs,
}

pub(crate) async fn run(session: &Session, mut args: EraseArgs) -> Outcome {
    match args.ids_file.take() {
        Some(file) => erase_many::run(session, &args, &file).await,
        None => erase_one(session, args).await,
    }
}

async fn erase_one(session: &Session, args: EraseArgs) -> Outcome {
    let id = IdArgs { id: args.id, id_file: args.id_file }.read().await?;
    let eraser = Eraser::open(session).await?;
    args.receipts.check(eraser.fence().is_some())?;
    if !args.yes {
        let question = format!("permanently erase this user's key from {}?", eraser.shown());
        terminal::confirm(&question, "nothing was erased").await?;
    }
    let mut keeper = args.receipts.open().await?;
    let erased = eraser.erase(&id).await?;
    let kept = match (&mut keeper, &erased.receipt) {
        (Some(keeper), Some(receipt)) => Some(keeper.keep(receipt)),
        _ => None,
    };
    let mut text = text(&erased);
    match (&kept, &erased.receipt) {
        (Some(Ok(entry)), _) => text.push_str(&format!("\nreceipt    entry {entry} of the log")),
        // The receipt itself, so that it can be kept for `receipt check`.
        (Some(Err(_)), Some(receipt)) => text.push_str(&format!("\n{}", json!({ "receipt": receipt }))),
        _ => {}
    }
    let printed = session.output.result(text, erased.to_json());
    if let Some(Err(not_kept)) = kept {
        return Err(not_kept.into_failure(printed.is_ok()));
    }
    printed?;
    let code = args.finality.code(erased.verified, erased.finality);
    if !session.output.json {
        note(code, eraser.scheme());
    }
    Ok(code)
}

/// Writes advice on this exit code, and what the erasure cannot reach.
pub(super) fn note(code: Code, scheme: &str) {
    match code {
        Code::NotVerified => output::note("no read has proved that the key is gone: run erase again"),
        Code::Recoverable => output::note(
            "the key's bytes are not beyond recovery: check the recovery settings of the store, or give \
             --accept-recoverable if they are intended",
        ),
        _ => {}
    }
    output::note(format!("not reached by the erasure: {}", left_elsewhere(scheme)));
}

fn text(erased: &Erased) -> String {
    let mut text = erased.text();
    if let Some(ErasureReceipt { store, tombstone, erased_at, finished_at, .. }) = &erased.receipt {
        text.push_str(&format!("\nstore      {store}\ntombstone  {tombstone}\n"));
        text.push_str(&format!("erased     {}\nfinished   {}", utc(*erased_at), utc(*finished_at)));
    }
    text
}

//! `reconcile`: erases again whom a restored backup has brought back.

use clap::Args;
use keystead::layers::{ErasureReceipt, ReconcileFailure, ReconcileReport};
use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::finality::FinalityArgs;
use crate::output::{self, Output, finality_text};
use crate::receipts::{NotKept, ReceiptsArgs};
use crate::session::Session;
use crate::stores::{self, Fence, Guarded};
use crate::terminal;

#[derive(Args, Debug)]
pub(crate) struct ReconcileArgs {
    #[command(flatten)]
    again: AgainArgs,
    /// Does not ask
    #[arg(long)]
    yes: bool,
}

/// How users are erased again.
#[derive(Args, Debug)]
pub(crate) struct AgainArgs {
    #[command(flatten)]
    receipts: ReceiptsArgs,
    #[command(flatten)]
    finality: FinalityArgs,
    /// Names the ids that could not be erased
    #[arg(long)]
    show_ids: bool,
}

pub(crate) async fn run(session: &Session, args: ReconcileArgs) -> Outcome {
    let Guarded::Fenced(fence) = stores::open(session).await? else { return Err(stores::no_tombstones()) };
    if !args.yes {
        let shown = stores::described(&*fence).await;
        let question = format!("erase again, for ever, every key in {shown} whose user has a tombstone?");
        terminal::confirm(&question, "nothing was erased").await?;
    }
    erase_again(session, &fence, &args.again).await
}

/// Erases again, behind this fence, whose keys have come back.
pub(crate) async fn erase_again(session: &Session, fence: &Fence, args: &AgainArgs) -> Outcome {
    let output = session.output;
    let mut keeper = args.receipts.open().await?;
    let mut printed = Ok(());
    // The first receipt that is not in the log, and whether one is neither there nor printed.
    let mut not_kept = None;
    let mut is_lost = false;
    let mut worst = Code::Done;
    let mut first_failure = None;
    let report = fence
        .reconcile(|outcome| match outcome {
            Ok(receipt) => {
                let failed = keeper.as_mut().and_then(|keeper| keeper.keep(&receipt).err());
                if printed.is_ok() {
                    printed = write_receipt(output, &receipt, failed.is_some());
                }
                if let Some(failed) = failed {
                    not_kept.get_or_insert(failed);
                    is_lost |= printed.is_err();
                }
                let code = args.finality.code(receipt.verified, receipt.finality);
                if worst != Code::NotVerified && code != Code::Done {
                    worst = code;
                }
            }
            Err(failure) => {
                note_failure(&failure, args.show_ids);
                first_failure.get_or_insert(failure.error.kind());
            }
        })
        .await;
    let not_kept = not_kept.map(|not_kept: NotKept| not_kept.into_failure(!is_lost));
    let report = match report {
        Ok(report) => report,
        Err(e) => return Err(not_kept.unwrap_or_else(|| e.into())),
    };
    let value = json!({
        "complete": report.is_complete(),
        "listed": report.listed,
        "erased": report.erased,
        "failed": report.failed,
        "unlisted": report.unlisted,
    });
    let printed = printed.and_then(|()| output.result(text(&report), value));
    if let Some(failure) = not_kept {
        return Err(failure);
    }
    printed?;
    Ok(match first_failure {
        Some(kind) => kind.into(),
        None if report.unlisted > 0 => Code::Damaged,
        None => worst,
    })
}

/// Writes the receipt as it is, too, if it is nowhere else.
fn write_receipt(output: Output, receipt: &ErasureReceipt, is_only_copy: bool) -> Outcome<()> {
    let proof = if receipt.verified { "verified" } else { "not verified by a read" };
    let mut text =
        format!("erased again: tombstone {}; {proof}; {}", receipt.tombstone, finality_text(receipt.finality));
    let value = json!({ "receipt": receipt });
    if is_only_copy {
        text.push_str(&format!("\n{value}"));
    }
    output.result(text, value)
}

fn note_failure(failure: &ReconcileFailure, show_ids: bool) {
    let id = if show_ids { failure.id.as_str() } else { "a user (say --show-ids to see who)" };
    let reasons = CommandError::from(failure.error.clone()).lines().join("; ");
    output::note(format!("not reconciled: {id}: {reasons}"));
}

fn text(report: &ReconcileReport) -> String {
    let ReconcileReport { listed, erased, failed, unlisted, .. } = report;
    let verdict = if report.is_complete() { "reconciled" } else { "NOT completely reconciled" };
    let mut text =
        format!("{verdict}: {listed} keys are listed; keys of erased users that were erased again: {erased}");
    if *failed > 0 {
        text.push_str(&format!("\n  failed: {failed}; run reconcile again"));
    }
    if *unlisted > 0 {
        text.push_str(&format!("\n  damaged, so that even their ids are unknown: {unlisted}"));
    }
    text
}

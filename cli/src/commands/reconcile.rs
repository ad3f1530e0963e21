//! `reconcile`: erases again whom a restored backup has brought back.

use clap::Args;
use keystead::layers::{ErasureReceipt, ReconcileFailure, ReconcileReport};
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
use crate::output::{self, Output, finality_text};
use crate::session::Session;
use crate::stores::{self, Fence, Guarded};
use crate::terminal;

#[derive(Args, Debug)]
pub(crate) struct ReconcileArgs {
    /// Does not ask
    #[arg(long)]
    yes: bool,
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
    erase_again(session, &fence, args.show_ids).await
}

/// Erases again, behind this fence, whose keys have come back.
pub(crate) async fn erase_again(session: &Session, fence: &Fence, show_ids: bool) -> Outcome {
    let output = session.output;
    let mut written = Ok(());
    let mut first_failure = None;
    let report = fence
        .reconcile(|outcome| match outcome {
            Ok(receipt) if written.is_ok() => written = write_receipt(output, &receipt),
            Ok(_) => {}
            Err(failure) => {
                note_failure(&failure, show_ids);
                first_failure.get_or_insert(failure.error.kind());
            }
        })
        .await?;
    written?;
    let value = json!({
        "complete": report.is_complete(),
        "listed": report.listed,
        "erased": report.erased,
        "failed": report.failed,
        "unlisted": report.unlisted,
    });
    output.result(text(&report), value)?;
    Ok(match first_failure {
        Some(kind) => kind.into(),
        None if report.unlisted > 0 => Code::Damaged,
        None => Code::Done,
    })
}

fn write_receipt(output: Output, receipt: &ErasureReceipt) -> Outcome<()> {
    let proof = if receipt.verified { "verified" } else { "not verified by a read" };
    let text = format!("erased again: tombstone {}; {proof}; {}", receipt.tombstone, finality_text(receipt.finality));
    output.result(text, json!({ "receipt": receipt }))
}

fn note_failure(failure: &ReconcileFailure, show_ids: bool) {
    let id = if show_ids { failure.id.as_str() } else { "a user (say --show-ids to see who)" };
    let reasons = Failure::from(failure.error.clone()).lines().join("; ");
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

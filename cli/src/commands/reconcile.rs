//! `reconcile`: erases users again whose keys a restored backup brought back.

use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use keystead::layers::{ErasureReceipt, ReadOnly, ReconcileFailure, ReconcileReport};
use keystead::{ErrorKind, KeyStore};
use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::finality::FinalityArgs;
use crate::output::{self, Output, finality_text};
use crate::receipts::{NotKept, ReceiptsArgs};
use crate::session::Session;
use crate::stores::{self, Fence, Guarded};
use crate::terminal;

/// The number of tombstones that a dry run looks up at once.
const LOOKED_UP_AT_ONCE: usize = 32;

#[derive(Args, Debug)]
pub(crate) struct ReconcileArgs {
    #[command(flatten)]
    again: AgainArgs,
    /// Does not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Only counts the keys that would be erased again, and deletes nothing
    #[arg(long, conflicts_with_all = ["receipts", "show_ids"])]
    pub(super) dry_run: bool,
}

/// The options for erasing users again.
#[derive(Args, Debug)]
pub(crate) struct AgainArgs {
    #[command(flatten)]
    receipts: ReceiptsArgs,
    #[command(flatten)]
    finality: FinalityArgs,
    /// Shows the ids of users who could not be erased
    #[arg(long)]
    show_ids: bool,
}

pub(crate) async fn run(session: &Session, args: ReconcileArgs) -> Outcome {
    if args.dry_run {
        return preview(session).await;
    }
    let Guarded::Fenced(fence) = stores::open(session).await? else { return Err(stores::no_tombstones()) };
    if !args.yes {
        let shown = stores::described(&*fence).await;
        let question = format!("permanently erase every key in {shown} whose user has a tombstone?");
        terminal::confirm(&question, "nothing was erased").await?;
    }
    erase_again(session, &fence, &args.again).await
}

/// Counts the listed keys whose users have tombstones.
async fn preview(session: &Session) -> Outcome {
    let asked = stores::asked(session)?.keeps_keys()?;
    let Some(named) = asked.tombstones() else { return Err(stores::no_tombstones()) };
    let tombstones = stores::open_tombstones(session, named).await?;
    stores::must_hold_tombstones(&*tombstones, "nothing was counted").await?;
    let keys: Arc<dyn KeyStore> = Arc::new(ReadOnly::new(stores::open_bare(session, &asked).await?));
    let fence = stores::fence(keys.clone(), tombstones, named)?;
    // The fence does not list the keys of erased users.
    let lookups = keys.list_keys().map(async |listed| match listed {
        Ok(id) => Ok(Some(fence.erased_at(&id).await?.is_some())),
        Err(e) if e.kind() == ErrorKind::Corrupt => Ok(None),
        Err(e) => Err(e),
    });
    let mut lookups = lookups.buffer_unordered(LOOKED_UP_AT_ONCE);
    let mut listed = 0_u64;
    let mut to_erase = 0_u64;
    let mut unlisted = 0_u64;
    while let Some(is_erased) = lookups.next().await {
        match is_erased? {
            Some(is_erased) => {
                listed += 1;
                to_erase += u64::from(is_erased);
            }
            None => unlisted += 1,
        }
    }
    let mut text = format!(
        "dry run, nothing was erased: {listed} keys are listed; keys of erased users that would be erased again: \
         {to_erase}"
    );
    if unlisted > 0 {
        text.push_str(&unlisted_text(unlisted));
    }
    let value = json!({ "dry_run": true, "listed": listed, "to_erase": to_erase, "unlisted": unlisted });
    session.output.result(text, value)?;
    Ok(if unlisted > 0 { Code::Damaged } else { Code::Done })
}

/// Erases the users again who have a tombstone and a key behind this fence.
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

/// Writes a line about the erasure, and the receipt itself if this is its only copy.
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
    let id = if show_ids { failure.id.as_str() } else { "a user (give --show-ids to see the id)" };
    let reasons = CommandError::from(failure.error.clone()).lines().join("; ");
    output::note(format!("not erased: {id}: {reasons}"));
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
        text.push_str(&unlisted_text(*unlisted));
    }
    text
}

fn unlisted_text(unlisted: u64) -> String {
    format!("\n  damaged entries without a readable id: {unlisted}")
}

//! `copy`: copies all keys of one store to another, verified and resumable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use futures_util::StreamExt;
use keystead::copy::{
    Bounded, ConflictPolicy, CopyOptions, CopyPhase, CopyProgress, CopyReport, KeyFailure, copy_keys,
};
use keystead::{Durability, Error, KeyId, KeyStore};
use serde_json::{Value, json};

use crate::exit::{Code, CommandError, Outcome};
use crate::progress::Meter;
use crate::session::Session;
use crate::{output, shown, stores, terminal, verbose};

/// The largest number of ids that are counted between two updates of the progress.
const COUNTED_TOGETHER: usize = 1_000;

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// The store to copy the keys to; --store names the source
    #[arg(long, value_name = "URL|NAME")]
    to: String,
    /// Reads the passphrase of the store of --to from this file
    /// [default: the file of --passphrase-file]
    #[arg(long, value_name = "FILE")]
    to_passphrase_file: Option<PathBuf>,
    /// Keeps a journal in this new file, so that an interrupted copy can be resumed
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Resumes the copy of the journal
    #[arg(long, requires = "journal")]
    resume: bool,
    /// Only reads, and reports what would be done
    #[arg(long, conflicts_with_all = ["journal", "delete_source"])]
    dry_run: bool,
    /// What to do with an id that has a different key at the target
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Policy::Report)]
    on_conflict: Policy,
    /// The largest number of calls per second to each of the two stores
    #[arg(long, value_name = "CALLS")]
    rate: Option<f64>,
    /// The number of keys that are written at once
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<usize>,
    /// The approximate number of keys, to estimate the remaining time
    /// [default: counted first if the source is on this machine]
    #[arg(long, value_name = "NUMBER")]
    expect: Option<u64>,
    /// Does not read again the keys that earlier runs of the journal copied; the copy is then not
    /// reported as complete
    #[arg(long, requires = "resume")]
    no_recheck: bool,
    /// Confirms that exactly this many keys may be removed at the target because they are gone from
    /// the source; needed if they are more than ten and more than 1 % of the copied keys, or more
    /// than half of them
    #[arg(long, value_name = "NUMBER")]
    confirm_removals: Option<u64>,
    /// Deletes the keys at the source once the copy is complete, after asking; each key is read
    /// again on both sides first
    #[arg(long)]
    delete_source: bool,
    /// Lets --delete-source move keys to a target that is less durable than the source, but at
    /// least this durable
    #[arg(long, value_enum, value_name = "DURABILITY", requires = "delete_source")]
    accept_durability: Option<Accepted>,
    /// Does not ask for confirmation
    #[arg(long)]
    yes: bool,
    /// Shows the ids that need attention in the result
    #[arg(long)]
    show_ids: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// Leaves the target's key; the copy is then not complete
    Report,
    /// Leaves the target's key
    Skip,
    /// Replaces the target's key, which is lost
    Overwrite,
}

/// A durability of the target that can be accepted although that of the source is higher. That of a
/// store in memory never can.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accepted {
    /// Survives a restart of the program or the host, but not the loss of the disk, like a file
    /// store
    Host,
    /// Survives the loss of a disk or a host, like the stores in AWS
    Replicated,
}

impl CopyArgs {
    /// Returns what may have happened if the copy is interrupted, and what to do.
    pub(super) fn when_interrupted(&self) -> String {
        if self.dry_run {
            return "nothing was changed".to_owned();
        }
        let mut text = "each key was copied completely or not at all, and the last ones were not read back".to_owned();
        if let Policy::Overwrite = self.on_conflict {
            text.push_str("; different keys at the target may have been replaced, as requested");
        }
        text.push_str(
            "; copies of keys that meanwhile disappeared from the source may have been removed at the target; ",
        );
        text.push_str(match self.delete_source {
            true => {
                "keys were deleted at the source only after they were read at the target; a key whose id begins with \
                 keystead-copy- may be left at the target"
            }
            false => "the source was not changed",
        });
        text.push_str(match self.journal {
            Some(_) => "; resume with --resume and the same journal",
            None => "; run the same command again: keys that are at the target are not written again",
        });
        text
    }
}

pub(crate) async fn run(session: &Session, args: CopyArgs) -> Outcome {
    check_journal(&args)?;
    let (source, target) = open(session, &args).await?;
    if args.delete_source && !args.yes {
        let count = source.list_keys().count().await;
        let from = stores::described(&*source).await;
        let to = stores::described(&*target).await;
        let question = format!("copy the keys in {from}, currently {count}, to {to}, and then delete them in {from}?");
        terminal::confirm(&question, "nothing was copied").await?;
    }
    verbose::step(format!("copying {} to {}", source.info(), target.info()));
    let mut meter = Meter::new(session).at_once();
    let expected = match args.expect {
        // Only on this machine: elsewhere a listing needs requests, which take time and may cost
        // money.
        None if meter.is_watched() && source.capabilities().durability != Durability::Replicated => {
            Some(count(&*source, &mut meter).await)
        }
        expected => expected,
    };
    let progress = move |CopyProgress { phase, done, total, .. }: CopyProgress| {
        // The first pass does not know the number of keys.
        let total = total.or(expected.filter(|expected| phase == CopyPhase::Copying && *expected >= done));
        meter.tell(name(phase), done, total);
    };
    let report = copy_keys(&*source, &*target, options(&args).on_progress(progress)).await?;
    session.output.result(text(&report, args.show_ids), to_json(&report, args.show_ids))?;
    if report.conflicts.total > 0 {
        output::note(
            "different keys were left unchanged at the target: give --show-ids to see the ids, and --on-conflict to \
             choose what to do",
        );
    }
    for note in notes(&report, args.journal.is_some()) {
        output::note(note);
    }
    Ok(code(&report))
}

/// Opens both stores. The source is only read, unless its keys are to be deleted.
async fn open(session: &Session, args: &CopyArgs) -> Outcome<(Arc<dyn KeyStore>, Arc<dyn KeyStore>)> {
    let asked = stores::asked(session)?;
    // Checked before anybody is asked for a passphrase.
    let target = stores::resolve(session, &args.to)?.with_passphrase(
        session,
        "--to-passphrase-file",
        args.to_passphrase_file.as_deref(),
    )?;
    let target = target.writable()?.keeps_keys()?;
    if asked.tombstones().is_some() && target.tombstones().is_none() {
        output::note(
            "warning: the target has no tombstones, so users who are erased from now on keep their keys there: name \
             the same tombstones for it",
        );
    }
    let source = match args.delete_source {
        true => stores::open_to_write(session, asked).await?.into_store(),
        false => stores::open_lasting_to_read(session, &asked).await?,
    };
    let target = match args.dry_run {
        true => stores::open_lasting_to_read(session, &target).await?,
        false => stores::open_to_write(session, target).await?.into_store(),
    };
    Ok((source, target))
}

/// Counts the keys to copy, and shows the progress.
async fn count(source: &dyn KeyStore, meter: &mut Meter) -> u64 {
    let mut counted = 0;
    let mut ids = source.list_keys().ready_chunks(COUNTED_TOGETHER);
    while let Some(block) = ids.next().await {
        counted += block.len() as u64;
        meter.tell("counting", counted, None);
    }
    counted
}

/// Returns advice on the report.
fn notes(report: &CopyReport, has_journal: bool) -> Vec<String> {
    let mut notes = Vec::new();
    match report.removals_to_confirm {
        0 => {}
        missing if has_journal => notes.push(format!(
            "{missing} keys are missing at the source, and nothing was removed at the target: check that it is the \
             right source; if the keys were erased there, give --resume --confirm-removals {missing}"
        )),
        missing => notes.push(format!(
            "{missing} keys are missing at the source, and nothing was removed at the target: check that it is the \
             right source; without a journal, no later run knows that this copy wrote them"
        )),
    }
    notes.extend(report.withheld.as_ref().map(|why| format!("nothing was removed or deleted: {why}")));
    if report.probe_left.is_some() {
        notes.push(
            "the key that tells the two stores apart was left at the target: delete the id that begins with \
             keystead-copy-"
                .to_owned(),
        );
    }
    if report.not_rechecked > 0 {
        notes.push("leave out --no-recheck to read every key back".to_owned());
    }
    notes
}

/// Refuses to resume a journal that does not exist, and to create one that does.
fn check_journal(args: &CopyArgs) -> Outcome<()> {
    let Some(journal) = &args.journal else { return Ok(()) };
    let shown = journal.display();
    match (args.resume, std::fs::symlink_metadata(journal).is_ok()) {
        (true, false) => Err(CommandError::usage(format!("there is no journal {shown} to resume: leave out --resume"))),
        (false, true) => Err(CommandError::refused(format!(
            "the file {shown} already exists: give --resume to resume its copy, or name another file"
        ))),
        _ => Ok(()),
    }
}

fn options(args: &CopyArgs) -> CopyOptions {
    let mut options = CopyOptions::default().dry_run(args.dry_run).delete_source(args.delete_source).on_conflict(
        match args.on_conflict {
            Policy::Report => ConflictPolicy::Report,
            Policy::Skip => ConflictPolicy::Skip,
            Policy::Overwrite => ConflictPolicy::Overwrite,
        },
    );
    options = options.recheck(!args.no_recheck);
    if let Some(journal) = &args.journal {
        options = options.journal(journal);
    }
    if let Some(number) = args.confirm_removals {
        options = options.confirm_removals(number);
    }
    if let Some(accepted) = args.accept_durability {
        options = options.accept_durability(match accepted {
            Accepted::Host => Durability::Host,
            Accepted::Replicated => Durability::Replicated,
        });
    }
    if let Some(rate) = args.rate {
        options = options.rate(rate);
    }
    if let Some(concurrency) = args.concurrency {
        options = options.concurrency(concurrency);
    }
    options
}

pub(crate) fn name(phase: CopyPhase) -> &'static str {
    match phase {
        CopyPhase::Copying => "copying",
        CopyPhase::Checking => "checking",
        CopyPhase::Removing => "removing",
        CopyPhase::Deleting => "deleting",
        CopyPhase::Comparing => "comparing",
        _ => "working",
    }
}

fn code(report: &CopyReport) -> Code {
    let failure = report.failed.first.first().or(report.unreadable.first.first());
    match failure {
        Some(failure) => failure.kind().into(),
        None if report.unlisted > 0 => Code::Damaged,
        None if report.conflicts.total + report.left_at_source.total > 0 => Code::Refused,
        None if report.withheld.is_some() || report.removals_to_confirm > 0 => Code::Refused,
        None if report.unsettled > 0 => Code::Other,
        None => Code::Done,
    }
}

fn text(report: &CopyReport, show_ids: bool) -> String {
    let CopyReport { listed, done_before, copied, already_there, overwritten, skipped, .. } = report;
    let mut lines = vec![format!("{report}; the source lists {listed}")];
    let would = if report.dry_run { "to be copied" } else { "copied" };
    for (what, count) in [
        (would, *copied),
        ("copied by earlier runs, read again", done_before - report.not_rechecked),
        ("copied by earlier runs, not read again", report.not_rechecked),
        ("already there, the same", *already_there),
        ("overwritten", *overwritten),
        ("different, skipped", *skipped),
        ("deleted meanwhile", report.vanished),
        ("deleted at the source", report.deleted_at_source),
        ("left at the source", report.remaining_at_source),
        ("damaged at the source, without a readable id", report.unlisted),
        ("apparently gone from the source, left at the target", report.unsettled),
    ] {
        if count > 0 {
            lines.push(format!("  {what}: {count}"));
        }
    }
    ids_text(&mut lines, "different, left unchanged", &report.conflicts, show_ids);
    failures_text(&mut lines, "unreadable", &report.unreadable, show_ids);
    failures_text(&mut lines, "failed", &report.failed, show_ids);
    ids_text(&mut lines, "gone from the source, removed at the target", &report.removed_at_target, show_ids);
    ids_text(
        &mut lines,
        "gone from the source, but with another key at the target, left there",
        &report.left_at_target,
        show_ids,
    );
    ids_text(&mut lines, "changed since they were copied, left at the source", &report.left_at_source, show_ids);
    lines.join("\n")
}

/// Adds a line with the number of ids and, with `--show-ids`, the ids.
pub(crate) fn ids_text(lines: &mut Vec<String>, what: &str, ids: &Bounded<KeyId>, show_ids: bool) {
    if ids.total > 0 {
        lines.push(format!("  {what}: {}", ids.total));
        if show_ids {
            lines.extend(ids.first.iter().map(|id| format!("    {}", shown::id(id))));
        }
    }
}

/// Adds lines with the number of failures and the reasons, and with `--show-ids` the ids.
pub(crate) fn failures_text(lines: &mut Vec<String>, what: &str, failures: &Bounded<KeyFailure>, show_ids: bool) {
    if failures.total == 0 {
        return;
    }
    lines.push(format!("  {what}: {}", failures.total));
    let mut reasons = BTreeMap::new();
    for failure in &failures.first {
        *reasons.entry(failure.error.to_string()).or_insert(0_u64) += 1;
        if show_ids {
            lines.push(format!("    {}: {}", shown::id(&failure.id), failure.error));
        }
    }
    lines.extend(reasons.iter().map(|(reason, count)| format!("    {reason}: {count}")).filter(|_| !show_ids));
}

fn to_json(report: &CopyReport, show_ids: bool) -> Value {
    json!({
        "complete": report.is_complete(),
        "dry_run": report.dry_run,
        "was_complete": report.was_complete,
        "listed": report.listed,
        "done_before": report.done_before,
        "not_rechecked": report.not_rechecked,
        "copied": report.copied,
        "already_there": report.already_there,
        "overwritten": report.overwritten,
        "skipped": report.skipped,
        "vanished": report.vanished,
        "deleted_at_source": report.deleted_at_source,
        "unlisted": report.unlisted,
        "unsettled": report.unsettled,
        "removals_to_confirm": report.removals_to_confirm,
        "withheld": report.withheld,
        "remaining_at_source": report.remaining_at_source,
        "probe_left": report.probe_left.is_some(),
        "conflicts": ids_json(&report.conflicts, show_ids),
        "unreadable": failures_json(&report.unreadable, show_ids),
        "failed": failures_json(&report.failed, show_ids),
        "removed_at_target": ids_json(&report.removed_at_target, show_ids),
        "left_at_target": ids_json(&report.left_at_target, show_ids),
        "left_at_source": ids_json(&report.left_at_source, show_ids),
    })
}

pub(crate) fn ids_json(ids: &Bounded<KeyId>, show_ids: bool) -> Value {
    let first = show_ids.then(|| ids.first.iter().map(KeyId::as_str).collect::<Vec<_>>());
    json!({ "total": ids.total, "ids": first })
}

pub(crate) fn failures_json(failures: &Bounded<KeyFailure>, show_ids: bool) -> Value {
    let error = |error: &Error| CommandError::from(error.clone()).to_json();
    let first = failures.first.iter().map(|failure| {
        let id = show_ids.then(|| failure.id.as_str());
        json!({ "id": id, "error": error(&failure.error) })
    });
    json!({ "total": failures.total, "first": first.collect::<Vec<_>>() })
}

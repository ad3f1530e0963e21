//! `copy`: all keys of one store to another, verified and resumable.

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

/// The number of ids that are counted before progress is shown.
const COUNTED_TOGETHER: usize = 1_000;

#[derive(Args, Debug)]
pub(crate) struct CopyArgs {
    /// The store that the keys are copied to; they come from --store
    #[arg(long, value_name = "URL|NAME")]
    to: String,
    /// Reads the passphrase of the store that the keys are copied to from this file
    /// [default: that of --passphrase-file]
    #[arg(long, value_name = "FILE")]
    to_passphrase_file: Option<PathBuf>,
    /// Keeps a journal in this new file, so that a copy that is cut off can go on
    #[arg(long, value_name = "FILE")]
    journal: Option<PathBuf>,
    /// Goes on with the copy of the journal
    #[arg(long, requires = "journal")]
    resume: bool,
    /// Reads only, and says what would happen
    #[arg(long, conflicts_with_all = ["journal", "delete_source"])]
    dry_run: bool,
    /// What becomes of an id that has a different key at the target
    #[arg(long, value_enum, value_name = "POLICY", default_value_t = Policy::Report)]
    on_conflict: Policy,
    /// Makes so many calls a second to each of the two stores at most
    #[arg(long, value_name = "CALLS")]
    rate: Option<f64>,
    /// Writes so many keys at once
    #[arg(long, value_name = "NUMBER")]
    concurrency: Option<usize>,
    /// Says how many keys there are about, for the time that is left; a store on this machine is
    /// counted first
    #[arg(long, value_name = "NUMBER")]
    expect: Option<u64>,
    /// Does not read again the keys that earlier runs of the journal copied; the copy is then not
    /// called complete
    #[arg(long, requires = "resume")]
    no_recheck: bool,
    /// Confirms that exactly this many keys may be removed at the target because the source has
    /// lost them: needed if they are more than ten and more than 1 % of what was copied, or more than half of it
    #[arg(long, value_name = "NUMBER")]
    confirm_removals: Option<u64>,
    /// Deletes the keys at the source once the copy is complete, each after both sides are read
    /// again; asks before
    #[arg(long)]
    delete_source: bool,
    /// Lets --delete-source move keys to a target that is less durable than the source, but at
    /// least this durable
    #[arg(long, value_enum, value_name = "DURABILITY", requires = "delete_source")]
    accept_durability: Option<Accepted>,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    /// Names the ids that need looking at in the result
    #[arg(long)]
    show_ids: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Policy {
    /// The target's key stays, and the copy is not complete
    Report,
    /// The target's key stays
    Skip,
    /// The source's key replaces it; what is replaced is gone
    Overwrite,
}

/// A store in memory is never accepted, so it is not here.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Accepted {
    /// Survives the end of the program and of the power, not the loss of the disk, like a file
    Host,
    /// Survives the loss of a disk and of a machine, like the stores in AWS
    Replicated,
}

impl CopyArgs {
    /// Returns what may have happened if the copy is cut off, and what to do.
    pub(super) fn when_interrupted(&self) -> String {
        if self.dry_run {
            return "nothing was changed".to_owned();
        }
        let mut text = "each key was copied whole or not at all, and the last ones were not read back".to_owned();
        if let Policy::Overwrite = self.on_conflict {
            text.push_str("; keys that differed may be replaced at the target, as was asked for");
        }
        text.push_str("; keys that the source has lost meanwhile may be removed at the target again; ");
        text.push_str(match self.delete_source {
            true => {
                "a key was deleted at the source only after it was read at the target. A key whose id begins with \
                 keystead-copy- may be left at the target"
            }
            false => "the source is as it was",
        });
        text.push_str(match self.journal {
            Some(_) => ". Go on with --resume and the same journal",
            None => ". Copy again: what is at the target already is not written again",
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
        let question = format!("copy the keys in {from}, {count} now, to {to}, and then delete them in {from}?");
        terminal::confirm(&question, "nothing was copied").await?;
    }
    verbose::step(format!("copying {} to {}", source.info(), target.info()));
    let mut meter = Meter::new(session).at_once();
    let expected = match args.expect {
        // Elsewhere a listing takes requests, which cost time and may cost money.
        None if meter.is_watched() && source.capabilities().durability != Durability::Replicated => {
            Some(count(&*source, &mut meter).await)
        }
        expected => expected,
    };
    let progress = move |CopyProgress { phase, done, total, .. }: CopyProgress| {
        // The first pass does not know how many there are.
        let total = total.or(expected.filter(|expected| phase == CopyPhase::Copying && *expected >= done));
        meter.tell(name(phase), done, total);
    };
    let report = copy_keys(&*source, &*target, options(&args).on_progress(progress)).await?;
    session.output.result(text(&report, args.show_ids), to_json(&report, args.show_ids))?;
    if report.conflicts.total > 0 {
        output::note(
            "keys that differ were left at the target: see --show-ids, and say --on-conflict skip or overwrite",
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
    // Refused before anybody is asked for a passphrase.
    let target = stores::resolve(session, &args.to)?.with_passphrase(
        session,
        "--to-passphrase-file",
        args.to_passphrase_file.as_deref(),
    )?;
    let target = target.writable()?.keeps_keys()?;
    if asked.tombstones().is_some() && target.tombstones().is_none() {
        output::note(
            "warning: the target has no tombstones: whoever is erased from now on keeps a key there. Name the same tombstones \
             for it",
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

/// Counts the keys that are to be copied, and shows how far it is.
async fn count(source: &dyn KeyStore, meter: &mut Meter) -> u64 {
    let mut counted = 0;
    let mut ids = source.list_keys().ready_chunks(COUNTED_TOGETHER);
    while let Some(block) = ids.next().await {
        counted += block.len() as u64;
        meter.tell("counting", counted, None);
    }
    counted
}

/// Returns advice on what to do about the report.
fn notes(report: &CopyReport, has_journal: bool) -> Vec<String> {
    let mut notes = Vec::new();
    match report.removals_to_confirm {
        0 => {}
        missing if has_journal => notes.push(format!(
            "{missing} keys are missing at the source, and nothing was removed at the target: is it the right source? if they \
             were erased, say --resume --confirm-removals {missing}"
        )),
        missing => notes.push(format!(
            "{missing} keys are missing at the source, and nothing was removed at the target: is it the right source? \
             without a journal no later run knows that this copy wrote them"
        )),
    }
    notes.extend(report.withheld.as_ref().map(|why| format!("nothing was removed or deleted: {why}")));
    if report.probe_left.is_some() {
        notes.push(
            "the key that tells the two stores apart is left at the target: delete the id that begins with keystead-copy-"
                .to_owned(),
        );
    }
    if report.not_rechecked > 0 {
        notes.push("leave out --no-recheck to have every key read back".to_owned());
    }
    notes
}

/// A journal is begun or gone on with, as was said, and never the other by accident.
fn check_journal(args: &CopyArgs) -> Outcome<()> {
    let Some(journal) = &args.journal else { return Ok(()) };
    let shown = journal.display();
    match (args.resume, std::fs::symlink_metadata(journal).is_ok()) {
        (true, false) => {
            Err(CommandError::usage(format!("there is no journal {shown} to go on with: leave out --resume")))
        }
        (false, true) => {
            Err(CommandError::refused(format!("there is a file {shown} already: say --resume to go on with its copy")))
        }
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
        ("there already, the same", *already_there),
        ("overwritten", *overwritten),
        ("different, skipped", *skipped),
        ("deleted meanwhile", report.vanished),
        ("deleted at the source", report.deleted_at_source),
        ("left at the source", report.remaining_at_source),
        ("damaged at the source, even their ids", report.unlisted),
        ("lost at the source, left at the target", report.unsettled),
    ] {
        if count > 0 {
            lines.push(format!("  {what}: {count}"));
        }
    }
    ids_text(&mut lines, "different, left", &report.conflicts, show_ids);
    failures_text(&mut lines, "unreadable", &report.unreadable, show_ids);
    failures_text(&mut lines, "failed", &report.failed, show_ids);
    ids_text(&mut lines, "lost at the source, removed at the target", &report.removed_at_target, show_ids);
    ids_text(&mut lines, "lost at the source, written anew at the target, left", &report.left_at_target, show_ids);
    ids_text(&mut lines, "changed since, left at the source", &report.left_at_source, show_ids);
    lines.join("\n")
}

/// How many these are and, if that was asked for, which.
pub(crate) fn ids_text(lines: &mut Vec<String>, what: &str, ids: &Bounded<KeyId>, show_ids: bool) {
    if ids.total > 0 {
        lines.push(format!("  {what}: {}", ids.total));
        if show_ids {
            lines.extend(ids.first.iter().map(|id| format!("    {}", shown::id(id))));
        }
    }
}

/// How many these are, why, and, if that was asked for, which.
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

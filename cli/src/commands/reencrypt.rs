//! `reencrypt`: moves the keys of an AWS store to another KMS key or tier.

use clap::Args;
use keystead::reencrypt::{NeedsAttention, ReencryptOptions, ReencryptReport, reencrypt};
use keystead::{Error, KeyId};
use serde_json::{Value, json};

use crate::exit::{Code, CommandError, Outcome};
use crate::progress::Meter;
use crate::session::Session;
use crate::{output, shown, stores};

#[derive(Args, Debug)]
pub(crate) struct ReencryptArgs {
    /// Asserts that nobody else writes or deletes keys meanwhile; required for ssm, where a key
    /// that somebody else writes or deletes could be lost or come back
    #[arg(long)]
    exclusive: bool,
    /// Encrypts at most this many keys per second [default: what AWS's default quotas allow]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<f64>,
    /// Shows the ids that need attention in the result
    #[arg(long)]
    show_ids: bool,
}

pub(crate) async fn run(session: &Session, args: ReencryptArgs) -> Outcome {
    let store = keystead::reencrypt::open(&stores::asked(session)?.writable()?.url).await?;
    let mut options = ReencryptOptions::new();
    if args.exclusive {
        options = options.exclusive();
    }
    if let Some(rate) = args.rate {
        options = options.rate(rate);
    }
    let mut meter = Meter::new(session);
    let report = reencrypt(&*store, options, |report| meter.tell("keys", done(report), None)).await?;
    drop(meter);
    session.output.result(text(&report, args.show_ids), to_json(&report, args.show_ids))?;
    if !report.newer_restored.is_empty() || !report.deleted_again.is_empty() {
        output::note("others wrote meanwhile, and readers may have seen the wrong state of these keys for a moment");
    }
    if !report.deleted_again.is_empty() {
        output::note("if a key was written between the last check and the second delete, it was deleted, too");
    }
    // A key that needs attention decides the exit code, whatever else failed.
    let attention = report.failures.iter().map(|(_, error)| error).find(|error| NeedsAttention::is_source_of(error));
    let failure = report.failures.first().map(|(_, error)| error);
    Ok(match attention.or(report.listing_error.as_ref()).or(failure) {
        Some(error) => error.kind().into(),
        None if report.is_complete() => Code::Done,
        None => Code::Other,
    })
}

fn done(report: &ReencryptReport) -> u64 {
    report.current + report.reencrypted + report.gone + report.failed
}

fn text(report: &ReencryptReport, show_ids: bool) -> String {
    let verdict = if report.is_complete() { "complete" } else { "NOT complete" };
    let mut lines = vec![format!(
        "{verdict}: {} keys were re-encrypted, {} were already as the URL says",
        report.reencrypted, report.current
    )];
    if report.gone > 0 {
        lines.push(format!("  deleted meanwhile: {}", report.gone));
    }
    for (what, ids) in [
        ("a newer key was put back", &report.newer_restored),
        ("came back after a delete, and were deleted again", &report.deleted_again),
    ] {
        if !ids.is_empty() {
            lines.push(format!("  {what}: {}", ids.len()));
            lines.extend(ids.iter().filter(|_| show_ids).map(|id| format!("    {}", shown::id(id))));
        }
    }
    let needs_attention = report.needs_attention.len();
    if needs_attention > 0 {
        lines.push(format!(
            "  need attention: {needs_attention}; check each of these keys, because another run counts them as done"
        ));
    }
    let repeatable = report.failed - needs_attention as u64;
    if repeatable > 0 {
        lines.push(format!("  failed: {repeatable}; run reencrypt again"));
    }
    if let Some(error) = &report.listing_error {
        lines.push("  the listing failed before it was complete; run reencrypt again".to_owned());
        lines.push(format!("    {}", CommandError::from(error.clone()).lines().join("; ")));
    }
    for (id, error) in &report.failures {
        let id = if show_ids { shown::id(id) } else { "a key (give --show-ids to see the id)".into() };
        lines.push(format!("    {id}: {}", CommandError::from(error.clone()).lines().join("; ")));
    }
    lines.join("\n")
}

fn to_json(report: &ReencryptReport, show_ids: bool) -> Value {
    let id = |id: &KeyId| show_ids.then(|| id.as_str().to_owned());
    let ids =
        |ids: &[KeyId]| json!({ "total": ids.len(), "ids": show_ids.then(|| ids.iter().map(id).collect::<Vec<_>>()) });
    let failure = |(of, error): &(KeyId, Error)| {
        let error = CommandError::from(error.clone()).to_json();
        json!({ "id": id(of), "error": error })
    };
    json!({
        "complete": report.is_complete(),
        "current": report.current,
        "reencrypted": report.reencrypted,
        "gone": report.gone,
        "newer_restored": ids(&report.newer_restored),
        "deleted_again": ids(&report.deleted_again),
        "needs_attention": ids(&report.needs_attention),
        "listing_error": report.listing_error.as_ref().map(|error| CommandError::from(error.clone()).to_json()),
        "failed": { "total": report.failed, "first": report.failures.iter().map(failure).collect::<Vec<_>>() },
    })
}

//! `verify`: checks every record of a file store, or compares the keys of two stores.

use std::path::{Path, PathBuf};

use clap::Args;
use keystead::KeyStore;
use keystead::copy::{Comparison, compare};
use keystead::file::VerifyReport;
use serde_json::{Value, json};

use crate::commands::copy::{failures_json, failures_text, ids_json, ids_text, name};
use crate::exit::{Code, Outcome};
use crate::progress::Meter;
use crate::session::Session;
use crate::{output, stores, verbose};

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Compares all keys with those of this store, instead of reading the records of a file store
    #[arg(long, value_name = "URL|NAME")]
    against: Option<String>,
    /// Reads the passphrase of the store of --against from this file
    /// [default: the file of --passphrase-file]
    #[arg(long, value_name = "FILE", requires = "against")]
    against_passphrase_file: Option<PathBuf>,
    /// Shows the ids that need attention in the result
    #[arg(long, requires = "against")]
    show_ids: bool,
}

pub(crate) async fn run(session: &Session, args: VerifyArgs) -> Outcome {
    match &args.against {
        Some(other) => {
            let passphrase = args.against_passphrase_file.as_deref();
            against(session, other, passphrase, args.show_ids).await
        }
        None => records(session).await,
    }
}

async fn records(session: &Session) -> Outcome {
    let store = stores::open_file(session, &stores::asked(session)?).await?;
    verbose::step("reading every record");
    let mut meter = Meter::new(session);
    let report = store.verify(|progress| meter.tell("records", progress.done, Some(progress.total))).await?;
    drop(meter);
    let rows: Vec<String> = report.damaged.iter().map(ToString::to_string).collect();
    let value = json!({
        "intact": report.intact,
        "damaged_rows": rows,
        "unreadable": report.unreadable,
        "structural_faults": report.structural_faults,
        "in_rotation": report.in_rotation,
    });
    session.output.result(records_text(&report, &rows), value)?;
    if report.in_rotation {
        output::note("a rotation has begun but not ended: if none is running now, complete it with rotate --resume");
    }
    if report.is_intact() {
        return Ok(Code::Done);
    }
    output::note(
        "replace the store with a backup from before the damage: run keystead restore, which keeps the damaged store",
    );
    Ok(Code::Damaged)
}

fn records_text(report: &VerifyReport, rows: &[String]) -> String {
    let VerifyReport { intact, unreadable, structural_faults, .. } = report;
    let damaged = rows.len();
    let mut text = format!(
        "records: {intact} intact, {damaged} damaged; unreadable parts of the file: {unreadable}; structural faults: \
         {structural_faults}"
    );
    for row in rows {
        text.push_str(&format!("\ndamaged row {row}"));
    }
    text
}

async fn against(session: &Session, other: &str, passphrase: Option<&Path>, show_ids: bool) -> Outcome {
    let here = stores::open_to_read(session).await?;
    let there = stores::resolve(session, other)?.with_passphrase(session, "--against-passphrase-file", passphrase)?;
    let there = stores::open_asked_to_read(session, &there).await?;
    verbose::step(format!("comparing {} with {}", here.info(), there.info()));
    let mut meter = Meter::new(session);
    let found =
        compare(&*here, &*there, |progress| meter.tell(name(progress.phase), progress.done, progress.total)).await?;
    drop(meter);
    session.output.result(comparison_text(&found, show_ids), comparison_json(&found, show_ids))?;
    Ok(match found.unreadable.first.first() {
        Some(failure) => failure.kind().into(),
        None if found.unlisted > 0 => Code::Damaged,
        None if found.is_equal() => Code::Done,
        None => Code::Other,
    })
}

fn comparison_text(found: &Comparison, show_ids: bool) -> String {
    let verdict = if found.is_equal() { "equal" } else { "NOT equal" };
    let mut lines = vec![format!("{verdict}: {} keys are the same in both", found.equal)];
    ids_text(&mut lines, "different", &found.different, show_ids);
    ids_text(&mut lines, "missing in the other", &found.missing, show_ids);
    ids_text(&mut lines, "in the other only", &found.extra, show_ids);
    failures_text(&mut lines, "unreadable", &found.unreadable, show_ids);
    if found.unlisted > 0 {
        lines.push(format!("  damaged entries without a readable id: {}", found.unlisted));
    }
    lines.join("\n")
}

fn comparison_json(found: &Comparison, show_ids: bool) -> Value {
    json!({
        "is_equal": found.is_equal(),
        "equal": found.equal,
        "different": ids_json(&found.different, show_ids),
        "missing": ids_json(&found.missing, show_ids),
        "extra": ids_json(&found.extra, show_ids),
        "unreadable": failures_json(&found.unreadable, show_ids),
        "unlisted": found.unlisted,
    })
}

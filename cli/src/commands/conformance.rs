//! `conformance`: runs the suite against a store of the kind that a URL names, apart from all
//! users' keys.

mod account;
mod junit;
mod scratch;

use std::path::PathBuf;

use clap::Args;
use keystead_conformance::{Options, Progress, Report, cases, run_with_progress};
use serde_json::json;

use self::scratch::{Run, Scratch};
use crate::exit::{Code, CommandError, Outcome};
use crate::progress::Meter;
use crate::session::Session;
use crate::{output, stores};

#[derive(Args, Debug)]
pub(crate) struct ConformanceArgs {
    /// Runs only the cases whose id contains one of these texts
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Multiplies sizes and numbers of rounds by this number
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    scale: f64,
    /// The number of cases that run at once [default: the number of processors]
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Also writes a report in JUnit XML to this file; replaces an older report, but no other file
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Runs no case, and deletes what a killed run left in this namespace, which the run showed
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["filter", "scale", "jobs", "junit"])]
    clean_up: Option<String>,
}

impl ConformanceArgs {
    pub(super) fn when_interrupted(&self) -> &'static str {
        match self.clean_up {
            None => "nothing outside the suite's own namespace was changed, and what it wrote there was deleted",
            Some(_) => "a part of what the run left was deleted: run the same command again",
        }
    }
}

pub(crate) async fn run(session: &Session, args: ConformanceArgs) -> Outcome {
    let url = stores::asked(session)?.writable()?.url;
    if let Some(name) = &args.clean_up {
        return clean_up(session, &url, Run::parse(name)?).await;
    }
    let count = check(&args)?;
    let scratch = Scratch::create(session, &url).await?;
    output::note(format!("{count} cases against {}, in {}", scratch.store_name(), scratch.place()));
    if let Some(run) = scratch.run_that_lasts() {
        output::note(format!("if this run is killed, run keystead conformance --clean-up {run} with the same store"));
    }
    let mut meter = Meter::new(session).at_once();
    let mut tell = |done: usize| meter.tell("cases", done as u64, Some(count as u64));
    tell(0);
    let jobs = args.jobs.unwrap_or(Options::default().jobs);
    let options = Options { filter: args.filter, scale: args.scale, jobs };
    let report = run_with_progress(scratch, options, |Progress { done, .. }| tell(done)).await;
    drop(meter);
    let shown = write(session, &report, args.scale);
    // The file is written even if standard output fails, and vice versa.
    let kept = args.junit.map_or(Ok(()), |file| junit::write(&file, &report.to_junit()));
    shown.and(kept)?;
    Ok(if report.failed().is_empty() { Code::Done } else { Code::Other })
}

/// Checks the arguments, and returns the number of cases to run.
fn check(args: &ConformanceArgs) -> Outcome<usize> {
    if !(args.scale > 0.0 && args.scale <= 1e3) {
        return Err(CommandError::usage("this scale is not valid: give a number above 0 and up to 1000, such as 0.5"));
    }
    let selected = |id: &str| args.filter.is_empty() || args.filter.iter().any(|text| id.contains(text));
    let count = cases().iter().filter(|case| selected(case.id())).count();
    if count == 0 {
        return Err(CommandError::usage(
            "no case has a matching id: give a part of an id from CASES.md, or nothing to run all cases",
        ));
    }
    if let Some(file) = &args.junit {
        junit::check(file)?;
    }
    Ok(count)
}

fn write(session: &Session, report: &Report, scale: f64) -> Outcome<()> {
    let text = if session.output.json { report.to_json() } else { report.to_string() };
    // The suite tells how to run a case again in a test target, not in this program.
    let again = if scale == 1.0 { String::new() } else { format!(" --scale {scale}") };
    let text = text.replace("cargo test --test conformance -- --exact", &format!("keystead conformance{again}"));
    session.output.text(text.trim_end())
}

async fn clean_up(session: &Session, url: &str, run: Run) -> Outcome {
    let mut meter = Meter::new(session);
    let deleted = scratch::clean_up(url, &run, |done, total| meter.tell("namespaces", done, Some(total))).await?;
    drop(meter);
    let text = match deleted {
        0 => format!("nothing is left of {run}"),
        deleted => format!("deleted what {run} left: {deleted}"),
    };
    session.output.result(text, json!({ "namespace": run.to_string(), "deleted": deleted }))?;
    Ok(Code::Done)
}

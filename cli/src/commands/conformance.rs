//! `conformance`: the suite over a store of the kind that a URL names, where it meets nobody's keys.

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
    /// Runs the cases whose id contains one of these texts; all if there are none
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,
    /// Multiplies sizes and rounds by this
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    scale: f64,
    /// How many cases run at once; as many as there are processors if it is not given
    #[arg(long, value_name = "NUMBER")]
    jobs: Option<usize>,
    /// Writes a report in JUnit's XML to this file, too; an older report there is replaced, any other file is not
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Runs nothing, and deletes what a run that was killed has left in this namespace; the run has shown its name
    #[arg(long, value_name = "NAMESPACE", conflicts_with_all = ["filter", "scale", "jobs", "junit"])]
    clean_up: Option<String>,
}

impl ConformanceArgs {
    pub(super) fn when_interrupted(&self) -> &'static str {
        match self.clean_up {
            None => "nothing outside the suite's own namespace was touched, and what it wrote there was deleted",
            Some(_) => "a part of what the run had left is deleted: run it again",
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
    output::note(format!("{count} cases over {}, in {}", scratch.store_name(), scratch.place()));
    if let Some(run) = scratch.run_that_lasts() {
        output::note(format!("if this is killed: keystead conformance --clean-up {run}, with the same store"));
    }
    let mut meter = Meter::new(session).at_once();
    let mut tell = |done: usize| meter.tell("cases", done as u64, Some(count as u64));
    tell(0);
    let jobs = args.jobs.unwrap_or(Options::default().jobs);
    let options = Options { filter: args.filter, scale: args.scale, jobs };
    let report = run_with_progress(scratch, options, |Progress { done, .. }| tell(done)).await;
    drop(meter);
    let shown = write(session, &report, args.scale);
    // Whatever became of standard output, the file is written, and the other way round.
    let kept = args.junit.map_or(Ok(()), |file| junit::write(&file, &report.to_junit()));
    shown.and(kept)?;
    Ok(if report.failed().is_empty() { Code::Done } else { Code::Other })
}

/// Refuses what will not do, and returns the number of cases that are to run.
fn check(args: &ConformanceArgs) -> Outcome<usize> {
    if !(args.scale > 0.0 && args.scale <= 1e3) {
        return Err(CommandError::usage("this scale will not do: give a number above 0 and up to 1000, such as 0.5"));
    }
    let selected = |id: &str| args.filter.is_empty() || args.filter.iter().any(|text| id.contains(text));
    let count = cases().iter().filter(|case| selected(case.id())).count();
    if count == 0 {
        return Err(CommandError::usage(
            "no case has such an id: give a part of one, as in CASES.md, or nothing for all",
        ));
    }
    if let Some(file) = &args.junit {
        junit::check(file)?;
    }
    Ok(count)
}

fn write(session: &Session, report: &Report, scale: f64) -> Outcome<()> {
    let text = if session.output.json { report.to_json() } else { report.to_string() };
    // The suite's own way to run a case again is that of a test target.
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
        deleted => format!("deleted what {run} had left: {deleted}"),
    };
    session.output.result(text, json!({ "namespace": run.to_string(), "deleted": deleted }))?;
    Ok(Code::Done)
}

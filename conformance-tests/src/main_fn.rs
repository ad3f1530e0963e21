//! [`main`], which turns the suite into a test target.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use keystead_core::BoxError;
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use tokio::runtime::Runtime;

use crate::case::{Case, cases};
use crate::harness::Harness;
use crate::report::{CaseResult, Report, Verdict};
use crate::runner::{Options, run_case};

/// The environment variable that names the file for the JSON report.
const REPORT: &str = "KEYSTEAD_CONFORMANCE_REPORT";

/// The environment variable that names the file for the report in JUnit's XML.
const JUNIT: &str = "KEYSTEAD_CONFORMANCE_JUNIT";

/// The environment variable with the factor for sizes and numbers of rounds.
const SCALE: &str = "KEYSTEAD_CONFORMANCE_SCALE";

/// The longest time for which the threads of a broken store may delay the end of the program.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Runs the suite over the stores of this harness, as the `main` of a test target with
/// `harness = false`.
///
/// It takes the arguments of Rust's own test runner (`FILTER`, `--exact`, `--skip`, `--list`,
/// `--test-threads`, `--format` and so on), so `cargo test` and nextest work as usual. The cases run on
/// one multi-threaded tokio runtime with I/O and time enabled. Three environment variables are read:
/// `KEYSTEAD_CONFORMANCE_REPORT` and `KEYSTEAD_CONFORMANCE_JUNIT` name the files for the reports as JSON
/// and as JUnit's XML, and `KEYSTEAD_CONFORMANCE_SCALE` is the factor for sizes and numbers of rounds
/// (see [`Options::scale`]).
pub fn main(harness: impl Harness) -> ExitCode {
    match try_main(Arc::new(harness)) {
        Ok(code) => code,
        Err(e) => {
            report_to_stderr(&e);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a test program shows its errors")]
fn report_to_stderr(e: &BoxError) {
    eprintln!("the conformance suite cannot run: {e}");
}

fn try_main(harness: Arc<dyn Harness>) -> Result<ExitCode, BoxError> {
    let arguments = Arguments::from_args();
    let scale = scale_from_environment()?;
    // Some cases block a thread on purpose, and a broken store may block more.
    let jobs = arguments.test_threads.unwrap_or(Options::default().jobs);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(jobs + 4).enable_all().build()?;
    let runtime = Arc::new(runtime);

    let results = Arc::new(Mutex::new(Vec::new()));
    let trial = |case: &'static Case| {
        let harness = harness.clone();
        let runtime = runtime.clone();
        let results = results.clone();
        Trial::ignorable_test(case.id(), move || {
            let result = runtime.block_on(run_case(harness, case, scale));
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result.clone());
            completion(result)
        })
    };
    let conclusion = libtest_mimic::run(&arguments, cases().iter().map(trial).collect());

    let results = std::mem::take(&mut *results.lock().unwrap_or_else(PoisonError::into_inner));
    let report = Report::new(harness.name(), in_order(results));
    write_if_asked(REPORT, || report.to_json())?;
    write_if_asked(JUNIT, || report.to_junit())?;
    if let Some(runtime) = Arc::into_inner(runtime) {
        Runtime::shutdown_timeout(runtime, SHUTDOWN);
    }
    Ok(conclusion.exit_code())
}

/// Writes a report to the file that this variable names, if it names one.
fn write_if_asked(variable: &str, report: impl FnOnce() -> String) -> Result<(), BoxError> {
    let Some(path) = std::env::var_os(variable).map(PathBuf::from) else { return Ok(()) };
    std::fs::write(&path, report()).map_err(|e| format!("writing {} failed: {e}", path.display()).into())
}

fn scale_from_environment() -> Result<f64, BoxError> {
    let Some(text) = std::env::var_os(SCALE) else { return Ok(Options::default().scale) };
    let scale = text.to_str().and_then(|text| text.parse().ok()).filter(|scale: &f64| *scale > 0.0 && *scale <= 1e3);
    scale.ok_or_else(|| format!("{SCALE} is not a number above 0 and up to 1000: set it to one, such as 0.5").into())
}

fn completion(result: CaseResult) -> Result<Completion, Failed> {
    match result.verdict {
        Verdict::Passed => Ok(Completion::Completed),
        Verdict::Ignored(reason) => Ok(Completion::ignored_with(reason)),
        Verdict::Failed(text) => Err(Failed::from(text)),
    }
}

fn in_order(mut results: Vec<CaseResult>) -> Vec<CaseResult> {
    results.sort_by_key(|result| cases().iter().position(|case| case.id() == result.id));
    results
}

//! [`run`], which runs the cases over one store.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use keystead_core::BoxError;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

use crate::case::{Case, Need, cases};
use crate::context::{Context, LastFault, Outcome, Stop};
use crate::harness::{Harness, Namespace};
use crate::report::{CaseResult, Report, Verdict};

/// The time after which a case counts as hanging.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The texts of which a case's id must contain one to be run. If there are none, every case is run.
    pub filter: Vec<String>,
    /// The factor for sizes and numbers of rounds. The default is 1.0; less is quicker.
    pub scale: f64,
    /// The number of cases that run at the same time.
    pub jobs: usize,
}

impl Default for Options {
    fn default() -> Self {
        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        Self { filter: Vec::new(), scale: 1.0, jobs }
    }
}

impl Options {
    fn selects(&self, case: &Case) -> bool {
        self.filter.is_empty() || self.filter.iter().any(|text| case.id.contains(text))
    }
}

/// The state of a run that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of cases that have ended.
    pub done: usize,
    /// The number of ended cases that have failed.
    pub failed: usize,
    /// The number of cases of the run.
    pub total: usize,
}

/// Runs the cases over the harness's stores, each case in a namespace of its own.
///
/// Call it on a multi-threaded tokio runtime with time enabled. On a current-thread runtime calls could
/// not race, so every case fails with that reason. A filter that selects no case gives an empty report.
///
/// Dropping the future ends the run: the running cases stop at their next `await`. Threads that they
/// have started go on for a moment, and [`Harness::close`] is not called for the opened namespaces.
pub async fn run(harness: impl Harness, options: Options) -> Report {
    run_with_progress(harness, options, |_| {}).await
}

/// Runs the cases as [`run`] does, and calls `on_progress` each time a case has ended.
pub async fn run_with_progress(
    harness: impl Harness,
    options: Options,
    on_progress: impl FnMut(Progress) + Send,
) -> Report {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    let selected: Vec<&'static Case> = cases().iter().filter(|case| options.selects(case)).collect();
    let results = if is_multi_threaded() {
        let progress = Progress { done: 0, failed: 0, total: selected.len() };
        let reporting = Mutex::new((progress, on_progress));
        let run = |case: &&'static Case| run_and_report(harness.clone(), case, options.scale, &reporting).boxed();
        let runs: Vec<_> = selected.iter().map(run).collect();
        stream::iter(runs).buffered(options.jobs.max(1)).collect().await
    } else {
        let reason = "the suite needs a multi-threaded runtime: use #[tokio::test(flavor = \"multi_thread\")]";
        let failed = |case: &&'static Case| CaseResult::new(case, Verdict::Failed(reason.to_owned()), Duration::ZERO);
        selected.iter().map(failed).collect()
    };
    Report::new(harness.name(), results)
}

async fn run_and_report(
    harness: Arc<dyn Harness>,
    case: &'static Case,
    scale: f64,
    reporting: &Mutex<(Progress, impl FnMut(Progress))>,
) -> CaseResult {
    let result = run_case(harness, case, scale).await;
    let mut reporting = reporting.lock().unwrap_or_else(PoisonError::into_inner);
    let (progress, on_progress) = &mut *reporting;
    progress.done += 1;
    progress.failed += usize::from(matches!(result.verdict, Verdict::Failed(_)));
    on_progress(*progress);
    result
}

fn is_multi_threaded() -> bool {
    Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread)
}

/// Runs one case on the current runtime.
pub(crate) async fn run_case(harness: Arc<dyn Harness>, case: &'static Case, scale: f64) -> CaseResult {
    let start = Instant::now();
    let namespace = Namespace::random();
    let namespaces = Arc::new(Mutex::new(vec![namespace.clone()]));
    let body = in_namespace(harness.clone(), case, scale, namespace, namespaces.clone());
    // In a task of its own, so that the limit ends the case even if the store blocks the thread.
    let mut task = Running(tokio::spawn(AssertUnwindSafe(body).catch_unwind()));
    let verdict = match tokio::time::timeout(CASE_LIMIT, &mut task.0).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(_) => failed(
            case,
            "    call: one of the case\nexpected: an answer\n     got: a panic in the store or the harness, see above",
        ),
        Err(_) => {
            let text = format!("    call: all of the case\nexpected: an end within {CASE_LIMIT:?}\n     got: none");
            failed(case, &text)
        }
    };
    let opened = namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let verdict = closed(harness, case, &opened, verdict).await;
    CaseResult::new(case, verdict, start.elapsed())
}

/// A task that is aborted when this handle is dropped.
struct Running<T>(JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn in_namespace(
    harness: Arc<dyn Harness>,
    case: &'static Case,
    scale: f64,
    namespace: Namespace,
    namespaces: Arc<Mutex<Vec<Namespace>>>,
) -> Verdict {
    let store = match harness.open(&namespace).await {
        Ok(store) => store,
        // The harness belongs to the author of the store, so its errors are shown in full.
        Err(e) => return failed(case, &harness_failed("Harness::open", &e)),
    };
    let capabilities = store.capabilities();
    let lacking: &[Need] = if harness.faults().is_some() { &[] } else { &[Need::Faults] };
    if let Some(reason) = case.excluded_by(&capabilities, lacking) {
        return Verdict::Ignored(reason.to_owned());
    }
    let fault = LastFault::default();
    let context = Context { store, capabilities, namespaces, harness, namespace, scale, fault: fault.clone() };
    let outcome: Outcome = (case.body)(context).await;
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(Stop::Ignored(reason)) => Verdict::Ignored(reason.to_owned()),
        Err(Stop::Failed(failure)) => match fault.line() {
            Some(line) => failed(case, &format!("{failure}\n{line}")),
            None => failed(case, &failure.to_string()),
        },
    }
}

async fn closed(harness: Arc<dyn Harness>, case: &Case, opened: &[Namespace], verdict: Verdict) -> Verdict {
    for namespace in opened {
        if let (Err(e), Verdict::Passed) = (harness.close(namespace).await, &verdict) {
            return failed(case, &harness_failed("Harness::close", &e));
        }
    }
    verdict
}

fn harness_failed(call: &str, e: &BoxError) -> String {
    format!("    call: {call}\nexpected: Ok\n     got: an error of the harness: {e}")
}

fn failed(case: &Case, text: &str) -> Verdict {
    let Case { id, sentence, .. } = case;
    Verdict::Failed(format!("    rule: {sentence}\n{text}\n   rerun: cargo test --test conformance -- --exact {id}"))
}

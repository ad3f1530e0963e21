//! [`run`]: all cases over one store.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

use crate::case::{Case, Need, cases};
use crate::context::{Context, Outcome, Stop};
use crate::harness::{Harness, Namespace};
use crate::report::{CaseResult, Report, Verdict};

/// A case that has not ended by then hangs.
const CASE_LIMIT: Duration = Duration::from_secs(300);

/// How to run the suite.
#[derive(Clone, Debug)]
pub struct Options {
    /// Run the cases whose id contains one of these texts; all if there are none.
    pub filter: Vec<String>,
    /// Sizes and rounds are multiplied by this: 1.0 is the default, less is quicker.
    pub scale: f64,
    /// How many cases run at once.
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
    /// The number of those that have failed.
    pub failed: usize,
    /// The number of cases that the run has.
    pub total: usize,
}

/// Runs the cases over the harness's stores, each in a namespace of its own.
///
/// Needs a multi-threaded tokio runtime with its timer on; elsewhere the suite could not race, and every case is
/// reported as failed with that reason. A filter that selects no case gives an empty report.
///
/// Dropping the future ends the run: the cases that are under way stop at their next `await`, but
/// threads that they have started go on for a moment, and [`Harness::close`] is not called for what
/// was opened.
pub async fn run(harness: impl Harness, options: Options) -> Report {
    run_with_progress(harness, options, |_| {}).await
}

/// Runs the cases as [`run`] does, and calls `on_progress` each time one of them has ended.
pub async fn run_with_progress(
    harness: impl Harness,
    options: Options,
    on_progress: impl FnMut(Progress) + Send,
) -> Report {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    let selected: Vec<&'static Case> = cases().iter().filter(|case| options.selects(case)).collect();
    let results = if is_multi_threaded() {
        let progress = Progress { done: 0, failed: 0, total: selected.len() };
        let telling = Mutex::new((progress, on_progress));
        let run = |case: &&'static Case| run_and_tell(harness.clone(), case, options.scale, &telling).boxed();
        let runs: Vec<_> = selected.iter().map(run).collect();
        stream::iter(runs).buffered(options.jobs.max(1)).collect().await
    } else {
        let reason = "the suite needs a multi-threaded runtime: use #[tokio::test(flavor = \"multi_thread\")]";
        let failed = |case: &&'static Case| CaseResult::new(case, Verdict::Failed(reason.to_owned()), Duration::ZERO);
        selected.iter().map(failed).collect()
    };
    Report::new(harness.name(), results)
}

async fn run_and_tell(
    harness: Arc<dyn Harness>,
    case: &'static Case,
    scale: f64,
    telling: &Mutex<(Progress, impl FnMut(Progress))>,
) -> CaseResult {
    let result = run_case(harness, case, scale).await;
    let mut telling = telling.lock().unwrap_or_else(PoisonError::into_inner);
    let (progress, on_progress) = &mut *telling;
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
    // A task of its own: if the store blocks the thread, the limit still ends the case.
    let mut task = Running(tokio::spawn(AssertUnwindSafe(body).catch_unwind()));
    let verdict = match tokio::time::timeout(CASE_LIMIT, &mut task.0).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(_) => failed(case, "    the store or the harness panicked: its message is above"),
        Err(_) => failed(case, &format!("    the case did not end within {CASE_LIMIT:?}")),
    };
    let opened = namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let verdict = closed(harness, case, &opened, verdict).await;
    CaseResult::new(case, verdict, start.elapsed())
}

/// A task that ends when nobody waits for it any longer.
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
        // A harness is its author's own: its errors are shown as they are.
        Err(e) => return failed(case, &format!("    Harness::open failed: {e}")),
    };
    let capabilities = store.capabilities();
    let lacking: &[Need] = if harness.faults().is_some() { &[] } else { &[Need::Faults] };
    if let Some(reason) = case.excluded_by(&capabilities, lacking) {
        return Verdict::Ignored(reason.to_owned());
    }
    let outcome: Outcome = (case.body)(Context { store, capabilities, namespaces, harness, namespace, scale }).await;
    match outcome {
        Ok(()) => Verdict::Passed,
        Err(Stop::Ignored(reason)) => Verdict::Ignored(reason.to_owned()),
        Err(Stop::Failed(failure)) => failed(case, &failure.to_string()),
    }
}

async fn closed(harness: Arc<dyn Harness>, case: &Case, opened: &[Namespace], verdict: Verdict) -> Verdict {
    for namespace in opened {
        if let (Err(e), Verdict::Passed) = (harness.close(namespace).await, &verdict) {
            return failed(case, &format!("    Harness::close failed: {e}"));
        }
    }
    verdict
}

fn failed(case: &Case, text: &str) -> Verdict {
    let Case { id, sentence, .. } = case;
    Verdict::Failed(format!("    rule: {sentence}\n{text}\n   rerun: cargo test --test conformance -- --exact {id}"))
}

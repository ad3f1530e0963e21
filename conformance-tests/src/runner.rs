//! [`run`]: all cases over one store.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::case::{Case, cases};
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

/// Runs the cases over the harness's stores, each in a namespace of its own.
///
/// Needs a multi-threaded tokio runtime with its timer on; elsewhere the suite could not race, and every case is
/// reported as failed with that reason. A filter that selects no case gives an empty report.
pub async fn run(harness: impl Harness, options: Options) -> Report {
    let harness: Arc<dyn Harness> = Arc::new(harness);
    let selected = cases().iter().filter(|case| options.selects(case));
    let results = if is_multi_threaded() {
        let runs: Vec<_> = selected.map(|case| run_case(harness.clone(), case, options.scale).boxed()).collect();
        stream::iter(runs).buffered(options.jobs.max(1)).collect().await
    } else {
        let reason = "the suite needs a multi-threaded runtime: use #[tokio::test(flavor = \"multi_thread\")]";
        selected.map(|case| CaseResult::new(case, Verdict::Failed(reason.to_owned()), Duration::ZERO)).collect()
    };
    Report::new(harness.name(), results)
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
    let task = tokio::spawn(AssertUnwindSafe(body).catch_unwind());
    let verdict = match tokio::time::timeout(CASE_LIMIT, task).await {
        Ok(Ok(Ok(verdict))) => verdict,
        Ok(_) => failed(case, "    the store or the harness panicked: its message is above"),
        Err(_) => failed(case, &format!("    the case did not end within {CASE_LIMIT:?}")),
    };
    let opened = namespaces.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let verdict = closed(harness, case, &opened, verdict).await;
    CaseResult::new(case, verdict, start.elapsed())
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
    if let Some(reason) = case.excluded_by(&capabilities, harness.faults().is_some()) {
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

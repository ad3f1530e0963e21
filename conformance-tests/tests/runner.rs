//! The runner: filters, refusals, reports, and stores that fail at opening or closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use keystead_conformance::{Harness, Namespace, Options, Report, async_trait, cases, run, run_with_progress};
use keystead_core::{BoxError, KeyStore};
use keystead_memory::MemoryStore;

struct Plain;

#[async_trait]
impl Harness for Plain {
    fn name(&self) -> &str {
        "plain"
    }

    async fn open(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(MemoryStore::new()))
    }

    async fn reopen(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Err("the server is gone".into())
    }
}

struct Unavailable;

#[async_trait]
impl Harness for Unavailable {
    fn name(&self) -> &str {
        "unavailable"
    }

    async fn open(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Err("the emulator is not there: run the script that installs it".into())
    }

    async fn reopen(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        panic!("nothing was opened")
    }
}

struct LeavesThingsBehind;

#[async_trait]
impl Harness for LeavesThingsBehind {
    fn name(&self) -> &str {
        "messy"
    }

    async fn open(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(MemoryStore::new()))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    async fn close(&self, _: &Namespace) -> Result<(), BoxError> {
        Err("the namespace cannot be removed".into())
    }
}

fn on_threads(harness: impl Harness, options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(harness, options))
}

fn only(filter: &[&str]) -> Options {
    Options { filter: filter.iter().map(|text| (*text).to_owned()).collect(), ..Options::default() }
}

#[test]
fn a_filter_selects_every_case_whose_id_contains_one_of_its_texts() {
    let report = on_threads(Plain, only(&["get.missing", "key."]));
    let mut passed = report.passed();
    passed.sort_unstable();
    assert_eq!(passed, ["get.missing_is_not_found", "key.empty_refused", "key.too_long_refused"]);
    assert!(report.failed().is_empty() && report.ignored().is_empty());
    assert!(on_threads(Plain, only(&["no such case"])).passed().is_empty());
}

#[test]
fn progress_is_told_each_time_a_case_has_ended() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let mut told = Vec::new();
    // Two cases pass, and one needs a second client, which this harness does not give.
    let options = only(&["get.missing", "check.ok", "reopen."]);
    let report = runtime.block_on(run_with_progress(Plain, options, |progress| told.push(progress)));
    let total = report.passed().len() + report.failed().len();
    assert_eq!(told.iter().map(|progress| progress.done).collect::<Vec<_>>(), (1..=total).collect::<Vec<_>>());
    assert!(told.iter().all(|progress| progress.total == total), "{told:?}");
    assert_eq!(told.last().map(|progress| progress.failed), Some(report.failed().len()));
    assert!(!report.failed().is_empty() && !report.passed().is_empty(), "{report}");
}

/// A store whose calls never end, and a count of the cases that have it open.
struct Endless(Arc<AtomicUsize>);

/// Leaves the count when the case that opened the store ends.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Harness for Endless {
    fn name(&self) -> &str {
        "endless"
    }

    async fn open(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _open = Open(self.0.clone());
        std::future::pending().await
    }

    async fn reopen(&self, _: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        panic!("nothing was opened")
    }
}

#[test]
fn a_run_that_is_dropped_ends_its_cases() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let open = Arc::new(AtomicUsize::new(0));
    let running = runtime.spawn(run(Endless(open.clone()), Options { jobs: 3, ..only(&["get."]) }));
    let until = |wanted: usize| {
        let start = Instant::now();
        while open.load(Ordering::SeqCst) != wanted {
            assert!(start.elapsed() < Duration::from_secs(20), "{} cases are under way", open.load(Ordering::SeqCst));
            std::thread::sleep(Duration::from_millis(2));
        }
    };
    until(3);
    running.abort();
    until(0);
}

#[test]
fn an_error_or_a_panic_of_the_harness_fails_the_case() {
    let report = on_threads(Plain, only(&["reopen."]));
    let [(_, text)] = report.failures()[..] else { panic!("one failure: {report}") };
    assert!(text.contains("Harness::reopen") && text.contains("the server is gone"), "{text}");
}

#[test]
fn a_missing_environment_fails_every_case_and_skips_none() {
    let report = on_threads(Unavailable, Options::default());
    assert_eq!(report.failed().len(), cases().len());
    assert!(report.failures().iter().all(|(_, text)| text.contains("run the script that installs it")));
}

#[test]
fn what_cannot_be_cleaned_up_fails_the_case() {
    let report = on_threads(LeavesThingsBehind, only(&["check.ok"]));
    assert_eq!(report.failed(), ["check.ok"]);
}

#[test]
fn a_current_thread_runtime_is_refused() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let report = runtime.block_on(run(Plain, only(&["check.ok"])));
    let [(_, text)] = report.failures()[..] else { panic!("one failure: {report}") };
    assert!(text.contains("multi-threaded"), "{text}");
}

#[test]
fn the_json_report_has_the_documented_shape() {
    let report = on_threads(Plain, only(&["check.ok", "get.missing", "list.unsupported"]));
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).expect("it is JSON");
    assert_eq!(json["suite"], "keystead-conformance");
    assert_eq!(json["store"], "plain");
    assert_eq!((&json["passed"], &json["failed"], &json["ignored"]), (&1.into(), &1.into(), &1.into()));
    let outcomes: Vec<_> = json["cases"].as_array().expect("a list").iter().map(|case| &case["outcome"]).collect();
    assert_eq!(outcomes, ["passed", "ignored", "failed"]);
    for case in json["cases"].as_array().expect("a list") {
        assert!(case["id"].is_string() && case["sentence"].is_string() && case["duration_ms"].is_u64());
        assert_eq!(case["detail"].is_null(), case["outcome"] == "passed");
    }
}

#[test]
fn the_junit_report_counts_and_escapes() {
    let report = on_threads(Plain, only(&["check.ok", "get.missing", "list.unsupported"]));
    let xml = report.to_junit();
    assert!(xml.contains("tests=\"3\" failures=\"1\" skipped=\"1\""), "{xml}");
    assert!(xml.contains("<testcase name=\"get.missing_is_not_found\""), "{xml}");
    assert!(xml.contains("<failure>") && xml.contains("the server is gone"), "{xml}");
    assert_eq!(xml.matches("<testcase ").count(), xml.matches("</testcase>").count());
}

//! The runner: filters, refusals, reports, and stores that fail at opening or closing.

use std::sync::Arc;

use keystead_conformance::{Harness, Namespace, Options, Report, async_trait, cases, run};
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

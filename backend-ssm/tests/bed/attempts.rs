//! The trace events of the attempts of a call.

use std::time::Duration;

use keystead_aws_testbed::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, TraceCapture};
use keystead_conformance::{Fault, Faults};
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, Operation};
use serde_json::json;

use crate::{Fixture, id, key};

/// The request id in the test bed's answers.
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

#[track_caller]
fn expect_texts(line: &str, texts: &[&str]) {
    for text in texts {
        assert!(line.contains(text), "{text} is not in {line}");
    }
}

async fn inject(fixture: &Fixture, operation: Operation, fault: Fault, requests: u32) {
    let faults = fixture.bed.faults(Duration::from_secs(5));
    faults.inject(&fixture.ns, Some(operation), fault, requests).await.unwrap();
}

#[tokio::test]
async fn each_attempt_of_a_throttled_call_is_traced_in_the_callers_span_without_a_secret() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let capture = TraceCapture::default();
    store.put_key(&id("canaryid7x5q"), &key(*b"canary-key-0123456789-abcdefghij")).await.unwrap();
    inject(&fixture, Operation::Get, Fault::Throttled { retry_after: None }, 1).await;
    capture.during(store.get_key(&id("canaryid7x5q"))).await.unwrap();
    inject(&fixture, Operation::Put, Fault::Throttled { retry_after: None }, 1).await;
    capture.during(store.put_key(&id("canaryid7x5q"), &key(*b"canary-key-0123456789-abcdefghij"))).await.unwrap();

    let lines = capture.attempts();
    assert_eq!(lines.len(), 4, "{lines:#?}");
    let request_id = format!("request_id=\"{REQUEST_ID}\"");
    for (lines, operation) in lines.chunks(2).zip(["operation=\"GetParameter\"", "operation=\"PutParameter\""]) {
        let common = ["DEBUG caller: keystead_aws: ", "service=\"SSM\"", operation, "duration_ms=", &request_id];
        let throttled = ["attempt=1 ", "status=400", "code=\"ThrottlingException\"", "reason=\"refused\""];
        expect_texts(&lines[0], &common);
        expect_texts(&lines[0], &throttled);
        expect_texts(&lines[1], &common);
        expect_texts(&lines[1], &["attempt=2 ", "status=200"]);
        assert!(!lines[1].contains("code=") && !lines[1].contains("reason="), "{}", lines[1]);
    }
    let text = capture.text();
    let value = "Y2FuYXJ5LWtleS0wMTIzNDU2Nzg5LWFiY2RlZmdoaWo=";
    for canary in ["canaryid7x5q", fixture.ns.as_str(), "canary-key", value, ACCESS_KEY_ID, SECRET_ACCESS_KEY] {
        assert!(!text.contains(canary), "{canary} is shown in {text}");
    }
}

#[tokio::test]
async fn a_refusal_is_traced_once_with_its_code() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    let error = capture.during(fixture.store().get_key(&id("alice"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let lines = capture.attempts();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    expect_texts(&lines[0], &["attempt=1 ", "status=400", "code=\"ParameterNotFound\"", "reason=\"refused\""]);
}

#[tokio::test]
async fn malformed_codes_and_request_ids_are_not_traced() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    fixture.answer("GetParameter", 1, 400, json!({"__type": "canary of alice", "message": "alice"}));
    capture.during(fixture.store().get_key(&id("alice"))).await.unwrap_err();
    assert_eq!(capture.attempts().len(), 1);
    assert!(!capture.text().contains("alice"), "{}", capture.text());
}

#[tokio::test]
async fn an_attempt_that_was_never_sent_is_traced_as_such() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    let store = fixture.builder().endpoint_url("http://127.0.0.1:1").sdk_attempts(1).build().unwrap();
    capture.during(store.get_key(&id("alice"))).await.unwrap_err();
    expect_texts(&capture.attempts()[0], &["attempt=1 ", "reason=\"no connection\""]);
}

/// Waits until a condition is met, and panics if that takes more than a minute.
async fn eventually(is_met: impl Fn() -> bool + Send + Sync) {
    let waiting = async {
        while !is_met() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("the condition is met in the end");
}

#[tokio::test]
async fn a_call_that_hangs_traces_its_attempts_while_it_hangs() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    let store = fixture.builder().attempt_timeout(Duration::from_millis(50)).sdk_attempts(1000);
    let store = store.operation_timeout(Duration::from_secs(3600)).build().unwrap();
    inject(&fixture, Operation::Get, Fault::Silent, 1000).await;
    let hanging = tokio::spawn({
        let capture = capture.clone();
        async move { capture.during(store.get_key(&id("alice"))).await }
    });
    eventually(|| capture.attempts().len() >= 2).await;
    assert!(!hanging.is_finished());
    hanging.abort();
    expect_texts(&capture.attempts()[1], &["attempt=2 ", "reason=\"no answer in time\""]);
}

#[tokio::test]
async fn a_dropped_attempt_is_traced() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    inject(&fixture, Operation::Get, Fault::Silent, 1).await;
    let store = fixture.builder().attempt_timeout(Duration::from_secs(3600)).build().unwrap();
    let dropped = tokio::spawn({
        let capture = capture.clone();
        async move { capture.during(store.get_key(&id("alice"))).await }
    });
    eventually(|| !fixture.calls().is_empty()).await;
    assert!(capture.attempts().is_empty());
    dropped.abort();
    assert!(dropped.await.unwrap_err().is_cancelled());
    let lines = capture.attempts();
    assert_eq!(lines.len(), 1, "{lines:#?}");
    expect_texts(&lines[0], &["caller: ", "attempt=1 ", "reason=\"the call was dropped\""]);
}

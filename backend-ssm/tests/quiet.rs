//! No trace at any level and no form of any error shows a key or an id.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::Duration;

use keystead_aws_testbed::{KMS_KEY, TestBed, assert_nothing_leaks};
use keystead_conformance::Namespace;
use keystead_ssm::{SsmConfig, SsmStore};

#[tokio::test(flavor = "multi_thread")]
async fn no_error_and_no_trace_shows_a_key_or_an_id() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let config = SsmConfig::new(KMS_KEY, format!("/{ns}/user-keys/%s")).unwrap();
    let store = SsmStore::builder(config).sdk_config(&bed.sdk_config());
    let store = store.attempt_timeout(Duration::from_millis(500)).operation_timeout(Duration::from_secs(1));
    let store = store.visibility_bound(Duration::from_millis(50)).build().unwrap();
    let operations = ["GetParameter", "GetParameters", "PutParameter", "DeleteParameter", "GetParametersByPath"];
    assert_nothing_leaks(&store, bed, &ns, &operations).await;
}

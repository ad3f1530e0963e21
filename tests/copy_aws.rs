//! Copies between the AWS stores, against the test bed.
#![cfg(all(feature = "copy", feature = "memory", feature = "file", feature = "ssm", feature = "secretsmanager"))]
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]

#[path = "../copy/tests/copy/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use keystead::KeyStore;
use keystead::copy::CopyOptions;
use keystead::memory::MemoryStore;
use keystead::secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use keystead::ssm::{SsmConfig, SsmStore};
use keystead_aws_testbed::{KMS_KEY, TestBed};
use keystead_conformance::Namespace;

use crate::support::{assert_equal, copy, copy_with_drops, file_store, fill};

const BOUND: Duration = Duration::from_millis(200);

fn parameters(bed: &TestBed, ns: &Namespace) -> SsmStore {
    let config = SsmConfig::new(KMS_KEY, format!("/{ns}/parameters/%s")).unwrap();
    SsmStore::builder(config).sdk_config(&bed.sdk_config()).visibility_bound(BOUND).build().unwrap()
}

fn secrets(bed: &TestBed, ns: &Namespace) -> SecretsManagerStore {
    let config = SecretsManagerConfig::new(KMS_KEY, format!("/{ns}/secrets/%s")).unwrap();
    SecretsManagerStore::builder(config).sdk_config(&bed.sdk_config()).visibility_bound(BOUND).build().unwrap()
}

/// Returns the number of calls of each operation, without the first `since` calls.
fn counted(bed: &TestBed, ns: &Namespace, since: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for call in bed.calls(ns.as_str()).into_iter().skip(since) {
        *counts.entry(call.operation).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn a_copy_from_parameter_store_to_secrets_manager_makes_the_least_calls() {
    let keys = std::env::var("KEYSTEAD_COPY_KEYS").map_or(200, |keys| keys.parse().unwrap());
    for rate in [None, Some(200.0)] {
        let bed = TestBed::shared().unwrap();
        let ns = Namespace::random();
        let source = parameters(bed, &ns);
        let target = secrets(bed, &ns);
        let memory = MemoryStore::new();
        fill(&memory, 0..keys).await;
        copy(&memory, &source, CopyOptions::default()).await;
        let before = bed.calls(ns.as_str()).len();

        let options = rate.map_or_else(CopyOptions::default, |rate| CopyOptions::default().rate(rate));
        let begun = std::time::Instant::now();
        assert!(copy(&source, &target, options).await.is_complete());
        let took = begun.elapsed();
        let calls = counted(bed, &ns, before);
        println!("{keys} keys in {took:?}: {calls:?}");
        let least = 3 * keys.div_ceil(10) + keys + keys.div_ceil(20);
        let made: usize = calls.values().sum();
        assert!(made as f64 <= 1.05 * least as f64, "{made} calls, {least} are the least: {calls:?}");
        assert_eq!((calls["CreateSecret"], calls["BatchGetSecretValue"]), (keys, keys.div_ceil(20)));
        assert_eq!(calls["GetParameters"], keys.div_ceil(10));
        assert_equal(&source, &target).await;
    }
}

#[tokio::test]
async fn keys_go_round_all_stores_with_runs_that_are_dropped() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let memory = MemoryStore::new();
    fill(&memory, 0..50).await;
    let first = file_store(&at("keys/first.db")).await;
    let last = file_store(&at("keys/last.db")).await;
    let parameters = parameters(bed, &ns);
    let secrets = secrets(bed, &ns);
    let stores: [&dyn KeyStore; 5] = [&memory, &first, &parameters, &secrets, &last];
    let mut random = fastrand::Rng::with_seed(4);
    let mut drops = 0;
    for (leg, pair) in stores.windows(2).enumerate() {
        let [source, target] = pair else { unreachable!() };
        let journal = at(&format!("journal-{leg}"));
        let (dropped, report) = copy_with_drops(*source, *target, Path::new(&journal), &mut random, 40).await;
        assert!(report.is_complete(), "{report:?}");
        assert_equal(*source, *target).await;
        drops += dropped;
    }
    assert_equal(&memory, &last).await;
    assert!(drops > 4, "{drops}");
}

#[tokio::test]
async fn a_copy_into_a_store_with_a_quota_of_writes_completes_with_few_writes_too_many() {
    let keys = std::env::var("KEYSTEAD_COPY_KEYS").map_or(200, |keys| keys.parse().unwrap());
    let quota = std::env::var("KEYSTEAD_COPY_QUOTA").map_or(20.0, |quota| quota.parse().unwrap());
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    bed.limit_writes(ns.as_str(), quota);
    let source = MemoryStore::new();
    let target = parameters(bed, &ns);
    fill(&source, 0..keys).await;
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete(), "{report:?}");
    let writes = counted(bed, &ns, 0)["PutParameter"];
    println!("{writes} writes for {keys} keys");
    assert!(writes as f64 <= 1.1 * keys as f64, "{writes} writes for {keys} keys");
    assert_equal(&source, &target).await;
}

#[tokio::test]
async fn keys_under_a_flat_path_of_the_clojure_library_are_copied() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    for user in ["alice", "67e55044-10b1-426f-9247-bb680e5fe0c8"] {
        let parameter = format!(r#"{{"Name": "/{ns}-{user}", "Type": "SecureString", "Value": "QUJD"}}"#);
        bed.ask_emulator("AmazonSSM.PutParameter", parameter.parse().unwrap()).await.unwrap();
    }
    let config = SsmConfig::legacy(format!("/{ns}-%s")).unwrap();
    let source = SsmStore::builder(config).sdk_config(&bed.sdk_config()).visibility_bound(BOUND).build().unwrap();
    let target = parameters(bed, &ns);
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete() && report.copied == 2, "{report:?}");
    assert_equal(&source, &target).await;
}

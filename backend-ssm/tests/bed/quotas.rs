//! Quotas of writes: what a burst, many processes and a single attempt make of them.

use std::time::Duration;

use futures_util::future::join_all;
use keystead_aws_testbed::{KMS_KEY, TestBed};
use keystead_conformance::Namespace;
use keystead_core::{Effect, ErrorKind, KeyId, KeyStoreExt, Result};
use keystead_ssm::{SsmConfig, SsmStore, SsmStoreBuilder};

fn builder(bed: &TestBed, ns: &Namespace) -> SsmStoreBuilder {
    let config = SsmConfig::new(KMS_KEY, format!("/{ns}/%s")).unwrap();
    SsmStore::builder(config).sdk_config(&bed.sdk_config()).visibility_bound(Duration::from_millis(200))
}

fn id(number: usize) -> KeyId {
    KeyId::new(format!("user-{number}")).unwrap()
}

#[tokio::test]
async fn a_burst_of_creates_succeeds_at_the_default_quota() {
    let (bed, ns) = (TestBed::shared().unwrap(), Namespace::random());
    bed.limit_writes(ns.as_str(), 3.0);
    let store = builder(bed, &ns).build().unwrap();
    let ids: Vec<KeyId> = (0..10).map(id).collect();
    let created = join_all(ids.iter().map(|id| store.get_or_create_key(id))).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    // Those that were on their way when the first was refused, and a few more.
    let writes = bed.calls(ns.as_str()).into_iter().filter(|call| call.operation == "PutParameter").count();
    assert!((10..=24).contains(&writes), "{writes} writes");
}

#[tokio::test]
async fn processes_that_do_not_know_of_each_other_create_a_key_each() {
    let (bed, ns) = (TestBed::shared().unwrap(), Namespace::random());
    bed.limit_writes(ns.as_str(), 3.0);
    let stores: Vec<SsmStore> = (0..12).map(|_| builder(bed, &ns).build().unwrap()).collect();
    let ids: Vec<KeyId> = (0..12).map(id).collect();
    let created = join_all(stores.iter().zip(&ids).map(|(store, id)| store.get_or_create_key(id))).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

#[tokio::test]
async fn a_single_attempt_is_throttled_with_a_pause_to_come_back_after() {
    let (bed, ns) = (TestBed::shared().unwrap(), Namespace::random());
    bed.limit_writes(ns.as_str(), 0.0);
    let store = builder(bed, &ns).sdk_attempts(1).build().unwrap();
    let refused = store.get_or_create_key(&id(0)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Throttled, Effect::NotApplied));
    assert!(refused.retry_after().is_some_and(|pause| pause >= Duration::from_millis(100)));
    let writes = bed.calls(ns.as_str()).into_iter().filter(|call| call.operation == "PutParameter").count();
    assert_eq!(writes, 1);
}

//! Quotas of writes: bursts, many processes, and stores with a single attempt.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use futures_util::future::join_all;
use keystead_aws_testbed::{KMS_KEY, TestBed};
use keystead_conformance::{Fault, Faults, Namespace};
use keystead_core::{Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result, SecretKey};
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
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    bed.limit_writes(ns.as_str(), 3.0);
    let store = builder(bed, &ns).build().unwrap();
    let ids: Vec<KeyId> = (0..10).map(id).collect();
    let created = join_all(ids.iter().map(|id| store.get_or_create_key(id))).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
    // Those that were in progress when the first one was refused, and a few more.
    let writes = bed.calls(ns.as_str()).into_iter().filter(|call| call.operation == "PutParameter").count();
    assert!((10..=24).contains(&writes), "{writes} writes");
}

#[tokio::test]
async fn processes_that_do_not_know_of_each_other_create_a_key_each() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    bed.limit_writes(ns.as_str(), 3.0);
    let stores: Vec<SsmStore> = (0..12).map(|_| builder(bed, &ns).build().unwrap()).collect();
    let ids: Vec<KeyId> = (0..12).map(id).collect();
    let created = join_all(stores.iter().zip(&ids).map(|(store, id)| store.get_or_create_key(id))).await;
    assert!(created.iter().all(Result::is_ok), "{created:?}");
}

#[tokio::test]
async fn a_single_attempt_is_throttled_with_a_pause_to_come_back_after() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    bed.limit_writes(ns.as_str(), 0.0);
    let store = builder(bed, &ns).sdk_attempts(1).build().unwrap();
    let refused = store.get_or_create_key(&id(0)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Throttled, Effect::NotApplied));
    assert!(refused.retry_after().is_some_and(|pause| pause >= Duration::from_millis(100)));
    let writes = bed.calls(ns.as_str()).into_iter().filter(|call| call.operation == "PutParameter").count();
    assert_eq!(writes, 1);
}

/// A provider that gives credentials for one call, and then none.
#[derive(Debug, Default)]
struct OnceOnly(AtomicBool);

impl ProvideCredentials for OnceOnly {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        // A store loads new credentials 30 s before the old ones expire.
        let end = SystemTime::now() + Duration::from_millis(30_500);
        future::ProvideCredentials::ready(match self.0.swap(true, Ordering::SeqCst) {
            false => Ok(Credentials::new("AKIDTEST", "secret", None, Some(end), "test")),
            true => Err(CredentialsError::not_loaded("no more")),
        })
    }
}

#[tokio::test]
async fn a_write_whose_answer_was_lost_stays_unknown_when_the_credentials_end() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let faults = bed.faults(Duration::from_secs(5));
    faults.inject(&ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    faults.inject(&ns, Some(Operation::Create), Fault::Throttled { retry_after: None }, 1).await.unwrap();
    let config = bed.sdk_config().into_builder();
    let config = config.credentials_provider(SharedCredentialsProvider::new(OnceOnly::default())).build();
    let ssm = SsmConfig::new(KMS_KEY, format!("/{ns}/%s")).unwrap();
    let store = SsmStore::builder(ssm).sdk_config(&config).build().unwrap();
    let refused = store.create_key(&id(0), &SecretKey::generate(32).unwrap()).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unauthenticated, Effect::Unknown));
    assert!(builder(bed, &ns).build().unwrap().get_key(&id(0)).await.is_ok());
}

#[tokio::test]
async fn a_batch_of_deletes_whose_answer_was_lost_stays_unknown_when_it_is_refused_then() {
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let store = builder(bed, &ns).build().unwrap();
    let ids: Vec<KeyId> = (0..3).map(id).collect();
    for id in &ids {
        store.get_or_create_key(id).await.unwrap();
    }
    let faults = bed.faults(Duration::from_secs(5));
    faults.inject(&ns, Some(Operation::Delete), Fault::ResetAfterApply, 1).await.unwrap();
    faults.inject(&ns, Some(Operation::Delete), Fault::Denied, 1).await.unwrap();
    for outcome in store.delete_keys(&ids).await {
        let refused = outcome.unwrap_err();
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    }
}

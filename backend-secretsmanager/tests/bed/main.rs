//! Tests over Secrets Manager behind the test bed's proxy: the requests that are sent, and unusual
//! answers.
#![allow(clippy::unwrap_used, reason = "test code")]

mod diagnosis;
mod identity;
mod organization;
mod policies;
mod reencrypt;
mod refusals;

use std::time::{Duration, SystemTime};

use keystead_aws_testbed::{KMS_KEY, TestBed};
use keystead_conformance::{Fault, Faults, Namespace};
use keystead_core::{
    Consistency, DeletionGrade, Effect, ErrorKind, ErrorType, Finality, KeyId, KeyStore, KeyStoreExt, Operation,
    SecretKey,
};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::json;

/// A test's own namespace on the shared test bed.
struct Fixture {
    bed: &'static TestBed,
    ns: Namespace,
}

impl Fixture {
    fn new() -> Self {
        Self { bed: TestBed::shared().expect("the test bed starts"), ns: Namespace::random() }
    }

    fn name(&self, segment: &str) -> String {
        format!("/{}/user-keys/{segment}", self.ns)
    }

    fn config(&self) -> SecretsManagerConfig {
        SecretsManagerConfig::new(KMS_KEY, self.name("%s")).expect("the configuration is valid")
    }

    fn store(&self) -> SecretsManagerStore {
        let builder = SecretsManagerStore::builder(self.config()).sdk_config(&self.bed.sdk_config());
        builder.visibility_bound(Duration::from_millis(100)).build().expect("the store is built")
    }

    fn operations(&self) -> Vec<String> {
        self.bed.calls(self.ns.as_str()).into_iter().map(|call| call.operation).collect()
    }

    fn answer(&self, operation: &str, times: u32, status: u16, body: serde_json::Value) {
        self.bed.answer(operation, self.ns.as_str(), times, status, body.to_string());
    }
}

fn id(text: &str) -> KeyId {
    KeyId::new(text).expect("the id is valid")
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).expect("the key is valid")
}

#[tokio::test]
async fn a_get_is_one_call_a_put_one_and_the_first_put_two_a_delete_two() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(fixture.operations(), ["PutSecretValue", "CreateSecret"]);
    store.put_key(&id("alice"), &key(2)).await.unwrap();
    assert_eq!(fixture.operations()[2..], ["PutSecretValue"]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(2));
    assert_eq!(fixture.operations()[3..], ["GetSecretValue"]);
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(fixture.operations()[4..], ["DescribeSecret", "DeleteSecret"]);
    store.create_key(&id("bob"), &key(1)).await.unwrap();
    assert_eq!(fixture.operations()[6..], ["CreateSecret"]);
    assert_eq!(store.find_key(&id("nobody")).await.unwrap(), None);
    assert_eq!(fixture.operations()[7..], ["GetSecretValue", "DescribeSecret"]);
    store.create_key(&id("bob"), &key(2)).await.unwrap_err();
    assert_eq!(fixture.operations()[9..], ["CreateSecret", "DescribeSecret"]);
    store.erase_key(&id("bob")).await.unwrap();
    assert_eq!(fixture.operations()[11..], ["DescribeSecret", "DeleteSecret", "GetSecretValue", "DescribeSecret"]);
    store.check().await.unwrap();
    assert_eq!(fixture.operations()[15..], ["GetSecretValue"]);
}

#[tokio::test]
async fn a_thousand_keys_are_fifty_calls() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let ids: Vec<KeyId> = (0..1000).map(|number| id(&format!("user-{number}"))).collect();
    store.create_key(&ids[7], &key(7)).await.unwrap();
    let answers = store.get_keys(&ids).await;
    assert_eq!(answers[7].as_ref().unwrap(), &key(7));
    assert!(answers[8].as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound));
    assert_eq!(fixture.operations().iter().filter(|name| *name == "BatchGetSecretValue").count(), 50);
    assert_eq!(fixture.operations().len(), 51);
}

#[tokio::test]
async fn a_secret_is_created_in_binary_under_the_kms_key_with_a_token() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice@example.com"), &key(1)).await.unwrap();
    let body = fixture.bed.calls(fixture.ns.as_str()).remove(0).body;
    assert_eq!(body["Name"], fixture.name("--alice-40example.com"));
    assert_eq!(body["KmsKeyId"], KMS_KEY);
    assert_eq!(body["SecretBinary"], "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
    assert_eq!(body["ClientRequestToken"].as_str().unwrap().len(), 32);
    assert!(body["SecretString"].is_null());
}

#[tokio::test]
async fn a_delete_is_forced_unless_a_window_is_asked_for() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.delete_key(&id("alice")).await.unwrap().finality, Finality::Eventual { within: None });
    let sent = fixture.bed.calls(fixture.ns.as_str()).pop().unwrap().body;
    assert_eq!(sent["ForceDeleteWithoutRecovery"], true);

    let config = fixture.config().recovery_window(7);
    let store = SecretsManagerStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    store.create_key(&id("bob"), &key(1)).await.unwrap();
    let week = Duration::from_secs(7 * 86_400);
    match store.delete_key(&id("bob")).await.unwrap().finality {
        Finality::RecoverableUntil(until) => {
            let remaining = until.duration_since(SystemTime::now()).unwrap();
            assert!(remaining <= week + Duration::from_secs(3600) && remaining + Duration::from_secs(86_400) > week);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(store.capabilities().deletion, DeletionGrade::Recoverable { window: week });
    // A store that forces its deletes finds a secret whose deletion somebody else has scheduled.
    let forcing = fixture.store();
    for error in [
        forcing.get_key(&id("bob")).await.unwrap_err(),
        forcing.put_key(&id("bob"), &key(2)).await.unwrap_err(),
        forcing.create_key(&id("bob"), &key(2)).await.unwrap_err(),
        forcing.delete_key(&id("bob")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PendingDeletion);
        assert!(error.retry_after().is_some_and(|pause| pause <= week));
    }
    let erasure = forcing.erase_key(&id("bob")).await.unwrap();
    assert!(erasure.existed && !erasure.verified && matches!(erasure.finality, Finality::RecoverableUntil(_)));
}

#[tokio::test]
async fn deleting_a_missing_user_says_so_with_the_error_map() {
    let fixture = Fixture::new();
    let error = fixture.store().delete_key(&id("nobody")).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Operation::Delete));
    let details = error.details().unwrap();
    assert_eq!(details.error_code.as_deref(), Some("ResourceNotFoundException"));
    assert_eq!((details.error_type, details.status_code), (Some(ErrorType::Client), Some(400)));
    assert_eq!(details.service_name.as_deref(), Some("AWSSecretsManager"));
    assert_eq!(fixture.operations(), ["DescribeSecret"]);
}

#[tokio::test]
async fn a_secret_with_replicas_is_not_deleted() {
    let fixture = Fixture::new();
    let replicas = json!([{"Region": "eu-west-1", "Status": "InSync"}]);
    fixture.answer("DescribeSecret", 1, 200, json!({"Name": fixture.name("alice"), "ReplicationStatus": replicas}));
    let error = fixture.store().delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    assert_eq!(fixture.operations(), ["DescribeSecret"]);
}

#[tokio::test]
async fn a_hard_quota_is_not_tried_again_though_the_sdk_would() {
    let fixture = Fixture::new();
    fixture.answer("CreateSecret", 9, 400, json!({"__type": "LimitExceededException", "message": "too many secrets"}));
    let error = fixture.store().create_key(&id("alice"), &key(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QuotaExceeded, false));
    assert_eq!(fixture.operations(), ["CreateSecret"]);
}

/// The answer to a create was lost, and the SDK has repeated the call: the token tells who created
/// the secret.
#[tokio::test]
async fn a_create_with_a_lost_answer_is_distinguished_from_another_creators() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.store();
    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    store.create_key(&id("ours"), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&id("ours")).await.unwrap(), key(1));

    store.put_key(&id("theirs"), &key(2)).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetBeforeSend, 1).await.unwrap();
    let error = store.create_key(&id("theirs"), &key(2)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::AlreadyExists, Effect::NotApplied));
}

#[tokio::test]
async fn an_entry_that_is_not_our_key_is_corrupt() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for value in [json!({"SecretString": "text"}), json!({}), json!({"SecretBinary": ""})] {
        fixture.answer("GetSecretValue", 1, 200, value.clone());
        assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Corrupt, "{value}");
    }
}

#[tokio::test]
async fn a_key_that_fails_alone_in_a_batch_is_asked_for_alone() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("bob"), &key(2)).await.unwrap();
    let alice = json!({"SecretId": fixture.name("alice"), "ErrorCode": "DecryptionFailure", "Message": "disabled"});
    let bob = json!({"Name": fixture.name("bob"), "SecretBinary": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="});
    fixture.answer("BatchGetSecretValue", 1, 200, json!({"SecretValues": [bob], "Errors": [alice]}));
    fixture.answer("GetSecretValue", 1, 400, json!({"__type": "DecryptionFailure", "message": "disabled"}));
    let answers = store.get_keys(&[id("alice"), id("bob")]).await;
    assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::KeyUnavailable);
    assert_eq!(answers[1].as_ref().unwrap(), &key(2));
}

#[tokio::test]
async fn a_repeated_token_ends_the_listing_with_an_error() {
    let fixture = Fixture::new();
    fixture.answer("ListSecrets", 100, 200, json!({"SecretList": [], "NextToken": "again"}));
    let listed: Vec<_> = futures_util::StreamExt::collect(fixture.store().list_keys()).await;
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn a_listing_says_that_it_may_lag_by_five_minutes() {
    let within = Duration::from_secs(300);
    assert_eq!(Fixture::new().store().capabilities().listing, Some(Consistency::Eventual { within }));
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_unavailable_and_may_have_been_applied() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let builder = SecretsManagerStore::builder(fixture.config()).sdk_config(&fixture.bed.sdk_config());
    let store = builder.sdk_attempts(1).build().unwrap();
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Get), Fault::Truncated, 1).await.unwrap();
    let read = store.get_key(&id("alice")).await.unwrap_err();
    assert_eq!((read.kind(), read.effect(), read.is_retryable()), (ErrorKind::Unavailable, Effect::NotApplied, true));
    faults.inject(&fixture.ns, Some(Operation::Put), Fault::Truncated, 1).await.unwrap();
    let write = store.put_key(&id("alice"), &key(2)).await.unwrap_err();
    assert_eq!((write.kind(), write.effect(), write.is_retryable()), (ErrorKind::Unavailable, Effect::Unknown, true));
    // A complete answer that cannot be parsed does not come from Secrets Manager.
    faults.inject(&fixture.ns, Some(Operation::Get), Fault::Garbage, 1).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

//! Requirements of organizations: tags, a description, replicas, and KMS keys of another account.

use std::error::Error as StdError;
use std::time::Duration;

use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY};
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, Finality, KeyStore, KeyStoreExt, Operation};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

const DELETE: [&str; 3] = ["DescribeSecret", "RemoveRegionsFromReplication", "DeleteSecret"];

fn store(fixture: &Fixture, config: SecretsManagerConfig) -> SecretsManagerStore {
    let builder = SecretsManagerStore::builder(config).sdk_config(&fixture.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(300)).build().unwrap()
}

fn replicated_config(fixture: &Fixture) -> SecretsManagerConfig {
    let config = fixture.config().replica_region("eu-west-1", "alias/there");
    config.replica_region("us-west-2", "alias/aws/secretsmanager")
}

fn replicated(fixture: &Fixture) -> SecretsManagerStore {
    store(fixture, replicated_config(fixture))
}

/// Returns the secret's description from the emulator.
async fn described(fixture: &Fixture) -> Value {
    let request = json!({"SecretId": fixture.name("alice")});
    fixture.bed.ask_emulator("secretsmanager.DescribeSecret", request).await.unwrap()
}

fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn a_create_sends_tags_description_and_replicas_in_its_one_call() {
    let fixture = Fixture::new();
    let config = replicated_config(&fixture).tag("owner", "privacy").description("user key");
    let store = store(&fixture, config);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(fixture.operations(), ["CreateSecret"]);
    let sent = fixture.bed.calls(fixture.ns.as_str()).remove(0).body;
    assert_eq!(sent["Tags"], json!([{"Key": "owner", "Value": "privacy"}]));
    assert_eq!(sent["Description"], "user key");
    let replicas = json!([
        {"Region": "eu-west-1", "KmsKeyId": "alias/there"},
        {"Region": "us-west-2", "KmsKeyId": "alias/aws/secretsmanager"},
    ]);
    assert_eq!((&sent["AddReplicaRegions"], &sent["KmsKeyId"]), (&replicas, &json!(KMS_KEY)));
    assert_eq!(described(&fixture).await["ReplicationStatus"].as_array().unwrap().len(), 2);

    store.put_key(&id("alice"), &key(2)).await.unwrap();
    assert_eq!(fixture.operations()[1..], ["PutSecretValue"]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(2));
    assert_eq!(described(&fixture).await["Tags"], json!([{"Key": "owner", "Value": "privacy"}]));
}

#[tokio::test]
async fn without_such_settings_nothing_of_them_is_sent() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let sent = fixture.bed.calls(fixture.ns.as_str()).remove(0).body;
    assert!(sent["Tags"].is_null() && sent["Description"].is_null() && sent["AddReplicaRegions"].is_null(), "{sent}");
}

#[tokio::test]
async fn a_policy_that_demands_tags_lets_a_store_with_tags_create_and_overwrite() {
    let fixture = Fixture::new();
    fixture.bed.require_tags(fixture.ns.as_str(), &["owner"]);
    for error in [
        fixture.store().create_key(&id("alice"), &key(1)).await.unwrap_err(),
        fixture.store().put_key(&id("alice"), &key(1)).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    }
    let begun = fixture.operations().len();
    let store = store(&fixture, fixture.config().tag("owner", "privacy"));
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    store.put_key(&id("alice"), &key(2)).await.unwrap();
    assert_eq!(fixture.operations()[begun..], ["PutSecretValue", "CreateSecret", "PutSecretValue"]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(2));
}

#[tokio::test]
async fn replicas_are_removed_before_the_secret_is_deleted() {
    let fixture = Fixture::new();
    let store = replicated(&fixture);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.delete_key(&id("alice")).await.unwrap().finality, Finality::Eventual { within: None });
    assert_eq!(fixture.operations()[1..], DELETE);
    let removed = fixture.bed.calls(fixture.ns.as_str()).remove(2).body;
    assert_eq!(removed["RemoveReplicaRegions"], json!(["eu-west-1", "us-west-2"]));
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
    store.create_key(&id("alice"), &key(2)).await.unwrap();
    assert!(store.erase_key(&id("alice")).await.unwrap().verified);
}

#[tokio::test]
async fn a_secret_without_replicas_costs_no_further_call() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    replicated(&fixture).delete_key(&id("alice")).await.unwrap();
    assert_eq!(fixture.operations()[1..], ["DescribeSecret", "DeleteSecret"]);
}

#[tokio::test]
async fn a_store_without_replica_regions_keeps_replicas_and_says_how_to_remove_them() {
    let fixture = Fixture::new();
    replicated(&fixture).create_key(&id("alice"), &key(1)).await.unwrap();
    let error = fixture.store().delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    assert!(cause(&error).contains("replica regions"), "{error:?}");
    assert_eq!(described(&fixture).await["ReplicationStatus"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn replicas_that_cannot_be_removed_keep_the_key_from_being_deleted() {
    let fixture = Fixture::new();
    let store = replicated(&fixture);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let denied = json!({"__type": "AccessDeniedException", "message": "no"});
    fixture.answer("RemoveRegionsFromReplication", 1, 400, denied);
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    assert!(cause(&error).contains("the key was not deleted"), "{error:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
}

/// AWS may show replicas for a while after their removal was accepted.
#[tokio::test]
async fn a_delete_waits_until_the_replicas_are_gone_but_not_for_ever() {
    let fixture = Fixture::new();
    let store = replicated(&fixture);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let left = json!([{"Region": "eu-west-1", "Status": "InSync"}]);
    let shown = json!({"Name": fixture.name("alice"), "ReplicationStatus": left});
    let begun = fixture.operations().len();
    fixture.answer("DescribeSecret", 1, 200, shown.clone());
    fixture.answer("RemoveRegionsFromReplication", 1, 200, json!({"ReplicationStatus": left}));
    fixture.answer("DescribeSecret", 99, 200, shown);
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.is_retryable()), (ErrorKind::Conflict, Effect::Unknown, true));
    assert!(!fixture.operations()[begun..].contains(&"DeleteSecret".to_owned()));
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));

    fixture.bed.faults(Duration::from_secs(5)).clear(&fixture.ns).await.unwrap();
    fixture.answer("RemoveRegionsFromReplication", 1, 200, json!({"ReplicationStatus": left}));
    let begun = fixture.operations().len();
    let described_without = json!({"Name": fixture.name("alice")});
    fixture.answer("DescribeSecret", 1, 200, json!({"Name": fixture.name("alice"), "ReplicationStatus": left}));
    fixture.answer("DescribeSecret", 1, 200, described_without);
    fixture.answer("DeleteSecret", 1, 200, json!({}));
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(
        fixture.operations()[begun..],
        ["DescribeSecret", "RemoveRegionsFromReplication", "DescribeSecret", "DeleteSecret"]
    );
}

#[tokio::test]
async fn a_delete_that_fails_after_the_replicas_are_gone_was_applied_in_part() {
    let fixture = Fixture::new();
    let store = replicated(&fixture);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    faults.inject(&fixture.ns, Some(Operation::Delete), Fault::Denied, 1).await.unwrap();
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
}

/// A description that lags shows no replicas, and AWS refuses the delete.
#[tokio::test]
async fn a_delete_that_is_refused_because_of_replicas_says_so() {
    let fixture = Fixture::new();
    let refusal = json!({"__type": "InvalidParameterException", "message": "You can't delete secret x that still has \
                          replica regions [eu-west-1]."});
    for (store, kind) in [(fixture.store(), ErrorKind::Unsupported), (replicated(&fixture), ErrorKind::Conflict)] {
        fixture.answer("DescribeSecret", 1, 200, json!({"Name": fixture.name("alice")}));
        fixture.answer("DeleteSecret", 1, 400, refusal.clone());
        let error = store.delete_key(&id("alice")).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied));
        assert!(cause(&error).contains("replicas in other regions"), "{error:?}");
    }
}

#[tokio::test]
async fn a_replica_is_not_deleted_from_its_own_region() {
    let fixture = Fixture::new();
    let replica = json!({"Name": fixture.name("alice"), "PrimaryRegion": "eu-west-1"});
    fixture.answer("DescribeSecret", 1, 200, replica);
    let error = replicated(&fixture).delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    assert!(cause(&error).contains("is a replica"), "{error:?}");
    assert_eq!(fixture.operations(), ["DescribeSecret"]);
}

#[tokio::test]
async fn a_kms_key_of_another_account_is_used_by_its_arn() {
    let fixture = Fixture::new();
    let store = store(&fixture, SecretsManagerConfig::new(FOREIGN_KMS_KEY_ARN, fixture.name("%s")).unwrap());
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    assert_eq!(fixture.bed.calls(fixture.ns.as_str()).remove(0).body["KmsKeyId"], FOREIGN_KMS_KEY_ARN);
}

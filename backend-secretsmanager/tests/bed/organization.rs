//! The requirements of organizations: tags, a description, replicas, and KMS keys of another
//! account.

use std::error::Error as StdError;
use std::time::Duration;

use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY};
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, Finality, KeyStore, KeyStoreExt, Operation};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::{Value, json};

use crate::{Space, id, key};

const DELETE: [&str; 3] = ["DescribeSecret", "RemoveRegionsFromReplication", "DeleteSecret"];

fn store(space: &Space, config: SecretsManagerConfig) -> SecretsManagerStore {
    let builder = SecretsManagerStore::builder(config).sdk_config(&space.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(300)).build().unwrap()
}

fn replicated_config(space: &Space) -> SecretsManagerConfig {
    let config = space.config().replica_region("eu-west-1", "alias/there");
    config.replica_region("us-west-2", "alias/aws/secretsmanager")
}

fn replicated(space: &Space) -> SecretsManagerStore {
    store(space, replicated_config(space))
}

/// The secret as the emulator has it.
async fn described(space: &Space) -> Value {
    let request = json!({"SecretId": space.name("alice")});
    space.bed.ask_emulator("secretsmanager.DescribeSecret", request).await.unwrap()
}

fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn a_create_sends_tags_description_and_replicas_in_its_one_call() {
    let space = Space::new();
    let config = replicated_config(&space).tag("owner", "privacy").description("user key");
    let store = store(&space, config);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(space.operations(), ["CreateSecret"]);
    let sent = space.bed.calls(space.ns.as_str()).remove(0).body;
    assert_eq!(sent["Tags"], json!([{"Key": "owner", "Value": "privacy"}]));
    assert_eq!(sent["Description"], "user key");
    let replicas = json!([
        {"Region": "eu-west-1", "KmsKeyId": "alias/there"},
        {"Region": "us-west-2", "KmsKeyId": "alias/aws/secretsmanager"},
    ]);
    assert_eq!((&sent["AddReplicaRegions"], &sent["KmsKeyId"]), (&replicas, &json!(KMS_KEY)));
    assert_eq!(described(&space).await["ReplicationStatus"].as_array().unwrap().len(), 2);

    store.put_key(&id("alice"), &key(2)).await.unwrap();
    assert_eq!(space.operations()[1..], ["PutSecretValue"]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(2));
    assert_eq!(described(&space).await["Tags"], json!([{"Key": "owner", "Value": "privacy"}]));
}

#[tokio::test]
async fn without_such_settings_nothing_of_them_is_sent() {
    let space = Space::new();
    space.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let sent = space.bed.calls(space.ns.as_str()).remove(0).body;
    assert!(sent["Tags"].is_null() && sent["Description"].is_null() && sent["AddReplicaRegions"].is_null(), "{sent}");
}

#[tokio::test]
async fn a_policy_that_demands_tags_lets_a_store_with_tags_create_and_overwrite() {
    let space = Space::new();
    space.bed.require_tags(space.ns.as_str(), &["owner"]);
    for error in [
        space.store().create_key(&id("alice"), &key(1)).await.unwrap_err(),
        space.store().put_key(&id("alice"), &key(1)).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    }
    let begun = space.operations().len();
    let store = store(&space, space.config().tag("owner", "privacy"));
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    store.put_key(&id("alice"), &key(2)).await.unwrap();
    assert_eq!(space.operations()[begun..], ["PutSecretValue", "CreateSecret", "PutSecretValue"]);
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(2));
}

#[tokio::test]
async fn replicas_are_removed_before_the_secret_is_deleted() {
    let space = Space::new();
    let store = replicated(&space);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.delete_key(&id("alice")).await.unwrap().finality, Finality::Eventual { within: None });
    assert_eq!(space.operations()[1..], DELETE);
    let removed = space.bed.calls(space.ns.as_str()).remove(2).body;
    assert_eq!(removed["RemoveReplicaRegions"], json!(["eu-west-1", "us-west-2"]));
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
    store.create_key(&id("alice"), &key(2)).await.unwrap();
    assert!(store.erase_key(&id("alice")).await.unwrap().verified);
}

#[tokio::test]
async fn a_secret_without_replicas_costs_no_further_call() {
    let space = Space::new();
    space.store().create_key(&id("alice"), &key(1)).await.unwrap();
    replicated(&space).delete_key(&id("alice")).await.unwrap();
    assert_eq!(space.operations()[1..], ["DescribeSecret", "DeleteSecret"]);
}

#[tokio::test]
async fn a_store_that_was_told_of_no_replicas_leaves_them_and_says_how_to_remove_them() {
    let space = Space::new();
    replicated(&space).create_key(&id("alice"), &key(1)).await.unwrap();
    let error = space.store().delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    assert!(cause(&error).contains("replica regions"), "{error:?}");
    assert_eq!(described(&space).await["ReplicationStatus"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn replicas_that_cannot_be_removed_keep_the_key_from_being_deleted() {
    let space = Space::new();
    let store = replicated(&space);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let denied = json!({"__type": "AccessDeniedException", "message": "no"});
    space.answer("RemoveRegionsFromReplication", 1, 400, denied);
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    assert!(cause(&error).contains("the key was not deleted"), "{error:?}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
}

/// AWS may show replicas for a while after their removal was accepted.
#[tokio::test]
async fn a_delete_waits_until_the_replicas_are_gone_but_not_for_ever() {
    let space = Space::new();
    let store = replicated(&space);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let left = json!([{"Region": "eu-west-1", "Status": "InSync"}]);
    let shown = json!({"Name": space.name("alice"), "ReplicationStatus": left});
    let begun = space.operations().len();
    space.answer("DescribeSecret", 1, 200, shown.clone());
    space.answer("RemoveRegionsFromReplication", 1, 200, json!({"ReplicationStatus": left}));
    space.answer("DescribeSecret", 99, 200, shown);
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect(), error.is_retryable()), (ErrorKind::Conflict, Effect::Unknown, true));
    assert!(!space.operations()[begun..].contains(&"DeleteSecret".to_owned()));
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));

    space.bed.faults(Duration::from_secs(5)).clear(&space.ns).await.unwrap();
    space.answer("RemoveRegionsFromReplication", 1, 200, json!({"ReplicationStatus": left}));
    let begun = space.operations().len();
    let described_without = json!({"Name": space.name("alice")});
    space.answer("DescribeSecret", 1, 200, json!({"Name": space.name("alice"), "ReplicationStatus": left}));
    space.answer("DescribeSecret", 1, 200, described_without);
    space.answer("DeleteSecret", 1, 200, json!({}));
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(
        space.operations()[begun..],
        ["DescribeSecret", "RemoveRegionsFromReplication", "DescribeSecret", "DeleteSecret"]
    );
}

#[tokio::test]
async fn a_delete_that_fails_after_the_replicas_are_gone_was_applied_in_part() {
    let space = Space::new();
    let store = replicated(&space);
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let faults = space.bed.faults(Duration::from_secs(5));
    faults.inject(&space.ns, Some(Operation::Delete), Fault::Denied, 1).await.unwrap();
    let error = store.delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
}

/// A description that lags shows no replicas, and AWS refuses the delete.
#[tokio::test]
async fn a_delete_that_is_refused_because_of_replicas_says_so() {
    let space = Space::new();
    let refusal = json!({"__type": "InvalidParameterException", "message": "You can't delete secret x that still has \
                          replica regions [eu-west-1]."});
    for (store, kind) in [(space.store(), ErrorKind::Unsupported), (replicated(&space), ErrorKind::Conflict)] {
        space.answer("DescribeSecret", 1, 200, json!({"Name": space.name("alice")}));
        space.answer("DeleteSecret", 1, 400, refusal.clone());
        let error = store.delete_key(&id("alice")).await.unwrap_err();
        assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied));
        assert!(cause(&error).contains("replicas in other regions"), "{error:?}");
    }
}

#[tokio::test]
async fn a_replica_is_not_deleted_from_its_own_region() {
    let space = Space::new();
    let replica = json!({"Name": space.name("alice"), "PrimaryRegion": "eu-west-1"});
    space.answer("DescribeSecret", 1, 200, replica);
    let error = replicated(&space).delete_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unsupported, Effect::NotApplied));
    assert!(cause(&error).contains("is a replica"), "{error:?}");
    assert_eq!(space.operations(), ["DescribeSecret"]);
}

#[tokio::test]
async fn a_kms_key_of_another_account_is_used_by_its_arn() {
    let space = Space::new();
    let store = store(&space, SecretsManagerConfig::new(FOREIGN_KMS_KEY_ARN, space.name("%s")).unwrap());
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    assert_eq!(space.bed.calls(space.ns.as_str()).remove(0).body["KmsKeyId"], FOREIGN_KMS_KEY_ARN);
}

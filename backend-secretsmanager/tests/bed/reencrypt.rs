//! Keys that move to another KMS key.

use std::time::Duration;

use keystead_aws::{ReencryptOptions, ReencryptReport, reencrypt};
use keystead_aws_testbed::FOREIGN_KMS_KEY_ARN;
use keystead_core::{Effect, ErrorKind, KeyStore, KeyStoreExt};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::json;

use crate::{Space, id, key};

/// A store of the same keys under another KMS key.
fn moved(space: &Space) -> SecretsManagerStore {
    let config = SecretsManagerConfig::new(FOREIGN_KMS_KEY_ARN, space.name("%s")).unwrap();
    let builder = SecretsManagerStore::builder(config).sdk_config(&space.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(200)).build().unwrap()
}

async fn run(store: &SecretsManagerStore) -> ReencryptReport {
    reencrypt(store, ReencryptOptions::new().rate(1e6), |_| {}).await.unwrap()
}

#[tokio::test]
async fn every_secret_gets_the_new_kms_key_and_a_second_run_only_lists() {
    let space = Space::new();
    for index in 0..20 {
        space.store().create_key(&id(&format!("user-{index}")), &key(index)).await.unwrap();
    }
    let store = moved(&space);
    let report = run(&store).await;
    assert!(report.is_complete() && (report.current, report.reencrypted) == (0, 20), "{report:?}");
    for index in 0..20 {
        assert_eq!(store.get_key(&id(&format!("user-{index}"))).await.unwrap(), key(index));
    }
    let begun = space.operations().len();
    let report = run(&store).await;
    assert_eq!((report.current, report.reencrypted, report.failed), (20, 0, 0));
    assert!(space.operations()[begun..].iter().all(|operation| operation == "ListSecrets"));
    assert!(!space.operations().contains(&"PutSecretValue".to_owned()));
}

#[tokio::test]
async fn one_key_is_an_update_a_description_and_a_read() {
    let space = Space::new();
    space.store().create_key(&id("alice"), &key(1)).await.unwrap();
    run(&moved(&space)).await;
    assert_eq!(space.operations()[1..], ["ListSecrets", "UpdateSecret", "DescribeSecret", "GetSecretValue"]);
    assert_eq!(space.bed.calls(space.ns.as_str())[2].body["KmsKeyId"], FOREIGN_KMS_KEY_ARN);
}

#[tokio::test]
async fn a_secret_that_was_deleted_since_it_was_listed_stays_deleted() {
    let space = Space::new();
    let listed = json!({"SecretList": [{"Name": space.name("alice"), "KmsKeyId": "alias/old"}]});
    space.answer("ListSecrets", 2, 200, listed);
    let store = moved(&space);
    assert_eq!(run(&store).await.gone, 1);
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);

    space.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let recoverable = space.config().recovery_window(7).unwrap();
    let recoverable = SecretsManagerStore::builder(recoverable).sdk_config(&space.bed.sdk_config()).build().unwrap();
    recoverable.delete_key(&id("alice")).await.unwrap();
    assert_eq!(run(&store).await.gone, 1);
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::PendingDeletion);
}

#[tokio::test]
async fn a_secret_that_does_not_show_its_new_kms_key_is_not_done() {
    let space = Space::new();
    space.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let shown = json!({"Name": space.name("alice"), "KmsKeyId": "alias/old"});
    space.answer("DescribeSecret", 99, 200, shown);
    let report = run(&moved(&space)).await;
    let (_, error) = &report.failures[0];
    assert_eq!((report.reencrypted, error.kind(), error.effect()), (0, ErrorKind::Conflict, Effect::Unknown));
}

#[tokio::test]
async fn a_refused_update_is_a_failure_and_the_others_go_on() {
    let space = Space::new();
    for name in ["alice", "bob"] {
        space.store().create_key(&id(name), &key(1)).await.unwrap();
    }
    space.answer("UpdateSecret", 1, 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let report = run(&moved(&space)).await;
    assert_eq!((report.reencrypted, report.failed), (1, 1));
    let (_, error) = &report.failures[0];
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
}

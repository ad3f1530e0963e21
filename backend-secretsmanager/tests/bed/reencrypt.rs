//! Keys that move to another KMS key.

use std::time::Duration;

use keystead_aws::{ReencryptOptions, ReencryptReport, reencrypt};
use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY, KMS_KEY_ARN};
use keystead_core::{Effect, ErrorKind, KeyStore, KeyStoreExt};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::json;

use crate::{Fixture, id, key};

/// Returns a store of the same keys under another KMS key.
fn moved(fixture: &Fixture) -> SecretsManagerStore {
    let config = SecretsManagerConfig::new(FOREIGN_KMS_KEY_ARN, fixture.name("%s")).unwrap();
    let builder = SecretsManagerStore::builder(config).sdk_config(&fixture.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(200)).build().unwrap()
}

async fn run(store: &SecretsManagerStore) -> ReencryptReport {
    reencrypt(store, ReencryptOptions::new().rate(1e6), |_| {}).await.unwrap()
}

#[tokio::test]
async fn every_secret_gets_the_new_kms_key_and_a_second_run_only_looks() {
    let fixture = Fixture::new();
    for index in 0..20 {
        fixture.store().create_key(&id(&format!("user-{index}")), &key(index)).await.unwrap();
    }
    let store = moved(&fixture);
    let report = run(&store).await;
    assert!(report.is_complete() && (report.current, report.reencrypted) == (0, 20), "{report:?}");
    for index in 0..20 {
        assert_eq!(store.get_key(&id(&format!("user-{index}"))).await.unwrap(), key(index));
    }
    let begun = fixture.operations().len();
    let report = run(&store).await;
    assert_eq!((report.current, report.reencrypted, report.failed), (20, 0, 0));
    assert!(fixture.operations()[begun..].iter().all(|operation| operation.starts_with("List")));
    assert_eq!(fixture.operations().len(), begun + 21);
    assert!(!fixture.operations().contains(&"PutSecretValue".to_owned()));
}

#[tokio::test]
async fn one_key_is_an_update_a_description_its_versions_and_a_read() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    run(&moved(&fixture)).await;
    let expected = ["ListSecrets", "UpdateSecret", "DescribeSecret", "ListSecretVersionIds", "GetSecretValue"];
    assert_eq!(fixture.operations()[1..], expected);
    assert_eq!(fixture.bed.calls(fixture.ns.as_str())[2].body["KmsKeyId"], FOREIGN_KMS_KEY_ARN);
}

#[tokio::test]
async fn a_secret_that_was_deleted_since_it_was_listed_stays_deleted() {
    let fixture = Fixture::new();
    let listed = json!({"SecretList": [{"Name": fixture.name("alice"), "KmsKeyId": "alias/old"}]});
    fixture.answer("ListSecrets", 2, 200, listed);
    let store = moved(&fixture);
    assert_eq!(run(&store).await.gone, 1);
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);

    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let recoverable = fixture.config().recovery_window(7);
    let recoverable = SecretsManagerStore::builder(recoverable).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    recoverable.delete_key(&id("alice")).await.unwrap();
    assert_eq!(run(&store).await.gone, 1);
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::PendingDeletion);
}

#[tokio::test]
async fn a_secret_that_does_not_show_its_new_kms_key_is_not_done() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let shown = json!({"Name": fixture.name("alice"), "KmsKeyId": "alias/old"});
    fixture.answer("DescribeSecret", 99, 200, shown);
    let report = run(&moved(&fixture)).await;
    let (_, error) = &report.failures[0];
    assert_eq!((report.reencrypted, error.kind(), error.effect()), (0, ErrorKind::Conflict, Effect::Unknown));
}

#[tokio::test]
async fn a_refused_update_is_a_failure_and_the_others_go_on() {
    let fixture = Fixture::new();
    for name in ["alice", "bob"] {
        fixture.store().create_key(&id(name), &key(1)).await.unwrap();
    }
    fixture.answer("UpdateSecret", 1, 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let report = run(&moved(&fixture)).await;
    assert_eq!((report.reencrypted, report.failed), (1, 1));
    let (_, error) = &report.failures[0];
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
}

/// Returns a version with a label and these KMS keys.
fn version(label: &str, keys: &[&str]) -> serde_json::Value {
    json!({"VersionId": "v", "VersionStages": [label], "KmsKeyIds": keys})
}

/// If AWS may not encrypt under the new KMS key, it gives the secret that key and leaves the
/// versions as they are. Neither the first run nor the next one takes that for done.
#[tokio::test]
async fn a_secret_whose_versions_are_not_shown_under_the_new_kms_key_is_not_done() {
    let current = || version("AWSCURRENT", &[FOREIGN_KMS_KEY_ARN]);
    for (versions, kind) in [
        (json!([version("AWSCURRENT", &[KMS_KEY])]), ErrorKind::PermissionDenied),
        (json!([version("AWSCURRENT", &[KMS_KEY_ARN])]), ErrorKind::PermissionDenied),
        (json!([version("AWSCURRENT", &["DefaultEncryptionKey"])]), ErrorKind::PermissionDenied),
        (json!([current(), version("AWSPREVIOUS", &[KMS_KEY_ARN])]), ErrorKind::PermissionDenied),
        (json!([current(), version("AWSPREVIOUS", &[FOREIGN_KMS_KEY_ARN, KMS_KEY_ARN])]), ErrorKind::PermissionDenied),
        (json!([current(), version("AWSPREVIOUS", &[])]), ErrorKind::Conflict),
        (json!([current(), {"VersionId": "v", "VersionStages": ["AWSPREVIOUS"]}]), ErrorKind::Conflict),
        (json!([]), ErrorKind::Conflict),
    ] {
        let fixture = Fixture::new();
        fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
        fixture.answer("ListSecretVersionIds", u32::MAX, 200, json!({"Versions": versions}));
        let store = moved(&fixture);
        for _ in 0..2 {
            let report = run(&store).await;
            assert_eq!((report.current, report.reencrypted, report.failed), (0, 0, 1), "{versions} {report:?}");
            let (_, error) = &report.failures[0];
            assert_eq!((error.kind(), error.effect()), (kind, Effect::Unknown), "{versions}");
            assert!(std::error::Error::source(error).unwrap().to_string().contains("keep the old KMS key"));
        }
    }
}

/// An alias cannot be compared with the key id that a version may show.
#[tokio::test]
async fn a_secret_whose_versions_show_a_key_id_for_an_alias_is_not_done() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let versions = json!([version("AWSCURRENT", &[KMS_KEY_ARN])]);
    fixture.answer("ListSecretVersionIds", u32::MAX, 200, json!({"Versions": versions}));
    let report = run(&fixture.store()).await;
    let (_, error) = &report.failures[0];
    assert_eq!((report.current, error.kind()), (0, ErrorKind::Config), "{report:?}");
    assert!(std::error::Error::source(error).unwrap().to_string().contains("ARN of the key"));
}

#[tokio::test]
async fn a_version_without_a_label_may_stay_under_the_old_kms_key_and_all_pages_are_looked_at() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let old = json!({"VersionId": "v", "VersionStages": ["mine"], "KmsKeyIds": [KMS_KEY_ARN]});
    let first = json!({"Versions": [old, version("AWSCURRENT", &[FOREIGN_KMS_KEY_ARN])]});
    fixture.answer("ListSecretVersionIds", 1, 200, first.clone());
    let store = moved(&fixture);
    assert_eq!(run(&store).await.reencrypted, 1);

    let mut first = first;
    first["NextToken"] = json!("more");
    fixture.answer("ListSecretVersionIds", 1, 200, first);
    fixture.answer("ListSecretVersionIds", 1, 200, json!({"Versions": [version("AWSPREVIOUS", &[KMS_KEY_ARN])]}));
    let report = run(&store).await;
    assert_eq!((report.current, report.reencrypted), (0, 1), "{report:?}");
}

#[tokio::test]
async fn a_run_that_may_not_list_versions_says_so() {
    let fixture = Fixture::new();
    fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
    let denied = json!({"__type": "AccessDeniedException", "message": "no"});
    fixture.answer("ListSecretVersionIds", u32::MAX, 400, denied);
    let report = run(&moved(&fixture)).await;
    let (_, error) = &report.failures[0];
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
}

#[tokio::test]
async fn a_secret_that_is_not_visible_at_first_is_not_gone() {
    for operation in ["UpdateSecret", "DescribeSecret", "ListSecretVersionIds"] {
        let fixture = Fixture::new();
        fixture.store().create_key(&id("alice"), &key(1)).await.unwrap();
        fixture.answer(operation, 1, 400, json!({"__type": "ResourceNotFoundException", "message": "no"}));
        let report = run(&moved(&fixture)).await;
        assert_eq!((report.reencrypted, report.gone), (1, 0), "{operation}");
    }
}

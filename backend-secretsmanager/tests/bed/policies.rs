//! The IAM policies in the README.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use keystead_aws_testbed::statements_in;
use keystead_core::{KeyId, KeyStore, KeyStoreExt};

use crate::{Fixture, id, key};

const README: &str = include_str!("../../README.md");

/// The actions of KMS that Secrets Manager performs in the caller's name.
const KMS: [&str; 2] = ["kms:Decrypt", "kms:GenerateDataKey"];

/// The actions that can be granted for all secrets only.
const ON_EVERYTHING: [&str; 2] = ["secretsmanager:BatchGetSecretValue", "secretsmanager:ListSecrets"];

const SECRETS: &str = "arn:aws:secretsmanager:REGION:ACCOUNT:secret:/app/user-keys/*";

/// Calls every method of the store.
async fn use_everything(fixture: &Fixture) {
    let store = fixture.store();
    let ids = [id("alice"), id("bob")];
    store.create_key(&ids[0], &key(1)).await.unwrap();
    store.put_key(&ids[0], &key(2)).await.unwrap();
    store.get_key(&ids[0]).await.unwrap();
    store.get_or_create_key(&ids[1]).await.unwrap();
    assert!(store.get_keys(&ids).await.iter().all(Result::is_ok));
    assert_eq!(store.list_keys().try_collect::<Vec<KeyId>>().await.unwrap().len(), 2);
    store.delete_key(&ids[0]).await.unwrap();
    store.erase_key(&ids[0]).await.unwrap();
    store.delete_keys(&ids).await;
    store.check().await.unwrap();
    store.identify().await.unwrap();
}

#[tokio::test]
async fn the_policies_allow_what_the_store_calls_and_no_more() {
    let fixture = Fixture::new();
    use_everything(&fixture).await;
    let called: BTreeSet<String> = fixture.operations().iter().map(|name| format!("secretsmanager:{name}")).collect();
    let allowed: BTreeSet<String> = statements_in(README).into_iter().flat_map(|statement| statement.actions).collect();
    assert_eq!(allowed, called.into_iter().chain(KMS.map(str::to_owned)).collect());
}

#[test]
fn kms_is_allowed_for_these_secrets_only() {
    for statement in statements_in(README) {
        let is_all = |known: &[&str]| statement.actions.iter().all(|action| known.contains(&action.as_str()));
        let is_any = |known: &[&str]| statement.actions.iter().any(|action| known.contains(&action.as_str()));
        assert_eq!((is_all(&KMS), is_all(&ON_EVERYTHING)), (is_any(&KMS), is_any(&ON_EVERYTHING)), "{statement:?}");
        if is_any(&ON_EVERYTHING) {
            assert_eq!(statement.resources, ["*".to_owned()].into());
            continue;
        }
        if !is_any(&KMS) {
            assert_eq!(statement.resources, [SECRETS.to_owned()].into());
            continue;
        }
        assert_eq!(statement.resources, ["arn:aws:kms:REGION:ACCOUNT:key/KEY-ID".to_owned()].into());
        let service = statement.values_of("StringEquals", "kms:ViaService");
        assert_eq!(service, ["secretsmanager.REGION.amazonaws.com".to_owned()].into());
        let mut context = statement.values_of("StringLike", "kms:EncryptionContext:SecretARN");
        assert!(context.remove(SECRETS), "{statement:?}");
        // Secrets Manager sends this when it tests the KMS key of a new secret.
        context.remove("RequestToValidateKeyAccess");
        assert!(context.is_empty(), "{statement:?}");
    }
}

#[test]
fn each_action_is_justified() {
    let prose: String = README.split("```").step_by(2).collect();
    for action in statements_in(README).iter().flat_map(|statement| &statement.actions) {
        let row = prose.lines().find(|line| line.starts_with(&format!("| `{action}` |")));
        assert!(row.is_some_and(|row| row.len() > action.len() + 20), "{action} is not justified");
    }
}

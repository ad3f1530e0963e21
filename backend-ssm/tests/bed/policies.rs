//! The IAM policies in the README.

use std::collections::BTreeSet;

use futures_util::TryStreamExt;
use keystead_aws_testbed::statements_in;
use keystead_core::{KeyId, KeyStore, KeyStoreExt};

use crate::{Fixture, id, key};

const README: &str = include_str!("../../README.md");

/// The actions of KMS that Parameter Store performs in the caller's name.
const KMS: [&str; 3] = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"];

const PARAMETERS: &str = "arn:aws:ssm:REGION:ACCOUNT:parameter/app/user-keys/*";

/// Calls every method of the store.
async fn use_everything(fixture: &Fixture) {
    let store = fixture.store();
    let ids = [id("alice"), id("bob")];
    store.create_key(&ids[0], &key([1; 32])).await.unwrap();
    store.put_key(&ids[0], &key([2; 32])).await.unwrap();
    store.get_key(&ids[0]).await.unwrap();
    store.get_or_create_key(&ids[1]).await.unwrap();
    assert!(store.get_keys(&ids).await.iter().all(Result::is_ok));
    assert_eq!(store.list_keys().try_collect::<Vec<KeyId>>().await.unwrap().len(), 2);
    assert_eq!(store.count_keys().await.unwrap(), 2);
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
    let called: BTreeSet<String> = fixture.operations().iter().map(|name| format!("ssm:{name}")).collect();
    let allowed: BTreeSet<String> = statements_in(README).into_iter().flat_map(|statement| statement.actions).collect();
    assert_eq!(allowed, called.into_iter().chain(KMS.map(str::to_owned)).collect());
}

#[test]
fn kms_is_allowed_for_these_parameters_only() {
    for statement in statements_in(README) {
        let is_kms = statement.actions.iter().any(|action| KMS.contains(&action.as_str()));
        if is_kms {
            assert!(statement.actions.iter().all(|action| KMS.contains(&action.as_str())), "{statement:?}");
            assert_eq!(statement.resources, ["arn:aws:kms:REGION:ACCOUNT:key/KEY-ID".to_owned()].into());
            let service = statement.values_of("StringEquals", "kms:ViaService");
            assert_eq!(service, ["ssm.REGION.amazonaws.com".to_owned()].into());
            let context = statement.values_of("StringLike", "kms:EncryptionContext:PARAMETER_ARN");
            assert_eq!(context, [PARAMETERS.to_owned()].into());
        } else if statement.actions.contains("ssm:DescribeParameters") {
            assert_eq!((statement.actions.len(), statement.resources), (1, ["*".to_owned()].into()));
        } else {
            assert!(statement.resources.iter().all(|arn| PARAMETERS.starts_with(arn.as_str())), "{statement:?}");
        }
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

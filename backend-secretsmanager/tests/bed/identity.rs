//! The identity of a store's data, and the calls that it takes to learn it.

use futures_util::StreamExt;
use keystead_core::{IdentityMatch, KeyStore, KeyStoreExt};
use keystead_secretsmanager::SecretsManagerStore;

use crate::{Fixture, id, key};

/// The account of the emulator.
const ACCOUNT: &str = "123456789012";

fn account(store: &SecretsManagerStore) -> Option<String> {
    store.info().identity().account().map(str::to_owned)
}

#[tokio::test]
async fn identify_tells_region_partition_and_account() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert_eq!(account(&store), None);
    let identity = store.identify().await.unwrap();
    let known = (identity.partition(), identity.region(), identity.account());
    assert_eq!(known, (Some("aws"), Some("us-east-1"), Some(ACCOUNT)));
    assert!(identity.is_fully_known() && fixture.operations().is_empty());
    assert_eq!(fixture.store().identify().await.unwrap().compare(&identity), IdentityMatch::Same);
    assert_eq!(Fixture::new().store().identify().await.unwrap().compare(&identity), IdentityMatch::Different);
}

#[tokio::test]
async fn every_answer_that_holds_an_arn_tells_the_account_without_a_further_call() {
    let fixture = Fixture::new();
    for operation in
        ["CreateSecret", "PutSecretValue", "GetSecretValue", "BatchGetSecretValue", "ListSecrets", "DescribeSecret"]
    {
        let begun = fixture.operations().len();
        let store = fixture.store();
        match operation {
            "CreateSecret" => store.create_key(&id("alice"), &key(1)).await.unwrap(),
            "PutSecretValue" => store.put_key(&id("alice"), &key(2)).await.unwrap(),
            "GetSecretValue" => drop(store.get_key(&id("alice")).await.unwrap()),
            "BatchGetSecretValue" => drop(store.get_keys(&[id("alice")]).await),
            "ListSecrets" => drop(store.list_keys().next().await.unwrap().unwrap()),
            _ => {
                store.delete_key(&id("alice")).await.unwrap();
                assert_eq!(fixture.operations()[begun..], ["DescribeSecret", "DeleteSecret"]);
                assert_eq!(account(&store).as_deref(), Some(ACCOUNT));
                return;
            }
        }
        assert_eq!(fixture.operations()[begun..], [operation]);
        assert_eq!(account(&store).as_deref(), Some(ACCOUNT), "{operation}");
    }
}

//! Flat paths of other software, which are only read.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use keystead_aws_testbed::KMS_KEY;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result};
use keystead_ssm::{SsmConfig, SsmStore};
use serde_json::json;

use crate::{Fixture, id, key};

fn store(fixture: &Fixture, path: &str) -> SsmStore {
    let config = SsmConfig::legacy(path).unwrap();
    SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap()
}

/// Writes a parameter past the proxy, as other software would. Its value is "ABC" in base64.
async fn plant(fixture: &Fixture, name: &str) {
    let parameter = json!({"Name": name, "Type": "SecureString", "KeyId": KMS_KEY, "Value": "QUJD"});
    fixture.bed.ask_emulator("AmazonSSM.PutParameter", parameter).await.unwrap();
}

async fn listed(store: &SsmStore) -> HashSet<KeyId> {
    store.list_keys().try_collect().await.unwrap()
}

#[tokio::test]
async fn keys_under_flat_paths_are_listed_and_read() {
    for (flat, deep) in [("/NS-%s", "/NS-deep/alice"), ("NS-%s", "/NS/alice"), ("/NS%s.key", "/NS/alice.key")] {
        let fixture = Fixture::new();
        let path = flat.replace("NS", fixture.ns.as_str());
        let deep = deep.replace("NS", fixture.ns.as_str());
        for segment in ["alice", "67e55044-10b1-426f-9247-bb680e5fe0c8", "--bob-40example.com"] {
            plant(&fixture, &path.replace("%s", segment)).await;
        }
        plant(&fixture, &deep).await;
        let store = store(&fixture, &path);
        let ids = ["alice", "67e55044-10b1-426f-9247-bb680e5fe0c8", "bob@example.com"].map(id);
        assert_eq!(listed(&store).await, HashSet::from(ids.clone()), "{flat}");
        for id in &ids {
            assert_eq!(store.get_key(id).await.unwrap(), key(*b"ABC"), "{flat}");
        }
        assert!(store.get_keys(&ids).await.iter().all(Result::is_ok), "{flat}");
        assert_eq!(store.find_key(&id("nobody")).await.unwrap(), None);
        store.check().await.unwrap();
    }
}

#[tokio::test]
async fn a_path_that_is_the_id_alone_works_too() {
    let fixture = Fixture::new();
    let user = format!("{}-alice", fixture.ns);
    plant(&fixture, &format!("/{user}")).await;
    plant(&fixture, &format!("/{user}/deeper")).await;
    let store = store(&fixture, "/%s");
    assert_eq!(store.get_key(&id(&user)).await.unwrap(), key(*b"ABC"));
    let mut ids = listed(&store).await;
    ids.retain(|id| id.as_str().contains(fixture.ns.as_str()));
    assert_eq!(ids, HashSet::from([id(&user)]));
}

#[tokio::test]
async fn a_listing_asks_for_fifty_at_a_time_and_for_no_value() {
    let fixture = Fixture::new();
    let path = format!("/{}-%s", fixture.ns);
    for index in 0..51 {
        plant(&fixture, &path.replace("%s", &format!("user-{index}"))).await;
    }
    assert_eq!(listed(&store(&fixture, &path)).await.len(), 51);
    let mut calls = fixture.calls();
    calls.retain(|call| call.operation == "DescribeParameters");
    assert!(calls.len() >= 2 && calls.iter().all(|call| call.body["MaxResults"] == 50), "{calls:?}");
    assert_eq!(calls.len(), fixture.calls().len());
}

#[tokio::test]
async fn every_write_is_refused_before_any_call() {
    let fixture = Fixture::new();
    let store = store(&fixture, &format!("/{}-%s", fixture.ns));
    let alice = id("alice");
    let candidate = key([1; 32]);
    let refusals = [
        (Operation::Put, store.put_key(&alice, &candidate).await.unwrap_err()),
        (Operation::Create, store.create_key(&alice, &candidate).await.unwrap_err()),
        (Operation::Create, store.get_or_create(&alice, &candidate).await.unwrap_err()),
        (Operation::Create, store.create_keys(&[(alice.clone(), candidate.clone())]).await.remove(0).unwrap_err()),
        (Operation::Delete, store.delete_key(&alice).await.unwrap_err()),
        (Operation::Delete, store.delete_keys(std::slice::from_ref(&alice)).await.remove(0).unwrap_err()),
        (Operation::Erase, store.erase_key(&alice).await.unwrap_err()),
    ];
    for (operation, refusal) in refusals {
        assert_eq!((refusal.kind(), refusal.operation()), (ErrorKind::Unsupported, operation));
    }
    assert!(fixture.calls().is_empty(), "{:?}", fixture.operations());
}

/// Parameter Store refuses a call that names a reserved parameter.
#[tokio::test]
async fn an_id_with_a_reserved_name_has_no_key_and_affects_no_other_in_a_batch() {
    let fixture = Fixture::new();
    let user = format!("{}-alice", fixture.ns);
    plant(&fixture, &format!("/{user}")).await;
    let store = store(&fixture, "/%s");
    for reserved in ["aws", "Awsome", "ssm-user"] {
        assert_eq!(store.get_key(&id(reserved)).await.unwrap_err().kind(), ErrorKind::NotFound, "{reserved}");
    }
    let outcomes = store.get_keys(&[id("awsome"), id(&user), id("awsome")]).await;
    assert_eq!(outcomes[1].as_ref().unwrap(), &key(*b"ABC"));
    for outcome in [&outcomes[0], &outcomes[2]] {
        assert_eq!(outcome.as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    }
    assert_eq!(store.get_keys(&[id("awsome")]).await.remove(0).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fixture.operations(), ["GetParameters"]);
}

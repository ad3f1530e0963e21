//! The number and the parameters of calls.

use std::collections::HashSet;

use keystead_aws_testbed::KMS_KEY;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};
use serde_json::json;

use crate::{Fixture, id, key};

#[tokio::test]
async fn get_put_create_and_delete_are_one_call_each() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    store.get_key(&id("alice")).await.unwrap();
    store.delete_key(&id("alice")).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(
        fixture.operations(),
        ["PutParameter", "PutParameter", "GetParameter", "DeleteParameter", "GetParameter"]
    );
}

#[tokio::test]
async fn a_thousand_keys_are_a_hundred_calls() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let ids: Vec<KeyId> = (0..1000).map(|number| id(&format!("user-{number}"))).collect();
    store.put_key(&ids[7], &key([7; 32])).await.unwrap();
    let answers = store.get_keys(&ids).await;
    assert_eq!(answers[7].as_ref().unwrap(), &key([7; 32]));
    let missing = answers.iter().filter(|answer| matches!(answer, Err(e) if e.kind() == ErrorKind::NotFound));
    assert_eq!(missing.count(), 999);
    let calls: Vec<_> = fixture.calls().into_iter().filter(|call| call.operation == "GetParameters").collect();
    assert_eq!(calls.len(), 100);
    let names: Vec<_> = calls.iter().flat_map(|call| call.body["Names"].as_array().unwrap()).collect();
    assert_eq!((names.len(), names.iter().collect::<HashSet<_>>().len()), (1000, 1000));
    store.delete_keys(&ids).await;
    assert_eq!(fixture.operations().iter().filter(|name| *name == "DeleteParameters").count(), 100);
}

#[tokio::test]
async fn every_put_names_the_kms_key_and_the_tier() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    store.get_or_create_key(&id("bob")).await.unwrap();
    let puts: Vec<_> = fixture.calls().into_iter().filter(|call| call.operation == "PutParameter").collect();
    assert_eq!(puts.len(), 3);
    for put in puts {
        assert_eq!((&put.body["KeyId"], &put.body["Tier"]), (&json!(KMS_KEY), &json!("Standard")));
    }
}

//! Counting keys with `DescribeParameters`.

use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, Operation};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

#[tokio::test]
async fn fifty_keys_are_counted_in_a_call_and_other_entries_are_not() {
    let fixture = Fixture::new();
    let name = |segment: &str| json!({"Name": fixture.path().replace("%s", segment)});
    let first: Vec<Value> = (0..50).map(|number| name(&format!("user-{number}"))).collect();
    fixture.answer("DescribeParameters", 1, 200, json!({"Parameters": first, "NextToken": "1"}));
    fixture.answer("DescribeParameters", 1, 200, json!({"Parameters": [name("--"), name("a/b"), name("user-50")]}));
    assert_eq!(fixture.store().count_keys().await.unwrap(), 51);
    assert_eq!(fixture.operations(), ["DescribeParameters", "DescribeParameters"]);
    let body = &fixture.calls()[1].body;
    assert_eq!((&body["MaxResults"], &body["NextToken"]), (&json!(50), &json!("1")));
    let filter = json!([{"Key": "Name", "Option": "BeginsWith", "Values": [fixture.path().replace("%s", "")]}]);
    assert_eq!(body["ParameterFilters"], filter);
}

#[tokio::test]
async fn the_count_is_that_of_the_stores_own_keys() {
    let fixture = Fixture::new();
    let store = fixture.store();
    assert_eq!(store.count_keys().await.unwrap(), 0);
    for text in ["alice@example.com", "bob"] {
        store.create_key(&id(text), &key([1; 32])).await.unwrap();
    }
    Fixture::new().store().create_key(&id("carol"), &key([1; 32])).await.unwrap();
    assert_eq!(store.count_keys().await.unwrap(), 2);
    store.delete_key(&id("bob")).await.unwrap();
    assert_eq!(store.count_keys().await.unwrap(), 1);
}

#[tokio::test]
async fn a_count_that_is_denied_or_endless_is_an_error() {
    let fixture = Fixture::new();
    let denied = json!({"__type": "AccessDeniedException", "message": "not authorized"});
    fixture.answer("DescribeParameters", 1, 400, denied);
    let error = fixture.store().count_keys().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::PermissionDenied, Operation::List));
    fixture.answer("DescribeParameters", 9, 200, json!({"Parameters": [], "NextToken": "again"}));
    assert_eq!(fixture.store().count_keys().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

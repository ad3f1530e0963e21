//! Answers that Parameter Store may give and the emulator does not.

use std::time::{Duration, Instant};

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future::ProvideCredentials as ProvideCredentialsFuture;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use futures_util::TryStreamExt;
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

fn parameter(fixture: &Fixture, id: &str, kind: &str, value: &str) -> Value {
    json!({"Name": fixture.path().replace("%s", id), "Type": kind, "Value": value, "Version": 1})
}

#[tokio::test]
async fn an_entry_that_is_not_our_key_is_corrupt() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for (kind, value) in [
        ("String", "QUJD"),
        ("StringList", "QUJD"),
        ("SecureString", ""),
        ("SecureString", "QUJD "),
        ("SecureString", " QUJD"),
        ("SecureString", "QUJD\n"),
        ("SecureString", "-_-_"),
        ("SecureString", "QQ="),
        ("SecureString", "plain text"),
    ] {
        fixture.answer("GetParameter", 1, 200, json!({"Parameter": parameter(&fixture, "alice", kind, value)}));
        let error = store.get_key(&id("alice")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind} {value:?}");
        fixture.answer("GetParameters", 1, 200, json!({"Parameters": [parameter(&fixture, "alice", kind, value)]}));
        let error = store.get_keys(&[id("alice")]).await.remove(0).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{kind} {value:?}");
    }
}

#[tokio::test]
async fn an_empty_page_with_a_token_is_not_the_end() {
    let fixture = Fixture::new();
    let page = |ids: &[&str], token: Option<&str>| {
        let parameters: Vec<Value> = ids.iter().map(|id| parameter(&fixture, id, "SecureString", "x")).collect();
        json!({"Parameters": parameters, "NextToken": token})
    };
    fixture.answer("GetParametersByPath", 1, 200, page(&[], Some("1")));
    fixture.answer("GetParametersByPath", 1, 200, page(&["alice"], Some("2")));
    fixture.answer("GetParametersByPath", 1, 200, page(&[], Some("3")));
    fixture.answer("GetParametersByPath", 1, 200, page(&["bob"], None));
    let ids: Vec<KeyId> = fixture.store().list_keys().try_collect().await.unwrap();
    assert_eq!(ids, [id("alice"), id("bob")]);
    let tokens: Vec<Value> = fixture.calls().iter().map(|call| call.body["NextToken"].clone()).collect();
    assert_eq!(tokens, [Value::Null, json!("1"), json!("2"), json!("3")]);
}

#[tokio::test]
async fn a_repeated_token_ends_the_listing_with_an_error() {
    let fixture = Fixture::new();
    fixture.answer("GetParametersByPath", 100, 200, json!({"Parameters": [], "NextToken": "again"}));
    let error = fixture.store().list_keys().try_collect::<Vec<KeyId>>().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Corrupt, Operation::List));
    assert!(fixture.calls().len() <= 3);
}

#[tokio::test]
async fn entries_that_are_not_keys_are_not_listed() {
    let fixture = Fixture::new();
    let foreign = |name: String| json!({"Name": name, "Type": "String", "Value": "x"});
    let names = ["--", "--a-2fb", "deeper/alice", "a@b"].map(|segment| foreign(fixture.path().replace("%s", segment)));
    fixture.answer("GetParametersByPath", 1, 200, json!({"Parameters": names}));
    assert!(fixture.store().list_keys().try_collect::<Vec<KeyId>>().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_batch_that_is_denied_because_of_one_name_is_asked_for_one_by_one() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    let denied = json!({"__type": "AccessDeniedException", "message": "User is not authorized"});
    fixture.answer("GetParameters", 1, 400, denied.clone());
    let carols = fixture.path().replace("%s", "carol");
    fixture.bed.answer("GetParameter", &format!("\"{carols}\""), 1, 400, denied.to_string());
    let answers = store.get_keys(&[id("alice"), id("bob"), id("carol")]).await;
    assert_eq!(answers[0].as_ref().unwrap(), &key([1; 32]));
    assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_name_that_the_answer_of_a_batch_omits_is_asked_for_alone() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    fixture.answer("GetParameters", 1, 200, json!({"Parameters": [], "InvalidParameters": []}));
    assert_eq!(store.get_keys(&[id("alice")]).await.remove(0).unwrap(), key([1; 32]));
}

#[tokio::test]
async fn rapid_updates_are_tried_again_which_the_sdk_does_not_do_by_itself() {
    let fixture = Fixture::new();
    fixture.answer("PutParameter", 2, 400, json!({"__type": "TooManyUpdates"}));
    fixture.store().put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(fixture.calls().len(), 3);

    fixture.answer("PutParameter", 9, 400, json!({"__type": "TooManyUpdates"}));
    let error = fixture.store().put_key(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::NotApplied));
    assert!(error.is_retryable());
    assert_eq!(fixture.calls().len(), 6);
}

#[tokio::test]
async fn with_one_attempt_nothing_is_tried_again() {
    let fixture = Fixture::new();
    fixture.answer("GetParameter", 9, 500, json!({"__type": "InternalServerError"}));
    let store = fixture.builder().sdk_attempts(1).build().unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(fixture.calls().len(), 1);
}

#[tokio::test]
async fn a_quota_is_not_tried_again() {
    let fixture = Fixture::new();
    for code in ["ParameterLimitExceeded", "ParameterMaxVersionLimitExceeded"] {
        fixture.answer("PutParameter", 1, 400, json!({"__type": code, "message": "too many"}));
        let error = fixture.store().put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
        assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::QuotaExceeded, false));
    }
    assert_eq!(fixture.calls().len(), 2);
}

/// The answer to a create was lost, and the SDK has repeated the call: the existing key tells who
/// created it.
#[tokio::test]
async fn a_create_with_a_lost_answer_is_distinguished_from_another_creators() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.store();
    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    store.create_key(&id("ours"), &key([1; 32])).await.unwrap();
    assert_eq!(fixture.operations(), ["PutParameter", "PutParameter", "GetParameter"]);

    store.put_key(&id("theirs"), &key([2; 32])).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetBeforeSend, 1).await.unwrap();
    let error = store.create_key(&id("theirs"), &key([3; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::AlreadyExists, Effect::Unknown));

    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    fixture.answer("GetParameter", 99, 400, json!({"__type": "ParameterNotFound"}));
    let error = store.create_key(&id("invisible"), &key([4; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Conflict, Effect::Unknown));
}

#[tokio::test]
async fn a_lost_delete_is_ok() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("bob"), &key([1; 32])).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Delete), Fault::ResetAfterApply, 1).await.unwrap();
    store.delete_key(&id("alice")).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Delete), Fault::ResetAfterApply, 1).await.unwrap();
    assert!(store.delete_keys(&[id("bob")]).await.remove(0).is_ok());
    // Nothing was repeated, so the first answer is true.
    assert_eq!(store.delete_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn an_existing_key_that_stays_invisible_is_a_conflict_with_a_pause_of_30_s() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    fixture.answer("GetParameter", 99, 400, json!({"__type": "ParameterNotFound"}));
    let error = store.get_or_create(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after()), (ErrorKind::Conflict, Some(Duration::from_secs(30))));
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_within_the_configured_bound() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.builder().attempt_timeout(Duration::from_millis(200));
    let store = store.operation_timeout(Duration::from_millis(500)).build().unwrap();
    faults.inject(&fixture.ns, None, Fault::Silent, 100).await.unwrap();
    let begin = Instant::now();
    let read = store.get_key(&id("alice")).await.unwrap_err();
    let write = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
    assert_eq!((read.kind(), read.effect()), (ErrorKind::Timeout, Effect::NotApplied));
    assert_eq!((write.kind(), write.effect()), (ErrorKind::Timeout, Effect::Unknown));
}

#[tokio::test]
async fn nobody_listening_is_unavailable_and_nothing_was_applied() {
    let fixture = Fixture::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let store = fixture.builder().endpoint_url(format!("http://127.0.0.1:{port}")).build().unwrap();
    let error = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
}

#[derive(Debug)]
struct NoCredentials;

impl ProvideCredentials for NoCredentials {
    fn provide_credentials<'a>(&'a self) -> ProvideCredentialsFuture<'a>
    where
        Self: 'a,
    {
        ProvideCredentialsFuture::ready(Err(CredentialsError::not_loaded("nobody is logged in")))
    }
}

#[tokio::test]
async fn without_credentials_a_call_is_unauthenticated_and_nothing_is_sent() {
    let fixture = Fixture::new();
    let provider = SharedCredentialsProvider::new(NoCredentials);
    let config = fixture.bed.sdk_config().to_builder().credentials_provider(provider).build();
    let store = fixture.builder().sdk_config(&config).build().unwrap();
    let error = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unauthenticated, Effect::NotApplied));
    assert!(fixture.calls().is_empty());
}

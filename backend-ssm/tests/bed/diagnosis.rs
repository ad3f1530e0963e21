//! The information that an error gives an operator: who was refused what, in which request, and
//! what to do.

use std::error::Error as StdError;

use futures_util::TryStreamExt;
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

/// The request id in the test bed's answers.
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

fn message(error: &Error) -> &str {
    error.details().and_then(|details| details.message.as_deref()).unwrap_or_default()
}

fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

fn parameter(fixture: &Fixture, id: &str, kind: &str, value: &str) -> Value {
    json!({"Name": fixture.path().replace("%s", id), "Type": kind, "Value": value, "Version": 1})
}

#[tokio::test]
async fn a_denied_call_names_the_principal_the_action_and_no_user() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(std::time::Duration::from_secs(5));
    faults.inject(&fixture.ns, None, Fault::Denied, 3).await.unwrap();
    let error = fixture.store().get_key(&id("alice")).await.unwrap_err();
    assert_eq!(
        message(&error),
        "User: arn:aws:iam::123456789012:user/test is not authorized to perform: ssm:GetParameter on resource: \
         <redacted> because no identity-based policy allows the action"
    );
    // The principal is not shown if its name is the user's id.
    let error = fixture.store().get_key(&id("test")).await.unwrap_err();
    assert!(message(&error).starts_with("User: <redacted> is not authorized"), "{error:?}");
    // An id of one letter hides no part of a word.
    let error = fixture.store().put_key(&id("a"), &key([1; 32])).await.unwrap_err();
    assert!(message(&error).contains("user/test is not authorized to perform: ssm:PutParameter on"), "{error:?}");
}

#[tokio::test]
async fn an_assumed_role_is_named_without_its_session_and_the_kms_key_is_named() {
    let fixture = Fixture::new();
    let principal = "arn:aws:sts::123456789012:assumed-role/app-role";
    let kms_key = keystead_aws_testbed::KMS_KEY_ARN;
    let text = format!(
        "User: {principal}/alice-session is not authorized to perform: kms:Decrypt on resource: {kms_key} because no \
         identity-based policy allows the kms:Decrypt action (Service: AWSKMS; Status Code: 400)"
    );
    let denied = json!({"__type": "AccessDeniedException", "message": text});
    fixture.answer("GetParameter", 1, 400, denied);
    let error = fixture.store().get_key(&id("bob")).await.unwrap_err();
    assert_eq!(
        message(&error),
        format!(
            "User: {principal}/<redacted> is not authorized to perform: kms:Decrypt on resource: {kms_key} because no \
             identity-based policy allows the kms:Decrypt action (Service: AWSKMS; Status Code: 400)"
        )
    );
}

/// A call that sends no value cannot have one quoted.
#[tokio::test]
async fn the_sentence_of_a_refused_read_is_kept_and_that_of_a_refused_write_is_not() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let name = fixture.path().replace("%s", "alice");
    let text = format!("1 validation error detected: Value '{name}' at 'name' failed to satisfy constraint");
    let invalid = json!({"__type": "ValidationException", "message": text});
    let kept = "1 validation error detected: Value <redacted> at 'name' failed to satisfy constraint";
    for operation in ["GetParameter", "GetParameters", "DeleteParameter", "GetParametersByPath"] {
        fixture.answer(operation, 1, 400, invalid.clone());
    }
    // If one name makes a batch fail, each name is asked for alone.
    let batch = store.get_keys(&[id("alice")]).await.remove(0).unwrap_err();
    let list = store.list_keys().try_collect::<Vec<KeyId>>().await.unwrap_err();
    for error in [batch, store.delete_key(&id("alice")).await.unwrap_err(), list] {
        assert_eq!((error.kind(), message(&error)), (ErrorKind::Config, kept), "{error:?}");
    }
    fixture.answer("GetParameter", 1, 400, json!({"__type": "SomethingNew", "message": "alice's time is over"}));
    let error = store.get_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), message(&error)), (ErrorKind::Other, "<redacted> time is over"));

    for code in ["ValidationException", "SomethingNew"] {
        fixture.answer("PutParameter", 1, 400, json!({"__type": code, "message": "the value QUJD is wrong"}));
        let error = store.put_key(&id("alice"), &key(*b"ABC")).await.unwrap_err();
        assert_eq!(message(&error), "", "{error:?}");
    }
}

#[tokio::test]
async fn every_error_about_an_answer_names_the_answer() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let mut errors = Vec::new();
    // A parameter that is not a key, and an answer without a parameter.
    for body in [json!({"Parameter": parameter(&fixture, "alice", "String", "QUJD")}), json!({})] {
        fixture.answer("GetParameter", 1, 200, body);
        errors.push((ErrorKind::Corrupt, 200, store.get_key(&id("alice")).await.unwrap_err()));
    }
    fixture.answer("GetParameters", 1, 200, json!({"Parameters": [parameter(&fixture, "alice", "SecureString", "-")]}));
    errors.push((ErrorKind::Corrupt, 200, store.get_keys(&[id("alice")]).await.remove(0).unwrap_err()));
    // Keys that a batch does not find.
    errors.push((ErrorKind::NotFound, 200, store.get_keys(&[id("alice")]).await.remove(0).unwrap_err()));
    errors.push((ErrorKind::NotFound, 200, store.delete_keys(&[id("alice")]).await.remove(0).unwrap_err()));
    // A listing that would never end.
    fixture.answer("GetParametersByPath", 9, 200, json!({"Parameters": [], "NextToken": "again"}));
    errors.push((ErrorKind::Corrupt, 200, store.list_keys().try_collect::<Vec<KeyId>>().await.unwrap_err()));
    // An existing key that stays invisible.
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    fixture.answer("GetParameter", 99, 400, json!({"__type": "ParameterNotFound"}));
    errors.push((ErrorKind::Conflict, 400, store.get_or_create(&id("alice"), &key([2; 32])).await.unwrap_err()));

    for (kind, status, error) in errors {
        assert_eq!(error.kind(), kind, "{error:?}");
        let details = error.details().unwrap_or_else(|| panic!("{error:?} has no details"));
        assert_eq!((details.status_code, details.request_id.as_deref()), (Some(status), Some(REQUEST_ID)), "{error:?}");
        assert_eq!(details.service_name.as_deref(), Some("AWSSimpleSystemsManagement"));
        // No error shows anything of the value.
        assert!(!format!("{error:?} {}", cause(&error)).contains("QUJD"), "{error:?}");
    }
}

#[tokio::test]
async fn too_many_versions_are_not_a_quota_that_can_be_raised() {
    let fixture = Fixture::new();
    let text = "You attempted to create a new version of alice by calling the PutParameter API with the overwrite \
                flag. Version 1, the oldest version, can't be deleted because it has a label associated with it. Move \
                the label to another version of the parameter, and try again.";
    fixture.answer("PutParameter", 1, 400, json!({"__type": "ParameterMaxVersionLimitExceeded", "message": text}));
    let error = fixture.store().put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::QuotaExceeded, Effect::NotApplied));
    let cause = cause(&error);
    assert!(cause.contains("move the label") && !cause.contains("delete"), "{cause}");
    assert!(!cause.contains("raise"), "{cause}");
    assert!(cause.contains(&format!("(HTTP 400, request {REQUEST_ID})")), "{cause}");
    assert!(message(&error).contains("Move the label") && !message(&error).contains("alice"), "{error:?}");
}

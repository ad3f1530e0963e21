//! The information that an error gives an operator: who was refused what, in which request, and
//! what to do.

use std::error::Error as StdError;

use futures_util::TryStreamExt;
use keystead_aws_testbed::TraceCapture;
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use serde_json::json;

use crate::{Fixture, id, key};

/// The request id in the test bed's answers.
const REQUEST_ID: &str = "00000000-0000-4000-8000-000000000000";

fn message(error: &Error) -> &str {
    error.details().and_then(|details| details.message.as_deref()).unwrap_or_default()
}

#[tokio::test]
async fn a_short_id_hides_no_part_of_a_sentence() {
    let fixture = Fixture::new();
    for text in ["a", "t", "find"] {
        let error = fixture.store().get_key(&id(text)).await.unwrap_err();
        assert_eq!(message(&error), "Secrets Manager can't find the specified secret.", "{text}");
    }
}

#[tokio::test]
async fn a_denied_call_names_the_principal_and_no_user() {
    let fixture = Fixture::new();
    let principal = "arn:aws:sts::123456789012:assumed-role/app-role";
    let text = format!(
        "User: {principal}/alice is not authorized to perform: secretsmanager:GetSecretValue on resource: {} because \
         no identity-based policy allows the secretsmanager:GetSecretValue action",
        fixture.name("bob")
    );
    fixture.answer("GetSecretValue", 1, 400, json!({"__type": "AccessDeniedException", "message": text}));
    let error = fixture.store().get_key(&id("bob")).await.unwrap_err();
    assert_eq!(
        message(&error),
        format!(
            "User: {principal}/<redacted> is not authorized to perform: secretsmanager:GetSecretValue on resource: \
             <redacted> because no identity-based policy allows the secretsmanager:GetSecretValue action"
        )
    );
}

#[tokio::test]
async fn a_value_that_reads_like_a_word_is_replaced() {
    let fixture = Fixture::new();
    let refused = json!({"__type": "EncryptionFailure", "message": "no key for QUJDREVG of alice"});
    fixture.answer("CreateSecret", 1, 400, refused);
    let error = fixture.store().create_key(&id("alice"), &SecretKey::new("ABCDEF").unwrap()).await.unwrap_err();
    assert_eq!(message(&error), "no key for <redacted> of <redacted>");
}

#[tokio::test]
async fn every_error_about_an_answer_names_the_answer() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let mut errors = Vec::new();
    // Secrets that are not keys.
    for value in [json!({"SecretString": "QUJD"}), json!({}), json!({"SecretBinary": ""})] {
        fixture.answer("GetSecretValue", 1, 200, value);
        errors.push((ErrorKind::Corrupt, 200, store.get_key(&id("alice")).await.unwrap_err()));
    }
    let text = json!({"SecretValues": [{"Name": fixture.name("alice"), "SecretString": "QUJD"}]});
    fixture.answer("BatchGetSecretValue", 1, 200, text);
    errors.push((ErrorKind::Corrupt, 200, store.get_keys(&[id("alice")]).await.remove(0).unwrap_err()));
    // A key that a batch does not find, and one that fails in it for a reason of its own.
    let missing =
        json!({"SecretId": fixture.name("alice"), "ErrorCode": "ResourceNotFoundException", "Message": "gone"});
    let disabled = json!({"SecretId": fixture.name("bob"), "ErrorCode": "DecryptionFailure", "Message": "disabled"});
    fixture.answer("BatchGetSecretValue", 1, 200, json!({"SecretValues": [], "Errors": [missing, disabled]}));
    fixture.answer("GetSecretValue", 1, 400, json!({"__type": "DecryptionFailure", "message": "disabled"}));
    let mut answers = store.get_keys(&[id("alice"), id("bob")]).await;
    errors.push((ErrorKind::KeyUnavailable, 400, answers.remove(1).unwrap_err()));
    errors.push((ErrorKind::NotFound, 200, answers.remove(0).unwrap_err()));
    // Secrets that a delete refuses to delete.
    let replicas = json!([{"Region": "eu-west-1", "Status": "InSync"}]);
    fixture.answer("DescribeSecret", 1, 200, json!({"Name": fixture.name("alice"), "ReplicationStatus": replicas}));
    errors.push((ErrorKind::Unsupported, 200, store.delete_key(&id("alice")).await.unwrap_err()));
    fixture.answer("DescribeSecret", 1, 200, json!({"Name": fixture.name("alice"), "DeletedDate": 1}));
    errors.push((ErrorKind::PendingDeletion, 200, store.delete_key(&id("alice")).await.unwrap_err()));
    // A read of a secret that is scheduled for deletion, and of one without a value.
    for (code, description, kind) in [
        ("InvalidRequestException", json!({"DeletedDate": 1}), ErrorKind::PendingDeletion),
        ("InvalidRequestException", json!({}), ErrorKind::Config),
        ("ResourceNotFoundException", json!({}), ErrorKind::Corrupt),
    ] {
        fixture.answer("GetSecretValue", 1, 400, json!({"__type": code, "message": "refused"}));
        fixture.answer("DescribeSecret", 1, 200, description);
        let error = store.get_key(&id("alice")).await.unwrap_err();
        let cause = error.source().unwrap().to_string();
        assert!(cause.contains(&format!("answered {code} (HTTP 400, request {REQUEST_ID}): ")), "{cause}");
        errors.push((kind, 400, error));
    }
    // A listing that would never end, and a name that is held back.
    fixture.answer("ListSecrets", 9, 200, json!({"SecretList": [], "NextToken": "again"}));
    errors.push((ErrorKind::Corrupt, 200, store.list_keys().try_collect::<Vec<KeyId>>().await.unwrap_err()));
    fixture.answer("CreateSecret", 99, 400, json!({"__type": "ResourceExistsException", "message": "exists"}));
    errors.push((ErrorKind::Conflict, 400, store.get_or_create(&id("carol"), &key(1)).await.unwrap_err()));

    for (kind, status, error) in errors {
        assert_eq!(error.kind(), kind, "{error:?}");
        let details = error.details().unwrap_or_else(|| panic!("{error:?} has no details"));
        assert_eq!((details.status_code, details.request_id.as_deref()), (Some(status), Some(REQUEST_ID)), "{error:?}");
        assert_eq!(details.service_name.as_deref(), Some("AWSSecretsManager"));
        assert!(!format!("{error:?}").contains("QUJD"), "{error:?}");
    }
}

#[tokio::test]
async fn each_attempt_is_traced_with_its_own_operation() {
    let fixture = Fixture::new();
    let capture = TraceCapture::default();
    capture.during(fixture.store().put_key(&id("canaryid7x5q"), &key(1))).await.unwrap();
    let lines = capture.attempts();
    let expected = [("PutSecretValue", "code=\"ResourceNotFoundException\""), ("CreateSecret", "status=200")];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, (operation, outcome)) in lines.iter().zip(expected) {
        let operation = format!("service=\"Secrets Manager\" operation=\"{operation}\" attempt=1 ");
        assert!(line.contains(&operation) && line.contains(outcome), "{line}");
    }
    assert!(!capture.text().contains("canary") && !capture.text().contains(fixture.ns.as_str()), "{}", capture.text());
}

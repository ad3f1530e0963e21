//! Refusals with several possible causes: a pending deletion, another service's secret, a name that
//! is held back, a missing value.

use std::time::{Duration, Instant, SystemTime};

use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, Finality, KeyStore, KeyStoreExt, Operation};
use keystead_secretsmanager::SecretsManagerStore;
use serde_json::{Value, json};

use crate::{Fixture, id, key};

const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

fn invalid_request() -> Value {
    json!({"__type": "InvalidRequestException", "message": "You can't perform this operation on the secret."})
}

fn not_found() -> Value {
    json!({"__type": "ResourceNotFoundException", "message": "Secrets Manager can't find the specified secret."})
}

fn denied() -> Value {
    json!({"__type": "AccessDeniedException", "message": "not authorized"})
}

/// Returns the description of a secret that has a value, with further fields.
fn description(fixture: &Fixture, more: Value) -> Value {
    let mut description = json!({"Name": fixture.name("alice"), "VersionIdsToStages": {"1": ["AWSCURRENT"]}});
    let fields = description.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    description
}

fn seconds_from_now(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

/// Makes each call that Secrets Manager can refuse with `InvalidRequestException` fail that way,
/// with this answer to the `DescribeSecret` that follows, and returns the errors.
async fn refused_everywhere(fixture: &Fixture, status: u16, description: &Value) -> Vec<(Operation, Error)> {
    let store = fixture.store();
    let mut errors = Vec::new();
    for operation in [Operation::Get, Operation::Put, Operation::Create, Operation::Delete] {
        if operation == Operation::Delete {
            // The `DescribeSecret` before the delete.
            fixture.answer("DescribeSecret", 1, 200, self::description(fixture, json!({})));
        }
        fixture.answer("DescribeSecret", 1, status, description.clone());
        let error = match operation {
            Operation::Get => {
                fixture.answer("GetSecretValue", 1, 400, invalid_request());
                store.get_key(&id("alice")).await.unwrap_err()
            }
            Operation::Put => {
                fixture.answer("PutSecretValue", 1, 400, invalid_request());
                store.put_key(&id("alice"), &key(1)).await.unwrap_err()
            }
            Operation::Create => {
                fixture.answer("CreateSecret", 1, 400, invalid_request());
                store.create_key(&id("alice"), &key(1)).await.unwrap_err()
            }
            _ => {
                fixture.answer("DeleteSecret", 1, 400, invalid_request());
                store.delete_key(&id("alice")).await.unwrap_err()
            }
        };
        errors.push((operation, error));
    }
    errors
}

#[tokio::test]
async fn an_invalid_request_is_a_pending_deletion_only_if_a_date_is_seen() {
    let fixture = Fixture::new();
    let dated = description(&fixture, json!({"DeletedDate": seconds_from_now(3600)}));
    for (operation, error) in refused_everywhere(&fixture, 200, &dated).await {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PendingDeletion, Effect::NotApplied), "{operation}");
        assert!(error.retry_after().is_some_and(|pause| pause <= Duration::from_secs(3600)), "{error:?}");
    }
    let undated = description(&fixture, json!({}));
    for (operation, error) in refused_everywhere(&fixture, 200, &undated).await {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied), "{operation}");
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("managed by another service"), "{cause}");
    }
    for (operation, error) in refused_everywhere(&fixture, 400, &denied()).await {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied), "{operation}");
        assert_eq!(error.operation(), operation);
        assert_eq!(error.details().unwrap().error_code.as_deref(), Some("AccessDeniedException"));
    }
}

#[tokio::test]
async fn a_failed_description_does_not_make_a_refused_write_ambiguous() {
    let fixture = Fixture::new();
    let server_error = json!({"__type": "InternalServiceError", "message": "failed"});
    fixture.answer("CreateSecret", 1, 400, invalid_request());
    fixture.answer("DescribeSecret", 9, 500, server_error);
    let error = fixture.store().create_key(&id("alice"), &key(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
}

#[tokio::test]
async fn an_erasure_of_a_secret_that_refuses_its_delete_is_an_error() {
    for (status, about) in [(200, None), (400, Some(denied()))] {
        let fixture = Fixture::new();
        fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({})));
        fixture.answer("DeleteSecret", 1, 400, invalid_request());
        fixture.answer("DescribeSecret", 1, status, about.unwrap_or_else(|| description(&fixture, json!({}))));
        let error = fixture.store().erase_key(&id("alice")).await.unwrap_err();
        assert_eq!((error.operation(), error.effect()), (Operation::Erase, Effect::NotApplied));
        assert!(matches!(error.kind(), ErrorKind::Config | ErrorKind::PermissionDenied), "{error:?}");
    }
}

/// The answer to the first attempt is lost, and the second one is refused for a reason other than a
/// deletion.
#[tokio::test]
async fn a_refused_delete_after_a_lost_one_is_ok_only_if_a_date_is_seen() {
    let fixture = Fixture::new();
    let config = fixture.config().recovery_window(7);
    let store = SecretsManagerStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    for date in [None, Some(seconds_from_now(5 * 86_400))] {
        fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({})));
        faults.inject(&fixture.ns, Some(Operation::Delete), Fault::ResetBeforeSend, 1).await.unwrap();
        fixture.answer("DeleteSecret", 1, 400, invalid_request());
        fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({"DeletedDate": date})));
        match store.delete_key(&id("alice")).await {
            Ok(deletion) => {
                assert!(date.is_some());
                assert_recoverable_for(deletion.finality, Duration::from_secs(7 * 86_400));
            }
            Err(e) => assert_eq!((e.kind(), e.effect(), date), (ErrorKind::Config, Effect::Unknown, None)),
        }
    }
}

fn assert_recoverable_for(finality: Finality, at_least: Duration) {
    let Finality::RecoverableUntil(until) = finality else { panic!("{finality:?}") };
    let remaining = until.duration_since(SystemTime::now()).unwrap();
    assert!(remaining + Duration::from_secs(60) >= at_least, "{remaining:?} is less than {at_least:?}");
}

#[tokio::test]
async fn a_deletion_date_that_is_over_means_the_longest_window() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for past in [-1, -86_400, 0] {
        let dated = description(&fixture, json!({"DeletedDate": seconds_from_now(past)}));
        // One answer is for the deletion, and three are for the erasure: for its delete and its two
        // reads.
        fixture.answer("DescribeSecret", 4, 200, dated);
        let error = store.delete_key(&id("alice")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (ErrorKind::PendingDeletion, Some(LONGEST_WINDOW)));
        let erasure = store.erase_key(&id("alice")).await.unwrap();
        assert!(erasure.existed && !erasure.verified);
        assert_recoverable_for(erasure.finality, LONGEST_WINDOW);
    }
}

#[tokio::test]
async fn the_date_in_a_deletes_answer_does_not_shorten_the_window_that_was_asked_for() {
    let fixture = Fixture::new();
    let week = Duration::from_secs(7 * 86_400);
    let config = fixture.config().recovery_window(7);
    let store = SecretsManagerStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    for (date, expected) in [(0, week), (-86_400, week), (86_400, week), (8 * 86_400, week + week / 7)] {
        fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({})));
        fixture.answer("DeleteSecret", 1, 200, json!({"DeletionDate": seconds_from_now(date)}));
        assert_recoverable_for(store.delete_key(&id("alice")).await.unwrap().finality, expected);
    }
}

#[tokio::test]
async fn check_is_not_satisfied_by_a_bare_invalid_request() {
    let fixture = Fixture::new();
    let store = fixture.store();
    fixture.answer("GetSecretValue", 1, 400, invalid_request());
    fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({})));
    let error = store.check().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Check));
    fixture.answer("GetSecretValue", 1, 400, invalid_request());
    fixture.answer("DescribeSecret", 1, 200, description(&fixture, json!({"DeletedDate": seconds_from_now(3600)})));
    store.check().await.unwrap();
}

/// Returns the two answers with which AWS refuses a name that it is releasing.
fn held_name() -> [Value; 2] {
    let scheduled = "a secret with this name is already scheduled for deletion.";
    let exists = json!({"__type": "ResourceExistsException", "message": "the secret already exists"});
    [json!({"__type": "InvalidRequestException", "message": scheduled}), exists]
}

#[tokio::test]
async fn a_name_that_is_held_back_after_a_forced_delete_is_a_conflict_with_a_pause() {
    for refusal in held_name() {
        let fixture = Fixture::new();
        let store = fixture.store();
        fixture.answer("CreateSecret", 100, 400, refusal);
        let pause = Some(Duration::from_secs(30));
        for error in [
            store.create_key(&id("alice"), &key(1)).await.unwrap_err(),
            store.put_key(&id("alice"), &key(1)).await.unwrap_err(),
            store.get_or_create(&id("alice"), &key(1)).await.unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.retry_after(), error.is_retryable()), (ErrorKind::Conflict, pause, true));
            assert_eq!(error.effect(), Effect::NotApplied);
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert!(cause.contains("forced delete") && !cause.contains("  "), "{cause}");
        }
        assert!(fixture.operations().len() < 40, "{:?}", fixture.operations());
    }
}

#[tokio::test]
async fn get_or_create_waits_for_a_name_that_is_held_back() {
    for refusal in held_name() {
        let fixture = Fixture::new();
        let builder = SecretsManagerStore::builder(fixture.config()).sdk_config(&fixture.bed.sdk_config());
        let store = builder.visibility_bound(Duration::from_secs(20)).build().unwrap();
        fixture.answer("CreateSecret", 3, 400, refusal);
        assert_eq!(store.get_or_create_key(&id("alice")).await.unwrap(), store.get_key(&id("alice")).await.unwrap());
    }
}

#[tokio::test]
async fn a_secret_without_a_value_is_corrupt_and_can_be_put_and_deleted() {
    let fixture = Fixture::new();
    let builder = SecretsManagerStore::builder(fixture.config()).sdk_config(&fixture.bed.sdk_config());
    // No poll may wait for a value.
    let store = builder.visibility_bound(Duration::from_secs(60)).build().unwrap();
    for segment in ["alice", "bob"] {
        let secret = json!({"Name": fixture.name(segment), "ClientRequestToken": "0".repeat(32)});
        fixture.bed.ask_emulator("secretsmanager.CreateSecret", secret).await.unwrap();
    }
    let begin = Instant::now();
    for error in [
        store.get_key(&id("alice")).await.unwrap_err(),
        store.find_key(&id("alice")).await.unwrap_err(),
        store.create_key(&id("alice"), &key(1)).await.unwrap_err(),
        store.get_or_create(&id("alice"), &key(1)).await.unwrap_err(),
        store.get_or_create_key(&id("alice")).await.unwrap_err(),
        store.get_keys(&[id("alice")]).await.remove(0).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::NotApplied));
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("AWSCURRENT"), "{cause}");
    }
    assert!(begin.elapsed() < Duration::from_secs(10));
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    store.delete_key(&id("bob")).await.unwrap();
    assert_eq!(store.find_key(&id("bob")).await.unwrap(), None);
}

/// All versions exist and none has a label, so the key may still be in one of them.
#[tokio::test]
async fn a_lost_label_is_corrupt_and_the_advice_keeps_the_versions() {
    let fixture = Fixture::new();
    let lost = json!({"Name": fixture.name("alice"), "VersionIdsToStages": {"1": ["AWSPREVIOUS"], "2": []}});
    fixture.answer("GetSecretValue", 1, 400, not_found());
    fixture.answer("DescribeSecret", 1, 200, lost);
    let error = fixture.store().get_key(&id("alice")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("move the label") && !cause.contains("delete"), "{cause}");
}

#[tokio::test]
async fn in_a_batch_a_secret_without_a_value_is_corrupt_and_affects_no_other() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("bob"), &key(2)).await.unwrap();
    let secret = json!({"Name": fixture.name("alice"), "ClientRequestToken": "0".repeat(32)});
    fixture.bed.ask_emulator("secretsmanager.CreateSecret", secret).await.unwrap();
    let message = "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT";
    let no_value =
        json!({"SecretId": fixture.name("alice"), "ErrorCode": "ResourceNotFoundException", "Message": message});
    let bob = json!({"Name": fixture.name("bob"), "SecretBinary": "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI="});
    fixture.answer("BatchGetSecretValue", 1, 200, json!({"SecretValues": [bob], "Errors": [no_value]}));
    // Answered key by key, and as the emulator does it, where the whole call fails.
    for _ in 0..2 {
        let answers = store.get_keys(&[id("alice"), id("bob"), id("carol")]).await;
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(answers[1].as_ref().unwrap(), &key(2));
        assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn absence_is_not_claimed_if_the_description_cannot_be_read_or_shows_a_key() {
    let fixture = Fixture::new();
    let store = fixture.store();
    fixture.answer("DescribeSecret", 1, 400, denied());
    let error = store.get_key(&id("alice")).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::PermissionDenied, Operation::Get));
    // The secret is created between the read and `DescribeSecret`.
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    fixture.answer("GetSecretValue", 1, 400, not_found());
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
}

#[tokio::test]
async fn a_put_whose_answer_was_lost_stays_unknown_when_the_secret_cannot_be_created_then() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.create_key(&id("alice"), &key(1)).await.unwrap();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    faults.inject(&fixture.ns, Some(Operation::Put), Fault::ResetAfterApply, 1).await.unwrap();
    // As if the secret had been deleted in the meantime.
    fixture.answer("PutSecretValue", 1, 400, not_found());
    fixture.answer("CreateSecret", 1, 400, denied());
    let refused = store.put_key(&id("alice"), &key(2)).await.unwrap_err();
    assert_eq!((refused.kind(), refused.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
}

//! Requirements of organizations: tags, a description, a tier, and KMS keys of another account.

use std::error::Error as StdError;
use std::time::Duration;

use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY};
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::{SsmConfig, SsmStore, Tier};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

fn store(fixture: &Fixture, config: SsmConfig) -> SsmStore {
    let builder = SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(200)).build().unwrap()
}

fn tagged(fixture: &Fixture) -> SsmStore {
    let config = fixture.config().tag("owner", "privacy").tag("cost center", "");
    store(fixture, config.description("user key"))
}

fn tags() -> Value {
    json!([{"Key": "owner", "Value": "privacy"}, {"Key": "cost center", "Value": ""}])
}

/// Returns the tags of a user's parameter in the emulator.
async fn tags_of(fixture: &Fixture, segment: &str) -> Value {
    let name = fixture.path().replace("%s", segment);
    let request = json!({"ResourceType": "Parameter", "ResourceId": name});
    let mut answer = fixture.bed.ask_emulator("AmazonSSM.ListTagsForResource", request).await.unwrap();
    answer["TagList"].take()
}

/// Returns the cause of an error, as a person reads it.
fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn a_create_sends_tags_and_description_in_its_one_call() {
    let fixture = Fixture::new();
    let store = tagged(&fixture);
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.get_or_create_key(&id("bob")).await.unwrap();
    let puts: Vec<_> = fixture.calls().into_iter().filter(|call| call.operation == "PutParameter").collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!((&put.body["Tags"], &put.body["Description"]), (&tags(), &json!("user key")));
        assert_eq!((&put.body["KeyId"], &put.body["Tier"]), (&json!(KMS_KEY), &json!("Standard")));
    }
    assert_eq!(tags_of(&fixture, "alice").await, tags());
}

#[tokio::test]
async fn with_tags_a_put_of_a_new_id_is_one_call_and_of_an_existing_one_two() {
    let fixture = Fixture::new();
    let store = tagged(&fixture);
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(fixture.operations(), ["PutParameter"]);
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(fixture.operations(), ["PutParameter"; 3]);
    let overwrites: Vec<_> = fixture.calls().into_iter().map(|call| call.body["Overwrite"].clone()).collect();
    assert_eq!(overwrites, [json!(false), json!(false), json!(true)]);
    let last = fixture.calls().pop().unwrap().body;
    assert!(last["Tags"].is_null() && last["Description"].is_null(), "{last}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
    assert_eq!(tags_of(&fixture, "alice").await, tags());
}

#[tokio::test]
async fn a_policy_that_demands_tags_lets_a_store_with_tags_create_and_overwrite() {
    let fixture = Fixture::new();
    fixture.bed.require_tags(fixture.ns.as_str(), &["owner"]);
    for error in [
        fixture.store().create_key(&id("alice"), &key([1; 32])).await.unwrap_err(),
        fixture.store().put_key(&id("alice"), &key([1; 32])).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    }
    let store = tagged(&fixture);
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
    store.create_key(&id("bob"), &key([3; 32])).await.unwrap();
}

/// The parameter is deleted between the two calls of a put, so the second one creates it.
#[tokio::test]
async fn a_parameter_that_an_overwrite_has_to_create_gets_its_tags_too() {
    let fixture = Fixture::new();
    let store = tagged(&fixture);
    fixture.answer("PutParameter", 1, 400, json!({"__type": "ParameterAlreadyExists"}));
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(fixture.operations(), ["PutParameter", "PutParameter", "AddTagsToResource"]);
    assert_eq!(tags_of(&fixture, "alice").await, tags());

    fixture.answer("PutParameter", 1, 400, json!({"__type": "ParameterAlreadyExists"}));
    fixture.answer("AddTagsToResource", 1, 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let error = store.put_key(&id("bob"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    assert!(
        cause(&error).contains("the key was written") && cause(&error).contains("ssm:AddTagsToResource"),
        "{error:?}"
    );
    assert_eq!(store.get_key(&id("bob")).await.unwrap(), key([2; 32]));
}

/// The answer to the create is lost, so the key may exist although the overwrite is refused.
#[tokio::test]
async fn a_put_that_fails_after_a_lost_create_may_have_been_applied() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = tagged(&fixture);
    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Put), Fault::Denied, 1).await.unwrap();
    let error = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::PermissionDenied, Operation::Put));
    assert_eq!(error.effect(), Effect::Unknown);

    faults.inject(&fixture.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    store.put_key(&id("bob"), &key([2; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("bob")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn the_default_tier_of_the_account_is_used_where_it_is_asked_for() {
    let fixture = Fixture::new();
    fixture.bed.set_default_tier(fixture.ns.as_str(), "Advanced");
    let store = store(&fixture, fixture.config().tier(Tier::AccountDefault));
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    for call in fixture.calls() {
        assert!(call.body["Tier"].is_null() && call.body["KeyId"] == KMS_KEY, "{:?}", call.body);
    }
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn a_standard_put_of_an_advanced_parameter_is_refused_with_the_setting_that_helps() {
    let fixture = Fixture::new();
    let advanced = store(&fixture, fixture.config().tier(Tier::Advanced));
    advanced.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    let error = fixture.store().put_key(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
    assert_eq!(error.details().unwrap().error_code.as_deref(), Some("ValidationException"));
    assert!(cause(&error).contains("set tier to advanced or account-default"), "{error:?}");

    fixture.bed.set_default_tier(fixture.ns.as_str(), "Standard");
    let unset = store(&fixture, fixture.config().tier(Tier::AccountDefault));
    let error = unset.put_key(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert!(cause(&error).contains("set tier to advanced;"), "{error:?}");

    advanced.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(fixture.store().get_key(&id("alice")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn a_kms_key_of_another_account_is_used_by_its_arn() {
    let fixture = Fixture::new();
    let config = SsmConfig::new(FOREIGN_KMS_KEY_ARN, fixture.path()).unwrap();
    let store = store(&fixture, config);
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([1; 32]));
    assert_eq!(fixture.calls().remove(0).body["KeyId"], FOREIGN_KMS_KEY_ARN);
}

#[tokio::test]
async fn an_arn_in_place_of_a_path_is_refused_before_any_call() {
    let fixture = Fixture::new();
    let arn = format!("arn:aws:ssm:us-east-1:999999999999:parameter/{}/%s", fixture.ns);
    let refusal = SsmConfig::new(KMS_KEY, arn).unwrap_err().to_string();
    assert!(refusal.contains("assume a role in it") && !refusal.contains(fixture.ns.as_str()), "{refusal}");
    assert!(fixture.calls().is_empty());
}

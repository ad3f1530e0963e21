//! The requirements of organizations: tags, a description, a tier, and KMS keys of another account.

use std::error::Error as StdError;
use std::time::Duration;

use keystead_aws_testbed::{FOREIGN_KMS_KEY_ARN, KMS_KEY};
use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::{SsmConfig, SsmStore, Tier};
use serde_json::{Value, json};

use crate::{Space, id, key};

fn store(space: &Space, config: SsmConfig) -> SsmStore {
    let builder = SsmStore::builder(config).sdk_config(&space.bed.sdk_config());
    builder.visibility_bound(Duration::from_millis(200)).build().unwrap()
}

fn tagged(space: &Space) -> SsmStore {
    let config = space.config().tag("owner", "privacy").tag("cost center", "");
    store(space, config.description("user key"))
}

fn tags() -> Value {
    json!([{"Key": "owner", "Value": "privacy"}, {"Key": "cost center", "Value": ""}])
}

/// The tags of a user's parameter, as the emulator has them.
async fn tags_of(space: &Space, segment: &str) -> Value {
    let name = space.path().replace("%s", segment);
    let request = json!({"ResourceType": "Parameter", "ResourceId": name});
    let mut answer = space.bed.ask_emulator("AmazonSSM.ListTagsForResource", request).await.unwrap();
    answer["TagList"].take()
}

/// The cause of a failure, as a person reads it.
fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

#[tokio::test]
async fn a_create_sends_tags_and_description_in_its_one_call() {
    let space = Space::new();
    let store = tagged(&space);
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.get_or_create_key(&id("bob")).await.unwrap();
    let puts: Vec<_> = space.calls().into_iter().filter(|call| call.operation == "PutParameter").collect();
    assert_eq!(puts.len(), 2);
    for put in puts {
        assert_eq!((&put.body["Tags"], &put.body["Description"]), (&tags(), &json!("user key")));
        assert_eq!((&put.body["KeyId"], &put.body["Tier"]), (&json!(KMS_KEY), &json!("Standard")));
    }
    assert_eq!(tags_of(&space, "alice").await, tags());
}

#[tokio::test]
async fn with_tags_a_put_of_a_new_id_is_one_call_and_of_an_existing_one_two() {
    let space = Space::new();
    let store = tagged(&space);
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(space.operations(), ["PutParameter"]);
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(space.operations(), ["PutParameter"; 3]);
    let overwrites: Vec<_> = space.calls().into_iter().map(|call| call.body["Overwrite"].clone()).collect();
    assert_eq!(overwrites, [json!(false), json!(false), json!(true)]);
    let last = space.calls().pop().unwrap().body;
    assert!(last["Tags"].is_null() && last["Description"].is_null(), "{last}");
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
    assert_eq!(tags_of(&space, "alice").await, tags());
}

#[tokio::test]
async fn a_policy_that_demands_tags_lets_a_store_with_tags_create_and_overwrite() {
    let space = Space::new();
    space.bed.require_tags(space.ns.as_str(), &["owner"]);
    for error in [
        space.store().create_key(&id("alice"), &key([1; 32])).await.unwrap_err(),
        space.store().put_key(&id("alice"), &key([1; 32])).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    }
    let store = tagged(&space);
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
    store.create_key(&id("bob"), &key([3; 32])).await.unwrap();
}

/// The parameter is deleted between the two calls of a put, so the second one creates it.
#[tokio::test]
async fn a_parameter_that_an_overwrite_has_to_create_gets_its_tags_too() {
    let space = Space::new();
    let store = tagged(&space);
    space.answer("PutParameter", 1, 400, json!({"__type": "ParameterAlreadyExists"}));
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(space.operations(), ["PutParameter", "PutParameter", "AddTagsToResource"]);
    assert_eq!(tags_of(&space, "alice").await, tags());

    space.answer("PutParameter", 1, 400, json!({"__type": "ParameterAlreadyExists"}));
    space.answer("AddTagsToResource", 1, 400, json!({"__type": "AccessDeniedException", "message": "no"}));
    let error = store.put_key(&id("bob"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::Unknown));
    assert!(
        cause(&error).contains("the key was written") && cause(&error).contains("ssm:AddTagsToResource"),
        "{error:?}"
    );
    assert_eq!(store.get_key(&id("bob")).await.unwrap(), key([2; 32]));
}

/// The answer to the create is lost, so the key may stand although the overwrite is refused.
#[tokio::test]
async fn a_put_that_fails_after_a_lost_create_may_have_been_applied() {
    let space = Space::new();
    let (faults, store) = (space.bed.faults(Duration::from_secs(5)), tagged(&space));
    faults.inject(&space.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    faults.inject(&space.ns, Some(Operation::Put), Fault::Denied, 1).await.unwrap();
    let error = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::PermissionDenied, Operation::Put));
    assert_eq!(error.effect(), Effect::Unknown);

    faults.inject(&space.ns, Some(Operation::Create), Fault::ResetAfterApply, 1).await.unwrap();
    store.put_key(&id("bob"), &key([2; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("bob")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn the_default_tier_of_the_account_is_used_where_it_is_asked_for() {
    let space = Space::new();
    space.bed.set_default_tier(space.ns.as_str(), "Advanced");
    let store = store(&space, space.config().tier(Tier::AccountDefault));
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    for call in space.calls() {
        assert!(call.body["Tier"].is_null() && call.body["KeyId"] == KMS_KEY, "{:?}", call.body);
    }
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn a_standard_put_of_an_advanced_parameter_is_refused_with_the_setting_that_helps() {
    let space = Space::new();
    let advanced = store(&space, space.config().tier(Tier::Advanced));
    advanced.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    let error = space.store().put_key(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
    assert_eq!(error.details().unwrap().error_code.as_deref(), Some("ValidationException"));
    assert!(cause(&error).contains("set tier to advanced or account-default"), "{error:?}");

    space.bed.set_default_tier(space.ns.as_str(), "Standard");
    let unset = store(&space, space.config().tier(Tier::AccountDefault));
    let error = unset.put_key(&id("alice"), &key([2; 32])).await.unwrap_err();
    assert!(cause(&error).contains("set tier to advanced;"), "{error:?}");

    advanced.put_key(&id("alice"), &key([2; 32])).await.unwrap();
    assert_eq!(space.store().get_key(&id("alice")).await.unwrap(), key([2; 32]));
}

#[tokio::test]
async fn a_kms_key_of_another_account_is_used_by_its_arn() {
    let space = Space::new();
    let config = SsmConfig::new(FOREIGN_KMS_KEY_ARN, space.path()).unwrap();
    let store = store(&space, config);
    store.create_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([1; 32]));
    assert_eq!(space.calls().remove(0).body["KeyId"], FOREIGN_KMS_KEY_ARN);
}

#[tokio::test]
async fn an_arn_in_place_of_a_path_is_refused_before_any_call() {
    let space = Space::new();
    let arn = format!("arn:aws:ssm:us-east-1:999999999999:parameter/{}/%s", space.ns);
    let refusal = SsmConfig::new(KMS_KEY, arn).unwrap_err().to_string();
    assert!(refusal.contains("assume a role in it") && !refusal.contains(space.ns.as_str()), "{refusal}");
    assert!(space.calls().is_empty());
}

//! The identity of a store's data, and the calls that it takes to learn it.

use aws_sdk_ssm::config::Region;
use keystead_aws_testbed::{KMS_KEY, sdk_config};
use keystead_core::{ErrorKind, IdentityMatch, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::{SsmConfig, SsmStore};
use serde_json::json;

use crate::{Fixture, id, key};

/// An endpoint where nothing listens.
const DEAD: &str = "http://127.0.0.1:1";

/// The account of the emulator.
const ACCOUNT: &str = "123456789012";

#[tokio::test]
async fn identify_asks_for_the_account_once() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let asked = || fixture.bed.calls("GetCallerIdentity").len();
    let before = store.info();
    assert_eq!((before.identity().region(), before.identity().partition()), (Some("us-east-1"), Some("aws")));
    assert_eq!(before.identity().account(), None);
    let begun = asked();
    let identity = store.identify().await.unwrap();
    assert_eq!(identity.account(), Some(ACCOUNT));
    assert_eq!(identity.endpoint(), Some(fixture.bed.url().as_str()));
    assert_eq!(store.clone().identify().await.unwrap(), identity);
    assert_eq!(asked() - begun, 1);
    assert!(fixture.calls().is_empty(), "{:?}", fixture.operations());
    assert_eq!(fixture.store().identify().await.unwrap().compare(&identity), IdentityMatch::Same);
    let text = store.info().to_string();
    assert!(text.contains("region us-east-1") && text.contains(ACCOUNT), "{text}");
}

#[tokio::test]
async fn an_answer_that_holds_an_arn_tells_the_account_without_a_further_call() {
    let fixture = Fixture::new();
    fixture.store().put_key(&id("alice"), &key([1; 32])).await.unwrap();
    let account = |store: &SsmStore| store.info().identity().account().map(str::to_owned);
    for (number, calls) in [(0, "GetParameter"), (1, "GetParameters"), (2, "GetParametersByPath")] {
        let begun = fixture.calls().len();
        let store = fixture.store();
        match number {
            0 => drop(store.get_key(&id("alice")).await.unwrap()),
            1 => drop(store.get_keys(&[id("alice")]).await.remove(0).unwrap()),
            _ => drop(futures_util::StreamExt::next(&mut store.list_keys()).await.unwrap().unwrap()),
        }
        assert_eq!(account(&store).as_deref(), Some(ACCOUNT), "{calls}");
        assert_eq!(fixture.operations()[begun..], [calls]);
    }
}

#[tokio::test]
async fn a_handle_that_has_reached_two_accounts_names_none() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for (account, known) in [("111111111111", Some("111111111111")), ("222222222222", None)] {
        let name = fixture.path().replace("%s", "alice");
        let arn = format!("arn:aws:ssm:us-east-1:{account}:parameter{name}");
        let parameter = json!({"Name": name, "Type": "SecureString", "Value": "QUJD", "ARN": arn});
        fixture.answer("GetParameter", 1, 200, json!({"Parameter": parameter}));
        store.get_key(&id("alice")).await.unwrap();
        assert_eq!(store.info().identity().account(), known);
    }
}

#[tokio::test]
async fn a_ready_client_and_a_private_link_ask_nobody_else() {
    let fixture = Fixture::new();
    let client = aws_sdk_ssm::Client::new(&fixture.bed.sdk_config());
    let store = SsmStore::builder(fixture.config()).client(client).build().unwrap();
    let identity = store.identify().await.unwrap();
    assert_eq!((identity.region(), identity.account()), (Some("us-east-1"), None));
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.get_key(&id("alice")).await.unwrap();
    assert_eq!(store.identify().await.unwrap().account(), Some(ACCOUNT));

    let link = "https://vpce-1.ssm.us-east-1.vpce.amazonaws.com";
    let store = SsmStore::builder(fixture.config()).sdk_config(&sdk_config(DEAD)).endpoint_url(link).build().unwrap();
    let identity = store.identify().await.unwrap();
    assert_eq!((identity.endpoint(), identity.account()), (Some(link), None));
}

#[tokio::test]
async fn an_emulator_on_the_machine_itself_is_asked_and_a_tunnel_need_not_answer() {
    let fixture = Fixture::new();
    let builder = || SsmStore::builder(fixture.config()).sdk_config(&sdk_config(DEAD));
    let store = builder().endpoint_url(fixture.bed.url()).build().unwrap();
    assert_eq!(store.identify().await.unwrap().account(), Some(ACCOUNT));
    let store = builder().endpoint_url("http://127.0.0.1:2").build().unwrap();
    assert_eq!(store.identify().await.unwrap().account(), None);
}

#[tokio::test]
async fn an_identity_that_cannot_be_learned_is_an_error_and_what_is_known_stays() {
    let fixture = Fixture::new();
    let store = SsmStore::builder(fixture.config()).sdk_config(&sdk_config(DEAD)).build().unwrap();
    let error = store.identify().await.unwrap_err();
    assert_eq!((error.kind(), error.operation(), error.store()), (ErrorKind::Unavailable, Operation::Check, "ssm"));
    assert_eq!(store.info().identity().region(), Some("us-east-1"));
}

#[tokio::test]
async fn stores_in_two_regions_or_of_two_paths_differ_before_anything_is_learned() {
    let fixture = Fixture::new();
    let here = fixture.store();
    let there = fixture.builder().region("eu-west-1").build().unwrap();
    let other = SsmConfig::new(KMS_KEY, format!("/{}/other/%s", fixture.ns)).unwrap();
    let other = SsmStore::builder(other).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    let china = sdk_config(DEAD).to_builder().region(Region::new("cn-north-1")).build();
    let china = SsmStore::builder(fixture.config()).sdk_config(&china).build().unwrap();
    assert_eq!(china.info().identity().partition(), Some("aws-cn"));
    for store in [&there, &other, &china] {
        assert_eq!(here.info().identity().compare(store.info().identity()), IdentityMatch::Different);
    }
    assert_eq!(here.info().identity().compare(fixture.store().info().identity()), IdentityMatch::Unknown);
}

#[tokio::test]
async fn the_account_is_that_of_the_role_that_is_assumed() {
    let fixture = Fixture::new();
    let role = format!("arn:aws:iam::111122223333:role/{}", fixture.ns);
    let store = fixture.builder().role_arn(&role).build().unwrap();
    assert_eq!(store.identify().await.unwrap().account(), Some("111122223333"));
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.get_key(&id("alice")).await.unwrap();
    assert_eq!(store.info().identity().account(), Some("111122223333"));
    let own = fixture.store();
    assert_eq!(own.identify().await.unwrap().compare(&store.identify().await.unwrap()), IdentityMatch::Different);
}

//! The behavior of the Clojure library `dev.gethop/secret-storage.aws-ssm-ps`, with one test for
//! each row of its table.

use keystead_aws_testbed::{KMS_KEY, KMS_KEY_ARN, isolated};
use keystead_core::{ErrorKind, ErrorType, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::{SsmConfig, SsmStore, Tier};
use serde_json::json;

use crate::{Fixture, id, key};

#[tokio::test]
async fn config_takes_a_key_id_an_arn_or_an_alias() {
    let fixture = Fixture::new();
    let key_id = KMS_KEY_ARN.rsplit('/').next().unwrap();
    for kms_key in [KMS_KEY, KMS_KEY_ARN, key_id] {
        let config = SsmConfig::new(kms_key, fixture.path()).unwrap();
        let store = SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
        store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
        assert_eq!(fixture.calls().last().unwrap().body["KeyId"], kms_key);
    }
}

const CHILD: &str = "KEYSTEAD_TEST_CHILD";

/// Runs in a process of its own, because only that process may have these variables.
#[test]
fn region_credentials_and_endpoint_come_from_the_default_chains() {
    if std::env::var_os(CHILD).is_some() {
        return connected_by_the_default_chains();
    }
    let fixture = Fixture::new();
    let child = isolated(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "clojure_library::region_credentials_and_endpoint_come_from_the_default_chains",
            "--nocapture",
        ])
        .env(CHILD, fixture.path())
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .env("AWS_ENDPOINT_URL", fixture.bed.url())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    assert_eq!(fixture.operations(), ["PutParameter", "GetParameter"]);
}

#[tokio::main(flavor = "current_thread")]
async fn connected_by_the_default_chains() {
    let path = std::env::var(CHILD).unwrap();
    let store = SsmStore::builder(SsmConfig::new(KMS_KEY, path).unwrap()).connect().await.unwrap();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([1; 32]));
}

#[tokio::test]
async fn region_and_endpoint_can_be_set() {
    let fixture = Fixture::new();
    let elsewhere = keystead_aws_testbed::sdk_config("http://127.0.0.1:1").to_builder().region(None).build();
    let store = SsmStore::builder(fixture.config()).sdk_config(&elsewhere).region("us-east-1");
    let store = store.endpoint_url(fixture.bed.url()).build().unwrap();
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
}

#[tokio::test]
async fn ids_are_strings_and_lower_case_hyphenated_uuids() {
    let fixture = Fixture::new();
    let store = fixture.store();
    for (text, segment) in [
        ("67e55044-10b1-426f-9247-bb680e5fe0c8", "67e55044-10b1-426f-9247-bb680e5fe0c8"),
        ("user_1.x", "user_1.x"),
        ("alice@example.com", "--alice-40example.com"),
    ] {
        store.put_key(&id(text), &key([1; 32])).await.unwrap();
        assert_eq!(fixture.calls().last().unwrap().body["Name"], fixture.path().replace("%s", segment));
    }
}

#[tokio::test]
async fn get_decrypts_and_decodes() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key([0xfb, 0xff])).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([0xfb, 0xff]));
    let call = fixture.calls().pop().unwrap();
    assert_eq!((call.operation.as_str(), &call.body["WithDecryption"]), ("GetParameter", &json!(true)));
}

#[tokio::test]
async fn put_sends_what_the_clojure_library_sends_and_the_tier() {
    let fixture = Fixture::new();
    let value = "+/8BAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";
    let bytes: Vec<u8> = [0xfb, 0xff].into_iter().chain(1..64).collect();
    for (tier, name) in
        [(Tier::Standard, "Standard"), (Tier::Advanced, "Advanced"), (Tier::IntelligentTiering, "Intelligent-Tiering")]
    {
        let store =
            SsmStore::builder(fixture.config().tier(tier)).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
        store.put_key(&id("alice"), &key(bytes.clone())).await.unwrap();
        let sent = fixture.calls().pop().unwrap();
        assert_eq!(sent.operation, "PutParameter");
        let expected = json!({
            "Name": fixture.path().replace("%s", "alice"),
            "Type": "SecureString",
            "Overwrite": true,
            "KeyId": KMS_KEY,
            "Tier": name,
            "Value": value,
        });
        assert_eq!(sent.body, expected);
    }
}

#[tokio::test]
async fn delete_deletes() {
    let fixture = Fixture::new();
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(fixture.calls().pop().unwrap().operation, "DeleteParameter");
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
}

#[tokio::test]
async fn get_or_delete_of_a_missing_user_gives_the_clojure_librarys_error_map() {
    let fixture = Fixture::new();
    let store = fixture.store();
    let errors = [store.get_key(&id("nobody")).await.unwrap_err(), store.delete_key(&id("nobody")).await.unwrap_err()];
    for (error, operation) in errors.iter().zip([Operation::Get, Operation::Delete]) {
        assert_eq!((error.kind(), error.operation(), error.store()), (ErrorKind::NotFound, operation, "ssm"));
        let details = error.details().unwrap();
        assert_eq!(details.error_code.as_deref(), Some("ParameterNotFound"));
        assert_eq!(details.error_type, Some(ErrorType::Client));
        assert_eq!(details.status_code, Some(400));
        assert!(details.request_id.as_ref().is_some_and(|id| !id.is_empty()));
        assert_eq!(details.service_name.as_deref(), Some("AWSSimpleSystemsManagement"));
        // AWS gives no message for a missing parameter.
        assert_eq!(details.message, None);
    }
}

#[tokio::test]
async fn unknown_kms_key_is_invalid_key_id() {
    let fixture = Fixture::new();
    let config = SsmConfig::new("alias/no-such-key", fixture.path()).unwrap();
    let store = SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
    let error = store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
    let details = error.details().unwrap();
    assert_eq!(details.error_code.as_deref(), Some("InvalidKeyId"));
    assert_eq!(details.message.as_deref(), Some("Invalid keyId alias/no-such-key"));
}

#[tokio::test]
async fn no_value_in_the_answer_is_crypt_key_not_found() {
    let fixture = Fixture::new();
    let name = fixture.path().replace("%s", "alice");
    for answer in [json!({}), json!({"Parameter": {"Name": name, "Type": "SecureString"}})] {
        fixture.answer("GetParameter", 1, 200, answer);
        let error = fixture.store().get_key(&id("alice")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.details().unwrap().error_code.as_deref(), Some("CryptKeyNotFound"));
    }
}

#[tokio::test]
async fn bad_configuration_is_refused_before_any_call() {
    let fixture = Fixture::new();
    assert!(SsmConfig::new("", fixture.path()).is_err());
    assert!(SsmConfig::new(KMS_KEY, format!("/{}/user-keys", fixture.ns)).is_err());
    let error = SsmStore::builder(fixture.config()).build().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
    let mut nobody = fixture.bed.sdk_config().to_builder();
    nobody.set_credentials_provider(None);
    let error = SsmStore::builder(fixture.config()).sdk_config(&nobody.build()).build().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
    let nowhere = fixture.bed.sdk_config().to_builder().region(None).build();
    let error = SsmStore::builder(fixture.config()).sdk_config(&nowhere).build().unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
    assert!(fixture.calls().is_empty());
}

//! boto3 writes parameters as the Clojure library does, and reads ours. It calls the emulator
//! itself and bypasses the proxy.

use std::io::Write;
use std::process::Stdio;

use keystead_aws_testbed::{KMS_KEY, KMS_KEY_ARN, isolated, python};
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_ssm::{SsmConfig, SsmStore};
use serde_json::{Value, json};

use crate::{Fixture, id, key};

/// Writes the parameters under "put" and prints those under "get".
const PROGRAM: &str = r#"
import json, sys
import boto3
from botocore.config import Config

work = json.load(sys.stdin)
ssm = boto3.client("ssm", endpoint_url=work["url"], region_name="us-east-1", aws_access_key_id="AKIDTEST",
                   aws_secret_access_key="secret", config=Config(proxies={}))
for parameter in work["put"]:
    ssm.put_parameter(Overwrite=True, **parameter)
print(json.dumps([ssm.get_parameter(Name=name, WithDecryption=True)["Parameter"] for name in work["get"]], default=str))
"#;

fn boto3(fixture: &Fixture, put: Vec<Value>, get: Vec<String>) -> Vec<Value> {
    let work = json!({"url": fixture.bed.emulator_url(), "put": put, "get": get});
    let mut child =
        isolated(python().unwrap()).args(["-c", PROGRAM]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(work.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Base64 from another implementation than the store's.
fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn lengths() -> Vec<SecretKey> {
    [1, 2, 3, 16, 31, 32, 33, 64, 255, 3071, 3072].map(|len| SecretKey::generate(len).unwrap()).into()
}

#[tokio::test]
async fn values_of_the_clojure_library_are_read() {
    let fixture = Fixture::new();
    let name = |id: &str| fixture.path().replace("%s", id);
    let mut put = Vec::new();
    for (number, key) in lengths().iter().enumerate() {
        let kms_key = if number % 2 == 0 { KMS_KEY } else { KMS_KEY_ARN };
        let value = base64(key.expose_secret());
        let name = name(&format!("67e55044-10b1-426f-9247-bb680e5f{number:04}"));
        put.push(json!({"Name": name, "Type": "SecureString", "KeyId": kms_key, "Value": value}));
    }
    let written: Vec<String> = put.iter().map(|entry| entry["Value"].as_str().unwrap().to_owned()).collect();
    boto3(&fixture, put, Vec::new());
    let store = fixture.store();
    for (number, value) in written.iter().enumerate() {
        let key = store.get_key(&id(&format!("67e55044-10b1-426f-9247-bb680e5f{number:04}"))).await.unwrap();
        assert_eq!(base64(key.expose_secret()), *value);
    }
}

#[tokio::test]
async fn our_values_are_read_by_boto3() {
    let fixture = Fixture::new();
    for kms_key in [KMS_KEY, KMS_KEY_ARN] {
        let config = SsmConfig::new(kms_key, fixture.path()).unwrap();
        let store = SsmStore::builder(config).sdk_config(&fixture.bed.sdk_config()).build().unwrap();
        for key in lengths() {
            store.put_key(&id("alice@example.com"), &key).await.unwrap();
            let read = boto3(&fixture, Vec::new(), vec![fixture.path().replace("%s", "--alice-40example.com")]);
            assert_eq!(read[0]["Value"], base64(key.expose_secret()));
            assert_eq!(read[0]["Type"], "SecureString");
        }
    }
}

#[tokio::test]
async fn values_are_read_as_javas_basic_decoder_reads_them() {
    let fixture = Fixture::new();
    let cases: [(&str, Option<&[u8]>); 9] = [
        ("QUJD", Some(b"ABC")),
        ("QQ==", Some(b"A")),
        ("QQ", Some(b"A")),
        ("QUI", Some(b"AB")),
        ("QR==", Some(b"A")),
        ("QQ=", None),
        ("Q", None),
        ("-_-_", None),
        ("QU JD", None),
    ];
    let entry = |(number, (value, _)): (usize, &(&str, Option<&[u8]>))| {
        let name = fixture.path().replace("%s", &format!("user-{number}"));
        json!({"Name": name, "Type": "SecureString", "KeyId": KMS_KEY, "Value": value})
    };
    boto3(&fixture, cases.iter().enumerate().map(entry).collect(), Vec::new());
    let store = fixture.store();
    for (number, (value, bytes)) in cases.iter().enumerate() {
        let read = store.get_key(&id(&format!("user-{number}"))).await;
        match bytes {
            Some(bytes) => assert_eq!(read.unwrap(), key(*bytes), "{value}"),
            None => assert_eq!(read.unwrap_err().kind(), ErrorKind::Corrupt, "{value}"),
        }
    }
}

#[tokio::test]
async fn a_parameter_of_another_kind_is_not_overwritten_by_a_create_and_can_be_deleted() {
    let fixture = Fixture::new();
    let name = fixture.path().replace("%s", "alice");
    boto3(&fixture, vec![json!({"Name": name, "Type": "String", "Value": "not a key"})], Vec::new());
    let store = fixture.store();
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.create_key(&id("alice"), &key([1; 32])).await.unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(store.get_or_create_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(boto3(&fixture, Vec::new(), vec![name])[0]["Value"], "not a key");
    store.delete_key(&id("alice")).await.unwrap();
    assert_eq!(store.find_key(&id("alice")).await.unwrap(), None);
}

//! Tests of opening AWS stores by URL, against the test bed.
#![cfg(all(feature = "ssm", feature = "secretsmanager"))]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;

use keystead::{DeletionGrade, ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};
use keystead_aws_testbed::{KMS_KEY, LoggedCall, TestBed, isolated};
use keystead_conformance::Namespace;

/// The variable with the URLs that a child process opens.
const CHILD: &str = "KEYSTEAD_TEST_CHILD";

/// The test runs in a separate process, which alone has these variables.
#[test]
fn aws_stores_are_opened_with_the_default_chains() {
    if let Ok(urls) = std::env::var(CHILD) {
        return urls.split(' ').for_each(opened);
    }
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", bed.url());
    let urls = [
        format!("ssm:///{ns}/user-keys/%s?{at}&tier=advanced"),
        format!("ssm:///{ns}/user-keys/%25s?{at}"),
        format!("secretsmanager:///{ns}/user-keys/%s?{at}"),
        format!("secretsmanager:///{ns}/user-keys/%s?{at}&recovery_window_days=7"),
    ];
    in_a_child("aws_stores_are_opened_with_the_default_chains", &urls);
    let calls = bed.calls(ns.as_str());
    let puts: Vec<_> = calls.iter().filter(|call| call.operation == "PutParameter").collect();
    assert_eq!(
        puts.iter().map(|call| call.body["Tier"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Advanced", "Standard"]
    );
}

/// Runs this test again in a separate process, with these URLs.
fn in_a_child(test: &str, urls: &[String]) {
    let child = isolated(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, urls.join(" "))
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
fn what_organizations_require_is_taken_from_the_url() {
    if let Ok(urls) = std::env::var(CHILD) {
        return urls.split(' ').for_each(opened);
    }
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", bed.url());
    let settings = "tag.owner=privacy%20team&tag.cost%2Dcenter=a=b&description=user%20key";
    bed.require_tags(ns.as_str(), &["owner", "cost-center"]);
    bed.set_default_tier(ns.as_str(), "Advanced");
    let urls = [
        format!("ssm:///{ns}/user-keys/%s?{at}&tier=account-default&{settings}"),
        format!("secretsmanager:///{ns}/user-keys/%s?{at}&{settings}&replica_region.eu-west-1=alias/there"),
    ];
    in_a_child("what_organizations_require_is_taken_from_the_url", &urls);
    let mut calls = bed.calls(ns.as_str());
    calls.retain(|call| ["PutParameter", "CreateSecret"].contains(&call.operation.as_str()));
    let [put, create] = calls.as_slice() else { panic!("{calls:?}") };
    assert!(put.body["Tier"].is_null(), "{put:?}");
    for LoggedCall { body, .. } in [put, create] {
        for (index, key, value) in [(0, "owner", "privacy team"), (1, "cost-center", "a=b")] {
            assert!(body["Tags"][index]["Key"] == key && body["Tags"][index]["Value"] == value, "{body}");
        }
        assert_eq!(body["Description"], "user key");
    }
    let replica = &create.body["AddReplicaRegions"][0];
    assert!(replica["Region"] == "eu-west-1" && replica["KmsKeyId"] == "alias/there", "{replica}");
}

#[test]
fn a_legacy_path_is_only_read() {
    if let Ok(url) = std::env::var(CHILD) {
        return read_only(&url);
    }
    let bed = TestBed::shared().unwrap();
    let ns = Namespace::random();
    let at = format!("region=us-east-1&endpoint_url={}", bed.url());
    in_a_child("a_legacy_path_is_only_read", &[format!("ssm:///{ns}-%s?legacy=true&{at}")]);
    let operations: Vec<_> = bed.calls(ns.as_str()).into_iter().map(|call| call.operation).collect();
    assert_eq!(operations, ["GetParameter"]);
}

#[tokio::main(flavor = "current_thread")]
async fn read_only(url: &str) {
    let store = keystead::open(url).await.unwrap();
    let id = KeyId::new("alice").unwrap();
    assert_eq!(store.find_key(&id).await.unwrap(), None);
    let refusal = store.put_key(&id, &SecretKey::new([1; 32]).unwrap()).await.unwrap_err();
    assert_eq!(refusal.kind(), ErrorKind::Unsupported);
}

#[tokio::main(flavor = "current_thread")]
async fn opened(url: &str) {
    let store = keystead::open(url).await.unwrap();
    let id = KeyId::new("alice").unwrap();
    let key = SecretKey::new([1; 32]).unwrap();
    store.check().await.unwrap();
    store.put_key(&id, &key).await.unwrap();
    assert_eq!(store.get_key(&id).await.unwrap(), key);
    let recoverable = matches!(store.capabilities().deletion, DeletionGrade::Recoverable { .. });
    assert_eq!(recoverable, url.contains("recovery_window_days"));
    store.delete_key(&id).await.unwrap();
}

#[tokio::test]
async fn what_will_not_do_is_refused_before_any_call_and_not_quoted() {
    for (url, word) in [
        ("ssm:///hunter2/%s", "kms_key"),
        ("ssm:///hunter2/%s?kms_key=alias/app&tier=cheap", "tier"),
        ("ssm:///hunter2?kms_key=alias/app", "%s"),
        ("ssm:///aws/%s?kms_key=alias/app", "aws or ssm"),
        ("ssm:///app/%s?kms_key=alias/app&secret_access_key=hunter2", "unknown parameter"),
        ("ssm:///app/%s?kms_key=alias/app&kms_key=hunter2", "twice"),
        ("ssm://hunter2:x@/app/%s?kms_key=alias/app", "user info"),
        ("secretsmanager:///hunter2/%s", "kms_key"),
        ("secretsmanager:///app/%s?kms_key=alias/app&recovery_window_days=3", "7 to 30"),
        ("secretsmanager:///app/%s?kms_key=alias/app&recovery_window_days=soon", "7 to 30"),
        ("secretsmanager:///app/%s?kms_key=alias/app&tier=standard", "unknown parameter"),
        ("ssm:///app/%s?kms_key=alias/app&tag.aws:hunter2=x", "aws:"),
        ("ssm:///app/%s?kms_key=alias/app&tag.=hunter2", "tag's key"),
        ("ssm:///app/%s?kms_key=alias/app&tag.a=hunter2&tag.%61=x", "same key"),
        ("secretsmanager:///app/%s?kms_key=alias/app&tag.owner=hunter2%0A", "tag's value"),
        ("ssm:///app/%s?kms_key=alias/app&description=hunter2%FF", "UTF-8"),
        ("ssm:///app/%s?kms_key=alias/app&replica_region.eu-west-1=hunter2", "unknown parameter"),
        ("secretsmanager:///app/%s?kms_key=alias/app&replica_region.hunter2=alias/app", "region"),
        ("secretsmanager:///app/%s?kms_key=alias/app&replica_region.eu-west-1=", "replica's KMS key"),
        ("secretsmanager:///%s?legacy=true", "unknown parameter"),
        ("ssm:///hunter2-%s?kms_key=alias/app", "first segment"),
        ("ssm:///hunter2-%s?legacy=hunter2", "true nor false"),
        ("ssm:///hunter2-%s?legacy=true&tag.owner=x", "only read"),
        ("ssm:arn:aws:ssm:eu-west-1:123456789012:parameter/hunter2/%s?kms_key=alias/app", "assume a role"),
        ("secretsmanager:arn:aws:secretsmanager:eu-west-1:1:secret:hunter2/%s?kms_key=alias/app", "assume a role"),
    ] {
        let error = keystead::open(url).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open), "{url}");
        let text = format!("{error}: {}", error.source().unwrap());
        assert!(text.contains(word) && !format!("{text} {error:?}").contains("hunter2"), "{url}: {text}");
    }
}

#[tokio::test]
async fn only_the_url_of_a_parameter_store_is_opened_as_one() {
    let path = "///hunter2/%s?kms_key=alias/app&region=us-east-1";
    for url in [format!("secretsmanager:{path}"), format!("ssm:{path}&tier=cheap"), "memory:".to_owned()] {
        let error = keystead::ssm::open(&url).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open), "{url}");
        assert!(!format!("{error:?} {}", error.source().unwrap()).contains("hunter2"), "{url}");
    }
}

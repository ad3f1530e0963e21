//! AWS stores from URLs, over the test bed.
#![cfg(all(feature = "ssm", feature = "secretsmanager"))]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;

use keystead::{DeletionGrade, ErrorKind, KeyId, KeyStoreExt, Operation, SecretKey};
use keystead_aws_testbed::{KMS_KEY, TestBed, isolated};
use keystead_conformance::Namespace;

/// The URLs that a child opens, in one variable.
const CHILD: &str = "KEYSTEAD_TEST_CHILD";

/// In a process of its own, which alone has these variables.
#[test]
fn aws_stores_are_opened_with_the_default_chains() {
    if let Ok(urls) = std::env::var(CHILD) {
        return urls.split(' ').for_each(opened);
    }
    let (bed, ns) = (TestBed::shared().unwrap(), Namespace::random());
    let at = format!("kms_key={KMS_KEY}&region=us-east-1&endpoint_url={}", bed.url());
    let urls = [
        format!("ssm:///{ns}/user-keys/%s?{at}&tier=advanced"),
        format!("ssm:///{ns}/user-keys/%25s?{at}"),
        format!("secretsmanager:///{ns}/user-keys/%s?{at}"),
        format!("secretsmanager:///{ns}/user-keys/%s?{at}&recovery_window_days=7"),
    ];
    let child = isolated(std::env::current_exe().unwrap())
        .args(["--exact", "aws_stores_are_opened_with_the_default_chains", "--nocapture"])
        .env(CHILD, urls.join(" "))
        .env("AWS_ACCESS_KEY_ID", "AKIDTEST")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
    let calls = bed.calls(ns.as_str());
    let puts: Vec<_> = calls.iter().filter(|call| call.operation == "PutParameter").collect();
    assert_eq!(
        puts.iter().map(|call| call.body["Tier"].as_str().unwrap()).collect::<Vec<_>>(),
        ["Advanced", "Standard"]
    );
}

#[tokio::main(flavor = "current_thread")]
async fn opened(url: &str) {
    let store = keystead::open(url).await.unwrap();
    let (id, key) = (KeyId::new("alice").unwrap(), SecretKey::new([1; 32]).unwrap());
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

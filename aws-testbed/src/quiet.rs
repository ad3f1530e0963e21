//! [`assert_nothing_leaks`]: checks that no trace and no error shows a key or an id.

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use keystead_conformance::{Fault, Faults, Namespace};
use keystead_core::{Error, KeyId, KeyStore, KeyStoreExt, SecretKey};
use serde_json::json;

use crate::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, TestBed, TraceCapture};

const KEY: &str = "canary-key-0123456789-abcdefghij";
const ID: &str = "canaryid7x5q@example.com";

/// Makes every call of this store under every fault, and with refusals of these operations that
/// quote everything, and checks all traces and all forms of all errors. It captures the traces of
/// the whole process, so it must be the only test of its program.
///
/// # Panics
/// If a key or an id is shown anywhere, or if nothing is captured.
pub async fn assert_nothing_leaks(store: &dyn KeyStore, bed: &'static TestBed, ns: &Namespace, operations: &[&str]) {
    let capture = TraceCapture::default();
    let writer = capture.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    tracing::trace!("listening");

    every_call(store).await;
    let faults = bed.faults(Duration::from_secs(5));
    for fault in [
        Fault::Throttled { retry_after: Some(Duration::from_secs(1)) },
        Fault::Denied,
        Fault::ExpiredCredentials,
        Fault::KeyUnavailable,
        Fault::ServerError,
        Fault::Garbage,
        Fault::Truncated,
        Fault::ResetBeforeSend,
        Fault::ResetAfterApply,
        Fault::Silent,
        Fault::SlowBody,
    ] {
        faults.clear(ns).await.expect("the bed clears");
        drop(store.put_key(&id(), &key()).await);
        faults.inject(ns, None, fault, 1000).await.expect("the bed injects");
        every_call(store).await;
    }
    faults.clear(ns).await.expect("the bed clears");

    // The codes are those that AWS has, and one that it does not have.
    let value = base64(KEY);
    for code in ["ValidationException", "AccessDeniedException", "InvalidKeyId", "DecryptionFailure", "NewException"] {
        let message =
            format!("Value '{KEY}' ({value}) at {ID} of /{ns}/user-keys/--canaryid7x5q-40example.com is wrong");
        for operation in operations {
            bed.answer(operation, ns.as_str(), 3, 400, json!({"__type": code, "message": message}).to_string());
        }
        every_call(store).await;
    }

    let text = capture.text();
    assert!(text.contains("listening"), "the subscriber hears nothing");
    assert!(capture.attempts().len() > operations.len(), "the attempts of calls are not told");
    assert_clean(&text);
}

fn id() -> KeyId {
    KeyId::new(ID).expect("the id is valid")
}

fn key() -> SecretKey {
    SecretKey::new(KEY).expect("the key is valid")
}

async fn every_call(store: &dyn KeyStore) {
    let id = id();
    let key = key();
    let ids = [id.clone(), KeyId::new("other").expect("the id is valid")];
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(store.put_key(&id, &key).await.err());
    errors.extend(store.get_key(&id).await.err());
    errors.extend(store.create_key(&id, &key).await.err());
    errors.extend(store.get_keys(&ids).await.into_iter().filter_map(Result::err));
    errors.extend(store.list_keys().filter_map(|id| async { id.err() }).collect::<Vec<_>>().await);
    errors.extend(store.check().await.err());
    errors.extend(store.delete_key(&id).await.err());
    errors.extend(store.identify().await.err());
    assert_clean(&format!("{0} {0:?} {store:?}", store.info()));
    for error in errors {
        let mut text = format!("{error} {error:?} {error:#?} {:?}", error.details());
        let mut cause = error.source();
        while let Some(e) = cause {
            text.push_str(&format!(" {e} {e:?} {e:#?}"));
            cause = e.source();
        }
        assert_clean(&text);
    }
}

fn assert_clean(text: &str) {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<String> = KEY.bytes().take(8).map(|byte| byte.to_string()).collect();
    let credentials = [ACCESS_KEY_ID, SECRET_ACCESS_KEY];
    let spellings = [&base64(KEY)[..16], &hex[..16], &decimal.join(", ")];
    let wanted = ["canary-key", "canaryid7x5q"].into_iter().chain(credentials).chain(spellings);
    for secret in wanted {
        if let Some(at) = text.find(secret) {
            let start = text.floor_char_boundary(at.saturating_sub(400));
            panic!("{secret} is shown: {}", &text[start..at]);
        }
    }
}

fn base64(text: &str) -> String {
    STANDARD.encode(text)
}

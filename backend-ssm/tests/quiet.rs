//! Nothing that is traced, at any level, and no rendering of any error shows a key or an id, whatever goes wrong.
//!
//! One test in a program of its own: it listens to the whole process.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use keystead_aws_testbed::{KMS_KEY, TestBed};
use keystead_conformance::{Fault, Faults, Namespace};
use keystead_core::{Error, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_ssm::{SsmConfig, SsmStore};
use serde_json::json;

const KEY: &str = "canary-key-0123456789-abcdefghij";
const ID: &str = "canaryid7x5q@example.com";

#[derive(Clone, Default)]
struct Traced(Arc<Mutex<Vec<u8>>>);

impl io::Write for Traced {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_error_and_no_trace_shows_a_key_or_an_id() {
    let traced = Traced::default();
    let writer = traced.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    tracing::trace!("listening");

    let (bed, ns) = (TestBed::shared().unwrap(), Namespace::random());
    let config = SsmConfig::new(KMS_KEY, format!("/{ns}/user-keys/%s")).unwrap();
    let store = SsmStore::builder(config).sdk_config(&bed.sdk_config()).visibility_bound(Duration::from_millis(50));
    let store = store.attempt_timeout(Duration::from_millis(500)).operation_timeout(Duration::from_secs(1));
    let store = store.build().unwrap();
    let faults = bed.faults(Duration::from_secs(5));

    every_call(&store).await;
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
        faults.clear(&ns).await.unwrap();
        drop(store.put_key(&KeyId::new(ID).unwrap(), &SecretKey::new(KEY).unwrap()).await);
        faults.inject(&ns, None, fault, 1000).await.unwrap();
        every_call(&store).await;
    }
    faults.clear(&ns).await.unwrap();

    // AWS-shaped refusals that quote everything, in codes that AWS has and in one that it has not.
    let value = base64(KEY);
    for code in ["ValidationException", "AccessDeniedException", "InvalidKeyId", "ParameterNotFound", "NewException"] {
        let message =
            format!("Value '{KEY}' ({value}) at {ID} of /{ns}/user-keys/--canaryid7x5q-40example.com is wrong");
        for operation in ["GetParameter", "GetParameters", "PutParameter", "DeleteParameter", "GetParametersByPath"] {
            bed.answer(operation, ns.as_str(), 3, 400, json!({"__type": code, "message": message}).to_string());
        }
        every_call(&store).await;
    }

    let text = String::from_utf8_lossy(&traced.0.lock().unwrap()).into_owned();
    assert!(text.contains("listening"), "the subscriber hears nothing");
    shows_nothing(&text);
}

async fn every_call(store: &SsmStore) {
    let (id, key) = (KeyId::new(ID).unwrap(), SecretKey::new(KEY).unwrap());
    let ids = [id.clone(), KeyId::new("other").unwrap()];
    let mut errors: Vec<Error> = Vec::new();
    errors.extend(store.put_key(&id, &key).await.err());
    errors.extend(store.get_key(&id).await.err());
    errors.extend(store.create_key(&id, &key).await.err());
    errors.extend(store.get_keys(&ids).await.into_iter().filter_map(Result::err));
    errors.extend(store.list_keys().filter_map(|id| async { id.err() }).collect::<Vec<_>>().await);
    errors.extend(store.check().await.err());
    errors.extend(store.delete_key(&id).await.err());
    for error in errors {
        let mut text = format!("{error} {error:?} {error:#?} {:?}", error.details());
        let mut cause = error.source();
        while let Some(e) = cause {
            text.push_str(&format!(" {e} {e:?} {e:#?}"));
            cause = e.source();
        }
        shows_nothing(&text);
    }
}

fn shows_nothing(text: &str) {
    let hex: String = KEY.bytes().map(|byte| format!("{byte:02x}")).collect();
    let decimal: Vec<String> = KEY.bytes().take(8).map(|byte| byte.to_string()).collect();
    let wanted = ["canary-key", "canaryid7x5q", &base64(KEY)[..16], &hex[..16], &decimal.join(", ")];
    for secret in wanted {
        if let Some(at) = text.find(secret) {
            let start = text.floor_char_boundary(at.saturating_sub(400));
            panic!("{secret} is shown: {}", &text[start..at]);
        }
    }
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

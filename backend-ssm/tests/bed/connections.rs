//! Connections that fail, and answers that end before they are complete.

use std::error::Error as StdError;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use keystead_conformance::{Fault, Faults};
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_ssm::SsmStore;

use crate::{Fixture, id, key};

fn cause(error: &Error) -> String {
    error.source().unwrap().to_string()
}

/// Returns the error of a put at this endpoint, over the SDK's own HTTP client.
async fn refusal(url: &str) -> Error {
    let fixture = Fixture::new();
    let config = fixture.bed.sdk_config().to_builder();
    let mut config = config.endpoint_url(url);
    config.set_http_client(None);
    let store = SsmStore::builder(fixture.config()).sdk_config(&config.build()).sdk_attempts(1).build().unwrap();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err()
}

/// Starts a server that reads a request and gives this answer on each connection.
fn server(answer: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(answer);
        }
    });
    authority
}

/// A fatal alert (RFC 8446, section 6), which is what a TLS server answers to a request without
/// TLS.
const TLS_ALERT: &[u8] = &[0x15, 3, 3, 0, 2, 2, 10];

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_host_that_does_not_exist_is_distinguished_from_one_that_does_not_answer() {
    let error = refusal("http://nowhere.invalid").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(error.is_retryable() && cause(&error).contains("host name is unknown"), "{error:?}");
    assert!(!format!("{error:?}").contains("nowhere"), "{error:?}");
    let error = refusal("http://127.0.0.1:1").await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(!cause(&error).contains("host name"), "{error:?}");
}

#[tokio::test]
async fn https_to_a_port_without_tls_says_so() {
    let error = refusal(&format!("https://{}", server(BAD_REQUEST))).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(cause(&error).contains("does not speak TLS") && cause(&error).contains("http://"), "{error:?}");
}

#[tokio::test]
async fn a_handshake_that_ends_was_never_a_request() {
    for answer in [&b""[..], TLS_ALERT] {
        let error = refusal(&format!("https://{}", server(answer))).await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
        assert!(cause(&error).contains("TLS handshake failed"), "{error:?}");
    }
}

#[tokio::test]
async fn http_to_a_port_with_tls_says_so() {
    let error = refusal(&format!("http://{}", server(TLS_ALERT))).await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(cause(&error).contains("not HTTP") && cause(&error).contains("https://"), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_is_cut_off_is_unavailable_and_may_have_been_applied() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.builder().sdk_attempts(1).build().unwrap();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    for (operation, effect) in [(Operation::Get, Effect::NotApplied), (Operation::Put, Effect::Unknown)] {
        for fault in [Fault::Truncated, Fault::ResetAfterApply] {
            faults.inject(&fixture.ns, Some(operation), fault.clone(), 1).await.unwrap();
            let error = match operation {
                Operation::Get => store.get_key(&id("alice")).await.unwrap_err(),
                _ => store.put_key(&id("alice"), &key([1; 32])).await.unwrap_err(),
            };
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, effect), "{fault:?}");
            assert!(error.is_retryable(), "{fault:?}");
        }
    }
    // A complete answer that cannot be parsed does not come from Parameter Store.
    faults.inject(&fixture.ns, Some(Operation::Get), Fault::Garbage, 1).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn an_answer_that_is_cut_off_once_is_asked_for_again() {
    let fixture = Fixture::new();
    let faults = fixture.bed.faults(Duration::from_secs(5));
    let store = fixture.store();
    store.put_key(&id("alice"), &key([1; 32])).await.unwrap();
    faults.inject(&fixture.ns, Some(Operation::Get), Fault::Truncated, 1).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key([1; 32]));
}

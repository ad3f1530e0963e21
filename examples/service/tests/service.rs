//! The service over stores in memory, some of which fail.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Method, Request, StatusCode};
use keystead::layers::{Fault, Faulty};
use keystead::memory::MemoryStore;
use keystead::{
    BoxStream, Capabilities, Deletion, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result, SecretKey,
    StoreInfo, async_trait,
};
use keystead_example_service::{ProfileTable, StackConfig, router};
use serde_json::{Value, json};
use tower::ServiceExt;

const PROFILE: &str = "/users/alice@example.com/profile";
const USER: &str = "/users/alice@example.com";
const RETURN: &str = "/users/alice@example.com/return";

/// The status, the seconds of `Retry-After` and the body of an answer.
#[derive(Debug)]
struct Answer {
    status: StatusCode,
    retry_after: Option<u64>,
    body: Value,
}

/// Sends one request to the service.
async fn send(app: &Router, method: Method, path: &str, body: Option<Value>) -> Answer {
    let body = body.map_or(Body::empty(), |body| Body::from(body.to_string()));
    let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
    let response = app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    let status = response.status();
    let retry_after = response.headers().get(RETRY_AFTER).map(|value| value.to_str().unwrap().parse().unwrap());
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    let body = serde_json::from_slice(&body).unwrap_or_else(|_| text());
    Answer { status, retry_after, body }
}

fn profile() -> Value {
    json!({ "name": "Alice", "address": "12 Elm Street" })
}

/// A service over these keys, without a cache.
fn service_over(keys: impl KeyStore) -> (Router, Arc<ProfileTable>) {
    let config = StackConfig { cache_ttl: None, ..StackConfig::default() };
    let profiles = Arc::<ProfileTable>::default();
    let keys = config.build(keys, MemoryStore::new()).unwrap();
    (router(keys, profiles.clone()), profiles)
}

fn alice() -> KeyId {
    KeyId::new("alice@example.com").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_profile_is_stored_encrypted_and_read_decrypted() {
    let (app, profiles) = service_over(MemoryStore::new());
    assert_eq!(send(&app, Method::PUT, PROFILE, Some(profile())).await.status, StatusCode::NO_CONTENT);

    let stored = profiles.get(&alice()).unwrap();
    assert!(!String::from_utf8_lossy(&stored).contains("Elm"));

    let answer = send(&app, Method::GET, PROFILE, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body, profile());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_user_is_not_found_and_gets_no_key_by_reading() {
    let store = Arc::new(MemoryStore::new());
    let (app, _) = service_over(store.clone());
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(store.find_key(&alice()).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_forgotten_user_is_gone_for_readers_and_writers() {
    let (app, profiles) = service_over(MemoryStore::new());
    send(&app, Method::PUT, PROFILE, Some(profile())).await;
    let kept_in_a_backup = profiles.get(&alice()).unwrap();

    let answer = send(&app, Method::DELETE, USER, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["state"], "erased");
    let receipt = &answer.body["receipt"];
    assert_eq!((&receipt["existed"], &receipt["verified"]), (&json!(true), &json!(true)));
    assert_eq!(receipt["finality"], "immediate");
    assert!(!answer.body.to_string().contains("alice"));
    assert_eq!(profiles.get(&alice()), None);

    profiles.insert(&alice(), kept_in_a_backup);
    let read = send(&app, Method::GET, PROFILE, None).await;
    assert_eq!((read.status, &read.body), (StatusCode::GONE, &json!({ "error": "erased" })));
    let written = send(&app, Method::PUT, PROFILE, Some(profile())).await;
    assert_eq!((written.status, &written.body), (StatusCode::GONE, &json!({ "error": "erased" })));
}

#[tokio::test(start_paused = true)]
async fn a_user_can_be_forgotten_twice_and_without_a_profile() {
    let (app, _) = service_over(MemoryStore::new());
    for _ in 0..2 {
        let answer = send(&app, Method::DELETE, USER, None).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.body["receipt"]["existed"], false);
    }
}

#[tokio::test(start_paused = true)]
async fn a_user_who_returns_gets_a_new_key() {
    let (app, profiles) = service_over(MemoryStore::new());
    send(&app, Method::PUT, PROFILE, Some(profile())).await;
    let kept_in_a_backup = profiles.get(&alice()).unwrap();
    send(&app, Method::DELETE, USER, None).await;

    assert_eq!(send(&app, Method::POST, RETURN, None).await.status, StatusCode::NO_CONTENT);
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(send(&app, Method::PUT, PROFILE, Some(json!("new"))).await.status, StatusCode::NO_CONTENT);
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.body, json!("new"));

    // The new key does not decrypt the old profile.
    profiles.insert(&alice(), kept_in_a_backup);
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test(start_paused = true)]
async fn a_user_returns_only_when_every_cache_has_forgotten_the_key() {
    let keys = StackConfig::default().build(MemoryStore::new(), MemoryStore::new()).unwrap();
    let app = router(keys, Arc::default());
    send(&app, Method::PUT, PROFILE, Some(profile())).await;
    send(&app, Method::DELETE, USER, None).await;

    let answer = send(&app, Method::POST, RETURN, None).await;
    assert_eq!(answer.status, StatusCode::CONFLICT);
    assert!(answer.retry_after.unwrap() >= 300, "{answer:?}");
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.status, StatusCode::GONE);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_throttles_makes_the_service_unavailable() {
    let pause = Duration::from_millis(59_500);
    for operation in [Operation::Get, Operation::Create, Operation::Erase] {
        let throttled = Fault::error(ErrorKind::Throttled).on(operation).retry_after(pause).times(u32::MAX);
        let store = Arc::new(Faulty::builder(MemoryStore::new()).fault(throttled).build().unwrap());
        let (app, profiles) = service_over(store.clone());
        let method = if operation == Operation::Erase { Method::DELETE } else { Method::PUT };
        let path = if operation == Operation::Erase { USER } else { PROFILE };

        let answer = send(&app, method, path, Some(profile())).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.retry_after, Some(60));
        assert_eq!(answer.body, json!({ "error": "unavailable" }));
        assert_eq!(profiles.get(&alice()), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_makes_the_service_unavailable() {
    let hang = Fault::hang().on(Operation::Get).times(u32::MAX);
    let (app, _) = service_over(Faulty::builder(MemoryStore::new()).fault(hang).build().unwrap());
    let answer = send(&app, Method::GET, PROFILE, None).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.retry_after, Some(1));
}

#[tokio::test(start_paused = true)]
async fn one_throttled_attempt_is_tried_again() {
    let throttled = Fault::error(ErrorKind::Throttled).on(Operation::Get);
    let (app, _) = service_over(Faulty::builder(MemoryStore::new()).fault(throttled).build().unwrap());
    assert_eq!(send(&app, Method::PUT, PROFILE, Some(profile())).await.status, StatusCode::NO_CONTENT);
}

#[tokio::test(start_paused = true)]
async fn other_failures_say_nothing_about_their_cause() {
    for kind in [ErrorKind::PermissionDenied, ErrorKind::Corrupt, ErrorKind::KeyUnavailable] {
        let fault = Fault::error(kind).on(Operation::Get);
        let (app, _) = service_over(Faulty::builder(MemoryStore::new()).fault(fault).build().unwrap());
        let answer = send(&app, Method::GET, PROFILE, None).await;
        assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(answer.body, json!({ "error": "internal error" }));
    }
}

#[tokio::test(start_paused = true)]
async fn an_erasure_that_cannot_be_verified_is_not_reported_as_done() {
    let faulty = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let (app, _) = service_over(ReadsItsProof(faulty.clone()));
    send(&app, Method::PUT, PROFILE, Some(profile())).await;

    faulty.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));
    let answer = send(&app, Method::DELETE, USER, None).await;
    assert_eq!(faulty.pending(), 0, "the proof was not read");
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert_eq!(answer.body["state"], "not-verified");
    assert_eq!(answer.body["receipt"]["verified"], false);
    // The tombstone is there, whatever became of the key.
    assert_eq!(send(&app, Method::GET, PROFILE, None).await.status, StatusCode::GONE);

    let answer = send(&app, Method::DELETE, USER, None).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["state"], "erased");
}

#[tokio::test(start_paused = true)]
async fn a_malformed_id_is_refused_without_being_repeated() {
    let (app, _) = service_over(MemoryStore::new());
    let long = "mallory".repeat(20);
    let answer = send(&app, Method::GET, &format!("/users/{long}/profile"), None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.body.to_string().contains("mallory"), "{answer:?}");
}

/// A store that proves an erasure as the trait's default does: with a read of its own, which can
/// meet a fault.
#[derive(Debug)]
struct ReadsItsProof(Arc<Faulty<MemoryStore>>);

#[async_trait]
impl KeyStore for ReadsItsProof {
    fn info(&self) -> StoreInfo {
        self.0.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.0.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.0.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.0.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.0.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }
}

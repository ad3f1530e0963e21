//! Nothing that is logged names a user or contains personal data.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, Request};
use keystead::layers::{Fault, Faulty};
use keystead::memory::MemoryStore;
use keystead::{ErrorKind, KeyStore, Operation};
use keystead_example_service::{StackConfig, router};
use tower::ServiceExt;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::format::FmtSpan;

/// A log in memory.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_logged_names_a_user() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::TRACE)
        .with_span_events(FmtSpan::FULL)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let faulty = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let keys = StackConfig { cache_ttl: None, ..StackConfig::default() }.build(faulty.clone(), MemoryStore::new());
    let keys = keys.unwrap();
    keys.check().await.unwrap();
    let app = router(keys, Arc::default());
    for (method, path) in [
        (Method::PUT, "/users/alice@example.com/profile"),
        (Method::GET, "/users/alice@example.com/profile"),
        (Method::DELETE, "/users/alice@example.com"),
        (Method::GET, "/users/alice@example.com/profile"),
        (Method::POST, "/users/alice@example.com/return"),
        (Method::PUT, "/users/alice@example.com/profile"),
    ] {
        let body = Body::from(r#"{"address": "12 Elm Street"}"#);
        let request = Request::builder().method(method).uri(path).header(CONTENT_TYPE, "application/json");
        app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    }
    faulty.inject(Fault::error(ErrorKind::PermissionDenied).on(Operation::Get));
    let request = Request::builder().uri("/users/alice@example.com/profile").body(Body::empty()).unwrap();
    app.oneshot(request).await.unwrap();

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(log.contains("permission denied, because"), "{log}");
    assert!(!log.contains("alice") && !log.contains("Elm"), "{log}");
}

//! Tests of the schemes of stores that are not keystead's own.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::sync::Arc;

use futures_executor::block_on;
use keystead::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Error, ErrorKind, KeyId,
    KeyStore, Opener, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};

/// A store without keys.
#[derive(Debug)]
struct Empty;

impl Empty {
    const SCHEME: &str = "empty";

    /// Opens the store of an `empty:` URL; any path is refused.
    async fn open(url: String) -> Result<Arc<dyn KeyStore>> {
        match url.split_once(':') {
            Some((_, "")) => Ok(Arc::new(Self)),
            _ => Err(Error::new(ErrorKind::Config, Operation::Open, Self::SCHEME).with_source("there is no path")),
        }
    }

    fn not_found(operation: Operation) -> Error {
        Error::new(ErrorKind::NotFound, operation, Self::SCHEME).with_effect(Effect::NotApplied)
    }
}

#[async_trait]
impl KeyStore for Empty {
    fn info(&self) -> StoreInfo {
        StoreInfo::new(Self::SCHEME, "nowhere")
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Consistency::Strong, DeletionGrade::Immediate, Some(Consistency::Strong))
    }

    async fn get_key(&self, _: &KeyId) -> Result<SecretKey> {
        Err(Self::not_found(Operation::Get))
    }

    async fn put_key_with(&self, _: &KeyId, _: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        Err(Error::new(ErrorKind::QuotaExceeded, operation, Self::SCHEME))
    }

    async fn delete_key(&self, _: &KeyId) -> Result<Deletion> {
        Err(Self::not_found(Operation::Delete))
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        Box::pin(futures_util::stream::empty())
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// Returns the refusal, as a person reads it.
fn refusal<T>(result: Result<T>) -> String {
    let error = result.err().expect("it must be refused");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open), "{error:?}");
    let text = format!("{error}: {}", error.source().unwrap());
    assert!(!text.contains("hunter2"), "{text}");
    text
}

#[test]
fn an_added_scheme_is_opened_in_any_case() {
    let opener = Opener::new().with_scheme("Empty", Empty::open).unwrap();
    for url in ["empty:", "EMPTY:"] {
        let store = block_on(opener.open(url)).unwrap();
        assert_eq!(store.info().scheme(), "empty");
    }
    let text = refusal(block_on(opener.open("empty:///hunter2")));
    assert!(text.contains("there is no path"), "{text}");
    assert!(format!("{opener:?}").contains("empty"));
}

#[test]
fn an_unknown_scheme_is_told_with_the_added_ones() {
    let opener = Opener::new().with_scheme("empty", Empty::open).unwrap();
    for url in ["redis://hunter2", "hunter2:", "hunter2"] {
        let text = refusal(block_on(opener.open(url)));
        assert!(text.contains("scheme"), "{text}");
        assert!(!url.contains(':') || text.contains("empty"), "{text}");
    }
    assert!(!refusal(block_on(Opener::new().open("redis:"))).contains("empty"));
}

#[cfg(feature = "memory")]
#[test]
fn the_schemes_of_keystead_are_opened_as_before() {
    let opener = Opener::new().with_scheme("empty", Empty::open).unwrap();
    assert_eq!(block_on(opener.open("memory:")).unwrap().info().scheme(), "memory");
    refusal(block_on(opener.open("memory:hunter2")));
}

#[test]
fn schemes_that_are_not_valid_or_taken_are_refused() {
    for scheme in ["", "1st", "a b", "a:", "hunter2/", "é"] {
        assert!(refusal(Opener::new().with_scheme(scheme, Empty::open)).contains("not a URL scheme"));
    }
    // They are refused whether or not this build has the store.
    for scheme in ["memory", "file", "ssm", "secretsmanager", "FILE"] {
        assert!(refusal(Opener::new().with_scheme(scheme, Empty::open)).contains("cannot be replaced"));
    }
    let opener = Opener::new().with_scheme("empty", Empty::open).unwrap();
    assert!(refusal(opener.with_scheme("EMPTY", Empty::open)).contains("added twice"));
}

#[test]
fn an_opener_is_installed_once_for_the_whole_process() {
    assert!(refusal(block_on(keystead::open("empty:"))).contains("unknown scheme"));
    Opener::new().with_scheme("empty", Empty::open).unwrap().install().unwrap();
    assert_eq!(block_on(keystead::open("empty:")).unwrap().info().scheme(), "empty");
    assert!(refusal(Opener::new().install()).contains("installed already"));
    assert_eq!(block_on(keystead::open("empty:")).unwrap().info().scheme(), "empty");
}

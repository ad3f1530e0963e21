//! `ReadOnly`: reads are forwarded, and writes are refused.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as _;
use std::sync::Arc;

use futures_executor::block_on;
use futures_util::TryStreamExt;
use keystead_core::Operation::{self, Create, Delete, Erase, Put};
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_layers::{Faulty, ReadOnly};
use keystead_memory::MemoryStore;

/// Returns a store that counts its calls, and a read-only handle of it.
fn stores() -> (Arc<Faulty<MemoryStore>>, ReadOnly<Arc<Faulty<MemoryStore>>>) {
    let beneath = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    (Arc::clone(&beneath), ReadOnly::new(beneath))
}

fn id(id: &str) -> KeyId {
    KeyId::new(id).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

#[track_caller]
fn expect_unsupported(error: &Error, operation: Operation) {
    assert_eq!((error.kind(), error.operation(), error.store()), (ErrorKind::Unsupported, operation, "memory"));
    assert_eq!(error.effect(), Effect::NotApplied);
    let advice = error.source().unwrap().to_string();
    assert!(advice.ends_with("write through one that is not wrapped in `ReadOnly`"), "{advice}");
}

#[test]
fn every_write_is_refused_before_it_reaches_the_store() {
    block_on(async {
        let (beneath, store) = stores();
        expect_unsupported(&store.put_key(&id("a"), &key()).await.unwrap_err(), Put);
        expect_unsupported(&store.create_key(&id("a"), &key()).await.unwrap_err(), Create);
        expect_unsupported(&store.get_or_create(&id("a"), &key()).await.unwrap_err(), Create);
        expect_unsupported(&store.delete_key(&id("a")).await.unwrap_err(), Delete);
        expect_unsupported(&store.erase_key(&id("a")).await.unwrap_err(), Erase);
        assert_eq!([Put, Create, Delete, Erase].map(|operation| beneath.calls(operation)), [0; 4]);
    });
}

#[test]
fn a_batch_of_deletes_is_refused_id_by_id() {
    block_on(async {
        let (beneath, store) = stores();
        let outcomes = store.delete_keys(&[id("a"), id("b"), id("a")]).await;
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            expect_unsupported(&outcome.unwrap_err(), Delete);
        }
        assert!(store.delete_keys(&[]).await.is_empty());
        assert_eq!(beneath.calls(Delete), 0);
    });
}

#[test]
fn reads_are_forwarded() {
    block_on(async {
        let (beneath, store) = stores();
        let a = id("a");
        let existing = key();
        beneath.put_key(&a, &existing).await.unwrap();

        assert_eq!(store.get_key(&a).await.unwrap(), existing);
        assert_eq!(store.get_or_create_key(&a).await.unwrap(), existing);
        let outcomes = store.get_keys(&[a.clone(), id("b")]).await;
        assert_eq!(outcomes[0].as_ref().unwrap(), &existing);
        assert_eq!(outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(store.list_keys().try_collect::<Vec<_>>().await.unwrap(), [a]);
        store.check().await.unwrap();
    });
}

#[test]
fn its_description_names_the_layer() {
    let (beneath, store) = stores();
    assert!(store.info().to_string().ends_with(", faulty, read-only"), "{}", store.info());
    assert_eq!(store.capabilities(), beneath.capabilities());
}

//! The removal of expired keys from memory.

use std::sync::Arc;
use std::time::Duration;

use keystead_core::{KeyStore, KeyStoreExt};
use keystead_layers::{Cached, Fault, Faulty};
use keystead_memory::MemoryStore;
use tokio::time::sleep;

use crate::{TTL, id, key, kind};
use keystead_core::{ErrorKind, Operation};

#[tokio::test(start_paused = true)]
async fn only_expired_entries_are_removed() {
    let cached = Cached::builder(MemoryStore::new()).ttl(TTL).build().unwrap();
    for index in 0..300 {
        cached.put_key(&id(&format!("old-{index}")), &key(1)).await.unwrap();
        // Often enough that copies are made, too.
        for _ in 0..100 {
            cached.get_key(&id(&format!("old-{index}"))).await.unwrap();
        }
    }
    sleep(TTL / 2).await;
    cached.put_key(&id("young"), &key(2)).await.unwrap();
    cached.get_key(&id("young")).await.unwrap();
    assert_eq!(cached.remove_expired(), 0);
    assert_eq!(cached.statistics().keys, 301);

    sleep(TTL / 2).await;
    assert_eq!(cached.remove_expired(), 300);
    assert_eq!(cached.remove_expired(), 0);
    let statistics = cached.statistics();
    assert_eq!((statistics.keys, statistics.evictions), (1, 0));
    cached.get_key(&id("young")).await.unwrap();
    assert_eq!(cached.statistics().loads, statistics.loads, "what is fresh is still there");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_be_returned_as_stale_stays_and_an_absence_does_not() {
    let store = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let negative = Duration::from_secs(2);
    let cached = Cached::builder(store.clone()).ttl(TTL).stale_if_error(TTL).negative_ttl(negative).build().unwrap();
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    assert_eq!(kind(cached.get_key(&id("nobody")).await), ErrorKind::NotFound);
    sleep(TTL).await;
    assert_eq!(cached.remove_expired(), 1, "the absence");
    store.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
    sleep(TTL).await;
    assert_eq!(cached.remove_expired(), 1);
    assert_eq!(cached.statistics().keys, 0);
}

//! The time until the store's visibility bound is over after a write: stale answers are not cached.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, ErrorKind, KeyId, KeyStore, KeyStoreExt, PutMode, Result,
    SecretKey, StoreInfo, async_trait,
};
use keystead_layers::Cached;
use keystead_memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::{TTL, id, key, kind};

const BOUND: Duration = Duration::from_secs(5);

/// An eventually consistent store: its writes are applied at once, and its reads return the state
/// of one bound ago.
#[derive(Clone, Debug, Default)]
struct Replica {
    memory: MemoryStore,
    /// The writes of its only key, the latest last.
    history: Arc<Mutex<Vec<Written>>>,
    pause: Duration,
}

/// The moment of a write or delete, and the key that it left.
type Written = (Instant, Option<SecretKey>);

impl Replica {
    fn write(&self, key: Option<&SecretKey>) {
        self.history.lock().unwrap().push((Instant::now(), key.cloned()));
    }

    fn lagging(&self) -> Option<SecretKey> {
        let visible = Instant::now().checked_sub(BOUND).unwrap();
        let history = self.history.lock().unwrap();
        history.iter().rev().find(|(at, _)| *at <= visible).and_then(|(_, key)| key.clone())
    }
}

#[async_trait]
impl KeyStore for Replica {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.memory.capabilities();
        capabilities.consistency = Consistency::Eventual { within: BOUND };
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let seen = self.lagging();
        sleep(self.pause).await;
        match seen {
            Some(key) => Ok(key),
            None => MemoryStore::new().get_key(id).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await?;
        self.write(Some(key));
        Ok(())
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let deletion = self.memory.delete_key(id).await?;
        self.write(None);
        Ok(deletion)
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.memory.check().await
    }
}

fn alice() -> KeyId {
    id("alice")
}

fn cached(store: &Replica) -> Cached<Replica> {
    Cached::builder(store.clone()).ttl(TTL).build().unwrap()
}

/// Asserts that the cache returns the latest state of the store, now and for the time to live.
async fn expect_same_as_store(cached: &Cached<Replica>, store: &Replica) {
    for _ in 0..4 {
        sleep(BOUND).await;
        let stored = store.memory.find_key(&alice()).await.unwrap();
        assert_eq!(cached.find_key(&alice()).await.unwrap(), stored);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_that_get_or_create_returns_after_a_write_is_not_cached() {
    for candidate in [3, 1] {
        let store = Replica::default();
        let cached = cached(&store);
        cached.put_key(&alice(), &key(1)).await.unwrap();
        sleep(2 * BOUND).await;
        cached.delete_key(&alice()).await.unwrap();
        cached.put_key(&alice(), &key(2)).await.unwrap();
        // The create is refused, because the second key exists. The read that follows returns the
        // first key, which the candidate may even equal.
        assert_eq!(cached.get_or_create(&alice(), &key(candidate)).await.unwrap(), key(1), "the store's own lag");
        expect_same_as_store(&cached, &store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_within_the_bound_after_a_creation_is_not_cached() {
    let brief = Duration::from_secs(1);
    let cached = Cached::builder(Replica::default()).ttl(brief).negative_ttl(brief).build().unwrap();
    assert_eq!(cached.get_or_create(&alice(), &key(1)).await.unwrap(), key(1));
    assert_eq!(cached.get_key(&alice()).await.unwrap(), key(1), "the new key is kept");
    sleep(BOUND - brief / 2).await;
    assert_eq!(kind(cached.get_key(&alice()).await), ErrorKind::NotFound, "the store's own lag");
    sleep(brief / 2).await;
    assert_eq!(cached.get_key(&alice()).await.unwrap(), key(1), "the absence was not kept");
}

#[tokio::test(start_paused = true)]
async fn a_read_within_the_bound_after_an_invalidation_is_not_cached() {
    for all in [false, true] {
        let store = Replica::default();
        let cached = cached(&store);
        store.put_key(&alice(), &key(1)).await.unwrap();
        sleep(2 * BOUND).await;
        cached.get_key(&alice()).await.unwrap();
        store.delete_key(&alice()).await.unwrap();
        if all {
            cached.invalidate_all();
        } else {
            cached.invalidate(&alice());
        }
        assert_eq!(cached.get_key(&alice()).await.unwrap(), key(1), "the store's own lag");
        expect_same_as_store(&cached, &store).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_within_the_bound_after_a_dropped_creation_is_not_cached() {
    let store = Replica { pause: BOUND / 2, ..Replica::default() };
    let cached = Cached::builder(store.clone()).ttl(TTL).negative_ttl(TTL).build().unwrap();
    // Another process has won, so the call reads, and is dropped meanwhile. The cache does not know
    // what the call has done.
    store.put_key(&alice(), &key(9)).await.unwrap();
    let given_up = tokio::time::timeout(BOUND / 4, cached.get_or_create(&alice(), &key(1))).await;
    assert!(given_up.is_err());
    assert_eq!(kind(cached.get_key(&alice()).await), ErrorKind::NotFound, "the store's own lag");
    expect_same_as_store(&cached, &store).await;
}

#[tokio::test(start_paused = true)]
async fn a_batch_within_the_bound_after_a_write_caches_only_other_ids() {
    let store = Replica::default();
    let cached = cached(&store);
    cached.put_key(&alice(), &key(1)).await.unwrap();
    sleep(2 * BOUND).await;
    drop(cached.delete_keys(&[alice()]).await);
    let ids = [alice(), id("bob")];
    assert!(cached.get_keys(&ids).await.into_iter().all(|answer| answer.is_ok()), "the store's own lag");
    assert_eq!(cached.statistics().keys, 1);
    expect_same_as_store(&cached, &store).await;
}

#[tokio::test(start_paused = true)]
async fn a_load_that_began_within_the_bound_is_not_joined_after_it() {
    let store = Replica { pause: BOUND + BOUND / 2, ..Replica::default() };
    let cached = Cached::builder(store.clone()).ttl(TTL).join_window(TTL).build().unwrap();
    cached.put_key(&alice(), &key(1)).await.unwrap();
    sleep(2 * BOUND).await;
    cached.delete_key(&alice()).await.unwrap();
    let read = || {
        let cached = cached.clone();
        tokio::spawn(async move { cached.get_key(&alice()).await })
    };
    let overlapping = read();
    sleep(BOUND / 2).await;
    let within = read();
    sleep(BOUND / 2 + Duration::from_millis(1)).await;
    let after = read();
    assert_eq!(overlapping.await.unwrap().unwrap(), key(1));
    assert_eq!(within.await.unwrap().unwrap(), key(1), "the store's own lag");
    assert_eq!(kind(after.await.unwrap()), ErrorKind::NotFound);
    assert_eq!(cached.statistics().loads, 2);
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_recent_writes_is_bounded_and_complete() {
    let store = Replica::default();
    let cached = cached(&store);
    cached.put_key(&alice(), &key(1)).await.unwrap();
    sleep(2 * BOUND).await;
    cached.delete_key(&alice()).await.unwrap();
    // More than the shards can remember individually.
    for index in 0..200_000 {
        drop(cached.delete_key(&id(&format!("user-{index}"))).await);
    }
    assert_eq!(cached.get_key(&alice()).await.unwrap(), key(1), "the store's own lag");
    assert_eq!(cached.statistics().keys, 0);
    expect_same_as_store(&cached, &store).await;
}

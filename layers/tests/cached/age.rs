//! The age of cached answers, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, PutMode,
    Result, SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{Cached, Fault, Faulty};
use keystead_memory::MemoryStore;
use tokio::time::{Instant, sleep};

use crate::{Gated, TTL, begin_get, cached, id, key, kind};

#[tokio::test(start_paused = true)]
async fn a_key_is_returned_for_the_time_to_live_and_not_longer() {
    let store = Gated::open();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    cached.get_key(&id("alice")).await.unwrap();
    store.memory.put_key(&id("alice"), &key(2)).await.unwrap();
    sleep(TTL - Duration::from_millis(1)).await;
    // Often enough that every copy is read.
    for _ in 0..200 {
        assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2));
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_counts_from_before_the_call_to_the_store() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let get = begin_get(&cached, &store, &id("alice")).await;
    store.memory.delete_key(&id("alice")).await.unwrap();
    sleep(TTL / 2).await;
    store.let_go(10);
    assert_eq!(get.await.unwrap().unwrap(), key(1));
    sleep(TTL / 2).await;
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn nobody_joins_a_load_older_than_the_time_to_live() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let old = begin_get(&cached, &store, &id("alice")).await;
    store.memory.put_key(&id("alice"), &key(2)).await.unwrap();
    sleep(TTL).await;
    let new = begin_get(&cached, &store, &id("alice")).await;
    store.let_go(2);
    assert_eq!(old.await.unwrap().unwrap(), key(1));
    assert_eq!(new.await.unwrap().unwrap(), key(2));
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2), "the older answer is not kept");
}

#[tokio::test(start_paused = true)]
async fn a_delete_through_another_cache_is_seen_within_the_declared_bound() {
    let store = Gated::open();
    let one = cached(&store);
    let two = cached(&store);
    one.put_key(&id("alice"), &key(1)).await.unwrap();
    two.get_key(&id("alice")).await.unwrap();
    one.delete_key(&id("alice")).await.unwrap();
    assert_eq!(two.get_key(&id("alice")).await.unwrap(), key(1));
    assert_eq!(two.capabilities().consistency, Consistency::Eventual { within: TTL });
    sleep(TTL).await;
    assert_eq!(kind(two.get_key(&id("alice")).await), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_is_returned_during_an_outage_if_that_is_configured() {
    for (failure, bridged) in [
        (ErrorKind::Unavailable, true),
        (ErrorKind::Timeout, true),
        (ErrorKind::Throttled, true),
        (ErrorKind::NotFound, false),
        (ErrorKind::PermissionDenied, false),
        (ErrorKind::PendingDeletion, false),
    ] {
        let faulty = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
        faulty.put_key(&id("alice"), &key(1)).await.unwrap();
        let cached = Cached::builder(faulty.clone()).ttl(TTL).stale_if_error(TTL).build().unwrap();
        assert_eq!(cached.capabilities().consistency, Consistency::Eventual { within: 2 * TTL });
        cached.get_key(&id("alice")).await.unwrap();
        sleep(TTL * 3 / 2).await;
        faulty.inject(Fault::error(failure).on(Operation::Get));
        match cached.get_key(&id("alice")).await {
            Ok(stale) => assert!(bridged && stale == key(1), "{failure:?}"),
            Err(e) => assert!(!bridged && e.kind() == failure, "{failure:?}"),
        }
        // The store has answered, so the old key does not come back during a later outage.
        faulty.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));
        assert_eq!(cached.get_key(&id("alice")).await.is_ok(), bridged, "{failure:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_is_not_returned_after_a_write_or_when_it_is_too_old() {
    let faulty = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    let cached = Cached::builder(faulty.clone()).ttl(TTL).stale_if_error(TTL).build().unwrap();
    let outage = || faulty.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));

    cached.put_key(&id("alice"), &key(1)).await.unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    cached.delete_key(&id("alice")).await.unwrap();
    outage();
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::Unavailable);

    cached.put_key(&id("alice"), &key(2)).await.unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    sleep(2 * TTL).await;
    outage();
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_stale_key_is_not_returned_by_default() {
    let faulty = Arc::new(Faulty::builder(MemoryStore::new()).build().unwrap());
    faulty.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(faulty.clone()).ttl(TTL).build().unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    sleep(TTL).await;
    faulty.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn absence_is_cached_only_if_that_is_configured_and_briefly() {
    let store = Gated::open();
    let brief = Duration::from_secs(2);
    let plain = cached(&store);
    for _ in 0..2 {
        assert_eq!(kind(plain.get_key(&id("alice")).await), ErrorKind::NotFound);
    }
    assert_eq!(store.gets(), 2);

    let negative = Cached::builder(store.clone()).ttl(TTL).negative_ttl(brief).build().unwrap();
    for _ in 0..2 {
        assert_eq!(kind(negative.get_key(&id("alice")).await), ErrorKind::NotFound);
    }
    assert_eq!(store.gets(), 3);
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(kind(negative.get_key(&id("alice")).await), ErrorKind::NotFound, "not seen yet");
    sleep(brief).await;
    assert_eq!(negative.get_key(&id("alice")).await.unwrap(), key(1));
}

#[tokio::test]
async fn a_create_that_finds_a_key_ends_a_cached_absence() {
    let store = Gated::open();
    let cached = Cached::builder(store.clone()).ttl(TTL).negative_ttl(TTL).build().unwrap();
    assert!(cached.find_key(&id("alice")).await.unwrap().is_none());
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(kind(cached.create_key(&id("alice"), &key(2)).await), ErrorKind::AlreadyExists);
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
}

/// A store whose reads return a key for a while after it was deleted.
#[derive(Debug)]
struct Lagging {
    store: MemoryStore,
    old: SecretKey,
    until: Instant,
    bound: Duration,
}

const BOUND: Duration = Duration::from_secs(5);

#[async_trait]
impl KeyStore for Lagging {
    fn info(&self) -> StoreInfo {
        self.store.info()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store.capabilities();
        capabilities.consistency = Consistency::Eventual { within: self.bound };
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        if Instant::now() < self.until { Ok(self.old.clone()) } else { self.store.get_key(id).await }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_stale_read_right_after_a_delete_is_not_cached() {
    let lagging = Lagging { store: MemoryStore::new(), old: key(1), until: Instant::now() + BOUND, bound: BOUND };
    lagging.store.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(lagging).ttl(TTL).build().unwrap();
    cached.delete_key(&id("alice")).await.unwrap();
    for _ in 0..3 {
        assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1), "the store's own lag");
        sleep(BOUND / 4).await;
    }
    sleep(BOUND / 4).await;
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn after_a_not_found_from_any_load_the_old_key_is_not_returned_as_stale() {
    // The second read hangs for longer than the join window, so that a third one is made. Their
    // answers arrive out of order.
    let faulty = Faulty::builder(MemoryStore::new())
        .fault(Fault::latency(Duration::ZERO).on(Operation::Get))
        .fault(Fault::latency(TTL * 5 / 4).on(Operation::Get))
        .build();
    let faulty = Arc::new(faulty.unwrap());
    faulty.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(faulty.clone()).ttl(TTL).stale_if_error(TTL * 60).build().unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    sleep(TTL).await;
    let read =
        |cached: Cached<Arc<Faulty<MemoryStore>>>| tokio::spawn(async move { cached.get_key(&id("alice")).await });
    let first = read(cached.clone());
    sleep(TTL).await;
    faulty.delete_key(&id("alice")).await.unwrap();
    faulty.inject(Fault::hang().on(Operation::Get));
    let second = read(cached.clone());
    assert_eq!(kind(first.await.unwrap()), ErrorKind::NotFound);
    second.abort();
    drop(second.await);
    faulty.inject(Fault::error(ErrorKind::Unavailable).on(Operation::Get));
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn after_a_write_to_a_store_with_an_endless_bound_the_id_is_not_cached() {
    let store = MemoryStore::new();
    let now = Instant::now();
    let lagging = Lagging { store: store.clone(), old: key(1), until: now, bound: Duration::MAX };
    let cached = Cached::builder(lagging).ttl(TTL).build().unwrap();
    assert_eq!(cached.capabilities().consistency, Consistency::Eventual { within: Duration::MAX });
    cached.put_key(&id("alice"), &key(2)).await.unwrap();
    for _ in 0..2 {
        assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2));
    }
    assert_eq!(cached.statistics().loads, 2);
}

//! The promises of the cache, in races and in virtual time.
#![allow(clippy::unwrap_used, reason = "test code")]

mod age;
mod expired;
mod loads;
mod windows;

use std::error::Error as _;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result,
    SecretKey, StoreInfo, async_trait,
};
use keystead_layers::{CacheStats, Cached, Fault, Faulty, Fenced, Observed};
use keystead_memory::MemoryStore;
use tokio::sync::Semaphore;
use tokio::time::sleep;

const TTL: Duration = Duration::from_secs(60);

/// A store whose reads read the key at once, and return it when the test releases them.
#[derive(Debug)]
struct Gated {
    memory: MemoryStore,
    gate: Semaphore,
    gets: AtomicU64,
    batches: AtomicU64,
}

impl Gated {
    fn closed() -> Arc<Self> {
        let counts = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self { memory: MemoryStore::new(), gate: Semaphore::new(0), gets: counts.0, batches: counts.1 })
    }

    fn open() -> Arc<Self> {
        let gated = Self::closed();
        gated.let_go(1 << 20);
        gated
    }

    fn let_go(&self, reads: usize) {
        self.gate.add_permits(reads);
    }

    async fn wait(&self) {
        self.gate.acquire().await.unwrap().forget();
    }

    fn gets(&self) -> u64 {
        self.gets.load(Ordering::SeqCst)
    }

    fn batches(&self) -> u64 {
        self.batches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl KeyStore for Gated {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.gets.fetch_add(1, Ordering::SeqCst);
        let answer = self.memory.get_key(id).await;
        self.wait().await;
        answer
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.batches.fetch_add(1, Ordering::SeqCst);
        let answers = self.memory.get_keys(ids).await;
        self.wait().await;
        answers
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.memory.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.memory.check().await
    }
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn cached(store: &Arc<Gated>) -> Cached<Arc<Gated>> {
    Cached::builder(store.clone()).ttl(TTL).build().unwrap()
}

fn kind<T>(answer: Result<T>) -> ErrorKind {
    answer.err().unwrap().kind()
}

/// Starts a read and waits until it has read from the store.
async fn begin_get(
    cached: &Cached<Arc<Gated>>,
    store: &Gated,
    id: &KeyId,
) -> tokio::task::JoinHandle<Result<SecretKey>> {
    let before = store.gets();
    let cached = cached.clone();
    let id = id.clone();
    let get = tokio::spawn(async move { cached.get_key(&id).await });
    while store.gets() == before {
        tokio::task::yield_now().await;
    }
    get
}

#[tokio::test]
async fn a_key_deleted_during_its_load_is_not_cached() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let get = begin_get(&cached, &store, &id("alice")).await;
    cached.delete_key(&id("alice")).await.unwrap();
    store.let_go(10);
    assert_eq!(get.await.unwrap().unwrap(), key(1), "it overlapped the delete");
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn nobody_joins_a_load_that_began_before_a_delete() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let old = begin_get(&cached, &store, &id("alice")).await;
    cached.delete_key(&id("alice")).await.unwrap();
    let new = begin_get(&cached, &store, &id("alice")).await;
    store.let_go(2);
    assert_eq!(kind(new.await.unwrap()), ErrorKind::NotFound);
    assert_eq!(old.await.unwrap().unwrap(), key(1));
}

#[tokio::test]
async fn a_key_put_during_a_load_is_returned_by_the_next_read() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let get = begin_get(&cached, &store, &id("alice")).await;
    cached.put_key(&id("alice"), &key(2)).await.unwrap();
    store.let_go(10);
    assert_eq!(get.await.unwrap().unwrap(), key(1), "it overlapped the put");
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2));
}

#[tokio::test]
async fn a_write_whose_future_is_dropped_removes_the_key_as_well() {
    let store = Gated::open();
    let cached = cached(&store);
    cached.put_key(&id("alice"), &key(1)).await.unwrap();
    cached.get_key(&id("alice")).await.unwrap();
    let alice = id("alice");
    let mut write = Box::pin(cached.delete_key(&alice));
    // The future is polled once and dropped.
    drop((&mut write).now_or_never());
    drop(write);
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_failed_load_fails_for_all_callers_that_joined_it_and_is_not_cached() {
    let faulty = Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Throttled).on(Operation::Get));
    let faulty = Arc::new(faulty.build().unwrap());
    faulty.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(faulty.clone()).build().unwrap();
    assert_eq!(kind(cached.get_key(&id("alice")).await), ErrorKind::Throttled);
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
    assert_eq!(faulty.calls(Operation::Get), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_readers_of_one_cold_key_make_one_call() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let readers: Vec<_> = (0..1_000).map(|_| tokio::spawn(read_alice(cached.clone()))).collect();
    while cached.statistics().misses < 1_000 {
        tokio::task::yield_now().await;
    }
    store.let_go(1_000);
    assert!(join_all(readers).await.into_iter().all(|answer| answer.unwrap().unwrap() == key(1)));
    assert_eq!(store.gets(), 1);
    assert_eq!(cached.statistics().loads, 1);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_readers_of_one_expired_key_make_one_call() {
    let store = Gated::open();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    cached.get_key(&id("alice")).await.unwrap();
    sleep(TTL).await;
    let answers = join_all((0..1_000).map(|_| read_alice(cached.clone()))).await;
    assert!(answers.into_iter().all(|answer| answer.unwrap() == key(1)));
    assert_eq!(store.gets(), 2);
}

#[tokio::test]
async fn when_the_first_reader_is_dropped_the_others_finish_the_load() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let leader = begin_get(&cached, &store, &id("alice")).await;
    let others: Vec<_> = (0..1_000).map(|_| tokio::spawn(read_alice(cached.clone()))).collect();
    while cached.statistics().misses < 1_001 {
        tokio::task::yield_now().await;
    }
    leader.abort();
    assert!(leader.await.unwrap_err().is_cancelled());
    store.let_go(1_000);
    assert!(join_all(others).await.into_iter().all(|answer| answer.unwrap().unwrap() == key(1)));
    assert_eq!(store.gets(), 1);
}

#[tokio::test]
async fn when_all_readers_are_dropped_the_next_one_makes_another_call() {
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = cached(&store);
    let reader = begin_get(&cached, &store, &id("alice")).await;
    reader.abort();
    drop(reader.await);
    store.memory.put_key(&id("alice"), &key(2)).await.unwrap();
    store.let_go(1);
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2));
    assert_eq!(store.gets(), 2);
}

async fn read_alice(cached: Cached<Arc<Gated>>) -> Result<SecretKey> {
    cached.get_key(&id("alice")).await
}

#[tokio::test]
async fn an_erasure_through_a_cache_is_never_verified() {
    let cached = cached(&Gated::open());
    cached.put_key(&id("alice"), &key(1)).await.unwrap();
    let erasure: Erasure = cached.erase_key(&id("alice")).await.unwrap();
    assert!(erasure.existed && !erasure.verified);
}

#[tokio::test]
async fn there_are_never_more_keys_than_allowed() {
    for max_keys in [1, 2, 63, 64, 100, 1_000] {
        let store = Gated::open();
        let cached = Cached::builder(store.clone()).max_keys(max_keys).build().unwrap();
        for index in 0..3 * max_keys {
            store.memory.put_key(&id(&format!("user-{index}")), &key(1)).await.unwrap();
            cached.get_key(&id(&format!("user-{index}"))).await.unwrap();
            assert!(cached.statistics().keys <= max_keys);
        }
        let statistics = cached.statistics();
        assert!(statistics.keys > 0, "some are kept");
        assert_eq!(statistics.evictions + statistics.keys as u64, statistics.loads);
    }
}

#[tokio::test]
async fn a_batch_reads_the_keys_that_are_not_cached_in_one_call() {
    let store = Gated::open();
    for index in 0..10 {
        store.memory.put_key(&id(&format!("user-{index}")), &key(index)).await.unwrap();
    }
    let cached = cached(&store);
    cached.get_key(&id("user-3")).await.unwrap();
    let ids: Vec<KeyId> = (0..10).chain([3, 7]).map(|index| id(&format!("user-{index}"))).collect();
    let answers = cached.get_keys(&ids).await;
    let expected: Vec<SecretKey> = (0..10).chain([3, 7]).map(key).collect();
    assert_eq!(answers.into_iter().map(Result::unwrap).collect::<Vec<_>>(), expected);
    assert_eq!((store.gets(), store.batches()), (1, 1));
    assert!(cached.get_keys(&ids).await.into_iter().all(|answer| answer.is_ok()));
    assert_eq!((store.gets(), store.batches()), (1, 1), "now all are cached");
    assert!(cached.get_keys(&[]).await.is_empty());
}

#[tokio::test]
async fn a_read_joins_a_batch_in_progress() {
    let store = Gated::closed();
    for name in ["alice", "bob"] {
        store.memory.put_key(&id(name), &key(1)).await.unwrap();
    }
    let cached = cached(&store);
    let batch = tokio::spawn({
        let cached = cached.clone();
        async move { cached.get_keys(&[id("alice"), id("bob")]).await }
    });
    while store.batches() == 0 {
        tokio::task::yield_now().await;
    }
    let reader = tokio::spawn(read_alice(cached.clone()));
    while cached.statistics().misses < 3 {
        tokio::task::yield_now().await;
    }
    store.let_go(1);
    assert_eq!(reader.await.unwrap().unwrap(), key(1));
    assert!(batch.await.unwrap().into_iter().all(|answer| answer.unwrap() == key(1)));
    assert_eq!((store.gets(), store.batches()), (0, 1));
}

#[tokio::test]
async fn a_created_key_is_cached() {
    let store = Gated::open();
    let cached = cached(&store);
    let made = cached.get_or_create_key(&id("alice")).await.unwrap();
    let before = store.gets();
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), made);
    assert_eq!(store.gets(), before);
}

#[tokio::test]
async fn invalidating_makes_the_next_read_ask_the_store() {
    let store = Gated::open();
    let cached = cached(&store);
    for name in ["alice", "bob"] {
        cached.put_key(&id(name), &key(1)).await.unwrap();
        cached.get_key(&id(name)).await.unwrap();
        store.memory.put_key(&id(name), &key(2)).await.unwrap();
    }
    cached.invalidate(&id("alice"));
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2));
    assert_eq!(cached.get_key(&id("bob")).await.unwrap(), key(1));
    cached.invalidate_all();
    assert_eq!(cached.get_key(&id("bob")).await.unwrap(), key(2));
}

#[tokio::test]
async fn statistics_tell_hits_from_misses() {
    let store = Gated::open();
    let cached = cached(&store);
    cached.put_key(&id("alice"), &key(1)).await.unwrap();
    for _ in 0..1_000 {
        cached.get_key(&id("alice")).await.unwrap();
    }
    let statistics = cached.statistics();
    assert_eq!((statistics.hits, statistics.misses, statistics.loads), (999, 1, 1));
    assert_eq!((statistics.evictions, statistics.keys), (0, 1));
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    let builder = || Cached::builder(MemoryStore::new());
    let zero = Duration::ZERO;
    let year = Duration::from_secs(366 * 86_400);
    for wrong in [
        builder().ttl(zero),
        builder().ttl(year),
        builder().stale_if_error(year),
        builder().max_keys(0),
        builder().ttl(TTL).negative_ttl(TTL * 2),
        builder().join_window(zero),
    ] {
        let e = wrong.build().unwrap_err();
        assert_eq!((e.kind(), e.operation(), e.store()), (ErrorKind::Config, Operation::Open, "memory"));
    }
}

#[tokio::test]
async fn a_cache_around_a_fence_is_refused() {
    let fence = Arc::new(Fenced::builder(MemoryStore::new(), MemoryStore::new()).build().unwrap());
    let between: Arc<dyn KeyStore> = Arc::new(Observed::new(fence.clone()));
    assert_eq!(Cached::builder(fence).build().unwrap_err().kind(), ErrorKind::Config);
    let error = Cached::builder(between).build().unwrap_err();
    assert!(error.source().unwrap().to_string().contains("put the cache inside the fence"));

    let inside = Cached::builder(MemoryStore::new()).build().unwrap();
    assert!(inside.capabilities().cached && !inside.capabilities().fenced);
    let fenced = Fenced::builder(inside, MemoryStore::new()).build().unwrap();
    assert!(fenced.capabilities().cached && fenced.capabilities().fenced);
}

#[test]
fn its_longest_age_includes_stale_and_negative_answers() {
    let cached =
        Cached::builder(MemoryStore::new()).ttl(TTL).stale_if_error(TTL * 2).negative_ttl(TTL).build().unwrap();
    assert_eq!((cached.ttl(), cached.longest_age()), (TTL, TTL * 3));
    assert_eq!(cached.statistics(), CacheStats::default());
}

/// Several readers never pause while a writer works. Once a delete has returned, no read that
/// begins afterwards may return the key.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_read_brings_back_a_deleted_key_in_ten_thousand_rounds() {
    let cached = Cached::builder(MemoryStore::new()).build().unwrap();
    let alice = id("alice");
    // An even number is the version of the key that exists or is being written. An odd number means
    // that the version before it was deleted.
    let state = Arc::new(AtomicU64::new(1));
    let readers: Vec<_> = (0..3)
        .map(|_| {
            let cached = cached.clone();
            let alice = alice.clone();
            let state = state.clone();
            tokio::spawn(async move {
                loop {
                    let before = state.load(Ordering::SeqCst);
                    if before == u64::MAX {
                        return;
                    }
                    let answers =
                        [cached.get_key(&alice).await, cached.get_keys(slice::from_ref(&alice)).await.remove(0)];
                    for found in answers.into_iter().flatten() {
                        let version = u64::from_be_bytes(found.expose_secret().try_into().unwrap());
                        assert!(version >= before, "a key came back: {version} after {before}");
                    }
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    for round in 1..=10_000_u64 {
        let version = 2 * round;
        let key = SecretKey::new(version.to_be_bytes()).unwrap();
        match round % 3 {
            0 => cached.put_key(&alice, &key).await.unwrap(),
            1 => cached.create_key(&alice, &key).await.unwrap(),
            _ => assert_eq!(cached.get_or_create(&alice, &key).await.unwrap(), key),
        }
        state.store(version, Ordering::SeqCst);
        assert_eq!(cached.get_key(&alice).await.unwrap(), key);
        if round % 2 == 0 {
            cached.delete_key(&alice).await.unwrap();
        } else {
            cached.erase_key(&alice).await.unwrap();
        }
        state.store(version + 1, Ordering::SeqCst);
        assert_eq!(kind(cached.get_key(&alice).await), ErrorKind::NotFound);
    }
    state.store(u64::MAX, Ordering::SeqCst);
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
}

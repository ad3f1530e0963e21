//! Loads that panic or hang, and the callers that joined them.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, PutMode, Result, SecretKey,
    StoreInfo, async_trait,
};
use keystead_layers::Cached;
use keystead_memory::MemoryStore;
use tokio::sync::Semaphore;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use crate::{Gated, TTL, begin_get, id, key, kind};

/// A store whose calls wait at a gate, and of which a given number then panics.
#[derive(Debug)]
struct Panicking {
    memory: MemoryStore,
    gate: Semaphore,
    panics: AtomicU64,
    begun: AtomicU64,
    /// True if a call panics before it returns a future.
    at_once: bool,
}

impl Panicking {
    fn new(panics: u64, at_once: bool) -> Arc<Self> {
        Arc::new(Self {
            memory: MemoryStore::new(),
            gate: Semaphore::new(0),
            panics: AtomicU64::new(panics),
            begun: AtomicU64::new(0),
            at_once,
        })
    }

    fn panic_if_told(&self) {
        let told = self.panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(told.is_err(), "the store panics because the test tells it to");
    }

    async fn wait(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        if !self.at_once {
            self.panic_if_told();
        }
    }
}

#[async_trait]
impl KeyStore for Panicking {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn get_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> futures_util::future::BoxFuture<'f, Result<SecretKey>>
    where
        's: 'f,
        'i: 'f,
        Self: 'f,
    {
        if self.at_once {
            self.panic_if_told();
        }
        Box::pin(async move {
            self.wait().await;
            self.memory.get_key(id).await
        })
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.wait().await;
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.wait().await;
        self.memory.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.memory.check().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.wait().await;
        self.memory.get_keys(ids).await
    }
}

type Reader = tokio::task::JoinHandle<Result<SecretKey>>;

fn read(cached: &Cached<Arc<Panicking>>) -> Reader {
    let cached = cached.clone();
    tokio::spawn(async move { cached.get_key(&id("alice")).await })
}

async fn misses(cached: &Cached<Arc<Panicking>>, misses: u64) {
    while cached.statistics().misses < misses {
        yield_now().await;
    }
}

/// Returns the number of readers that panicked, and the errors of the others. None of them may
/// hang.
async fn outcomes(readers: Vec<Reader>) -> (usize, Vec<Error>) {
    let ended = timeout(Duration::from_secs(60), join_all(readers)).await.expect("somebody waits for ever");
    let mut panics = 0;
    let mut errors = Vec::new();
    for outcome in ended {
        match outcome {
            Ok(answer) => errors.push(answer.expect_err("the store gave no key")),
            Err(e) => panics += usize::from(e.is_panic()),
        }
    }
    (panics, errors)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_store_panics_no_caller_hangs() {
    for (leader_stays, panics) in [(true, 1), (false, 0)] {
        let store = Panicking::new(1, false);
        store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
        let cached = Cached::builder(store.clone()).ttl(TTL).build().unwrap();
        let leader = read(&cached);
        while store.begun.load(Ordering::SeqCst) == 0 {
            yield_now().await;
        }
        let mut readers: Vec<_> = (0..200).map(|_| read(&cached)).collect();
        misses(&cached, 201).await;
        if leader_stays {
            readers.push(leader);
        } else {
            leader.abort();
            assert!(leader.await.unwrap_err().is_cancelled());
        }
        store.gate.add_permits(1_000);
        let (panicked, errors) = outcomes(readers).await;
        assert_eq!((panicked, errors.len()), (panics, 200));
        assert!(errors.iter().all(|e| e.kind() == ErrorKind::Other), "{errors:?}");
        assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1), "and the next read asks again");
        assert_eq!(cached.statistics().loads, 2);
    }
}

#[tokio::test]
async fn a_store_that_panics_before_it_returns_a_future_is_handled_the_same_way() {
    let store = Panicking::new(1, true);
    store.gate.add_permits(1_000);
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(store).ttl(TTL).build().unwrap();
    let (panicked, _) = outcomes(vec![read(&cached)]).await;
    assert_eq!(panicked, 1);
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
}

#[tokio::test]
async fn a_batch_that_panics_fails_for_the_callers_that_joined_it() {
    let store = Panicking::new(1, false);
    for name in ["alice", "bob"] {
        store.memory.put_key(&id(name), &key(1)).await.unwrap();
    }
    let cached = Cached::builder(store.clone()).ttl(TTL).build().unwrap();
    let batch = |names: [&str; 2]| {
        let cached = cached.clone();
        let ids = names.map(id);
        tokio::spawn(async move { cached.get_keys(&ids).await })
    };
    let leader = batch(["alice", "bob"]);
    misses(&cached, 2).await;
    let joined = batch(["bob", "carol"]);
    let reader = read(&cached);
    misses(&cached, 5).await;
    store.gate.add_permits(1_000);
    let seconds = Duration::from_secs(60);
    assert!(timeout(seconds, leader).await.unwrap().unwrap_err().is_panic());
    let kinds: HashSet<ErrorKind> = timeout(seconds, joined).await.unwrap().unwrap().into_iter().map(kind).collect();
    assert_eq!(kinds, HashSet::from([ErrorKind::Other, ErrorKind::NotFound]));
    assert_eq!(kind(timeout(seconds, reader).await.unwrap().unwrap()), ErrorKind::Other);
    assert!(cached.get_keys(&[id("alice"), id("bob")]).await.into_iter().all(|answer| answer.is_ok()));
}

#[tokio::test]
async fn a_write_that_panics_leaves_nothing_behind() {
    let store = Panicking::new(0, false);
    store.gate.add_permits(1_000);
    let cached = Cached::builder(store.clone()).ttl(TTL).build().unwrap();
    cached.put_key(&id("alice"), &key(1)).await.unwrap();
    for write in ["put", "delete", "get_or_create", "erase"] {
        assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(1));
        store.panics.store(1, Ordering::SeqCst);
        let cached = cached.clone();
        let panicked = tokio::spawn(async move {
            match write {
                "put" => drop(cached.put_key(&id("alice"), &key(2)).await),
                "delete" => drop(cached.delete_key(&id("alice")).await),
                "erase" => drop(cached.erase_key(&id("alice")).await),
                _ => drop(cached.get_or_create(&id("alice"), &key(2)).await),
            }
        });
        assert!(panicked.await.unwrap_err().is_panic(), "{write}");
    }
    let loads = cached.statistics().loads;
    timeout(Duration::from_secs(60), cached.get_key(&id("alice"))).await.unwrap().unwrap();
    assert_eq!(cached.statistics().loads, loads + 1, "what was cached before the write is gone");
}

/// A store that returns too few answers for a batch.
#[derive(Debug)]
struct Short(MemoryStore);

#[async_trait]
impl KeyStore for Short {
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

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.0.get_keys(&ids[..1]).await
    }
}

#[tokio::test]
async fn missing_answers_of_a_batch_are_errors() {
    let cached = Cached::builder(Short(MemoryStore::new())).ttl(TTL).build().unwrap();
    let kinds: Vec<_> = cached.get_keys(&["a", "b", "c"].map(id)).await.into_iter().map(kind).collect();
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::Other, ErrorKind::Other]);
}

#[tokio::test(start_paused = true)]
async fn a_load_that_hangs_is_joined_for_the_join_window_only() {
    let window = Duration::from_secs(3);
    let store = Gated::closed();
    store.memory.put_key(&id("alice"), &key(1)).await.unwrap();
    let cached = Cached::builder(store.clone()).ttl(TTL).join_window(window).build().unwrap();
    let old = begin_get(&cached, &store, &id("alice")).await;
    let ended = Arc::new(Mutex::new(Vec::new()));
    // A caller arrives each second for a minute.
    let mut readers = Vec::new();
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        let cached = cached.clone();
        let ended = ended.clone();
        readers.push(tokio::spawn(async move {
            let answer = cached.get_key(&id("alice")).await;
            ended.lock().unwrap().push(answer.unwrap());
        }));
        yield_now().await;
    }
    // There was the first load, and one more each time that the window was over.
    sleep(Duration::from_millis(1)).await;
    assert_eq!(store.gets(), 21);
    // Another process has changed the key since the first load read it.
    store.memory.put_key(&id("alice"), &key(2)).await.unwrap();
    sleep(window).await;
    let young = begin_get(&cached, &store, &id("alice")).await;
    store.let_go(1_000);
    assert_eq!(young.await.unwrap().unwrap(), key(2));
    assert_eq!(old.await.unwrap().unwrap(), key(1));
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
    assert_eq!(ended.lock().unwrap().len(), 60);
    let gets = store.gets();
    assert_eq!(cached.get_key(&id("alice")).await.unwrap(), key(2), "late answers do not replace a younger one");
    assert_eq!(store.gets(), gets);
}

#[tokio::test(start_paused = true)]
async fn by_default_a_load_is_joined_for_ten_seconds() {
    let store = Gated::closed();
    let cached = Cached::builder(store.clone()).ttl(Duration::from_secs(3600)).build().unwrap();
    let _old = begin_get(&cached, &store, &id("alice")).await;
    sleep(Duration::from_millis(9_990)).await;
    let joined = tokio::spawn({
        let cached = cached.clone();
        async move { cached.get_key(&id("alice")).await }
    });
    while cached.statistics().misses < 2 {
        yield_now().await;
    }
    assert_eq!(store.gets(), 1);
    sleep(Duration::from_millis(20)).await;
    let _new = begin_get(&cached, &store, &id("alice")).await;
    assert_eq!(store.gets(), 2);
    joined.abort();
}

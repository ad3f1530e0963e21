//! [`Cached`]: a cache in front of a store.

mod load;
mod replicas;
mod table;

use std::fmt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation,
    PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};
use tokio::time::Instant;

use self::load::PendingAnswer;
use self::table::{Arrival, Entry, Table};
use crate::describe::misconfigured;
use crate::distinct::Distinct;

const DEFAULT_TTL: Duration = Duration::from_secs(60);
const DEFAULT_MAX_KEYS: usize = 10_000;
const DEFAULT_JOIN_WINDOW: Duration = Duration::from_secs(10);

/// The largest number of threads that each have their own copies of hot keys. If there are more
/// threads, some share.
const MOST_READERS: usize = 64;

/// The longest time that can be set. Adding a much longer one to an `Instant` could overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A cache of keys in front of a store that is reached over a network, or whose calls cost money.
///
/// A key that has been read is returned from memory for the *time to live* (60 seconds by default),
/// counted from the moment before the call to the store began. The cache holds at most 10,000 keys
/// by default, and evicts the least used ones. Evicted keys are wiped from memory.
///
/// An expired key is not returned, unless [`stale_if_error`](CachedBuilder::stale_if_error) allows
/// it. It stays in memory until it is next read, until it is evicted, or until
/// [`remove_expired`](Self::remove_expired) is called. A process that reads rarely should call that
/// from time to time.
///
/// # What it promises
/// **Within one process**, to all callers that share the cache (clones of a `Cached` share it):
/// after a write through the cache has returned `Ok`, every read returns what the store returns. A
/// write removes the cached entry of its id before it calls the store, and again when it has ended.
/// Two kinds of answers are not cached: those of reads that overlapped the write, and those of
/// calls (reads, or a [`get_or_create`](KeyStore::get_or_create) that returns the existing key)
/// that began before the store's own visibility bound had passed. So a deleted key does not come
/// back from this cache. One case remains: if a write ends without an answer or its future
/// is dropped, and the store applies it later, the cache may return the old key for the time to
/// live.
///
/// **Across processes**, and between caches in one process that are not clones of each other: a key
/// that was deleted or overwritten elsewhere may be returned for at most the time to live, plus
/// [`stale_if_error`](CachedBuilder::stale_if_error) if that is set. Therefore
/// [`capabilities`](KeyStore::capabilities) declares [`Consistency::Eventual`] with this bound, and
/// an [`Erasure`] through the cache never has `verified: true`, because another cache may hold the
/// key. A caller that needs proof must erase through the store beneath the cache.
///
/// **Loads.** A load is a read of the store for a key that is not cached. If several callers ask
/// for the same key at once, the store is asked once, and the later callers join the load of the
/// first. If the first caller's future is dropped, the others complete the load. A load can be
/// joined for 10 seconds by default ([`join_window`](CachedBuilder::join_window)); a later caller
/// starts another one. If the store panics, the caller that started the load panics, those that
/// joined it get an error of kind [`Other`](ErrorKind::Other), and the next read asks the store
/// again. A batch reads all its missing keys in one call, and a caller that joins it for one key
/// waits for the whole batch. Errors are not cached. [`NotFound`](ErrorKind::NotFound) is cached
/// only if [`negative_ttl`](CachedBuilder::negative_ttl) is set.
///
/// # Where to put it
/// Put it around [`Resilient`](crate::Resilient), which ends loads that hang, and inside
/// [`Fenced`](crate::Fenced), which checks each read. A cache around a fence would return erased
/// keys, so [`build`](CachedBuilder::build) refuses it. [`Stack`](crate::Stack) composes the layers
/// in this order.
///
/// ```
/// use std::time::Duration;
///
/// use keystead_core::{KeyId, KeyStore, KeyStoreExt};
/// use keystead_layers::Cached;
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let store = Cached::builder(MemoryStore::new()).ttl(Duration::from_secs(300)).max_keys(50_000).build()?;
/// let alice = KeyId::new("alice")?;
/// store.get_or_create_key(&alice).await?;
/// store.get_key(&alice).await?;
/// assert_eq!(store.statistics().hits, 1);
///
/// store.delete_key(&alice).await?;
/// assert!(store.find_key(&alice).await?.is_none());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
pub struct Cached<S> {
    shared: Arc<CachedStore<S>>,
}

/// A builder of a [`Cached`]. The setters cannot fail; [`build`](Self::build) checks everything.
#[derive(Clone, Debug)]
#[must_use]
pub struct CachedBuilder<S> {
    store: S,
    settings: CacheSettings,
}

/// The statistics of a [`Cached`] since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct CacheStats {
    /// The number of reads answered from memory. Each id of a batch counts as a read. A few may be
    /// missing if more threads read at once than there are processors.
    pub hits: u64,
    /// The number of all other reads, including those that waited for another caller's load.
    pub misses: u64,
    /// The number of calls that read from the store. A batch counts as one.
    pub loads: u64,
    /// The number of keys that were evicted.
    pub evictions: u64,
    /// The number of ids that have a cached entry now, including expired ones.
    pub keys: usize,
}

#[derive(Clone, Copy, Debug)]
struct CacheSettings {
    ttl: Duration,
    max_keys: usize,
    max_stale: Duration,
    negative_ttl: Duration,
    join_window: Duration,
}

struct CachedStore<S> {
    store: S,
    settings: CacheSettings,
    table: Arc<Table<PendingAnswer>>,
    loads: AtomicU64,
}

impl<S: KeyStore> Cached<S> {
    /// Returns a builder of a cache around this store.
    pub fn builder(store: S) -> CachedBuilder<S> {
        let settings = CacheSettings {
            ttl: DEFAULT_TTL,
            max_keys: DEFAULT_MAX_KEYS,
            max_stale: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            join_window: DEFAULT_JOIN_WINDOW,
        };
        CachedBuilder { store, settings }
    }

    /// Removes the cached entry of this id, so that the next read asks the store.
    ///
    /// Call it when you learn, perhaps from a message, that another process has deleted or
    /// overwritten the key. As after a write through this cache, nothing is cached for the id until
    /// the store's visibility bound has passed.
    pub fn invalidate(&self, id: &KeyId) {
        self.shared.table.written(id, Instant::now());
    }

    /// Returns a function that removes expired keys. It keeps the cached keys alive, but not the
    /// store.
    pub(crate) fn expiry(&self) -> impl Fn() + Send + use<S> {
        let table = self.shared.table.clone();
        let max_stale = self.shared.settings.max_stale;
        move || {
            table.remove_expired(Instant::now(), max_stale);
        }
    }

    /// Erases a key and returns the result of the store beneath the cache, including `verified`.
    /// Only a fence may call this method, because a fence keeps readers from the keys that other
    /// caches still hold.
    pub(crate) async fn erase_beneath(&self, id: &KeyId) -> Result<Erasure> {
        let _writing = self.writing(slice::from_ref(id));
        self.shared.store.erase_key(id).await
    }

    /// Removes all cached entries, as [`invalidate`](Self::invalidate) does for one id.
    pub fn invalidate_all(&self) {
        self.shared.table.all_written(Instant::now());
    }

    /// Removes the entries that have expired, and returns their number. The keys are wiped unless a
    /// caller still holds them.
    ///
    /// Use it in a process that reads rarely and should not keep expired keys in memory. A key that
    /// [`stale_if_error`](CachedBuilder::stale_if_error) may still return is not removed. The call
    /// examines every cached id, so it takes time in proportion to their number. You can call it at
    /// any time: a concurrent read or write waits for only a part of that time.
    pub fn remove_expired(&self) -> usize {
        self.shared.table.remove_expired(Instant::now(), self.shared.settings.max_stale)
    }

    /// Returns the statistics of the cache since it was built.
    pub fn statistics(&self) -> CacheStats {
        let table = &self.shared.table;
        let (hits, misses) = table.hits_and_misses();
        let loads = self.shared.loads.load(Ordering::Relaxed);
        CacheStats { hits, misses, loads, evictions: table.evictions(), keys: table.len() }
    }

    /// Returns the time to live: how long a key is returned from memory.
    pub fn ttl(&self) -> Duration {
        self.shared.settings.ttl
    }

    /// Returns the greatest age that an answer from memory can have, counted from the beginning of
    /// its load: the time to live plus `stale_if_error`, or the negative time to live if that is
    /// longer.
    pub fn longest_age(&self) -> Duration {
        let CacheSettings { ttl, max_stale, negative_ttl, .. } = self.shared.settings;
        (ttl + max_stale).max(negative_ttl)
    }

    /// Returns the store beneath the cache.
    pub(crate) fn store(&self) -> &S {
        &self.shared.store
    }

    /// Removes the cached entries of these ids now, and again when the returned guard is dropped.
    fn writing<'a>(&'a self, ids: &'a [KeyId]) -> Writing<'a> {
        let writing = Writing { table: &self.shared.table, ids };
        writing.invalidate();
        writing
    }
}

impl<S: KeyStore> CachedStore<S> {
    /// Returns the answer that an entry stands for.
    fn answer_of(&self, entry: Entry) -> Result<SecretKey> {
        entry.key.ok_or_else(|| Error::new(ErrorKind::NotFound, Operation::Get, self.store.info().scheme()))
    }
}

/// A guard that exists while ids are being written: it removes their cached entries when it is
/// dropped.
struct Writing<'a> {
    table: &'a Table<PendingAnswer>,
    ids: &'a [KeyId],
}

impl Writing<'_> {
    fn invalidate(&self) {
        self.ids.iter().for_each(|id| self.table.invalidate(id));
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.ids.iter().for_each(|id| self.table.written(id, now));
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Cached<S> {
    fn info(&self) -> StoreInfo {
        let CacheSettings { ttl, max_keys, .. } = self.shared.settings;
        self.store().info().with_note(format!("cached for {ttl:?}, at most {max_keys} keys"))
    }

    /// Adds the greatest age of a cached answer to the visibility bound of the store. The cache is
    /// never fenced, because an erased key may still be in it.
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store().capabilities().with_cache();
        let within = capabilities.consistency.bound().saturating_add(self.longest_age());
        capabilities.consistency = Consistency::Eventual { within };
        capabilities.fenced = false;
        capabilities
    }

    // Written without `async`: a hit is so fast that an async block would be a noticeable part of
    // its cost.
    fn get_key<'s, 'i, 'f>(&'s self, id: &'i KeyId) -> BoxFuture<'f, Result<SecretKey>>
    where
        's: 'f,
        'i: 'f,
        Self: 'f,
    {
        let mut load: Option<BoxFuture<'f, Result<SecretKey>>> = None;
        Box::pin(future::poll_fn(move |context| {
            if load.is_none()
                && let Some(entry) = self.shared.table.fresh(id, Instant::now())
            {
                return Poll::Ready(self.shared.answer_of(entry));
            }
            let load = load.get_or_insert_with(|| {
                Box::pin(async move { self.load(&[id]).await.pop().expect("there is one answer for each id") })
            });
            load.poll_unpin(context)
        }))
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let _writing = self.writing(slice::from_ref(id));
        self.store().put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let _writing = self.writing(slice::from_ref(id));
        self.store().delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store().list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store().check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.store().identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let now = Instant::now();
        let batch = Distinct::of(ids);
        let cached = |id| self.shared.table.fresh(id, now).map(|entry| self.shared.answer_of(entry));
        let mut answers: Vec<Option<Result<SecretKey>>> = batch.ids.iter().map(cached).collect();
        let gaps = batch.ids.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let missing: Vec<&KeyId> = gaps.map(|(id, _)| id).collect();
        if !missing.is_empty() {
            let loaded = self.load(&missing).await;
            let gaps = answers.iter_mut().filter(|answer| answer.is_none());
            gaps.zip(loaded).for_each(|(gap, answer)| *gap = Some(answer));
        }
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("each id was found or loaded")).collect();
        batch.spread(&answers)
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let _writing = self.writing(ids);
        self.store().delete_keys(ids).await
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let ids: Vec<KeyId> = keys.iter().map(|(id, _)| id.clone()).collect();
        let _writing = self.writing(&ids);
        self.store().create_keys(keys).await
    }

    /// Always asks the store, because another caller may have created the key first. The returned
    /// key is cached, unless the answer may be older than an earlier write.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let ticket = self.shared.table.begin_to_write(id, Instant::now());
        let until = ticket.begun() + self.shared.settings.ttl;
        let answer = self.store().get_or_create(id, candidate).await;
        let (arrival, may_have_written) = match &answer {
            Ok(key) => (Arrival::Known(Entry { key: Some(key.clone()), until }), key == candidate),
            Err(e) => (Arrival::Unknown, e.effect() == Effect::Unknown),
        };
        ticket.settle_write(arrival, may_have_written.then(Instant::now));
        answer
    }

    /// Never returns `verified: true`, because another cache may still hold the key.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let erasure = self.erase_beneath(id).await?;
        Ok(Erasure::new(erasure.existed, erasure.finality, false).with_unsettled(erasure.unsettled))
    }
}

impl<S> Clone for Cached<S> {
    /// Returns another handle to the same cache.
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<S: fmt::Debug> fmt::Debug for Cached<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("store", &self.shared.store)
            .field("settings", &self.shared.settings)
            .field("keys", &self.shared.table.len())
            .finish()
    }
}

impl<S: KeyStore> CachedBuilder<S> {
    /// Sets the time to live: how long a key is returned from memory without asking the store. It
    /// is at most one year, and 60 seconds by default.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// Sets the largest number of cached keys, 10,000 by default. A key of 32 bytes takes about 300
    /// bytes of memory.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.settings.max_keys = max_keys;
        self
    }

    /// Sets how long after the time to live a key is still returned if the store cannot be reached,
    /// does not answer in time or throttles. By default an expired key is never returned.
    ///
    /// It never applies after a write of the key through this cache, nor after the store has given
    /// any other answer, such as `NotFound` or `PermissionDenied`.
    pub fn stale_if_error(mut self, max_stale: Duration) -> Self {
        self.settings.max_stale = max_stale;
        self
    }

    /// Sets how long `NotFound` is returned from memory without asking the store, at most the time
    /// to live. By default it is not cached.
    ///
    /// A key that another process creates is not seen for that time, so keep it short.
    pub fn negative_ttl(mut self, negative_ttl: Duration) -> Self {
        self.settings.negative_ttl = negative_ttl;
        self
    }

    /// Sets how long after its start a load can be joined, 10 seconds by default. A load cannot be
    /// joined for longer than the time to live, either. A later caller starts another load, which
    /// the callers after that one join.
    ///
    /// This protects later callers from a load that hangs. It does not end the load: the callers
    /// that have joined it wait until it ends. So put a [`Resilient`](crate::Resilient) beneath the
    /// cache: its deadline ends the load. For one id, the number of loads at once is at most the
    /// age of the oldest one divided by this window, plus one, and never more than the number of
    /// callers. If healthy loads take longer than this window, for example because a
    /// [`Limited`](crate::Limited) beneath delays them, set a longer one. The answer of a load that
    /// was overtaken by a later one goes to the callers that wait for it and is not cached.
    pub fn join_window(mut self, join_window: Duration) -> Self {
        self.settings.join_window = join_window;
        self
    }

    /// Builds an empty cache.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) in these cases:
    /// - The time to live, the number of keys or the join window is zero.
    /// - The time to live or `stale_if_error` is longer than a year.
    /// - `negative_ttl` is longer than the time to live.
    /// - The store is fenced ([`Capabilities::fenced`]), so the cache would return erased keys.
    pub fn build(self) -> Result<Cached<S>> {
        let CacheSettings { ttl, max_keys, max_stale, negative_ttl, join_window } = self.settings;
        let capabilities = self.store.capabilities();
        let wrong = if capabilities.fenced {
            Some("the cache is around a fence and would return erased keys: put the cache inside the fence")
        } else if ttl.is_zero() {
            Some("the cache's time to live is zero: set a longer one, or leave the cache out")
        } else if ttl > LONGEST || max_stale > LONGEST {
            Some("the cache's time to live or stale_if_error is longer than a year: set a shorter one")
        } else if max_keys == 0 {
            Some("the cache's max_keys is zero: set at least 1, or leave the cache out")
        } else if negative_ttl > ttl {
            Some("negative_ttl is longer than the cache's time to live: set a shorter one")
        } else if join_window.is_zero() {
            Some("the cache's join_window is zero, so every caller would ask the store: set a longer one")
        } else {
            None
        };
        if let Some(why) = wrong {
            return Err(misconfigured(&self.store, why));
        }
        let readers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS);
        let table = Arc::new(Table::new(max_keys, readers, capabilities.consistency.bound()));
        let shared = CachedStore { store: self.store, settings: self.settings, table, loads: AtomicU64::new(0) };
        Ok(Cached { shared: Arc::new(shared) })
    }
}

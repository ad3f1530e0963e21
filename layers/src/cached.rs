//! [`Cached`]: reads from memory what was read from the store a moment ago.

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

/// With more threads than these, some share copies of hot keys.
const MOST_READERS: usize = 64;

/// No time that is set may be longer: moments far off cannot be told.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A cache of keys, for a store that is reached over a network or whose calls are counted.
///
/// A key that was read is answered from memory for the *time to live*, 60 seconds if nothing is
/// set, counted from before the call to the store began. The cache holds 10,000 keys if nothing is
/// set, and evicts those that are used least. Evicted keys are wiped, as all keys are. An expired
/// key stays in memory until it is asked for, until it is evicted, or until
/// [`remove_expired`](Self::remove_expired) is called; a process that reads rarely calls that from
/// time to time.
///
/// # What it promises
/// **In one process**, to all who share the cache (clones of a `Cached` do): after `Ok` of a write
/// through it, every read gives what the store gives. A write removes what is cached of its id
/// before it asks the store, and again when it has ended. What a read finds that was under way
/// meanwhile is not kept, and neither is the answer of any call that began before the store's own
/// visibility bound was over, be it a read or a [`get_or_create`](KeyStore::get_or_create) that
/// returns the key that stands. So a deleted key does not come back from this cache. If a write
/// ends without an answer, or its future is dropped, and the store carries it out later, the cache
/// may give the old key for the time to live.
///
/// **Across processes**, and between caches of one process that are no clones: a key that somebody
/// else has deleted or overwritten may be read for at most the time to live (plus
/// [`stale_if_error`](CachedBuilder::stale_if_error) where that is set). So
/// [`capabilities`](KeyStore::capabilities) say [`Consistency::Eventual`] with that bound, and an
/// [`Erasure`] through the cache never says `verified`: another cache may hold the key. A caller
/// that needs a proof asks the store beneath.
///
/// **Loads.** However many callers ask for one key at once, the store is asked once. If the caller
/// that began the load is dropped, the others that joined it carry it on. A load is joined for 10
/// seconds if nothing is set ([`join_window`](CachedBuilder::join_window)); a caller that comes
/// later begins a load of its own. If the store panics, the caller that began the load panics, all
/// that joined it get an error of kind [`Other`](ErrorKind::Other), and the next read asks the
/// store again. A batch asks for all that is not cached in one batch, and a caller that joins it
/// for one key waits for the whole batch. Errors are not kept, and neither is
/// [`NotFound`](ErrorKind::NotFound), unless [`negative_ttl`](CachedBuilder::negative_ttl) is set.
///
/// # Where to put it
/// Around [`Resilient`](crate::Resilient), which ends loads that hang, and inside
/// [`Fenced`](crate::Fenced), which is asked at each read: a cache around a fence would give out
/// erased keys, so [`build`](CachedBuilder::build) refuses it.
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

/// The settings of a [`Cached`].
#[derive(Clone, Debug)]
pub struct CachedBuilder<S> {
    store: S,
    settings: CacheSettings,
}

/// The counts of what a [`Cached`] has done since it was built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheStats {
    /// The number of reads answered from memory; each id of a batch is a read. A few may be left
    /// out where more threads read at once than there are processors.
    pub hits: u64,
    /// The number of other reads, those that waited for another caller's load included.
    pub misses: u64,
    /// The number of calls to the store for reads; a batch is one.
    pub loads: u64,
    /// The number of keys that were evicted.
    pub evictions: u64,
    /// The number of ids of which something is cached now, expired or not.
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
    /// Begins a cache around this store.
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

    /// Forgets what is cached of this id, so that the next read asks the store. It is for a caller
    /// that learns, perhaps by a message, that another process has deleted or overwritten the key.
    /// As after a write through this cache, nothing is kept of the id until the store's visibility
    /// bound is over.
    pub fn invalidate(&self, id: &KeyId) {
        self.shared.table.written(id, Instant::now());
    }

    /// Returns what removes expired keys without holding the store.
    pub(crate) fn expiry(&self) -> impl Fn() + Send + use<S> {
        let table = self.shared.table.clone();
        let max_stale = self.shared.settings.max_stale;
        move || {
            table.remove_expired(Instant::now(), max_stale);
        }
    }

    /// Erases a key and returns what the store beneath says, `verified` included: for a fence,
    /// which keeps readers from what other caches still hold.
    pub(crate) async fn erase_beneath(&self, id: &KeyId) -> Result<Erasure> {
        let _writing = self.writing(slice::from_ref(id));
        self.shared.store.erase_key(id).await
    }

    /// Forgets all that is cached, as [`invalidate`](Self::invalidate) does for one id.
    pub fn invalidate_all(&self) {
        self.shared.table.all_written(Instant::now());
    }

    /// Removes the keys that have expired, and returns the number of ids of which something was
    /// removed. The keys are wiped unless a caller still holds them.
    ///
    /// Expired keys are never given out; this is for a process that reads rarely and must not keep
    /// them in memory. A key counts as expired when
    /// [`stale_if_error`](CachedBuilder::stale_if_error) allows it no longer, too. The call looks
    /// at every cached id, so it takes time in proportion to their number. It may be made at any
    /// time: reads and writes go on meanwhile, and wait for a part of that time at most.
    pub fn remove_expired(&self) -> usize {
        self.shared.table.remove_expired(Instant::now(), self.shared.settings.max_stale)
    }

    /// Returns the counts of what the cache has done since it was built.
    pub fn statistics(&self) -> CacheStats {
        let table = &self.shared.table;
        let (hits, misses) = table.hits_and_misses();
        let loads = self.shared.loads.load(Ordering::Relaxed);
        CacheStats { hits, misses, loads, evictions: table.evictions(), keys: table.len() }
    }

    /// Returns the time for which a key is given from memory.
    pub fn ttl(&self) -> Duration {
        self.shared.settings.ttl
    }

    /// Returns the longest time after the beginning of its load for which an answer may be given
    /// from memory: the time to live plus `stale_if_error`, or the negative time to live if that is
    /// longer.
    pub fn longest_age(&self) -> Duration {
        let CacheSettings { ttl, max_stale, negative_ttl, .. } = self.shared.settings;
        (ttl + max_stale).max(negative_ttl)
    }

    /// The store beneath the cache.
    pub(crate) fn store(&self) -> &S {
        &self.shared.store
    }

    /// Says that the ids are being written until the guard is dropped: what is cached of them is
    /// removed now and then.
    fn writing<'a>(&'a self, ids: &'a [KeyId]) -> Writing<'a> {
        let writing = Writing { table: &self.shared.table, ids };
        writing.invalidate();
        writing
    }
}

impl<S: KeyStore> CachedStore<S> {
    /// The answer that an entry stands for.
    fn known(&self, entry: Entry) -> Result<SecretKey> {
        entry.key.ok_or_else(|| Error::new(ErrorKind::NotFound, Operation::Get, self.store.info().scheme()))
    }
}

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

    /// Reads may lag by as long as an answer may be cached, on top of the store's own bound.
    /// Nothing is fenced here: an erased key may be in the cache still.
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.store().capabilities().with_cache();
        let within = capabilities.consistency.bound().saturating_add(self.longest_age());
        capabilities.consistency = Consistency::Eventual { within };
        capabilities.fenced = false;
        capabilities
    }

    // Written by hand: a hit is so quick that an async block around it would be a good part of its
    // cost.
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
                return Poll::Ready(self.shared.known(entry));
            }
            let load = load.get_or_insert_with(|| {
                Box::pin(async move { self.load(&[id]).await.pop().expect("one answer an id") })
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
        let cached = |id| self.shared.table.fresh(id, now).map(|entry| self.shared.known(entry));
        let mut answers: Vec<Option<Result<SecretKey>>> = batch.ids.iter().map(cached).collect();
        let gaps = batch.ids.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        let missing: Vec<&KeyId> = gaps.map(|(id, _)| id).collect();
        if !missing.is_empty() {
            let loaded = self.load(&missing).await;
            let gaps = answers.iter_mut().filter(|answer| answer.is_none());
            gaps.zip(loaded).for_each(|(gap, answer)| *gap = Some(answer));
        }
        let answers: Vec<_> = answers.into_iter().map(|answer| answer.expect("each was found or loaded")).collect();
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

    /// Asks the store, because another creator may have won; the key that stands is cached, unless
    /// the answer may be from before an earlier write.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let ticket = self.shared.table.begin_to_write(id, Instant::now());
        let until = ticket.begun() + self.shared.settings.ttl;
        let standing = self.store().get_or_create(id, candidate).await;
        let (arrival, may_have_written) = match &standing {
            Ok(key) => (Arrival::Known(Entry { key: Some(key.clone()), until }), key == candidate),
            Err(e) => (Arrival::Unknown, e.effect() == Effect::Unknown),
        };
        ticket.settle_write(arrival, may_have_written.then(Instant::now));
        standing
    }

    /// Never says `verified`, because another cache may still hold the key.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let erasure = self.erase_beneath(id).await?;
        Ok(Erasure::new(erasure.existed, erasure.finality, false).with_unsettled(erasure.unsettled))
    }
}

impl<S> Clone for Cached<S> {
    /// Another handle of the same cache.
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
    /// Sets how long a key is given from memory without asking the store. At most a year; 60
    /// seconds if it is not set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// Sets how many keys are held at most; 10,000 if it is not set. A key of 32 bytes takes about
    /// 300 bytes of memory.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.settings.max_keys = max_keys;
        self
    }

    /// Sets for how much longer than the time to live a key is given while the store cannot be
    /// reached, does not answer in time or throttles. Not set, it is not. It never applies after a
    /// write through this cache, nor after the store has said anything else, `NotFound` or a
    /// refusal.
    pub fn stale_if_error(mut self, max_stale: Duration) -> Self {
        self.settings.max_stale = max_stale;
        self
    }

    /// Sets how long `NotFound` is given again without asking the store; not set, it is not. At
    /// most the time to live. A key that another process creates is not seen for that long, so keep
    /// it brief.
    pub fn negative_ttl(mut self, negative_ttl: Duration) -> Self {
        self.settings.negative_ttl = negative_ttl;
        self
    }

    /// Sets how long after its beginning a load may be joined; 10 seconds if it is not set, and
    /// never longer than the time to live. A caller that comes later begins a load of its own, and
    /// those that follow join that one.
    ///
    /// This bounds what a load that hangs does to callers that come later, not the load itself: its
    /// callers wait until it ends, so put a [`Resilient`](crate::Resilient) beneath, whose deadline
    /// ends it. At most the age of the oldest load, divided by this window, plus one are under way
    /// for an id, and never more than there are callers. If healthy loads take longer than this,
    /// because a [`Limited`](crate::Limited) beneath lets them wait, set more. What an older load
    /// brings late is given to those that wait for it and is not kept.
    pub fn join_window(mut self, join_window: Duration) -> Self {
        self.settings.join_window = join_window;
        self
    }

    /// Builds the cache, with nothing in it.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the time to live, the number of keys or the join window is
    /// zero, if the time to live or the time that errors are bridged is longer than a year, if
    /// `NotFound` would be kept longer than a key, or if the store is fenced
    /// ([`Capabilities::fenced`]): the cache would give out keys that the fence has erased.
    pub fn build(self) -> Result<Cached<S>> {
        let CacheSettings { ttl, max_keys, max_stale, negative_ttl, join_window } = self.settings;
        let capabilities = self.store.capabilities();
        let wrong = if capabilities.fenced {
            Some("the cache is around a fence and would give out erased keys: put the cache inside the fence")
        } else if ttl.is_zero() {
            Some("the cache's time to live is zero: set one, or leave the cache out")
        } else if ttl > LONGEST || max_stale > LONGEST {
            Some("the cache's time to live or stale_if_error is above a year: set a shorter one")
        } else if max_keys == 0 {
            Some("the cache has room for no key: set max_keys, or leave the cache out")
        } else if negative_ttl > ttl {
            Some("negative_ttl is longer than the cache's time to live: set a shorter one")
        } else if join_window.is_zero() {
            Some("the cache's join_window is zero, so that every caller would ask the store: set a longer one")
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

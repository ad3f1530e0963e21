//! [`Cached`]: reads from memory what was read from the store a moment ago.

mod replicas;
mod table;

use std::fmt;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared, WeakShared};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode,
    Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::table::{Arrival, Begun, Entry, Table, Ticket};
use crate::describe::misconfigured;
use crate::distinct::Distinct;

const DEFAULT_TTL: Duration = Duration::from_secs(60);
const DEFAULT_MAX_KEYS: usize = 10_000;

/// With more threads than these, some share copies of hot keys.
const MOST_READERS: usize = 64;

/// No time that is set may be longer: moments far off cannot be told.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// A cache of keys: for a store that is a network call away, or whose calls are counted.
///
/// A key that was read is answered from memory for the *time to live*, 60 seconds if nothing is set, counted from before the
/// call to the store began. The cache holds 10,000 keys if nothing is set, and gives up those that are used least. Keys that
/// it gives up are wiped, as all keys are. A key that has expired stays in memory until it is asked for, or gives way to
/// another one.
///
/// # What it promises
/// **In one process**, to all who share the cache (clones of a `Cached` do): after `Ok` of a write through it, every read gives
/// what the store gives. A write takes what is cached of its id away before it asks the store, and again when it is done
/// with it, and what a read finds that was under way meanwhile is not kept, nor what one finds that began before the store's
/// own visibility bound was over. So a deleted key does not come back from this cache. If a write ends without an answer, or
/// its future is dropped, and the store carries it out later, the cache may give the old key for the time to live.
///
/// **Across processes**, and between caches of one process that are no clones: a key that somebody else has deleted or
/// overwritten may be read for at most the time to live (plus [`stale_if_error`](CachedBuilder::stale_if_error) where that is
/// set). So [`capabilities`](KeyStore::capabilities) say [`Consistency::Eventual`] with that bound, and an [`Erasure`] through
/// the cache never says `verified`: another cache may hold the key. What needs a proof asks the store beneath, or
/// [`Fenced`](crate::Fenced) around the cache.
///
/// However many ask for one key at once, the store is asked once; if the caller that asked is given up, the others carry its
/// call on. A batch asks for all that is not cached in one batch. Errors are not kept, and neither is
/// [`NotFound`](ErrorKind::NotFound), unless [`negative_ttl`](CachedBuilder::negative_ttl) is set.
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

/// How a [`Cached`] is set up.
#[derive(Clone, Debug)]
pub struct CachedBuilder<S> {
    store: S,
    settings: Settings,
}

/// What a [`Cached`] has done since it was built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Statistics {
    /// Reads answered from memory; each id of a batch is a read. A few may be left out where more threads read at once than
    /// there are processors.
    pub hits: u64,
    /// Reads that were not, those that waited for somebody else's call included.
    pub misses: u64,
    /// Calls to the store for reads; a batch is one.
    pub loads: u64,
    /// Keys that had to make room.
    pub evictions: u64,
    /// Ids of which something is cached now.
    pub keys: usize,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    ttl: Duration,
    max_keys: usize,
    max_stale: Duration,
    negative_ttl: Duration,
}

struct CachedStore<S> {
    store: S,
    settings: Settings,
    table: Arc<Table<Seat>>,
    loads: AtomicU64,
}

/// A call to the store that several readers wait for, and its answers.
type Load = Shared<BoxFuture<'static, Arc<[Result<SecretKey>]>>>;

/// Which answer of a load is an id's.
struct Seat {
    load: WeakShared<BoxFuture<'static, Arc<[Result<SecretKey>]>>>,
    number: usize,
}

impl<S: KeyStore> Cached<S> {
    /// A cache around this store.
    pub fn builder(store: S) -> CachedBuilder<S> {
        let settings = Settings {
            ttl: DEFAULT_TTL,
            max_keys: DEFAULT_MAX_KEYS,
            max_stale: Duration::ZERO,
            negative_ttl: Duration::ZERO,
        };
        CachedBuilder { store, settings }
    }

    /// Forgets what is cached of this id: the next read asks the store. For when something else says that the key was
    /// deleted or overwritten, a message from another process perhaps.
    pub fn invalidate(&self, id: &KeyId) {
        self.shared.table.invalidate(id);
    }

    /// Forgets all that is cached.
    pub fn invalidate_all(&self) {
        self.shared.table.invalidate_all();
    }

    /// What the cache has done since it was built.
    pub fn statistics(&self) -> Statistics {
        let table = &self.shared.table;
        let (hits, misses) = table.hits_and_misses();
        let loads = self.shared.loads.load(Ordering::Relaxed);
        Statistics { hits, misses, loads, evictions: table.evictions(), keys: table.len() }
    }

    /// Reads ids, each once, of which nothing fresh was found.
    async fn load(&self, ids: &[&KeyId]) -> Vec<Result<SecretKey>> {
        let now = Instant::now();
        let (depart, tickets) = oneshot::channel();
        let load: Load = self.shared.clone().carry_out(tickets).boxed().shared();
        let mut own = Vec::new();
        // Whoever joins gets an answer that is no older than what may be cached.
        let not_before = now.checked_sub(self.shared.settings.ttl);
        let begun: Vec<_> = ids
            .iter()
            .map(|id| {
                let join = |seat: &Seat| Some((seat.load.upgrade()?, seat.number));
                let make = |ticket| {
                    let number = own.len();
                    own.push(ticket);
                    let seat = Seat { load: load.downgrade().expect("it has not ended before it departs"), number };
                    (seat, (load.clone(), number))
                };
                self.shared.table.begin(id, now, not_before, join, make)
            })
            .collect();
        // Only now that all ids are aboard, so that they are one batch; nobody is there to miss it if none is.
        drop(depart.send(own));
        let answer = async |begun: Begun<(Load, usize)>| match begun {
            Begun::Fresh(entry) => self.shared.known(entry),
            Begun::Joined((load, number)) => load.await[number].clone(),
        };
        future::join_all(begun.into_iter().map(answer)).await
    }

    /// While this stands the ids are being written: what is cached of them goes now and when it ends, however that happens.
    fn writing<'a>(&'a self, ids: &'a [KeyId]) -> Writing<'a> {
        let writing = Writing { table: &self.shared.table, ids };
        writing.invalidate();
        writing
    }
}

impl<S: KeyStore> CachedStore<S> {
    /// Asks the store for all ids that come aboard.
    async fn carry_out(self: Arc<Self>, tickets: oneshot::Receiver<Vec<Ticket<Seat>>>) -> Arc<[Result<SecretKey>]> {
        let tickets = tickets.await.unwrap_or_default();
        self.loads.fetch_add(1, Ordering::Relaxed);
        let ids: Vec<KeyId> = tickets.iter().map(|ticket| ticket.id().clone()).collect();
        let answers = match ids.as_slice() {
            [id] => vec![self.store.get_key(id).await],
            ids => self.store.get_keys(ids).await,
        };
        tickets.into_iter().zip(answers).map(|(ticket, answer)| self.settle(ticket, answer)).collect()
    }

    fn settle(&self, ticket: Ticket<Seat>, answer: Result<SecretKey>) -> Result<SecretKey> {
        let Settings { ttl, max_stale, negative_ttl, .. } = self.settings;
        let begun = ticket.begun();
        let arrival = match &answer {
            Ok(key) => Arrival::Known(Entry { key: Some(key.clone()), until: begun + ttl }),
            Err(e) if e.kind() == ErrorKind::NotFound && !negative_ttl.is_zero() => {
                Arrival::Known(Entry { key: None, until: begun + negative_ttl })
            }
            Err(e) if !max_stale.is_zero() && is_no_answer(e) => Arrival::Failed { at: Instant::now(), max_stale },
            Err(_) => Arrival::Unknown,
        };
        match ticket.settle(arrival) {
            Some(Entry { key: Some(stale), .. }) => Ok(stale),
            _ => answer,
        }
    }

    /// The answer that an entry stands for.
    fn known(&self, entry: Entry) -> Result<SecretKey> {
        entry.key.ok_or_else(|| Error::new(ErrorKind::NotFound, Operation::Get, self.store.info().scheme()))
    }
}

/// The store has said nothing about the key.
fn is_no_answer(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Timeout)
}

struct Writing<'a> {
    table: &'a Table<Seat>,
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
        let Settings { ttl, max_keys, .. } = self.shared.settings;
        self.shared.store.info().with_note(format!("cached for {ttl:?}, at most {max_keys} keys"))
    }

    /// Reads may lag by as long as an answer may be cached, on top of what the store's may.
    fn capabilities(&self) -> Capabilities {
        let Settings { ttl, max_stale, negative_ttl, .. } = self.shared.settings;
        let mut capabilities = self.shared.store.capabilities();
        let within = capabilities.consistency.bound().saturating_add((ttl + max_stale).max(negative_ttl));
        capabilities.consistency = Consistency::Eventual { within };
        capabilities
    }

    // Written by hand: a hit is so quick that an async block around it would be a good part of its cost.
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
        self.shared.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let _writing = self.writing(slice::from_ref(id));
        self.shared.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.shared.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.shared.store.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.shared.store.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let (now, batch) = (Instant::now(), Distinct::of(ids));
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
        self.shared.store.delete_keys(ids).await
    }

    /// Asks the store, as somebody else may have won; the key that stands is cached.
    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let ticket = self.shared.table.begin_to_write(id, Instant::now());
        let until = ticket.begun() + self.shared.settings.ttl;
        let standing = self.shared.store.get_or_create(id, candidate).await;
        let known = |key: &SecretKey| Arrival::Known(Entry { key: Some(key.clone()), until });
        ticket.settle(standing.as_ref().map_or(Arrival::Unknown, known));
        standing
    }

    /// Another cache may hold the key still, so this never says `verified`.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let _writing = self.writing(slice::from_ref(id));
        let erasure = self.shared.store.erase_key(id).await?;
        Ok(Erasure::new(erasure.existed, erasure.finality, false))
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
    /// How long an answer is given again without asking the store. At most a year; 60 seconds if it is not set.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.ttl = ttl;
        self
    }

    /// How many keys are held at most; 10,000 if it is not set. A key of 32 bytes takes about 300 bytes of memory.
    pub fn max_keys(mut self, max_keys: usize) -> Self {
        self.settings.max_keys = max_keys;
        self
    }

    /// While the store cannot be reached, does not answer in time or throttles, a key is given for so much longer than
    /// the time to live. Not set, it is not. It never applies after a write through this cache, nor after the store
    /// has said anything else, `NotFound` or a refusal.
    pub fn stale_if_error(mut self, max_stale: Duration) -> Self {
        self.settings.max_stale = max_stale;
        self
    }

    /// How long `NotFound` is given again without asking the store; not set, it is not. At most the time to live. A key that
    /// somebody else creates is not seen for so long, so keep it brief.
    pub fn negative_ttl(mut self, negative_ttl: Duration) -> Self {
        self.settings.negative_ttl = negative_ttl;
        self
    }

    /// The cache, with nothing in it.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the time to live or the number of keys is zero, if the time to live or the time that
    /// errors are bridged is longer than a year, or if `NotFound` would be kept longer than a key.
    pub fn build(self) -> Result<Cached<S>> {
        let Settings { ttl, max_keys, max_stale, negative_ttl } = self.settings;
        let wrong = if ttl.is_zero() {
            Some("the cache's time to live is zero: set one, or leave the cache out")
        } else if ttl > LONGEST || max_stale > LONGEST {
            Some("the cache's time to live or stale_if_error is above a year: set a shorter one")
        } else if max_keys == 0 {
            Some("the cache has room for no key: set max_keys, or leave the cache out")
        } else if negative_ttl > ttl {
            Some("negative_ttl is longer than the cache's time to live: set a shorter one")
        } else {
            None
        };
        if let Some(why) = wrong {
            return Err(misconfigured(&self.store, why));
        }
        let readers = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_READERS);
        let bound = self.store.capabilities().consistency.bound();
        let table = Arc::new(Table::new(max_keys, readers, bound));
        let shared = CachedStore { store: self.store, settings: self.settings, table, loads: AtomicU64::new(0) };
        Ok(Cached { shared: Arc::new(shared) })
    }
}

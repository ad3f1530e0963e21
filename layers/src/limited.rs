//! [`Limited`]: no more calls at a time, and no more a second, than the store bears.

mod pace;

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreIdentity, StoreInfo, async_trait, create_each,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use self::pace::Pace;
use crate::distinct::Distinct;

/// The largest number of chunks of one batch that are under way at once if no concurrency is set.
const CHUNKS_IN_FLIGHT: usize = 16;

/// The rates that are accepted, in calls per second: from one call a day to a million calls a
/// second.
const RATES: std::ops::RangeInclusive<f64> = 1.0 / 86_400.0..=1_000_000.0;

/// Keeps the calls to a store within a rate, and so many at a time: for a store whose owner
/// throttles or charges what goes beyond, when a copy, an export or a restart would otherwise make
/// all calls at once.
///
/// Put it inside [`Resilient`](crate::Resilient), next to the store: then each retry waits as well,
/// and an attempt's timeout counts the wait. Around a cache it would slow down answers that never
/// leave the process.
///
/// # What it promises
/// **Rate.** Calls start at the slots of the [`Limit`], one at each, in the order in which they
/// come. Slots that pass unused are saved, up to `burst` of them, and a new limit has them all. No
/// call starts before its slot: in any `t` seconds at most `rate * t + burst` of them (but for
/// those that a busy runtime wakes late).
///
/// **Concurrency.** At most so many calls are under way, in the order in which they come. A call
/// waits for that first and for its slot then.
///
/// **What a call is.** Each method is one call, and takes one slot, but for these:
/// - `get_keys` and `delete_keys` send each id once, in chunks of `batch_size`; each chunk is one
///   call.
/// - `erase_key` takes two slots, for the delete and for the read that proves it; it starts at the
///   first.
/// - `get_or_create` takes one: it is one creation as a rule. The loser of a race reads the
///   winner's key besides.
/// - `create_keys` takes one for each key.
/// - `list_keys` takes one at its first id and one after each `batch_size` ids that it has given.
///   It counts against the rate only, so each listing that is open may add one to the calls under
///   way: if it kept others out between two ids, whoever works on the listed ids with the same
///   store would wait for himself.
///
/// **Giving up.** A call that is dropped while it waits has reached nobody. Its place among those
/// under way is free at once, and its slot goes to the next call that comes, ahead of those that
/// wait for later ones.
///
/// Calls of other processes are not known here: divide the rate among them. Put a limit into a
/// stack once: a call that holds a permit of it and waits for another one would wait for itself.
///
/// # Futures that are not polled
/// A call that is under way keeps its permit until its future has ended or is dropped, and a future
/// ends only if it is polled. `stream.buffered(n)`, `buffer_unordered(n)` and `FuturesUnordered`
/// poll their futures only while the *stream* is polled. So this deadlocks with `concurrency(4)`,
/// because the write waits for a permit that the reads hold, and nobody polls the reads while the
/// write waits:
///
/// ```no_run
/// # use futures_util::stream::{self, StreamExt};
/// # use keystead_core::{KeyId, KeyStoreExt, SecretKey};
/// # use keystead_layers::Limited;
/// # async fn deadlock(store: &Limited<keystead_memory::MemoryStore>, ids: Vec<KeyId>, key: &SecretKey) -> keystead_core::Result<()> {
/// let mut missing = stream::iter(ids).map(|id| async move { (store.find_key(&id).await, id) }).buffered(4);
/// while let Some((found, id)) = missing.next().await {
///     if found?.is_none() {
///         store.put_key(&id, key).await?; // waits for ever: `missing` is not polled meanwhile
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// Do all that belongs to one item in one future, which `for_each_concurrent` and
/// `try_for_each_concurrent` always poll; or spawn a task for each item; or collect what the stream
/// gives before the first write:
///
/// ```
/// use futures_util::stream::{self, TryStreamExt};
/// use keystead_core::{KeyId, KeyStoreExt, SecretKey};
/// use keystead_layers::{Limit, Limited};
/// use keystead_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Limited::new(MemoryStore::new(), Limit::builder().concurrency(4).build()?);
/// let store = &store;
/// let ids = (0..100).map(|number| KeyId::new(format!("user-{number}")));
/// let key = &SecretKey::generate(32)?;
/// stream::iter(ids).err_into::<Box<dyn std::error::Error>>().try_for_each_concurrent(16, |id| async move {
///     if store.find_key(&id).await?.is_none() {
///         store.put_key(&id, key).await?;
///     }
///     Ok(())
/// }).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
///
/// It needs a Tokio runtime with time (`enable_time`).
///
/// ```
/// use keystead_core::{KeyId, KeyStoreExt};
/// use keystead_layers::{Limit, Limited};
/// use keystead_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// // One limit for all stores of an account.
/// let limit = Limit::builder().rate(40.0).burst(10).concurrency(8).build()?;
/// let keys = Limited::new(MemoryStore::new(), limit.clone());
/// let more_keys = Limited::new(MemoryStore::new(), limit);
///
/// keys.get_or_create_key(&KeyId::new("alice")?).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Limited<S> {
    store: S,
    reads: Limit,
    writes: Limit,
}

impl<S: KeyStore> Limited<S> {
    /// Keeps the calls to this store, and to all others of this limit, within it.
    pub fn new(store: S, limit: Limit) -> Self {
        Self { store, reads: limit.clone(), writes: limit }
    }

    /// Keeps reads and writes within limits of their own: Parameter Store allows 40 reads a second
    /// and 3 writes.
    ///
    /// `get_key`, `get_keys`, `list_keys`, `check` and `identify` are reads, all other calls are
    /// writes. The read with which `erase_key` proves the absence takes a slot of the reads.
    pub fn with_limits(store: S, reads: Limit, writes: Limit) -> Self {
        Self { store, reads, writes }
    }
}

/// The load that one account, or one engine, bears. Clones are one limit: give them to all stores
/// that share it.
#[derive(Clone)]
pub struct Limit(Arc<Shared>);

struct Shared {
    settings: LimitBuilder,
    permits: Option<Semaphore>,
    pace: Option<Pace>,
}

/// The right to have one call of a [`Limit`] under way, from [`Limit::acquire`].
#[derive(Debug)]
#[must_use = "the call counts as ended when this is dropped"]
pub struct LimitPermit<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// The settings of a [`Limit`]. At least one of concurrency and rate is set.
#[derive(Clone, Debug)]
pub struct LimitBuilder {
    concurrency: Option<usize>,
    rate: Option<f64>,
    burst: u32,
    batch_size: usize,
}

impl Limit {
    /// Begins a limit that has nothing set yet.
    pub fn builder() -> LimitBuilder {
        LimitBuilder { concurrency: None, rate: None, burst: 1, batch_size: 10 }
    }

    /// Waits until a call may start that is not made through a [`Limited`], such as to a store that
    /// is only borrowed. The call counts as under way until the permit is dropped.
    pub async fn acquire(&self) -> LimitPermit<'_> {
        let permit = match &self.0.permits {
            Some(permits) => Some(permits.acquire().await.expect("nobody closes the semaphore")),
            None => None,
        };
        // Not the other way round: calls that wait for others to end would let their slots pass,
        // and then start all at once.
        self.slot().await;
        LimitPermit { _permit: permit }
    }

    async fn slot(&self) {
        if let Some(pace) = &self.0.pace {
            pace.slot().await;
        }
    }

    fn skip_slot(&self) {
        if let Some(pace) = &self.0.pace {
            pace.skip();
        }
    }

    fn batch_size(&self) -> usize {
        self.0.settings.batch_size
    }

    /// Carries out the calls of one batch, which wait for their permits themselves; not all at
    /// once, so that those of other callers come in between.
    async fn in_order<T: Send>(&self, calls: Vec<BoxFuture<'_, Vec<T>>>) -> Vec<T> {
        let in_flight = self.0.settings.concurrency.unwrap_or(CHUNKS_IN_FLIGHT);
        let outcomes: Vec<Vec<T>> = stream::iter(calls).buffered(in_flight).collect().await;
        outcomes.into_iter().flatten().collect()
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Limit").field(&self.0.settings).finish()
    }
}

impl LimitBuilder {
    /// Sets how many calls may be under way at once, at least 1. Not set: any number.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Sets how many calls may start in a second, from one a day (`1.0 / 86_400.0`) to a million.
    /// Not set: any number.
    pub fn rate(mut self, calls_per_second: f64) -> Self {
        self.rate = Some(calls_per_second);
        self
    }

    /// Sets how many calls may start at once after a while in which fewer came than the rate
    /// allows, at least 1 (the default). Tokio's timer wakes calls up to two milliseconds late;
    /// with a rate of hundreds, a burst of that many milliseconds' worth makes up for it.
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = calls;
        self
    }

    /// Sets how many ids of a batch, or of a listing, the store handles in one call, at least 1: 10
    /// (the default) for Parameter Store, 20 for reads from Secrets Manager. A store that makes a
    /// call for each id, as Secrets Manager's deletes do, is counted truly with 1.
    /// [`Capabilities::batch_size`] says this number to the layers around, so that
    /// [`Resilient`](crate::Resilient) splits a batch in the same way.
    pub fn batch_size(mut self, ids: usize) -> Self {
        self.batch_size = ids;
        self
    }

    /// Builds the limit.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if one is out of its bounds, or if neither concurrency nor
    /// rate is set.
    pub fn build(self) -> Result<Limit> {
        let why = if self.concurrency.is_none() && self.rate.is_none() {
            "the limit allows everything: set its concurrency or its rate"
        } else if self.concurrency == Some(0) {
            "a concurrency of zero allows no call: set at least 1, or leave it out"
        } else if self.rate.is_some_and(|rate| !RATES.contains(&rate)) {
            "the rate is not between one call a day and a million a second: set another one, or leave it out"
        } else if self.burst == 0 {
            "a burst of zero allows no call: set at least 1, or leave it out"
        } else if self.batch_size == 0 {
            "a batch size of zero allows no batch: set at least 1, or leave it out"
        } else {
            let permits = self.concurrency.map(|calls| Semaphore::new(calls.min(Semaphore::MAX_PERMITS)));
            let pace = self.rate.map(|rate| Pace::new(rate, self.burst));
            return Ok(Limit(Arc::new(Shared { settings: self, permits, pace })));
        };
        // A limit belongs to no store yet.
        Err(Error::new(ErrorKind::Config, Operation::Open, "layers").with_source(why))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Limited<S> {
    fn info(&self) -> StoreInfo {
        self.store.info().with_note("limited")
    }

    fn capabilities(&self) -> Capabilities {
        let capabilities =
            self.store.capabilities().without_create_batch_size().with_batch_size(self.reads.batch_size());
        capabilities.with_delete_batch_size(self.writes.batch_size())
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let _permit = self.reads.acquire().await;
        self.store.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let _permit = self.writes.acquire().await;
        self.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let _permit = self.writes.acquire().await;
        self.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let page = self.reads.batch_size();
        stream::unfold((self.store.list_keys(), 0), move |(mut ids, given)| async move {
            if given % page == 0 {
                self.reads.slot().await;
            }
            let next = ids.next().await?;
            Some((next, (ids, given + 1)))
        })
        .boxed()
    }

    async fn check(&self) -> Result<()> {
        let _permit = self.reads.acquire().await;
        self.store.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        let _permit = self.reads.acquire().await;
        self.store.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let batch = Distinct::of(ids);
        let chunk = |ids| async move {
            let _permit = self.reads.acquire().await;
            self.store.get_keys(ids).await
        };
        let calls = batch.ids.chunks(self.reads.batch_size()).map(|ids| chunk(ids).boxed()).collect();
        batch.spread(&self.reads.in_order(calls).await)
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let batch = Distinct::of(ids);
        let chunk = |ids| async move {
            let _permit = self.writes.acquire().await;
            self.store.delete_keys(ids).await
        };
        let calls = batch.ids.chunks(self.writes.batch_size()).map(|ids| chunk(ids).boxed()).collect();
        batch.spread(&self.writes.in_order(calls).await)
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        create_each(self, keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let _permit = self.writes.acquire().await;
        self.store.get_or_create(id, candidate).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let _permit = self.writes.acquire().await;
        self.reads.skip_slot();
        self.store.erase_key(id).await
    }
}

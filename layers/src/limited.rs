//! [`Limited`]: a limit on the rate and the concurrency of the calls to a store.

mod slots;

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

use self::slots::CallSlots;
use crate::distinct::Distinct;

/// The largest number of chunks of one batch that are in flight at once if no concurrency is set.
const CHUNKS_IN_FLIGHT: usize = 16;

/// The rates that are accepted, in calls per second: from one call a day to a million calls a
/// second.
const RATES: std::ops::RangeInclusive<f64> = 1.0 / 86_400.0..=1_000_000.0;

/// A store whose calls are limited in rate and concurrency.
///
/// Use it if the owner of the store throttles or charges excess calls, and a copy, an export or a
/// restart would otherwise make all calls at once. Several stores can share one [`Limit`].
///
/// Put it inside [`Resilient`](crate::Resilient), next to the store. Then each retry waits, too,
/// and the timeout of an attempt includes the wait. Around a cache it would slow down answers that
/// never leave the process.
///
/// # What it promises
/// **Rate.** The [`Limit`] has slots at equal intervals. Each call takes one, in the order in which
/// the calls arrive, and does not start before it. Unused slots are saved, up to `burst` of them,
/// and a new limit has that many saved. So in any `t` seconds at most `rate * t + burst` calls
/// start (a busy runtime may wake some of them late).
///
/// **Concurrency.** At most the configured number of calls is in flight, admitted in the order in
/// which they arrive. A call waits for a permit first and then for its slot.
///
/// **What counts as a call.** Each method is one call and takes one slot, with these exceptions:
/// - `get_keys` and `delete_keys` send each id once, in chunks of `batch_size`. Each chunk is one
///   call.
/// - `erase_key` takes two slots, one for the delete and one for the read that verifies it. It
///   starts at the first.
/// - `get_or_create` takes one slot, because it normally makes one call. If it loses a race, the
///   read of the winner's key is not counted.
/// - `create_keys` takes one slot for each key.
/// - `list_keys` takes one slot at its first id and one after each `batch_size` ids. It takes no
///   permit, so each open listing may add one to the calls in flight. If it held a permit, a caller
///   that uses the same store for each listed id could wait for its own listing.
///
/// **Dropped calls.** A call whose future is dropped while it waits has not reached the store. Its
/// permit is free at once, and its slot goes to the next call that arrives, even if other calls
/// already wait for later slots.
///
/// The limit does not know the calls of other processes, so divide the rate among them. Use a limit
/// only once in a stack: a call that holds a permit and waits for a second one of the same limit
/// would wait for itself.
///
/// # Futures that are not polled
/// A call in flight keeps its permit until its future has ended or is dropped, and a future makes
/// progress only while it is polled. `stream.buffered(n)`, `buffer_unordered(n)` and
/// `FuturesUnordered` poll their futures only while the *stream* is polled. So this deadlocks with
/// `concurrency(4)`, because the write waits for a permit that the reads hold, and nobody polls the
/// reads while the write waits:
///
/// ```no_run
/// # use futures_util::stream::{self, StreamExt};
/// # use keystead_core::{KeyId, KeyStoreExt, SecretKey};
/// # use keystead_layers::Limited;
/// # use keystead_memory::MemoryStore;
/// # async fn deadlock(store: &Limited<MemoryStore>, ids: Vec<KeyId>, key: &SecretKey) -> keystead_core::Result<()> {
/// let mut missing = stream::iter(ids).map(|id| async move { (store.find_key(&id).await, id) }).buffered(4);
/// while let Some((found, id)) = missing.next().await {
///     if found?.is_none() {
///         store.put_key(&id, key).await?; // waits forever: `missing` is not polled meanwhile
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// To avoid this, do everything for one item in one future and drive the futures by
/// `for_each_concurrent` or `try_for_each_concurrent`, which always poll all of them. Or spawn a
/// task for each item, or collect the stream before the first write:
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
/// let ids = (0..100).map(|index| KeyId::new(format!("user-{index}")));
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
    /// Limits the calls to this store. All stores with clones of the same limit share it.
    pub fn new(store: S, limit: Limit) -> Self {
        Self { store, reads: limit.clone(), writes: limit }
    }

    /// Limits the reads and the writes separately. Parameter Store, for example, allows 40 reads
    /// and 3 writes per second.
    ///
    /// `get_key`, `get_keys`, `list_keys`, `check` and `identify` are reads. All other calls are
    /// writes. The read with which `erase_key` verifies the absence takes a slot of the reads.
    pub fn with_limits(store: S, reads: Limit, writes: Limit) -> Self {
        Self { store, reads, writes }
    }
}

/// A limit on the rate and the concurrency of calls, for example those that one account allows.
///
/// Clones share one limit. Give a clone to each store that the limit applies to.
#[derive(Clone)]
pub struct Limit(Arc<LimitState>);

struct LimitState {
    settings: LimitBuilder,
    permits: Option<Semaphore>,
    slots: Option<CallSlots>,
}

/// The permit for one call in flight, from [`Limit::acquire`].
#[derive(Debug)]
#[must_use = "the call counts as ended when this is dropped"]
pub struct LimitPermit<'a> {
    _permit: Option<SemaphorePermit<'a>>,
}

/// A builder of a [`Limit`]. Set the concurrency, the rate, or both.
#[derive(Clone, Debug)]
#[must_use]
pub struct LimitBuilder {
    concurrency: Option<usize>,
    rate: Option<f64>,
    burst: u32,
    batch_size: usize,
}

impl Limit {
    /// Returns a builder of a limit.
    pub fn builder() -> LimitBuilder {
        LimitBuilder { concurrency: None, rate: None, burst: 1, batch_size: 10 }
    }

    /// Waits until a call may start that is not made through a [`Limited`], such as a call to a
    /// store that is only borrowed. The call counts as in flight until the permit is dropped.
    pub async fn acquire(&self) -> LimitPermit<'_> {
        let permit = match &self.0.permits {
            Some(permits) => Some(permits.acquire().await.expect("nobody closes the semaphore")),
            None => None,
        };
        // The permit comes first: calls that already had slots while they waited for permits could
        // later start all at once.
        self.wait_for_slot().await;
        LimitPermit { _permit: permit }
    }

    async fn wait_for_slot(&self) {
        if let Some(slots) = &self.0.slots {
            slots.wait().await;
        }
    }

    fn skip_slot(&self) {
        if let Some(slots) = &self.0.slots {
            slots.skip();
        }
    }

    fn batch_size(&self) -> usize {
        self.0.settings.batch_size
    }

    /// Makes the calls of one batch, each of which waits for its own permit. It does not start them
    /// all at once, so that calls of other callers get their turn in between.
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
    /// Sets the largest number of calls in flight, at least 1. By default there is no limit.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Sets the number of calls that may start per second, from one a day (`1.0 / 86_400.0`) to a
    /// million per second. By default there is no limit.
    pub fn rate(mut self, calls_per_second: f64) -> Self {
        self.rate = Some(calls_per_second);
        self
    }

    /// Sets the number of calls that may start at once after a time with fewer calls than the rate
    /// allows, at least 1 (the default).
    ///
    /// Tokio's timer wakes calls up to two milliseconds late. If the rate is hundreds per second, a
    /// burst of as many calls as fall into two milliseconds compensates for that.
    pub fn burst(mut self, calls: u32) -> Self {
        self.burst = calls;
        self
    }

    /// Sets the number of ids of a batch or a listing that the store handles in one call, at least
    /// 1. The default is 10, which is right for Parameter Store.
    ///
    /// Secrets Manager reads 20 ids in one call. For a store that makes one call for each id, such
    /// as the deletes of Secrets Manager, set 1. [`Capabilities::batch_size`] tells this number to
    /// the layers around, so that [`Resilient`](crate::Resilient) splits batches in the same way.
    pub fn batch_size(mut self, ids: usize) -> Self {
        self.batch_size = ids;
        self
    }

    /// Builds the limit.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a setting is out of its bounds, or if neither the
    /// concurrency nor the rate is set.
    pub fn build(self) -> Result<Limit> {
        let why = if self.concurrency.is_none() && self.rate.is_none() {
            "the limit allows everything: set its concurrency or its rate"
        } else if self.concurrency == Some(0) {
            "a concurrency of zero allows no call: set at least 1, or leave it out"
        } else if self.rate.is_some_and(|rate| !RATES.contains(&rate)) {
            "the rate is not between one call a day and a million calls a second: set another one, or leave it out"
        } else if self.burst == 0 {
            "a burst of zero allows no call: set at least 1, or leave it out"
        } else if self.batch_size == 0 {
            "a batch size of zero allows no batch: set at least 1, or leave it out"
        } else {
            let permits = self.concurrency.map(|calls| Semaphore::new(calls.min(Semaphore::MAX_PERMITS)));
            let slots = self.rate.map(|rate| CallSlots::new(rate, self.burst));
            return Ok(Limit(Arc::new(LimitState { settings: self, permits, slots })));
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
                self.reads.wait_for_slot().await;
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

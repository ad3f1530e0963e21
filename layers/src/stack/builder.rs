//! [`StackBuilder`]: the settings of a stack and the order of its layers.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use keystead_core::{Durability, Error, ErrorKind, KeyStore, Operation, Result};

use super::{Front, Stack};
use crate::cached::Cached;
use crate::describe::misconfigured;
use crate::fenced::{Fenced, SETTLING};
use crate::limited::{Limit, Limited};
use crate::observed::Observed;
use crate::resilient::Resilient;

/// The shortest pause between two searches for expired keys.
const SHORTEST_EXPIRY_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two searches for expired keys.
const LONGEST_EXPIRY_PAUSE: Duration = Duration::from_secs(60);

/// The number of attempts that fit into the deadline.
const ATTEMPTS_IN_DEADLINE: u32 = 3;

/// The shortest time limit of an attempt, if the deadline is not shorter.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);

/// The default deadline.
const DEADLINE: Duration = Duration::from_secs(20);

/// The longest deadline behind a fence, for which a call counts as dead after twice this time.
const LONGEST_FENCED_DEADLINE: Duration = SETTLING.checked_div(2).expect("two is not zero");

/// A builder of a [`Stack`]. The setters cannot fail; [`build`](Self::build) checks everything.
#[derive(Clone, Debug)]
#[must_use]
pub struct StackBuilder {
    keys: Arc<dyn KeyStore>,
    tombstones: Option<Arc<dyn KeyStore>>,
    accepted_durability: Option<Durability>,
    cache: CacheSettings,
    limits: LimitSettings,
    deadline: Duration,
    observed: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct CacheSettings {
    ttl: Option<Duration>,
    max_keys: Option<usize>,
    stale_if_error: Option<Duration>,
    negative_ttl: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LimitSettings {
    read_rate: Option<f64>,
    write_rate: Option<f64>,
    concurrency: Option<usize>,
    read_batch_size: Option<usize>,
    delete_batch_size: Option<usize>,
}

impl StackBuilder {
    pub(super) fn new(keys: Arc<dyn KeyStore>) -> Self {
        Self {
            keys,
            tombstones: None,
            accepted_durability: None,
            cache: CacheSettings::default(),
            limits: LimitSettings::default(),
            deadline: DEADLINE,
            observed: true,
        }
    }

    /// Sets the store of the tombstones: see [`Fenced`]. Without one, keys can be deleted, but
    /// users cannot be erased. The stack applies the same deadline and retries to both stores.
    pub fn tombstones(mut self, store: impl KeyStore) -> Self {
        self.tombstones = Some(Arc::new(store));
        self
    }

    /// Accepts tombstones that are less durable than the keys: see
    /// [`FencedBuilder::accept_tombstone_durability`](crate::FencedBuilder::accept_tombstone_durability).
    pub fn accept_tombstone_durability(mut self, durability: Durability) -> Self {
        self.accepted_durability = Some(durability);
        self
    }

    /// Sets the time to live of cached keys, at most one year. Without it, nothing is cached.
    ///
    /// Before an erased user can have a new key, every process that shares the tombstones waits for
    /// the longest time to live that any of them has ever used.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.cache.ttl = Some(ttl);
        self
    }

    /// Sets the largest number of cached keys, 10,000 by default.
    pub fn cache_max_keys(mut self, keys: usize) -> Self {
        self.cache.max_keys = Some(keys);
        self
    }

    /// Sets how long an expired key may still be returned while the store does not answer. By
    /// default it is not returned.
    pub fn cache_stale_if_error(mut self, time: Duration) -> Self {
        self.cache.stale_if_error = Some(time);
        self
    }

    /// Sets how long the absence of a key is cached, at most the time to live. By default it is not
    /// cached.
    pub fn cache_negative_ttl(mut self, ttl: Duration) -> Self {
        self.cache.negative_ttl = Some(ttl);
        self
    }

    /// Sets the number of calls per second that read from the store of the keys. By default there
    /// is no limit.
    pub fn read_rate(mut self, calls_per_second: f64) -> Self {
        self.limits.read_rate = Some(calls_per_second);
        self
    }

    /// Sets the number of calls per second that write to the store of the keys. By default there is
    /// no limit.
    pub fn write_rate(mut self, calls_per_second: f64) -> Self {
        self.limits.write_rate = Some(calls_per_second);
        self
    }

    /// Sets the largest number of reads in flight, and also the largest number of writes in flight,
    /// at the store of the keys. By default there is no limit.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.limits.concurrency = Some(calls);
        self
    }

    /// Sets the number of ids that the store reads or lists in one call, so that the rate counts
    /// calls and not ids.
    ///
    /// The default is the store's own [`Capabilities::batch_size`], or 1 if that is not known.
    ///
    /// [`Capabilities::batch_size`]: keystead_core::Capabilities::batch_size
    pub fn read_batch_size(mut self, ids: usize) -> Self {
        self.limits.read_batch_size = Some(ids);
        self
    }

    /// Sets the number of ids that the store deletes in one call, such as 10 for Parameter Store.
    ///
    /// The default is the store's own [`Capabilities::delete_batch_size`], or else its
    /// [`Capabilities::batch_size`], or 1 if neither is known.
    ///
    /// [`Capabilities::delete_batch_size`]: keystead_core::Capabilities::delete_batch_size
    /// [`Capabilities::batch_size`]: keystead_core::Capabilities::batch_size
    pub fn delete_batch_size(mut self, ids: usize) -> Self {
        self.limits.delete_batch_size = Some(ids);
        self
    }

    /// Sets the time limit of one call to one of the two stores, with all its attempts: 20 seconds
    /// by default, and at most 30 seconds with tombstones.
    ///
    /// The limit of each attempt is one third of it, but at least 5 seconds if the deadline allows
    /// that. Behind a fence, a read makes up to two such calls one after the other, a write up to
    /// four, and an erasure some more.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Sets whether operations are traced and counted by [`Observed`], as they are by default. Turn
    /// it off if you put another `Observed` around the stack.
    pub fn observed(mut self, observed: bool) -> Self {
        self.observed = observed;
        self
    }

    /// Builds the stack. It makes no call to either engine.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config) in these cases:
    ///   - The keys are cached or fenced already.
    ///   - A setting is out of the bounds that its layer names.
    ///   - A setting of the cache is given without a time to live.
    ///   - A batch size is given without a rate or a concurrency.
    ///   - The tombstones do not fit the keys
    ///     ([`FencedBuilder::build`](crate::FencedBuilder::build)).
    ///   - A durability of tombstones is accepted, but there are no tombstones.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the thread that wipes expired keys cannot be
    ///   started.
    pub fn build(self) -> Result<Stack> {
        let keys = self.keys.capabilities();
        let CacheSettings { ttl, max_keys, stale_if_error, negative_ttl } = self.cache;
        let has_cache_settings = max_keys.is_some() || stale_if_error.is_some() || negative_ttl.is_some();
        let wrong = if keys.fenced {
            "the keys are behind a fence already: give the stack the store beneath it, and its tombstones"
        } else if keys.cached {
            "the keys are behind a cache already: give the stack the store beneath it, and set cache_ttl"
        } else if ttl.is_none() && has_cache_settings {
            "a setting of the cache is given, but no time to live: set cache_ttl, too"
        } else if self.limits.has_unused_batch_size() {
            "a batch size is given, but neither a rate nor a concurrency: set one, or leave the batch size out"
        } else if self.tombstones.is_some() && self.deadline > LONGEST_FENCED_DEADLINE {
            "the deadline is longer than 30 seconds, the limit for calls behind a fence: set a shorter one"
        } else if self.tombstones.is_none() && self.accepted_durability.is_some() {
            "a durability of tombstones is accepted, but there are none: set tombstones, too"
        } else {
            return self.build_layers();
        };
        Err(misconfigured(&self.keys, wrong))
    }

    fn build_layers(self) -> Result<Stack> {
        let beneath = self.resilient(self.limits.around(self.keys.clone())?)?;
        let cache = self.cache.around(&beneath)?;
        let front = match &cache {
            Some(cache) => Front::Cached(cache.clone()),
            None => Front::Uncached(beneath.clone()),
        };
        let fence = match &self.tombstones {
            Some(tombstones) => {
                let tombstones = self.resilient(tombstones.clone())?;
                let mut builder = Fenced::builder(front, tombstones).beneath(beneath.clone());
                if let Some(accepted) = self.accepted_durability {
                    builder = builder.accept_tombstone_durability(accepted);
                }
                Some(Arc::new(builder.build()?))
            }
            None => None,
        };
        let innermost: Arc<dyn KeyStore> = match (&fence, &cache) {
            (Some(fence), _) => fence.clone(),
            // Without a fence, an erasure through the cache must not return `verified: true`.
            (None, Some(cache)) => Arc::new(cache.clone()),
            (None, None) => beneath,
        };
        let observer = self.observed.then(|| Observed::new(innermost.clone()));
        let outermost = match &observer {
            Some(observer) => Arc::new(observer.clone()),
            None => innermost,
        };
        let expiry = cache.as_ref().map(wipe_expired_keys).transpose();
        let expiry = expiry.map_err(|e| cannot_start(outermost.info().scheme(), e))?;
        Ok(Stack { outermost, observer, fence, cache, _expiry: expiry })
    }

    /// Puts time limits and retries around one of the two stores.
    fn resilient(&self, store: Arc<dyn KeyStore>) -> Result<Arc<dyn KeyStore>> {
        let attempt_timeout = (self.deadline / ATTEMPTS_IN_DEADLINE).max(ATTEMPT_TIMEOUT.min(self.deadline));
        let resilient = Resilient::builder(store).deadline(self.deadline).attempt_timeout(attempt_timeout).build()?;
        Ok(Arc::new(resilient))
    }
}

impl CacheSettings {
    /// Returns a cache around this store, if a time to live is set.
    fn around(self, store: &Arc<dyn KeyStore>) -> Result<Option<Cached<Arc<dyn KeyStore>>>> {
        let Some(ttl) = self.ttl else { return Ok(None) };
        let mut builder = Cached::builder(store.clone()).ttl(ttl);
        if let Some(max_keys) = self.max_keys {
            builder = builder.max_keys(max_keys);
        }
        if let Some(time) = self.stale_if_error {
            builder = builder.stale_if_error(time);
        }
        if let Some(ttl) = self.negative_ttl {
            builder = builder.negative_ttl(ttl);
        }
        builder.build().map(Some)
    }
}

impl LimitSettings {
    fn is_unlimited(self) -> bool {
        self.read_rate.is_none() && self.write_rate.is_none() && self.concurrency.is_none()
    }

    fn has_unused_batch_size(self) -> bool {
        self.is_unlimited() && (self.read_batch_size.is_some() || self.delete_batch_size.is_some())
    }

    /// Returns this store behind its limits, or the store itself if no limit is set.
    fn around(self, store: Arc<dyn KeyStore>) -> Result<Arc<dyn KeyStore>> {
        if self.is_unlimited() {
            return Ok(store);
        }
        let capabilities = store.capabilities();
        let own_size = capabilities.batch_size.unwrap_or(1);
        let own_delete_size = capabilities.delete_batch_size.unwrap_or(own_size);
        let reads = self.limit(self.read_rate, self.read_batch_size.unwrap_or(own_size))?;
        let writes = self.limit(self.write_rate, self.delete_batch_size.unwrap_or(own_delete_size))?;
        Ok(Arc::new(Limited::with_limits(store, reads, writes)))
    }

    /// Returns the limit for the reads or for the writes.
    fn limit(self, rate: Option<f64>, batch_size: usize) -> Result<Limit> {
        let builder = Limit::builder().batch_size(batch_size);
        let builder = match (rate, self.concurrency) {
            (Some(rate), _) => builder.rate(rate),
            (None, Some(_)) => builder,
            // Only the other kind of call is limited, so this limit must never be reached.
            (None, None) => builder.rate(1e6).burst(u32::MAX),
        };
        match self.concurrency {
            Some(concurrency) => builder.concurrency(concurrency).build(),
            None => builder.build(),
        }
    }
}

/// Starts a thread that wipes expired keys until the returned sender is dropped.
///
/// It is not a task, because a task would end with its runtime. It keeps the cached keys alive, but
/// not the store, so that the store is closed when the stack is dropped.
fn wipe_expired_keys(cache: &Cached<Arc<dyn KeyStore>>) -> std::io::Result<Sender<()>> {
    let (sender, stop) = mpsc::channel();
    let pause = cache.ttl().clamp(SHORTEST_EXPIRY_PAUSE, LONGEST_EXPIRY_PAUSE);
    let wipe = cache.expiry();
    std::thread::Builder::new().name("keystead-expiry".to_owned()).spawn(move || {
        while stop.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
            wipe();
        }
    })?;
    Ok(sender)
}

fn cannot_start(store: &'static str, e: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Open, store)
        .with_source(format!("cannot start the thread that wipes expired keys: {e}; allow this process more threads"))
}

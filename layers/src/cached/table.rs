//! [`Table`]: the cached entries and the calls in progress. It never calls a store and never waits
//! for one.
//!
//! Each id belongs to a shard. The shard's lock orders all events that change the entry of an id:
//! the start of a load, the arrival of an answer, and the removal by a write. A hit does not take
//! this lock.

use std::cell::Cell;
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::RandomState;
use keystead_core::{KeyId, SecretKey};
use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Lifecycle, OptionsBuilder, UnitWeighter};
use tokio::time::Instant;

use super::replicas::Replicas;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, PoisonError, thread_number};

const SHARDS: usize = 64;

/// The smallest number of keys in a shard of the cache. With fewer, the eviction policy has too
/// little choice.
const KEYS_PER_CACHE_SHARD: usize = 64;

/// The number of recent writes that a shard remembers individually.
const WRITES_PER_SHARD: usize = 1_024;

/// The cached answer for an id.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The key, or `None` if the store has said that there is none.
    pub(crate) key: Option<SecretKey>,
    /// The time at which the entry expires.
    pub(crate) until: Instant,
}

/// The cached entries and the calls in progress. `L` is the handle with which a caller joins a
/// load.
pub(crate) struct Table<L> {
    hasher: RandomState,
    cache: Cache<Hashed<KeyId>, Entry, UnitWeighter, PrecomputedHash, CollectEvicted>,
    replicas: Replicas,
    shards: Vec<Shard<L>>,
    next_number: AtomicU64,
    evictions: AtomicU64,
    /// The visibility bound of the store: how long after a write it may still return the old state.
    bound: Duration,
}

/// The calls in progress and the recent writes of some ids, with their lock.
#[repr(align(128))]
struct Shard<L>(Mutex<Ids<L>>);

struct Ids<L> {
    /// The calls in progress.
    pending: HashMap<KeyId, Pending<L>, RandomState>,
    /// The moment at which the latest write of each id ended. It is kept for as long as the store
    /// may still return the state from before that write.
    written: HashMap<KeyId, Instant, RandomState>,
    /// The moment at which a write of every id counts as having ended. It replaces `written` when
    /// that has too many entries.
    all_written: Option<Instant>,
}

/// A call in progress.
struct Pending<L> {
    ticket: u64,
    begun: Instant,
    /// `None` if nobody may join the call.
    load: Option<L>,
}

/// The outcome of [`Table::begin`].
pub(crate) enum Begun<J> {
    /// A fresh entry, which arrived meanwhile.
    Fresh(Entry),
    /// A load in progress.
    Joined(J),
}

/// The permission of one call to update the entry of an id when it has ended. A write of the id
/// makes it invalid.
pub(crate) struct Ticket<L> {
    table: Arc<Table<L>>,
    id: KeyId,
    hash: u64,
    number: u64,
    begun: Instant,
    /// True if the call may write. Then an entry that was cached during the call must not stay.
    writes: bool,
    settled: bool,
}

/// The outcome of a call, as far as the cached entry is concerned.
pub(crate) enum Arrival {
    /// The answer is to be cached.
    Known(Entry),
    /// The cached entry is to be removed.
    Unknown,
    /// The load failed at this moment. The cached entry stays, and may be returned if it has been
    /// expired for less than `max_stale`.
    Failed { at: Instant, max_stale: Duration },
}

impl<L> Table<L> {
    pub(crate) fn new(max_keys: usize, readers: usize, bound: Duration) -> Self {
        let hasher = RandomState::default();
        let wanted = (readers * 4).next_power_of_two();
        let cache_shards = 1 << (max_keys / KEYS_PER_CACHE_SHARD).clamp(1, wanted).ilog2();
        // A multiple of the number of shards, so that all shards together never hold more than
        // `max_keys`.
        let capacity = max_keys / cache_shards * cache_shards;
        let options = OptionsBuilder::new()
            .shards(cache_shards)
            .estimated_items_capacity(capacity)
            .weight_capacity(capacity as u64)
            .build()
            .expect("both capacities are given");
        Self {
            cache: Cache::with_options(options, UnitWeighter, PrecomputedHash, CollectEvicted),
            replicas: Replicas::new(readers),
            shards: (0..SHARDS).map(|_| Shard::new(&hasher)).collect(),
            next_number: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            bound,
            hasher,
        }
    }

    /// Returns the cached entry of the id, unless it has expired at `now`.
    pub(crate) fn fresh(&self, id: &KeyId, now: Instant) -> Option<Entry> {
        let hash = self.hasher.hash_one(id);
        let reader = self.replicas.reader(thread_number());
        let read = reader.next_read();
        if !read.skips_copies()
            && let Some(entry) = reader.find(hash, id, now)
        {
            return Some(entry);
        }
        // Read before the entry, so that no copy is made of one that is removed meanwhile.
        let epoch = read.may_copy().then(|| self.replicas.epoch(hash));
        let entry = self.cache.get(&Hashed { hash, id }).filter(|entry| entry.until > now);
        match (&entry, epoch) {
            (Some(entry), Some(epoch)) => self.replicas.keep(reader, hash, id, entry, epoch),
            (Some(_), None) => {}
            (None, _) => reader.count_miss(),
        }
        entry
    }

    /// Joins the load in progress if it began after `not_before`, or else begins one by calling
    /// `make` with a ticket.
    pub(crate) fn begin<J>(
        self: &Arc<Self>,
        id: &KeyId,
        now: Instant,
        not_before: Option<Instant>,
        join: impl FnOnce(&L) -> Option<J>,
        make: impl FnOnce(Ticket<L>) -> (L, J),
    ) -> Begun<J> {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        if let Some(entry) = self.cache.get(&Hashed { hash, id }).filter(|entry| entry.until > now) {
            return Begun::Fresh(entry);
        }
        let may_join = |pending: &&Pending<L>| {
            not_before.is_none_or(|not_before| pending.begun > not_before)
                // The load may return the state from before a recent write. It can be joined only
                // as long as a new load could return that state, too: until the bound has passed.
                && (!ids.may_lag(id, pending.begun, self.bound) || ids.may_lag(id, now, self.bound))
        };
        let joined = ids.pending.get(id).filter(may_join).and_then(|pending| pending.load.as_ref()).and_then(join);
        if let Some(joined) = joined {
            return Begun::Joined(joined);
        }
        let ticket = self.ticket(id, hash, now, false);
        let number = ticket.number;
        let (load, joined) = make(ticket);
        ids.pending.insert(id.clone(), Pending { ticket: number, begun: now, load: Some(load) });
        Begun::Joined(joined)
    }

    /// Removes the entry of the id, and returns the ticket of a call that may write.
    pub(crate) fn begin_to_write(self: &Arc<Self>, id: &KeyId, now: Instant) -> Ticket<L> {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        self.forget(hash, id);
        let ticket = self.ticket(id, hash, now, true);
        ids.pending.insert(id.clone(), Pending { ticket: ticket.number, begun: now, load: None });
        ticket
    }

    fn ticket(self: &Arc<Self>, id: &KeyId, hash: u64, begun: Instant, writes: bool) -> Ticket<L> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        Ticket { table: self.clone(), id: id.clone(), hash, number, begun, writes, settled: false }
    }

    /// Removes the entry of the id, and makes sure that the answers of calls in progress are not
    /// cached.
    pub(crate) fn invalidate(&self, id: &KeyId) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.pending.remove(id);
        self.forget(hash, id);
    }

    /// Invalidates the id after a write that ended now: until the bound has passed, the answers of
    /// loads are not cached.
    pub(crate) fn written(&self, id: &KeyId, now: Instant) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.pending.remove(id);
        self.forget(hash, id);
        ids.remember_write(id, now, self.bound);
    }

    /// Invalidates all ids as [`written`](Self::written) does for one.
    pub(crate) fn all_written(&self, now: Instant) {
        let mut all: Vec<_> = self.shards.iter().map(Shard::lock).collect();
        for ids in &mut all {
            ids.pending.clear();
            ids.remember_all_written(now, self.bound);
        }
        self.cache.clear();
        self.replicas.clear();
    }

    /// Removes the entries that can no longer be returned, and returns their number. A key is
    /// removed when it has been expired for `max_stale`, an absence as soon as it has expired.
    pub(crate) fn remove_expired(&self, now: Instant, max_stale: Duration) -> usize {
        let removed = Cell::new(0);
        self.cache.retain(|_, entry| {
            let end = if entry.key.is_some() { entry.until + max_stale } else { entry.until };
            let stays = end > now;
            removed.set(removed.get() + usize::from(!stays));
            stays
        });
        // After the entries, so that no new copy of them is made: see `Replicas::keep`.
        self.replicas.remove_expired(now);
        for shard in &self.shards {
            shard.lock().forget_old_writes(now, self.bound);
        }
        removed.get()
    }

    /// Returns the number of cached ids, including expired ones.
    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// Returns the number of reads that found a fresh entry, and the number of those that did not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.replicas.hits_and_misses()
    }

    /// Caches an entry, and removes the copies of the old one and of evicted ones. The caller must
    /// hold the lock of the id's shard.
    fn keep(&self, hash: u64, id: &KeyId, entry: Entry) {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(Hashed { hash, id: id.clone() }, entry, &mut evicted);
        self.replicas.purge(hash, id);
        for Hashed { hash, id } in evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            self.replicas.purge(hash, &id);
        }
    }

    /// Removes an entry and then its copies, in this order: see [`Replicas::keep`]. The caller must
    /// hold the lock of the id's shard.
    fn forget(&self, hash: u64, id: &KeyId) {
        self.cache.remove(&Hashed { hash, id });
        self.replicas.purge(hash, id);
    }

    fn lock(&self, hash: u64) -> MutexGuard<'_, Ids<L>> {
        self.shards[(hash >> 32) as usize % SHARDS].lock()
    }
}

impl<L> Shard<L> {
    fn new(hasher: &RandomState) -> Self {
        let pending = HashMap::with_hasher(hasher.clone());
        let written = HashMap::with_hasher(hasher.clone());
        Self(Mutex::new(Ids { pending, written, all_written: None }))
    }

    // Poisoning is ignored: no code that holds the lock can panic in the middle of a change.
    fn lock(&self) -> MutexGuard<'_, Ids<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> Ids<L> {
    /// Reports whether the answer to a call that began at `begun` may be the state before a write.
    fn may_lag(&self, id: &KeyId, begun: Instant, bound: Duration) -> bool {
        [self.written.get(id), self.all_written.as_ref()]
            .into_iter()
            .flatten()
            .any(|ended| begun.duration_since(*ended) < bound)
    }

    fn remember_write(&mut self, id: &KeyId, now: Instant, bound: Duration) {
        if bound.is_zero() {
            return;
        }
        if self.written.len() == self.written.capacity() || self.written.len() >= WRITES_PER_SHARD {
            self.forget_old_writes(now, bound);
        }
        if self.written.len() >= WRITES_PER_SHARD {
            self.remember_all_written(now, bound);
        }
        self.written.insert(id.clone(), now);
    }

    fn remember_all_written(&mut self, now: Instant, bound: Duration) {
        if !bound.is_zero() {
            self.written.clear();
            self.all_written = Some(now);
        }
    }

    fn forget_old_writes(&mut self, now: Instant, bound: Duration) {
        self.written.retain(|_, ended| now.duration_since(*ended) < bound);
        self.all_written = self.all_written.filter(|ended| now.duration_since(*ended) < bound);
    }
}

impl<L> Ticket<L> {
    pub(crate) fn id(&self) -> &KeyId {
        &self.id
    }

    /// Returns the moment at which the call began, from which the age of its answer is counted.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Ends a read with its outcome, and returns the stale entry to use if it failed.
    pub(crate) fn settle(mut self, arrival: Arrival) -> Option<Entry> {
        self.end(arrival, None)
    }

    /// Ends, with its outcome, a call that may write. `wrote` is the moment at which the call
    /// ended, if it may have changed the store. Until the bound has passed, the answers of loads
    /// are then not cached.
    pub(crate) fn settle_write(mut self, arrival: Arrival, wrote: Option<Instant>) {
        self.end(arrival, wrote);
    }

    fn end(&mut self, arrival: Arrival, wrote: Option<Instant>) -> Option<Entry> {
        self.settled = true;
        let table = &self.table;
        let mut ids = table.lock(self.hash);
        let is_valid = ids.pending.get(&self.id).is_some_and(|pending| pending.ticket == self.number);
        // This applies to writing calls, too: `get_or_create` may return a key from a read that
        // lags behind an earlier write.
        let may_lag = ids.may_lag(&self.id, self.begun, table.bound);
        if is_valid || self.writes {
            ids.pending.remove(&self.id);
        }
        if let Some(ended) = wrote {
            ids.remember_write(&self.id, ended, table.bound);
        }
        if !is_valid {
            // A later load may be in progress, which could fall back on the stale entry if it
            // fails. That entry must be removed if the store has just said something else about the
            // key, or if the call may have written.
            if self.writes || matches!(arrival, Arrival::Unknown | Arrival::Known(Entry { key: None, .. })) {
                table.forget(self.hash, &self.id);
            }
            return None;
        }
        match if may_lag { Arrival::Unknown } else { arrival } {
            Arrival::Known(entry) => {
                table.keep(self.hash, &self.id, entry);
                None
            }
            Arrival::Unknown => {
                table.forget(self.hash, &self.id);
                None
            }
            Arrival::Failed { at, max_stale } => {
                let entry = table.cache.get(&Hashed { hash: self.hash, id: &self.id });
                entry.filter(|entry| entry.until + max_stale > at)
            }
        }
    }
}

impl<L> Drop for Ticket<L> {
    /// Ends a call that was dropped or has panicked. A load leaves nothing behind. A write may have
    /// been applied, so the entry is removed as after a write.
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        if self.writes {
            self.end(Arrival::Unknown, Some(Instant::now()));
            return;
        }
        let mut ids = self.table.lock(self.hash);
        if ids.pending.get(&self.id).is_some_and(|pending| pending.ticket == self.number) {
            ids.pending.remove(&self.id);
        }
    }
}

/// An id with its hash, so that the hash is computed only once for each call.
struct Hashed<Id> {
    hash: u64,
    id: Id,
}

impl<Id> Hash for Hashed<Id> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl PartialEq for Hashed<KeyId> {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Hashed<KeyId> {}

impl Equivalent<Hashed<KeyId>> for Hashed<&KeyId> {
    fn equivalent(&self, other: &Hashed<KeyId>) -> bool {
        *self.id == other.id
    }
}

/// A hasher that returns the precomputed hash of a [`Hashed`] id.
#[derive(Default)]
struct PrecomputedHasher(u64);

/// The builder of a [`PrecomputedHasher`].
#[derive(Clone, Default)]
struct PrecomputedHash;

impl BuildHasher for PrecomputedHash {
    type Hasher = PrecomputedHasher;

    fn build_hasher(&self) -> PrecomputedHasher {
        PrecomputedHasher::default()
    }
}

impl Hasher for PrecomputedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("`Hashed` writes a single u64");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// A hook that collects evicted ids until the cache is unlocked.
#[derive(Clone)]
struct CollectEvicted;

impl Lifecycle<Hashed<KeyId>, Entry> for CollectEvicted {
    type RequestState = Vec<Hashed<KeyId>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, key: Hashed<KeyId>, _: Entry) {
        evicted.push(key);
    }
}

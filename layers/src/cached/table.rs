//! [`Table`]: the cached keys and the calls that are under way. It knows no store and waits for
//! nothing.
//!
//! Each id belongs to a shard, whose lock orders everything that changes what is known of the id: a
//! load begins, an answer arrives, a write removes what is known. A hit takes no such lock.

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

/// As few keys as a shard of the cache may have: the policy needs some to choose from.
const KEYS_PER_CACHE_SHARD: usize = 64;

/// The number of recent writes that a shard remembers one by one.
const WRITES_PER_SHARD: usize = 1_024;

/// The cached answer about an id, with the time at which it expires.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The key, or that there is none.
    pub(crate) key: Option<SecretKey>,
    pub(crate) until: Instant,
}

/// `L` is what others need to join a load.
pub(crate) struct Table<L> {
    hasher: RandomState,
    cache: Cache<Hashed<KeyId>, Entry, UnitWeighter, AsHashed, Evicted>,
    replicas: Replicas,
    shards: Vec<Shard<L>>,
    next_number: AtomicU64,
    evictions: AtomicU64,
    /// The time after a write for which the store may still show the previous state.
    bound: Duration,
}

#[repr(align(128))]
struct Shard<L>(Mutex<Ids<L>>);

struct Ids<L> {
    /// The calls under way.
    pending: HashMap<KeyId, Pending<L>, RandomState>,
    /// The end of an id's latest write, for writes after which the store may still show what
    /// was before.
    written: HashMap<KeyId, Instant, RandomState>,
    /// Stands for a write of every id, where there were too many to remember one by one.
    all_written: Option<Instant>,
}

struct Pending<L> {
    ticket: u64,
    begun: Instant,
    /// None if nobody may join.
    load: Option<L>,
}

/// The result of a read that found no fresh entry.
pub(crate) enum Begun<J> {
    /// An answer arrived meanwhile.
    Fresh(Entry),
    /// A load that is under way.
    Joined(J),
}

/// The right to say what a call about an id has brought. It is void when the id was written
/// meanwhile.
pub(crate) struct Ticket<L> {
    table: Arc<Table<L>>,
    id: KeyId,
    hash: u64,
    number: u64,
    begun: Instant,
    /// True if the call may write: then nothing that was learned during it may stay.
    writes: bool,
    settled: bool,
}

/// The effect on the cached entry when a load has ended.
pub(crate) enum Arrival {
    /// It is this from now on.
    Known(Entry),
    /// Nothing is known any more.
    Unknown,
    /// The load failed at this moment: what is cached stays, and may be used if it expired no
    /// longer ago than so.
    Failed { at: Instant, max_stale: Duration },
}

impl<L> Table<L> {
    pub(crate) fn new(max_keys: usize, readers: usize, bound: Duration) -> Self {
        let hasher = RandomState::default();
        let wanted = (readers * 4).next_power_of_two();
        let cache_shards = 1 << (max_keys / KEYS_PER_CACHE_SHARD).clamp(1, wanted).ilog2();
        // Each shard has the same room, so that all together never hold more than asked for.
        let room = max_keys / cache_shards * cache_shards;
        let options = OptionsBuilder::new()
            .shards(cache_shards)
            .estimated_items_capacity(room)
            .weight_capacity(room as u64)
            .build()
            .expect("both capacities are given");
        Self {
            cache: Cache::with_options(options, UnitWeighter, AsHashed, Evicted),
            replicas: Replicas::new(readers),
            shards: (0..SHARDS).map(|_| Shard::new(&hasher)).collect(),
            next_number: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
            bound,
            hasher,
        }
    }

    /// Returns the cached entry of the id, if it has not expired at `now`.
    pub(crate) fn fresh(&self, id: &KeyId, now: Instant) -> Option<Entry> {
        let hash = self.hasher.hash_one(id);
        let reader = self.replicas.reader(thread_number());
        let read = reader.next_read();
        if !read.is_for_the_policy()
            && let Some(entry) = reader.find(hash, id, now)
        {
            return Some(entry);
        }
        // Read before the entry is, so that no copy is kept of one that is taken away meanwhile.
        let epoch = read.is_for_a_copy().then(|| self.replicas.epoch(hash));
        let entry = self.cache.get(&Hashed { hash, id }).filter(|entry| entry.until > now);
        match (&entry, epoch) {
            (Some(entry), Some(epoch)) => self.replicas.keep(reader, hash, id, entry, epoch),
            (Some(_), None) => {}
            (None, _) => reader.missed(),
        }
        entry
    }

    /// Joins the load that is under way if it began after `not_before`, or begins one: `make` is
    /// given its ticket.
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
                // What the load brings may be from before a write. That is the store's own answer
                // for as long as its visibility bound lasts, and no longer.
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

    /// Forgets what is known of the id, and returns a ticket to say what stands after a call that
    /// may write.
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

    /// Forgets what is known of the id, and makes void what the calls under way will bring.
    pub(crate) fn invalidate(&self, id: &KeyId) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.pending.remove(id);
        self.forget(hash, id);
    }

    /// Does the same after a write that ended now: until the bound has passed, what loads bring is
    /// not kept.
    pub(crate) fn written(&self, id: &KeyId, now: Instant) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.pending.remove(id);
        self.forget(hash, id);
        ids.remember_write(id, now, self.bound);
    }

    /// Does the same for all ids.
    pub(crate) fn all_written(&self, now: Instant) {
        let mut all: Vec<_> = self.shards.iter().map(Shard::lock).collect();
        for ids in &mut all {
            ids.pending.clear();
            ids.remember_all_written(now, self.bound);
        }
        self.cache.clear();
        self.replicas.clear();
    }

    /// Removes what can no longer be given to anybody: what expired at least `max_stale` ago, or at
    /// once for an absence. Returns the number of ids.
    pub(crate) fn remove_expired(&self, now: Instant, max_stale: Duration) -> usize {
        let removed = Cell::new(0);
        self.cache.retain(|_, entry| {
            let end = if entry.key.is_some() { entry.until + max_stale } else { entry.until };
            let stays = end > now;
            removed.set(removed.get() + usize::from(!stays));
            stays
        });
        // After the entries, so that no copy is made of one any more: see `Replicas::keep`.
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

    /// The caller must hold the lock of the id's shard. Evicted entries are removed from the
    /// replicas, too.
    fn keep(&self, hash: u64, id: &KeyId, entry: Entry) {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(Hashed { hash, id: id.clone() }, entry, &mut evicted);
        self.replicas.purge(hash, id);
        for Hashed { hash, id } in evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            self.replicas.purge(hash, &id);
        }
    }

    /// The caller must hold the lock of the id's shard. First the entry, then its copies: see
    /// [`Replicas::keep`].
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

    // A poisoned lock is used on: no code of ours can panic while it holds one half-way through a
    // change.
    fn lock(&self) -> MutexGuard<'_, Ids<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<L> Ids<L> {
    /// Reports whether the answer to a call that began at `begun` may be from before a write.
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

    /// The moment from which what is brought may be old.
    pub(crate) fn begun(&self) -> Instant {
        self.begun
    }

    /// Says what a read has brought, and returns what may be used instead if it failed.
    pub(crate) fn settle(mut self, arrival: Arrival) -> Option<Entry> {
        self.end(arrival, None)
    }

    /// Says what a call that may write has brought. `wrote` is the moment at which it ended if it
    /// may have changed the store; until the bound has passed, what loads bring is then not kept.
    pub(crate) fn settle_write(mut self, arrival: Arrival, wrote: Option<Instant>) {
        self.end(arrival, wrote);
    }

    fn end(&mut self, arrival: Arrival, wrote: Option<Instant>) -> Option<Entry> {
        self.settled = true;
        let table = &self.table;
        let mut ids = table.lock(self.hash);
        let is_valid = ids.pending.get(&self.id).is_some_and(|pending| pending.ticket == self.number);
        // Whatever the call itself is: a key that it gives back may come from a read that lags
        // behind an earlier write.
        let may_lag = ids.may_lag(&self.id, self.begun, table.bound);
        if is_valid || self.writes {
            ids.pending.remove(&self.id);
        }
        if let Some(ended) = wrote {
            ids.remember_write(&self.id, ended, table.bound);
        }
        if !is_valid {
            // A younger load may be under way: what it may fall back upon must not outlive this
            // word of the store, nor anything that was learned during a write.
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

/// A load that was given up, or that panicked, leaves nothing behind; a write leaves nothing that
/// others have learned meanwhile, and may have been applied.
impl<L> Drop for Ticket<L> {
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

/// An id with its hash, which is made once a call.
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

/// Takes the hash that is there.
#[derive(Clone, Default)]
struct AsHashed;

#[derive(Default)]
struct Given(u64);

impl BuildHasher for AsHashed {
    type Hasher = Given;

    fn build_hasher(&self) -> Given {
        Given::default()
    }
}

impl Hasher for Given {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only a hash is hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

/// Collects what was evicted, until the cache is unlocked.
#[derive(Clone)]
struct Evicted;

impl Lifecycle<Hashed<KeyId>, Entry> for Evicted {
    type RequestState = Vec<Hashed<KeyId>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, key: Hashed<KeyId>, _: Entry) {
        evicted.push(key);
    }
}

//! [`Table`]: the cached keys and the loads on their way. It knows no store and waits for nothing.
//!
//! Each id belongs to a shard, whose lock orders everything that changes what is known of the id: a load takes off, an
//! answer arrives, a write takes all of it away. A hit takes no such lock.

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

/// What is known of an id until some moment.
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
    /// For so long after a write the store may show what was before.
    bound: Duration,
}

#[repr(align(128))]
struct Shard<L>(Mutex<Ids<L>>);

struct Ids<L> {
    /// The loads on their way.
    flights: HashMap<KeyId, Flight<L>, RandomState>,
    /// When writes ended after which the store may show what was before, for so long.
    written: HashMap<KeyId, Instant, RandomState>,
}

struct Flight<L> {
    number: u64,
    begun: Instant,
    /// None if nobody may join.
    load: Option<L>,
}

/// What a reader gets who found nothing fresh.
pub(crate) enum Begun<J> {
    /// An answer arrived meanwhile.
    Fresh(Entry),
    /// A load on its way.
    Joined(J),
}

/// The right to say what a call about an id has brought. It is void when the id was written meanwhile.
pub(crate) struct Ticket<L> {
    table: Arc<Table<L>>,
    id: KeyId,
    hash: u64,
    number: u64,
    begun: Instant,
    /// Whether the call may have written: then nothing that was learnt during it may stay.
    writes: bool,
    settled: bool,
}

/// What becomes of what is cached when a load has ended.
pub(crate) enum Arrival {
    /// It is this from now on.
    Known(Entry),
    /// Nothing is known any more.
    Unknown,
    /// The load failed at this moment: what is cached stays, and may be used if it expired no longer ago than so.
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

    /// What is known of the id at this moment.
    pub(crate) fn fresh(&self, id: &KeyId, now: Instant) -> Option<Entry> {
        let hash = self.hasher.hash_one(id);
        let reader = self.replicas.reader(thread_number());
        let turn = reader.next_turn();
        if !turn.is_for_the_policy()
            && let Some(entry) = reader.find(hash, id, now)
        {
            return Some(entry);
        }
        // Read before the entry is, so that no copy is kept of one that is taken away meanwhile.
        let epoch = turn.is_for_a_copy().then(|| self.replicas.epoch(hash));
        let entry = self.cache.get(&Hashed { hash, id }).filter(|entry| entry.until > now);
        match (&entry, epoch) {
            (Some(entry), Some(epoch)) => self.replicas.keep(reader, hash, id, entry, epoch),
            (Some(_), None) => {}
            (None, _) => reader.missed(),
        }
        entry
    }

    /// Joins the load on its way if it began after `not_before`, or begins one: `make` is given its ticket.
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
        let young = |flight: &&Flight<L>| not_before.is_none_or(|not_before| flight.begun > not_before);
        let joined = ids.flights.get(id).filter(young).and_then(|flight| flight.load.as_ref()).and_then(join);
        if let Some(joined) = joined {
            return Begun::Joined(joined);
        }
        let ticket = self.ticket(id, hash, now, false);
        let (number, begun) = (ticket.number, now);
        let (load, joined) = make(ticket);
        ids.flights.insert(id.clone(), Flight { number, begun, load: Some(load) });
        Begun::Joined(joined)
    }

    /// Forgets what is known of the id, and gives a ticket to say what stands after a call that may write.
    pub(crate) fn begin_to_write(self: &Arc<Self>, id: &KeyId, now: Instant) -> Ticket<L> {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        self.forget(hash, id);
        let ticket = self.ticket(id, hash, now, true);
        ids.flights.insert(id.clone(), Flight { number: ticket.number, begun: now, load: None });
        ticket
    }

    fn ticket(self: &Arc<Self>, id: &KeyId, hash: u64, begun: Instant, writes: bool) -> Ticket<L> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        Ticket { table: self.clone(), id: id.clone(), hash, number, begun, writes, settled: false }
    }

    /// Forgets what is known of the id, and makes void what loads on their way will bring.
    pub(crate) fn invalidate(&self, id: &KeyId) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.flights.remove(id);
        self.forget(hash, id);
    }

    /// The same after a write, which ended now: until the bound has passed, what loads bring is not kept.
    pub(crate) fn written(&self, id: &KeyId, now: Instant) {
        let hash = self.hasher.hash_one(id);
        let mut ids = self.lock(hash);
        ids.flights.remove(id);
        self.forget(hash, id);
        if !self.bound.is_zero() {
            // Those that are over are dropped when the map would grow.
            if ids.written.len() == ids.written.capacity() {
                ids.written.retain(|_, ended| now.duration_since(*ended) < self.bound);
            }
            ids.written.insert(id.clone(), now);
        }
    }

    /// The same for all ids.
    pub(crate) fn invalidate_all(&self) {
        let mut all: Vec<_> = self.shards.iter().map(Shard::lock).collect();
        all.iter_mut().for_each(|ids| ids.flights.clear());
        self.cache.clear();
        self.replicas.clear();
    }

    /// How many ids something is known of, expired ones included.
    pub(crate) fn len(&self) -> usize {
        self.cache.len()
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    /// How many reads found something fresh, and how many did not.
    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        self.replicas.hits_and_misses()
    }

    /// The id's shard must be locked. What has to make room leaves no copy behind.
    fn keep(&self, hash: u64, id: &KeyId, entry: Entry) {
        let mut evicted = Vec::new();
        self.cache.insert_with_lifecycle(Hashed { hash, id: id.clone() }, entry, &mut evicted);
        self.replicas.purge(hash, id);
        for Hashed { hash, id } in evicted {
            self.evictions.fetch_add(1, Ordering::Relaxed);
            self.replicas.purge(hash, &id);
        }
    }

    /// The id's shard must be locked. First the entry, then its copies: see [`Replicas::keep`].
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
        let flights = HashMap::with_hasher(hasher.clone());
        Self(Mutex::new(Ids { flights, written: HashMap::with_hasher(hasher.clone()) }))
    }

    // A poisoned lock is used on: no code of ours can panic while it holds one half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Ids<L>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn is_valid(&self, ids: &Ids<L>) -> bool {
        ids.flights.get(&self.id).is_some_and(|flight| flight.number == self.number)
    }

    /// Says what the call has brought, and gives what may be used instead if it failed.
    pub(crate) fn settle(mut self, arrival: Arrival) -> Option<Entry> {
        let table = &self.table;
        let mut ids = table.lock(self.hash);
        if !self.is_valid(&ids) {
            // A younger load is under way: what it may fall back upon must not outlive this word of the store.
            if matches!(arrival, Arrival::Unknown | Arrival::Known(Entry { key: None, .. })) {
                table.forget(self.hash, &self.id);
            }
            return None;
        }
        self.settled = true;
        ids.flights.remove(&self.id);
        let arrival = match ids.written.get(&self.id) {
            // It may be from before the write. What a write itself has brought is not.
            Some(ended) if !self.writes && self.begun.duration_since(*ended) < table.bound => Arrival::Unknown,
            _ => arrival,
        };
        match arrival {
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

/// A load that was given up leaves nothing behind, and a write nothing that others have learnt meanwhile.
impl<L> Drop for Ticket<L> {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let mut ids = self.table.lock(self.hash);
        if self.is_valid(&ids) {
            ids.flights.remove(&self.id);
        } else if self.writes {
            ids.flights.remove(&self.id);
            self.table.forget(self.hash, &self.id);
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

/// Remembers what had to make room, until the cache is unlocked.
#[derive(Clone)]
struct Evicted;

impl Lifecycle<Hashed<KeyId>, Entry> for Evicted {
    type RequestState = Vec<Hashed<KeyId>>;

    fn on_evict(&self, evicted: &mut Self::RequestState, key: Hashed<KeyId>, _: Entry) {
        evicted.push(key);
    }
}

//! [`Replicas`]: copies of the hottest keys, for each thread its own, so that threads which read
//! the same key don't wait for each other's caches: a clone of a key, as any lock, is a write to
//! memory that all of them share.

use keystead_core::{KeyId, SecretKey};
use tokio::time::Instant;

use super::table::Entry;
use crate::sync::{AtomicU64, Mutex, MutexGuard, ONE_IN_COPIES, ONE_PAST_COPIES, Ordering, PoisonError};

/// Copies a thread has at most.
const SLOTS: usize = 64;

pub(crate) struct Replicas {
    readers: Vec<Reader>,
    /// Counted up before copies of ids with such a hash are thrown away.
    epochs: Vec<AtomicU64>,
}

/// The copies that one thread reads. Threads share them if there are more threads than readers.
#[repr(align(128))]
pub(crate) struct Reader {
    slots: Vec<Slot>,
    reads: AtomicU64,
    misses: AtomicU64,
}

struct Slot {
    /// The hash of the copy's id, to see without the lock that it is another's.
    hash: AtomicU64,
    /// The hash of the id that was found last when a copy was to be made: it gets one if it is
    /// found again.
    candidate: AtomicU64,
    copy: Mutex<Option<Copy>>,
}

struct Copy {
    id: KeyId,
    entry: Entry,
}

/// A read's number among those of its thread.
#[derive(Clone, Copy)]
pub(crate) struct ReadNumber(u64);

impl ReadNumber {
    pub(crate) fn is_for_the_policy(self) -> bool {
        self.0.is_multiple_of(ONE_PAST_COPIES)
    }

    pub(crate) fn is_for_a_copy(self) -> bool {
        self.0.is_multiple_of(ONE_IN_COPIES)
    }
}

impl Replicas {
    pub(crate) fn new(readers: usize) -> Self {
        let readers = (0..readers.next_power_of_two()).map(|_| Reader::new()).collect();
        Self { readers, epochs: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn reader(&self, thread: usize) -> &Reader {
        &self.readers[thread % self.readers.len()]
    }

    pub(crate) fn epoch(&self, hash: u64) -> u64 {
        self.epochs[slot(hash)].load(Ordering::Acquire)
    }

    /// Keeps a copy for this reader, unless copies were thrown away since the epoch was read: the
    /// entry was found in the table after that, so it has not been taken away either. Of an absence
    /// no copy is kept.
    pub(crate) fn keep(&self, reader: &Reader, hash: u64, id: &KeyId, entry: &Entry, epoch: u64) {
        let Some(key) = &entry.key else { return };
        let slot = &reader.slots[slot(hash)];
        // So that no copy is made of keys that are read now and then.
        if slot.candidate.swap(hash, Ordering::Relaxed) != hash {
            return;
        }
        let own = SecretKey::new(key.expose_secret()).expect("a key has a valid length");
        let copy = Copy { id: id.clone(), entry: Entry { key: Some(own), until: entry.until } };
        let mut place = slot.lock();
        if self.epoch(hash) == epoch {
            *place = Some(copy);
            slot.hash.store(hash, Ordering::Relaxed);
        }
    }

    /// Throws away all copies of an id that the table has given up.
    pub(crate) fn purge(&self, hash: u64, id: &KeyId) {
        self.epochs[slot(hash)].fetch_add(1, Ordering::AcqRel);
        for reader in &self.readers {
            let mut place = reader.slots[slot(hash)].lock();
            if place.as_ref().is_some_and(|copy| copy.id == *id) {
                *place = None;
            }
        }
    }

    /// Throws away all copies.
    pub(crate) fn clear(&self) {
        self.purge_if(|_| true);
    }

    /// Throws away the copies of entries that have expired. The table must have given them up.
    pub(crate) fn remove_expired(&self, now: Instant) {
        self.purge_if(|entry| entry.until <= now);
    }

    fn purge_if(&self, is_over: impl Fn(&Entry) -> bool) {
        for (index, epoch) in self.epochs.iter().enumerate() {
            epoch.fetch_add(1, Ordering::AcqRel);
            for reader in &self.readers {
                let mut place = reader.slots[index].lock();
                if place.as_ref().is_some_and(|copy| is_over(&copy.entry)) {
                    *place = None;
                }
            }
        }
    }

    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        let sum = |count: fn(&Reader) -> &AtomicU64| -> u64 {
            self.readers.iter().map(|reader| count(reader).load(Ordering::Relaxed)).sum()
        };
        // In this order, so that no read is a miss before it is a read.
        let misses = sum(|reader| &reader.misses);
        (sum(|reader| &reader.reads).saturating_sub(misses), misses)
    }
}

impl Reader {
    fn new() -> Self {
        let slot = || Slot { hash: AtomicU64::new(0), candidate: AtomicU64::new(0), copy: Mutex::new(None) };
        let slots = (0..SLOTS).map(|_| slot()).collect();
        Self { slots, reads: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub(crate) fn next_read(&self) -> ReadNumber {
        // In two steps, as one locked one costs as much as all else here. Threads that share a
        // reader may lose a count.
        let number = self.reads.load(Ordering::Relaxed);
        self.reads.store(number + 1, Ordering::Relaxed);
        ReadNumber(number)
    }

    pub(crate) fn missed(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn find(&self, hash: u64, id: &KeyId, now: Instant) -> Option<Entry> {
        let slot = &self.slots[slot(hash)];
        if slot.hash.load(Ordering::Relaxed) != hash {
            return None;
        }
        let place = slot.lock();
        let copy = place.as_ref().filter(|copy| copy.id == *id && copy.entry.until > now)?;
        Some(copy.entry.clone())
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Copy>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn slot(hash: u64) -> usize {
    // Other bits than those that choose shards.
    (hash >> 8) as usize % SLOTS
}

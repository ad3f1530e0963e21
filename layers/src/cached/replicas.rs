//! [`Replicas`]: copies of the most used keys, separate for each thread.
//!
//! Cloning a key or taking a lock writes to memory. If several threads do that with the same key,
//! their processors wait for each other. With a copy for each thread they don't.

use keystead_core::{KeyId, SecretKey};
use tokio::time::Instant;

use super::table::Entry;
use crate::sync::{AtomicU64, Mutex, MutexGuard, ONE_IN_COPIES, ONE_PAST_COPIES, Ordering, PoisonError};

/// The largest number of copies that a thread has.
const SLOTS: usize = 64;

/// The copies of all threads.
pub(crate) struct Replicas {
    readers: Vec<Reader>,
    /// One number for each slot, incremented before copies in this slot are removed.
    epochs: Vec<AtomicU64>,
}

/// The copies of one thread. If there are more threads than readers, some threads share one.
#[repr(align(128))]
pub(crate) struct Reader {
    slots: Vec<Slot>,
    reads: AtomicU64,
    misses: AtomicU64,
}

/// The place of one copy, chosen by the hash of its id.
struct Slot {
    /// The hash of the copy's id, so that a lookup for another id need not take the lock.
    hash: AtomicU64,
    /// The hash of the id that was last considered for a copy. An id is copied only when it is
    /// considered twice in a row, so that rarely read keys are not copied.
    candidate: AtomicU64,
    copy: Mutex<Option<Replica>>,
}

/// A copy of a cached entry.
struct Replica {
    id: KeyId,
    entry: Entry,
}

/// The index of a read among those of its thread.
#[derive(Clone, Copy)]
pub(crate) struct ReadIndex(u64);

impl ReadIndex {
    /// Reports whether this read skips the copies, so that the table's eviction policy sees it.
    pub(crate) fn skips_copies(self) -> bool {
        self.0.is_multiple_of(ONE_PAST_COPIES)
    }

    /// Reports whether this read may make a copy.
    pub(crate) fn may_copy(self) -> bool {
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

    /// Stores a copy for this reader, unless copies in its slot were removed since `epoch` was
    /// read.
    ///
    /// The caller must have read `epoch` before it found the entry in the table. As the table
    /// removes an entry before its copies, an unchanged epoch proves that the entry is still valid.
    /// An absence is not copied.
    pub(crate) fn keep(&self, reader: &Reader, hash: u64, id: &KeyId, entry: &Entry, epoch: u64) {
        let Some(key) = &entry.key else { return };
        let slot = &reader.slots[slot(hash)];
        if slot.candidate.swap(hash, Ordering::Relaxed) != hash {
            return;
        }
        let own = SecretKey::new(key.expose_secret()).expect("a key has a valid length");
        let replica = Replica { id: id.clone(), entry: Entry { key: Some(own), until: entry.until } };
        let mut copy = slot.lock();
        if self.epoch(hash) == epoch {
            *copy = Some(replica);
            slot.hash.store(hash, Ordering::Relaxed);
        }
    }

    /// Removes all copies of an id. The table must already have removed or replaced its entry.
    pub(crate) fn purge(&self, hash: u64, id: &KeyId) {
        self.epochs[slot(hash)].fetch_add(1, Ordering::AcqRel);
        for reader in &self.readers {
            let mut copy = reader.slots[slot(hash)].lock();
            if copy.as_ref().is_some_and(|replica| replica.id == *id) {
                *copy = None;
            }
        }
    }

    /// Removes all copies.
    pub(crate) fn clear(&self) {
        self.purge_if(|_| true);
    }

    /// Removes the copies of expired entries. The table must already have removed the entries.
    pub(crate) fn remove_expired(&self, now: Instant) {
        self.purge_if(|entry| entry.until <= now);
    }

    fn purge_if(&self, is_over: impl Fn(&Entry) -> bool) {
        for (index, epoch) in self.epochs.iter().enumerate() {
            epoch.fetch_add(1, Ordering::AcqRel);
            for reader in &self.readers {
                let mut copy = reader.slots[index].lock();
                if copy.as_ref().is_some_and(|replica| is_over(&replica.entry)) {
                    *copy = None;
                }
            }
        }
    }

    pub(crate) fn hits_and_misses(&self) -> (u64, u64) {
        let sum = |count: fn(&Reader) -> &AtomicU64| -> u64 {
            self.readers.iter().map(|reader| count(reader).load(Ordering::Relaxed)).sum()
        };
        // The misses are loaded first. Each miss was counted as a read before it was counted as a
        // miss, so the number of reads is at least as large.
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

    pub(crate) fn next_read(&self) -> ReadIndex {
        // Not an atomic increment, which would cost as much as the rest of a hit. Threads that
        // share a reader may lose a count.
        let index = self.reads.load(Ordering::Relaxed);
        self.reads.store(index + 1, Ordering::Relaxed);
        ReadIndex(index)
    }

    pub(crate) fn count_miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn find(&self, hash: u64, id: &KeyId, now: Instant) -> Option<Entry> {
        let slot = &self.slots[slot(hash)];
        if slot.hash.load(Ordering::Relaxed) != hash {
            return None;
        }
        let copy = slot.lock();
        let replica = copy.as_ref().filter(|replica| replica.id == *id && replica.entry.until > now)?;
        Some(replica.entry.clone())
    }
}

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Replica>> {
        self.copy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the index of the slot for an id with this hash.
fn slot(hash: u64) -> usize {
    // Not the bits that choose the shard of the table.
    (hash >> 8) as usize % SLOTS
}

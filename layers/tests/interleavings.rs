//! The cache's core under the model checker shuttle, which runs its threads in many thousand
//! orders.
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(
    unreachable_pub,
    dead_code,
    reason = "the core is compiled as a part of this test, which does not use all of it"
)]

/// The locks and counters that the core uses.
mod sync {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};
    pub(crate) use std::sync::PoisonError;

    // Small, so that a few reads are enough to make a copy and to skip one.
    pub(crate) const ONE_IN_COPIES: u64 = 1;
    pub(crate) const ONE_PAST_COPIES: u64 = 4;

    pub(crate) fn thread_number() -> usize {
        usize::from(shuttle::thread::current().id())
    }
}

#[path = "../src/cached"]
mod cached {
    pub(crate) mod replicas;
    pub(crate) mod table;
}

use std::sync::Arc;
use std::time::Duration;

use cached::table::{Arrival, Begun, Entry, Table, Ticket};
use keystead_core::{KeyId, SecretKey};
use shuttle::sync::Mutex;
use shuttle::thread;
use tokio::time::Instant;

const RUNS: usize = 10_000;

/// A store of one key with a cache in front of it.
struct Stack {
    table: Arc<Table<()>>,
    store: Mutex<Option<u8>>,
    id: KeyId,
    now: Instant,
}

impl Stack {
    /// Creates a stack in which all threads share the same copies, so that each thread meets copies
    /// that others have made.
    fn new(existing: Option<u8>) -> Arc<Self> {
        let table = Arc::new(Table::new(8, 1, Duration::ZERO));
        let store = Mutex::new(existing);
        Arc::new(Self { table, store, id: KeyId::new("alice").unwrap(), now: Instant::now() })
    }

    fn until(&self) -> Instant {
        self.now + Duration::from_secs(3600)
    }

    fn ask_store(&self) -> Option<u8> {
        *self.store.lock().unwrap()
    }

    /// Does what a read through the cache does, except that each caller makes its own load, so that
    /// no thread waits for another.
    fn get(&self) -> Option<u8> {
        let known = |entry: Entry| entry.key.map(|key| key.expose_secret()[0]);
        if let Some(entry) = self.table.fresh(&self.id, self.now) {
            return known(entry);
        }
        let begun = self.table.begin(&self.id, self.now, None, |()| None, |ticket: Ticket<()>| ((), ticket));
        let ticket = match begun {
            Begun::Fresh(entry) => return known(entry),
            Begun::Joined(ticket) => ticket,
        };
        let found = self.ask_store();
        let key = found.map(|byte| SecretKey::new([byte]).unwrap());
        ticket.settle(Arrival::Known(Entry { key, until: self.until() }));
        found
    }

    /// Does what a write through the cache does.
    fn write(&self, value: Option<u8>) {
        self.table.invalidate(&self.id);
        *self.store.lock().unwrap() = value;
        self.table.written(&self.id, self.now);
    }

    /// Does what `get_or_create` does.
    fn get_or_create(&self, candidate: u8) -> u8 {
        let ticket = self.table.begin_to_write(&self.id, self.now);
        let existing = *self.store.lock().unwrap().get_or_insert(candidate);
        let key = Some(SecretKey::new([existing]).unwrap());
        ticket.settle_write(Arrival::Known(Entry { key, until: self.until() }), Some(self.now));
        existing
    }
}

/// Reads often enough that copies are made and used.
fn read_often(stack: &Stack) {
    for _ in 0..6 {
        stack.get();
    }
}

#[test]
fn a_read_after_a_delete_finds_no_key() {
    shuttle::check_random(
        || {
            let stack = Stack::new(Some(1));
            let readers: Vec<_> = (0..2)
                .map(|_| {
                    let stack = stack.clone();
                    thread::spawn(move || read_often(&stack))
                })
                .collect();
            stack.write(None);
            for _ in 0..6 {
                assert_eq!(stack.get(), None, "a deleted key came back");
            }
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            assert_eq!(stack.get(), None, "a deleted key was left in the cache");
        },
        RUNS,
    );
}

#[test]
fn a_read_after_a_put_finds_the_new_key() {
    shuttle::check_random(
        || {
            let stack = Stack::new(Some(1));
            let reader = {
                let stack = stack.clone();
                thread::spawn(move || read_often(&stack))
            };
            stack.write(Some(2));
            assert_eq!(stack.get(), Some(2));
            stack.write(Some(3));
            for _ in 0..6 {
                assert_eq!(stack.get(), Some(3));
            }
            reader.join().unwrap();
        },
        RUNS,
    );
}

#[test]
fn after_two_creators_and_a_deleter_the_cache_agrees_with_the_store() {
    shuttle::check_random(
        || {
            let stack = Stack::new(None);
            let others: Vec<_> = (1..=2)
                .map(|candidate| {
                    let stack = stack.clone();
                    thread::spawn(move || stack.get_or_create(candidate))
                })
                .collect();
            stack.write(None);
            stack.get();
            for other in others {
                other.join().unwrap();
            }
            assert_eq!(stack.get(), stack.ask_store(), "the cache and the store differ");
        },
        RUNS,
    );
}

#[test]
fn evicted_keys_leave_no_copy_that_is_read_after_a_delete() {
    shuttle::check_random(
        || {
            let stack = Stack::new(Some(1));
            let crowd = {
                let stack = stack.clone();
                thread::spawn(move || {
                    for index in 0..12 {
                        let id = KeyId::new(format!("user-{index}")).unwrap();
                        let ticket = stack.table.begin_to_write(&id, stack.now);
                        let key = Some(SecretKey::new([9]).unwrap());
                        ticket.settle_write(Arrival::Known(Entry { key, until: stack.until() }), Some(stack.now));
                    }
                })
            };
            read_often(&stack);
            stack.write(None);
            for _ in 0..6 {
                assert_eq!(stack.get(), None);
            }
            crowd.join().unwrap();
            assert!(stack.table.len() <= 8);
        },
        RUNS / 2,
    );
}

#[test]
fn removing_expired_keys_removes_no_fresh_key_and_leaves_no_copy() {
    shuttle::check_random(
        || {
            let stack = Stack::new(Some(1));
            let later = stack.until();
            let reader = {
                let stack = stack.clone();
                thread::spawn(move || {
                    read_often(&stack);
                    // Loaded again at the moment at which the first entry expires.
                    let id = KeyId::new("bob").unwrap();
                    let ticket = stack.table.begin_to_write(&id, later);
                    let until = later + Duration::from_secs(1);
                    let key = Some(SecretKey::new([2]).unwrap());
                    ticket.settle_write(Arrival::Known(Entry { key, until }), None);
                    assert!(stack.table.fresh(&id, later).is_some(), "a fresh key was removed");
                })
            };
            let early = stack.table.remove_expired(later, Duration::ZERO);
            reader.join().unwrap();
            let late = stack.table.remove_expired(later, Duration::ZERO);
            assert!(early + late >= 1, "the expired key was removed by neither");
            assert_eq!(stack.table.len(), 1, "the fresh key stays");
            // A copy that was left would still be returned for an earlier moment.
            for _ in 0..6 {
                assert!(stack.table.fresh(&stack.id, stack.now).is_none(), "a copy of an expired key was left");
            }
        },
        RUNS / 2,
    );
}

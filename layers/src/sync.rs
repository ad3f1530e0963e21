//! The locks, counters and constants of the cache's core. `tests/interleavings.rs` replaces them
//! with those of the model checker shuttle.

use std::cell::Cell;

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// One in this many reads may make a copy, for its thread, of the entry that it finds.
pub(crate) const ONE_IN_COPIES: u64 = 16;

/// One in this many reads skips the copies, so that the eviction policy sees which keys are used.
pub(crate) const ONE_PAST_COPIES: u64 = 64;

/// Returns a number that no other thread of the process has.
pub(crate) fn thread_number() -> usize {
    thread_local! {
        static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
    }
    NUMBER.with(|number| {
        number.get().unwrap_or_else(|| {
            let new = NEXT_THREAD.fetch_add(1, Ordering::Relaxed) as usize;
            number.set(Some(new));
            new
        })
    })
}

static NEXT_THREAD: AtomicU64 = AtomicU64::new(0);

//! The locks, counters and odds of the cache's core. The test that explores its interleavings
//! brings its own in their place.

use std::cell::Cell;

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard, PoisonError};

/// One in so many reads may make a copy for its thread of what it has found in the table.
pub(crate) const ONE_IN_COPIES: u64 = 16;

/// One in so many reads goes past the copies, so that the table's policy sees which keys are used.
pub(crate) const ONE_PAST_COPIES: u64 = 64;

/// A number that is this thread's own as long as there are few threads.
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

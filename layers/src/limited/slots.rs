//! [`CallSlots`]: the moments at which calls may start.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Slots at equal distances, of which each call takes one.
///
/// A call takes its slot before it waits for it. With a queue instead, a future that is not polled
/// for a while would block all those behind it.
pub(super) struct CallSlots {
    /// The moment from which all times are counted. Unlike instants, durations can be subtracted
    /// without overflow.
    origin: Instant,
    interval: Duration,
    /// The time before its slot at which a call may start, because earlier slots were saved.
    head_start: Duration,
    schedule: Mutex<Schedule>,
}

#[derive(Default)]
struct Schedule {
    /// The first slot that nobody has taken.
    next: Duration,
    /// The start times of calls whose futures were dropped while they waited. If these were lost,
    /// impatient callers would take slot after slot without using them, and under load nobody would
    /// be served.
    given_back: BTreeSet<Duration>,
}

impl CallSlots {
    /// Creates slots for `rate` calls per second, from one a day to a million per second. `burst`
    /// is at least 1.
    pub(super) fn new(rate: f64, burst: u32) -> Self {
        // Rounded up, so that the rate is never exceeded.
        let interval = Duration::from_nanos((1e9 / rate).ceil() as u64);
        Self {
            origin: Instant::now(),
            interval,
            head_start: interval.saturating_mul(burst.saturating_sub(1)),
            schedule: Mutex::default(),
        }
    }

    /// Waits for a slot. If the future is dropped meanwhile, the next caller gets the slot.
    pub(super) async fn wait(&self) {
        let now = self.origin.elapsed();
        let start = self.take(now);
        if start > now {
            let mut waiting = WaitingCall { slots: self, start: Some(start) };
            sleep_until(self.origin + start).await;
            waiting.start = None;
        }
    }

    /// Takes a slot without waiting for it, for a second call to the store by a call that has
    /// started.
    pub(super) fn skip(&self) {
        self.take(self.origin.elapsed());
    }

    fn take(&self, now: Duration) -> Duration {
        let mut schedule = self.schedule();
        // The slots before now have passed unused.
        schedule.given_back = schedule.given_back.split_off(&now);
        if let Some(start) = schedule.given_back.pop_first() {
            return start;
        }
        let slot = schedule.next.max(now);
        schedule.next = slot + self.interval;
        slot.saturating_sub(self.head_start)
    }

    // Poisoning is ignored: no code that holds the lock can panic in the middle of a change.
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits for its slot. Dropping it gives the slot back, unless `start` is `None`.
struct WaitingCall<'a> {
    slots: &'a CallSlots,
    start: Option<Duration>,
}

impl Drop for WaitingCall<'_> {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            self.slots.schedule().given_back.insert(start);
        }
    }
}

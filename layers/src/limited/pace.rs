//! [`Pace`]: when a call may start.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Slots at equal distances, of which each call takes one.
///
/// A slot is taken before it is waited for, rather than by whoever is at the head of a queue: a
/// caller whose future is not polled for a while then keeps nobody else waiting.
pub(super) struct Pace {
    /// All times are counted from here: durations, unlike instants, can be subtracted without care.
    origin: Instant,
    interval: Duration,
    /// The time before its slot at which a call may start. It is the time that saved slots amount
    /// to.
    head_start: Duration,
    schedule: Mutex<Schedule>,
}

#[derive(Default)]
struct Schedule {
    /// The first slot that nobody has taken.
    next: Duration,
    /// The start times of calls that were given up while they waited. Without these, callers that
    /// don't wait long would take slot after slot and leave them all unused, and under load nobody
    /// would be served.
    given_back: BTreeSet<Duration>,
}

impl Pace {
    /// `rate` calls a second, from one a day to a million; `burst` is at least 1.
    pub(super) fn new(rate: f64, burst: u32) -> Self {
        // Rounded up, so that the rate is kept.
        let interval = Duration::from_nanos((1e9 / rate).ceil() as u64);
        Self {
            origin: Instant::now(),
            interval,
            head_start: interval.saturating_mul(burst.saturating_sub(1)),
            schedule: Mutex::default(),
        }
    }

    /// Waits for a slot. One whose future is dropped meanwhile goes to the next who asks.
    pub(super) async fn slot(&self) {
        let now = self.origin.elapsed();
        let start = self.take(now);
        if start > now {
            let mut waiting = Waiting { pace: self, start: Some(start) };
            sleep_until(self.origin + start).await;
            waiting.start = None;
        }
    }

    /// Lets a slot pass, for a call that is under way.
    pub(super) fn skip(&self) {
        self.take(self.origin.elapsed());
    }

    fn take(&self, now: Duration) -> Duration {
        let mut schedule = self.schedule();
        // Those before have passed unused.
        schedule.given_back = schedule.given_back.split_off(&now);
        if let Some(start) = schedule.given_back.pop_first() {
            return start;
        }
        let slot = schedule.next.max(now);
        schedule.next = slot + self.interval;
        slot.saturating_sub(self.head_start)
    }

    // A poisoned lock is used on: nothing that holds it can panic half-way through a change.
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<'a> {
    pace: &'a Pace,
    start: Option<Duration>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            self.pace.schedule().given_back.insert(start);
        }
    }
}

//! [`PeriodicCheck`]: an open store checks the structure of its file at an interval.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::reader::Shared;
use crate::threads::spawn;

/// The interval of a store for which none is set.
pub(crate) const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

/// The schedule of the checks.
pub(crate) struct PeriodicCheck {
    /// The time between two checks; zero for no checks.
    interval: Duration,
    next: Option<Instant>,
}

impl PeriodicCheck {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now().checked_add(interval) }
    }

    /// Starts a check if one is due.
    ///
    /// The check reads every page, so it runs on a thread of its own. If it finds faults, the store
    /// creates no more keys. If it cannot read the file, it reports nothing: the callers that read
    /// the file get that error.
    pub(crate) fn run_if_due(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        if self.interval.is_zero() || self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = now.checked_add(self.interval);
        let shared = shared.clone();
        // If no thread can be started, the next check tries again.
        let _ = spawn(move || drop(shared.count_structural_faults()));
    }
}

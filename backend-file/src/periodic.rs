//! [`PeriodicCheck`]: an open store looks for damage in the structure of its file now and then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::reader::Shared;
use crate::threads::spawn;

/// The interval of a store for which none is set.
pub(crate) const DAILY: Duration = Duration::from_secs(24 * 60 * 60);

/// The time of the next check.
pub(crate) struct PeriodicCheck {
    /// Zero for none.
    interval: Duration,
    next: Option<Instant>,
}

impl PeriodicCheck {
    pub(crate) fn new(interval: Duration) -> Self {
        Self { interval, next: Instant::now().checked_add(interval) }
    }

    /// Begins a check if it is time for one. It runs on a thread of its own, because it reads every
    /// page. If it finds faults, the store creates no new key; if the file cannot be read, those
    /// who read it are told.
    pub(crate) fn run_if_due(&mut self, shared: &Arc<Shared>) {
        let now = Instant::now();
        if self.interval.is_zero() || self.next.is_none_or(|next| now < next) {
            return;
        }
        self.next = now.checked_add(self.interval);
        let shared = shared.clone();
        // Without a thread the next check tries again.
        let _ = spawn(move || drop(shared.count_structural_faults()));
    }
}

//! [`Claim`]: the right of one caller at a time to delete the key of an erased user, and the time
//! for which it lasts.

use std::time::{Duration, Instant, SystemTime};

/// The time after which a call that has recorded its start, but not its end, counts as dead. The
/// visibility bound of the keys adds to it ([`lifetime_of`]).
pub(crate) const SETTLING: Duration = Duration::from_secs(60);

/// The longest time that the visibility bound adds.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The time in which a call may delete. After half of it the call begins no further delete, so that
/// its last one has ended by the time the call counts as dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    begun: Instant,
    /// The same moment by the system's clock, which continues while the system sleeps.
    begun_at: SystemTime,
    lifetime: Duration,
}

impl Lease {
    /// Creates a lease that begins now and has this lifetime ([`lifetime_of`]).
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { begun: Instant::now(), begun_at: SystemTime::now(), lifetime }
    }

    /// Reports whether another delete may begin.
    pub(crate) fn is_fresh(&self) -> bool {
        let slept = SystemTime::now().duration_since(self.begun_at).unwrap_or_default();
        self.begun.elapsed().max(slept) < self.lifetime / 2
    }
}

/// The right to delete the key of an erased user and to lift the tombstone. Only one caller has it
/// at a time, so no delete can still be in flight when a new key is allowed.
#[derive(Debug)]
pub(crate) struct Claim {
    index: u32,
    lease: Lease,
    /// True if the previous holder did not finish. It may have deleted a key without recording
    /// that.
    took_over: bool,
    /// True if the claim must not be finished, but left to expire.
    must_expire: bool,
}

/// The outcome of asking for a claim.
pub(crate) enum Claiming {
    Granted(Claim),
    /// Another caller has the claim, for at most `remaining`.
    Held {
        remaining: Duration,
    },
}

impl Claim {
    pub(crate) fn new(index: u32, lease: Lease, took_over: bool) -> Self {
        Self { index, lease, took_over, must_expire: false }
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    pub(crate) fn took_over(&self) -> bool {
        self.took_over
    }

    /// Leaves the claim to expire instead of finishing it, because a delete may still be applied or
    /// was not recorded.
    pub(crate) fn leave_to_expire(&mut self) {
        self.must_expire = true;
    }

    /// Returns the index of the claim, or `None` if it must be left to expire.
    pub(crate) fn index_to_finish(&self) -> Option<u32> {
        (!self.must_expire).then_some(self.index)
    }
}

/// Returns the lifetime of a claim, and of an erasure, over keys with this visibility bound. The
/// bound is counted four times, because an erasure may have to wait for it several times.
pub(crate) fn lifetime_of(bound: Duration) -> Duration {
    SETTLING + bound.saturating_mul(4).min(LONGEST_WAIT)
}

//! [`Claim`]: the right of one caller at a time to delete what is left of an erased user's key; and
//! how long such a caller may go on.

use std::time::{Duration, Instant, SystemTime};

/// The time after which a call that began, and said nothing since, is taken for dead; besides what
/// the visibility bound of the keys adds to it.
pub(crate) const SETTLING: Duration = Duration::from_secs(60);

/// The longest time that a visibility bound adds.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The time that a call has to delete. After half of it the call begins no other delete, so that
/// its last one has ended when others take it for dead.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lease {
    begun: Instant,
    /// By the system's clock, which goes on while the system sleeps.
    begun_at: SystemTime,
    lifetime: Duration,
}

impl Lease {
    /// A lease that begins now, over keys with this lifetime ([`lifetime_of`]).
    pub(crate) fn new(lifetime: Duration) -> Self {
        Self { begun: Instant::now(), begun_at: SystemTime::now(), lifetime }
    }

    /// Reports whether another delete may begin.
    pub(crate) fn is_fresh(&self) -> bool {
        let slept = SystemTime::now().duration_since(self.begun_at).unwrap_or_default();
        self.begun.elapsed().max(slept) < self.lifetime / 2
    }
}

/// The right to delete what is left of a user's key, and to lift the tombstone. One caller has it
/// at a time, so a delete that is still to come can never meet a new key.
#[derive(Debug)]
pub(crate) struct Claim {
    index: u32,
    lease: Lease,
    /// True if the last holder did not finish: it may have deleted a key, and not recorded that.
    took_over: bool,
    is_in_doubt: bool,
}

/// The outcome of asking for a claim.
pub(crate) enum Claiming {
    Granted(Claim),
    /// Another caller has it, for at most this long.
    Held {
        remaining: Duration,
    },
}

impl Claim {
    pub(crate) fn new(index: u32, lease: Lease, took_over: bool) -> Self {
        Self { index, lease, took_over, is_in_doubt: false }
    }

    pub(crate) fn lease(&self) -> Lease {
        self.lease
    }

    pub(crate) fn took_over(&self) -> bool {
        self.took_over
    }

    /// Leaves the claim to end by itself: a delete may be applied later, or was not recorded.
    pub(crate) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// The index of the claim that is to be given back.
    pub(crate) fn index_to_finish(&self) -> Option<u32> {
        (!self.is_in_doubt).then_some(self.index)
    }
}

/// The lifetime of a claim, and of an erasure, over keys with this visibility bound: an erasure may
/// wait for the bound several times (`KeyStore::erase_key`).
pub(crate) fn lifetime_of(bound: Duration) -> Duration {
    SETTLING + bound.saturating_mul(4).min(LONGEST_WAIT)
}

//! [`Claim`]: the right of one caller at a time to delete what is left of an erased user's key.

use std::time::{Duration, Instant, SystemTime};

/// The time after which a call that began, and said nothing since, is taken for dead.
pub(crate) const SETTLING: Duration = Duration::from_secs(60);

/// The longest time that a visibility bound adds to the lifetime of a claim.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// The right to delete what is left of a user's key, and to lift the tombstone. One caller has it
/// at a time, so a delete that is still to come can never meet a new key.
#[derive(Debug)]
pub(crate) struct Claim {
    index: u32,
    taken: Instant,
    /// By the system's clock, which goes on while the system sleeps.
    taken_at: SystemTime,
    lifetime: Duration,
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
    pub(crate) fn new(index: u32, lifetime: Duration) -> Self {
        Self { index, taken: Instant::now(), taken_at: SystemTime::now(), lifetime, is_in_doubt: false }
    }

    /// Reports whether the holder may still begin to delete. After half of the lifetime it must
    /// not, so that its last call has ended when another caller takes over.
    pub(crate) fn is_fresh(&self) -> bool {
        let slept = SystemTime::now().duration_since(self.taken_at).unwrap_or_default();
        self.taken.elapsed().max(slept) < self.lifetime / 2
    }

    /// A delete has ended without an answer and may be applied later: nobody may take over before
    /// the claim ends by itself.
    pub(crate) fn doubt(&mut self) {
        self.is_in_doubt = true;
    }

    /// The index of the claim that is to be given back.
    pub(crate) fn index_to_finish(&self) -> Option<u32> {
        (!self.is_in_doubt).then_some(self.index)
    }
}

/// The lifetime of a claim over keys with this visibility bound: an erasure may wait for the bound
/// three times (`KeyStore::erase_key`).
pub(crate) fn lifetime_of(bound: Duration) -> Duration {
    SETTLING + bound.saturating_mul(3).min(LONGEST_WAIT)
}

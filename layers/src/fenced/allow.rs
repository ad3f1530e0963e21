//! [`Fenced::allow_new_key`]: the end of an erasure.

use std::time::{Duration, SystemTime};

use keystead_core::{Consistency, Effect, Error, ErrorKind, Finality, KeyId, KeyStore, Operation, Result};

use super::Fenced;
use super::claim::{Claim, Claiming};
use super::record::RecordNames;
use super::register::{Erased, Progress, Status};

/// The most by which the clocks of two hosts that share tombstones may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Allows an erased user to get a new key. What is left of the old key is deleted first. Does
    /// nothing if the user is not erased.
    ///
    /// It refuses as long as any stack that shares the tombstones, in any process, may still show
    /// the erased key. The wait is the time to live of the stack's cache plus the visibility bound
    /// of its store, counted from the end of the last erasure. Each stack records that time with
    /// the tombstones before its first read, rounded up to a power of two of seconds, and the
    /// record stays: one process that ever ran with a time to live of a year makes every later call
    /// wait for a year. The clocks of hosts that share tombstones must agree to within a second.
    ///
    /// Concurrent calls are safe: one does the work, and the others fail with `Conflict` or find it
    /// done. One thing remains: a *write* that began before the erasure and reaches the store after
    /// this call counts as the new key. Therefore also wait for the longest deadline of any writer.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after): the erased key
    /// may still be visible somewhere; an erasure is under way, or within the last minute one was
    /// cut off (erase again to finish it) or had no answer to a delete, which may still be applied;
    /// a key that had come back was deleted just now, and the wait begins again; another call is at
    /// work; or the user was erased again during this call.
    /// [`PendingDeletion`](ErrorKind::PendingDeletion) if the old key can still be brought back.
    /// Those of [`KeyStore::erase_key`] from either store. The user still counts as erased, unless
    /// the effect is [`Effect::Unknown`].
    pub async fn allow_new_key(&self, id: &KeyId) -> Result<()> {
        let names = self.register.names(id, Operation::Erase).await?;
        let status = self.register.status(&names, Operation::Erase).await.map_err(still_erased)?;
        let Status::Erased(erased) = status else { return Ok(()) };
        match self.wait(&names, &erased).await.map_err(still_erased)? {
            // Under a claim, a look at the keys takes the place of the missing record.
            Wait::Over | Wait::NotRecorded => {}
            Wait::For(remaining, why) => return Err(self.contention(why).with_retry_after(remaining)),
        }
        let lifetime = self.claim_lifetime();
        let claiming = self.register.claim(&names, lifetime, Operation::Erase).await.map_err(still_erased)?;
        let mut claim = match claiming {
            Claiming::Granted(claim) => claim,
            Claiming::Held { remaining } => {
                let why = "another caller deletes what is left of the erased key, or was cut off: try again after the \
                           pause at the latest";
                return Err(self.contention(why).with_retry_after(remaining));
            }
        };
        let outcome = self.lift(id, &names, &erased, &mut claim).await;
        // If this fails, the claim ends by itself.
        drop(self.register.finish(&names, claim, Operation::Erase).await);
        outcome
    }

    /// Lifts a tombstone under a claim, if the wait is over.
    async fn lift(&self, id: &KeyId, names: &RecordNames, erased: &Erased, claim: &mut Claim) -> Result<()> {
        // Only the holder of the claim lifts tombstones, but anybody may erase.
        match self.register.status(names, Operation::Erase).await.map_err(still_erased)? {
            Status::Free { .. } => return Ok(()),
            Status::Erased(now) if now != *erased => return Err(self.erased_again()),
            Status::Erased(_) => {}
        }
        let was_left = self.delete_what_is_left(id, names, claim).await.map_err(still_erased)?;
        if was_left == Left::Nothing
            && matches!(self.wait(names, erased).await.map_err(still_erased)?, Wait::NotRecorded)
        {
            self.register.record_cleaned(names, erased.generation).await.map_err(still_erased)?;
        }
        // Again, because other stacks may have begun to read meanwhile.
        match self.wait(names, erased).await.map_err(still_erased)? {
            Wait::Over => {}
            Wait::NotRecorded => return Err(self.erased_again()),
            Wait::For(remaining, why) => return Err(self.contention(why).with_retry_after(remaining)),
        }
        self.register.lift(names, erased.generation).await?;
        let status = self.register.status(names, Operation::Erase).await;
        match status.map_err(|e| e.with_effect(Effect::Unknown))? {
            Status::Free { .. } => Ok(()),
            Status::Erased(_) => Err(self.erased_again().with_effect(Effect::Unknown)),
        }
    }

    /// Returns how long a new key has to wait.
    async fn wait(&self, names: &RecordNames, erased: &Erased) -> Result<Wait> {
        let visible_for = self.register.longest_visibility().await?;
        let ended_at = match self.register.progress(names, erased, self.claim_lifetime()).await? {
            Progress::UnderWay { remaining } => {
                let why = "an erasure of this user is under way or was cut off: erase the user again to finish it, or try \
                           again after the pause";
                return Ok(Wait::For(remaining, why));
            }
            Progress::CutOff => return Ok(Wait::NotRecorded),
            Progress::EndedAt(ended_at) => ended_at,
        };
        if visible_for.is_zero() {
            return Ok(Wait::Over);
        }
        let passed = SystemTime::now().duration_since(ended_at).unwrap_or_default();
        let remaining = visible_for.saturating_add(CLOCK_SKEW).saturating_sub(passed);
        Ok(match remaining.is_zero() {
            true => Wait::Over,
            false => Wait::For(
                remaining,
                "the erased key may still be visible through a cache: allow a new one after the pause",
            ),
        })
    }

    /// Deletes a key that has come back, and records that, so that the wait begins again.
    async fn delete_what_is_left(&self, id: &KeyId, names: &RecordNames, claim: &mut Claim) -> Result<Left> {
        let mut was_seen = false;
        if self.is_absence_certain() {
            match self.look_beneath(id).await {
                Err(e) if e.kind() == ErrorKind::NotFound && !claim.took_over() => return Ok(Left::Nothing),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    // The last holder may have deleted a key without recording it.
                    self.record_cleanup(names, claim, Operation::Erase).await?;
                    return Ok(Left::Deleted);
                }
                Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
                Ok(_) | Err(_) => was_seen = true,
            }
        }
        let erasure = match self.erase_standing_key(id, &claim.lease()).await {
            Ok(erasure) => erasure,
            Err(e) => {
                claim.doubt();
                return Err(e);
            }
        };
        if erasure.unsettled {
            claim.doubt();
            self.record_cleanup(names, claim, Operation::Erase).await?;
            let why =
                "a delete of this call had no answer at first and may still be applied: try again after the pause";
            return Err(self.contention(why).with_retry_after(self.claim_lifetime()));
        }
        let until = match erasure.finality {
            Finality::RecoverableUntil(until) => Some(until),
            _ => None,
        };
        if was_seen || claim.took_over() || erasure.existed && until.is_none() {
            self.record_cleanup(names, claim, Operation::Erase).await?;
        }
        match until {
            Some(until) => {
                let remaining = until.duration_since(SystemTime::now()).unwrap_or_default();
                let why = "the old key can still be brought back: allow a new one when it no longer can";
                let e = Error::new(ErrorKind::PendingDeletion, Operation::Erase, self.keys.info().scheme());
                Err(e.with_retry_after(remaining).with_source(why))
            }
            None if erasure.existed || claim.took_over() => Ok(Left::Deleted),
            None => Ok(Left::Nothing),
        }
    }

    /// Reports whether "not found" is the present state of the keys: neither a cache nor a replica
    /// that lags may have said it.
    pub(super) fn is_absence_certain(&self) -> bool {
        let capabilities = match &self.beneath {
            Some(store) => store.capabilities(),
            None => self.keys.capabilities(),
        };
        capabilities.consistency == Consistency::Strong
    }

    fn erased_again(&self) -> Error {
        self.contention("the user was erased again during this call: try again after the pause")
    }
}

/// The state of an erased user's key.
#[derive(PartialEq)]
enum Left {
    Nothing,
    /// A key, perhaps deleted by an earlier caller; that is recorded.
    Deleted,
}

/// The reason why an erased user cannot have a new key yet.
enum Wait {
    Over,
    /// Until then, and why.
    For(Duration, &'static str),
    /// Nobody has recorded when the last erasure ended.
    NotRecorded,
}

/// The failure of a step that has changed nothing about the user's state.
fn still_erased(e: Error) -> Error {
    e.with_operation(Operation::Erase).with_effect(Effect::NotApplied)
}

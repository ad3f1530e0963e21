//! [`Fenced::allow_new_key`]: lets an erased user have a key again.

use std::time::{Duration, SystemTime};

use keystead_core::{Consistency, Effect, Error, ErrorKind, Finality, KeyId, KeyStore, Operation, Result};

use super::Fenced;
use super::claim::{Claim, Claiming};
use super::record::RecordNames;
use super::register::{Erased, ErasureProgress, Status};

/// The most by which the clocks of two hosts that share tombstones may differ.
const CLOCK_SKEW: Duration = Duration::from_secs(1);

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Lets an erased user have a new key. A user who is not erased is left as is.
    ///
    /// If the old key has come back, it is deleted first. The call fails as long as any stack that
    /// shares the tombstones, in any process, may still return the erased key. The wait is the time
    /// to live of that stack's cache plus the visibility bound of its store, counted from the end
    /// of the last erasure.
    ///
    /// Each stack records this time with the tombstones before its first read, rounded up to a
    /// power of two in seconds. The record stays for good: if one process has ever run with a time
    /// to live of a year, every later call waits for at least a year. The clocks of the hosts that
    /// share tombstones must agree to within a second.
    ///
    /// Concurrent calls are safe: one does the work, and the others fail with `Conflict` or find
    /// the work done. But a *write* that began before the erasure and reaches the store after this
    /// call counts as the new key. Therefore, before you call this, also let the longest deadline
    /// of any writer pass after the erasure.
    ///
    /// # Errors
    /// Unless the effect of the error is [`Effect::Unknown`], the user is still erased.
    /// - [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after) in these
    ///   cases:
    ///   - The erased key may still be visible somewhere.
    ///   - An erasure of the user is in progress, or was cut off within the last minute (erase the
    ///     user again to finish it), or made a delete without an answer, which may still be
    ///     applied.
    ///   - A key that had come back was deleted just now, so the wait begins again.
    ///   - Another call is allowing a new key at the same time.
    ///   - The user was erased again during this call.
    /// - [`PendingDeletion`](ErrorKind::PendingDeletion) if the old key can still be restored.
    /// - The errors of [`KeyStore::erase_key`], from either store.
    pub async fn allow_new_key(&self, id: &KeyId) -> Result<()> {
        let names = self.register.names(id, Operation::Erase).await?;
        let status = self.register.status(&names, Operation::Erase).await.map_err(still_erased)?;
        let Status::Erased(erased) = status else { return Ok(()) };
        match self.wait(&names, &erased).await.map_err(still_erased)? {
            // If no record says when the last erasure ended, the store of the keys is examined
            // under a claim instead.
            Wait::Over | Wait::NotRecorded => {}
            Wait::For(remaining, why) => return Err(self.contention(why).with_retry_after(remaining)),
        }
        let lifetime = self.claim_lifetime();
        let claiming = self.register.claim(&names, lifetime, Operation::Erase).await.map_err(still_erased)?;
        let mut claim = match claiming {
            Claiming::Granted(claim) => claim,
            Claiming::Held { remaining } => {
                let why = "another caller is deleting the erased key, or was cut off: try again after retry_after";
                return Err(self.contention(why).with_retry_after(remaining));
            }
        };
        let outcome = self.lift(id, &names, &erased, &mut claim).await;
        // If this fails, the claim expires.
        drop(self.register.finish(&names, claim, Operation::Erase).await);
        outcome
    }

    /// Lifts the tombstone under a claim, if the wait is over.
    async fn lift(&self, id: &KeyId, names: &RecordNames, erased: &Erased, claim: &mut Claim) -> Result<()> {
        // Nobody else can lift the tombstone under this claim, but others may have erased again.
        match self.register.status(names, Operation::Erase).await.map_err(still_erased)? {
            Status::Free { .. } => return Ok(()),
            Status::Erased(now) if now != *erased => return Err(self.erased_again()),
            Status::Erased(_) => {}
        }
        let remains = self.delete_remains(id, names, claim).await.map_err(still_erased)?;
        if remains == Remains::Nothing
            && matches!(self.wait(names, erased).await.map_err(still_erased)?, Wait::NotRecorded)
        {
            self.register.record_cleaned(names, erased.generation).await.map_err(still_erased)?;
        }
        // Checked again, because other stacks may have made their first read meanwhile.
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

    /// Returns how long the user has to wait for a new key.
    async fn wait(&self, names: &RecordNames, erased: &Erased) -> Result<Wait> {
        let visible_for = self.register.longest_visibility().await?;
        let ended_at = match self.register.progress(names, erased, self.claim_lifetime()).await? {
            ErasureProgress::Ongoing { remaining } => {
                let why = "an erasure of this user is in progress or was cut off: erase the user again to finish it, \
                           or try again after retry_after";
                return Ok(Wait::For(remaining, why));
            }
            ErasureProgress::CutOff => return Ok(Wait::NotRecorded),
            ErasureProgress::EndedAt(ended_at) => ended_at,
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
                "the erased key may still be visible through a cache: allow a new one after retry_after",
            ),
        })
    }

    /// Deletes a key that has come back, and records the deletion so that the wait begins again.
    async fn delete_remains(&self, id: &KeyId, names: &RecordNames, claim: &mut Claim) -> Result<Remains> {
        let mut was_seen = false;
        if self.is_absence_certain() {
            match self.look_beneath(id).await {
                Err(e) if e.kind() == ErrorKind::NotFound && !claim.took_over() => return Ok(Remains::Nothing),
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    // The previous holder may have deleted a key without recording it.
                    self.record_cleanup(names, claim, Operation::Erase).await?;
                    return Ok(Remains::Deleted);
                }
                Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
                Ok(_) | Err(_) => was_seen = true,
            }
        }
        let erasure = match self.erase_stored_key(id, &claim.lease()).await {
            Ok(erasure) => erasure,
            Err(e) => {
                claim.leave_to_expire();
                return Err(e);
            }
        };
        if erasure.unsettled {
            claim.leave_to_expire();
            self.record_cleanup(names, claim, Operation::Erase).await?;
            let why =
                "a delete of this call had no answer at first and may still be applied: try again after retry_after";
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
                let why = "the old key can still be restored: allow a new one when it no longer can";
                let e = Error::new(ErrorKind::PendingDeletion, Operation::Erase, self.keys.info().scheme());
                Err(e.with_retry_after(remaining).with_source(why))
            }
            None if erasure.existed || claim.took_over() => Ok(Remains::Deleted),
            None => Ok(Remains::Nothing),
        }
    }

    /// Reports whether a "not found" shows the present state of the keys, because it cannot come
    /// from a cache or a lagging replica.
    pub(super) fn is_absence_certain(&self) -> bool {
        let capabilities = match &self.beneath {
            Some(store) => store.capabilities(),
            None => self.keys.capabilities(),
        };
        capabilities.consistency == Consistency::Strong
    }

    fn erased_again(&self) -> Error {
        self.contention("the user was erased again during this call: try again after retry_after")
    }
}

/// The remains of an erased user's key.
#[derive(PartialEq)]
enum Remains {
    Nothing,
    /// A key that was deleted by this caller or perhaps by an earlier one. The deletion is
    /// recorded.
    Deleted,
}

/// The time that an erased user has to wait for a new key.
enum Wait {
    Over,
    /// The remaining time, and the reason.
    For(Duration, &'static str),
    /// Unknown, because nobody has recorded when the last erasure ended.
    NotRecorded,
}

/// Marks the error as coming from a step that left the user erased.
fn still_erased(e: Error) -> Error {
    e.with_operation(Operation::Erase).with_effect(Effect::NotApplied)
}

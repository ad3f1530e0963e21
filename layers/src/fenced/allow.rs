//! [`Fenced::allow_new_key`]: the end of an erasure.

use std::time::{Duration, SystemTime};

use keystead_core::{Effect, Error, ErrorKind, Finality, KeyId, KeyStore, Operation, Result};

use super::Fenced;
use super::record::RecordNames;
use super::register::{Claim, Claiming, Status, TICK};

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Lets an erased user have a key again: a new one, because a key that is left of the old one is deleted first. Does
    /// nothing if the user is not erased.
    ///
    /// It refuses as long as any stack that shares the tombstones, in any process, may still show the erased key. That is the
    /// time to live of its cache and the visibility bound of its store, counted from the last erasure; each stack records
    /// it with the tombstones before its first read, rounded up to a power of two of seconds. The clocks of hosts that
    /// share tombstones must agree to within a second.
    ///
    /// Calls at the same time do no harm: one of them does the work, the others are refused or find it done. What remains is
    /// a *write* that began before the erasure and reaches the store after this call: it counts as the new key. So wait for
    /// the longest deadline of all writers, too.
    ///
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after): the erased key may still be visible
    /// somewhere, a key had been written past the fence and was deleted just now, another call is at work, or the user was
    /// erased again under this one. [`PendingDeletion`](ErrorKind::PendingDeletion) if the old key can still be brought back.
    /// Those of [`KeyStore::erase_key`] from either store. The user still counts as erased, unless the effect is
    /// [`Effect::Unknown`].
    pub async fn allow_new_key(&self, id: &KeyId) -> Result<()> {
        let names = self.register.names(id, Operation::Erase).await?;
        let Status::Erased(erased) = self.register.status(&names, Operation::Erase).await? else { return Ok(()) };
        let untouched = |e: Error| e.with_operation(Operation::Erase).with_effect(Effect::NotApplied);
        let visible_for = self.register.longest_visibility().await.map_err(untouched)?;
        let ended_at = self.register.ended_at(&names, erased.generation).await.map_err(untouched)?;
        if let Some(ended_at) = ended_at {
            self.ensure_invisible(ended_at, visible_for)?;
        }
        let claiming = self.register.claim(&names, erased.generation, Operation::Erase).await.map_err(untouched)?;
        let claim = match claiming {
            Claiming::Granted(claim) => claim,
            Claiming::Held { remaining } => {
                let why =
                    "another caller deletes what is left of the erased key: try again after the pause at the latest";
                return Err(self.contention(why).with_retry_after(remaining));
            }
        };
        // The holder of the claim is the only one to lift this generation, so the state cannot change under it.
        let outcome = match self.register.status(&names, Operation::Erase).await.map_err(untouched)? {
            Status::Free { .. } => Ok(()),
            Status::Erased(now) if now != erased => {
                Err(self.contention("the user was erased again meanwhile: try again after the pause"))
            }
            Status::Erased(_) => self.lift(id, &names, &claim, ended_at.is_some(), visible_for).await,
        };
        // If this fails, the claim ends by itself.
        drop(self.register.finish(&names, claim, Operation::Erase).await);
        outcome
    }

    /// Lifts a tombstone under a claim, if the wait is over. It begins again where a key was found and deleted just now, which
    /// may be in caches, and it begins only now where nobody has recorded the end of the erasure.
    async fn lift(
        &self,
        id: &KeyId,
        names: &RecordNames,
        claim: &Claim,
        has_ended: bool,
        visible_for: Duration,
    ) -> Result<()> {
        let untouched = |e: Error| e.with_operation(Operation::Erase).with_effect(Effect::NotApplied);
        let (generation, wait_is_over) = if self.delete_what_is_left(id, claim).await.map_err(untouched)? {
            (self.record_erasure(names).await.map_err(untouched)?, visible_for.is_zero())
        } else {
            self.register.record_end(names, claim.generation()).await.map_err(untouched)?;
            (claim.generation(), has_ended || visible_for.is_zero())
        };
        if !wait_is_over {
            let why =
                "the erasure has ended only now, and caches may still hold the key: allow a new one after the pause";
            return Err(self.contention(why).with_retry_after(visible_for.saturating_add(TICK)));
        }
        self.register.lift(names, generation).await?;
        match self.register.status(names, Operation::Erase).await? {
            Status::Free { .. } => Ok(()),
            Status::Erased(_) => Err(self.contention("the user was erased again meanwhile: try again after the pause")),
        }
    }

    /// Deletes a key that was written past the fence, and returns whether there was one.
    async fn delete_what_is_left(&self, id: &KeyId, claim: &Claim) -> Result<bool> {
        // What a cache says of an absence may be old, so then the store itself is made to say it.
        let is_certain = self.beneath.is_some() || !self.keys.capabilities().cached;
        match self.look_beneath(id).await {
            Err(e) if e.kind() == ErrorKind::NotFound && is_certain => return Ok(false),
            Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Corrupt) => return Err(e),
            Ok(_) | Err(_) => {}
        }
        if !claim.is_fresh() {
            return Err(self.contention("this call was paused for too long to go on: try again"));
        }
        let erasure = self.erase_standing_key(id).await?;
        match erasure.finality {
            Finality::RecoverableUntil(until) => {
                let remaining = until.duration_since(SystemTime::now()).unwrap_or_default();
                let why = "the old key can still be brought back: allow a new one when it no longer can";
                let e = Error::new(ErrorKind::PendingDeletion, Operation::Erase, self.keys.info().scheme());
                Err(e.with_retry_after(remaining).with_source(why))
            }
            _ => Ok(erasure.existed),
        }
    }

    /// Refuses as long as some stack may still show a key whose erasure ended at this moment.
    fn ensure_invisible(&self, ended_at: SystemTime, visible_for: Duration) -> Result<()> {
        if visible_for.is_zero() {
            return Ok(());
        }
        let passed = SystemTime::now().duration_since(ended_at).unwrap_or_default();
        match visible_for.saturating_add(TICK).checked_sub(passed) {
            Some(left) if !left.is_zero() => {
                let why = "the erased key may still be visible through a cache: allow a new one after the pause";
                Err(self.contention(why).with_retry_after(left))
            }
            _ => Ok(()),
        }
    }
}

//! The refusal of calls for erased users, and the deletion of their keys that have come back.

use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result};

use super::Fenced;
use super::claim::{Claim, Claiming};
use super::record::RecordNames;
use super::register::Status;

/// The number of times that a caller deletes a key that has come back before it leaves that to the
/// next caller.
const ROUNDS: u32 = 4;

/// The number of a user's tombstones when a call began, all of them lifted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations(u32);

/// The outcome of cleaning up a key that has come back.
enum Cleaned {
    /// There is no key.
    NothingLeft,
    /// The key may still be there. A later caller deletes it.
    MayRemain,
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Fails if the user is erased, after deleting the user's key if it has come back.
    pub(super) async fn ensure_not_erased(
        &self,
        id: &KeyId,
        names: &RecordNames,
        operation: Operation,
    ) -> Result<Generations> {
        let status = self.register.status(names, operation).await?;
        self.refuse_if_erased(status, id, names, operation).await
    }

    /// Does what [`ensure_not_erased`](Self::ensure_not_erased) does, for a status that is known.
    pub(super) async fn refuse_if_erased(
        &self,
        status: Status,
        id: &KeyId,
        names: &RecordNames,
        operation: Operation,
    ) -> Result<Generations> {
        match status {
            Status::Free { generations } => Ok(Generations(generations)),
            Status::Erased(_) => {
                // The outcome does not matter: a key that remains is never returned, and the next
                // caller tries to delete it again.
                self.clean(id, names, operation, true).await;
                Err(self.erased(operation))
            }
        }
    }

    /// Returns the answer to a write, unless the user was erased since the write began. In that
    /// case the erasure may have missed the written key, so the key is deleted and the write fails.
    pub(super) async fn unless_erased_since<A>(
        &self,
        answer: Result<A>,
        id: &KeyId,
        names: &RecordNames,
        begun: Generations,
        operation: Operation,
    ) -> Result<A> {
        if answer.as_ref().is_err_and(|e| e.effect() == Effect::NotApplied) {
            return answer;
        }
        match self.register.status(names, operation).await {
            Ok(Status::Free { generations }) if Generations(generations) == begun => answer,
            Ok(Status::Free { .. }) => Err(self.erased(operation).with_effect(Effect::Unknown)),
            Err(e) => answer.and(Err(e.with_effect(Effect::Unknown))),
            // On an eventually consistent store the written key may not be visible yet, so it is
            // deleted without looking for it first.
            Ok(Status::Erased(_)) => match self.clean(id, names, operation, self.is_absence_certain()).await {
                // A write without an answer may still be applied.
                Cleaned::NothingLeft if answer.is_ok() => Err(self.erased(operation)),
                _ => Err(self.erased(operation).with_effect(Effect::Unknown)),
            },
        }
    }

    /// Deletes an erased user's key that has come back. It does so under a claim, so that nobody
    /// allows a new key meanwhile. If `looks_first` is true, it deletes only a key that it has
    /// seen.
    async fn clean(&self, id: &KeyId, names: &RecordNames, operation: Operation, mut looks_first: bool) -> Cleaned {
        for _ in 0..ROUNDS {
            if looks_first {
                match self.look_beneath(id).await {
                    Err(e) if is_gone(&e) => return Cleaned::NothingLeft,
                    Err(e) if e.kind() != ErrorKind::Corrupt => return Cleaned::MayRemain,
                    Ok(_) | Err(_) => {}
                }
            }
            looks_first = true;
            match self.delete_under_a_claim(id, names, operation).await {
                // On an eventually consistent store, another look could show the deleted key.
                Deleting::Deleted if self.is_absence_certain() => {}
                Deleting::NotFound if self.is_absence_certain() => return Cleaned::NothingLeft,
                _ => return Cleaned::MayRemain,
            }
        }
        Cleaned::MayRemain
    }

    /// Deletes the key, unless the user is no longer erased or another caller holds the claim.
    /// There is no need to wait for that caller, because it looks for the key again after its
    /// delete.
    async fn delete_under_a_claim(&self, id: &KeyId, names: &RecordNames, operation: Operation) -> Deleting {
        let claiming = self.register.claim(names, self.claim_lifetime(), operation).await;
        let Ok(Claiming::Granted(mut claim)) = claiming else { return Deleting::NotDone };
        // A new key may have been allowed before the claim was granted, but none can be from now
        // on.
        let is_erased = matches!(self.register.status(names, operation).await, Ok(Status::Erased(_)));
        let outcome = if !is_erased {
            Deleting::NotDone
        } else if !claim.lease().is_fresh() {
            claim.leave_to_expire();
            Deleting::NotDone
        } else {
            match self.keys.delete_key(id).await {
                Ok(deletion) => {
                    if deletion.unsettled {
                        claim.leave_to_expire();
                    }
                    Deleting::Deleted
                }
                Err(e) if is_gone(&e) => {
                    // A lagging read has shown a key that is already gone. While the claim lasts,
                    // nobody else tries to delete it.
                    if !self.is_absence_certain() {
                        claim.leave_to_expire();
                    }
                    Deleting::NotFound
                }
                Err(_) => {
                    // The delete may be applied later. Also, while the claim lasts, nobody repeats
                    // a delete that has just failed.
                    claim.leave_to_expire();
                    Deleting::NotDone
                }
            }
        };
        if is_erased && (outcome == Deleting::Deleted || claim.took_over()) {
            // If this fails, the claim expires, and the next holder makes the record.
            drop(self.record_cleanup(names, &mut claim, operation).await);
        }
        drop(self.register.finish(names, claim, operation).await);
        outcome
    }

    /// Records the deletion of a key that a cache may have read, so that the wait for a new key
    /// begins again. The record belongs to the user's present generation.
    pub(super) async fn record_cleanup(
        &self,
        names: &RecordNames,
        claim: &mut Claim,
        operation: Operation,
    ) -> Result<()> {
        let recorded = match self.register.status(names, operation).await {
            Ok(Status::Erased(erased)) => self.register.record_cleaned(names, erased.generation).await,
            Ok(Status::Free { .. }) => Ok(()),
            Err(e) => Err(e),
        };
        if recorded.is_err() {
            claim.leave_to_expire();
        }
        recorded
    }

    fn erased(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Erased, operation, self.keys.info().scheme())
            .with_source("this user was erased: call allow_new_key before creating a new key")
    }
}

/// The outcome of a delete under a claim.
#[derive(PartialEq)]
enum Deleting {
    Deleted,
    NotFound,
    /// The user is not erased, another caller holds the claim, or the delete had no clear answer.
    NotDone,
}

fn is_gone(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

//! Refusing erased users, and deleting keys of theirs that have come back.

use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result};

use super::Fenced;
use super::claim::{Claim, Claiming};
use super::record::RecordNames;
use super::register::Status;

/// The number of times that a caller deletes what has come back, before it leaves that to the next
/// one.
const ROUNDS: u32 = 4;

/// The generations that had been lifted when a call began.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Generations(u32);

/// The outcome for a key that had come back.
enum Cleaned {
    NothingLeft,
    /// It may still be there, for a later caller to delete.
    MayRemain,
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Refuses a call for an erased user, and deletes a key that has come back.
    pub(super) async fn ensure_not_erased(
        &self,
        id: &KeyId,
        names: &RecordNames,
        operation: Operation,
    ) -> Result<Generations> {
        let status = self.register.status(names, operation).await?;
        self.refuse_if_erased(status, id, names, operation).await
    }

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
                // What remains is never returned, and a later caller that meets it tries again.
                self.clean(id, names, operation, true).await;
                Err(self.erased(operation))
            }
        }
    }

    /// Returns the answer to a write, unless the user was erased since it began: then the erasure
    /// may have missed what was written, and what was written may be of before a new key was
    /// allowed.
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
            // What was written now need not be visible yet, where reads may lag.
            Ok(Status::Erased(_)) => match self.clean(id, names, operation, self.is_absence_certain()).await {
                // A write without an answer may still be applied.
                Cleaned::NothingLeft if answer.is_ok() => Err(self.erased(operation)),
                _ => Err(self.erased(operation).with_effect(Effect::Unknown)),
            },
        }
    }

    /// Deletes a key of an erased user that has come back, under a claim: nobody allows a new key
    /// while the delete is under way. `looks_first` if only a key that is seen is to be deleted.
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
                // Where reads may lag, looking again would show what was just deleted.
                Deleting::Deleted if self.is_absence_certain() => {}
                Deleting::NotFound if self.is_absence_certain() => return Cleaned::NothingLeft,
                _ => return Cleaned::MayRemain,
            }
        }
        Cleaned::MayRemain
    }

    /// Deletes the key if the user is erased and no other caller is at it. A caller that finds the
    /// claim taken need not wait: its holder looks again after its delete.
    async fn delete_under_a_claim(&self, id: &KeyId, names: &RecordNames, operation: Operation) -> Deleting {
        let claiming = self.register.claim(names, self.claim_lifetime(), operation).await;
        let Ok(Claiming::Granted(mut claim)) = claiming else { return Deleting::NotDone };
        // A new key may have been allowed before the claim was granted. From now on it cannot.
        let is_erased = matches!(self.register.status(names, operation).await, Ok(Status::Erased(_)));
        let outcome = if !is_erased {
            Deleting::NotDone
        } else if !claim.lease().is_fresh() {
            claim.doubt();
            Deleting::NotDone
        } else {
            match self.keys.delete_key(id).await {
                Ok(deletion) => {
                    if deletion.unsettled {
                        claim.doubt();
                    }
                    Deleting::Deleted
                }
                Err(e) if is_gone(&e) => {
                    // A lagging read has shown a key that is gone. Until that is over nobody need
                    // try.
                    if !self.is_absence_certain() {
                        claim.doubt();
                    }
                    Deleting::NotFound
                }
                Err(_) => {
                    // It may be applied later. Besides, nobody else need try what has failed just
                    // now.
                    claim.doubt();
                    Deleting::NotDone
                }
            }
        };
        if is_erased && (outcome == Deleting::Deleted || claim.took_over()) {
            // If this fails, the claim ends by itself, and the next holder records it.
            drop(self.record_cleanup(names, &mut claim, operation).await);
        }
        drop(self.register.finish(names, claim, operation).await);
        outcome
    }

    /// Records that a key was deleted which some cache may have read before: the wait for a new key
    /// begins again. It counts for the generation that is the last one by now.
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
            claim.doubt();
        }
        recorded
    }

    fn erased(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Erased, operation, self.keys.info().scheme())
            .with_source("this user was erased: allow_new_key lets a new key be made")
    }
}

/// The outcome of a delete under a claim.
#[derive(PartialEq)]
enum Deleting {
    Deleted,
    NotFound,
    /// The user is free, another caller is at it, or the delete had no clear answer.
    NotDone,
}

fn is_gone(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

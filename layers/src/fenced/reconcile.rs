//! [`Fenced::reconcile`]: erases the keys of erased users that a restored backup has brought back.

use futures_util::stream::{self, StreamExt};
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result};

use super::claim::Claiming;
use super::record::RecordNames;
use super::register::Status;
use super::{ErasureReceipt, Fenced, LISTED_AT_ONCE};

/// The number of erasures that are in flight at once. Each waits for the visibility bound of the
/// store of the keys.
const ERASURES_IN_FLIGHT: usize = 8;

/// The number of times that an erasure is tried if it fails with an error that time may cure, such
/// as a timeout caused by a rate limit beneath the fence.
const ATTEMPTS: u32 = 4;

/// The result of [`Fenced::reconcile`]: how many ids were examined, and with which outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReconcileReport {
    /// The number of ids that the store of the keys listed.
    pub listed: u64,
    /// The number of listed users who had been erased, and whose keys have now been erased again.
    pub erased: u64,
    /// The number of ids that could not be looked up among the tombstones, or whose keys could not
    /// be erased.
    pub failed: u64,
    /// The number of entries that the store listed as damaged, whose ids are therefore not known.
    pub unlisted: u64,
}

impl ReconcileReport {
    /// Reports whether every listed entry was looked up, and every listed key of an erased user was
    /// erased. It says nothing about a key that a lagging listing did not show.
    pub fn is_complete(&self) -> bool {
        self.failed == 0 && self.unlisted == 0
    }
}

/// An id that could not be reconciled, with the error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ReconcileFailure {
    /// The user's id.
    pub id: KeyId,
    /// The error of the lookup among the tombstones, or of the erasure.
    pub error: Error,
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Lists all keys, and erases the keys of erased users again.
    ///
    /// Call it after the keys were restored from a backup, which brings back the keys of users who
    /// were erased since the backup. Reads through the fence refuse such keys in any case; this
    /// deletes them.
    ///
    /// It calls `on_outcome` with the receipt of each erasure as soon as the erasure has ended, and
    /// with each failure. It continues after a failure.
    ///
    /// If the *tombstones* were restored from a backup, too, users who were erased after that
    /// backup are not found. Back up the tombstones separately from the keys, and more often.
    ///
    /// # Errors
    /// The keys that were erased before the error stay erased.
    /// - [`Config`](ErrorKind::Config) if the store of the tombstones has no fence key, which means
    ///   that no erasure was ever recorded there.
    /// - The errors of [`KeyStore::list_keys`], from the store of the keys, such as
    ///   [`Unsupported`](ErrorKind::Unsupported) if it cannot list. [`Corrupt`](ErrorKind::Corrupt)
    ///   entries are counted instead.
    pub async fn reconcile(
        &self,
        mut on_outcome: impl FnMut(Result<ErasureReceipt, ReconcileFailure>) + Send,
    ) -> Result<ReconcileReport> {
        self.register.fence_key_in_use(Operation::Erase).await?;
        let mut report = ReconcileReport::default();
        let mut chunks = self.keys.list_keys().chunks(LISTED_AT_ONCE);
        while let Some(chunk) = chunks.next().await {
            let mut ids = Vec::with_capacity(chunk.len());
            for listed in chunk {
                match listed {
                    Ok(id) => ids.push(id),
                    Err(e) if e.kind() == ErrorKind::Corrupt => report.unlisted += 1,
                    Err(e) => return Err(e),
                }
            }
            report.listed += ids.len() as u64;
            let record = |outcome: Result<ErasureReceipt, ReconcileFailure>| {
                match &outcome {
                    Ok(_) => report.erased += 1,
                    Err(_) => report.failed += 1,
                }
                on_outcome(outcome);
            };
            self.erase_again(ids, record).await;
        }
        Ok(report)
    }

    /// Erases the keys of those users who are erased. It calls `on_outcome` for each erasure, and
    /// for each id whose lookup fails.
    async fn erase_again(
        &self,
        ids: Vec<KeyId>,
        mut on_outcome: impl FnMut(Result<ErasureReceipt, ReconcileFailure>) + Send,
    ) {
        let mut looked_up: Vec<(KeyId, RecordNames)> = Vec::with_capacity(ids.len());
        for id in ids {
            match self.register.names(&id, Operation::List).await {
                Ok(names) => looked_up.push((id, names)),
                Err(error) => on_outcome(Err(ReconcileFailure { id, error })),
            }
        }
        let names: Vec<RecordNames> = looked_up.iter().map(|(_, names)| names.clone()).collect();
        let statuses = self.register.statuses(&names, Operation::List).await;
        let mut erasures = Vec::new();
        for ((id, names), status) in looked_up.into_iter().zip(statuses) {
            match status {
                Ok(Status::Free { .. }) => {}
                Ok(Status::Erased(_)) => erasures.push(self.erase_one_again(id, names)),
                Err(error) => on_outcome(Err(ReconcileFailure { id, error })),
            }
        }
        let mut erased = stream::iter(erasures).buffer_unordered(ERASURES_IN_FLIGHT);
        while let Some(outcome) = erased.next().await {
            if let Some(outcome) = outcome.transpose() {
                on_outcome(outcome);
            }
        }
    }

    /// Erases the key of an erased user again, or returns `None` if the user was allowed a new key
    /// meanwhile.
    async fn erase_one_again(&self, id: KeyId, names: RecordNames) -> Result<Option<ErasureReceipt>, ReconcileFailure> {
        for attempt in 1.. {
            match self.erase_under_a_claim(&id, &names).await {
                Ok(receipt) => return Ok(receipt),
                Err(e) if is_worth_another_attempt(&e) && attempt < ATTEMPTS => {}
                Err(error) => return Err(ReconcileFailure { id, error }),
            }
        }
        Ok(None)
    }

    /// Erases under a claim, so that nobody can allow a new key meanwhile, which this erasure would
    /// then delete.
    async fn erase_under_a_claim(&self, id: &KeyId, names: &RecordNames) -> Result<Option<ErasureReceipt>> {
        let operation = Operation::Erase;
        let mut claim = match self.register.claim(names, self.claim_lifetime(), operation).await? {
            Claiming::Granted(claim) => claim,
            Claiming::Held { remaining } => {
                let why = "another caller is deleting this user's key: reconcile again to see whether it succeeded";
                return Err(self.contention(why).with_retry_after(remaining));
            }
        };
        let receipt = match self.register.status(names, operation).await {
            Ok(Status::Free { .. }) => Ok(None),
            Ok(Status::Erased(erased)) => match self.erase_stored_key(id, &claim.lease()).await {
                Ok(erasure) => {
                    if erasure.unsettled {
                        claim.leave_to_expire();
                    }
                    let recorded = self.record_cleanup(names, &mut claim, operation).await;
                    recorded.map(|()| Some(self.receipt(names, &erased, &erasure)))
                }
                Err(e) => {
                    if e.effect() == Effect::Unknown {
                        claim.leave_to_expire();
                    }
                    Err(e)
                }
            },
            Err(e) => Err(e),
        };
        drop(self.register.finish(names, claim, operation).await);
        receipt
    }
}

/// Reports whether another attempt may succeed. After an unknown effect it cannot, because this
/// caller's own claim has not expired yet.
fn is_worth_another_attempt(e: &Error) -> bool {
    e.is_retryable() && e.kind() != ErrorKind::Conflict && e.effect() == Effect::NotApplied
}

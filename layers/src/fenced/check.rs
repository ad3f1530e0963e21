//! [`Fenced::check_receipt`]: tells whether a receipt agrees with the stores.

use std::time::{Duration, SystemTime};

use keystead_core::{IdentityMatch, KeyId, KeyStore, Operation, Result};

use super::record::RecordNames;
use super::register::Status;
use super::{ErasureReceipt, Fenced};

/// The result of checking a receipt against the stores of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReceiptCheck {
    /// The comparison of the receipt's store with the fence's.
    pub store: IdentityMatch,
    /// The state of the tombstone that the receipt names.
    pub tombstone: TombstoneMatch,
}

impl ReceiptCheck {
    /// Reports whether the receipt is of this store and a tombstone proves the erasure. What the
    /// receipt says of `existed`, `verified` and `finality` is not kept in a tombstone, so it is
    /// not proved.
    pub fn is_proved(&self) -> bool {
        self.store == IdentityMatch::Same && matches!(self.tombstone, TombstoneMatch::Standing | TombstoneMatch::Lifted)
    }
}

/// The state of the tombstone that a receipt names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TombstoneMatch {
    /// The user is erased, since the moment that the receipt says.
    Standing,
    /// The user was erased at the moment that the receipt says, and was allowed a new key after
    /// that. The user may have been erased again since.
    Lifted,
    /// The user was erased, but not at the moment that the receipt says.
    AnotherTime,
    /// There is no such tombstone.
    Missing,
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Compares a receipt with the identity of the keys' store and with the tombstones. Writes
    /// nothing.
    ///
    /// [`is_about`](Self::is_about) tells whether the receipt is about a user.
    ///
    /// # Errors
    /// [`Config`](keystead_core::ErrorKind::Config) if the store of the tombstones has no fence key:
    /// no erasure was ever recorded there. Those of [`KeyStore::get_key`] of that store.
    pub async fn check_receipt(&self, receipt: &ErasureReceipt) -> Result<ReceiptCheck> {
        self.register.fence_key_in_use(Operation::Get).await?;
        self.learn_identity().await;
        let store = self.keys.info().identity().compare(&receipt.store);
        let tombstone = match RecordNames::of_digits(&receipt.tombstone) {
            Some(names) => self.match_tombstone(&names, receipt.erased_at).await?,
            None => TombstoneMatch::Missing,
        };
        Ok(ReceiptCheck { store, tombstone })
    }

    /// Reports whether a receipt is about this user. Writes nothing.
    ///
    /// # Errors
    /// As for [`check_receipt`](Self::check_receipt).
    pub async fn is_about(&self, receipt: &ErasureReceipt, id: &KeyId) -> Result<bool> {
        let fence_key = self.register.fence_key_in_use(Operation::Get).await?;
        Ok(RecordNames::new(&fence_key, id).as_str() == receipt.tombstone)
    }

    async fn match_tombstone(&self, names: &RecordNames, erased_at: SystemTime) -> Result<TombstoneMatch> {
        let (last, is_erased) = match self.register.status(names, Operation::Get).await? {
            Status::Free { generations: 0 } => return Ok(TombstoneMatch::Missing),
            Status::Free { generations } => (generations, false),
            Status::Erased(erased) => (erased.generation, true),
        };
        let wanted = unix_seconds(erased_at);
        let mut standing_since = None;
        // From the last one back, as long as the moments are not earlier than the wanted one.
        for generation in (1..=last).rev() {
            let Some(since) = self.register.erased_since(names, generation).await? else { break };
            let since = unix_seconds(since);
            let standing_since = *standing_since.get_or_insert(since);
            if since == wanted {
                let is_standing = is_erased && since == standing_since;
                return Ok(if is_standing { TombstoneMatch::Standing } else { TombstoneMatch::Lifted });
            }
            if since < wanted {
                break;
            }
        }
        Ok(TombstoneMatch::AnotherTime)
    }
}

/// A receipt that was written down has whole seconds, a tombstone has milliseconds.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

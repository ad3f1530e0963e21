//! [`Fenced::check_receipt`]: compares a receipt with the stores.

use std::time::{Duration, SystemTime};

use keystead_core::{IdentityMatch, KeyId, KeyStore, Operation, Result};

use super::record::RecordNames;
use super::register::Status;
use super::{ErasureReceipt, Fenced};

/// The result of checking a receipt against the stores of a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ReceiptCheck {
    /// The result of comparing the store that the receipt names with the store of the keys.
    pub store: IdentityMatch,
    /// The state of the tombstone that the receipt names.
    pub tombstone: TombstoneMatch,
}

impl ReceiptCheck {
    /// Reports whether the receipt is for this store and a tombstone proves the erasure.
    ///
    /// It does not prove the receipt's `existed`, `verified` and `finality`, because tombstones do
    /// not contain them.
    pub fn is_proved(&self) -> bool {
        self.store == IdentityMatch::Same && matches!(self.tombstone, TombstoneMatch::Standing | TombstoneMatch::Lifted)
    }
}

/// The state of the tombstone that a receipt names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TombstoneMatch {
    /// The user has been erased since the moment that the receipt names.
    Standing,
    /// The user was erased at the moment that the receipt names, and was allowed a new key later.
    /// The user may have been erased again since.
    Lifted,
    /// The user was erased, but not at the moment that the receipt names.
    AnotherTime,
    /// There is no such tombstone.
    Missing,
}

impl<S: KeyStore, T: KeyStore> Fenced<S, T> {
    /// Compares a receipt with the identity of the store of the keys, and with the tombstones. It
    /// writes nothing.
    ///
    /// To find out whether the receipt is about a certain user, call [`is_about`](Self::is_about).
    ///
    /// # Errors
    /// - [`Config`](keystead_core::ErrorKind::Config) if the store of the tombstones has no fence
    ///   key, which means that no erasure was ever recorded there.
    /// - The errors of [`KeyStore::get_key`], from the store of the tombstones.
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

    /// Reports whether a receipt is about this user. It writes nothing.
    ///
    /// # Errors
    /// The errors of [`check_receipt`](Self::check_receipt).
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
        // From the last tombstone back, until one is older than the wanted moment.
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

/// Returns the whole seconds since 1970-01-01 UTC, because a serialized receipt has no fractions of
/// a second.
fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

//! Receipts, checked against the stores.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keystead_core::{ErrorKind, IdentityMatch, KeyId, KeyStore, KeyStoreExt};
use keystead_layers::{ErasureReceipt, Fenced, ReadOnly, TombstoneMatch};
use keystead_memory::MemoryStore;

/// The stores below the fence.
#[derive(Clone, Default)]
struct Below {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Below {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }

    /// A fence whose stores cannot be written to.
    fn reading_fence(&self) -> Fenced<ReadOnly<MemoryStore>, ReadOnly<MemoryStore>> {
        Fenced::builder(ReadOnly::new(self.keys.clone()), ReadOnly::new(self.tombstones.clone())).build().unwrap()
    }

    async fn check(&self, receipt: &ErasureReceipt) -> (IdentityMatch, TombstoneMatch, bool) {
        let check = self.reading_fence().check_receipt(receipt).await.unwrap();
        (check.store, check.tombstone, check.is_proved())
    }
}

fn id(id: &str) -> KeyId {
    KeyId::new(id).unwrap()
}

/// The receipt after it was written down and read again: with whole seconds.
fn written_down(receipt: &ErasureReceipt) -> ErasureReceipt {
    let mut receipt = receipt.clone();
    let since = receipt.erased_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    receipt.erased_at = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    receipt
}

#[tokio::test]
async fn a_receipt_is_proved_by_the_tombstone_that_it_names() {
    let below = Below::default();
    let receipt = written_down(&below.fence().erase(&id("alice")).await.unwrap());
    assert_eq!(below.check(&receipt).await, (IdentityMatch::Same, TombstoneMatch::Standing, true));
    // A second erasure of the same user proves the first one, too.
    below.fence().erase(&id("alice")).await.unwrap();
    assert_eq!(below.check(&receipt).await.1, TombstoneMatch::Standing);
    assert!(below.reading_fence().is_about(&receipt, &id("alice")).await.unwrap());
    assert!(!below.reading_fence().is_about(&receipt, &id("bob")).await.unwrap());
}

#[tokio::test]
async fn a_forged_receipt_is_not_proved() {
    let below = Below::default();
    let receipt = below.fence().erase(&id("alice")).await.unwrap();
    for digits in ["ab".repeat(32), "AB".repeat(32), "fence-key".to_owned(), String::new(), "\u{0}".to_owned()] {
        let mut forged = receipt.clone();
        forged.tombstone = digits;
        assert_eq!(below.check(&forged).await, (IdentityMatch::Same, TombstoneMatch::Missing, false));
    }
    let hour = Duration::from_secs(3600);
    for erased_at in [receipt.erased_at - hour, receipt.erased_at + hour] {
        let mut forged = receipt.clone();
        forged.erased_at = erased_at;
        assert_eq!(below.check(&forged).await, (IdentityMatch::Same, TombstoneMatch::AnotherTime, false));
    }
}

#[tokio::test]
async fn a_receipt_of_another_store_is_not_proved() {
    let below = Below::default();
    let receipt = below.fence().erase(&id("alice")).await.unwrap();
    let other = Below { keys: MemoryStore::new(), tombstones: below.tombstones.clone() };
    let (store, tombstone, is_proved) = other.check(&receipt).await;
    assert_ne!(store, IdentityMatch::Same);
    assert_eq!((tombstone, is_proved), (TombstoneMatch::Standing, false));
}

#[tokio::test]
async fn a_receipt_from_before_a_new_key_was_allowed_is_told_from_a_later_one() {
    let below = Below::default();
    let fence = below.fence();
    let first = fence.erase(&id("alice")).await.unwrap();
    fence.allow_new_key(&id("alice")).await.unwrap();
    assert_eq!(below.check(&first).await, (IdentityMatch::Same, TombstoneMatch::Lifted, true));
    // Into the next second, so that the two moments differ when they are written down.
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    let second = fence.erase(&id("alice")).await.unwrap();
    assert_eq!(below.check(&first).await.1, TombstoneMatch::Lifted);
    assert_eq!(below.check(&written_down(&second)).await.1, TombstoneMatch::Standing);
}

#[tokio::test]
async fn a_check_writes_nothing_and_refuses_a_store_without_tombstones() {
    let below = Below::default();
    let receipt = below.fence().erase(&id("alice")).await.unwrap();
    let empty = Below { keys: below.keys.clone(), tombstones: MemoryStore::new() };
    assert_eq!(empty.fence().check_receipt(&receipt).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(empty.fence().is_about(&receipt, &id("alice")).await.unwrap_err().kind(), ErrorKind::Config);
    let entries: Vec<KeyId> = empty.tombstones.list_keys().try_collect().await.unwrap();
    assert!(entries.is_empty());
    assert!(empty.keys.find_key(&id("alice")).await.unwrap().is_none());
}

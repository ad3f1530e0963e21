//! Receipts and their check against the stores.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use keystead_core::{ErrorKind, IdentityMatch, KeyId, KeyStore, KeyStoreExt};
use keystead_layers::{ErasureReceipt, Fenced, ReadOnly, TombstoneMatch};
use keystead_memory::MemoryStore;

/// The stores beneath the fence.
#[derive(Clone, Default)]
struct Fixture {
    keys: MemoryStore,
    tombstones: MemoryStore,
}

impl Fixture {
    fn fence(&self) -> Fenced<MemoryStore, MemoryStore> {
        Fenced::builder(self.keys.clone(), self.tombstones.clone()).build().unwrap()
    }

    /// Returns a fence whose stores cannot be written to.
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

/// Returns the receipt as it is after serialization, with times in whole seconds.
fn written_down(receipt: &ErasureReceipt) -> ErasureReceipt {
    let mut receipt = receipt.clone();
    let since = receipt.erased_at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
    receipt.erased_at = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    receipt
}

#[tokio::test]
async fn a_receipt_is_proved_by_the_tombstone_that_it_names() {
    let fixture = Fixture::default();
    let receipt = written_down(&fixture.fence().erase(&id("alice")).await.unwrap());
    assert_eq!(fixture.check(&receipt).await, (IdentityMatch::Same, TombstoneMatch::Standing, true));
    // A second erasure of the same user proves the first one, too.
    fixture.fence().erase(&id("alice")).await.unwrap();
    assert_eq!(fixture.check(&receipt).await.1, TombstoneMatch::Standing);
    assert!(fixture.reading_fence().is_about(&receipt, &id("alice")).await.unwrap());
    assert!(!fixture.reading_fence().is_about(&receipt, &id("bob")).await.unwrap());
}

#[tokio::test]
async fn a_forged_receipt_is_not_proved() {
    let fixture = Fixture::default();
    let receipt = fixture.fence().erase(&id("alice")).await.unwrap();
    for digits in ["ab".repeat(32), "AB".repeat(32), "fence-key".to_owned(), String::new(), "\u{0}".to_owned()] {
        let mut forged = receipt.clone();
        forged.tombstone = digits;
        assert_eq!(fixture.check(&forged).await, (IdentityMatch::Same, TombstoneMatch::Missing, false));
    }
    let hour = Duration::from_secs(3600);
    for erased_at in [receipt.erased_at - hour, receipt.erased_at + hour] {
        let mut forged = receipt.clone();
        forged.erased_at = erased_at;
        assert_eq!(fixture.check(&forged).await, (IdentityMatch::Same, TombstoneMatch::AnotherTime, false));
    }
}

#[tokio::test]
async fn a_receipt_of_another_store_is_not_proved() {
    let fixture = Fixture::default();
    let receipt = fixture.fence().erase(&id("alice")).await.unwrap();
    let other = Fixture { keys: MemoryStore::new(), tombstones: fixture.tombstones.clone() };
    let (store, tombstone, is_proved) = other.check(&receipt).await;
    assert_ne!(store, IdentityMatch::Same);
    assert_eq!((tombstone, is_proved), (TombstoneMatch::Standing, false));
}

#[tokio::test]
async fn a_receipt_from_before_a_new_key_was_allowed_differs_from_a_later_one() {
    let fixture = Fixture::default();
    let fence = fixture.fence();
    let first = fence.erase(&id("alice")).await.unwrap();
    fence.allow_new_key(&id("alice")).await.unwrap();
    assert_eq!(fixture.check(&first).await, (IdentityMatch::Same, TombstoneMatch::Lifted, true));
    // Until the next second, so that the two times differ in whole seconds.
    tokio::time::sleep(Duration::from_millis(1_001)).await;
    let second = fence.erase(&id("alice")).await.unwrap();
    assert_eq!(fixture.check(&first).await.1, TombstoneMatch::Lifted);
    assert_eq!(fixture.check(&written_down(&second)).await.1, TombstoneMatch::Standing);
}

#[tokio::test]
async fn a_check_writes_nothing_and_refuses_a_store_without_tombstones() {
    let fixture = Fixture::default();
    let receipt = fixture.fence().erase(&id("alice")).await.unwrap();
    let empty = Fixture { keys: fixture.keys.clone(), tombstones: MemoryStore::new() };
    assert_eq!(empty.fence().check_receipt(&receipt).await.unwrap_err().kind(), ErrorKind::Config);
    assert_eq!(empty.fence().is_about(&receipt, &id("alice")).await.unwrap_err().kind(), ErrorKind::Config);
    let entries: Vec<KeyId> = empty.tombstones.list_keys().try_collect().await.unwrap();
    assert!(entries.is_empty());
    assert!(empty.keys.find_key(&id("alice")).await.unwrap().is_none());
}

//! Sealed stores in a memory table: creation, rotation, damage and the lease.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_executor::block_on;
use futures_util::future::{FutureExt, join_all, ready};
use futures_util::{StreamExt, TryStreamExt};
use keystead_conformance::Fault;
use keystead_core::{
    Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result, SecretKey, async_trait,
};
use keystead_sealing::RootSecret;
use keystead_sealing::table::{KeyringItem, MemoryTable, RecordTable, SealedOptions, SealedStore, StoreId, Timer};

use faulty_table::FaultyTable;

mod faulty_table;

const LEASE: Duration = Duration::from_secs(30);

fn root(byte: u8) -> RootSecret {
    RootSecret::from_bytes([byte; 32])
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

/// A clock that stands still, except in pauses.
#[derive(Debug, Default)]
struct ManualTimer(AtomicU64);

impl ManualTimer {
    fn advance(&self, time: Duration) {
        self.0.fetch_add(time.as_millis() as u64, Ordering::SeqCst);
    }
}

#[async_trait]
impl Timer for ManualTimer {
    fn now(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    async fn sleep(&self, time: Duration) {
        self.advance(time);
    }
}

struct Fixture {
    table: FaultyTable,
    timer: Arc<ManualTimer>,
}

impl Fixture {
    fn new() -> Self {
        Self { table: FaultyTable::default(), timer: Arc::default() }
    }

    fn options(&self) -> SealedOptions {
        SealedOptions::new().lease(LEASE).timer(self.timer.clone())
    }

    async fn create(&self) -> SealedStore<FaultyTable> {
        self.options().create(self.table.clone(), root(1)).await.unwrap()
    }

    async fn open(&self, root: RootSecret) -> Result<SealedStore<FaultyTable>> {
        self.options().open(self.table.clone(), root).await
    }
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

#[test]
fn of_many_first_openers_one_creates() {
    block_on(async {
        let table = MemoryTable::new();
        let openers = (0..16).map(|_| SealedStore::open_or_create(table.clone(), root(1)));
        let stores: Vec<_> = join_all(openers).await.into_iter().map(Result::unwrap).collect();
        stores[0].put_key(&id("alice"), &key(1)).await.unwrap();
        for store in &stores {
            assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
            assert_eq!(store.info(), stores[0].info());
        }
        assert_eq!(kind(SealedStore::create(table, root(1)).await), ErrorKind::AlreadyExists);
    });
}

#[test]
fn opening_tells_no_store_from_a_wrong_root_and_from_damage() {
    block_on(async {
        let fixture = Fixture::new();
        assert_eq!(kind(fixture.open(root(1)).await), ErrorKind::Config);
        fixture.create().await;
        assert_eq!(kind(fixture.open(root(2)).await), ErrorKind::KeyUnavailable);
        assert_eq!(kind(fixture.open(RootSecret::passphrase("word")).await), ErrorKind::KeyUnavailable);
        let present = fixture.table.keyring().await.unwrap().unwrap();
        let mut item = present.clone();
        item.bytes[600] ^= 1;
        let damaged = KeyringItem::new(item.generation, item.oldest_writable_epoch, item.current_epoch, item.bytes);
        fixture.table.replace_keyring(&present, &damaged).await.unwrap();
        assert_eq!(kind(fixture.open(root(1)).await), ErrorKind::Corrupt);
    });
}

#[test]
fn no_keyring_is_made_for_records_or_a_store_that_lost_theirs() {
    block_on(async {
        let store_id = StoreId::from_bytes([1; 16]);
        let lost = FaultyTable::default();
        let item = KeyringItem::new(1, 1, 1, []);
        lost.create(&store_id, &item).await.unwrap();
        // An empty keyring is damage, not absence.
        assert_eq!(kind(SealedStore::open_or_create(lost, root(1)).await), ErrorKind::Corrupt);

        let with_record = FaultyTable::default();
        let donor = SealedStore::create(with_record.clone(), root(1)).await.unwrap();
        donor.put_key(&id("alice"), &key(1)).await.unwrap();
        let with_store_id = FaultyTable::default();
        with_store_id.create(&store_id, &item).await.unwrap();
        for table in [with_record.without_keyring(), with_store_id.without_keyring()] {
            assert_eq!(kind(SealedStore::open(table.clone(), root(1)).await), ErrorKind::KeyUnavailable);
            assert_eq!(kind(SealedStore::create(table.clone(), root(1)).await), ErrorKind::KeyUnavailable);
            assert_eq!(kind(SealedStore::open_or_create(table, root(1)).await), ErrorKind::KeyUnavailable);
        }
    });
}

#[test]
fn a_creation_whose_answer_was_lost_is_settled() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.table.inject(Some(Operation::Open), Fault::ResetAfterApply, 1);
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        assert_eq!(fixture.open(root(1)).await.unwrap().get_key(&id("alice")).await.unwrap(), key(1));

        let fixture = Fixture::new();
        fixture.table.inject(Some(Operation::Open), Fault::Silent, 1);
        let options = fixture.options();
        let silent = fixture.table.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let answer = runtime.block_on(options.create(silent, root(1)));
        assert_eq!(answer.unwrap_err().effect(), Effect::Unknown);
    });
}

#[test]
fn a_lease_out_of_bounds_is_refused_before_any_effect() {
    block_on(async {
        for lease in [Duration::ZERO, Duration::from_millis(9), Duration::from_secs(3601), Duration::MAX] {
            let table = MemoryTable::new();
            let refused = SealedOptions::new().lease(lease).create(table.clone(), root(1)).await;
            assert_eq!(kind(refused), ErrorKind::Config);
            assert_eq!(table.store_id().await.unwrap(), None);
        }
    });
}

#[test]
fn a_rotation_keeps_every_key_and_destroys_the_old_root() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        let other = fixture.open(root(1)).await.unwrap();
        let ids: Vec<KeyId> = (0..20).map(|number| id(&format!("user{number}"))).collect();
        for (number, id) in ids.iter().enumerate() {
            store.put_key(id, &key(number as u8)).await.unwrap();
        }
        let before = rows(&fixture.table).await;
        let mut last = None;
        store.rotate(root(2), |progress| last = Some(progress)).await.unwrap();
        assert_eq!(last.map(|progress| (progress.pass, progress.done)), Some((2, 20)));

        let after = rows(&fixture.table).await;
        assert!(before.iter().zip(&after).all(|(before, after)| before.0 == after.0 && before.1 != after.1));
        assert!(are_of_one_later_epoch(&after));
        for (number, id) in ids.iter().enumerate() {
            assert_eq!(store.get_key(id).await.unwrap(), key(number as u8));
        }
        assert_eq!(kind(fixture.open(root(1)).await), ErrorKind::KeyUnavailable);
        assert_eq!(fixture.open(root(2)).await.unwrap().get_keys(&ids).await.len(), 20);
        // The other handle has the old root secret, and may not go on.
        assert_eq!(kind(other.get_key(&ids[0]).await), ErrorKind::KeyUnavailable);
        assert_eq!(kind(other.put_key(&id("new"), &key(1)).await), ErrorKind::KeyUnavailable);
        assert_eq!(kind(other.check().await), ErrorKind::KeyUnavailable);
    });
}

#[test]
fn other_handles_follow_a_rotation_that_keeps_the_root() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        let other = fixture.open(root(1)).await.unwrap();
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        store.rotate(None, |_| {}).await.unwrap();
        assert_eq!(other.get_key(&id("alice")).await.unwrap(), key(1));
        other.put_key(&id("bob"), &key(2)).await.unwrap();
        let ids: Vec<KeyId> = other.list_keys().try_collect().await.unwrap();
        assert_eq!(ids.len(), 2);
        let report = other.verify(|_| {}).await.unwrap();
        assert!(report.is_intact() && report.intact == 2 && !report.in_rotation);
    });
}

#[test]
fn a_rewrap_changes_the_root_and_no_record() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        let before = rows(&fixture.table).await;
        store.rewrap(RootSecret::passphrase("correct horse")).await.unwrap();
        assert_eq!(rows(&fixture.table).await, before);
        assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
        assert_eq!(kind(fixture.open(root(1)).await), ErrorKind::KeyUnavailable);
        let reopened = fixture.open(RootSecret::passphrase("correct horse")).await.unwrap();
        assert_eq!(reopened.get_key(&id("alice")).await.unwrap(), key(1));
        assert_eq!(kind(store.rewrap(RootSecret::passphrase("")).await), ErrorKind::Config);
    });
}

#[test]
fn a_rotation_that_is_cut_off_anywhere_loses_nothing_and_is_resumed() {
    block_on(async {
        // The calls of a rotation that change the table: three keyrings, and ten records.
        for allowed in 0..14 {
            let fixture = Fixture::new();
            let store = fixture.create().await;
            for number in 0..10 {
                store.put_key(&id(&format!("user{number}")), &key(number)).await.unwrap();
            }
            let left = AtomicU64::new(allowed);
            let table = fixture.table.with_hook(move |operation, is_write| {
                let counts = is_write && operation == Operation::Rotate;
                let is_left =
                    !counts || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
                let failure = || Error::new(ErrorKind::Unavailable, operation, "memory-table");
                ready(if is_left { Ok(()) } else { Err(failure()) }).boxed()
            });
            let rotating = fixture.options().open(table, root(1)).await.unwrap();
            let outcome = rotating.rotate(root(2), |_| {}).await;
            let is_done = allowed >= 13;
            assert_eq!(outcome.is_ok(), is_done, "cut off after {allowed} changes");

            let present = if is_done { root(2) } else { root(1) };
            let store = fixture.open(present).await.unwrap();
            assert_eq!(store.verify(|_| {}).await.unwrap().intact, 10);
            store.rotate(root(3), |_| {}).await.unwrap();
            let store = fixture.open(root(3)).await.unwrap();
            for number in 0..10 {
                assert_eq!(store.get_key(&id(&format!("user{number}"))).await.unwrap(), key(number));
            }
            assert!(!store.verify(|_| {}).await.unwrap().in_rotation);
        }
    });
}

#[test]
fn of_two_rotations_at_once_one_refuses() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        let other = fixture.open(root(1)).await.unwrap();
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        // The other one resumes this rotation before its first record, and ends it.
        let seen = AtomicU64::new(0);
        let hooked = fixture.table.with_hook(move |operation, is_write| {
            let is_first_record =
                is_write && operation == Operation::Rotate && seen.fetch_add(1, Ordering::SeqCst) == 2;
            let other = other.clone();
            async move { if is_first_record { other.rotate(root(3), |_| {}).await } else { Ok(()) } }.boxed()
        });
        let loser = fixture.options().open(hooked, root(1)).await.unwrap();
        assert_eq!(kind(loser.rotate(root(2), |_| {}).await), ErrorKind::Conflict);
        let winner = fixture.open(root(3)).await.unwrap();
        assert_eq!(winner.get_key(&id("alice")).await.unwrap(), key(1));
        assert_eq!(kind(fixture.open(root(2)).await), ErrorKind::KeyUnavailable);
    });
}

#[test]
fn damage_is_reported_and_keeps_the_old_key() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        for number in 0..5 {
            store.put_key(&id(&format!("user{number}")), &key(number)).await.unwrap();
        }
        let damaged = id("user3");
        let row = store.row_key(&damaged);
        let mut record = fixture.table.read(&[row]).await.unwrap().pop().flatten().unwrap();
        let whole = record.clone();
        record[100] ^= 1;
        fixture.table.replace_if(&row, &whole, &record).await.unwrap();

        assert_eq!(kind(store.get_key(&damaged).await), ErrorKind::Corrupt);
        let items: Vec<_> = store.list_keys().collect().await;
        assert_eq!(items.iter().filter(|item| item.is_err()).count(), 1);
        assert_eq!(items.len(), 5);
        let report = store.verify(|_| {}).await.unwrap();
        assert_eq!((report.intact, report.damaged.as_slice()), (4, [row].as_slice()));

        let refused = store.rotate(root(2), |_| {}).await.unwrap_err();
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Corrupt, Effect::Unknown));
        let store = fixture.open(root(2)).await.unwrap();
        assert!(store.verify(|_| {}).await.unwrap().in_rotation);
        // What is restored is not lost.
        fixture.table.replace_if(&row, &record, &whole).await.unwrap();
        assert_eq!(store.get_key(&damaged).await.unwrap(), key(3));
        fixture.table.replace_if(&row, &whole, &record).await.unwrap();
        assert_eq!(store.delete_damaged(&[row, store.row_key(&id("user1"))]).await.unwrap(), 1);
        store.rotate(root(3), |_| {}).await.unwrap();
        assert_eq!(kind(store.get_key(&damaged).await), ErrorKind::NotFound);
        assert_eq!(store.get_key(&id("user1")).await.unwrap(), key(1));
    });
}

#[test]
fn a_record_of_an_unknown_epoch_is_damage() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        let row = store.row_key(&id("alice"));
        let whole = fixture.table.read(&[row]).await.unwrap().pop().flatten().unwrap();
        let mut record = whole.clone();
        record[4] = 200;
        fixture.table.replace_if(&row, &whole, &record).await.unwrap();
        assert_eq!(kind(store.get_key(&id("alice")).await), ErrorKind::Corrupt);
        assert_eq!(kind(store.put_key(&id("alice"), &key(2)).await), ErrorKind::Corrupt);
        assert_eq!(store.verify(|_| {}).await.unwrap().damaged, [row]);
        // A later keyring, from a backup, may open it.
        assert_eq!(store.delete_damaged(&[row]).await.unwrap(), 0);
        store.delete_key(&id("alice")).await.unwrap();
        store.put_key(&id("alice"), &key(2)).await.unwrap();
    });
}

#[test]
fn nothing_is_sealed_after_the_lease_and_reads_go_on() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        fixture.table.inject(Some(Operation::Check), Fault::ServerError, 1_000);
        fixture.timer.advance(LEASE * 9 / 10);
        store.put_key(&id("bob"), &key(2)).await.unwrap();
        fixture.timer.advance(LEASE / 5);
        let refused = store.put_key(&id("carol"), &key(3)).await.unwrap_err();
        assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
        assert_eq!(refused.operation(), Operation::Put);
        assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
        assert_eq!(kind(store.get_key(&id("carol")).await), ErrorKind::NotFound);
        fixture.table.clear();
        store.put_key(&id("carol"), &key(3)).await.unwrap();
    });
}

#[test]
fn a_restored_table_is_not_written_by_a_handle_of_before() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        let backup = fixture.table.keyring().await.unwrap().unwrap();
        store.rotate(None, |_| {}).await.unwrap();
        let present = fixture.table.keyring().await.unwrap().unwrap();
        fixture.table.replace_keyring(&present, &backup).await.unwrap();
        assert_eq!(kind(store.check().await), ErrorKind::KeyUnavailable);
        fixture.timer.advance(LEASE * 2);
        assert_eq!(kind(store.put_key(&id("bob"), &key(2)).await), ErrorKind::KeyUnavailable);
    });
}

#[test]
fn a_keyring_of_another_history_is_not_replaced() {
    block_on(async {
        let fixture = Fixture::new();
        fixture.create().await;
        let present = fixture.table.keyring().await.unwrap().unwrap();
        let mut other = present.clone();
        other.bytes[700] ^= 1;
        assert!(!fixture.table.replace_keyring(&other, &other).await.unwrap());
        assert_eq!(fixture.table.keyring().await.unwrap().unwrap(), present);
    });
}

#[test]
fn a_handle_of_before_a_restore_writes_nothing_that_others_cannot_open() {
    block_on(async {
        let fixture = Fixture::new();
        let store = fixture.create().await;
        store.put_key(&id("alice"), &key(1)).await.unwrap();
        let backup = fixture.table.keyring().await.unwrap().unwrap();
        let records = rows(&fixture.table).await;
        store.rotate(None, |_| {}).await.unwrap();
        // The table is restored, and rotated again by another process, all within a lease.
        let present = fixture.table.keyring().await.unwrap().unwrap();
        fixture.table.replace_keyring(&present, &backup).await.unwrap();
        let (row, record) = &records[0];
        fixture.table.delete(&[*row]).await.unwrap();
        fixture.table.insert(row, record, 1).await.unwrap();
        let other = fixture.open(root(1)).await.unwrap();
        other.rotate(None, |_| {}).await.unwrap();
        // Its keyring has the same generation as the other's, and another key.
        drop(store.put_key(&id("bob"), &key(2)).await);
        drop(store.put_key(&id("alice"), &key(3)).await);
        let report = fixture.open(root(1)).await.unwrap().verify(|_| {}).await.unwrap();
        assert!(report.is_intact(), "a record that nobody else can open");
    });
}

#[test]
fn a_writer_that_was_stopped_for_a_whole_rotation_writes_nothing_old() {
    block_on(async {
        for creates in [true, false] {
            let fixture = Fixture::new();
            let store = fixture.create().await;
            store.put_key(&id("bob"), &key(1)).await.unwrap();
            // This handle stops between the check of its lease and the sending of its write.
            let is_rotated = Arc::new(AtomicBool::new(false));
            let rotator = store.clone();
            let hooked = fixture.table.with_hook(move |_, is_write| {
                let rotator = rotator.clone();
                let rotates = is_write && !is_rotated.swap(is_write, Ordering::SeqCst);
                async move { if rotates { rotator.rotate(None, |_| {}).await } else { Ok(()) } }.boxed()
            });
            let stopped = fixture.options().open(hooked, root(1)).await.unwrap();
            if creates {
                stopped.create_key(&id("alice"), &key(2)).await.unwrap();
            } else {
                stopped.put_key(&id("bob"), &key(2)).await.unwrap();
            }
            let reopened = fixture.open(root(1)).await.unwrap();
            let report = reopened.verify(|_| {}).await.unwrap();
            assert!(report.is_intact() && !report.in_rotation);
            let written = id(if creates { "alice" } else { "bob" });
            assert_eq!(reopened.get_key(&written).await.unwrap(), key(2));
            assert!(are_of_one_later_epoch(&rows(&fixture.table).await));
        }
    });
}

/// Reports whether all records are of the same epoch, and that is not the first one.
fn are_of_one_later_epoch(rows: &[(keystead_sealing::RowKey, Vec<u8>)]) -> bool {
    let mut prefixes = rows.iter().map(|(_, record)| &record[..5]);
    let first = prefixes.next().unwrap();
    first != [1, 0, 0, 0, 1] && prefixes.all(|prefix| prefix == first)
}

async fn rows(table: &FaultyTable) -> Vec<(keystead_sealing::RowKey, Vec<u8>)> {
    table.rows.page(None, 1_000).await.unwrap()
}

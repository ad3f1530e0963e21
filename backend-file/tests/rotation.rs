//! A new root secret: who opens what before, meanwhile and afterwards, and that a rotation goes on
//! where it was cut off.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use futures_executor::block_on;
use keystead_core::{BoxError, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::{FileStore, RootProvider, RootSecret, RowKey};
use rusqlite::Connection;
use tempfile::TempDir;

/// Enough for several pages of a rotation.
const MANY: usize = 1_300;

type Keys = BTreeMap<KeyId, SecretKey>;

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key(len: usize) -> SecretKey {
    SecretKey::generate(len).unwrap()
}

fn root(number: u8) -> RootSecret {
    RootSecret::from_bytes([number; 32])
}

struct Fixture {
    directory: TempDir,
    path: PathBuf,
    store: FileStore,
    keys: Keys,
}

impl Fixture {
    fn new(root: RootSecret, users: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let store = block_on(FileStore::create(&path, root)).unwrap();
        let keys: Keys = (0..users).map(|n| (id(&format!("user-{n}")), key(1 + n * 37 % 3072))).collect();
        let puts = keys.iter().map(|(id, key)| store.put_key(id, key));
        block_on(futures_util::future::try_join_all(puts)).unwrap();
        Self { directory, path, store, keys }
    }

    fn rotate(&self, root: RootSecret) {
        block_on(self.store.rotate(root, |_| {})).unwrap();
    }

    /// The first bytes of all records, each once: suite and epoch.
    fn prefixes(&self) -> Vec<Vec<u8>> {
        let tool = Connection::open(&self.path).unwrap();
        let sql = "SELECT DISTINCT substr(bytes, 1, 5) FROM cells WHERE substr(part, 33) = x'00' AND part > \
            zeroblob(33) ORDER BY 1";
        let mut statement = tool.prepare(sql).unwrap();
        let prefixes = statement.query_map([], |row| row.get(0)).unwrap();
        prefixes.map(Result::unwrap).collect()
    }
}

fn opens(path: &Path, root: RootSecret, keys: &Keys) {
    let store = block_on(FileStore::open(path, root)).unwrap();
    for (id, key) in keys {
        assert_eq!(&block_on(store.get_key(id)).unwrap(), key);
    }
    let report = block_on(store.verify(|_| {})).unwrap();
    assert!(report.is_intact());
    assert_eq!(report.intact, keys.len() as u64);
    block_on(store.close()).unwrap();
}

fn is_refused(path: &Path, root: RootSecret) {
    let error = block_on(FileStore::open(path, root)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
}

/// Keeps the secrets that it makes by number.
#[derive(Debug, Default)]
struct Vault(std::sync::Mutex<Vec<SecretKey>>);

impl RootProvider for Vault {
    fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError> {
        let mut secrets = self.0.lock().unwrap();
        let secret = SecretKey::generate(32)?;
        secrets.push(secret.clone());
        Ok((secret, vec![secrets.len() as u8 - 1]))
    }

    fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError> {
        Ok(self.0.lock().unwrap()[usize::from(reference[0])].clone())
    }
}

#[test]
fn every_kind_of_root_secret_gives_way_to_every_other() {
    let vault = Arc::new(Vault::default());
    let roots = [
        root(1),
        RootSecret::passphrase("first"),
        RootSecret::passphrase("second"),
        root(2),
        RootSecret::provider(vault.clone()),
        RootSecret::provider(vault),
        RootSecret::passphrase("third"),
        root(3),
        root(3),
    ];
    let fixture = Fixture::new(roots[0].clone(), 20);
    for (number, pair) in roots.windows(2).enumerate() {
        let [old, new] = pair else { unreachable!() };
        fixture.rotate(new.clone());
        assert_eq!(fixture.prefixes(), [[1, 0, 0, 0, number as u8 + 2]]);
        opens(&fixture.path, new.clone(), &fixture.keys);
        if number < 4 {
            is_refused(&fixture.path, old.clone());
        }
        // The handle that rotated goes on.
        let alice = id("alice");
        let key = key(32);
        block_on(fixture.store.put_key(&alice, &key)).unwrap();
        assert_eq!(block_on(fixture.store.get_key(&alice)).unwrap(), key);
        block_on(fixture.store.delete_key(&alice)).unwrap();
    }
}

#[test]
fn an_old_copy_opens_with_the_old_root_secret_in_every_part_and_with_the_new_one_in_none() {
    let fixture = Fixture::new(root(1), 50);
    let copy = fixture.directory.path().join("copies/old.db");
    block_on(fixture.store.backup(&copy)).unwrap();
    fixture.rotate(root(2));
    is_refused(&copy, root(2));
    opens(&copy, root(1), &fixture.keys);
    is_refused(&fixture.path, root(1));
    opens(&fixture.path, root(2), &fixture.keys);
}

#[test]
fn progress_is_told_page_by_page_up_to_the_end() {
    let fixture = Fixture::new(root(1), MANY);
    let mut told = Vec::new();
    block_on(fixture.store.rotate(root(2), |progress| told.push((progress.done, progress.total)))).unwrap();
    assert!(told.len() > 2);
    assert!(told.is_sorted_by(|earlier, later| earlier.0 < later.0));
    assert_eq!(told.last(), Some(&(MANY as u64, MANY as u64)));
}

/// Begins a rotation and drops it after its first page.
fn begin_and_drop(store: &FileStore, root: RootSecret) {
    let told = AtomicBool::new(false);
    let waker = Waker::noop();
    let mut rotation = pin!(store.rotate(root, |_| told.store(true, Ordering::Relaxed)));
    while !told.load(Ordering::Relaxed) {
        assert!(rotation.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        std::thread::yield_now();
    }
}

#[test]
fn a_rotation_that_was_cut_off_is_ended_by_the_next_one_to_the_same_root_secret() {
    for new_root in [root(2), RootSecret::passphrase("new")] {
        let fixture = Fixture::new(root(1), MANY);
        begin_and_drop(&fixture.store, new_root.clone());
        assert!(block_on(fixture.store.verify(|_| {})).unwrap().in_rotation);
        assert!(block_on(fixture.store.is_in_rotation()).unwrap());
        block_on(fixture.store.close()).unwrap();
        is_refused(&fixture.path, root(1));

        let store = block_on(FileStore::open(&fixture.path, new_root.clone())).unwrap();
        assert!(fixture.prefixes().len() > 1, "nothing was left to do");
        block_on(store.rotate(new_root.clone(), |_| {})).unwrap();
        assert!(!block_on(store.verify(|_| {})).unwrap().in_rotation);
        assert!(!block_on(store.is_in_rotation()).unwrap());
        assert_eq!(fixture.prefixes(), [[1, 0, 0, 0, 2]]);
        opens(&fixture.path, new_root, &fixture.keys);
    }
}

#[test]
fn a_rotation_to_a_further_root_secret_ends_one_that_was_cut_off() {
    let fixture = Fixture::new(root(1), MANY);
    begin_and_drop(&fixture.store, root(2));
    fixture.rotate(root(3));
    assert_eq!(fixture.prefixes(), [[1, 0, 0, 0, 3]]);
    is_refused(&fixture.path, root(2));
    opens(&fixture.path, root(3), &fixture.keys);
}

#[test]
fn rotations_that_never_end_are_refused_before_there_are_too_many() {
    let fixture = Fixture::new(root(0), MANY);
    for number in 1..16 {
        begin_and_drop(&fixture.store, root(number));
    }
    let error = block_on(fixture.store.rotate(root(99), |_| {})).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::QuotaExceeded, Effect::NotApplied));
    assert_eq!(error.operation(), Operation::Rotate);
    fixture.rotate(root(15));
    fixture.rotate(root(99));
    opens(&fixture.path, root(99), &fixture.keys);
}

#[test]
fn a_root_secret_that_cannot_be_used_changes_nothing() {
    let fixture = Fixture::new(root(1), 3);
    let error = block_on(fixture.store.rotate(RootSecret::passphrase(""), |_| {})).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
    opens(&fixture.path, root(1), &fixture.keys);
}

#[test]
fn two_rotations_at_once_leave_one_of_the_two_in_force() {
    let fixture = Fixture::new(root(1), 300);
    let other = block_on(FileStore::open(&fixture.path, root(1))).unwrap();
    let outcomes = std::thread::scope(|scope| {
        let one = scope.spawn(|| block_on(fixture.store.rotate(root(2), |_| {})));
        let two = scope.spawn(|| block_on(other.rotate(root(3), |_| {})));
        [one.join().unwrap(), two.join().unwrap()]
    });
    let [one, two] = outcomes;
    // Whoever came second met a root secret that it does not have.
    let (winner, loser) = if one.is_ok() { (root(2), two) } else { (root(3), one) };
    let refusal = loser.unwrap_err();
    assert_eq!((refusal.kind(), refusal.effect()), (ErrorKind::KeyUnavailable, Effect::NotApplied));
    opens(&fixture.path, winner, &fixture.keys);
}

#[test]
fn reading_and_writing_go_on_during_a_rotation() {
    let fixture = Fixture::new(root(1), MANY);
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            for (id, key) in fixture.keys.iter().cycle() {
                assert_eq!(&block_on(fixture.store.get_key(id)).unwrap(), key);
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let writer = scope.spawn(|| {
            let mut written = Keys::new();
            while !stop.load(Ordering::Relaxed) {
                let id = id(&format!("new-{}", written.len() % 50));
                let key = key(300);
                block_on(fixture.store.put_key(&id, &key)).unwrap();
                written.insert(id, key);
            }
            written
        });
        for number in 2..6 {
            fixture.rotate(root(number));
        }
        stop.store(true, Ordering::Relaxed);
        reader.join().unwrap();
        writer.join().unwrap()
    });
    assert!(!written.is_empty());
    assert_eq!(fixture.prefixes(), [[1, 0, 0, 0, 5]]);
    let all: Keys = fixture.keys.clone().into_iter().chain(written).collect();
    opens(&fixture.path, root(5), &all);
}

#[test]
fn a_handle_with_the_old_root_secret_writes_nothing_that_nobody_can_open() {
    let fixture = Fixture::new(root(1), 300);
    let old = block_on(FileStore::open(&fixture.path, root(1))).unwrap();
    let stop = AtomicBool::new(false);
    let written = std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut written = Keys::new();
            for number in 0.. {
                let id = id(&format!("old-{number}"));
                let key = key(32);
                match block_on(old.put_key(&id, &key)) {
                    Ok(()) => drop(written.insert(id, key)),
                    Err(e) => assert_eq!((e.kind(), e.effect()), (ErrorKind::KeyUnavailable, Effect::NotApplied)),
                }
                if stop.load(Ordering::Relaxed) {
                    return written;
                }
            }
            unreachable!()
        });
        fixture.rotate(root(2));
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap()
    });
    let all: Keys = fixture.keys.clone().into_iter().chain(written).collect();
    opens(&fixture.path, root(2), &all);
}

#[test]
fn a_damaged_record_keeps_the_old_epoch_and_is_left_as_it_is() {
    let mut fixture = Fixture::new(root(1), 40);
    let victim = id("user-7");
    let row = fixture.store.row_key(&victim);
    let damage = "UPDATE cells SET bytes = substr(bytes, 1, 200) || zeroblob(56) WHERE substr(part, 1, 32) = ?1";
    Connection::open(&fixture.path).unwrap().execute(damage, [row.as_bytes()]).unwrap();
    let error = block_on(fixture.store.rotate(root(2), |_| {})).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Corrupt, Effect::Unknown));
    assert!(format!("{error:?}").contains("new root secret opens the store already"), "{error:?}");

    is_refused(&fixture.path, root(1));
    let report = block_on(fixture.store.verify(|_| {})).unwrap();
    assert_eq!((report.intact, report.damaged, report.in_rotation), (39, vec![row], true));
    assert_eq!(block_on(fixture.store.get_key(&victim)).unwrap_err().kind(), ErrorKind::Corrupt);

    block_on(fixture.store.delete_key(&victim)).unwrap();
    fixture.rotate(root(2));
    fixture.keys.remove(&victim);
    opens(&fixture.path, root(2), &fixture.keys);
}

#[test]
fn a_record_that_no_id_leads_to_can_be_deleted_by_its_row_so_that_the_rotation_ends() {
    let mut fixture = Fixture::new(root(1), 40);
    let row = fixture.store.row_key(&id("user-0"));
    let mut moved = *row.as_bytes();
    moved[0] ^= 1;
    let change = "UPDATE cells SET part = CAST(?2 || substr(part, 33) AS BLOB) WHERE substr(part, 1, 32) = ?1";
    Connection::open(&fixture.path).unwrap().execute(change, [row.as_bytes(), &moved]).unwrap();
    fixture.keys.remove(&id("user-0"));
    assert_eq!(block_on(fixture.store.rotate(root(2), |_| {})).unwrap_err().kind(), ErrorKind::Corrupt);
    let damaged = block_on(fixture.store.verify(|_| {})).unwrap().damaged;
    // Its own row is missing, of which the chain knows the beginning.
    let mut missing = [0; 32];
    missing[..8].copy_from_slice(&row.as_bytes()[..8]);
    let mut expected = [moved, missing].map(RowKey::from_bytes);
    expected.sort_unstable();
    let mut rows = damaged.clone();
    // The link of a cell is bound to its key, so that of the one that was renamed is damaged, too. It
    // counts if the cell comes where the chain may lead.
    rows.retain(|row| row.as_bytes()[8..] != [255; 24]);
    rows.sort_unstable();
    assert_eq!(rows, expected);
    assert_eq!(block_on(fixture.store.delete_damaged(&damaged)).unwrap(), 2);
    assert!(block_on(fixture.store.verify(|_| {})).unwrap().is_intact());
    assert_eq!(block_on(fixture.store.get_key(&id("user-0"))).unwrap_err().kind(), ErrorKind::NotFound);
    fixture.rotate(root(2));
    opens(&fixture.path, root(2), &fixture.keys);
}

#[test]
fn an_older_keyring_put_back_under_an_open_store_is_refused_before_anything_is_written() {
    let fixture = Fixture::new(root(1), 3);
    let tool = Connection::open(&fixture.path).unwrap();
    let old: Vec<u8> = tool.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap();
    fixture.rotate(root(2));
    tool.execute("UPDATE keyring SET bytes = ?1 WHERE number = 1", [old]).unwrap();
    let error = block_on(fixture.store.put_key(&id("alice"), &key(32))).unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert_eq!(block_on(fixture.store.check()).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(block_on(fixture.store.rotate(root(3), |_| {})).unwrap_err().kind(), ErrorKind::Unavailable);
}

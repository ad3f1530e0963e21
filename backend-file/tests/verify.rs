//! Verifying: every record is read, every damaged one is told by its row, nothing is changed.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileOptions, FileStore, RootSecret, RowKey};
use rusqlite::{Connection, params};
use tempfile::TempDir;

const USERS: usize = 1_200;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: FileStore,
    ids: Vec<KeyId>,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn open(path: &Path) -> FileStore {
    block_on(FileStore::open_or_create(path, root())).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let store = open(&path);
        let ids: Vec<KeyId> = (0..USERS).map(|number| KeyId::new(format!("user-{number}")).unwrap()).collect();
        let keys: Vec<SecretKey> = (0..USERS).map(|n| SecretKey::generate(1 + n % 700).unwrap()).collect();
        let puts = ids.iter().zip(&keys).map(|(id, key)| store.put_key(id, key));
        block_on(futures_util::future::try_join_all(puts)).unwrap();
        Self { _directory: directory, path, store, ids }
    }
}

#[test]
fn a_whole_store_is_intact_and_progress_reaches_the_end() {
    let fixture = Fixture::new();
    let mut told = Vec::new();
    let report = block_on(fixture.store.verify(|progress| told.push((progress.done, progress.total)))).unwrap();
    assert!(report.is_intact() && !report.in_rotation);
    assert_eq!(report.intact, USERS as u64);
    assert!(told.len() > 2);
    assert_eq!(told.last(), Some(&(USERS as u64, USERS as u64)));
}

#[test]
fn an_empty_store_is_intact() {
    let directory = tempfile::tempdir().unwrap();
    let report = block_on(open(&directory.path().join("keys.db")).verify(|_| {})).unwrap();
    assert!(report.is_intact());
    assert_eq!(report.intact, 0);
}

#[test]
fn damaged_records_are_told_by_their_rows_and_left_alone() {
    let fixture = Fixture::new();
    let tool = Connection::open(&fixture.path).unwrap();
    let row = |number: usize| fixture.store.row_key(&fixture.ids[number]);
    let part_0 = |number| [row(number).as_ref(), &[0]].concat();
    // A flipped bit, a record in pieces, one under another's row, one whose row key was changed.
    let flip = "UPDATE cells SET bytes = substr(bytes, 1, 99) || x'00' || substr(bytes, 101) WHERE part = ?1";
    tool.execute(flip, [part_0(1)]).unwrap();
    tool.execute("UPDATE cells SET bytes = x'01' WHERE part = ?1", [part_0(2)]).unwrap();
    let theirs: Vec<u8> =
        tool.query_row("SELECT bytes FROM cells WHERE part = ?1", [part_0(4)], |row| row.get(0)).unwrap();
    tool.execute("UPDATE cells SET bytes = ?2 WHERE part = ?1", params![part_0(3), theirs]).unwrap();
    let mut moved = *row(5).as_bytes();
    moved[20] ^= 1;
    let change = "UPDATE cells SET part = CAST(?2 || substr(part, 33) AS BLOB) WHERE substr(part, 1, 32) = ?1";
    tool.execute(change, params![row(5).as_bytes(), moved]).unwrap();
    // And one that is of another type, as a flipped bit in the cell's header makes it.
    tool.execute("UPDATE cells SET part = CAST(part AS TEXT) WHERE part = ?1", [part_0(6)]).unwrap();

    let cells = || -> i64 { tool.query_row("SELECT count(*) FROM cells", [], |row| row.get(0)).unwrap() };
    let before = cells();
    let report = block_on(fixture.store.verify(|_| {})).unwrap();
    let mut missing = [0; 32];
    missing[..8].copy_from_slice(&row(6).as_bytes()[..8]);
    // The link of a cell is bound to its key, so that of the one that was renamed is damaged, too.
    let mut behind = [255; 32];
    behind[..8].copy_from_slice(&moved[..8]);
    let [head, moved, behind, missing] = [[0; 32], moved, behind, missing].map(RowKey::from_bytes);
    let mut damaged = vec![head, row(1), row(2), row(3), moved, behind, missing];
    damaged.sort_unstable();
    assert_eq!(report.damaged, damaged);
    assert_eq!(report.intact, USERS as u64 - 5);
    assert!(!report.is_intact());
    assert_eq!(cells(), before);

    // Only the damaged ones of the named rows are deleted.
    assert_eq!(block_on(fixture.store.delete_damaged(&[row(1), row(7), moved])).unwrap(), 2);
    assert_eq!(block_on(fixture.store.delete_damaged(&[row(1), head])).unwrap(), 0);
    assert_eq!(cells(), before - 2);
    let report = block_on(fixture.store.verify(|_| {})).unwrap();
    assert_eq!((report.intact, report.damaged.len()), (USERS as u64 - 5, 4));
    assert!(block_on(fixture.store.find_key(&fixture.ids[7])).unwrap().is_some());
}

#[test]
fn giving_up_damaged_records_closes_the_gap_although_the_next_cell_is_damaged() {
    let fixture = Fixture::new();
    let tool = Connection::open(&fixture.path).unwrap();
    let mut rows: Vec<_> = fixture.ids.iter().map(|id| fixture.store.row_key(id)).collect();
    rows.sort_unstable();
    let bounds = |row: RowKey| [[row.as_ref(), &[0]].concat(), [row.as_ref(), &[u8::MAX]].concat()];
    tool.execute("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2", bounds(rows[500])).unwrap();
    tool.execute("UPDATE cells SET next = x'00' WHERE part BETWEEN ?1 AND ?2", bounds(rows[501])).unwrap();

    let report = block_on(fixture.store.verify(|_| {})).unwrap();
    // One record is missing, and the other is whole: what is behind it may be missing, too.
    assert_eq!((report.intact, report.damaged.len()), (USERS as u64 - 1, 2));
    assert_eq!(block_on(fixture.store.delete_damaged(&report.damaged)).unwrap(), 2);
    let report = block_on(fixture.store.verify(|_| {})).unwrap();
    assert!(report.is_intact(), "{report:?}");
    // The chain is whole from end to end: each absence is proved, and a rotation can drop the old
    // epoch.
    for number in 0..10 * USERS {
        let absent = KeyId::new(format!("absent-{number}")).unwrap();
        assert_eq!(block_on(fixture.store.find_key(&absent)).unwrap(), None);
    }
    block_on(fixture.store.rotate(RootSecret::from_bytes([8; 32]), |_| {})).unwrap();
}

#[test]
fn what_lies_on_destroyed_pages_is_told_and_the_rest_is_read() {
    let fixture = Fixture::new();
    block_on(fixture.store.close()).unwrap();
    let mut file = fs::read(&fixture.path).unwrap();
    let pages = file.len() / 4096;
    // Far from each other in the file, and leaves as nearly all pages are.
    for page in [pages / 3, pages / 2, pages - 2] {
        file[page * 4096..page * 4096 + 200].fill(0xee);
    }
    fs::write(&fixture.path, &file).unwrap();

    let store = open(&fixture.path);
    let readable = fixture.ids.iter().filter(|id| match block_on(store.get_key(id)) {
        Ok(_) => true,
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::Corrupt);
            false
        }
    });
    let readable = readable.count();
    assert!(readable < USERS && readable > USERS / 2, "{readable}");
    let faults = block_on(store.check_structure()).unwrap();
    assert!(faults > 0);
    let report = block_on(store.verify(|_| {})).unwrap();
    assert!(report.unreadable > 0 && !report.is_intact());
    assert_eq!(report.structural_faults, faults);
    // What is created now might be lost.
    let error = block_on(store.create_key(&KeyId::new("new").unwrap(), &SecretKey::generate(32).unwrap())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    // Reading the last record before a destroyed page by its own key touches that page, to see
    // whether it has more parts.
    let more = report.intact.checked_sub(readable as u64).expect("what can be read is found");
    assert!(more <= report.unreadable, "{readable} can be read, {report:?}");

    let listed: Vec<_> = block_on(store.list_keys().collect());
    assert_eq!(listed.iter().flatten().count() as u64, report.intact);
    let errors = listed.iter().filter_map(|item| item.as_ref().err());
    assert!(errors.clone().all(|e| e.kind() == ErrorKind::Corrupt));
    assert_eq!(errors.count() as u64, report.unreadable + report.damaged.len() as u64);
}

#[test]
fn an_open_store_looks_for_damaged_pages_by_itself() {
    let fixture = Fixture::new();
    block_on(fixture.store.close()).unwrap();
    let mut file = fs::read(&fixture.path).unwrap();
    let page = file.len() / 4096 / 2;
    file[page * 4096..page * 4096 + 200].fill(0xee);
    fs::write(&fixture.path, &file).unwrap();

    let mut number = 0;
    // Of so many, most lie on other pages than the damaged one.
    let mut create_some = |store: &FileStore| {
        let created = (0..20).filter(|_| {
            number += 1;
            let id = KeyId::new(format!("new-{number}")).unwrap();
            match block_on(store.create_key(&id, &SecretKey::generate(32).unwrap())) {
                Ok(()) => true,
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Corrupt);
                    false
                }
            }
        });
        created.count()
    };
    let options = FileOptions::new().check_interval(Duration::ZERO);
    let store = block_on(options.open(&fixture.path, root())).unwrap();
    assert!(create_some(&store) > 10, "nobody has looked yet");
    block_on(store.close()).unwrap();

    let options = FileOptions::new().check_interval(Duration::from_millis(10));
    let store = block_on(options.open(&fixture.path, root())).unwrap();
    let begun = Instant::now();
    while create_some(&store) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "the store has not looked");
    }
}

#[test]
fn a_damaged_keyring_is_an_error() {
    let fixture = Fixture::new();
    let tool = Connection::open(&fixture.path).unwrap();
    tool.execute("UPDATE keyring SET bytes = zeroblob(100) WHERE number = 1", []).unwrap();
    assert_eq!(block_on(fixture.store.verify(|_| {})).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_closed_store_is_not_verified() {
    let fixture = Fixture::new();
    block_on(fixture.store.close()).unwrap();
    assert_eq!(block_on(fixture.store.verify(|_| {})).unwrap_err().kind(), ErrorKind::Other);
}

//! Records that are damaged, moved or cut: `Corrupt`, never a value, and nothing is deleted on the
//! way.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::PathBuf;

use futures_executor::block_on;
use futures_util::StreamExt;
use futures_util::future::join_all;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use rusqlite::{Connection, params};
use tempfile::TempDir;

/// A store with a short key, of one part, and a long one, of several; and a connection of somebody
/// else.
struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: FileStore,
    tool: Connection,
}

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key(len: usize) -> SecretKey {
    SecretKey::generate(len).unwrap()
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let store = block_on(FileStore::create(&path, root())).unwrap();
        block_on(store.put_key(&id("short"), &key(32))).unwrap();
        block_on(store.put_key(&id("long"), &key(700))).unwrap();
        let tool = Connection::open(&path).unwrap();
        // Nothing here has to survive a loss of power.
        tool.execute_batch("PRAGMA synchronous = OFF").unwrap();
        Self { _directory: directory, path, store, tool }
    }

    fn kind_of(&self, name: &str) -> Option<ErrorKind> {
        block_on(self.store.get_key(&id(name))).err().map(|e| e.kind())
    }

    /// All cells: part and bytes.
    fn cells(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut statement =
            self.tool.prepare("SELECT part, bytes FROM cells WHERE part > zeroblob(33) ORDER BY part").unwrap();
        let cells = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        cells.map(Result::unwrap).collect()
    }

    /// The cells of the short key (one part) or of the long one.
    fn cells_of(&self, short: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
        let all = self.cells();
        let parts = |row: &[u8]| all.iter().filter(|(part, _)| part.starts_with(row)).count();
        all.iter().filter(|(part, _)| (parts(&part[..32]) == 1) == short).cloned().collect()
    }

    fn set(&self, part: &[u8], bytes: &[u8]) {
        self.tool.execute("UPDATE cells SET bytes = ?2 WHERE part = ?1", params![part, bytes]).unwrap();
    }

    /// This is damage to the named key, seen by get, list, create and get_or_create; nothing is
    /// deleted by them.
    fn is_seen_in(&self, name: &str) {
        let before = self.cells();
        assert_eq!(self.kind_of(name), Some(ErrorKind::Corrupt));
        let listed: Vec<_> = block_on(self.store.list_keys().collect());
        assert!(listed.iter().any(|item| item.as_ref().is_err_and(|e| e.kind() == ErrorKind::Corrupt)));
        assert_eq!(block_on(self.store.create_key(&id(name), &key(32))).unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(block_on(self.store.get_or_create_key(&id(name))).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(self.cells(), before);
    }
}

#[test]
fn every_flipped_bit_of_a_record_is_seen() {
    let fixture = Fixture::new();
    for short in [true, false] {
        let name = if short { "short" } else { "long" };
        for (part, bytes) in fixture.cells_of(short) {
            for bit in 0..8 * bytes.len() {
                let mut flipped = bytes.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                fixture.set(&part, &flipped);
                assert_eq!(fixture.kind_of(name), Some(ErrorKind::Corrupt), "bit {bit}");
            }
            fixture.set(&part, &bytes);
        }
        assert_eq!(fixture.kind_of(name), None);
    }
}

#[test]
fn every_other_length_of_a_part_is_seen() {
    let fixture = Fixture::new();
    let (part, bytes) = fixture.cells_of(true).remove(0);
    for len in 0..bytes.len() {
        fixture.set(&part, &bytes[..len]);
        assert_eq!(fixture.kind_of("short"), Some(ErrorKind::Corrupt), "{len} bytes");
    }
    for more in 1..=64 {
        fixture.set(&part, &[bytes.as_slice(), &vec![0; more]].concat());
        assert_eq!(fixture.kind_of("short"), Some(ErrorKind::Corrupt), "{more} more");
    }
    fixture.is_seen_in("short");
    fixture.set(&part, &bytes);
    assert_eq!(fixture.kind_of("short"), None);

    for (part, bytes) in fixture.cells_of(false) {
        for len in [0, 1, 255, 257, 320, 512] {
            let other: Vec<u8> = bytes.iter().copied().chain([0; 256]).take(len).collect();
            fixture.set(&part, &other);
            assert_eq!(fixture.kind_of("long"), Some(ErrorKind::Corrupt), "{len} bytes");
        }
        fixture.set(&part, &bytes);
    }
    assert_eq!(fixture.kind_of("long"), None);
}

#[test]
fn a_missing_part_is_seen_wherever_it_was() {
    for number in 0..4_usize {
        let fixture = Fixture::new();
        let parts = fixture.cells_of(false);
        assert_eq!(parts.len(), 4);
        let (part, _) = &parts[number];
        fixture.tool.execute("DELETE FROM cells WHERE part = ?1", [part]).unwrap();
        fixture.is_seen_in("long");
    }
}

#[test]
fn a_part_too_many_is_seen() {
    let fixture = Fixture::new();
    let (part, bytes) = fixture.cells_of(true).remove(0);
    let second = [&part[..32], &[1]].concat();
    fixture.tool.execute("INSERT INTO cells VALUES (?1, ?2, zeroblob(9))", params![second, bytes]).unwrap();
    fixture.is_seen_in("short");
}

#[test]
fn swapped_parts_and_records_are_seen() {
    let fixture = Fixture::new();
    let long = fixture.cells_of(false);
    fixture.set(&long[0].0, &long[1].1);
    fixture.set(&long[1].0, &long[0].1);
    fixture.is_seen_in("long");

    let fixture = Fixture::new();
    block_on(fixture.store.put_key(&id("other"), &key(32))).unwrap();
    let short = fixture.cells_of(true);
    fixture.set(&short[0].0, &short[1].1);
    fixture.set(&short[1].0, &short[0].1);
    fixture.is_seen_in("short");
    fixture.is_seen_in("other");
}

#[test]
fn parts_and_records_swapped_between_ids_are_seen() {
    for parts in [vec![0], vec![3], vec![0, 1, 2, 3]] {
        let fixture = Fixture::new();
        block_on(fixture.store.put_key(&id("other"), &key(700))).unwrap();
        let cells = fixture.cells_of(false);
        let (one, other) = cells.split_at(4);
        for part in parts {
            fixture.set(&one[part].0, &other[part].1);
            fixture.set(&other[part].0, &one[part].1);
        }
        fixture.is_seen_in("long");
        fixture.is_seen_in("other");
    }
}

#[test]
fn a_part_or_a_record_of_another_store_is_seen() {
    let fixture = Fixture::new();
    let other = Fixture::new();
    for (name, short) in [("short", true), ("long", false)] {
        let own = fixture.cells_of(short);
        let foreign = other.cells_of(short);
        for (own, foreign) in own.iter().zip(&foreign) {
            fixture.set(&own.0, &foreign.1);
            fixture.is_seen_in(name);
            fixture.set(&own.0, &own.1);
            assert_eq!(fixture.kind_of(name), None);
        }
        own.iter().zip(&foreign).for_each(|(own, foreign)| fixture.set(&own.0, &foreign.1));
        fixture.is_seen_in(name);
        own.iter().for_each(|own| fixture.set(&own.0, &own.1));
    }
    // Under the row key that it had there it is nobody's here.
    for (part, bytes) in other.cells_of(true) {
        fixture.tool.execute("INSERT INTO cells VALUES (?1, ?2, zeroblob(9))", params![part, bytes]).unwrap();
    }
    let listed: Vec<_> = block_on(fixture.store.list_keys().collect());
    assert_eq!(listed.iter().filter(|item| item.is_err()).count(), 1);
    assert_eq!(listed.iter().flatten().count(), 2);
}

#[test]
fn an_older_record_of_the_same_id_is_the_only_thing_that_passes() {
    // Said in SECURITY.md: who can write the file can put an old record of the same id back.
    let fixture = Fixture::new();
    let (part, old) = fixture.cells_of(true).remove(0);
    block_on(fixture.store.put_key(&id("short"), &key(32))).unwrap();
    fixture.set(&part, &old);
    assert_eq!(fixture.kind_of("short"), None);
}

#[test]
fn every_flipped_bit_of_a_row_key_or_a_parts_number_is_seen_by_the_listing() {
    let fixture = Fixture::new();
    let (part, _) = fixture.cells_of(true).remove(0);
    let rename = |from: &[u8], to: &[u8]| {
        fixture.tool.execute("UPDATE cells SET part = ?2 WHERE part = ?1", params![from, to]).unwrap();
    };
    for bit in 0..8 * part.len() {
        let mut moved = part.clone();
        moved[bit / 8] ^= 1 << (bit % 8);
        rename(&part, &moved);
        assert_eq!(fixture.kind_of("short"), Some(ErrorKind::Corrupt), "bit {bit}");
        let listed: Vec<_> = block_on(fixture.store.list_keys().collect());
        assert!(listed.iter().any(Result::is_err), "bit {bit}");
        assert_eq!(listed.iter().flatten().collect::<Vec<_>>(), [&id("long")], "bit {bit}");
        rename(&moved, &part);
    }
    assert_eq!(fixture.kind_of("short"), None);
}

#[test]
fn cells_of_no_record_end_no_listing() {
    let fixture = Fixture::new();
    fixture
        .tool
        .execute_batch(
            "INSERT INTO cells VALUES (x'', x'', x''), (x'00', NULL, NULL), ('text', 'text', 7), (7, 7, 7);
             INSERT INTO cells VALUES (x'ff', zeroblob(256), zeroblob(9));
             WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
             INSERT INTO cells SELECT zeroblob(40) || CAST(i AS BLOB), zeroblob(256), zeroblob(9) FROM n;",
        )
        .unwrap();
    let listed: Vec<_> = block_on(fixture.store.list_keys().collect());
    let mut ids: Vec<_> = listed.iter().flatten().map(KeyId::as_str).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["long", "short"]);
    assert!(listed.iter().any(Result::is_err));
}

#[test]
fn a_damaged_record_can_be_replaced_or_deleted_by_its_owner() {
    for delete in [true, false] {
        let fixture = Fixture::new();
        for (part, _) in fixture.cells_of(false) {
            fixture.set(&part, &[0; 256]);
        }
        fixture.is_seen_in("long");
        if delete {
            block_on(fixture.store.delete_key(&id("long"))).unwrap();
            assert_eq!(fixture.kind_of("long"), Some(ErrorKind::NotFound));
        } else {
            block_on(fixture.store.put_key(&id("long"), &key(5))).unwrap();
            assert_eq!(fixture.kind_of("long"), None);
        }
    }
}

#[test]
fn a_key_on_a_destroyed_page_is_corrupt_and_not_absent() {
    let Fixture { _directory, path, store, tool } = Fixture::new();
    let ids: Vec<KeyId> = (0..200).map(|number| id(&format!("user-{number}"))).collect();
    for id in &ids {
        block_on(store.put_key(id, &key(32))).unwrap();
    }
    block_on(store.close()).unwrap();
    drop(tool);
    let mut file = std::fs::read(&path).unwrap();
    for page in file.chunks_mut(4096).skip(6).step_by(2) {
        page[..100].fill(0xee);
    }
    std::fs::write(&path, &file).unwrap();

    let store = block_on(FileStore::open(&path, root())).unwrap();
    let outcomes: Vec<_> = ids.iter().map(|id| block_on(store.get_key(id)).map_err(|e| e.kind())).collect();
    assert!(outcomes.iter().all(|outcome| !matches!(outcome, Err(kind) if *kind != ErrorKind::Corrupt)));
    assert!(outcomes.iter().any(Result::is_ok) && outcomes.iter().any(Result::is_err));

    // Nor does it spoil its neighbours' writes, which are committed together where that can be. An
    // overwrite touches the pages that a read touches; a delete might move cells to or from a
    // damaged one.
    let keys: Vec<SecretKey> = ids.iter().map(|_| key(32)).collect();
    let puts = ids.iter().zip(&keys).map(|(id, key)| store.put_key(id, key));
    let written: Vec<_> = block_on(join_all(puts)).into_iter().map(|outcome| outcome.map_err(|e| e.kind())).collect();
    for (read, written) in outcomes.iter().zip(&written) {
        assert_eq!(read.is_ok(), written.is_ok());
        assert!(written.is_ok() || *written == Err(ErrorKind::Corrupt));
    }

    // Nor do new keys that are created together.
    let new: Vec<(KeyId, SecretKey)> = (0..200).map(|number| (id(&format!("new-{number}")), key(32))).collect();
    let created = block_on(store.create_keys(&new));
    assert!(created.iter().any(Result::is_ok) && created.iter().any(Result::is_err));
    for ((id, key), outcome) in new.iter().zip(created) {
        match outcome {
            Ok(()) => assert!(block_on(store.get_key(id)).unwrap() == *key),
            Err(e) => assert_eq!(e.kind(), ErrorKind::Corrupt),
        }
    }
}

//! Loading many keys: what is created, what is left alone, and that the result is a store like any
//! other.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;

use futures_executor::block_on;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: FileStore,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn id(number: usize) -> KeyId {
    KeyId::new(format!("user-{number}")).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let store = block_on(FileStore::create(&path, root())).unwrap();
        Self { _directory: directory, path, store }
    }

    /// The store holds these keys and no others, and its chain is whole.
    fn expect(&self, keys: &BTreeMap<KeyId, SecretKey>) {
        let report = block_on(self.store.verify(|_| {})).unwrap();
        assert!(report.is_intact(), "{report:?}");
        assert_eq!(report.intact, keys.len() as u64);
        let mut listed: Vec<KeyId> = block_on(self.store.list_keys().map(Result::unwrap).collect());
        listed.sort();
        assert_eq!(listed, keys.keys().cloned().collect::<Vec<_>>());
        let ids: Vec<KeyId> = keys.keys().cloned().collect();
        let read = block_on(self.store.get_keys(&ids));
        for ((id, key), read) in keys.iter().zip(read) {
            assert_eq!(read.unwrap(), *key, "{}", id.as_str());
        }
        assert_eq!(block_on(self.store.find_key(&KeyId::new("nobody").unwrap())).unwrap(), None);
    }
}

fn keys(numbers: impl Iterator<Item = usize>) -> Vec<(KeyId, SecretKey)> {
    numbers.map(|number| (id(number), SecretKey::generate(1 + number * 37 % 900).unwrap())).collect()
}

#[test]
fn an_empty_store_is_filled() {
    let fixture = Fixture::new();
    let keys = keys(0..5_000);
    let report = block_on(fixture.store.load(stream::iter(keys.clone()))).unwrap();
    assert_eq!((report.created, report.existing), (5_000, 0));
    fixture.expect(&keys.into_iter().collect());
    assert_eq!(block_on(fixture.store.load(stream::empty())).unwrap().created, 0);
}

#[test]
fn ids_that_have_a_key_keep_it_and_the_first_of_two_is_taken() {
    let fixture = Fixture::new();
    let mut expected = BTreeMap::new();
    for (id, key) in keys((0..600).step_by(3)) {
        block_on(fixture.store.put_key(&id, &key)).unwrap();
        expected.insert(id, key);
    }
    // Every third id has a key, and the first hundred come twice.
    let loaded = [keys(0..600), keys(0..100)].concat();
    let report = block_on(fixture.store.load(stream::iter(loaded.clone()))).unwrap();
    assert_eq!((report.created, report.existing), (400, 300));
    for (id, key) in loaded {
        expected.entry(id).or_insert(key);
    }
    fixture.expect(&expected);
}

#[test]
fn other_writes_go_on_and_the_store_opens_again_with_all() {
    let fixture = Fixture::new();
    let loaded = keys(0..3_000);
    let others = keys(10_000..10_500);
    let puts = others.iter().map(|(id, key)| fixture.store.put_key(id, key));
    let load = fixture.store.load(stream::iter(loaded.clone()));
    let (report, put) = block_on(futures_util::future::join(load, join_all(puts)));
    assert_eq!(report.unwrap().created, 3_000);
    assert!(put.iter().all(Result::is_ok));
    let mut expected: BTreeMap<KeyId, SecretKey> = loaded.into_iter().chain(others).collect();

    let deleted: Vec<KeyId> = (0..3_000).step_by(2).map(id).collect();
    let twice = [deleted.as_slice(), &deleted[..10]].concat();
    assert!(block_on(fixture.store.delete_keys(&twice)).iter().all(Result::is_ok));
    deleted.iter().for_each(|id| drop(expected.remove(id)));
    fixture.expect(&expected);

    block_on(fixture.store.close()).unwrap();
    let store = block_on(FileStore::open(&fixture.path, root())).unwrap();
    let fixture = Fixture { store, ..fixture };
    fixture.expect(&expected);
}

#[test]
fn a_closed_store_is_not_loaded() {
    let fixture = Fixture::new();
    block_on(fixture.store.close()).unwrap();
    let error = block_on(fixture.store.load(stream::iter(keys(0..10)))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Other);
}

#[test]
fn many_keys_are_created_with_an_outcome_each() {
    let fixture = Fixture::new();
    let mut expected = BTreeMap::new();
    for (id, key) in keys((0..9_000).step_by(3)) {
        block_on(fixture.store.put_key(&id, &key)).unwrap();
        expected.insert(id, key);
    }
    // Several transactions; the first hundred come twice.
    let wanted = [keys(0..9_000), keys(0..100)].concat();
    let outcomes = block_on(fixture.store.create_keys(&wanted));
    assert_eq!(outcomes.len(), wanted.len());
    for ((id, key), outcome) in wanted.into_iter().zip(outcomes) {
        match expected.entry(id) {
            Entry::Vacant(entry) => {
                outcome.unwrap();
                entry.insert(key);
            }
            Entry::Occupied(_) => assert_eq!(outcome.unwrap_err().kind(), ErrorKind::AlreadyExists),
        }
    }
    fixture.expect(&expected);
}

//! The keyring changed by another process: readers and writers follow, or say what to do.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::path::PathBuf;

use futures_executor::block_on;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use keystead_sealing::Keyring;
use rusqlite::Connection;
use tempfile::TempDir;

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        block_on(async { FileStore::create(&path, root()).await.unwrap().close().await.unwrap() });
        Self { _directory: directory, path }
    }

    fn open(&self, root: RootSecret) -> FileStore {
        block_on(FileStore::open(&self.path, root)).unwrap()
    }

    /// Begins a new epoch under this root secret, as another process would.
    fn begin_epoch(&self, new_root: &RootSecret) {
        let tool = Connection::open(&self.path).unwrap();
        let sealed: Vec<u8> =
            tool.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap();
        let next = Keyring::open_with(&root(), &sealed).unwrap().next_epoch().unwrap();
        tool.execute("UPDATE keyring SET bytes = ?1 WHERE number = 1", [next.seal_with(new_root).unwrap()]).unwrap();
    }

    /// The epochs of all records, as they stand in clear.
    fn epochs(&self) -> Vec<u8> {
        let tool = Connection::open(&self.path).unwrap();
        let mut statement = tool
            .prepare("SELECT DISTINCT substr(bytes, 5, 1) FROM cells WHERE part > zeroblob(33) ORDER BY 1")
            .unwrap();
        let epochs = statement.query_map([], |row| row.get::<_, Vec<u8>>(0)).unwrap();
        epochs.flat_map(Result::unwrap).collect()
    }
}

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

#[test]
fn a_writer_seals_under_the_epoch_that_another_process_began() {
    let fixture = Fixture::new();
    let store = fixture.open(root());
    block_on(store.put_key(&id("before"), &key())).unwrap();
    assert_eq!(fixture.epochs(), [1]);
    fixture.begin_epoch(&root());
    let new = key();
    block_on(store.put_key(&id("after"), &new)).unwrap();
    assert_eq!(fixture.epochs(), [1, 2]);
    assert_eq!(block_on(store.get_key(&id("after"))).unwrap(), new);
    assert!(block_on(store.find_key(&id("before"))).unwrap().is_some());
}

#[test]
fn a_reader_follows_to_an_epoch_that_it_does_not_know() {
    let fixture = Fixture::new();
    let old = fixture.open(root());
    fixture.begin_epoch(&root());
    let other = fixture.open(root());
    let new = key();
    block_on(other.put_key(&id("alice"), &new)).unwrap();
    assert_eq!(block_on(old.get_key(&id("alice"))).unwrap(), new);
    block_on(old.check()).unwrap();
}

#[test]
fn a_handle_with_the_old_root_secret_says_so_and_writes_nothing() {
    let fixture = Fixture::new();
    let old = fixture.open(root());
    let new_root = RootSecret::generate();
    fixture.begin_epoch(&new_root);
    let other = fixture.open(new_root);
    block_on(other.put_key(&id("alice"), &key())).unwrap();
    for error in [
        block_on(old.get_key(&id("alice"))).unwrap_err(),
        block_on(old.put_key(&id("bob"), &key())).unwrap_err(),
        block_on(old.delete_key(&id("alice"))).unwrap_err(),
        block_on(old.check()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::KeyUnavailable);
        assert!(format!("{error:?}").contains("open the store again with that one"), "{error:?}");
    }
    assert!(block_on(other.find_key(&id("alice"))).unwrap().is_some());
    assert!(block_on(other.find_key(&id("bob"))).unwrap().is_none());
}

//! A keyring that is damaged, cut, lengthened or of another store: told as damage, and nothing is
//! changed on the way.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::PathBuf;

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use rusqlite::Connection;
use tempfile::TempDir;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    key: SecretKey,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn alice() -> KeyId {
    KeyId::new("alice").unwrap()
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let key = SecretKey::generate(32).unwrap();
        block_on(async {
            let store = FileStore::create(&path, root()).await.unwrap();
            store.put_key(&alice(), &key).await.unwrap();
            store.close().await.unwrap();
        });
        Self { _directory: directory, path, key }
    }

    fn keyring(&self) -> Vec<u8> {
        let tool = Connection::open(&self.path).unwrap();
        tool.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap()
    }

    fn set_keyring(&self, bytes: &[u8]) {
        let tool = Connection::open(&self.path).unwrap();
        // Nothing here has to survive a loss of power.
        tool.execute_batch("PRAGMA synchronous = OFF").unwrap();
        tool.execute("UPDATE keyring SET bytes = ?1 WHERE number = 1", [bytes]).unwrap();
    }

    fn is_corrupt(&self, what: &str) {
        let before = fs::read(&self.path).unwrap();
        for opened in
            [block_on(FileStore::open(&self.path, root())), block_on(FileStore::open_or_create(&self.path, root()))]
        {
            assert_eq!(opened.unwrap_err().kind(), ErrorKind::Corrupt, "{what}");
        }
        assert!(fs::read(&self.path).unwrap() == before, "{what}");
    }

    fn is_whole(&self) {
        block_on(async {
            let store = FileStore::open(&self.path, root()).await.unwrap();
            assert_eq!(store.get_key(&alice()).await.unwrap(), self.key);
            store.close().await.unwrap();
        });
    }
}

/// The sealing's own tests flip every bit; here one in every few bytes shows that the store asks
/// it.
#[test]
fn flipped_bits_are_seen() {
    let fixture = Fixture::new();
    let sealed = fixture.keyring();
    for at in (0..sealed.len()).step_by(7) {
        let mut flipped = sealed.clone();
        flipped[at] ^= 1 << (at % 8);
        fixture.set_keyring(&flipped);
        fixture.is_corrupt(&format!("byte {at}"));
    }
    fixture.set_keyring(&sealed);
    fixture.is_whole();
}

#[test]
fn other_lengths_are_seen() {
    let fixture = Fixture::new();
    let sealed = fixture.keyring();
    for len in (0..sealed.len()).step_by(31).chain([sealed.len() - 1]) {
        fixture.set_keyring(&sealed[..len]);
        fixture.is_corrupt(&format!("{len} bytes"));
    }
    for more in 1..=64 {
        fixture.set_keyring(&[sealed.as_slice(), &vec![0; more]].concat());
        fixture.is_corrupt(&format!("{more} bytes more"));
    }
    fixture.set_keyring(&sealed);
    fixture.is_whole();
}

#[test]
fn with_the_keyring_of_another_store_no_record_opens() {
    let fixture = Fixture::new();
    let other = Fixture::new();
    let sealed = fixture.keyring();
    fixture.set_keyring(&other.keyring());
    // Else the mark beside the file tells the two stores apart.
    fs::remove_file(fixture.path.with_extension("db.id")).unwrap();
    block_on(async {
        let store = FileStore::open(&fixture.path, root()).await.unwrap();
        assert_eq!(store.get_key(&alice()).await.unwrap_err().kind(), ErrorKind::NotFound);
        let listed: Vec<_> = store.list_keys().collect().await;
        assert_eq!(listed.into_iter().map(|id| id.unwrap_err().kind()).collect::<Vec<_>>(), [ErrorKind::Corrupt]);
        store.close().await.unwrap();
    });
    fixture.set_keyring(&sealed);
    fs::remove_file(fixture.path.with_extension("db.id")).unwrap();
    fixture.is_whole();
}

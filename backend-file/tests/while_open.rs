//! Tests of changes to a store's files and its directory while the store is open.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

/// A store with one key in a directory of its own, below a temporary one.
struct Fixture {
    above: TempDir,
    store: FileStore,
    key: SecretKey,
}

impl Fixture {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        let key = key();
        let store = block_on(FileStore::create(above.path().join("own/keys.db"), root())).unwrap();
        block_on(store.put_key(&alice(), &key)).unwrap();
        Self { above, store, key }
    }

    fn directory(&self) -> PathBuf {
        self.above.path().join("own")
    }

    fn path(&self) -> PathBuf {
        self.directory().join("keys.db")
    }
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn alice() -> KeyId {
    KeyId::new("alice").unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

/// All levels of an error, as a person reads them.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_is_removed_is_told_by_every_call() {
    let fixture = Fixture::new();
    // With a connection for reading, and without one.
    for read_before in [false, true] {
        let store = block_on(FileStore::open_or_create(fixture.path(), root())).unwrap();
        if read_before {
            block_on(store.put_key(&alice(), &fixture.key)).unwrap();
            block_on(store.get_key(&alice())).unwrap();
        }
        fs::remove_dir_all(fixture.directory()).unwrap();
        // A reader trusts for 10 ms that the file is in place.
        std::thread::sleep(std::time::Duration::from_millis(15));
        for error in [
            block_on(store.get_key(&alice())).unwrap_err(),
            block_on(store.put_key(&alice(), &key())).unwrap_err(),
            block_on(store.create_key(&alice(), &key())).unwrap_err(),
            block_on(store.delete_key(&alice())).unwrap_err(),
            block_on(store.erase_key(&alice())).unwrap_err(),
            block_on(store.list_keys().next()).unwrap().unwrap_err(),
            block_on(store.check()).unwrap_err(),
            block_on(store.scrub()).unwrap_err(),
        ] {
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
            assert!(chain(&error).contains("removed or replaced"), "{}", chain(&error));
        }
        let error = block_on(FileStore::open(fixture.path(), root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(chain(&error).contains("there is no store at"), "{}", chain(&error));
        // The old handle ends, and writes nothing into a new store at its path.
        let new = block_on(FileStore::create(fixture.path(), root())).unwrap();
        assert!(block_on(store.put_key(&alice(), &key())).is_err());
        block_on(store.close()).unwrap();
        assert_eq!(block_on(new.find_key(&alice())).unwrap(), None);
        block_on(new.check()).unwrap();
    }
}

#[test]
fn files_and_a_directory_that_become_read_only_lose_nothing() {
    let fixture = Fixture::new();
    let mut key = fixture.key.clone();
    let names = ["keys.db", "keys.db-wal", "keys.db-shm", "keys.db.lock", "."];
    for name in names {
        let path = fixture.directory().join(name);
        let (read_only, writable) = if name == "." { (0o500, 0o700) } else { (0o400, 0o600) };
        set_mode(&path, read_only);
        // What is open stays open, and root may write to it as well. Where it may not be, that is
        // the error.
        let new = self::key();
        match block_on(fixture.store.put_key(&alice(), &new)) {
            Ok(()) => key = new,
            Err(error) => is_about_rights(&error),
        }
        match block_on(fixture.store.get_key(&alice())) {
            Ok(found) => assert_eq!(found, key, "{name}"),
            Err(error) => is_about_rights(&error),
        }
        if !name.ends_with("-wal") && !name.ends_with("-shm") {
            // Told from the modes, so for root as well.
            is_about_rights(&block_on(FileStore::open(fixture.path(), root())).unwrap_err());
        }
        set_mode(&path, writable);
        assert_eq!(block_on(fixture.store.get_key(&alice())).unwrap(), key, "{name}");
        key = self::key();
        block_on(fixture.store.put_key(&alice(), &key)).unwrap();
        let other = block_on(FileStore::open(fixture.path(), root())).unwrap();
        assert_eq!(block_on(other.get_key(&alice())).unwrap(), key, "{name}");
        block_on(other.close()).unwrap();
    }
}

fn is_about_rights(error: &Error) {
    assert_eq!((error.kind(), error.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied), "{}", chain(error));
    assert!(chain(error).contains("chmod u+w") || chain(error).contains("the right to"), "{}", chain(error));
}

#[test]
fn a_lock_file_that_is_a_link_or_open_to_others_is_refused() {
    let fixture = Fixture::new();
    block_on(fixture.store.close()).unwrap();
    let lock = fixture.directory().join("keys.db.lock");
    let elsewhere = fixture.above.path().join("elsewhere");
    set_mode(&lock, 0o666);
    let error = block_on(FileStore::open(fixture.path(), root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(chain(&error).contains("chmod 600"), "{}", chain(&error));
    fs::rename(&lock, &elsewhere).unwrap();
    symlink(&elsewhere, &lock).unwrap();
    let error = block_on(FileStore::open(fixture.path(), root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(chain(&error).contains("symbolic link"), "{}", chain(&error));
    fs::remove_file(&lock).unwrap();
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    assert_eq!(block_on(store.get_key(&alice())).unwrap(), fixture.key);
}

#[test]
fn a_lock_file_that_is_removed_keeps_no_write_from_being_made() {
    let fixture = Fixture::new();
    fs::remove_file(fixture.directory().join("keys.db.lock")).unwrap();
    let other = block_on(FileStore::open(fixture.path(), root())).unwrap();
    for (number, store) in [&fixture.store, &other].into_iter().cycle().take(20).enumerate() {
        let key = SecretKey::generate(1 + number).unwrap();
        block_on(store.put_key(&alice(), &key)).unwrap();
        assert_eq!(block_on(fixture.store.get_key(&alice())).unwrap(), key);
    }
}

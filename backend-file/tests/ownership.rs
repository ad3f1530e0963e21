//! The users who may use the files: a group, if that was asked for, and the store's owner, even if
//! root has opened or restored it.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use futures_executor::block_on;
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileOptions, FileStore, RootSecret};
use tempfile::TempDir;

const OWNER: u32 = 12345;
const GROUP: u32 = 23456;

const BESIDE: [&str; 5] = ["", "-wal", "-shm", ".id", ".lock"];

/// A closed store of one key, with no file beside it, and a backup.
struct Fixture {
    directory: TempDir,
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
        let fixture = Self { directory: tempfile::tempdir().unwrap(), key: SecretKey::generate(32).unwrap() };
        block_on(async {
            let store = FileStore::create(fixture.path(), root()).await.unwrap();
            store.put_key(&alice(), &fixture.key).await.unwrap();
            store.backup(fixture.backup()).await.unwrap();
            store.close().await.unwrap();
        });
        [".id", ".lock"].iter().for_each(|suffix| fs::remove_file(fixture.beside(suffix)).unwrap());
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("own/keys.db")
    }

    fn backup(&self) -> PathBuf {
        self.directory.path().join("backups/monday.db")
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}{suffix}", self.path().display()))
    }

    fn set_mode(&self, mode: u32) {
        fs::set_permissions(self.path(), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn expect_key(&self, store: &FileStore) {
        assert_eq!(block_on(store.get_key(&alice())).unwrap(), self.key);
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
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

#[test]
fn a_file_that_a_group_may_read_is_refused_unless_that_was_asked_for() {
    let fixture = Fixture::new();
    for bits in [0o660, 0o640, 0o620] {
        fixture.set_mode(bits);
        let error = block_on(FileStore::open(fixture.path(), root())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(chain(&error).contains("chmod 600"), "{}", chain(&error));
        let store = block_on(FileOptions::new().group_access(true).open(fixture.path(), root())).unwrap();
        fixture.expect_key(&store);
        block_on(store.close()).unwrap();
    }
}

#[test]
fn others_than_the_group_are_always_refused() {
    let fixture = Fixture::new();
    for bits in [0o604, 0o602, 0o601, 0o666, 0o664] {
        fixture.set_mode(bits);
        for options in [FileOptions::new(), FileOptions::new().group_access(true)] {
            let attempts = [
                block_on(options.open(fixture.path(), root())),
                block_on(options.open_or_create(fixture.path(), root())),
                block_on(options.restore(fixture.backup(), fixture.path(), root())),
            ];
            for attempt in attempts {
                let error = attempt.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config, "{bits:o}: {}", chain(&error));
                assert!(chain(&error).contains("chmod"), "{}", chain(&error));
            }
        }
    }
    fixture.set_mode(0o600);
    // The files beside it, too.
    for suffix in [".id", ".lock"] {
        fs::write(fixture.beside(suffix), "").unwrap();
        fs::set_permissions(fixture.beside(suffix), fs::Permissions::from_mode(0o606)).unwrap();
        let error = block_on(FileOptions::new().group_access(true).open(fixture.path(), root())).unwrap_err();
        assert!(chain(&error).contains(suffix), "{}", chain(&error));
        fs::remove_file(fixture.beside(suffix)).unwrap();
    }
}

#[test]
fn all_files_of_a_group_are_open_to_it() {
    let fixture = Fixture::new();
    fixture.set_mode(0o660);
    let options = FileOptions::new().group_access(true);
    let store = block_on(options.open(fixture.path(), root())).unwrap();
    block_on(store.put_key(&alice(), &fixture.key)).unwrap();
    for suffix in BESIDE {
        assert_eq!(mode(&fixture.beside(suffix)), 0o660, "{suffix}");
    }
    let backup = fixture.directory.path().join("backups/tuesday.db");
    block_on(store.backup(&backup)).unwrap();
    assert_eq!(mode(&backup), 0o660);
    block_on(store.close()).unwrap();

    let new = fixture.directory.path().join("own/new.db");
    let store = block_on(options.create(&new, root())).unwrap();
    assert!(BESIDE.iter().all(|suffix| mode(&PathBuf::from(format!("{}{suffix}", new.display()))) == 0o660));
    block_on(store.close()).unwrap();

    let store = block_on(options.restore(fixture.backup(), fixture.path(), root())).unwrap();
    assert!(BESIDE.iter().all(|suffix| mode(&fixture.beside(suffix)) == 0o660));
    fixture.expect_key(&store);
}

/// Gives the store to another user, if this is root.
fn given_away() -> Option<Fixture> {
    let fixture = Fixture::new();
    if chown(fixture.path(), Some(OWNER), Some(GROUP)).is_err() {
        println!("not tried: only root gives files away");
        return None;
    }
    Some(fixture)
}

fn expect_owner(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (OWNER, GROUP), "{}", path.display());
}

#[test]
fn what_root_makes_beside_a_store_belongs_to_its_owner() {
    let Some(fixture) = given_away() else { return };
    let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
    block_on(store.put_key(&alice(), &fixture.key)).unwrap();
    BESIDE.iter().for_each(|suffix| expect_owner(&fixture.beside(suffix)));
}

#[test]
fn what_root_restores_belongs_to_the_owner_of_the_store() {
    let Some(fixture) = given_away() else { return };
    for is_lost in [false, true] {
        if is_lost {
            fs::remove_file(fixture.path()).unwrap();
        }
        let store = block_on(FileStore::restore(fixture.backup(), fixture.path(), root())).unwrap();
        fixture.expect_key(&store);
        BESIDE.iter().for_each(|suffix| expect_owner(&fixture.beside(suffix)));
        assert_eq!(store.replaced_store().is_none(), is_lost);
        store.replaced_store().into_iter().for_each(expect_owner);
        block_on(store.close()).unwrap();
    }
}

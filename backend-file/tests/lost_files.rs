//! A store that has lost its file or its log is told as that, and no new one takes its place.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{Error, ErrorKind, Finality, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

const USERS: usize = 20;

struct Fixture {
    directory: TempDir,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn id(user: usize) -> KeyId {
    KeyId::new(format!("user-{user}")).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

impl Fixture {
    /// A store that is open, with keys that only its log has.
    fn open() -> (Self, FileStore) {
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        let store = block_on(FileStore::create(fixture.path(), root())).unwrap();
        for user in 0..USERS {
            block_on(store.put_key(&id(user), &key())).unwrap();
        }
        assert!(fs::metadata(fixture.log()).unwrap().len() > 0);
        (fixture, store)
    }

    fn closed() -> Self {
        let (fixture, store) = Self::open();
        block_on(store.close()).unwrap();
        fixture
    }

    /// The files of a store whose process died with a full log.
    fn killed() -> Self {
        let (open, store) = Self::open();
        let fixture = Self { directory: tempfile::tempdir().unwrap() };
        copy_all(open.directory.path(), fixture.directory.path());
        block_on(store.close()).unwrap();
        assert!(fs::metadata(fixture.log()).unwrap().len() > 0);
        fixture
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("keys.db")
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("keys.db-wal")
    }

    /// No way of opening takes the store or makes another one.
    fn expect_lost(&self, advice: &str) {
        let before = self.contents();
        let attempts = [
            block_on(FileStore::open(self.path(), root())),
            block_on(FileStore::create(self.path(), root())),
            block_on(FileStore::open_or_create(self.path(), root())),
        ];
        for attempt in attempts {
            let error = attempt.unwrap_err();
            let text = chain(&error);
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{text}");
            assert!(text.contains(advice) && text.contains("keys.db"), "{text}");
        }
        assert_eq!(self.contents(), before);
    }

    fn expect_whole(&self) {
        let store = block_on(FileStore::open(self.path(), root())).unwrap();
        assert_eq!(block_on(store.verify(|_| {})).unwrap().intact, USERS as u64);
        block_on(store.close()).unwrap();
    }

    /// The files of a directory whose store nobody has open.
    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let paths = fs::read_dir(self.directory.path()).unwrap().map(|entry| entry.unwrap().path());
        paths.map(|path| (path.clone(), fs::read(&path).unwrap())).collect()
    }
}

/// Copies what is in a directory, by another process: this one would end SQLite's locks if it
/// closed a file.
fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-Rp").args([&from.join("."), to]).status().unwrap().success());
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
fn no_store_is_created_where_one_was_lost() {
    let fixture = Fixture::closed();
    let own = fixture.directory.path().join("own");
    fs::rename(fixture.path(), &own).unwrap();
    fixture.expect_lost("restore a backup");
    fs::write(fixture.path(), "").unwrap();
    fs::set_permissions(fixture.path(), fs::metadata(&own).unwrap().permissions()).unwrap();
    fixture.expect_lost("restore a backup");
    fs::rename(&own, fixture.path()).unwrap();
    fixture.expect_whole();

    // As the error says.
    fs::remove_file(fixture.path()).unwrap();
    fs::remove_file(fixture.directory.path().join("keys.db.id")).unwrap();
    let store = block_on(FileStore::open_or_create(fixture.path(), root())).unwrap();
    assert_eq!(block_on(store.find_key(&id(0))).unwrap(), None);
}

#[test]
fn a_log_whose_file_is_lost_or_empty_is_left_alone() {
    for has_mark in [true, false] {
        let fixture = Fixture::killed();
        let own = tempfile::tempdir().unwrap();
        fs::copy(fixture.path(), own.path().join("keys.db")).unwrap();
        if !has_mark {
            fs::remove_file(fixture.directory.path().join("keys.db.id")).unwrap();
        }
        fs::OpenOptions::new().write(true).open(fixture.path()).unwrap().set_len(0).unwrap();
        fixture.expect_lost("put the file back");
        fs::remove_file(fixture.path()).unwrap();
        fixture.expect_lost("put the file back");
        fs::copy(own.path().join("keys.db"), fixture.path()).unwrap();
        fixture.expect_whole();
    }
}

#[test]
fn another_store_in_the_place_of_a_lost_one_is_refused() {
    let fixture = Fixture::closed();
    let other = Fixture::closed();
    fs::copy(other.path(), fixture.path()).unwrap();
    let before = fixture.contents();
    let error = block_on(FileStore::open(fixture.path(), root())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{}", chain(&error));
    assert!(chain(&error).contains("keys.db.id"), "{}", chain(&error));
    assert_eq!(fixture.contents(), before);
}

/// The answer of every operation of an open store whose log is gone.
fn expect_replaced(fixture: &Fixture, store: &FileStore) {
    // A read trusts what it saw some milliseconds ago.
    std::thread::sleep(std::time::Duration::from_millis(50));
    let errors = [
        block_on(store.put_key(&id(0), &key())).unwrap_err(),
        block_on(store.create_key(&id(USERS), &key())).unwrap_err(),
        block_on(store.delete_key(&id(1))).unwrap_err(),
        block_on(store.erase_key(&id(2))).unwrap_err(),
        block_on(store.scrub()).unwrap_err(),
        block_on(store.get_key(&id(3))).unwrap_err(),
        block_on(store.rotate(root(), |_| {})).unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
        assert!(chain(&error).contains("removed or replaced"), "{}", chain(&error));
    }
    block_on(store.close()).unwrap();
    assert!(fixture.path().exists());
}

#[test]
fn a_log_that_is_removed_under_its_writer_ends_all_writing() {
    let (fixture, store) = Fixture::open();
    fs::remove_file(fixture.log()).unwrap();
    expect_replaced(&fixture, &store);
    // The writer had it open, and moved it into the file when it closed that.
    fixture.expect_whole();
}

#[test]
fn a_log_that_is_replaced_under_its_writer_ends_all_writing() {
    let (fixture, store) = Fixture::open();
    let new = fixture.directory.path().join("new");
    drop(fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new).unwrap());
    fs::rename(new, fixture.log()).unwrap();
    expect_replaced(&fixture, &store);
    fixture.expect_whole();
}

#[test]
fn a_delete_after_an_empty_log_took_the_place_of_the_own_is_never_immediate() {
    let (fixture, store) = Fixture::open();
    assert_eq!(block_on(store.delete_key(&id(0))).unwrap().finality, Finality::Immediate);
    block_on(store.put_key(&id(0), &key())).unwrap();
    fs::remove_file(fixture.log()).unwrap();
    drop(fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(fixture.log()).unwrap());
    for user in 0..USERS {
        assert_eq!(block_on(store.erase_key(&id(user))).unwrap_err().kind(), ErrorKind::Unavailable);
    }
}

#[test]
fn a_log_that_is_emptied_under_its_writer_is_not_moved_into_the_file() {
    for left in [0, 32, 5000] {
        let (fixture, store) = Fixture::open();
        assert!(block_on(store.scrub()).unwrap());
        for user in USERS..2 * USERS {
            block_on(store.put_key(&id(user), &key())).unwrap();
        }
        let log = fs::OpenOptions::new().write(true).open(fixture.log()).unwrap();
        log.set_len(left).unwrap();
        let errors = [
            block_on(store.put_key(&id(0), &key())).unwrap_err(),
            block_on(store.delete_key(&id(1))).unwrap_err(),
            block_on(store.erase_key(&id(2 * USERS))).unwrap_err(),
            block_on(store.scrub()).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
            assert!(chain(&error).contains("truncated"), "{}", chain(&error));
        }
        block_on(store.close()).unwrap();
        // What was in the file is still there.
        let store = block_on(FileStore::open(fixture.path(), root())).unwrap();
        let report = block_on(store.verify(|_| {})).unwrap();
        assert!(report.is_intact() && report.intact >= USERS as u64, "{left}: {report:?}");
    }
}

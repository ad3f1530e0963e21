//! The stores that are damaged, and what is in them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use futures_util::future::try_join_all;
use keystead_core::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

use crate::pages::Pages;
use crate::random::Random;

pub(crate) const STORE_NAME: &str = "keys.db";

/// The number of keys that are stored.
const STORED: usize = 719;
/// The number of keys that were deleted, so that there is a free list.
const DELETED: usize = 150;
/// The number of stored keys that are only in the log of the store with a log.
const IN_LOG: usize = 60;

type Keys = BTreeMap<KeyId, SecretKey>;

/// The keys of a store. They are derived from their ids, so that a store that was kept can be used
/// again.
pub(crate) struct Stored {
    pub(crate) in_main: Keys,
    /// Empty in a store that was closed.
    pub(crate) in_log: Keys,
    pub(crate) deleted: Vec<KeyId>,
}

/// The files of a store, by the part of the name that comes after the store's, and its keys.
pub(crate) struct Fixture {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    pub(crate) pages: Pages,
    pub(crate) stored: Stored,
}

pub(crate) fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn ids(name: &str, count: usize) -> Vec<KeyId> {
    (0..count).map(|index| KeyId::new(format!("{name}-{index}")).unwrap()).collect()
}

/// Returns keys of 32 bytes. One in eight has a random length of up to 3,072 bytes.
fn keys(name: &str, count: usize) -> Keys {
    let key = |id: &KeyId| {
        let mut random = Random::of_trial(id.as_str(), 0);
        let len = if random.once_in(8) { 1 + random.below(3072) } else { 32 };
        SecretKey::new((0..len).map(|_| random.next().to_be_bytes()[0]).collect::<Vec<u8>>()).unwrap()
    };
    ids(name, count).into_iter().map(|id| (id.clone(), key(&id))).collect()
}

impl Stored {
    fn new(in_log: usize) -> Self {
        let in_main = keys("user", STORED - in_log);
        Self { in_main, in_log: keys("late", in_log), deleted: ids("deleted", DELETED) }
    }
}

impl Fixture {
    /// Creates a store and closes it.
    pub(crate) fn closed() -> Self {
        Self::new(Stored::new(0))
    }

    /// Creates a store and copies it while it is open. The last keys are only in its log.
    pub(crate) fn with_log() -> Self {
        Self::new(Stored::new(IN_LOG))
    }

    fn new(stored: Stored) -> Self {
        let directory = private_directory();
        let path = directory.path().join(STORE_NAME);
        let store = block_on(FileStore::create(&path, root())).unwrap();
        let deleted: Keys = stored.deleted.iter().map(|id| (id.clone(), SecretKey::generate(1500).unwrap())).collect();
        let puts = stored.in_main.iter().chain(&deleted).map(|(id, key)| store.put_key(id, key));
        block_on(try_join_all(puts)).unwrap();
        // A delete also empties the log.
        block_on(try_join_all(stored.deleted.iter().map(|id| store.delete_key(id)))).unwrap();
        // Each five keys are at least one transaction.
        let late: Vec<_> = stored.in_log.iter().collect();
        for some in late.chunks(5) {
            block_on(try_join_all(some.iter().map(|(id, key)| store.put_key(id, key)))).unwrap();
        }
        let files = if stored.in_log.is_empty() {
            block_on(store.close()).unwrap();
            read_files(directory.path())
        } else {
            let image = private_directory();
            copy_while_open(directory.path(), image.path());
            block_on(store.close()).unwrap();
            read_files(image.path())
        };
        Self::of(files, stored)
    }

    /// Reads the store whose files were kept in this directory.
    pub(crate) fn kept(directory: &Path) -> Self {
        let files = read_files(directory);
        let in_log = if files.contains_key("-wal") { IN_LOG } else { 0 };
        Self::of(files, Stored::new(in_log))
    }

    fn of(files: BTreeMap<String, Vec<u8>>, stored: Stored) -> Self {
        let pages = Pages::read(&files[""]);
        assert!(!pages.free_trunks.is_empty() && !pages.free_leaves.is_empty(), "the store has a free list");
        assert_eq!(files.contains_key("-wal"), !stored.in_log.is_empty());
        Self { files, pages, stored }
    }

    /// Keeps the files for the repetition of a trial.
    pub(crate) fn keep(&self, directory: &Path) {
        let _ = fs::remove_dir_all(directory);
        fs::create_dir_all(directory).unwrap();
        write_files(&self.files, directory);
    }
}

/// Creates a directory that only its owner may enter.
pub(crate) fn private_directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700)).unwrap();
    directory
}

pub(crate) fn write_files(files: &BTreeMap<String, Vec<u8>>, directory: &Path) {
    for (suffix, bytes) in files {
        let path = directory.join(format!("{STORE_NAME}{suffix}"));
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }
}

/// Returns the paths of a store's files, except the index of its log, which SQLite creates again.
fn paths(directory: &Path) -> Vec<(String, PathBuf)> {
    let named = fs::read_dir(directory).unwrap().filter_map(|entry| {
        let path = entry.unwrap().path();
        let suffix = path.file_name()?.to_str()?.strip_prefix(STORE_NAME)?.to_owned();
        (suffix != "-shm").then_some((suffix, path))
    });
    named.collect()
}

fn read_files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    paths(directory).into_iter().map(|(suffix, path)| (suffix, fs::read(path).unwrap())).collect()
}

/// Copies in another process, because this one must not open the files of a store that it has open.
fn copy_while_open(from: &Path, to: &Path) {
    let paths = paths(from).into_iter().map(|(_, path)| path);
    assert!(Command::new("cp").arg("-p").args(paths).arg(to).status().unwrap().success());
}

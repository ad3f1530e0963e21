//! A store whose process was killed with a full log, and what a directory holds.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;
use tempfile::TempDir;

use crate::child::{Worker, chain, id, meet, open, root, to_hex};

/// Keys in hexadecimal by their ids.
pub(crate) type Keys = BTreeMap<String, String>;

/// The number of users that are written before the backup, and after it.
const USERS: usize = 30;

/// The directory `own` with the files that the killed process left, and `backups/monday.db`.
pub(crate) struct Fixture {
    pub(crate) directory: TempDir,
    pub(crate) at_backup: Keys,
    /// With those that are in the log only.
    pub(crate) at_kill: Keys,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let fixture = Self { directory, at_backup: Keys::new(), at_kill: Keys::new() };
        let mut worker =
            Worker::start("back_up_and_write", &[&fixture.text_path(), fixture.backup().to_str().unwrap()]);
        worker.expect("written");
        drop(worker);
        assert!(fs::metadata(beside(&fixture.path(), "-wal")).unwrap().len() > 0, "the log is empty");
        // Of a copy, because opening it would empty the log.
        let copy = fixture.copy();
        let at_kill = keys_at(&copy.path());
        let at_backup: Keys = at_kill
            .iter()
            .filter(|(user, _)| user.starts_with("early"))
            .map(|(user, key)| (user.clone(), key.clone()))
            .collect();
        assert_eq!((at_backup.len(), at_kill.len()), (USERS, 2 * USERS));
        Self { at_backup, at_kill, ..fixture }
    }

    pub(crate) fn copy(&self) -> Self {
        let directory = tempfile::tempdir().unwrap();
        copy_all(self.directory.path(), directory.path());
        Self { directory, at_backup: self.at_backup.clone(), at_kill: self.at_kill.clone() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("own/keys.db")
    }

    pub(crate) fn text_path(&self) -> String {
        self.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn backup(&self) -> PathBuf {
        self.directory.path().join("backups/monday.db")
    }

    /// The names of the files at and beside the store.
    pub(crate) fn names(&self) -> Vec<String> {
        snapshot(self.path().parent().unwrap()).into_keys().collect()
    }

    /// No way of opening takes the store; gives the text of the error.
    pub(crate) fn expect_closed_to_all(&self, kind: ErrorKind) -> String {
        let before = snapshot(self.directory.path());
        let path = self.path();
        let attempts = [
            block_on(FileStore::open(&path, root())),
            block_on(FileStore::create(&path, root())),
            block_on(FileStore::open_or_create(&path, root())),
        ];
        let mut texts = attempts.map(|attempt| {
            let error = attempt.unwrap_err();
            assert!([kind, ErrorKind::AlreadyExists].contains(&error.kind()), "{}", chain(&error));
            chain(&error)
        });
        assert_eq!(snapshot(self.directory.path()), before, "{}", texts[0]);
        std::mem::take(&mut texts[0])
    }
}

/// `PATH BACKUP`: writes, backs up, writes more, and waits to be killed.
pub(crate) fn back_up_and_write(arguments: &[String]) {
    let [path, backup] = arguments else { panic!("PATH BACKUP") };
    let store = open(path);
    let put_all = |prefix: &str| {
        for user in 0..USERS {
            block_on(store.put_key(&id(format!("{prefix}-{user}")), &SecretKey::generate(32 + 20 * user).unwrap()))
                .unwrap();
        }
    };
    put_all("early");
    block_on(store.backup(backup)).unwrap();
    assert!(block_on(store.scrub()).unwrap());
    put_all("late");
    meet("written");
}

/// All keys of a store, whose records are all whole.
pub(crate) fn keys(store: &FileStore) -> Keys {
    let report = block_on(store.verify(|_| {})).unwrap();
    assert!(report.is_intact(), "{report:?}");
    let ids: Vec<KeyId> = block_on(store.list_keys().map(Result::unwrap).collect());
    let key = |id: &KeyId| to_hex(block_on(store.get_key(id)).unwrap().expose_secret());
    ids.iter().map(|id| (id.as_str().to_owned(), key(id))).collect()
}

/// The same of the store at a path, which is closed again.
pub(crate) fn keys_at(path: &Path) -> Keys {
    let store = open(path);
    let keys = keys(&store);
    close(&store);
    keys
}

pub(crate) fn close(store: &FileStore) {
    block_on(store.close()).unwrap();
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    PathBuf::from(format!("{}{suffix}", path.display()))
}

/// Copies what is in a directory, by another process: this one would end SQLite's locks if it
/// closed a file.
pub(crate) fn copy_all(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-Rp").args([&from.join("."), to]).status().unwrap().success());
}

/// The contents of all files below a directory, but of locks and indexes.
pub(crate) fn snapshot(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let top = tempfile::tempdir().unwrap();
    copy_all(directory, top.path());
    let mut files = BTreeMap::new();
    let mut directories = vec![top.path().to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            let name = entry.path().strip_prefix(top.path()).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
            } else {
                // How many checkpoints there were is no content.
                let is_content = !name.ends_with(".lock") && !name.ends_with("-shm");
                files.insert(name, if is_content { fs::read(entry.path()).unwrap() } else { Vec::new() });
            }
        }
    }
    files
}

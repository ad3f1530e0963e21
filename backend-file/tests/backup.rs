//! A copy of one moment, made while the store is in use.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_executor::block_on;
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

struct Fixture {
    directory: TempDir,
    store: FileStore,
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(700).unwrap()
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = block_on(FileStore::create(directory.path().join("keys.db"), root())).unwrap();
        Self { directory, store }
    }

    fn copy(&self) -> PathBuf {
        self.directory.path().join("copies/of/keys.db")
    }
}

#[test]
fn a_copy_is_a_store_of_its_own_with_all_keys() {
    let fixture = Fixture::new();
    let keys: Vec<(KeyId, SecretKey)> = (0..300).map(|number| (id(&format!("user-{number}")), key())).collect();
    for (id, key) in &keys {
        block_on(fixture.store.put_key(id, key)).unwrap();
    }
    block_on(fixture.store.backup(fixture.copy())).unwrap();
    assert_eq!(fs::metadata(fixture.copy()).unwrap().permissions().mode() & 0o777, 0o600);
    let directory = fixture.copy().parent().unwrap().to_owned();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(fs::read_dir(directory).unwrap().count(), 1, "something was left beside the copy");

    // What happens to the one does not touch the other.
    block_on(fixture.store.delete_key(&keys[0].0)).unwrap();
    let copy = block_on(FileStore::open(fixture.copy(), root())).unwrap();
    for (id, key) in &keys {
        assert_eq!(&block_on(copy.get_key(id)).unwrap(), key);
    }
    block_on(copy.delete_key(&keys[1].0)).unwrap();
    assert_eq!(block_on(fixture.store.get_key(&keys[1].0)).unwrap(), keys[1].1);
}

#[test]
fn what_stands_at_the_path_is_never_overwritten() {
    let fixture = Fixture::new();
    block_on(fixture.store.backup(fixture.copy())).unwrap();
    let before = fs::read(fixture.copy()).unwrap();
    block_on(fixture.store.put_key(&id("alice"), &key())).unwrap();
    let error = block_on(fixture.store.backup(fixture.copy())).unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::AlreadyExists, Operation::Backup));
    assert_eq!(fs::read(fixture.copy()).unwrap(), before);
    let own = block_on(fixture.store.backup(fixture.directory.path().join("keys.db"))).unwrap_err();
    assert_eq!(own.kind(), ErrorKind::AlreadyExists);
    assert!(block_on(fixture.store.find_key(&id("alice"))).unwrap().is_some());

    let file = fixture.directory.path().join("empty");
    fs::write(&file, "").unwrap();
    assert_eq!(block_on(fixture.store.backup(&file)).unwrap_err().kind(), ErrorKind::AlreadyExists);
    std::os::unix::fs::symlink(fixture.directory.path().join("nowhere"), fixture.directory.path().join("link"))
        .unwrap();
    let link = block_on(fixture.store.backup(fixture.directory.path().join("link"))).unwrap_err();
    assert_eq!(link.kind(), ErrorKind::AlreadyExists);
}

#[test]
fn a_copy_is_of_one_moment_while_writers_go_on() {
    let fixture = Fixture::new();
    // Both keys of a pair are written in turn, so at any moment they are equal or the first is one
    // step ahead.
    let steps: Vec<SecretKey> = (1..=100).map(|len| SecretKey::generate(len).unwrap()).collect();
    let first = id("first");
    let second = id("second");
    let stop = AtomicBool::new(false);
    for number in 0..2_000 {
        drop(block_on(fixture.store.get_or_create_key(&id(&format!("ballast-{}", number % 200)))));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for step in steps.iter().cycle() {
                block_on(fixture.store.put_key(&first, step)).unwrap();
                block_on(fixture.store.put_key(&second, step)).unwrap();
                if stop.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        for number in 0..10 {
            let path = fixture.directory.path().join(format!("copies/{number}.db"));
            block_on(fixture.store.backup(&path)).unwrap();
            let copy = block_on(FileStore::open(&path, root())).unwrap();
            assert!(block_on(copy.verify(|_| {})).unwrap().is_intact());
            let len = |id| block_on(copy.find_key(id)).unwrap().map_or(0, |key| key.expose_secret().len());
            let ahead = (len(&first) + steps.len() - len(&second)) % steps.len();
            assert!(ahead <= 1, "the copy is of two moments: {} and {}", len(&first), len(&second));
        }
        stop.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_copy_that_fails_leaves_nothing_behind() {
    let fixture = Fixture::new();
    for directory in ["keys.db/below", "x\0y"] {
        let error =
            block_on(fixture.store.backup(fixture.directory.path().join(directory).join("copy.db"))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    }
    let open = fixture.directory.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    assert_eq!(block_on(fixture.store.backup(open.join("copy.db"))).unwrap_err().kind(), ErrorKind::Config);
    block_on(fixture.store.close()).unwrap();
    assert_eq!(block_on(fixture.store.backup(fixture.copy())).unwrap_err().kind(), ErrorKind::Other);
    assert!(!fixture.copy().exists() && !fixture.directory.path().join("copies").exists());
}

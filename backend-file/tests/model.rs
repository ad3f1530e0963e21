//! Random histories of all operations, with reopening and crashes, against a plain map.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{ErrorKind, Finality, KeyId, KeyStore, KeyStoreExt, PutMode, SecretKey};
use keystead_file::{FileStore, RootSecret};
use proptest::prelude::*;
use tempfile::TempDir;

/// The number of histories. Set `KEYSTEAD_MODEL_CASES` for more.
const CASES: u32 = 24;

/// Users are few, so that operations meet.
type User = u8;
const USERS: User = 12;

#[derive(Clone, Debug)]
enum Step {
    Put(User, usize),
    Create(User, usize),
    GetOrCreate(User, usize),
    Get(User),
    GetMany(Vec<User>),
    Delete(User),
    DeleteMany(Vec<User>),
    Erase(User),
    List,
    Verify,
    Scrub,
    Rotate,
    /// Drops a rotation after its first page, if it has not ended by then.
    RotateAndDrop,
    /// Goes on with a copy.
    Backup,
    Reopen,
    /// Goes on with the files as a crash at this moment leaves them.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let user = || 0..USERS;
    let len = || prop_oneof![Just(32_usize), 1..3072_usize];
    let users = || proptest::collection::vec(0..USERS, 0..8);
    prop_oneof![
        8 => (user(), len()).prop_map(|(user, len)| Step::Put(user, len)),
        4 => (user(), len()).prop_map(|(user, len)| Step::Create(user, len)),
        4 => (user(), len()).prop_map(|(user, len)| Step::GetOrCreate(user, len)),
        4 => user().prop_map(Step::Get),
        2 => users().prop_map(Step::GetMany),
        4 => user().prop_map(Step::Delete),
        2 => users().prop_map(Step::DeleteMany),
        4 => user().prop_map(Step::Erase),
        2 => Just(Step::List),
        1 => Just(Step::Verify),
        1 => Just(Step::Scrub),
        2 => Just(Step::Rotate),
        2 => Just(Step::RotateAndDrop),
        1 => Just(Step::Backup),
        2 => Just(Step::Reopen),
        3 => Just(Step::Crash),
    ]
}

struct World {
    directory: TempDir,
    path: PathBuf,
    store: FileStore,
    root: u64,
    places: usize,
    keys: usize,
    model: BTreeMap<KeyId, SecretKey>,
}

fn root(number: u64) -> RootSecret {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    RootSecret::from_bytes(bytes)
}

fn id(user: User) -> KeyId {
    KeyId::new(format!("user-{user}@example.com")).unwrap()
}

fn ids(users: &[User]) -> Vec<KeyId> {
    users.iter().copied().map(id).collect()
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("0/keys.db");
        let store = block_on(FileStore::create(&path, root(0))).unwrap();
        Self { directory, path, store, root: 0, places: 0, keys: 0, model: BTreeMap::new() }
    }

    /// A key that was not used before.
    fn key(&mut self, len: usize) -> SecretKey {
        self.keys += 1;
        SecretKey::new(self.keys.to_le_bytes().iter().copied().cycle().take(len).collect::<Vec<u8>>()).unwrap()
    }

    fn next_place(&mut self) -> PathBuf {
        self.places += 1;
        self.directory.path().join(self.places.to_string()).join("keys.db")
    }

    fn go_on_at(&mut self, path: PathBuf) {
        self.store = block_on(FileStore::open(&path, root(self.root))).unwrap();
        self.path = path;
        self.is_as_the_model_says();
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Put(user, len) => {
                let id = id(*user);
                let key = self.key(*len);
                block_on(self.store.put_key(&id, &key)).unwrap();
                self.model.insert(id, key);
            }
            Step::Create(user, len) => {
                let id = id(*user);
                let key = self.key(*len);
                let created = block_on(self.store.put_key_with(&id, &key, PutMode::Create));
                assert_eq!(created.err().map(|e| e.kind()), self.model.get(&id).map(|_| ErrorKind::AlreadyExists));
                self.model.entry(id).or_insert(key);
            }
            Step::GetOrCreate(user, len) => {
                let id = id(*user);
                let key = self.key(*len);
                let got = block_on(self.store.get_or_create(&id, &key)).unwrap();
                assert_eq!(&got, self.model.entry(id).or_insert(key));
            }
            Step::Get(user) => {
                let id = id(*user);
                assert_eq!(block_on(self.store.find_key(&id)).unwrap().as_ref(), self.model.get(&id));
            }
            Step::GetMany(users) => {
                let ids = ids(users);
                for (id, outcome) in ids.iter().zip(block_on(self.store.get_keys(&ids))) {
                    assert_eq!(outcome.ok().as_ref(), self.model.get(id));
                }
            }
            Step::Delete(user) => {
                let id = id(*user);
                let deleted = block_on(self.store.delete_key(&id)).map_err(|e| e.kind());
                match self.model.remove(&id) {
                    Some(_) => assert_eq!(deleted.unwrap().finality, Finality::Immediate),
                    None => assert_eq!(deleted, Err(ErrorKind::NotFound)),
                }
            }
            Step::DeleteMany(users) => {
                let ids = ids(users);
                let outcomes = block_on(self.store.delete_keys(&ids));
                let existed: Vec<bool> = ids.iter().map(|id| self.model.contains_key(id)).collect();
                assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), existed);
                ids.iter().for_each(|id| drop(self.model.remove(id)));
            }
            Step::Erase(user) => {
                let id = id(*user);
                let erasure = block_on(self.store.erase_key(&id)).unwrap();
                let existed = self.model.remove(&id).is_some();
                assert_eq!((erasure.existed, erasure.verified, erasure.finality), (existed, true, Finality::Immediate));
            }
            Step::List => {
                let mut listed: Vec<KeyId> = block_on(self.store.list_keys().map(Result::unwrap).collect());
                listed.sort();
                assert_eq!(listed, self.model.keys().cloned().collect::<Vec<_>>());
            }
            Step::Verify => self.is_as_the_model_says(),
            Step::Scrub => assert!(block_on(self.store.scrub()).unwrap()),
            Step::Rotate => {
                self.root += 1;
                block_on(self.store.rotate(root(self.root), |_| {})).unwrap();
                assert!(!block_on(self.store.verify(|_| {})).unwrap().in_rotation);
            }
            Step::RotateAndDrop => self.rotate_and_drop(),
            Step::Backup => {
                let copy = self.next_place();
                block_on(self.store.backup(&copy)).unwrap();
                block_on(self.store.close()).unwrap();
                self.go_on_at(copy);
            }
            Step::Reopen => {
                block_on(self.store.close()).unwrap();
                self.go_on_at(self.path.clone());
            }
            Step::Crash => {
                let image = self.next_place();
                copy_as_a_crash_leaves_it(&self.path, &image);
                block_on(self.store.close()).unwrap();
                self.go_on_at(image);
            }
        }
    }

    fn rotate_and_drop(&mut self) {
        if self.root % 15 == 14 {
            // So many may be left off at most.
            block_on(self.store.rotate(root(self.root), |_| {})).unwrap();
        }
        self.root += 1;
        let told = AtomicBool::new(false);
        let mut rotation = pin!(self.store.rotate(root(self.root), |_| told.store(true, Ordering::Relaxed)));
        while !told.load(Ordering::Relaxed) {
            if let Poll::Ready(rotated) = rotation.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                return rotated.unwrap();
            }
            std::thread::yield_now();
        }
    }

    fn is_as_the_model_says(&self) {
        let report = block_on(self.store.verify(|_| {})).unwrap();
        assert!(report.is_intact());
        assert_eq!(report.intact, self.model.len() as u64);
        for (id, key) in &self.model {
            assert_eq!(&block_on(self.store.get_key(id)).unwrap(), key);
        }
    }
}

/// By another process: this one must not open the files of a store that it has open.
fn copy_as_a_crash_leaves_it(from: &Path, to: &Path) {
    let directory = to.parent().unwrap();
    fs::DirBuilder::new().mode(0o700).create(directory).unwrap();
    let log = from.with_file_name("keys.db-wal");
    assert!(Command::new("cp").arg("-p").args([from, &log, directory]).status().unwrap().success());
}

fn cases() -> u32 {
    std::env::var("KEYSTEAD_MODEL_CASES").map_or(CASES, |count| count.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn a_store_is_what_a_map_would_be(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        steps.iter().for_each(|step| world.take(step));
        world.is_as_the_model_says();
    }
}

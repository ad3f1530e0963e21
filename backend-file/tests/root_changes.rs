//! Following a new root secret: on whose thread, under which lock, and what rotations at once get.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs::OpenOptions;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use futures_util::future::{join, join_all};
use futures_util::{FutureExt, StreamExt};
use keystead_core::{BoxError, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootProvider, RootSecret};

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

fn root(number: u8) -> RootSecret {
    RootSecret::from_bytes([number; 32])
}

/// Blocks for a while, as a key management service does, and notes who has called it and what that
/// one held.
#[derive(Debug)]
struct SlowVault {
    lock: PathBuf,
    /// The thread that runs the futures of the test, as an executor would.
    executor: ThreadId,
    secrets: Mutex<Vec<SecretKey>>,
    calls: AtomicUsize,
    panics: AtomicBool,
    faults: Mutex<Vec<String>>,
}

impl SlowVault {
    fn new(lock: PathBuf) -> Arc<Self> {
        Arc::new(Self {
            lock,
            executor: thread::current().id(),
            secrets: Mutex::default(),
            calls: AtomicUsize::new(0),
            panics: AtomicBool::new(false),
            faults: Mutex::default(),
        })
    }

    fn note_call(&self, name: &str) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.load(Ordering::Relaxed), "the provider panics, as it should");
        if thread::current().id() == self.executor {
            self.faults.lock().unwrap().push(format!("{name} on the caller's thread"));
        }
        // Other writers hold the lock for moments; who waits for this call would hold it for as
        // long as that takes.
        let end = Instant::now() + Duration::from_secs(2);
        while let Ok(lock) = OpenOptions::new().write(true).open(&self.lock) {
            if lock.try_lock().is_ok() {
                break;
            }
            if Instant::now() > end {
                self.faults.lock().unwrap().push(format!("{name} while the lock is held"));
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

impl RootProvider for SlowVault {
    fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError> {
        self.note_call("create");
        let mut secrets = self.secrets.lock().unwrap();
        let secret = SecretKey::generate(32)?;
        secrets.push(secret.clone());
        Ok((secret, vec![secrets.len() as u8 - 1]))
    }

    fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError> {
        self.note_call("recover");
        Ok(self.secrets.lock().unwrap()[usize::from(reference[0])].clone())
    }
}

#[test]
fn a_provider_is_called_neither_on_the_callers_thread_nor_under_the_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let vault = SlowVault::new(directory.path().join("keys.db.lock"));
    let root = RootSecret::provider(vault.clone());
    let alice = id("alice");
    let other = block_on(FileStore::create(&path, root.clone())).unwrap();
    block_on(other.put_key(&alice, &key())).unwrap();
    let store = block_on(FileStore::open(&path, root.clone())).unwrap();

    // Each is the first to meet the new keyring, of a store that another handle has rotated.
    let count = 9;
    for number in 0..count {
        block_on(other.rotate(root.clone(), |_| {})).unwrap();
        let calls = vault.calls.load(Ordering::Relaxed);
        match number {
            0 => drop(block_on(store.get_key(&alice)).unwrap()),
            1 => block_on(store.put_key(&alice, &key())).unwrap(),
            2 => block_on(store.check()).unwrap(),
            3 => assert!(block_on(store.get_keys(std::slice::from_ref(&alice)))[0].is_ok()),
            4 => assert_eq!(block_on(store.list_keys().count()), 1),
            5 => assert!(block_on(store.verify(|_| {})).unwrap().is_intact()),
            6 => block_on(store.rotate(root.clone(), |_| {})).unwrap(),
            7 => drop(block_on(store.create_key(&alice, &key())).unwrap_err()),
            _ => {
                block_on(store.delete_key(&alice)).unwrap();
                block_on(store.put_key(&alice, &key())).unwrap();
            }
        }
        assert!(vault.calls.load(Ordering::Relaxed) > calls, "number {number} did not call the provider");
    }
    block_on(store.close()).unwrap();
    block_on(other.close()).unwrap();
    block_on(FileStore::open(&path, root)).unwrap();
    assert_eq!(*vault.faults.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_get_that_waits_for_a_provider_does_not_stop_its_executor() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let vault = SlowVault::new(directory.path().join("none"));
    let root = RootSecret::provider(vault.clone());
    let other = block_on(FileStore::create(&path, root.clone())).unwrap();
    block_on(other.put_key(&id("alice"), &key())).unwrap();
    let store = block_on(FileStore::open(&path, root.clone())).unwrap();
    block_on(other.rotate(root, |_| {})).unwrap();
    let calls = vault.calls.load(Ordering::Relaxed);
    let alice = id("alice");
    let mut get = store.get_key(&alice);
    assert!((&mut get).now_or_never().is_none(), "the first poll waited");
    // Many wait for one call.
    let gets = join_all((0..100).map(|_| store.get_key(&alice)));
    let (first, others) = block_on(join(get, gets));
    first.unwrap();
    others.into_iter().for_each(|key| drop(key.unwrap()));
    assert_eq!(vault.calls.load(Ordering::Relaxed), calls + 1);
}

#[test]
fn a_provider_that_panics_is_told_and_ends_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let vault = SlowVault::new(directory.path().join("none"));
    let root = RootSecret::provider(vault.clone());
    let alice = id("alice");
    let other = block_on(FileStore::create(&path, root.clone())).unwrap();
    block_on(other.put_key(&alice, &key())).unwrap();
    let store = block_on(FileStore::open(&path, root.clone())).unwrap();
    block_on(other.rotate(root.clone(), |_| {})).unwrap();
    vault.panics.store(true, Ordering::Relaxed);
    let errors = [
        block_on(store.get_key(&alice)).unwrap_err(),
        block_on(store.put_key(&alice, &key())).unwrap_err(),
        block_on(store.delete_key(&alice)).unwrap_err(),
    ];
    for error in errors {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::KeyUnavailable, Effect::NotApplied), "{error:?}");
    }
    vault.panics.store(false, Ordering::Relaxed);
    block_on(store.get_key(&alice)).unwrap();
    block_on(store.put_key(&alice, &key())).unwrap();
}

#[test]
fn a_get_that_is_given_up_leaves_no_error_behind() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let vault = SlowVault::new(directory.path().join("none"));
    let root = RootSecret::provider(vault.clone());
    let alice = id("alice");
    let other = block_on(FileStore::create(&path, root.clone())).unwrap();
    block_on(other.put_key(&alice, &key())).unwrap();
    let store = block_on(FileStore::open(&path, root.clone())).unwrap();
    block_on(other.rotate(root.clone(), |_| {})).unwrap();
    vault.panics.store(true, Ordering::Relaxed);
    let calls = vault.calls.load(Ordering::Relaxed);
    assert!(store.get_key(&alice).now_or_never().is_none());
    while vault.calls.load(Ordering::Relaxed) == calls {
        thread::sleep(Duration::from_millis(1));
    }
    // Time for the failure to arrive where nobody waits for it.
    thread::sleep(Duration::from_millis(100));
    vault.panics.store(false, Ordering::Relaxed);
    block_on(store.get_key(&alice)).unwrap();
}

/// A store with several pages of records.
fn large_store() -> (tempfile::TempDir, FileStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = block_on(FileStore::create(directory.path().join("keys.db"), root(0))).unwrap();
    let users: Vec<(KeyId, SecretKey)> = (0..1_300).map(|user| (id(&format!("user-{user}")), key())).collect();
    assert_eq!(block_on(store.load(futures_util::stream::iter(users))).unwrap().created, 1_300);
    (directory, store)
}

#[test]
fn a_process_never_takes_its_own_rotation_for_a_strangers() {
    let (_directory, store) = large_store();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        let checking: Vec<_> = (0..3)
            .map(|number| {
                let store = &store;
                let is_done = &is_done;
                scope.spawn(move || {
                    let mut checks = 0;
                    while !is_done.load(Ordering::Relaxed) {
                        block_on(store.check()).unwrap();
                        block_on(store.get_key(&id(&format!("user-{number}")))).unwrap();
                        checks += 1;
                    }
                    checks
                })
            })
            .collect();
        for number in 1..=6 {
            block_on(store.rotate(root(number), |_| {})).unwrap();
        }
        is_done.store(true, Ordering::Relaxed);
        assert!(checking.into_iter().all(|checks| checks.join().unwrap() > 0));
    });
}

#[test]
fn of_two_rotations_at_once_one_wins() {
    for _ in 0..3 {
        let (directory, store) = large_store();
        let outcomes = block_on(join(store.rotate(root(1), |_| {}), store.rotate(root(2), |_| {})));
        block_on(store.close()).unwrap();
        let outcomes = [outcomes.0, outcomes.1];
        let opening = [1, 2].map(|number| block_on(FileStore::open(directory.path().join("keys.db"), root(number))));
        for (rotated, opened) in outcomes.iter().zip(&opening) {
            match rotated {
                Ok(()) => assert!(opened.is_ok(), "a rotation that succeeded was undone"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{error:?}");
                    assert_eq!(opened.as_ref().unwrap_err().kind(), ErrorKind::KeyUnavailable);
                }
            }
        }
        assert_eq!(outcomes.iter().filter(|rotated| rotated.is_ok()).count(), 1);
        let winner = opening.into_iter().find_map(Result::ok).unwrap();
        let report = block_on(winner.verify(|_| {})).unwrap();
        assert!(report.is_intact() && !report.in_rotation && report.intact == 1_300, "{report:?}");
    }
}

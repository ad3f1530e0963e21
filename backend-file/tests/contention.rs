//! Others in the way: the lock of another process, a foreign program's transaction, a caller that
//! goes away, a log that grows.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use futures_executor::block_on;
use futures_util::future::join_all;
use keystead_core::{Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};
use rusqlite::Connection;
use tempfile::TempDir;

struct Fixture {
    _directory: TempDir,
    path: PathBuf,
    store: FileStore,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let store = block_on(FileStore::create(&path, RootSecret::generate())).unwrap();
        Self { _directory: directory, path, store }
    }

    /// Takes the lock that the writer of another process would hold.
    fn lock(&self) -> File {
        let lock = OpenOptions::new().write(true).open(self.path.with_file_name("keys.db.lock")).unwrap();
        lock.lock().unwrap();
        lock
    }

    fn log_len(&self) -> u64 {
        fs::metadata(self.path.with_file_name("keys.db-wal")).map_or(0, |log| log.len())
    }
}

fn id(text: &str) -> KeyId {
    KeyId::new(text).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

#[test]
fn reading_does_not_wait_for_another_process_that_writes() {
    let fixture = Fixture::new();
    let key = key();
    block_on(fixture.store.put_key(&id("alice"), &key)).unwrap();
    let _lock = fixture.lock();
    let tool = Connection::open(&fixture.path).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE; DELETE FROM cells").unwrap();
    assert_eq!(block_on(fixture.store.get_key(&id("alice"))).unwrap(), key);
}

#[test]
fn a_write_whose_caller_has_gone_is_dropped_before_it_starts() {
    let fixture = Fixture::new();
    let lock = fixture.lock();
    let first = id("first");
    let second = id("second");
    let one = key();
    let two = key();
    // The writer takes the first write and waits for the lock with it; the second one waits in the
    // queue.
    for id in [&first, &second] {
        let mut abandoned = pin!(fixture.store.put_key(id, &one));
        assert!(poll(abandoned.as_mut()).is_pending());
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(lock);
    block_on(fixture.store.scrub()).unwrap();
    for id in [&first, &second] {
        assert_eq!(block_on(fixture.store.find_key(id)).unwrap(), None);
        // And nothing is blocked by it.
        block_on(fixture.store.create_key(id, &two)).unwrap();
    }
}

fn poll<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_foreign_program_that_holds_the_database_is_a_timeout_without_effect() {
    let fixture = Fixture::new();
    block_on(fixture.store.put_key(&id("alice"), &key())).unwrap();
    let tool = Connection::open(&fixture.path).unwrap();
    tool.execute_batch("BEGIN IMMEDIATE").unwrap();
    for error in [
        block_on(fixture.store.put_key(&id("bob"), &key())).unwrap_err(),
        block_on(fixture.store.delete_key(&id("alice"))).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied));
        assert!(error.is_retryable());
    }
    tool.execute_batch("ROLLBACK").unwrap();
    block_on(fixture.store.put_key(&id("bob"), &key())).unwrap();
    assert!(block_on(fixture.store.find_key(&id("alice"))).unwrap().is_some());
}

#[test]
fn the_log_is_begun_again_before_it_grows_large() {
    let fixture = Fixture::new();
    let mut longest = 0;
    for round in 0..60 {
        let ids: Vec<KeyId> = (0..50).map(|number| id(&format!("user-{round}-{number}"))).collect();
        let keys: Vec<SecretKey> = ids.iter().map(|_| SecretKey::generate(3000).unwrap()).collect();
        let puts = ids.iter().zip(&keys).map(|(id, key)| fixture.store.put_key(id, key));
        for outcome in block_on(join_all(puts)) {
            outcome.unwrap();
        }
        longest = longest.max(fixture.log_len());
    }
    // All in all there were some 60 MiB of pages.
    assert!((4 << 20..8 << 20).contains(&longest), "{longest} bytes at most");
    // What it holds by then is scrubbed as ever.
    block_on(fixture.store.delete_key(&id("user-0-0"))).unwrap();
    assert_eq!(fixture.log_len(), 0);
}

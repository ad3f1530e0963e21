//! A process that is stopped while it holds the lock: the others read, and their writes end in time
//! and leave nothing.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use futures_util::{future, stream};
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;

use crate::child::{Worker, chain, id, meet, numbered_root, open, root};
use crate::fixture::{Fixture, beside, close, keys, keys_at};

/// A caller waits for the lock for 10 seconds; the rest is for a slow machine.
const LIMIT: Duration = Duration::from_secs(15);

/// The number of puts that are given up, each of which would take a kibibyte if it stayed.
const ABANDONED: usize = 60_000;

/// `LOCK...`: holds the locks until it is told that that is enough.
pub(crate) fn hold_locks(arguments: &[String]) {
    let locks = arguments.iter().map(|path| {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.lock().unwrap();
        file
    });
    let locks: Vec<File> = locks.collect();
    meet("held");
    drop(locks);
}

fn stopped_holder(locks: &[&Path]) -> Worker {
    let locks: Vec<&str> = locks.iter().map(|lock| lock.to_str().unwrap()).collect();
    let mut holder = Worker::start("hold_locks", &locks);
    holder.expect("held");
    holder.signal("STOP");
    holder
}

fn end(mut holder: Worker) {
    holder.signal("CONT");
    holder.say("enough");
    holder.finish();
}

pub(crate) fn others_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let told = Worker::start("write_beside_stopped", &[directory.path().to_str().unwrap()]).finish();
    println!("{}", told.concat());
}

/// `DIRECTORY`: in a process of its own, whose memory is measured.
pub(crate) fn write_beside_stopped(arguments: &[String]) {
    let [directory] = arguments else { panic!("DIRECTORY") };
    let path = Path::new(directory).join("keys.db");
    let alice = id("alice");
    let key = SecretKey::generate(32).unwrap();
    let first = open(&path);
    block_on(first.put_key(&alice, &key)).unwrap();
    let new_path = Path::new(directory).join("new.db");
    fs::write(beside(&new_path, ".lock"), "").unwrap();
    private(&beside(&new_path, ".lock"));

    let holder = stopped_holder(&[&beside(&path, ".lock"), &beside(&new_path, ".lock")]);
    let start = Instant::now();
    let second = open(&path);
    let third = open(&path);
    let fourth = open(&path);
    assert!(start.elapsed() < LIMIT / 2, "opening waits for the lock");
    for store in [&first, &second, &third, &fourth] {
        assert_eq!(block_on(store.get_key(&alice)).unwrap(), key);
        block_on(store.check()).unwrap();
    }

    let start = Instant::now();
    let new = SecretKey::generate(64).unwrap();
    let loaded = (id("loaded"), new.clone());
    let errors: Vec<(&str, Error)> = thread::scope(|scope| {
        let abandoning = scope.spawn(|| abandon(&fourth));
        let creating = scope.spawn(|| block_on(FileStore::create(&new_path, root())).unwrap_err());
        let erased = id("alice");
        let outcomes = block_on(future::join5(
            future::join(first.put_key(&alice, &new), second.put_key(&alice, &new)),
            future::join(second.delete_key(&alice), first.erase_key(&erased)),
            future::join(first.scrub(), second.rotate(numbered_root(1), |_| {})),
            first.load(stream::iter([loaded])),
            third.close(),
        ));
        abandoning.join().unwrap();
        let ((first_put, second_put), (delete, erase), (scrub, rotate), load, close) = outcomes;
        vec![
            ("put", first_put.unwrap_err()),
            ("put of another handle", second_put.unwrap_err()),
            ("delete", delete.unwrap_err()),
            ("erase", erase.unwrap_err()),
            ("scrub", scrub.unwrap_err()),
            ("rotate", rotate.unwrap_err()),
            ("load", load.unwrap_err()),
            ("close", close.unwrap_err()),
            ("create", creating.join().unwrap()),
        ]
    });
    assert!(start.elapsed() < LIMIT, "they took {:?}", start.elapsed());
    for (name, error) in errors {
        let text = chain(&error);
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Timeout, Effect::NotApplied), "{name}: {text}");
        assert!(text.contains(".db.lock"), "{name}: {text}");
        let pid = holder.id().to_string();
        let is_listed = fs::read_to_string("/proc/locks").is_ok_and(|locks| locks.contains(&format!(" {pid} ")));
        assert!(text.contains(&format!("process {pid} ")) || !is_listed, "{name}: {text}");
    }
    assert_eq!(block_on(second.get_key(&alice)).unwrap(), key);

    end(holder);
    for store in [&first, &second, &fourth] {
        let start = Instant::now();
        block_on(store.put_key(&id("bob"), &new)).unwrap();
        assert!(start.elapsed() < LIMIT / 2, "the store does not recover");
        // None of what was refused or given up was done, then or later.
        assert_eq!(block_on(store.get_key(&alice)).unwrap(), key);
        assert_eq!(keys(store).into_keys().collect::<Vec<_>>(), ["alice", "bob"]);
        close(store);
    }
    assert!(!new_path.exists());
    close(&open(&path));
}

fn private(path: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Begins puts and drops them: they leave the queue, and what they took is free again.
fn abandon(store: &FileStore) {
    let key = SecretKey::generate(32).unwrap();
    let mut context = Context::from_waker(Waker::noop());
    let before = resident_kib();
    for number in 0..ABANDONED {
        let id = id(format!("abandoned-{number}"));
        let mut put = pin!(store.put_key(&id, &key));
        assert!(put.as_mut().poll(&mut context).is_pending());
    }
    let grown = resident_kib().saturating_sub(before);
    println!("{ABANDONED} puts that were given up left {grown} KiB; ");
    assert!(grown < 24 * 1024, "puts that were given up stay in the queue: {grown} KiB");
}

/// 0 where the system does not tell.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or(0, |line| line.trim().trim_end_matches(" kB").parse().unwrap())
}

pub(crate) fn a_log_is_read() {
    let fixture = Fixture::new();
    let holder = stopped_holder(&[&beside(&fixture.path(), ".lock")]);
    let store = open(fixture.path());
    assert_eq!(keys(&store), fixture.at_kill);
    end(holder);
    block_on(store.put_key(&id("new"), &SecretKey::generate(32).unwrap())).unwrap();
    close(&store);
    assert_eq!(keys_at(&fixture.path()).len(), fixture.at_kill.len() + 1);
}

//! A log that grows although readers never let go of it.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use futures_executor::block_on;
use futures_util::StreamExt;
use futures_util::future::join_all;
use keystead_core::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;

use crate::child::{Random, Worker, id, meet, open};

const READERS: usize = 8;
const USERS: usize = 200;

/// Most runs need half of this. How many attempts it takes until all readers are between two reads is
/// a matter of chance, and each attempt lets one more batch into the log, which is about 1 MiB.
const LIMIT: u64 = 32 << 20;

/// The least number of bytes of keys that go through the log. The log itself takes whole pages for
/// them.
const ENOUGH: usize = 20 << 20;

const KEY_LEN: usize = 3000;
const KEYS_AT_ONCE: usize = 20;

pub(crate) fn stays_short() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let log = directory.path().join("keys.db-wal");
    let store = open(&path);
    put(&store, 0..USERS);

    let processes: Vec<Worker> = (0..READERS)
        .map(|number| {
            let mut worker = Worker::start("read_on", &[path.to_str().unwrap(), &number.to_string()]);
            worker.expect("ready");
            worker.say("go");
            worker
        })
        .collect();
    stays_short_while_we_write(&store, &log, 0);
    drop(processes);

    let enough = AtomicBool::new(false);
    thread::scope(|scope| {
        for number in 0..READERS {
            let store = &store;
            let enough = &enough;
            scope.spawn(move || read_until(store, number as u64, || enough.load(Ordering::Relaxed)));
        }
        // In a thread of its own, so that the readers end even if it fails.
        let written = scope.spawn(|| stays_short_while_we_write(&store, &log, 1_000_000)).join();
        enough.store(true, Ordering::Relaxed);
        written.unwrap();
    });
}

/// New keys, among which the log is begun again for its length alone, and overwritten ones, each of
/// which is scrubbed.
fn stays_short_while_we_write(store: &FileStore, log: &Path, first_user: usize) {
    let mut longest = 0;
    let mut random = Random::new(1);
    for round in 0..ENOUGH / (KEY_LEN * KEYS_AT_ONCE) {
        let first = if round % 32 == 31 { random.below(USERS) } else { first_user + USERS * (1 + round) };
        put(store, first..first + KEYS_AT_ONCE);
        // Looked at, never opened, from this process.
        let len = fs::metadata(log).map_or(0, |log| log.len());
        longest = longest.max(len);
        assert!(len < LIMIT, "the log has {len} bytes");
    }
    println!("the log had {} KiB at most", longest >> 10);
}

fn put(store: &FileStore, users: std::ops::Range<usize>) {
    let ids: Vec<KeyId> = users.map(|user| id(format!("user-{user}"))).collect();
    let key = SecretKey::generate(KEY_LEN).unwrap();
    for outcome in block_on(join_all(ids.iter().map(|id| store.put_key(id, &key)))) {
        outcome.unwrap();
    }
}

/// `PATH SEED`: reads until it is killed.
pub(crate) fn read_on(arguments: &[String]) {
    let [path, seed] = arguments else { panic!("PATH SEED") };
    let store = open(path);
    meet("ready");
    read_until(&store, seed.parse().unwrap(), || false);
}

fn read_until(store: &FileStore, seed: u64, enough: impl Fn() -> bool) {
    let mut random = Random::new(seed);
    while !enough() {
        if random.below(20) == 0 {
            let listed: Vec<_> = block_on(store.list_keys().take(100).collect());
            listed.into_iter().for_each(|id| drop(id.unwrap()));
        } else {
            block_on(store.get_key(&id(format!("user-{}", random.below(USERS))))).unwrap();
        }
    }
}

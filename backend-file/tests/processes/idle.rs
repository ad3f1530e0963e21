//! The store's own work when nobody writes, and what writers wait for when a reader is in the way.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use futures_executor::block_on;
use keystead_core::{Finality, KeyStore, KeyStoreExt, SecretKey};
use rusqlite::Connection;

use crate::child::{Worker, id, meet, open};
use crate::fixture::{beside, close};
use crate::remnants::{Search, cells};

/// An idle writer needs 3 seconds at most; the rest is for a slow machine.
const LIMIT: Duration = Duration::from_secs(15);

const PUTS: usize = 50;

/// Longer than a put waits for anything but a slow disk.
const SLOW: Duration = Duration::from_millis(100);

fn eventually(is_so: impl Fn() -> bool, what: &str) {
    let end = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn the_log_is_emptied() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let log = beside(&path, "-wal");
    let store = open(&path);
    for user in 0..3 {
        block_on(store.put_key(&id(format!("user-{user}")), &SecretKey::generate(32).unwrap())).unwrap();
        // Looked at, never opened, from this process.
        assert!(fs::metadata(&log).unwrap().len() > 0);
        eventually(|| fs::metadata(&log).unwrap().len() == 0, "the idle store does not empty its log");
    }
    close(&store);
}

/// A key is deleted beside a reader of another process, and both processes die before anything is
/// scrubbed.
pub(crate) fn the_next_to_open_scrubs() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let text_path = path.to_str().unwrap();
    let mut writer = Worker::start("delete_eventually", &[text_path]);
    writer.expect("written");
    let mut search = Search::default();
    let tool = Connection::open(&path).unwrap();
    for (part, bytes) in cells(&tool) {
        search.add_dead(&bytes);
        search.add_dead(&part[..32]);
    }
    drop(tool);
    let mut reader = Worker::start("read_slowly", &[text_path]);
    reader.expect("reading");
    writer.say("delete");
    writer.expect("eventual");
    drop(writer);
    drop(reader);
    assert!(!search.is_clean(directory.path()), "there was nothing to scrub");

    let mut opener = Worker::start("hold_open", &[text_path]);
    opener.expect("open");
    eventually(|| search.is_clean(directory.path()), "the next process to open the store does not scrub");
    opener.say("on");
    opener.finish();
}

/// `PATH`: creates a key, and deletes it when it is told to.
pub(crate) fn delete_eventually(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = open(path);
    block_on(store.put_key(&id("alice"), &SecretKey::generate(700).unwrap())).unwrap();
    assert!(block_on(store.scrub()).unwrap());
    meet("written");
    let deletion = block_on(store.delete_key(&id("alice"))).unwrap();
    assert_eq!(deletion.finality, Finality::Eventual { within: None });
    meet("eventual");
}

pub(crate) fn puts_do_not_wait_for_readers() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let store = open(&path);
    block_on(store.put_key(&id("alice"), &SecretKey::generate(32).unwrap())).unwrap();
    let mut reader = Worker::start("read_slowly", &[path.to_str().unwrap()]);
    reader.expect("reading");
    let deletion = block_on(store.delete_key(&id("alice"))).unwrap();
    assert_eq!(deletion.finality, Finality::Eventual { within: None });
    let mut times: Vec<Duration> = (0..PUTS).map(|user| time_of_put(&store, user)).collect();
    times.sort();
    let slow = times.iter().filter(|time| **time > SLOW).count();
    println!("beside a reader: median {:?}, longest {:?}", times[PUTS / 2], times[PUTS - 1]);
    assert!(slow <= PUTS / 4, "{slow} of {PUTS} puts waited for a reader: {times:?}");
    reader.say("enough");
    reader.finish();
    eventually(|| log_is_empty(&path), "the scrub does not end when the reader has gone");
    close(&store);
}

fn time_of_put(store: &keystead_file::FileStore, user: usize) -> Duration {
    let start = Instant::now();
    block_on(store.put_key(&id(format!("user-{user}")), &SecretKey::generate(32).unwrap())).unwrap();
    start.elapsed()
}

fn log_is_empty(path: &Path) -> bool {
    fs::metadata(beside(path, "-wal")).unwrap().len() == 0
}

//! One store, many processes.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;

use crate::child::{Random, Worker, id, meet, open, root, to_hex};

const PROCESSES: usize = 4;
const SECONDS: &str = "3";

pub(crate) fn four_processes_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let names: Vec<String> = (0..PROCESSES).map(|number| number.to_string()).collect();
    let start = |name: &String| Worker::start("hammer", &[path.to_str().unwrap(), name, SECONDS]);
    let mut workers: Vec<Worker> = names.iter().map(start).collect();
    workers.iter_mut().for_each(|worker| worker.expect("ready"));
    workers.iter_mut().for_each(|worker| worker.say("go"));

    let mut writes = Vec::new();
    let mut live = 0;
    for worker in workers {
        let lines = worker.finish();
        let [count, own] = lines.iter().map(|line| line.parse().unwrap()).collect::<Vec<usize>>()[..] else {
            panic!("a worker says its number of writes and of live keys");
        };
        writes.push(count);
        live += own;
    }
    let least = writes.iter().min().unwrap();
    let most = writes.iter().max().unwrap();
    println!("writes a process in {SECONDS} s: {writes:?}");
    assert!(*most <= 3 * least, "one process starves: {writes:?}");
    let store = open(&path);
    let listed = block_on(
        store
            .list_keys()
            .filter(|id| {
                let own = !id.as_ref().unwrap().as_str().starts_with("shared");
                async move { own }
            })
            .count(),
    );
    assert_eq!(listed, live);
}

/// `PATH NAME SECONDS`: writes its own ids and some that all share, checks what it reads, and says
/// how many writes it made and how many of its own keys live.
pub(crate) fn hammer(arguments: &[String]) {
    let [path, name, seconds] = arguments else { panic!("PATH NAME SECONDS") };
    let store = open(path);
    let mut random = Random::new(name.parse().unwrap());
    let mut expected: HashMap<String, SecretKey> = HashMap::new();
    meet("ready");
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let mut writes = 0;
    while Instant::now() < end {
        let own = format!("{name}-{}", random.below(200));
        let key = SecretKey::new(random.bytes(32)).unwrap();
        match random.below(10) {
            0..=5 => {
                block_on(store.put_key(&id(&own), &key)).unwrap();
                expected.insert(own, key);
            }
            6 => {
                let deleted = block_on(store.delete_key(&id(&own))).is_ok();
                assert_eq!(deleted, expected.remove(&own).is_some());
            }
            7 => block_on(store.put_key(&id(format!("shared-{}", random.below(10))), &key)).unwrap(),
            _ => {
                assert_eq!(block_on(store.find_key(&id(&own))).unwrap().as_ref(), expected.get(&own));
                continue;
            }
        }
        writes += 1;
    }
    for number in 0..200 {
        let own = format!("{name}-{number}");
        assert_eq!(block_on(store.find_key(&id(&own))).unwrap().as_ref(), expected.get(&own));
    }
    block_on(store.close()).unwrap();
    println!("{writes}\n{}", expected.len());
}

pub(crate) fn twenty_four_first_opens() {
    for _ in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/keys.db");
        let mut workers: Vec<Worker> =
            (0..24).map(|_| Worker::start("first_open", &[path.to_str().unwrap()])).collect();
        workers.iter_mut().for_each(|worker| worker.expect("ready"));
        workers.iter_mut().for_each(|worker| worker.say("go"));
        let keys: Vec<Vec<String>> = workers.into_iter().map(Worker::finish).collect();
        assert_eq!(keys[0].len(), 1);
        assert!(keys.iter().all(|key| *key == keys[0]), "they made {} stores", keys.len());
    }
}

/// `PATH`: opens or creates the store and says the key that all share.
pub(crate) fn first_open(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    meet("ready");
    let store = open(path);
    let key = block_on(store.get_or_create_key(&id("shared"))).unwrap();
    block_on(store.close()).unwrap();
    println!("{}", to_hex(key.expose_secret()));
}

pub(crate) fn modes_under_umask_000() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b/keys.db");
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "umask 000 && exec \"$0\" worker leave_open \"$1\""]).arg(std::env::current_exe().unwrap());
    assert!(shell.arg(&path).status().unwrap().success());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        assert_eq!(mode(&PathBuf::from(format!("{}{suffix}", path.display()))), 0o600, "{suffix}");
    }
    assert_eq!(mode(&directory.path().join("a/b")), 0o700);
    assert_eq!(mode(&directory.path().join("a")), 0o700);
}

/// `PATH`: creates a store with some keys and ends without closing it, so that all its files stay.
pub(crate) fn leave_open(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = open(path);
    for number in 0..KEYS {
        block_on(store.put_key(&id(format!("user-{number}")), &SecretKey::generate(32).unwrap())).unwrap();
    }
    std::process::exit(0);
}

const KEYS: usize = 100;

/// SQLite moves page 1 first, and with it the number of pages that the file does not have yet.
pub(crate) fn checkpoint_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    Worker::start("leave_open", &[path.to_str().unwrap()]).finish();
    let log = fs::read(directory.path().join("keys.db-wal")).unwrap();
    let mut frames = log[32..].chunks_exact(24 + 4096);
    let last = frames.rfind(|frame| frame[..4] == 1_u32.to_be_bytes()).unwrap();
    let mut file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::io::Write::write_all(&mut file, &last[24..]).unwrap();
    drop(file);

    let store = open(&path);
    assert_eq!(block_on(store.list_keys().filter(|id| std::future::ready(id.is_ok())).count()), KEYS);
}

/// A creator is killed when some of its pages are in the file and their undoing is in the journal.
pub(crate) fn creation_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    Worker::start("begin_creation", &[path.to_str().unwrap()]).finish();
    assert!(fs::metadata(&path).unwrap().len() > 0);
    assert!(fs::metadata(directory.path().join("keys.db-journal")).unwrap().len() > 0);
    assert_eq!(block_on(FileStore::open(&path, root())).unwrap_err().kind(), ErrorKind::Config);
    // Opening has undone it, so the same again.
    drop(fs::remove_file(&path));
    Worker::start("begin_creation", &[path.to_str().unwrap()]).finish();
    let store = block_on(FileStore::create(&path, root())).unwrap();
    block_on(store.put_key(&id("alice"), &SecretKey::generate(32).unwrap())).unwrap();
}

/// `PATH`: begins a transaction on an empty file that spills pages into it, and ends.
pub(crate) fn begin_creation(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create(true).truncate(false), 0o600);
    drop(options.open(path).unwrap());
    let tool = rusqlite::Connection::open(path).unwrap();
    tool.execute_batch("PRAGMA cache_size = 1; BEGIN; CREATE TABLE cells (bytes BLOB)").unwrap();
    for _ in 0..50 {
        tool.execute("INSERT INTO cells VALUES (randomblob(3000))", []).unwrap();
    }
    std::process::exit(0);
}

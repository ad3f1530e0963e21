//! Nothing of a dead record is left in any file: looked for, byte run by byte run, from another
//! process.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::Path;

use futures_executor::block_on;
use keystead_core::{DeletionGrade, Finality, KeyStore, KeyStoreExt, SecretKey};
use rusqlite::Connection;

use crate::child::{Random, Worker, from_hex, id, meet, open, to_hex};

/// The number of consecutive bytes of a dead record that count as a remnant.
const RUN: usize = 16;

/// The number of histories that run. Set `KEYSTEAD_HISTORIES` for more.
const HISTORIES: usize = 60;
const STEPS: &str = "80";

/// All cells of a store by part, as a tool of somebody else sees them.
pub(crate) type Cells = HashMap<Vec<u8>, Vec<u8>>;

pub(crate) fn cells(tool: &Connection) -> Cells {
    let mut statement = tool.prepare_cached("SELECT part, bytes FROM cells WHERE part > zeroblob(33)").unwrap();
    let cells = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    cells.map(Result::unwrap).collect()
}

/// A search for bytes that must be in no file, and for bytes that must be in the files exactly
/// once.
#[derive(Default)]
pub(crate) struct Search {
    dead: HashSet<[u8; RUN]>,
    dead_rows: HashSet<[u8; RUN]>,
    live: HashMap<[u8; RUN], usize>,
}

impl Search {
    pub(crate) fn add_dead(&mut self, bytes: &[u8]) {
        self.dead.extend(runs(bytes));
    }

    /// Rows come to life again, so those that are dead now are told at each scan.
    pub(crate) fn add_dead_row(&mut self, row: &[u8]) {
        self.dead_rows.extend(runs(row));
    }

    /// These bytes are alive after all.
    pub(crate) fn revive(&mut self, bytes: &[u8]) {
        for run in runs(bytes) {
            self.dead.remove(&run);
        }
    }

    pub(crate) fn add_live(&mut self, bytes: &[u8]) {
        self.live.insert(bytes[bytes.len() - RUN..].try_into().unwrap(), 0);
    }

    /// Reports whether no file holds any of the dead records.
    pub(crate) fn is_clean(&self, directory: &Path) -> bool {
        let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
        let contents: Vec<Vec<u8>> = paths.map(|path| fs::read(path).unwrap()).collect();
        contents.iter().all(|bytes| runs(bytes).all(|run| !self.dead.contains(&run)))
    }

    pub(crate) fn scan(&mut self, directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            for run in runs(&fs::read(&path).unwrap()) {
                let name = path.display();
                assert!(!self.dead.contains(&run), "a run of a dead record is in {name}");
                assert!(!self.dead_rows.contains(&run), "a run of a dead row key is in {name}");
                if let Some(count) = self.live.get_mut(&run) {
                    *count += 1;
                }
            }
        }
        assert!(self.live.values().all(|count| *count == 1), "a live record is not in the files exactly once");
        self.live.clear();
        self.dead_rows.clear();
    }
}

fn runs(bytes: &[u8]) -> impl Iterator<Item = [u8; RUN]> {
    bytes.windows(RUN).map(|run| run.try_into().unwrap())
}

pub(crate) fn random_histories() {
    let histories = std::env::var("KEYSTEAD_HISTORIES").map_or(HISTORIES, |count| count.parse().unwrap());
    let mut scans = 0;
    for seed in 0..histories {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        scans += watch(directory.path(), &path, &seed.to_string());
    }
    println!("{histories} histories of {STEPS} steps, {scans} scans");
    assert!(scans > histories);
}

/// Follows one worker through its history; how often the files were scanned.
fn watch(directory: &Path, path: &Path, seed: &str) -> usize {
    let mut worker = Worker::start("history", &[path.to_str().unwrap(), seed, STEPS, "alone"]);
    let mut search = Search::default();
    let mut scans = 0;
    while let Some(line) = worker.line() {
        match line.split_once(' ') {
            Some(("dead", bytes)) => search.add_dead(&from_hex(bytes)),
            Some(("dead_row", row)) => search.add_dead_row(&from_hex(row)),
            Some(("live", bytes)) => search.add_live(&from_hex(bytes)),
            _ => {
                search.scan(directory);
                scans += 1;
                worker.say("on");
            }
        }
    }
    worker.finish();
    scans
}

/// `PATH SEED STEPS alone|beside`: a random history through three openings of one store, telling
/// what died and when to scan.
pub(crate) fn history(arguments: &[String]) {
    let [path, seed, steps, company] = arguments else { panic!("PATH SEED STEPS alone|beside") };
    let mut random = Random::new(seed.parse().unwrap());
    let stores: Vec<_> = (0..3).map(|_| open(path)).collect();
    let tool = Connection::open(path).unwrap();
    let mut before = cells(&tool);
    let mut rows = HashSet::new();
    let users = 5 + random.below(40);
    for step in 0..steps.parse().unwrap() {
        let store = &stores[random.below(3)];
        let id = id(format!("user-{}", random.below(users)));
        let len = random.key_len();
        let key = SecretKey::new(random.bytes(len)).unwrap();
        match random.below(10) {
            0..=5 => block_on(store.put_key(&id, &key)).unwrap(),
            6 => drop(block_on(store.create_key(&id, &key))),
            7 => drop(block_on(store.delete_key(&id))),
            _ => {
                let erasure = block_on(store.erase_key(&id)).unwrap();
                assert_eq!(erasure.finality, Finality::Immediate);
                // Another process beside this one may put the id again before it is looked at.
                assert!(erasure.verified || company == "beside");
            }
        }
        let after = cells(&tool);
        for (part, bytes) in &before {
            if after.get(part) != Some(bytes) {
                println!("dead {}", to_hex(bytes));
            }
            rows.insert(part[..32].to_vec());
        }
        if before.keys().any(|part| after.get(part) != before.get(part)) && step % 4 == 0 {
            tell_and_meet(&after, &rows);
        }
        before = after;
    }
    assert!(block_on(stores[0].scrub()).unwrap());
    tell_and_meet(&before, &rows);
    // The last to close is one that has not written last.
    stores.iter().for_each(|store| block_on(store.close()).unwrap());
    drop(tool);
    meet("scan");
}

fn tell_and_meet(live: &Cells, rows: &HashSet<Vec<u8>>) {
    let alive: HashSet<&[u8]> = live.keys().map(|part| &part[..32]).collect();
    rows.iter().filter(|row| !alive.contains(row.as_slice())).for_each(|row| println!("dead_row {}", to_hex(row)));
    // A later part that holds padding only is sealed as well, so each one is unlike any other.
    live.values().for_each(|bytes| println!("live {}", to_hex(bytes)));
    meet("scan");
}

pub(crate) fn two_processes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let start = |seed| Worker::start("history", &[path.to_str().unwrap(), seed, "150", "beside"]);
    let mut workers = [start("1001"), start("1002")];
    let mut search = Search::default();
    // One pauses at its meeting point while the other goes on, so each sees the other's records
    // die.
    let mut running = vec![0, 1];
    let mut turn = 0;
    while !running.is_empty() {
        let number = running[turn % running.len()];
        loop {
            match workers[number].line() {
                Some(line) => match line.split_once(' ') {
                    Some(("dead", bytes)) => search.add_dead(&from_hex(bytes)),
                    Some(_) => {}
                    None => break workers[number].say("on"),
                },
                None => break running.retain(|running| *running != number),
            }
        }
        turn += 1;
    }
    workers.into_iter().for_each(|worker| drop(worker.finish()));
    search.scan(directory.path());
}

pub(crate) fn long_reader() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let store = open(&path);
    let alice = id("alice");
    let bob = id("bob");
    assert_eq!(store.capabilities().deletion, DeletionGrade::Immediate);
    for id in [&alice, &bob] {
        block_on(store.put_key(id, &SecretKey::generate(700).unwrap())).unwrap();
    }
    let mut search = Search::default();
    let tool = Connection::open(&path).unwrap();
    cells(&tool).values().for_each(|bytes| search.add_dead(bytes));
    drop(tool);

    let mut reader = Worker::start("read_slowly", &[path.to_str().unwrap()]);
    reader.expect("reading");
    let deletion = block_on(store.delete_key(&alice)).unwrap();
    assert_eq!(deletion.finality, Finality::Eventual { within: None });
    let erasure = block_on(store.erase_key(&bob)).unwrap();
    assert_eq!((erasure.finality, erasure.verified), (Finality::Eventual { within: None }, true));
    assert!(!block_on(store.scrub()).unwrap());
    // Writing goes on, and does not wait for the reader each time.
    let start = std::time::Instant::now();
    for number in 0..10 {
        block_on(store.put_key(&id(format!("user-{number}")), &SecretKey::generate(32).unwrap())).unwrap();
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(5));
    reader.say("enough");
    reader.finish();

    // No further call: an idle store cleans up by itself. The log is looked at, never opened, from
    // this process.
    let log = directory.path().join("keys.db-wal");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while fs::metadata(&log).is_ok_and(|log| log.len() > 0) {
        assert!(std::time::Instant::now() < end, "the idle store does not scrub");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    block_on(store.close()).unwrap();
    search.scan(directory.path());
}

/// `PATH`: holds a read transaction until it is told that that is enough.
pub(crate) fn read_slowly(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let tool = Connection::open(path).unwrap();
    tool.execute_batch("BEGIN").unwrap();
    let _: i64 = tool.query_row("SELECT count(*) FROM cells", [], |row| row.get(0)).unwrap();
    meet("reading");
}

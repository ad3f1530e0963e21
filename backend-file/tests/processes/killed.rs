//! Processes that are killed at random moments.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use futures_executor::block_on;
use keystead_core::{KeyStore, KeyStoreExt, SecretKey};
use rusqlite::Connection;

use crate::child::{Random, Worker, from_hex, id, open, to_hex};
use crate::remnants::{Cells, Search, cells};

/// How often a process is killed; set `KEYSTEAD_KILLS` for more.
const KILLS: usize = 40;

const USERS: usize = 20;

/// What the workers have said so far.
#[derive(Default)]
struct Known {
    /// Each user's key in hexadecimal, as far as it was acknowledged.
    keys: HashMap<String, String>,
    /// The write that was not: whose, and the new key, if it was no delete.
    under_way: Option<(String, Option<String>)>,
    /// All cells there ever were.
    cells: Cells,
    search: Search,
}

pub(crate) fn at_random_moments() {
    let kills = std::env::var("KEYSTEAD_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let (mut random, mut known, mut writes) = (Random::new(7), Known::default(), 0);
    for round in 0..kills {
        let worker = Worker::start("churn", &[path.to_str().unwrap(), &round.to_string()]);
        // Some die before the store is open, the first ones while it is being created.
        let moment = Duration::from_micros(random.below(80_000) as u64);
        for line in worker.lines_until_killed(moment) {
            writes += usize::from(line == "done");
            known.note(&line);
        }
        known.hold_against(&path);
    }
    println!("{kills} processes killed, {writes} writes acknowledged");
    assert!(writes > kills);
}

impl Known {
    fn note(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["cell", part, bytes] => drop(self.cells.insert(from_hex(part), from_hex(bytes))),
            ["put", user, key] => self.under_way = Some((user.to_owned(), Some(key.to_owned()))),
            ["delete", user] => self.under_way = Some((user.to_owned(), None)),
            ["done"] => match self.under_way.take() {
                Some((user, Some(key))) => drop(self.keys.insert(user, key)),
                Some((user, None)) => drop(self.keys.remove(&user)),
                None => panic!("nothing was under way"),
            },
            _ => panic!("a worker said {line}"),
        }
        if let ["cell", _, bytes] = words[..] {
            self.search.add_dead(&from_hex(bytes));
        }
    }

    /// Opens the store as the next process would: what was acknowledged is there, and what died before is in no file.
    fn hold_against(&mut self, path: &Path) {
        let store = open(path);
        let log = path.with_file_name("keys.db-wal");
        assert_eq!(std::fs::metadata(log).map_or(0, |log| log.len()), 0, "opening scrubs");
        let read = |user: &str| block_on(store.find_key(&id(user))).unwrap().map(|key| to_hex(key.expose_secret()));
        if let Some((user, new)) = self.under_way.take() {
            let found = read(&user);
            let old = self.keys.remove(&user);
            assert!(found == old || found == new, "a write that was cut off left neither the old nor the new key");
            self.keys.extend(found.map(|key| (user, key)));
        }
        for number in 0..USERS {
            let user = format!("user-{number}");
            assert_eq!(read(&user).as_ref(), self.keys.get(&user), "an acknowledged write is lost");
        }
        block_on(store.close()).unwrap();

        let tool = Connection::open(path).unwrap();
        let whole: String = tool.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let live = cells(&tool);
        drop(tool);
        let alive: HashSet<&[u8]> = live.keys().map(|part| &part[..32]).collect();
        let dead_rows = self.cells.keys().map(|part| &part[..32]).filter(|row| !alive.contains(row));
        dead_rows.for_each(|row| self.search.add_dead_row(row));
        live.values().for_each(|bytes| self.search.revive(bytes));
        self.search.scan(path.parent().unwrap());
    }
}

/// `PATH SEED`: writes and deletes until it is killed, saying before each write what it is about to do and what will die.
pub(crate) fn churn(arguments: &[String]) {
    let [path, seed] = arguments else { panic!("PATH SEED") };
    let store = open(path);
    let tool = Connection::open(path).unwrap();
    let mut random = Random::new(1000 + seed.parse::<u64>().unwrap());
    let mut said = Cells::new();
    loop {
        for (part, bytes) in cells(&tool) {
            if said.get(&part) != Some(&bytes) {
                println!("cell {} {}", to_hex(&part), to_hex(&bytes));
                said.insert(part, bytes);
            }
        }
        let user = format!("user-{}", random.below(USERS));
        if random.below(3) == 0 {
            println!("delete {user}");
            drop(block_on(store.delete_key(&id(&user))));
        } else {
            let len = random.key_len();
            let key = random.bytes(len);
            println!("put {user} {}", to_hex(&key));
            block_on(store.put_key(&id(&user), &SecretKey::new(key).unwrap())).unwrap();
        }
        println!("done");
    }
}

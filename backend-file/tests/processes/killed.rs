//! Four processes at a time that write and rotate, and are killed at random moments.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use keystead_core::{Error, ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;
use rusqlite::Connection;

use crate::child::{Random, Worker, from_hex, id, numbered_root, to_hex};
use crate::remnants::{Cells, Search, cells};

/// The number of processes that are killed. Set `KEYSTEAD_KILLS` for more.
const KILLS: usize = 40;

const PROCESSES: usize = 4;

/// The number of users that belong to each process alone.
const USERS: usize = 12;

/// The facts that the workers have reported so far.
#[derive(Default)]
struct Known {
    /// Each user's key in hexadecimal, as far as it was acknowledged.
    keys: HashMap<String, String>,
    /// The writes that were not: whose, and the new key, if it was no delete.
    under_way: Vec<(String, Option<String>)>,
    /// The last root secret that somebody was about to rotate to, and the one in force when that
    /// was looked at last.
    announced: usize,
    in_force: usize,
    /// All cells there ever were.
    cells: Cells,
    search: Search,
    writes: usize,
    rotations: usize,
    resumed: usize,
}

pub(crate) fn at_random_moments() {
    let kills = std::env::var("KEYSTEAD_KILLS").map_or(KILLS, |count| count.parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let mut random = Random::new(7);
    let mut known = Known::default();
    for round in 0..kills.div_ceil(PROCESSES) {
        let root = known.in_force.to_string();
        let workers: Vec<(Worker, Duration)> = (0..PROCESSES)
            .map(|number| {
                let seed = (round * PROCESSES + number).to_string();
                let worker = Worker::start("churn", &[path.to_str().unwrap(), &number.to_string(), &seed, &root]);
                // Some die before the store is open, the first ones while it is being created.
                (worker, Duration::from_micros(random.below(160_000) as u64))
            })
            .collect();
        let said = thread::scope(|scope| {
            let killed =
                workers.into_iter().map(|(worker, moment)| scope.spawn(move || worker.lines_until_killed(moment)));
            killed.collect::<Vec<_>>().into_iter().map(|killed| killed.join().unwrap()).collect::<Vec<_>>()
        });
        said.iter().for_each(|lines| known.note(lines));
        known.hold_against(&path);
    }
    let Known { writes, rotations, resumed, .. } = known;
    println!("{kills} processes killed, {writes} writes and {rotations} rotations acknowledged, {resumed} resumed");
    assert!(writes > kills && rotations > 0);
}

impl Known {
    /// Takes up what one worker has said.
    fn note(&mut self, lines: &[String]) {
        let mut under_way = None;
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["cell", part, bytes] => {
                    self.search.add_dead(&from_hex(bytes));
                    self.cells.insert(from_hex(part), from_hex(bytes));
                }
                ["keyring", bytes] => self.search.add_dead(&from_hex(bytes)),
                ["put", user, key] => under_way = Some((user.to_owned(), Some(key.to_owned()))),
                ["delete", user] => under_way = Some((user.to_owned(), None)),
                ["rotate", number] => self.announced = self.announced.max(number.parse().unwrap()),
                ["backed_up"] => {}
                ["refused"] => under_way = None,
                ["rotated"] => self.rotations += 1,
                ["done"] => {
                    self.writes += 1;
                    match under_way.take() {
                        Some((user, Some(key))) => drop(self.keys.insert(user, key)),
                        Some((user, None)) => drop(self.keys.remove(&user)),
                        None => panic!("nothing was under way"),
                    }
                }
                _ => panic!("a worker said {line}"),
            }
        }
        self.under_way.extend(under_way);
    }

    /// Opens the store as the next process would: what was acknowledged is there, a rotation that
    /// was cut off goes on, and what died before is in no file.
    fn hold_against(&mut self, path: &Path) {
        let opened = (self.in_force..=self.announced).rev().find_map(|number| Some((number, open(path, number)?)));
        let (number, store) = opened.expect("one of the announced root secrets opens the store");
        self.in_force = number;
        let log = path.with_file_name("keys.db-wal");
        assert_eq!(std::fs::metadata(log).map_or(0, |log| log.len()), 0, "opening scrubs");
        let read = |user: &str| block_on(store.find_key(&id(user))).unwrap().map(|key| to_hex(key.expose_secret()));
        for (user, new) in std::mem::take(&mut self.under_way) {
            let found = read(&user);
            let old = self.keys.remove(&user);
            assert!(found == old || found == new, "a write that was cut off left neither the old nor the new key");
            self.keys.extend(found.map(|key| (user, key)));
        }
        let check_all = || {
            for user in (0..PROCESSES).flat_map(|process| (0..USERS).map(move |number| user(process, number))) {
                assert_eq!(read(&user).as_ref(), self.keys.get(&user), "an acknowledged write is lost");
            }
            let report = block_on(store.verify(|_| {})).unwrap();
            assert!(report.is_intact() && report.intact == self.keys.len() as u64, "{report:?}");
            report.in_rotation
        };
        if check_all() {
            block_on(store.rotate(numbered_root(number), |_| {})).unwrap();
            assert!(!check_all(), "a rotation that was cut off does not go on");
            self.resumed += 1;
        }
        block_on(store.close()).unwrap();

        let tool = Connection::open(path).unwrap();
        let whole: String = tool.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(whole, "ok");
        let live = cells(&tool);
        self.search.revive(&keyring(&tool));
        drop(tool);
        let alive: HashSet<&[u8]> = live.keys().map(|part| &part[..32]).collect();
        let dead_rows = self.cells.keys().map(|part| &part[..32]).filter(|row| !alive.contains(row));
        dead_rows.for_each(|row| self.search.add_dead_row(row));
        live.values().for_each(|bytes| self.search.revive(bytes));
        // Copies that were cut off, and hold what was alive then.
        let paths = std::fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
        let is_backup = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with("backup-");
        paths.filter(is_backup).for_each(|backup| std::fs::remove_file(backup).unwrap());
        self.search.scan(path.parent().unwrap());
    }
}

/// `None` if the root secret of this number is not the store's.
fn open(path: &Path, number: usize) -> Option<FileStore> {
    match block_on(FileStore::open_or_create(path, numbered_root(number))) {
        Ok(store) => Some(store),
        Err(e) if e.kind() == ErrorKind::KeyUnavailable => None,
        Err(e) => panic!("{e:?}"),
    }
}

fn user(process: usize, number: usize) -> String {
    format!("user-{process}-{number}")
}

/// The sealed part of the keyring, and its checksum: the header before it is nearly all zeros,
/// which are everywhere.
fn keyring(tool: &Connection) -> Vec<u8> {
    tool.query_row("SELECT substr(bytes, 555) FROM keyring WHERE number = 1", [], |row| row.get(0)).unwrap()
}

/// `PATH PROCESS SEED ROOT`: creates, puts, deletes, backs up and rotates until it is killed,
/// saying before each write what it is about to do and what may die.
pub(crate) fn churn(arguments: &[String]) {
    let [path, process, seed, root] = arguments else { panic!("PATH PROCESS SEED ROOT") };
    let (path, process, mut root): (_, usize, usize) =
        (Path::new(path), process.parse().unwrap(), root.parse().unwrap());
    // Who comes later than another's rotation goes on with that one's root secret.
    let follow = |root: &mut usize| {
        let from = *root;
        let opened = (from..from + 1_000).find_map(|number| Some((number, open(path, number)?)));
        let (number, store) = opened.expect("a later root secret opens the store");
        *root = number;
        store
    };
    let mut store = follow(&mut root);
    let tool = Connection::open(path).unwrap();
    let mut random = Random::new(1000 + seed.parse::<u64>().unwrap());
    let mut said = Cells::new();
    let mut said_keyring = Vec::new();
    loop {
        for (part, bytes) in cells(&tool) {
            if said.get(&part) != Some(&bytes) {
                println!("cell {} {}", to_hex(&part), to_hex(&bytes));
                said.insert(part, bytes);
            }
        }
        let keyring = keyring(&tool);
        if said_keyring != keyring {
            println!("keyring {}", to_hex(&keyring));
            said_keyring = keyring;
        }
        let user = user(process, random.below(USERS));
        let len = random.key_len();
        let id = id(&user);
        let key = random.bytes(len);
        let outcome = match random.below(40) {
            0..2 => {
                println!("rotate {}", root + 1);
                block_on(store.rotate(numbered_root(root + 1), |_| {})).map(|()| {
                    root += 1;
                    "rotated"
                })
            }
            2 => {
                let backup = path.with_file_name(format!("backup-{process}-{seed}-{}", random.below(1 << 30)));
                let backed_up = block_on(store.backup(&backup)).map(|()| "backed_up");
                drop(std::fs::remove_file(backup));
                backed_up
            }
            3..12 => {
                println!("delete {user}");
                done(block_on(store.erase_key(&id)))
            }
            12..20 => {
                println!("put {user} {}", to_hex(&key));
                match done(block_on(store.create_key(&id, &SecretKey::new(key).unwrap()))) {
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok("refused"),
                    outcome => outcome,
                }
            }
            _ => {
                println!("put {user} {}", to_hex(&key));
                done(block_on(store.put_key(&id, &SecretKey::new(key).unwrap())))
            }
        };
        match outcome {
            Ok(word) => println!("{word}"),
            Err(e) if e.kind() == ErrorKind::KeyUnavailable => {
                println!("refused");
                store = follow(&mut root);
            }
            Err(e) => panic!("{e:?}"),
        }
    }
}

fn done<T>(outcome: Result<T, Error>) -> Result<&'static str, Error> {
    outcome.map(|_| "done")
}

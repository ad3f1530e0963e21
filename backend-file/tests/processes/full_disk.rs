//! A disk that is full: a small one in memory, mounted in a namespace of the worker's own, whose
//! end takes it away.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind as IoErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::FileStore;
use libtest_mimic::{Completion, Trial};
use rusqlite::Connection;

use crate::child::{Random, Worker, chain, id, open, root};

/// The numbers of pages of 4 KiB that are left free, one after the other, so that each step of a
/// write is once the one that finds no space.
const FREE_PAGES: [u64; 12] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 12, 16, 24];

const USERS: usize = 12;

/// Shows as ignored where this user may mount nothing.
pub(crate) fn trial() -> Trial {
    Trial::ignorable_test("a_full_disk_is_told_and_costs_nothing", || match mounting() {
        Some(command) => {
            let directory = tempfile::tempdir().unwrap();
            Worker::start_by(command, "fill_disk", &[directory.path().to_str().unwrap()]).finish();
            Ok(Completion::Completed)
        }
        None => Ok(Completion::ignored_with("this user can mount no tmpfs, with or without a user namespace")),
    })
}

/// Returns a command that mounts a disk of 1 MiB at the worker's first argument, for the worker
/// alone.
fn mounting() -> Option<Command> {
    let mount = r#"mount -t tmpfs -o size=1m,mode=700 tmpfs "$3" && exec "$0" "$@""#;
    let command = |options: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(options).args(["--mount", "sh", "-c", mount]);
        command
    };
    let works = |options: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        let mut probe = command(options);
        probe.arg(std::env::current_exe().unwrap()).args(["worker", "say_ready"]).arg(directory.path());
        probe.output().is_ok_and(|output| output.status.success())
    };
    let ways: [&[&str]; 2] = [&["--user", "--map-root-user"], &[]];
    ways.into_iter().find(|options| works(options)).map(command)
}

pub(crate) fn say_ready(_: &[String]) {
    println!("ready");
}

/// `DIRECTORY`, on a small disk.
pub(crate) fn fill_disk(arguments: &[String]) {
    let [directory] = arguments else { panic!("DIRECTORY") };
    let directory = Path::new(directory);
    writes(directory);
    openings(directory);
    creations(directory);
    restores(directory);
}

fn restores(directory: &Path) {
    let path = directory.join("restored/keys.db");
    let backup = directory.join("monday.db");
    let alice = id("alice");
    let [early, late] = [700, 100].map(|len| SecretKey::generate(len).unwrap());
    let store = open(&path);
    block_on(store.put_key(&alice, &early)).unwrap();
    block_on(store.backup(&backup)).unwrap();
    block_on(store.put_key(&alice, &late)).unwrap();
    block_on(store.close()).unwrap();
    let mut refused = 0;
    for free in (0..24).chain([64]) {
        let ballast = Ballast::leaving(directory, free);
        let restored = block_on(FileStore::restore(&backup, &path, root()));
        drop(ballast);
        let (store, expected) = match restored {
            Ok(store) => (store, &early),
            Err(error) if error.effect() == Effect::NotApplied => {
                refused += is_about_the_disk(&error);
                (block_on(FileStore::open(&path, root())).unwrap(), &late)
            }
            // The backup is in place and could not be opened.
            Err(error) => {
                assert_eq!(error.operation(), Operation::Open, "{}", chain(&error));
                (block_on(FileStore::open(&path, root())).unwrap(), &early)
            }
        };
        assert_eq!(block_on(store.get_key(&alice)).unwrap(), *expected);
        // For the next restore to replace.
        block_on(store.put_key(&alice, &late)).unwrap();
        block_on(store.close()).unwrap();
        let names = fs::read_dir(path.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name());
        for name in names.map(|name| name.into_string().unwrap()) {
            assert!(!name.contains("restoring"), "{name} was left behind");
            // The disk is small.
            if name.contains("replaced") {
                fs::remove_file(path.with_file_name(name)).unwrap();
            }
        }
    }
    assert!(refused > 0, "the disk was not full");
}

fn writes(directory: &Path) {
    let path = directory.join("keys.db");
    let store = open(&path);
    let mut random = Random::new(1);
    let mut expected = HashMap::new();
    for user in 0..USERS {
        let key = new_key(&mut random);
        block_on(store.put_key(&id(format!("user-{user}")), &key)).unwrap();
        expected.insert(format!("user-{user}"), key);
    }
    let mut refused = 0;
    for free in FREE_PAGES {
        let ballast = Ballast::leaving(directory, free);
        for user in 0..2 * USERS {
            let name = format!("user-{user}");
            if user % 5 == 4 {
                match block_on(store.delete_key(&id(&name))) {
                    Ok(_) => assert!(expected.remove(&name).is_some()),
                    Err(error) if error.kind() == ErrorKind::NotFound => assert!(!expected.contains_key(&name)),
                    Err(error) => refused += is_about_the_disk(&error),
                }
            } else {
                let key = new_key(&mut random);
                match block_on(store.put_key(&id(&name), &key)) {
                    Ok(()) => {
                        assert!(free > 0, "the disk was not full");
                        expected.insert(name, key);
                    }
                    Err(error) => refused += is_about_the_disk(&error),
                }
            }
        }
        has_all(&store, &expected);
        drop(ballast);
        // And all is well when there is room again.
        let name = format!("user-{}", random.below(2 * USERS));
        let key = new_key(&mut random);
        block_on(store.put_key(&id(&name), &key)).unwrap();
        expected.insert(name, key);
        assert!(block_on(store.scrub()).unwrap());
        has_all(&store, &expected);
    }
    assert!(refused > 0);
    block_on(store.close()).unwrap();
    has_all(&open(&path), &expected);
    let tool = Connection::open(&path).unwrap();
    let whole: String = tool.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(whole, "ok");
}

fn openings(directory: &Path) {
    let path = directory.join("keys.db");
    let mut refused = 0;
    for free in FREE_PAGES {
        let ballast = Ballast::leaving(directory, free);
        match block_on(FileStore::open(&path, root())) {
            Ok(store) => block_on(store.close()).unwrap(),
            Err(error) => refused += is_about_the_disk(&error),
        }
        drop(ballast);
        block_on(async { FileStore::open(&path, root()).await.unwrap().close().await.unwrap() });
    }
    assert!(refused > 0, "the disk was not full");
}

fn creations(directory: &Path) {
    let mut refused = 0;
    for free in FREE_PAGES {
        let ballast = Ballast::leaving(directory, free);
        let path = directory.join(format!("new-{free}")).join("keys.db");
        let created = match block_on(FileStore::create(&path, root())) {
            Ok(store) => store,
            Err(error) => {
                refused += is_about_the_disk(&error);
                drop(ballast);
                // The store may have been made before there was no room to open it.
                open(&path)
            }
        };
        block_on(created.close()).unwrap();
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
    assert!(refused > 0, "the disk was not full");
}

/// An error that names the cause and has had no effect: 1 of them.
fn is_about_the_disk(error: &Error) -> usize {
    let text = chain(error);
    assert_eq!(error.kind(), ErrorKind::QuotaExceeded, "{text}");
    // A creation may have got as far as the store, and fail when it opens that.
    assert!(error.effect() == Effect::NotApplied || error.operation() == Operation::Open, "{text}");
    assert!(text.contains("disk is full") || text.contains("No space left"), "{text}");
    1
}

fn has_all(store: &FileStore, expected: &HashMap<String, SecretKey>) {
    for user in 0..2 * USERS {
        let name = format!("user-{user}");
        assert_eq!(block_on(store.find_key(&id(&name))).unwrap().as_ref(), expected.get(&name));
    }
}

fn new_key(random: &mut Random) -> SecretKey {
    let len = random.key_len();
    SecretKey::new(random.bytes(len)).unwrap()
}

/// A file that takes the disk's room until it is dropped.
struct Ballast(PathBuf);

impl Ballast {
    fn leaving(directory: &Path, pages: u64) -> Self {
        let path = directory.join("ballast");
        let mut file = File::create(&path).unwrap();
        let mut len = 0;
        loop {
            match file.write(&[1; 4096]) {
                Ok(written) => len += written as u64,
                Err(e) if e.kind() == IoErrorKind::StorageFull => break,
                Err(e) => panic!("{e}"),
            }
        }
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(len.saturating_sub(4096 * pages)).unwrap();
        Self(path)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // A panic is under way if it cannot be removed: the disk ends with the worker.
        let _ = fs::remove_file(&self.0);
    }
}

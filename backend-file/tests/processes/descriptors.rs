//! A process that has no descriptors left.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{Effect, Error, ErrorKind, KeyStore, KeyStoreExt, Operation, SecretKey};
use keystead_file::FileStore;

use crate::child::{Worker, chain, id, open, root};

/// The number of attempts. They leave 0, 1, 2, ... descriptors free, so that each step is once the
/// one that finds none.
const FREE: usize = 16;

/// The number of the error "too many open files", on all systems that have it.
const EMFILE: i32 = 24;

pub(crate) fn none_left() {
    let directory = tempfile::tempdir().unwrap();
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -n 128 && exec "$0" "$@""#]);
    Worker::start_by(shell, "run_out_of_descriptors", &[directory.path().to_str().unwrap()]).finish();
}

/// `DIRECTORY`
pub(crate) fn run_out(arguments: &[String]) {
    let [directory] = arguments else { panic!("DIRECTORY") };
    let path = Path::new(directory).join("keys.db");
    let alice = id("alice");
    let mut key = SecretKey::generate(700).unwrap();
    block_on(open(&path).put_key(&alice, &key)).unwrap();
    let mut refused = [0; 3];
    for free in 0..FREE {
        // It has no connection for reading yet.
        let store = open(&path);
        let mut others = all_descriptors();
        others.truncate(others.len() - free);
        match block_on(store.get_key(&alice)) {
            Ok(found) => assert_eq!(found, key),
            Err(error) => refused[0] += is_about_descriptors(&error),
        }
        let new = SecretKey::generate(32 * (1 + free)).unwrap();
        match block_on(store.put_key(&alice, &new)) {
            Ok(()) => key = new,
            Err(error) => drop(is_about_descriptors(&error)),
        }
        match block_on(FileStore::open(&path, root())) {
            Ok(store) => block_on(store.close()).unwrap(),
            Err(error) => refused[1] += is_about_descriptors(&error),
        }
        let new_path = Path::new(directory).join(format!("new-{free}/keys.db"));
        let created = block_on(FileStore::create(&new_path, root()));
        drop(others);
        let created = created.unwrap_or_else(|error| {
            refused[2] += is_about_descriptors(&error);
            // The store may have been made before there was none left to open it with.
            open(&new_path)
        });

        // And all is well when there are some again.
        block_on(created.put_key(&alice, &key)).unwrap();
        block_on(created.close()).unwrap();
        assert_eq!(block_on(store.get_key(&alice)).unwrap(), key);
        key = SecretKey::generate(100).unwrap();
        block_on(store.put_key(&alice, &key)).unwrap();
        assert_eq!(block_on(open(&path).get_key(&alice)).unwrap(), key);
        block_on(store.close()).unwrap();
    }
    assert!(refused.iter().all(|count| (1..FREE).contains(count)), "{refused:?} of {FREE} were refused");
}

fn all_descriptors() -> Vec<File> {
    let mut files = Vec::new();
    loop {
        match File::open("/dev/null") {
            Ok(file) => files.push(file),
            Err(e) if e.raw_os_error() == Some(EMFILE) => return files,
            Err(e) => panic!("{e}"),
        }
    }
}

/// An error that names the cause and has had no effect: 1 of them.
fn is_about_descriptors(error: &Error) -> usize {
    let text = chain(error);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    // A creation may have got as far as the store, and fail when it opens that.
    assert!(error.effect() == Effect::NotApplied || error.operation() == Operation::Open, "{text}");
    assert!(text.contains("descriptors are left") || text.contains("Too many open files"), "{text}");
    1
}

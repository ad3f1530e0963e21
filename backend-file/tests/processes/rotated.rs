//! A process whose store another process gives a new salt of the same passphrase.

use std::thread;

use futures_executor::block_on;
use futures_util::future::join_all;
use keystead_core::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};

use crate::child::{Worker, id, meet};
use crate::memory::peak_kib;

const THREADS: usize = 4;
const GETS: usize = 8;
const ROTATIONS: usize = 2;

/// Less than a second stretching would take beside the first, in KiB.
const MORE_KIB: u64 = 40 * 1024;

fn passphrase() -> RootSecret {
    RootSecret::passphrase("correct horse")
}

pub(crate) fn one_stretching_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let store = block_on(FileStore::create(&path, passphrase())).unwrap();
    for user in 0..GETS {
        block_on(store.put_key(&id(format!("user-{user}")), &SecretKey::generate(32).unwrap())).unwrap();
    }
    let mut worker = Worker::start("read_all_at_once", &[path.to_str().unwrap()]);
    worker.expect("open");
    for _ in 0..ROTATIONS {
        block_on(store.rotate(passphrase(), |_| {})).unwrap();
        worker.say("go");
        worker.expect("read");
    }
    worker.say("end");
    assert_eq!(worker.finish(), ["closed"]);
    block_on(store.get_key(&id("new"))).unwrap();
}

/// `PATH`: after each rotation, reads from all threads at once and writes. Its memory grows by no
/// second stretching.
pub(crate) fn read_all_at_once(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = block_on(FileStore::open(path, passphrase())).unwrap();
    let ids: Vec<KeyId> = (0..GETS).map(|user| id(format!("user-{user}"))).collect();
    // Opening has stretched the passphrase once.
    let before = peak_kib();
    meet("open");
    for _ in 0..ROTATIONS {
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for key in block_on(join_all(ids.iter().map(|id| store.get_key(id)))) {
                        key.unwrap();
                    }
                });
            }
            scope.spawn(|| block_on(store.put_key(&id("new"), &SecretKey::generate(32).unwrap())).unwrap());
            scope.spawn(|| block_on(store.check()).unwrap());
        });
        let more = peak_kib() - before;
        assert!(more < MORE_KIB, "the peak has grown by {more} KiB");
        meet("read");
    }
    block_on(store.close()).unwrap();
    println!("closed");
}

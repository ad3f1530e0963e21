//! A process that forks with a store open: the child gets errors at once, and disturbs nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fork::{Fork, fork, waitpid_nohang};
use futures_executor::block_on;
use futures_util::{StreamExt, stream};
use keystead_core::{Error, ErrorKind, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::FileStore;

use crate::child::{Worker, chain, id, meet, numbered_root, open};
use crate::fixture::keys;

/// The number of forks: it takes several, because what other threads do at that moment matters.
const FORKS: usize = 12;

const LIMIT: Duration = Duration::from_secs(20);

pub(crate) fn a_child_disturbs_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let mut worker = Worker::start("fork_with_store", &[path.to_str().unwrap()]);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "forked") {
        lines.push(worker.line().expect("the worker failed: its message is above"));
    }
    // What the parent has written is there for others while it has the store open, and it goes on.
    let store = open(&path);
    assert_eq!(block_on(store.get_key(&id("steady"))).unwrap().expose_secret(), [FORKS as u8 - 1; 32]);
    block_on(store.put_key(&id("ours"), &SecretKey::generate(32).unwrap())).unwrap();
    worker.say("on");
    assert_eq!(worker.finish(), ["found"]);
    assert!(block_on(store.verify(|_| {})).unwrap().is_intact());
}

/// `PATH`
pub(crate) fn fork_with_store(arguments: &[String]) {
    let [path] = arguments else { panic!("PATH") };
    let store = open(path);
    let key = SecretKey::generate(32).unwrap();
    block_on(store.put_key(&id("alice"), &key)).unwrap();
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // The children find the writer and readers at work.
            while !is_done.load(Ordering::Relaxed) {
                block_on(store.put_key(&id("busy"), &key)).unwrap();
                assert_eq!(block_on(store.get_key(&id("alice"))).unwrap(), key);
            }
        });
        let forked = scope.spawn(|| {
            for number in 0..FORKS {
                match fork().unwrap() {
                    Fork::Child => be_a_child(store.clone()),
                    Fork::Parent(child) => wait_for(child),
                }
                let steady = SecretKey::new([number as u8; 32]).unwrap();
                block_on(store.put_key(&id("steady"), &steady)).unwrap();
                block_on(store.check()).unwrap();
            }
        });
        let outcome = forked.join();
        is_done.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
    assert_eq!(keys(&store).len(), 3);
    meet("forked");
    block_on(store.get_key(&id("ours"))).unwrap();
    block_on(store.close()).unwrap();
    println!("found");
}

fn wait_for(child: i32) {
    let end = Instant::now() + LIMIT;
    loop {
        match waitpid_nohang(child).unwrap() {
            Some(0) => return,
            Some(status) => panic!("the child ended with {status}"),
            None => assert!(Instant::now() < end, "the child hangs"),
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Never returns: what the parent has on its stack is not the child's.
fn be_a_child(store: FileStore) -> ! {
    let outcome = std::panic::catch_unwind(|| {
        let start = Instant::now();
        for (name, error) in errors_of(&store) {
            let text = chain(&error);
            assert_eq!(error.kind(), ErrorKind::Other, "{name}: {text}");
            assert!(text.contains("fork"), "{name}: {text}");
        }
        assert!(start.elapsed() < LIMIT / 2, "a forked process waits");
        drop(store);
    });
    std::process::exit(i32::from(outcome.is_err()));
}

fn errors_of(store: &FileStore) -> Vec<(&'static str, Error)> {
    let alice = id("alice");
    let key = SecretKey::generate(32).unwrap();
    let backup = std::env::temp_dir().join("never-written");
    let one = [(id("loaded"), key.clone())];
    vec![
        ("get", block_on(store.get_key(&alice)).unwrap_err()),
        ("get_keys", block_on(store.get_keys(std::slice::from_ref(&alice))).remove(0).unwrap_err()),
        ("put", block_on(store.put_key(&alice, &key)).unwrap_err()),
        ("create", block_on(store.create_key(&id("new"), &key)).unwrap_err()),
        ("delete", block_on(store.delete_key(&alice)).unwrap_err()),
        ("delete_keys", block_on(store.delete_keys(std::slice::from_ref(&alice))).remove(0).unwrap_err()),
        ("erase", block_on(store.erase_key(&alice)).unwrap_err()),
        ("list", block_on(store.list_keys().next()).unwrap().unwrap_err()),
        ("check", block_on(store.check()).unwrap_err()),
        ("scrub", block_on(store.scrub()).unwrap_err()),
        ("verify", block_on(store.verify(|_| {})).unwrap_err()),
        ("rotate", block_on(store.rotate(numbered_root(1), |_| {})).unwrap_err()),
        ("backup", block_on(store.backup(backup)).unwrap_err()),
        ("load", block_on(store.load(stream::iter(one))).unwrap_err()),
        ("close", block_on(store.close()).unwrap_err()),
    ]
}

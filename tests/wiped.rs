//! Tests that keys leave no copy behind in the memory of this process.
#![cfg(all(target_os = "linux", feature = "memory", feature = "file", feature = "layers"))]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use futures_executor::block_on;
use keystead::copy::{CopyOptions, copy_keys};
use keystead::file::{FileStore, RootSecret};
use keystead::layers::Cached;
use keystead::memory::MemoryStore;
use keystead::{KeyId, KeyStore, KeyStoreExt, SecretKey};

/// The length of the secrets. Any copy of 16 consecutive bytes contains one of the windows that are
/// searched for.
const LEN: usize = 64;
const WINDOW: usize = 8;

/// A secret whose bytes are computed, so that the test itself keeps no copy.
#[derive(Clone, Copy)]
struct Pattern(u64);

impl Pattern {
    fn byte(self, at: usize) -> u8 {
        let mixed = (self.0 + at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 56) as u8
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LEN);
        (0..LEN).for_each(|at| bytes.push(self.byte(at)));
        bytes
    }

    fn key(self) -> SecretKey {
        SecretKey::new(self.bytes()).unwrap()
    }

    /// Returns the offset of the window with which `memory` begins, or `None`.
    fn window_at(self, memory: &[u8]) -> Option<usize> {
        (0..LEN).step_by(WINDOW).find(|window| (0..WINDOW).all(|at| memory[at] == self.byte(window + at)))
    }

    /// Returns the largest number of times that any window of the secret occurs in memory.
    fn copies(self) -> usize {
        let mut counts = [0; LEN / WINDOW];
        let mut starts = [false; 256];
        (0..LEN).step_by(WINDOW).for_each(|window| starts[usize::from(self.byte(window))] = true);
        let mut buffer = vec![0; 1 << 16];
        let own = buffer.as_ptr() as usize..buffer.as_ptr() as usize + buffer.len();
        let memory = File::open("/proc/self/mem").unwrap();
        for (mut start, end) in writable_regions() {
            while start < end {
                let len = buffer.len().min(end - start);
                // What cannot be read, such as a guard page, holds nothing.
                let Ok(read) = memory.read_at(&mut buffer[..len], start as u64) else { break };
                for at in 0..(read + 1).saturating_sub(WINDOW) {
                    let in_buffer = own.contains(&(start + at));
                    if starts[usize::from(buffer[at])]
                        && !in_buffer
                        && let Some(window) = self.window_at(&buffer[at..])
                    {
                        counts[window / WINDOW] += 1;
                    }
                }
                buffer.fill(0);
                // Windows that lie across two reads are seen by the next one.
                start += if read == buffer.len() { read - WINDOW + 1 } else { len };
            }
        }
        counts.into_iter().max().unwrap()
    }
}

fn writable_regions() -> Vec<(usize, usize)> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let region = |line: &str| {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        rest.starts_with("rw").then_some((address(start)?, address(end)?))
    };
    maps.lines().filter_map(region).collect()
}

fn alice() -> KeyId {
    KeyId::new("alice").unwrap()
}

// One test: tests that run side by side would see each other's stacks change.
#[test]
fn no_copy_of_a_key_is_left_when_it_is_dropped() {
    a_key_by_itself();
    a_key_that_is_refused();
    a_root_secret();
    a_key_in_memory();
    a_key_in_a_file();
    a_key_in_a_cache();
    a_key_that_is_copied();
}

fn a_key_by_itself() {
    let pattern = Pattern(1 << 20);
    let key = pattern.key();
    let clone = key.clone();
    assert_eq!(pattern.copies(), 1, "the search finds what there is");
    assert!(key == clone && !format!("{key:?}").is_empty());
    drop(key);
    assert_eq!(pattern.copies(), 1);
    drop(clone);
    assert_eq!(pattern.copies(), 0);
}

fn a_key_that_is_refused() {
    let pattern = Pattern(2 << 20);
    let mut bytes = Vec::with_capacity(5000);
    (0..5000).for_each(|at| bytes.push(pattern.byte(at)));
    assert!(SecretKey::new(bytes).is_err());
    assert_eq!(pattern.copies(), 0);
}

fn a_root_secret() {
    // Half of a pattern is the raw secret.
    let pattern = Pattern(3 << 20);
    let mut raw = pattern.bytes();
    let root = RootSecret::parse(&raw[..32]).unwrap();
    raw.fill(0);
    drop(raw);
    assert_eq!(pattern.copies(), 1);
    let directory = tempfile::tempdir().unwrap();
    let store = block_on(FileStore::create(directory.path().join("keys.db"), root.clone())).unwrap();
    drop(root);
    block_on(store.close()).unwrap();
    drop(store);
    // The writer thread drops what it shares after it has said that the store is closed.
    let gone = || pattern.copies() == 0;
    assert!((0..100).any(|_| gone() || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        false
    }));
}

fn a_key_in_memory() {
    let old = Pattern(4 << 20);
    let new = Pattern(5 << 20);
    let store = MemoryStore::new();
    block_on(store.put_key(&alice(), &old.key())).unwrap();
    assert_eq!(old.copies(), 1);
    block_on(store.put_key(&alice(), &new.key())).unwrap();
    assert_eq!((old.copies(), new.copies()), (0, 1));
    drop(block_on(store.get_keys(&[alice()])));
    block_on(store.erase_key(&alice())).unwrap();
    assert_eq!(new.copies(), 0);
}

fn a_key_in_a_file() {
    let pattern = Pattern(6 << 20);
    let directory = tempfile::tempdir().unwrap();
    let store = block_on(FileStore::create(directory.path().join("keys.db"), RootSecret::generate())).unwrap();
    block_on(store.put_key(&alice(), &pattern.key())).unwrap();
    // The writer thread drops its clone when it has answered.
    block_on(store.scrub()).unwrap();
    assert_eq!(pattern.copies(), 0, "after a put");
    let key = block_on(store.get_key(&alice())).unwrap();
    assert_eq!(pattern.copies(), 1, "after a get");
    drop(key);
    assert_eq!(pattern.copies(), 0, "after the key of a get was dropped");
    block_on(store.delete_key(&alice())).unwrap();
    block_on(store.close()).unwrap();
    assert_eq!(pattern.copies(), 0, "after all");
}

fn a_key_in_a_cache() {
    let deleted = Pattern(7 << 20);
    let evicted = Pattern(8 << 20);
    let store = MemoryStore::new();
    let cached = Cached::builder(store.clone()).max_keys(1).build().unwrap();
    // Often enough that the cache also makes its copies for threads.
    let read = |id: &KeyId| (0..100).for_each(|_| drop(block_on(cached.get_key(id)).unwrap()));

    block_on(cached.put_key(&alice(), &deleted.key())).unwrap();
    read(&alice());
    assert!(deleted.copies() > 1, "the search finds what there is");
    block_on(cached.delete_key(&alice())).unwrap();
    assert_eq!(deleted.copies(), 0, "after a delete");

    block_on(store.put_key(&alice(), &evicted.key())).unwrap();
    read(&alice());
    block_on(store.delete_key(&alice())).unwrap();
    assert!(evicted.copies() > 0);
    let bob = KeyId::new("bob").unwrap();
    block_on(store.get_or_create_key(&bob)).unwrap();
    // A key that is used again and again is not evicted.
    for _ in 0..3 {
        read(&bob);
        cached.invalidate(&bob);
    }
    read(&bob);
    assert_eq!(evicted.copies(), 0, "after another key took its place");

    let expired = Pattern(12 << 20);
    let ttl = std::time::Duration::from_millis(500);
    let cached = Cached::builder(store.clone()).ttl(ttl).build().unwrap();
    block_on(store.put_key(&alice(), &expired.key())).unwrap();
    (0..100).for_each(|_| drop(block_on(cached.get_key(&alice())).unwrap()));
    block_on(store.delete_key(&alice())).unwrap();
    assert!(expired.copies() > 0);
    std::thread::sleep(ttl);
    assert_eq!(cached.remove_expired(), 1);
    assert_eq!(expired.copies(), 0, "after what has expired was removed");
}

fn a_key_that_is_copied() {
    let pattern = Pattern(9 << 20);
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    block_on(source.put_key(&alice(), &pattern.key())).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let options = || CopyOptions::default().journal(directory.path().join("journal"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    assert_eq!(runtime.block_on(copy_keys(&source, &target, options())).unwrap().copied, 1);
    assert_eq!(pattern.copies(), 1, "the two stores share one");
    block_on(source.delete_key(&alice())).unwrap();
    block_on(target.delete_key(&alice())).unwrap();
    assert_eq!(pattern.copies(), 0, "after both are deleted");
}

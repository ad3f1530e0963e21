//! The search in the memory of the worker.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use libtest_mimic::{Completion, Failed};

use crate::keys::{Hash, OpenedKeyring, reversed_words, state_after_pad};

/// A pattern is searched for in windows of this many bytes, so that any 15 of its bytes in a row
/// are found.
const WINDOW: usize = 8;

/// The number of addresses that an error shows.
const SHOWN: usize = 4;

const INNER_PAD: u8 = 0x36;
const OUTER_PAD: u8 = 0x5c;

/// The reason why the memory of the worker cannot be searched here.
pub(crate) struct Unreadable(pub(crate) String);

/// The number of times that a key must be in memory.
pub(crate) struct Held {
    /// The number of copies of its bytes.
    pub(crate) keys: usize,
    /// The number of copies of each of its two HMAC states.
    pub(crate) states: usize,
}

struct Pattern {
    name: String,
    bytes: Vec<u8>,
    expected: usize,
}

/// A search for the patterns of one stage after the other. It remembers what was wrong, and shows
/// addresses but no bytes.
pub(crate) struct Search {
    process: u32,
    memory: File,
    patterns: Vec<Pattern>,
    errors: String,
}

impl Search {
    pub(crate) fn of(process: u32) -> Result<Self, Unreadable> {
        let path = format!("/proc/{process}/mem");
        let unreadable = |e| Unreadable(format!("cannot read {path}: {e}"));
        let memory = File::open(&path).map_err(unreadable)?;
        let start = regions(process).first().unwrap().start;
        memory.read_exact_at(&mut [0], start).map_err(unreadable)?;
        Ok(Self { process, memory, patterns: Vec::new(), errors: String::new() })
    }

    pub(crate) fn expect_bytes(&mut self, name: &str, bytes: &[u8], expected: usize) {
        self.patterns.push(Pattern { name: name.to_owned(), bytes: bytes.to_vec(), expected });
    }

    /// Adds a key of HMAC-SHA-512, as all keys but the name key are.
    pub(crate) fn expect_key(&mut self, name: &str, key: &[u8; 32], held: Held) {
        self.expect_hmac_key(Hash::Sha512, name, key, held);
    }

    /// Adds all keys of a keyring. `held` is how often the record key of each epoch is in memory;
    /// the name key is as often as that of the latest.
    pub(crate) fn expect_keyring(&mut self, keyring: &OpenedKeyring, held: impl Fn(u32) -> usize) {
        let (latest, _) = keyring.epochs.last().unwrap();
        let name_keys = held(*latest);
        self.expect_hmac_key(Hash::Sha256, "name key", &keyring.name_key, Held { keys: name_keys, states: name_keys });
        for (epoch, key) in &keyring.epochs {
            let held = Held { keys: held(*epoch), states: held(*epoch) };
            self.expect_key(&format!("record key of epoch {epoch}"), key, held);
        }
    }

    pub(crate) fn expect_no_keyring(&mut self, keyring: &OpenedKeyring) {
        self.expect_keyring(keyring, |_| 0);
    }

    fn expect_hmac_key(&mut self, hash: Hash, name: &str, key: &[u8; 32], held: Held) {
        self.expect_bytes(name, key, held.keys);
        self.expect_bytes(&format!("{name}, words reversed"), &reversed_words(hash, key), 0);
        for (which, pad) in [("inner", INNER_PAD), ("outer", OUTER_PAD)] {
            let state = state_after_pad(hash, key, pad);
            let padded = key.map(|byte| byte ^ pad);
            self.expect_bytes(&format!("{name}, {which} state"), &state, held.states);
            self.expect_bytes(&format!("{name}, {which} state, words reversed"), &reversed_words(hash, &state), 0);
            self.expect_bytes(&format!("{name}, {which} pad"), &padded, 0);
            self.expect_bytes(&format!("{name}, {which} pad, words reversed"), &reversed_words(hash, &padded), 0);
        }
    }

    /// Searches for what was expected since the last run.
    pub(crate) fn run(&mut self, stage: &str) {
        let patterns = std::mem::take(&mut self.patterns);
        let mut windows = HashMap::new();
        // Most places in memory are passed over by their first byte and the one after it.
        let mut starts = vec![false; 1 << 16];
        for (index, pattern) in patterns.iter().enumerate() {
            for (number, window) in pattern.bytes.chunks_exact(WINDOW).enumerate() {
                starts[usize::from(u16::from_ne_bytes([window[0], window[1]]))] = true;
                windows.insert(window, (index, number));
            }
        }
        let mut found: Vec<Vec<Vec<String>>> =
            patterns.iter().map(|pattern| vec![Vec::new(); pattern.bytes.len() / WINDOW]).collect();
        for region in regions(self.process) {
            let mut bytes = vec![0; region.len];
            if let Err(e) = self.memory.read_exact_at(&mut bytes, region.start) {
                writeln!(self.errors, "{stage}: cannot read {}: {e}", region.name).unwrap();
            }
            for (at, window) in bytes.windows(WINDOW).enumerate() {
                if starts[usize::from(u16::from_ne_bytes([window[0], window[1]]))] {
                    if let Some((index, number)) = windows.get(window) {
                        found[*index][*number].push(format!("{:#x} in {}", region.start + at as u64, region.name));
                    }
                }
            }
        }
        for (pattern, windows) in patterns.iter().zip(found) {
            let most = windows.into_iter().max_by_key(Vec::len).unwrap();
            if most.len() != pattern.expected {
                let Pattern { name, expected, .. } = pattern;
                let copies = most.len();
                let places = most[..copies.min(SHOWN)].join(", ");
                writeln!(self.errors, "{stage}: {name}: {copies} copies and not {expected}: {places}").unwrap();
            }
        }
    }

    pub(crate) fn finish(self) -> Result<Completion, Failed> {
        if self.errors.is_empty() { Ok(Completion::Completed) } else { Err(self.errors.into()) }
    }
}

struct Region {
    start: u64,
    len: usize,
    name: String,
}

/// The writable regions of a process, which are what a secret can be in.
fn regions(process: u32) -> Vec<Region> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap();
    let region = |line: &str| {
        let mut columns = line.split_whitespace();
        let (start, end) = columns.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let writable = columns.next()?.starts_with("rw");
        let name = columns.nth(3).unwrap_or("an unnamed region").to_owned();
        writable.then_some(Region { start, len: usize::try_from(end - start).ok()?, name })
    };
    maps.lines().filter_map(region).collect()
}

//! The worker process, and the parent's handle of it.

use std::hint;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use keystead_core::{KeyId, SecretKey};
use keystead_sealing::{Keyring, RootSecret, SealedRecord};
use zeroize::Zeroize;

use crate::keys::root_bytes;

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// A worker process, killed when it is dropped.
pub(crate) struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    paused: bool,
}

impl Worker {
    pub(crate) fn start(role: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["worker", role]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output, paused: false }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Lets the worker run until it pauses at the stage, and returns what it tells there.
    pub(crate) fn stage<const N: usize>(&mut self, name: &str) -> [Vec<u8>; N] {
        if self.paused {
            self.input.write_all(b"\n").unwrap();
        }
        self.paused = true;
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        let mut columns = line.trim_end().split('\t');
        assert_eq!(columns.next(), Some(name), "the worker failed: its message is above");
        let values: Vec<Vec<u8>> = columns.map(|value| hex::decode(value).unwrap()).collect();
        values.try_into().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs in the worker process.
pub(crate) fn run(role: &str) {
    match role {
        "keyring" => use_keyring(),
        "passphrase" => use_passphrase(),
        _ => panic!("there is no role {role}"),
    }
}

fn use_keyring() {
    let mut raw = root_bytes();
    let root = apart(|| RootSecret::parse(&raw)).unwrap();
    raw.zeroize();

    let keyring = apart(Keyring::generate);
    let sealed = apart(|| keyring.seal_with(&root)).unwrap();
    pause("made", &[&sealed]);

    let clones: Vec<Keyring> = (0..5).map(|_| keyring.clone()).collect();
    let record = use_records(&keyring);
    for clone in clones {
        let thread = thread::Builder::new().stack_size(2 * APART * FRAME_LEN);
        thread.spawn(move || drop(use_records(&clone))).unwrap().join().unwrap();
    }
    pause("used", &[record.row.as_bytes(), &record.bytes]);

    let mut generations = vec![keyring];
    for _ in 0..3 {
        let next = apart(|| generations.last().unwrap().next_epoch()).unwrap();
        generations.push(next);
    }
    for keyring in &generations {
        drop(use_records(keyring));
    }
    let sealed = apart(|| generations.last().unwrap().seal_with(&root)).unwrap();
    pause("rotated", &[&sealed]);

    let (opened, root_key) = apart(|| Keyring::open_keeping_key(&root, None, &sealed)).unwrap();
    drop(apart(|| Keyring::open_keeping_key(&root, Some(&root_key), &sealed)).unwrap());
    let digits = apart(|| root.to_hex()).unwrap();
    drop(apart(|| RootSecret::parse(digits.as_bytes())).unwrap());
    drop(digits);
    drop(use_records(&opened));
    pause("opened", &[&apart(|| opened.seal_under(&root_key))]);

    drop((opened, root_key));
    let latest = generations.pop().unwrap();
    let reduced = apart(|| latest.without_old_epochs());
    drop((generations, latest));
    drop(use_records(&reduced));
    pause("without old epochs", &[]);

    drop((reduced, root));
    pause("dropped", &[]);
}

fn use_passphrase() {
    let root = RootSecret::passphrase(PASSPHRASE);
    let keyring = apart(Keyring::generate);
    let sealed = apart(|| keyring.seal_with(&root)).unwrap();
    pause("made", &[&sealed]);

    drop(keyring);
    let (opened, root_key) = apart(|| Keyring::open_keeping_key(&root, None, &sealed)).unwrap();
    pause("opened", &[]);

    drop((opened, root_key, root));
    pause("dropped", &[]);
}

/// Uses a keyring in each way that a record needs, and returns the record.
fn use_records(keyring: &Keyring) -> SealedRecord {
    let id = KeyId::new("alice").unwrap();
    let key = SecretKey::generate(32).unwrap();
    let record = apart(|| keyring.seal(&id, &key));
    assert_eq!(apart(|| keyring.row_key(&id)), record.row);
    assert!(apart(|| keyring.open(&record.row, &record.bytes)).is_ok());
    assert!(apart(|| keyring.open_as(&id, &record.row, &record.bytes)).is_ok());
    let mut damaged = record.bytes.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert!(apart(|| keyring.open(&record.row, &damaged)).is_err());
    record
}

/// The number of calls of [`apart`] in one process, at most.
const APART: usize = 100;
const FRAME_LEN: usize = 32 * 1024;

/// Runs `work` in a part of the stack that nothing else uses, so that what it leaves there is not
/// overwritten by chance.
fn apart<T>(work: impl FnOnce() -> T) -> T {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    let calls = CALLS.fetch_add(1, Ordering::Relaxed);
    // Each call runs higher up than the one before: the way down to it overwrites only what lies
    // above.
    descend(APART.checked_sub(calls).unwrap(), work)
}

#[inline(never)]
fn descend<T>(frames: usize, work: impl FnOnce() -> T) -> T {
    let mut frame = [0_u8; FRAME_LEN];
    hint::black_box(&mut frame);
    let result = if frames == 0 { work() } else { descend(frames - 1, work) };
    hint::black_box(&mut frame);
    result
}

/// Tells the parent that a stage is reached, and waits until it has searched.
fn pause(stage: &str, told: &[&[u8]]) {
    let told: String = told.iter().map(|value| format!("\t{}", hex::encode(value))).collect();
    println!("{stage}{told}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).unwrap();
}

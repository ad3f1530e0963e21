//! Workers as their parent sees them, and what parents and workers share.

use std::error::Error as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use futures_executor::block_on;
use keystead_core::{Error, KeyId};
use keystead_file::{FileStore, RootSecret};

/// A worker process, killed when it is dropped.
pub(crate) struct Worker {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    pub(crate) fn start(role: &str, arguments: &[&str]) -> Self {
        Self::spawn(Command::new(std::env::current_exe().unwrap()), role, arguments)
    }

    /// Starts a worker by way of a program that changes its surroundings and then becomes it: a
    /// command that takes the worker's own one as its last arguments.
    pub(crate) fn start_by(mut command: Command, role: &str, arguments: &[&str]) -> Self {
        command.arg(std::env::current_exe().unwrap());
        Self::spawn(command, role, arguments)
    }

    fn spawn(mut command: Command, role: &str, arguments: &[&str]) -> Self {
        command.args(["worker", role]).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        Self { process, input, output }
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Sends a signal, such as `STOP`, and for that waits until the process has stopped.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap().success());
        let mut is_waiting = name == "STOP";
        while is_waiting {
            let state = Command::new("ps").args(["-o", "stat=", "-p", &id]).output().unwrap();
            is_waiting = !state.stdout.starts_with(b"T");
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The next line; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let len = self.output.read_line(&mut line).unwrap();
        (len > 0).then(|| line.trim_end().to_owned())
    }

    pub(crate) fn expect(&mut self, line: &str) {
        assert_eq!(self.line().as_deref(), Some(line));
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").unwrap();
        self.input.flush().unwrap();
    }

    /// Reads along until a moment has passed, kills the process, and gives all whole lines that it
    /// said.
    pub(crate) fn lines_until_killed(mut self, moment: Duration) -> Vec<String> {
        let Self { process, output, .. } = &mut self;
        thread::scope(|scope| {
            let lines = scope.spawn(|| {
                let mut text = String::new();
                output.read_to_string(&mut text).unwrap();
                text
            });
            thread::sleep(moment);
            process.kill().unwrap();
            let text = lines.join().unwrap();
            // What follows the last line break was being written when the process died.
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            whole.lines().map(str::to_owned).collect()
        })
    }

    /// All lines up to the end of a process that must succeed.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            lines.push(line);
        }
        assert!(self.process.wait().unwrap().success(), "a worker failed: its message is above");
        lines
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A worker's side: says a line and waits for any answer.
pub(crate) fn meet(line: &str) {
    println!("{line}");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).unwrap();
}

pub(crate) fn root() -> RootSecret {
    numbered_root(0)
}

/// The root secrets of a store that is rotated, in their order.
pub(crate) fn numbered_root(number: usize) -> RootSecret {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    RootSecret::from_bytes(bytes)
}

pub(crate) fn open(path: impl AsRef<Path>) -> FileStore {
    block_on(FileStore::open_or_create(path.as_ref(), root())).unwrap()
}

pub(crate) fn id(text: impl Into<String>) -> KeyId {
    KeyId::new(text).unwrap()
}

/// All levels of an error, as a person reads them.
pub(crate) fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(": {e}"));
        cause = e.source();
    }
    text
}

pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A small random generator (xorshift64*), so that a history can be told by its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }

    /// A length of a key: mostly short, of every number of parts.
    pub(crate) fn key_len(&mut self) -> usize {
        match self.below(4) {
            0 => 32,
            1 => 1 + self.below(200),
            2 => 1 + self.below(1000),
            _ => 1 + self.below(3072),
        }
    }
}

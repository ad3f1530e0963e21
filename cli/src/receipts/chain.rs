//! [`Chain`]: reads a receipt log from the first line to the last, and finds the first line that
//! was changed, added or removed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use keystead::layers::ErasureReceipt;
use serde::Deserialize;

use super::entry::{Body, Entry, Hash, MAX_LINE_LEN, Torn};
use super::keys::PublicKey;
use super::log::{check_kind, failed, wait_for_lock};
use crate::exit::Outcome;

/// The count and the head that a log had at an earlier time, kept by an auditor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    pub(crate) count: u64,
    pub(crate) head: Hash,
}

/// The demands on a log, besides being whole.
#[derive(Debug, Default)]
pub(crate) struct Demands {
    /// The public keys: if there are any, each line must be signed by one of them.
    pub(crate) public_keys: Vec<PublicKey>,
    pub(crate) kept: Option<Kept>,
}

/// The first line that is wrong.
#[derive(Debug)]
pub(crate) struct Broken {
    /// The number of the line in the file, from 1.
    pub(crate) line: u64,
    /// The problem, as the predicate of a sentence about the line.
    pub(crate) why: String,
}

/// The findings about a log that is whole.
#[derive(Debug)]
pub(crate) struct Summary {
    /// The number of the last entry.
    pub(crate) count: u64,
    /// The hash of the last entry.
    pub(crate) head: Hash,
    pub(crate) receipts: u64,
    /// The number of markers; each stands for a writer that was cut off.
    pub(crate) markers: u64,
    /// The keys that have signed lines; empty for a log that is not signed.
    pub(crate) signed_by: BTreeSet<PublicKey>,
}

/// The position of a receipt in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    /// The number of the entry, as `seq` in the log and the count of the log have it.
    pub(crate) entry: u64,
    /// The number of the line in the file, from 1. Torn lines are lines, but not entries.
    pub(crate) line: u64,
}

/// Reads the log as it is at this moment. Calls `visit` with each receipt that precedes the first
/// wrong line.
pub(crate) fn read(
    path: &Path,
    demands: &Demands,
    visit: impl FnMut(Position, ErasureReceipt),
) -> Outcome<Result<Summary, Broken>> {
    check_kind(path)?;
    let file = File::open(path).map_err(|e| failed("open", path, e))?;
    // The lock ensures that no line up to this length is half written.
    wait_for_lock(&file, path, File::try_lock_shared)?;
    let len = file.metadata().map(|metadata| metadata.len());
    let _ = file.unlock();
    let reader = BufReader::new(file.take(len.map_err(|e| failed("inspect", path, e))?));
    read_lines(reader, demands, visit).map_err(|e| failed("read", path, e))
}

pub(super) fn read_lines(
    mut reader: impl BufRead,
    demands: &Demands,
    mut visit: impl FnMut(Position, ErasureReceipt),
) -> io::Result<Result<Summary, Broken>> {
    let mut chain = Chain::new(demands);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        // The longest line, one more byte, and a line break.
        let read = (&mut reader).take(MAX_LINE_LEN as u64 + 2).read_until(b'\n', &mut bytes);
        if read? == 0 {
            return Ok(chain.end());
        }
        let line = bytes.strip_suffix(b"\n");
        match chain.take(line.unwrap_or(&bytes), line.is_some()) {
            Ok(Some(receipt)) => {
                let entry = chain.last.map_or(0, |(seq, _)| seq);
                visit(Position { entry, line: chain.line }, receipt);
            }
            Ok(None) => {}
            Err(broken) => return Ok(Err(broken)),
        }
    }
}

/// The state of a log that is read line by line.
struct Chain<'d> {
    demands: &'d Demands,
    /// The number of the last line that was read, from 1.
    line: u64,
    /// The number and the hash of the last whole line.
    last: Option<(u64, Hash)>,
    is_signed: bool,
    receipts: u64,
    markers: u64,
    signed_by: BTreeSet<PublicKey>,
    /// The bytes after the last whole line that are not a line, until a marker accounts for them.
    torn: Option<TornLines>,
}

/// Lines that are not whole.
struct TornLines {
    first: Broken,
    lines: u64,
    is_last_empty: bool,
    /// The number and the hash of the bytes, without the last line break.
    bytes: u64,
    hash: Context,
}

impl TornLines {
    fn new(first: Broken, line: &[u8]) -> Self {
        let mut hash = Context::new(&SHA256);
        hash.update(line);
        Self { first, lines: 1, is_last_empty: line.is_empty(), bytes: line.len() as u64, hash }
    }

    fn add(&mut self, line: &[u8]) {
        self.hash.update(b"\n");
        self.hash.update(line);
        self.lines += 1;
        self.is_last_empty = line.is_empty();
        self.bytes += 1 + line.len() as u64;
    }

    /// Reports whether a marker that follows accounts for these lines.
    fn are_closed_by(&self, torn: Torn) -> bool {
        let mut hash = self.hash.clone();
        let without_break = Torn { bytes: self.bytes, sha256: Hash::from_digest(hash.clone().finish().as_ref()) };
        hash.update(b"\n");
        let with_break = Torn { bytes: self.bytes + 1, sha256: Hash::from_digest(hash.finish().as_ref()) };
        // The writer of the marker added the last line break only if the bytes that it found did
        // not end with one.
        torn == with_break || (torn == without_break && !self.is_last_empty)
    }
}

impl<'d> Chain<'d> {
    fn new(demands: &'d Demands) -> Self {
        Self {
            demands,
            line: 0,
            last: None,
            is_signed: false,
            receipts: 0,
            markers: 0,
            signed_by: BTreeSet::new(),
            torn: None,
        }
    }

    /// Checks the next line, given without its line break. Returns the receipt in it, if there is
    /// one.
    fn take(&mut self, line: &[u8], is_ended: bool) -> Result<Option<ErasureReceipt>, Broken> {
        self.line += 1;
        if line.len() > MAX_LINE_LEN {
            return Err(self.broken("is longer than a line of a receipt log can be"));
        }
        let entry = Entry::parse(line);
        if let Some(torn) = &mut self.torn {
            return match entry {
                Some(entry) if is_ended && follows(&entry, self.last) && closes(&entry, torn) => {
                    self.torn = None;
                    self.accept(entry, line)
                }
                _ => {
                    torn.add(line);
                    Ok(None)
                }
            };
        }
        let why = match entry {
            Some(entry) => match self.why_not(&entry) {
                None if is_ended => return self.accept(entry, line),
                None => "has no line break at its end".to_owned(),
                Some(why) => why,
            },
            None => "is not a line of a receipt log".to_owned(),
        };
        // A file without a valid first line is not a receipt log.
        if self.last.is_none() {
            return Err(self.broken(why));
        }
        let first = self.broken(why);
        self.torn = Some(TornLines::new(first, line));
        Ok(None)
    }

    /// Returns what is wrong with the next entry, if anything.
    fn why_not(&self, entry: &Entry) -> Option<String> {
        let Some((seq, hash)) = self.last else {
            let is_first = matches!(entry.body, Body::Begin { .. }) && entry.seq == 0 && entry.prev == Hash::NONE;
            return (!is_first).then(|| "does not begin a receipt log".to_owned());
        };
        let before = self.line - 1;
        if seq.checked_add(1) != Some(entry.seq) {
            let seq = seq.saturating_add(1);
            return Some(format!(
                "is entry {}, not entry {seq} as expected: lines are missing or were added",
                entry.seq
            ));
        }
        if entry.prev != hash {
            return Some(format!("does not follow from line {before}: one of the two was changed or replaced"));
        }
        match &entry.body {
            Body::Begin { .. } => Some("begins a new receipt log".to_owned()),
            // A marker may follow a whole line whose line break was missing.
            Body::Torn(torn) if *torn != Torn::of(&[]) => {
                Some(format!("is a marker for torn bytes that do not follow line {before}"))
            }
            Body::Torn(_) | Body::Receipt(_) => None,
        }
    }

    /// Accepts an entry in its place, if its signature and its contents are valid.
    fn accept(&mut self, entry: Entry, line: &[u8]) -> Result<Option<ErasureReceipt>, Broken> {
        self.check_signature(&entry, line)?;
        if let Some(kept) = self.demands.kept.filter(|kept| kept.count == entry.seq && kept.head != entry.hash) {
            let why = format!("is entry {}, and has another hash than the head that was given", kept.count);
            return Err(self.broken(why));
        }
        self.last = Some((entry.seq, entry.hash));
        Ok(match entry.body {
            Body::Begin { .. } => None,
            Body::Torn(_) => {
                self.markers += 1;
                None
            }
            Body::Receipt(receipt) => {
                self.receipts += 1;
                let receipt = ErasureReceipt::deserialize(receipt);
                Some(receipt.map_err(|_| {
                    self.broken("contains no valid receipt, or one that only a later version of keystead can read")
                })?)
            }
        })
    }

    fn check_signature(&mut self, entry: &Entry, line: &[u8]) -> Result<(), Broken> {
        if self.last.is_none() {
            self.is_signed = entry.signature.is_some();
        }
        let public_keys = &self.demands.public_keys;
        match &entry.signature {
            None if !public_keys.is_empty() => Err(self.broken("is not signed")),
            None if self.is_signed => Err(self.broken("is not signed, but the first line is")),
            None => Ok(()),
            Some(_) if !self.is_signed => Err(self.broken("is signed, but the first line is not")),
            Some(signature) if !signature.is_of(line) => {
                Err(self.broken("has an invalid signature: the line was changed, or another key signed it"))
            }
            Some(signature) if !public_keys.is_empty() && !public_keys.contains(&signature.public_key) => {
                Err(self.broken(format!("is signed by another key: {}", signature.public_key)))
            }
            Some(signature) => {
                self.signed_by.insert(signature.public_key);
                Ok(())
            }
        }
    }

    fn end(mut self) -> Result<Summary, Broken> {
        if let Some(torn) = self.torn.take() {
            let Broken { line, why } = torn.first;
            let why = if torn.lines > 1 {
                why
            } else {
                format!(
                    "{why}; it is the last line: if its writer was cut off, the next receipt that is added repairs the \
                     log"
                )
            };
            return Err(Broken { line, why });
        }
        let Some((count, head)) = self.last else {
            return Err(Broken { line: 1, why: "is missing: the file is empty".to_owned() });
        };
        if let Some(kept) = self.demands.kept.filter(|kept| kept.count > count) {
            self.line += 1;
            let why = format!(
                "is missing: the log ends with entry {count}, but had {} entries before: lines were cut off at the end",
                kept.count
            );
            return Err(self.broken(why));
        }
        let Self { receipts, markers, signed_by, .. } = self;
        Ok(Summary { count, head, receipts, markers, signed_by })
    }

    fn broken(&self, why: impl Into<String>) -> Broken {
        Broken { line: self.line, why: why.into() }
    }
}

/// Reports whether this entry follows an entry with this number and hash.
fn follows(entry: &Entry, last: Option<(u64, Hash)>) -> bool {
    last.is_some_and(|(seq, hash)| seq.checked_add(1) == Some(entry.seq) && entry.prev == hash)
}

/// Reports whether this entry is a marker that accounts for these lines.
fn closes(entry: &Entry, lines: &TornLines) -> bool {
    matches!(entry.body, Body::Torn(torn) if lines.are_closed_by(torn))
}

//! [`Instance`]: connects a store's file with the log beside it.
//!
//! SQLite replays any log that it finds beside a file. If somebody copies a backup over the file of
//! a process that has died, the log beside it belongs to the overwritten file. So each log begins
//! with the instance of its file, which is read from the raw log before SQLite sees it
//! (<https://sqlite.org/fileformat2.html#walformat>).

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read};

/// The bytes by which an instance is found in a page.
const MAGIC: &[u8; 16] = b"keystead/log/v1\0";

/// The lengths in bytes of the headers of a log and of its frames.
const HEADER_LEN: usize = 32;
const FRAME_HEADER_LEN: usize = 24;

/// The largest page size that SQLite allows, in bytes.
const MAX_PAGE_LEN: u32 = 65_536;

/// The identity of one copy of a store, and the number of logs that the copy has begun.
///
/// All copies of a store have the same store id, but each has its own instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// A random id.
    copy: [u8; 16],
    logs: u64,
}

/// The file that a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogOwner {
    /// The log contains no transaction, so it changes nothing.
    Nobody,
    /// The log was begun with the instance `began`. It may contain later instances of the same
    /// copy, up to `last`, of processes that could not know whether the log had begun.
    Copy { began: Instance, last: Instance },
    /// The log was begun by another program.
    Unknown,
}

impl Instance {
    pub(crate) const LEN: usize = MAGIC.len() + 16 + 8;

    /// Returns the instance of a new copy.
    ///
    /// # Panics
    /// If the operating system's random generator fails.
    pub(crate) fn random() -> Self {
        let mut copy = [0; 16];
        getrandom::fill(&mut copy).expect("the operating system has a working random generator");
        Self { copy, logs: 0 }
    }

    /// Returns the instance of the same copy with one more log.
    pub(crate) fn next_log(self) -> Self {
        Self { logs: self.logs.wrapping_add(1), ..self }
    }

    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..16].copy_from_slice(MAGIC);
        bytes[16..32].copy_from_slice(&self.copy);
        bytes[32..].copy_from_slice(&self.logs.to_be_bytes());
        bytes
    }

    /// Returns the first instance in these bytes.
    pub(crate) fn find(bytes: &[u8]) -> Option<Self> {
        let start = bytes.windows(MAGIC.len()).position(|window| window == MAGIC)?;
        let fields = bytes.get(start + MAGIC.len()..)?;
        let (copy, fields) = fields.split_first_chunk()?;
        let (logs, _) = fields.split_first_chunk()?;
        Some(Self { copy: *copy, logs: u64::from_be_bytes(*logs) })
    }

    /// Reports whether a log of this owner may be replayed over the file with this instance: the
    /// file contains nothing of the log yet, or a part of it.
    pub(crate) fn owns(self, owner: LogOwner) -> bool {
        match owner {
            LogOwner::Nobody | LogOwner::Unknown => true,
            LogOwner::Copy { began, last } => {
                began.copy == self.copy && (began.logs.saturating_sub(1)..=last.logs).contains(&self.logs)
            }
        }
    }
}

impl LogOwner {
    /// Reports whether a log of this owner may be replayed over a file of format 1, which has no
    /// instance. Such a log is of format 1, too, or contains the upgrade.
    pub(crate) fn may_follow_format_1(self) -> bool {
        match self {
            Self::Nobody | Self::Unknown => true,
            Self::Copy { began, .. } => began.logs == 0,
        }
    }
}

/// Determines the owner of a raw log by the instances in its first and last transactions.
pub(crate) fn log_owner(log: File) -> io::Result<LogOwner> {
    let mut owner = LogOwner::Nobody;
    match read_transactions(&mut BufReader::with_capacity(1 << 16, log), &mut owner) {
        // The last frame is incomplete, and SQLite does not replay it.
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => Ok(owner),
        read => read.map(|()| owner),
    }
}

/// Reads the transactions that SQLite would replay.
fn read_transactions(log: &mut impl Read, owner: &mut LogOwner) -> io::Result<()> {
    let mut header = [0; HEADER_LEN];
    log.read_exact(&mut header)?;
    let Some(mut checksum) = Checksum::new(number(&header, 0)) else { return Ok(()) };
    let page_len = number(&header, 8);
    let is_page_len = page_len.is_power_of_two() && (512..=MAX_PAGE_LEN).contains(&page_len);
    checksum.add(&header[..24]);
    if !is_page_len || !checksum.is(&header[24..]) {
        return Ok(());
    }
    let mut frame_header = [0; FRAME_HEADER_LEN];
    let mut page = vec![0; page_len as usize];
    let mut found = None;
    loop {
        log.read_exact(&mut frame_header)?;
        log.read_exact(&mut page)?;
        checksum.add(&frame_header[..8]);
        checksum.add(&page);
        if frame_header[8..16] != header[16..24] || !checksum.is(&frame_header[16..]) {
            return Ok(());
        }
        found = Instance::find(&page).or(found);
        let commits = number(&frame_header, 4) != 0;
        if !commits {
            continue;
        }
        *owner = match (*owner, found.take()) {
            (LogOwner::Nobody, Some(began)) => LogOwner::Copy { began, last: began },
            (LogOwner::Nobody, None) => LogOwner::Unknown,
            (LogOwner::Copy { began, .. }, Some(last)) => LogOwner::Copy { began, last },
            (owner, _) => owner,
        };
    }
}

/// The running checksum of a log's frames.
struct Checksum {
    is_big_endian: bool,
    sums: [u32; 2],
}

impl Checksum {
    /// Begins a checksum. Returns `None` if this is not the magic number of a log.
    fn new(magic: u32) -> Option<Self> {
        match magic {
            0x377F_0682 => Some(Self { is_big_endian: false, sums: [0; 2] }),
            0x377F_0683 => Some(Self { is_big_endian: true, sums: [0; 2] }),
            _ => None,
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let [mut first, mut second] = self.sums;
        for pair in bytes.as_chunks::<8>().0 {
            let [a, b, c, d, e, f, g, h] = *pair;
            let (x, y) = match self.is_big_endian {
                true => (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h])),
                false => (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])),
            };
            first = first.wrapping_add(x).wrapping_add(second);
            second = second.wrapping_add(y).wrapping_add(first);
        }
        self.sums = [first, second];
    }

    fn is(&self, stored: &[u8]) -> bool {
        self.sums == [number(stored, 0), number(stored, 4)]
    }
}

/// Returns the big-endian number at this offset, which must be within the bytes.
fn number(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

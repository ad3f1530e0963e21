//! [`Journal`]: what a copy has done, in a file that outlives it. The format is in the documentation of `copy`.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::digest::{DIGEST_KEY_LEN, Digest, Digester, random_digest_key};
use super::refusal;
use crate::{Effect, Error, ErrorKind, Result, StoreInfo};

const MAGIC: &[u8; 16] = b"keystead-journal";
const VERSION: u32 = 1;

const CHECKSUM_LEN: usize = 8;
/// What a header of any key and pair begins with.
const PREAMBLE_LEN: usize = MAGIC.len() + size_of::<u32>();
const FIXED_LEN: usize = PREAMBLE_LEN + DIGEST_KEY_LEN + 2 * size_of::<Digest>() + CHECKSUM_LEN;
/// With the byte that says whether the source is being deleted, which no loss of records can undo.
const HEADER_LEN: usize = FIXED_LEN + 1;
const BODY_LEN: usize = 1 + 2 * size_of::<Digest>();
const RECORD_LEN: usize = BODY_LEN + CHECKSUM_LEN;

/// What a copy says of an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is about to be written at the target, or to be removed there: the target may have it by our hand.
    Intended = 1,
    /// We wrote it, and read it back.
    Written = 2,
    /// The target had the same key already.
    Found = 3,
    /// We removed it at the target, as the source had lost it.
    Removed = 4,
    /// Of no id: the copy was complete.
    Ended = 5,
}

impl Step {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Intended, Self::Written, Self::Found, Self::Removed, Self::Ended]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }
}

/// A step, the digest of the id, and the digest of its key where the step has one (else zeros).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) step: Step,
    pub(super) id: Digest,
    pub(super) key: Digest,
}

/// The file, locked for this run alone.
pub(super) struct Journal {
    file: File,
    path: PathBuf,
    digester: Digester,
    deletes_source: bool,
    /// Where the next record goes: behind those that are whole.
    end: u64,
    pending: Vec<u8>,
}

impl Journal {
    /// Opens the journal of a copy between these stores, or begins one.
    pub(super) fn open(path: &Path, source: &StoreInfo, target: &StoreInfo) -> Result<Self> {
        let is_there = check(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(|e| failed("open", path, e))?;
        lock(&file, path)?;
        let header = match read_header(&file, path, source, target)? {
            Some(header) => header,
            None => begin(&mut file, source, target).map_err(|e| failed("write", path, e))?,
        };
        if !is_there {
            sync_name(path).map_err(|e| failed("sync the directory of", path, e))?;
        }
        let Header { digester, deletes_source } = header;
        Ok(Self { file, path: path.to_owned(), digester, deletes_source, end: HEADER_LEN as u64, pending: Vec::new() })
    }

    /// Hands out the records of the journal at `path`, and changes nothing; `None` if there is no journal yet.
    pub(super) fn look(
        path: &Path,
        source: &StoreInfo,
        target: &StoreInfo,
        take: impl FnMut(Record),
    ) -> Result<Option<Digester>> {
        if !check(path)? {
            return Ok(None);
        }
        let file = File::open(path).map_err(|e| failed("open", path, e))?;
        let Some(header) = read_header(&file, path, source, target)? else { return Ok(None) };
        read_records(&file, &header.digester, take).map_err(|e| failed("read", path, e))?;
        Ok(Some(header.digester))
    }

    pub(super) fn digester(&self) -> Digester {
        self.digester.clone()
    }

    /// Whether a run has begun to delete the source's keys.
    pub(super) fn deletes_source(&self) -> bool {
        self.deletes_source
    }

    /// From now on, and on the disk: the source's keys are being deleted.
    pub(super) fn begin_deletion(&mut self) -> Result<()> {
        self.deletes_source = true;
        let written = (|| {
            self.file.seek(SeekFrom::Start(FIXED_LEN as u64))?;
            self.file.write_all(&[1])?;
            self.file.sync_data()?;
            self.file.seek(SeekFrom::Start(self.end))
        })();
        written.map(drop).map_err(|e| failed("write", &self.path, e).with_effect(Effect::Unknown))
    }

    /// Hands out the records of earlier runs. What is behind the first one that is not whole is cut off: it was not synced
    /// when the power failed or the process was killed, so nothing was built on it yet, or it can be found out again.
    pub(super) fn replay(&mut self, take: impl FnMut(Record)) -> Result<()> {
        let cut_off = |journal: &mut Self| {
            journal.end = read_records(&journal.file, &journal.digester, take)?;
            journal.file.set_len(journal.end)?;
            journal.file.seek(SeekFrom::Start(journal.end))
        };
        cut_off(self).map(drop).map_err(|e| failed("read", &self.path, e))
    }

    /// Adds a record, which is on the disk after the next [`sync`](Self::sync).
    pub(super) fn append(&mut self, record: Record) {
        let mut body = Vec::with_capacity(RECORD_LEN);
        body.push(record.step as u8);
        body.extend(record.id);
        body.extend(record.key);
        let checksum = self.digester.checksum(self.end, &body);
        self.pending.extend(body);
        self.pending.extend(checksum);
        self.end += RECORD_LEN as u64;
    }

    pub(super) fn sync(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // A failure ends the run, so the records are not tried again behind a torn one.
        let pending = std::mem::take(&mut self.pending);
        let written = self.file.write_all(&pending).and_then(|()| self.file.sync_data());
        written.map_err(|e| failed("write", &self.path, e).with_effect(Effect::Unknown))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Closing the file would do, but for a process that is being started just now, which has it open until it is.
        let _ = self.file.unlock();
    }
}

/// What a journal's header says for its runs.
struct Header {
    digester: Digester,
    deletes_source: bool,
}

/// The header, if it is whole and of this pair; `None` if it is empty or its creation was cut off.
fn read_header(file: &File, path: &Path, source: &StoreInfo, target: &StoreInfo) -> Result<Option<Header>> {
    let mut header = Vec::with_capacity(HEADER_LEN);
    let reading = file.take(HEADER_LEN as u64).read_to_end(&mut header);
    reading.map_err(|e| failed("read", path, e))?;
    let shown = path.display();
    let preamble = preamble();
    if !header.iter().zip(MAGIC).all(|(is, ought)| is == ought) {
        let text = format!("{shown} is no journal of a copy: give another path");
        return Err(refusal(ErrorKind::Config, text));
    }
    if !header.iter().zip(preamble).all(|(is, ought)| *is == ought) {
        let text = format!("the journal {shown} is of another version: finish the copy with the program that began it");
        return Err(refusal(ErrorKind::Unsupported, text));
    }
    let Ok(header) = <[u8; HEADER_LEN]>::try_from(header) else { return Ok(None) };
    let (fixed, deletes_source) = header.split_at(FIXED_LEN);
    let (fields, checksum) = fixed.split_at(FIXED_LEN - CHECKSUM_LEN);
    let (key, pair) = fields[PREAMBLE_LEN..].split_at(DIGEST_KEY_LEN);
    let digester = Digester::new(key.try_into().expect("it was split there"));
    if digester.checksum(0, fields) != *checksum {
        let text = format!("the journal {shown} is damaged: delete it, and what was copied is compared again");
        return Err(refusal(ErrorKind::Corrupt, text));
    }
    if *pair != [digester.source(source), digester.target(target)].concat() {
        let text = format!("the journal {shown} is of a copy between other stores: give each copy its own");
        return Err(refusal(ErrorKind::Config, text));
    }
    Ok(Some(Header { digester, deletes_source: deletes_source != [0] }))
}

fn preamble() -> [u8; PREAMBLE_LEN] {
    let mut preamble = [0; PREAMBLE_LEN];
    preamble[..MAGIC.len()].copy_from_slice(MAGIC);
    preamble[MAGIC.len()..].copy_from_slice(&VERSION.to_le_bytes());
    preamble
}

fn begin(file: &mut File, source: &StoreInfo, target: &StoreInfo) -> io::Result<Header> {
    let key = random_digest_key();
    let digester = Digester::new(&key);
    let mut header = preamble().to_vec();
    header.extend(key);
    header.extend(digester.source(source));
    header.extend(digester.target(target));
    header.extend(digester.checksum(0, &header));
    header.push(0);
    file.set_len(0)?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(&header)?;
    file.sync_all()?;
    Ok(Header { digester, deletes_source: false })
}

/// Where the whole records end. The file stands behind its header.
fn read_records(file: &File, digester: &Digester, mut take: impl FnMut(Record)) -> io::Result<u64> {
    let (mut reader, mut end) = (BufReader::with_capacity(1 << 16, file), HEADER_LEN as u64);
    let mut bytes = [0; RECORD_LEN];
    loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(end),
            Err(e) => return Err(e),
        }
        let Some(record) = whole(&bytes, end, digester) else { return Ok(end) };
        take(record);
        end += RECORD_LEN as u64;
    }
}

fn whole(bytes: &[u8; RECORD_LEN], at: u64, digester: &Digester) -> Option<Record> {
    let (body, checksum) = bytes.split_at(BODY_LEN);
    if digester.checksum(at, body) != *checksum {
        return None;
    }
    let (step, hashes) = body.split_first()?;
    let (id, key) = hashes.split_at(size_of::<Digest>());
    Some(Record { step: Step::from_byte(*step)?, id: id.try_into().ok()?, key: key.try_into().ok()? })
}

/// Whether there is a file; refuses what is no plain file or is open to others.
fn check(path: &Path) -> Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed("look at", path, e)),
    };
    let shown = path.display();
    if !metadata.is_file() {
        return Err(refusal(ErrorKind::Config, format!("the journal {shown} is no regular file: give another path")));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        let text = format!("others may read or write the journal {shown}: run chmod 600 '{shown}'");
        return Err(refusal(ErrorKind::Config, text));
    }
    Ok(true)
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let text =
                format!("another copy is under way with the journal {}: wait until it has ended", path.display());
            Err(refusal(ErrorKind::Conflict, text))
        }
        Err(TryLockError::Error(e)) => Err(failed("lock", path, e)),
    }
}

/// Makes the name of a new file durable.
fn sync_name(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|_| cfg!(unix)) else { return Ok(()) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    File::open(parent)?.sync_all()
}

fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    let (kind, what_to_do) = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, "give this user the right to, or another path")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            (ErrorKind::Config, "give a path in a directory that is there")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::QuotaExceeded, "make room, and run again")
        }
        _ => (ErrorKind::Unavailable, "mend the disk, or give another path"),
    };
    let text = format!("cannot {doing} the journal {} ({e}): {what_to_do}", path.display());
    refusal(kind, text)
}

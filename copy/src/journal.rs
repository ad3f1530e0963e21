//! [`Journal`]: the file that records the progress of a copy. FORMAT.md describes its bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use keystead_core::{Effect, Error, ErrorKind, IdentityMatch, Result};

use crate::digest::{DIGEST_KEY_LEN, Digest, Digester, random_digest_key};
use crate::failure::refusal;
use crate::header::{self, Header, Reading};
use crate::identity::Identities;

pub(crate) const CHECKSUM_LEN: usize = 8;
const BODY_LEN: usize = 1 + 2 * size_of::<Digest>();
pub(crate) const RECORD_LEN: usize = BODY_LEN + CHECKSUM_LEN;

/// The state of an id as the journal records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The copy is about to write it at the target or to remove it there, so the target may have
    /// it.
    Intended = 1,
    /// The copy wrote it and read it back.
    Written = 2,
    /// The target had the same key already.
    Found = 3,
    /// The copy removed it at the target, because the source had lost it.
    Removed = 4,
    /// The copy was complete. This step belongs to no id.
    Ended = 5,
}

impl Step {
    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Intended, Self::Written, Self::Found, Self::Removed, Self::Ended]
            .into_iter()
            .find(|step| *step as u8 == byte)
    }
}

/// A step, the digest of the id, and the digest of its key if the step has one (otherwise zeros).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) step: Step,
    pub(crate) id: Digest,
    pub(crate) key: Digest,
}

/// An open journal, locked by this run.
pub(crate) struct Journal {
    file: File,
    path: PathBuf,
    header: Header,
    /// The offset of the next record: the end of the whole records, and of those that are pending.
    end: u64,
    /// The records that are not written yet.
    pending: Vec<u8>,
}

/// The header of a journal that was only read.
pub(crate) struct Look {
    pub(crate) digester: Digester,
    pub(crate) identities: Identities,
}

impl Journal {
    /// Opens the journal of a copy between these stores, or creates it. Also returns the identities
    /// in its header if an earlier run created it; they are not known to differ from these.
    pub(crate) fn open(path: &Path, identities: &Identities) -> Result<(Self, Option<Identities>)> {
        let is_there = check(path)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(path).map_err(|e| failed("open", path, e))?;
        lock(&file, path)?;
        let (header, earlier) = match read_header(&file, path, identities)? {
            Some(header) => {
                let earlier = header.identities.clone();
                (header, Some(earlier))
            }
            None => (begin(&mut file, path, identities)?, None),
        };
        if !is_there {
            sync_name(path).map_err(|e| failed("sync the directory of", path, e))?;
        }
        let end = header.len;
        Ok((Self { file, path: path.to_owned(), header, end, pending: Vec::new() }, earlier))
    }

    /// Passes the records of the journal at `path` to `take` and changes nothing. Returns `None` if
    /// there is no journal yet.
    pub(crate) fn look(path: &Path, identities: &Identities, take: impl FnMut(Record)) -> Result<Option<Look>> {
        if !check(path)? {
            return Ok(None);
        }
        let file = File::open(path).map_err(|e| failed("open", path, e))?;
        let Some(header) = read_header(&file, path, identities)? else { return Ok(None) };
        read_records(&file, &header, take).map_err(|e| failed("read", path, e))?;
        Ok(Some(Look { digester: header.digester, identities: header.identities }))
    }

    pub(crate) fn digester(&self) -> Digester {
        self.header.digester.clone()
    }

    /// Reports whether a run has begun to delete the source's keys.
    pub(crate) fn deletes_source(&self) -> bool {
        self.header.deletes_source
    }

    /// Records on the disk that the source's keys are being deleted.
    pub(crate) fn begin_deletion(&mut self) -> Result<()> {
        self.header.deletes_source = true;
        let written = (|| {
            self.file.seek(SeekFrom::Start(self.header.len - 1))?;
            self.file.write_all(&[1])?;
            self.file.sync_data()?;
            self.file.seek(SeekFrom::Start(self.end))
        })();
        written.map(drop).map_err(|e| failed("write", &self.path, e).with_effect(Effect::Unknown))
    }

    /// Passes the records of earlier runs to `take`. Cuts the file off at the first record that is
    /// not whole: that record was not synced when the power failed or the process was killed, so no
    /// later step relied on it, or the stores can tell again what it said.
    pub(crate) fn replay(&mut self, take: impl FnMut(Record)) -> Result<()> {
        let cut_off = |journal: &mut Self| {
            journal.end = read_records(&journal.file, &journal.header, take)?;
            journal.file.set_len(journal.end)?;
            journal.file.seek(SeekFrom::Start(journal.end))
        };
        cut_off(self).map(drop).map_err(|e| failed("read", &self.path, e))
    }

    /// Adds a record, which the next [`sync`](Self::sync) writes to the disk.
    pub(crate) fn append(&mut self, record: Record) {
        let mut body = Vec::with_capacity(RECORD_LEN);
        body.push(record.step as u8);
        body.extend(record.id);
        body.extend(record.key);
        let checksum = self.header.digester.checksum(self.end, &body);
        self.pending.extend(body);
        self.pending.extend(checksum);
        self.end += RECORD_LEN as u64;
    }

    /// Writes the pending records to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        // A failure ends the run, so no record is ever written after a torn one.
        let pending = std::mem::take(&mut self.pending);
        let written = self.file.write_all(&pending).and_then(|()| self.file.sync_data());
        written.map_err(|e| failed("write", &self.path, e).with_effect(Effect::Unknown))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Closing the file is not enough if this process is just starting another one, which keeps
        // the file open until it runs its own program.
        let _ = self.file.unlock();
    }
}

/// Returns the header, or `None` if the file is empty or its creation was cut off.
///
/// # Errors
/// Those of reading, and a refusal if this is not a whole journal of these stores.
fn read_header(mut file: &File, path: &Path, identities: &Identities) -> Result<Option<Header>> {
    let mut bytes = Vec::new();
    let reading = file.take(header::LONGEST as u64).read_to_end(&mut bytes);
    reading.map_err(|e| failed("read", path, e))?;
    let shown = path.display();
    let header = match header::read(&bytes) {
        Reading::Whole(header) => *header,
        Reading::CutOff => return Ok(None),
        Reading::Foreign => {
            let text = format!("{shown} is not a journal of a copy; give another path");
            return Err(refusal(ErrorKind::Config, text));
        }
        Reading::Version1 => {
            let text = format!(
                "the journal {shown} has format version 1, which does not tell the stores of one region or \
                 account from those of another; finish the copy with the version of keystead that began it, or \
                 start a new journal, with which the keys at the target are compared again"
            );
            return Err(refusal(ErrorKind::Unsupported, text));
        }
        Reading::Later => {
            let text = format!(
                "the journal {shown} was written by a later version of keystead; finish the copy with that version"
            );
            return Err(refusal(ErrorKind::Unsupported, text));
        }
        Reading::Damaged => {
            let text = format!(
                "the journal {shown} is damaged; start a new journal, with which the keys at the target are \
                 compared again"
            );
            return Err(refusal(ErrorKind::Corrupt, text));
        }
    };
    refuse_others(&header.identities, identities, path)?;
    file.seek(SeekFrom::Start(header.len)).map_err(|e| failed("read", path, e))?;
    Ok(Some(header))
}

/// Returns an error if the journal belongs to other stores.
fn refuse_others(journal: &Identities, now: &Identities, path: &Path) -> Result<()> {
    for (name, then, now) in [("source", &journal.source, &now.source), ("target", &journal.target, &now.target)] {
        if then.compare(now) == IdentityMatch::Different {
            let text = format!(
                "the journal {} belongs to a copy between other stores: its {name} is {then}, and now it is \
                 {now}; give each copy its own journal",
                path.display()
            );
            return Err(refusal(ErrorKind::Config, text));
        }
    }
    Ok(())
}

/// Writes the header of a new journal.
fn begin(file: &mut File, path: &Path, identities: &Identities) -> Result<Header> {
    let key: [u8; DIGEST_KEY_LEN] = random_digest_key();
    let Some((bytes, header)) = header::write(&key, identities) else {
        let text =
            "the identity of a store has more than 65535 bytes and does not fit into a journal; copy without one";
        return Err(refusal(ErrorKind::Config, text));
    };
    let mut write = || {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)?;
        file.sync_all()
    };
    write().map_err(|e| failed("write", path, e))?;
    Ok(header)
}

/// Passes the whole records to `take` and returns the offset of their end. The file must be
/// positioned after its header.
fn read_records(file: &File, header: &Header, mut take: impl FnMut(Record)) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut end = header.len;
    let mut bytes = [0; RECORD_LEN];
    loop {
        match reader.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(end),
            Err(e) => return Err(e),
        }
        let Some(record) = parse_record(&bytes, end, &header.digester) else { return Ok(end) };
        take(record);
        end += RECORD_LEN as u64;
    }
}

/// Returns the record in these bytes, or `None` if it is not whole.
fn parse_record(bytes: &[u8; RECORD_LEN], offset: u64, digester: &Digester) -> Option<Record> {
    let (body, checksum) = bytes.split_at(BODY_LEN);
    if digester.checksum(offset, body) != *checksum {
        return None;
    }
    let (step, hashes) = body.split_first()?;
    let (id, key) = hashes.split_at(size_of::<Digest>());
    Some(Record { step: Step::from_byte(*step)?, id: id.try_into().ok()?, key: key.try_into().ok()? })
}

/// Reports whether the journal exists.
///
/// # Errors
/// - [`Config`](ErrorKind::Config) if it is not a regular file or is accessible to other users.
/// - The errors of reading its metadata.
fn check(path: &Path) -> Result<bool> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(failed("examine", path, e)),
    };
    let shown = path.display();
    if !metadata.is_file() {
        return Err(refusal(
            ErrorKind::Config,
            format!("the journal {shown} is not a regular file; give another path"),
        ));
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0 {
        let text = format!("others may read or write the journal {shown}; run chmod 600 '{shown}'");
        return Err(refusal(ErrorKind::Config, text));
    }
    Ok(true)
}

fn lock(file: &File, path: &Path) -> Result<()> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => {
            let text = format!("another copy is running with the journal {}; wait until it has ended", path.display());
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

/// Returns the error of an operation on the journal's file.
fn failed(doing: &str, path: &Path, e: io::Error) -> Error {
    let (kind, remedy) = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::PermissionDenied, "give this user the right to do so, or give another path")
        }
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            (ErrorKind::Config, "give a path in a directory that exists")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            (ErrorKind::QuotaExceeded, "make room, and run again")
        }
        _ => (ErrorKind::Unavailable, "repair the disk, or give another path"),
    };
    let text = format!("cannot {doing} the journal {}: {e}; {remedy}", path.display());
    refusal(kind, text)
}

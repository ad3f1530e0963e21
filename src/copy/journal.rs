//! [`Journal`]: what a copy has done, in a file that outlives it. FORMAT.md describes its bytes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::digest::{DIGEST_KEY_LEN, Digest, Digester, random_digest_key};
use super::header::{self, Header, Reading};
use super::identity::Identities;
use super::refusal;
use crate::{Effect, Error, ErrorKind, IdentityMatch, Result};

pub(super) const CHECKSUM_LEN: usize = 8;
const BODY_LEN: usize = 1 + 2 * size_of::<Digest>();
pub(super) const RECORD_LEN: usize = BODY_LEN + CHECKSUM_LEN;

/// The state of an id as the journal records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is about to be written at the target, or to be removed there: the target may have it by
    /// our hand.
    Intended = 1,
    /// We wrote it, and read it back.
    Written = 2,
    /// The target had the same key already.
    Found = 3,
    /// We removed it at the target, as the source had lost it.
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
    header: Header,
    /// The offset at which the next record is written: the end of the whole records.
    end: u64,
    pending: Vec<u8>,
}

/// A journal for reading only.
pub(super) struct Look {
    pub(super) digester: Digester,
    pub(super) identities: Identities,
}

impl Journal {
    /// Opens the journal of a copy between these stores, or begins one. Also returns the identities
    /// in its header, if another run has begun it; they are not known to differ from these.
    pub(super) fn open(path: &Path, identities: &Identities) -> Result<(Self, Option<Identities>)> {
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

    /// Hands out the records of the journal at `path`, and changes nothing; `None` if there is no
    /// journal yet.
    pub(super) fn look(path: &Path, identities: &Identities, take: impl FnMut(Record)) -> Result<Option<Look>> {
        if !check(path)? {
            return Ok(None);
        }
        let file = File::open(path).map_err(|e| failed("open", path, e))?;
        let Some(header) = read_header(&file, path, identities)? else { return Ok(None) };
        read_records(&file, &header, take).map_err(|e| failed("read", path, e))?;
        Ok(Some(Look { digester: header.digester, identities: header.identities }))
    }

    pub(super) fn digester(&self) -> Digester {
        self.header.digester.clone()
    }

    /// Reports whether a run has begun to delete the source's keys.
    pub(super) fn deletes_source(&self) -> bool {
        self.header.deletes_source
    }

    /// From now on, and on the disk: the source's keys are being deleted.
    pub(super) fn begin_deletion(&mut self) -> Result<()> {
        self.header.deletes_source = true;
        let written = (|| {
            self.file.seek(SeekFrom::Start(self.header.len - 1))?;
            self.file.write_all(&[1])?;
            self.file.sync_data()?;
            self.file.seek(SeekFrom::Start(self.end))
        })();
        written.map(drop).map_err(|e| failed("write", &self.path, e).with_effect(Effect::Unknown))
    }

    /// Hands out the records of earlier runs. What is behind the first one that is not whole is cut
    /// off: it was not synced when the power failed or the process was killed, so nothing was built
    /// on it yet, or it can be found out again.
    pub(super) fn replay(&mut self, take: impl FnMut(Record)) -> Result<()> {
        let cut_off = |journal: &mut Self| {
            journal.end = read_records(&journal.file, &journal.header, take)?;
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
        let checksum = self.header.digester.checksum(self.end, &body);
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
        // Closing the file would do, but for a process that is being started just now, which has it
        // open until it is.
        let _ = self.file.unlock();
    }
}

/// Returns the header, if it is whole and of this pair; `None` if the file is empty or its creation
/// was cut off.
fn read_header(mut file: &File, path: &Path, identities: &Identities) -> Result<Option<Header>> {
    let mut bytes = Vec::new();
    let reading = file.take(header::LONGEST as u64).read_to_end(&mut bytes);
    reading.map_err(|e| failed("read", path, e))?;
    let shown = path.display();
    let header = match header::read(&bytes) {
        Reading::Whole(header) => *header,
        Reading::CutOff => return Ok(None),
        Reading::Foreign => {
            let text = format!("{shown} is not a journal of a copy: give another path");
            return Err(refusal(ErrorKind::Config, text));
        }
        Reading::Version1 => {
            let text = format!(
                "the journal {shown} has format version 1, which does not tell the stores of one region or account from \
                 those of another: finish the copy with the version of keystead that began it, or start a new journal, \
                 with which what is at the target is compared again"
            );
            return Err(refusal(ErrorKind::Unsupported, text));
        }
        Reading::Later => {
            let text = format!(
                "the journal {shown} was written by a later version of keystead: finish the copy with that version"
            );
            return Err(refusal(ErrorKind::Unsupported, text));
        }
        Reading::Damaged => {
            let text = format!(
                "the journal {shown} is damaged: start a new journal, with which what is at the target is compared again"
            );
            return Err(refusal(ErrorKind::Corrupt, text));
        }
    };
    refuse_others(&header.identities, identities, path)?;
    file.seek(SeekFrom::Start(header.len)).map_err(|e| failed("read", path, e))?;
    Ok(Some(header))
}

/// Refuses a journal of another pair of stores.
fn refuse_others(journal: &Identities, now: &Identities, path: &Path) -> Result<()> {
    for (name, then, now) in [("source", &journal.source, &now.source), ("target", &journal.target, &now.target)] {
        if then.compare(now) == IdentityMatch::Different {
            let text = format!(
                "the journal {} is of a copy between other stores: its {name} is {then}, and now it is {now}; give each \
                 copy its own journal",
                path.display()
            );
            return Err(refusal(ErrorKind::Config, text));
        }
    }
    Ok(())
}

fn begin(file: &mut File, path: &Path, identities: &Identities) -> Result<Header> {
    let key: [u8; DIGEST_KEY_LEN] = random_digest_key();
    let Some((bytes, header)) = header::write(&key, identities) else {
        let text = "a store whose location has more than 65535 bytes cannot be named in a journal: copy without one";
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

/// Returns where the whole records end. The file stands behind its header.
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
        let Some(record) = whole(&bytes, end, &header.digester) else { return Ok(end) };
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

/// Reports whether the journal exists.
///
/// # Errors
/// [`Config`](ErrorKind::Config) if it is not a regular file or is accessible to other users; those
/// of reading its metadata.
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

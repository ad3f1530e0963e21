//! [`ReceiptLog`]: a receipt log that is open for adding receipts. FORMAT.md describes the format.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime};

use keystead::SecretKey;
use keystead::layers::ErasureReceipt;
use tempfile::NamedTempFile;

use super::chain::{self, Broken, Demands};
use super::entry::{self, Body, Entry, Hash, MAX_LINE_LEN, Place, Torn};
use super::keys::Signer;
use crate::encoding::hex;
use crate::exit::{Code, CommandError, Outcome};
use crate::{files, output};

/// The longest wait for the lock of a log.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// The pause between two attempts to take the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The number of bytes at the end of a log in which the last whole line is searched: the longest
/// line and as many torn bytes.
const TAIL_LEN: u64 = 2 * MAX_LINE_LEN as u64;

/// A receipt log that is open for adding receipts. Its methods block on the lock and on the disk.
#[derive(Debug)]
pub(crate) struct ReceiptLog {
    file: File,
    path: PathBuf,
    signer: Option<Signer>,
}

/// The end of a log.
struct Tail {
    /// The number of the last whole line.
    seq: u64,
    /// The hash of that line.
    hash: Hash,
    /// The bytes after it, if a writer was cut off.
    torn: Option<Torn>,
    /// True if the file ends with a line break.
    is_ended: bool,
}

impl ReceiptLog {
    /// Opens the log at this path, or creates it. Checks that it is a whole receipt log, that it is
    /// signed if and only if there is a signer, and that it can be locked and written. Adds a
    /// marker if a writer was cut off.
    pub(crate) fn open(path: &Path, signer: Option<Signer>) -> Outcome<Self> {
        if fs::symlink_metadata(path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) {
            begin(path, signer.as_ref())?;
        }
        let file = open_existing(path)?;
        let mut log = Self { file, path: path.to_owned(), signer };
        log.with_lock(|log| {
            log.check_first_line()?;
            let tail = log.tail()?;
            if tail.torn.is_some() {
                log.add(&tail, None)?;
            }
            log.check_chain()
        })?;
        Ok(log)
    }

    /// Refuses a log in which a line was changed, and one that only other keys have signed.
    fn check_chain(&mut self) -> Outcome<()> {
        let shown = self.path.display();
        let mut file = &self.file;
        let read = file
            .seek(SeekFrom::Start(0))
            .and_then(|_| chain::read_lines(BufReader::new(file), &Demands::default(), |_, _| {}));
        let summary = read.map_err(|e| self.failed("read", e))?.map_err(|Broken { line, why }| {
            CommandError::new(
                Code::Damaged,
                format!("nothing was erased: line {line} of the receipt log {shown} {why}"),
            )
            .advise("keep this log as it is, and name a new file")
        })?;
        match &self.signer {
            Some(signer) if !summary.signed_by.contains(&signer.public_key()) => Err(CommandError::usage(format!(
                "nothing was erased: the receipt log {shown} is signed with another key"
            ))
            .advise("give that key with --signing-key, or name a new file")),
            _ => Ok(()),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a receipt, syncs the log, and returns the number of the new entry.
    pub(crate) fn append(&mut self, receipt: &ErasureReceipt) -> Outcome<u64> {
        self.with_lock(|log| {
            let tail = log.tail()?;
            log.add(&tail, Some(receipt))
        })
    }

    /// Refuses a file that is not a receipt log, a signed log if there is no signer, and an
    /// unsigned one if there is a signer.
    fn check_first_line(&self) -> Outcome<()> {
        let shown = self.path.display();
        let mut first = Vec::new();
        let read = BufReader::new(&self.file).take(MAX_LINE_LEN as u64 + 1).read_until(b'\n', &mut first);
        read.map_err(|e| self.failed("read", e))?;
        let line = first.strip_suffix(b"\n").unwrap_or(&first);
        if let Some(version) = entry::version_of(line).filter(|version| !entry::is_known(*version)) {
            return Err(CommandError::usage(format!("the receipt log {shown} has the format version {version}"))
                .because("a later version of keystead wrote it")
                .advise("use that version, or name a new file"));
        }
        match Entry::parse(line) {
            Some(Entry { body: Body::Begin { .. }, signature, .. }) => match (&self.signer, signature) {
                (Some(_), None) => Err(CommandError::usage(format!(
                    "the receipt log {shown} is not signed, so no signed line can be added"
                ))
                .advise("leave out --signing-key, or name a new file")),
                (None, Some(_)) => Err(CommandError::usage(format!(
                    "the receipt log {shown} is signed, so no unsigned line can be added"
                ))
                .advise("give --signing-key, or name a new file")),
                _ => Ok(()),
            },
            _ => Err(CommandError::usage(format!(
                "{shown} is not a receipt log, and was left unchanged: name a new file"
            ))),
        }
    }

    /// Runs `work` while no other program can add to the log.
    fn with_lock<T>(&mut self, work: impl FnOnce(&mut Self) -> Outcome<T>) -> Outcome<T> {
        wait_for_lock(&self.file, &self.path, File::try_lock)?;
        let done = self.ensure_has_name().and_then(|()| work(self));
        // If this fails, closing the file unlocks it.
        let _ = self.file.unlock();
        done
    }

    /// Refuses a file that was removed since it was opened: lines that are added to it would be
    /// lost.
    fn ensure_has_name(&self) -> Outcome<()> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            let metadata = self.file.metadata().map_err(|e| self.failed("inspect", e))?;
            if metadata.nlink() == 0 {
                return Err(CommandError::other(format!("the receipt log {} was removed", self.path.display())));
            }
        }
        Ok(())
    }

    /// Finds the last whole line, searching from the end.
    fn tail(&mut self) -> Outcome<Tail> {
        let bytes = self.last_bytes().map_err(|e| self.failed("read", e))?;
        let is_ended = bytes.ends_with(b"\n");
        let mut end = if is_ended { bytes.len() - 1 } else { bytes.len() };
        loop {
            let before = bytes.get(..end).unwrap_or_default();
            let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            if let Some(line) = before.get(start..).and_then(Entry::parse) {
                let rest = bytes.get(end + 1..).unwrap_or_default();
                // Nothing follows the line break of the last line, unless a writer was cut off.
                let is_torn = end + 1 < bytes.len() || end == bytes.len();
                return Ok(Tail { seq: line.seq, hash: line.hash, torn: is_torn.then(|| Torn::of(rest)), is_ended });
            }
            if start == 0 || end - start > MAX_LINE_LEN {
                return Err(CommandError::new(
                    Code::Damaged,
                    format!("the receipt log {} is damaged", self.path.display()),
                )
                .because("its end was not written by keystead")
                .advise("check it with keystead receipt verify, keep it, and name a new file"));
            }
            end = start - 1;
        }
    }

    fn last_bytes(&mut self) -> io::Result<Vec<u8>> {
        let len = self.file.metadata()?.len();
        self.file.seek(SeekFrom::Start(len.saturating_sub(TAIL_LEN)))?;
        let mut bytes = Vec::new();
        (&self.file).take(TAIL_LEN).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Adds a marker if the tail is torn, then the receipt if there is one, and syncs the log.
    /// Returns the number of the last entry.
    fn add(&mut self, tail: &Tail, receipt: Option<&ErasureReceipt>) -> Outcome<u64> {
        let mut added = Vec::new();
        let Tail { mut seq, mut hash, .. } = *tail;
        let bodies = [tail.torn.map(Body::Torn), receipt.cloned().map(Body::Receipt)];
        if !tail.is_ended {
            added.push(b'\n');
        }
        for body in bodies.into_iter().flatten() {
            seq = seq.checked_add(1).ok_or_else(|| self.unwritable("its number would be too high"))?;
            let place = Place { seq, prev: hash, at: unix_seconds() };
            let line = entry::line(place, body, self.signer.as_ref()).map_err(|why| self.unwritable(why))?;
            hash = Hash::of(&line);
            added.extend_from_slice(&line);
            added.push(b'\n');
        }
        let written = self.file.write_all(&added).and_then(|()| self.file.sync_data());
        written.map_err(|e| self.failed("write", e))?;
        if let Some(torn) = tail.torn {
            let shown = self.path.display();
            let left = match torn.bytes {
                0 => "without a line break".to_owned(),
                bytes => format!("with {bytes} bytes of an incomplete line, which were kept"),
            };
            output::note(format!(
                "the receipt log {shown} ended {left}, because a writer was cut off: a marker was added"
            ));
        }
        Ok(seq)
    }

    fn unwritable(&self, why: &'static str) -> CommandError {
        CommandError::other(format!("cannot add a line to the receipt log {}", self.path.display())).because(why)
    }

    fn failed(&self, doing: &str, e: io::Error) -> CommandError {
        failed(doing, &self.path, e)
    }
}

/// Creates a log with its first line. The file gets its name only when the line is complete.
fn begin(path: &Path, signer: Option<&Signer>) -> Outcome<()> {
    let log = SecretKey::generate(16).map_err(|e| CommandError::other("cannot generate random bytes").because(e))?;
    let place = Place { seq: 0, prev: Hash::NONE, at: unix_seconds() };
    let line = entry::line(place, Body::Begin { log: hex(log.expose_secret()) }, signer);
    let mut line = line.map_err(|why| failed("create", path, io::Error::other(why)))?;
    line.push(b'\n');
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written = NamedTempFile::new_in(directory).and_then(|mut new| {
        new.write_all(&line)?;
        new.as_file().sync_all()?;
        Ok(new)
    });
    let new = written.map_err(|e| failed("create", path, e))?;
    match new.persist_noclobber(path) {
        Ok(_) => {
            files::sync_name(path).map_err(|e| failed("sync the directory of", path, e))?;
            output::note(format!("created the receipt log {}", path.display()));
            Ok(())
        }
        // Another program has created it.
        Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(failed("create", path, e.error)),
    }
}

/// Opens an existing log for adding lines.
fn open_existing(path: &Path) -> Outcome<File> {
    // Checked before the file is opened, because opening a pipe would wait for its reader.
    check_kind(path)?;
    let file = OpenOptions::new().read(true).append(true).open(path).map_err(|e| failed("open", path, e))?;
    #[cfg(unix)]
    {
        let metadata = file.metadata().map_err(|e| failed("inspect", path, e))?;
        if std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o002 != 0 {
            let shown = path.display();
            return Err(CommandError::usage(format!(
                "everybody can write to the receipt log {shown}: run chmod o-w '{shown}'"
            )));
        }
    }
    Ok(file)
}

/// Refuses anything that is not a regular file.
pub(super) fn check_kind(path: &Path) -> Outcome<()> {
    let metadata = fs::metadata(path).map_err(|e| failed("open", path, e))?;
    if metadata.is_file() {
        return Ok(());
    }
    Err(CommandError::usage(format!("{} is not a regular file: name another file", path.display())))
}

/// Takes a lock. Waits for at most [`LOCK_WAIT`] if another program holds it.
pub(super) fn wait_for_lock(
    file: &File,
    path: &Path,
    try_lock: impl Fn(&File) -> Result<(), TryLockError>,
) -> Outcome<()> {
    let start = Instant::now();
    loop {
        match try_lock(file) {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if start.elapsed() < LOCK_WAIT => sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let shown = path.display();
                let seconds = LOCK_WAIT.as_secs();
                let what = format!("another program has held the lock of the receipt log {shown} for {seconds} s");
                return Err(CommandError::new(Code::Unavailable, what)
                    .advise("wait until that program has ended, and try again"));
            }
            Err(TryLockError::Error(e)) => return Err(failed("lock", path, e)),
        }
    }
}

pub(super) fn failed(doing: &str, path: &Path, e: io::Error) -> CommandError {
    let code = match e.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Code::Denied,
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Code::Usage,
        _ => Code::Other,
    };
    CommandError::new(code, format!("cannot {doing} the receipt log {}", path.display())).because(e)
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

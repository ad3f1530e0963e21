//! [`WriterLock`]: one writer at a time among all processes.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use keystead_core::ErrorKind;

use crate::config::Location;
use crate::error::{FileError, Result};
use crate::threads::spawn;

/// The longest time that a caller waits for the lock. Other processes hold it for milliseconds,
/// unless they are stopped.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// The advisory lock on `PATH.lock`. It is fair, which SQLite's own waiting is not, and keeps
/// checkpoints of two processes apart, which refuse each other.
pub(crate) struct WriterLock {
    file: File,
    location: Location,
}

/// Holds the lock until it is dropped.
pub(crate) enum Locked<'a> {
    ByFile(&'a File),
    /// The lock is held by an open file of its own.
    ByOwnFile(File),
}

impl WriterLock {
    pub(crate) fn open(location: &Location) -> Result<Self> {
        Ok(Self { file: location.open_beside(&location.lock)?, location: location.clone() })
    }

    /// Waits for as long as others hold it: for the writer thread, which nobody waits for without a
    /// limit.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        self.wait().map(|()| Locked::ByFile(&self.file))
    }

    fn wait(&self) -> Result<()> {
        loop {
            match self.file.lock() {
                // A signal arrived.
                Err(e) if e.kind() == IoErrorKind::Interrupted => {}
                locked => return locked.map_err(|e| FileError::io("locking", &self.location.lock, e)),
            }
        }
    }

    /// `None` if another process holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>> {
        match self.file.try_lock() {
            Ok(()) => Ok(Some(Locked::ByFile(&self.file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(FileError::io("locking", &self.location.lock, e)),
        }
    }

    /// Waits in the queue of the operating system, but no longer than this.
    pub(crate) fn lock_within(&self, limit: Duration) -> Result<Locked<'_>> {
        if let Some(locked) = self.try_lock()? {
            return Ok(locked);
        }
        // The waiting cannot be called off, so a thread of its own does it, with a file of its own:
        // a lock that comes too late ends when the channel drops that file.
        let waiting = Self::open(&self.location)?;
        let (sender, receiver) = channel();
        spawn(move || {
            drop(sender.send(waiting.wait().map(|()| waiting.file)));
        })?;
        match receiver.recv_timeout(limit) {
            Ok(file) => Ok(Locked::ByOwnFile(file?)),
            Err(RecvTimeoutError::Timeout) => Err(self.held_by_another()),
            Err(RecvTimeoutError::Disconnected) => Err(FileError::writer_is_gone()),
        }
    }

    /// The number of checkpoints that all processes that have the store open have begun. The number
    /// is kept in the lock file, for as long as the system runs.
    pub(crate) fn checkpoints(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        match read_at_start(&self.file, &mut bytes) {
            Ok(8) => Ok(u64::from_le_bytes(bytes)),
            // A new lock file.
            Ok(_) => Ok(0),
            Err(e) => Err(FileError::io("reading", &self.location.lock, e)),
        }
    }

    /// Counts one more, under the lock, and returns the number.
    pub(crate) fn count_checkpoint(&self) -> Result<u64> {
        let count = self.checkpoints()?.wrapping_add(1);
        write_at_start(&self.file, &count.to_le_bytes())
            .map_err(|e| FileError::io("writing", &self.location.lock, e))?;
        Ok(count)
    }

    /// The failure of a caller that has waited too long.
    pub(crate) fn held_by_another(&self) -> FileError {
        let lock = self.location.lock.display();
        let holder = match holder_of(&self.location.lock) {
            Some(pid) => format!("process {pid}"),
            None => "another process".to_owned(),
        };
        let text = format!("{holder} holds {lock} and does not let go of it: see whether it is stopped, and try again");
        FileError::new(ErrorKind::Timeout, text)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let file = match self {
            Self::ByFile(file) => *file,
            Self::ByOwnFile(file) => file,
        };
        // Closing the file would not end the lock if a forked process has it open, too. On a lock
        // that is held this cannot fail.
        let _ = file.unlock();
    }
}

/// The process that holds a lock on this file, where the system tells (proc(5)).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn holder_of(_: &Path) -> Option<u32> {
    None
}

/// The process that holds a lock on this file, where the system tells (proc(5)).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn holder_of(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path).ok()?;
    let major = rustix::fs::major(metadata.dev());
    let minor = rustix::fs::minor(metadata.dev());
    let inode = metadata.ino();
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // A waiting process has "->" as its second field.
    let fields = locks.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut pids = fields.filter_map(|fields| match fields.as_slice() {
        [_, "FLOCK", _, "WRITE", pid, of, ..] if *of == file => pid.parse().ok(),
        _ => None,
    });
    pids.next()
}

#[cfg(unix)]
fn read_at_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, 0)
}

#[cfg(unix)]
fn write_at_start(file: &File, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, 0)
}

#[cfg(windows)]
fn read_at_start(file: &File, bytes: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, 0)
}

#[cfg(windows)]
fn write_at_start(file: &File, bytes: &[u8]) -> io::Result<()> {
    std::os::windows::fs::FileExt::seek_write(file, bytes, 0).map(drop)
}

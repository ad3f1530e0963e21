//! [`WriterLock`]: the lock by which the writers of all processes take turns.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind as IoErrorKind};
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use keystead_core::ErrorKind;

use crate::config::Location;
use crate::error::{FileError, Result};
use crate::threads::spawn;

/// The longest time for which a caller waits for the lock. A process holds it for milliseconds,
/// unless it is stopped.
pub(crate) const LOCK_LIMIT: Duration = Duration::from_secs(10);

/// The advisory lock on `PATH.lock`.
///
/// Unlike SQLite's own locks it is fair to waiting processes. It also keeps two processes from
/// running checkpoints at the same time, which would make one of them fail.
pub(crate) struct WriterLock {
    file: File,
    location: Location,
}

/// A guard that holds the lock until it is dropped.
pub(crate) enum Locked<'a> {
    /// The lock is on the file that [`WriterLock`] has open.
    ByFile(&'a File),
    /// The lock is on a file that was opened for this guard.
    ByOwnFile(File),
}

impl WriterLock {
    pub(crate) fn open(location: &Location) -> Result<Self> {
        Ok(Self { file: location.open_beside(&location.lock)?, location: location.clone() })
    }

    /// Takes the lock, and waits for it without a limit. This is for the writer thread: its callers
    /// have a limit of their own.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        self.wait().map(|()| Locked::ByFile(&self.file))
    }

    fn wait(&self) -> Result<()> {
        loop {
            match self.file.lock() {
                // A signal has interrupted the wait.
                Err(e) if e.kind() == IoErrorKind::Interrupted => {}
                locked => return locked.map_err(|e| FileError::io("locking", &self.location.lock, e)),
            }
        }
    }

    /// Takes the lock if it is free. Returns `None` if another process holds it.
    pub(crate) fn try_lock(&self) -> Result<Option<Locked<'_>>> {
        match self.file.try_lock() {
            Ok(()) => Ok(Some(Locked::ByFile(&self.file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(e)) => Err(FileError::io("locking", &self.location.lock, e)),
        }
    }

    /// Takes the lock, and waits for it no longer than this.
    pub(crate) fn lock_within(&self, limit: Duration) -> Result<Locked<'_>> {
        if let Some(locked) = self.try_lock()? {
            return Ok(locked);
        }
        // The operating system's wait cannot be canceled, so a separate thread waits, with a
        // separate file. If it gets the lock too late, the lock is released when the channel drops
        // that file.
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

    /// Returns the number of checkpoints that all processes have begun. It is kept in the lock
    /// file, and needs to last only until the system restarts.
    pub(crate) fn checkpoints(&self) -> Result<u64> {
        let mut bytes = [0; 8];
        match read_at_start(&self.file, &mut bytes) {
            Ok(8) => Ok(u64::from_le_bytes(bytes)),
            // A new lock file is empty.
            Ok(_) => Ok(0),
            Err(e) => Err(FileError::io("reading", &self.location.lock, e)),
        }
    }

    /// Adds one to the number of checkpoints and returns it. The caller holds the lock.
    pub(crate) fn count_checkpoint(&self) -> Result<u64> {
        let count = self.checkpoints()?.wrapping_add(1);
        write_at_start(&self.file, &count.to_le_bytes())
            .map_err(|e| FileError::io("writing", &self.location.lock, e))?;
        Ok(count)
    }

    /// Returns the error for a caller that has waited too long.
    pub(crate) fn held_by_another(&self) -> FileError {
        let lock = self.location.lock.display();
        let holder = match holder_of(&self.location.lock) {
            Some(pid) => format!("process {pid}"),
            None => "another process".to_owned(),
        };
        let text = format!("{holder} has not released {lock}: check whether it is stopped, and try again");
        FileError::new(ErrorKind::Timeout, text)
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        let file = match self {
            Self::ByFile(file) => *file,
            Self::ByOwnFile(file) => file,
        };
        // Closing the file would not release the lock if a forked process has the file open, too.
        // To unlock a lock that is held cannot fail.
        let _ = file.unlock();
    }
}

/// Returns the id of the process that holds a lock on this file, if the system reports it
/// (proc(5)).
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn holder_of(_: &Path) -> Option<u32> {
    None
}

/// Returns the id of the process that holds a lock on this file, if the system reports it
/// (proc(5)).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn holder_of(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::symlink_metadata(path).ok()?;
    let major = rustix::fs::major(metadata.dev());
    let minor = rustix::fs::minor(metadata.dev());
    let inode = metadata.ino();
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    let locks = fs::read_to_string("/proc/locks").ok()?;
    // The line of a process that waits for a lock has "->" as its second field.
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

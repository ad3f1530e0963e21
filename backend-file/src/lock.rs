//! [`WriterLock`]: one writer at a time among all processes.

use std::fs::File;
use std::io::ErrorKind;

use crate::config::Location;
use crate::error::{Failure, Result};

/// The advisory lock on `PATH.lock`. It is fair, which SQLite's own waiting is not, and keeps checkpoints of two
/// processes apart, which refuse each other.
pub(crate) struct WriterLock {
    file: File,
    location: Location,
}

/// Holds the lock until it is dropped.
pub(crate) struct Locked<'a>(&'a File);

impl WriterLock {
    pub(crate) fn open(location: &Location) -> Result<Self> {
        Ok(Self { file: location.open_lock_file()?, location: location.clone() })
    }

    /// Waits for as long as others hold it.
    pub(crate) fn lock(&self) -> Result<Locked<'_>> {
        loop {
            match self.file.lock() {
                Ok(()) => return Ok(Locked(&self.file)),
                // A signal arrived.
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(Failure::io("locking", &self.location.lock, e)),
            }
        }
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // It cannot fail on a lock that is held; closing the file would end it anyway.
        let _ = self.0.unlock();
    }
}

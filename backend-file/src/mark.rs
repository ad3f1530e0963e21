//! [`Mark`]: the file beside a store that records which store was created there and whether
//! processes have it open.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process;

use keystead_core::ErrorKind;

use crate::config::Location;
use crate::error::{FileError, Result};

/// The beginning of the file's text. The id of the store follows.
const BEGINNING: &str = "keystead store ";

/// The number of bytes of the file that are read.
const MAX_LEN: u64 = 128;

/// The file `PATH.id`, with a lock on it.
///
/// The mark remains if the store's file is lost, so that no new store silently takes its place.
/// Each process that has the store open holds a shared lock on the mark, so that no restore
/// replaces the file meanwhile.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    /// The id of the store that was created here; `None` if no creation was completed.
    store_id: Option<String>,
    /// The process that took the lock.
    process: u32,
}

impl Mark {
    /// Opens or creates the mark and takes a shared lock, for a process that opens the store.
    pub(crate) fn open(location: &Location) -> Result<Self> {
        let mark = Self::read(location)?;
        match mark.file.try_lock_shared() {
            Ok(()) => Ok(mark),
            Err(TryLockError::WouldBlock) => {
                let text = format!("a restore is replacing {}: try again", location.path.display());
                Err(FileError::new(ErrorKind::Unavailable, text))
            }
            Err(TryLockError::Error(e)) => Err(FileError::io("locking", &location.mark, e)),
        }
    }

    /// Opens or creates the mark and takes an exclusive lock, for a process that replaces the
    /// store. Fails if another process has the store open.
    pub(crate) fn open_alone(location: &Location) -> Result<Self> {
        let mark = Self::read(location)?;
        match mark.file.try_lock() {
            Ok(()) => Ok(mark),
            Err(TryLockError::WouldBlock) => {
                let text = format!("a process has {} open: end it, then restore", location.path.display());
                Err(FileError::new(ErrorKind::Conflict, text))
            }
            Err(TryLockError::Error(e)) => Err(FileError::io("locking", &location.mark, e)),
        }
    }

    fn read(location: &Location) -> Result<Self> {
        let file = location.open_beside(&location.mark)?;
        let mut text = Vec::new();
        let unreadable = |e| FileError::io("reading", &location.mark, e);
        (&file).take(MAX_LEN).read_to_end(&mut text).map_err(unreadable)?;
        // An incomplete or damaged text counts as none.
        let text = String::from_utf8(text).unwrap_or_default();
        let store_id = text.strip_prefix(BEGINNING).and_then(|rest| rest.strip_suffix('\n')).map(str::to_owned);
        Ok(Self { file, store_id, process: process::id() })
    }

    /// Reports whether the creation of a store was completed here.
    pub(crate) fn is_set(&self) -> bool {
        self.store_id.is_some()
    }

    /// Durably sets the mark to this store if it is not set. Fails if it is set to another store.
    pub(crate) fn settle(&mut self, location: &Location, store_id: &str) -> Result<()> {
        self.expect_store(location, store_id)?;
        if self.is_set() { Ok(()) } else { self.replace(location, store_id) }
    }

    /// Fails if the mark is set to another store.
    pub(crate) fn expect_store(&self, location: &Location, store_id: &str) -> Result<()> {
        match &self.store_id {
            Some(marked) if marked != store_id => {
                let mark = location.mark.display();
                let text = format!(
                    "this is not the store that was created at this path: put the file of that store back or, to \
                     use this one in its place, remove {mark}"
                );
                Err(FileError::new(ErrorKind::Config, text))
            }
            _ => Ok(()),
        }
    }

    /// Durably sets the mark to this store.
    pub(crate) fn replace(&mut self, location: &Location, store_id: &str) -> Result<()> {
        let write = || {
            let mut file = &self.file;
            let text = format!("{BEGINNING}{store_id}\n");
            file.seek(SeekFrom::Start(0))?;
            file.write_all(text.as_bytes())?;
            file.set_len(text.len() as u64)?;
            file.sync_all()
        };
        write().map_err(|e| FileError::io("writing", &location.mark, e))?;
        location.sync_directory()?;
        self.store_id = Some(store_id.to_owned());
        Ok(())
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Closing the file would not always release the lock at once: a program that this process
        // is just starting has the file open, too, until it is loaded. A forked process must not
        // release the lock of its parent.
        if self.process == process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// Returns the error for a store whose file is lost.
pub(crate) fn lost_store(location: &Location) -> FileError {
    let path = location.path.display();
    let mark = location.mark.display();
    let text = format!(
        "the store that was created at {path} is gone, because its file is missing or empty: put the file back or \
         restore a backup; if you have removed the store on purpose, remove {mark}, too"
    );
    FileError::new(ErrorKind::Corrupt, text)
}

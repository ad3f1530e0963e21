//! [`Mark`]: says beside the file that a store was created there, and that processes have it open.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::process;

use keystead_core::ErrorKind;

use crate::config::Location;
use crate::error::{FileError, Result};

/// The beginning of a mark; the id of the store follows.
const BEGINNING: &str = "keystead store ";

const MAX_LEN: u64 = 128;

/// The file `PATH.id`. It outlives a store whose file is lost, so that no new one takes its place
/// in silence. Each process that has the store open holds a shared lock on it, so that no restore
/// replaces the file beneath it.
#[derive(Debug)]
pub(crate) struct Mark {
    file: File,
    store_id: Option<String>,
    process: u32,
}

impl Mark {
    /// Opens or creates the mark, and holds it for a process that opens the store.
    pub(crate) fn open(location: &Location) -> Result<Self> {
        let mark = Self::read(location)?;
        match mark.file.try_lock_shared() {
            Ok(()) => Ok(mark),
            Err(TryLockError::WouldBlock) => {
                let text = format!("a restore replaces {} at this moment: try again", location.path.display());
                Err(FileError::new(ErrorKind::Unavailable, text))
            }
            Err(TryLockError::Error(e)) => Err(FileError::io("locking", &location.mark, e)),
        }
    }

    /// The same for a process that replaces the store. No other may have it open.
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
        // One that was cut off or is damaged says nothing.
        let text = String::from_utf8(text).unwrap_or_default();
        let store_id = text.strip_prefix(BEGINNING).and_then(|rest| rest.strip_suffix('\n')).map(str::to_owned);
        Ok(Self { file, store_id, process: process::id() })
    }

    /// Reports whether the creation of a store here was finished.
    pub(crate) fn is_set(&self) -> bool {
        self.store_id.is_some()
    }

    /// Sets the mark to this store, durably, or compares the two.
    pub(crate) fn settle(&mut self, location: &Location, store_id: &str) -> Result<()> {
        self.is_of(location, store_id)?;
        if self.is_set() { Ok(()) } else { self.replace(location, store_id) }
    }

    /// Refuses another store than the one that was created here.
    pub(crate) fn is_of(&self, location: &Location, store_id: &str) -> Result<()> {
        match &self.store_id {
            Some(marked) if marked != store_id => {
                let mark = location.mark.display();
                let text = format!(
                    "this is another store than the one that was created at this path: put that one's file \
                     back; if you \
                     want this one in its place, remove {mark}"
                );
                Err(FileError::new(ErrorKind::Config, text))
            }
            _ => Ok(()),
        }
    }

    /// Sets the mark to another store.
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
        // A program that this process starts at the same moment has the file open, too, until it is
        // loaded, so that closing it would not end the lock yet. A forked process must not end the
        // lock of its parent.
        if self.process == process::id() {
            let _ = self.file.unlock();
        }
    }
}

/// The failure of opening or creating a store whose file is lost.
pub(crate) fn lost_store(location: &Location) -> FileError {
    let path = location.path.display();
    let mark = location.mark.display();
    let text = format!(
        "the store that was created at {path} is gone: its file is missing or empty; put it back or restore a \
         backup; if \
         you have removed the store on purpose, remove {mark}, too"
    );
    FileError::new(ErrorKind::Corrupt, text)
}

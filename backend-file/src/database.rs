//! [`Database`]: a connection to the SQLite database, its settings, transactions and checkpoints.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use keystead_core::ErrorKind;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::config::Location;
use crate::error::{FileError, Result};
use crate::instance::Instance;

/// The time for which a statement waits for a foreign program that holds SQLite's own locks.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// The part of the database that the writer's connection keeps in memory at most, in KiB.
const WRITER_CACHE: i32 = 8 * 1024;

/// The same for each reader. With a million keys a larger one makes no get quicker (measured from 1
/// to 16 MiB): the system has the pages in memory, too.
const READER_CACHE: i32 = 1024;

/// The parts of a log (<https://sqlite.org/fileformat2.html#walformat>), with pages of 4 KiB.
const LOG_HEADER_LEN: u64 = 32;
const LOG_FRAME_LEN: u64 = 24 + 4096;

/// One connection, with its settings.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    // In milliseconds: how long SQLite's busy handler goes on.
    patience: Arc<AtomicI32>,
    // How many pages the log held after this connection's last commit.
    log_pages: Arc<AtomicI32>,
    // True if the next transaction may be the first of a log.
    mark_is_due: Cell<bool>,
}

impl Database {
    /// Reports whether the file has no tables yet, because its creation was interrupted or has not
    /// begun.
    pub(crate) fn is_blank(location: &Location) -> Result<bool> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(database.connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
    }

    /// A connection that cannot write, for readers of a store that a writer holds open.
    pub(crate) fn open_reader(location: &Location) -> Result<Self> {
        let reader = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        // Negative: in KiB, not in pages.
        reader.connection.pragma_update(None, "cache_size", -READER_CACHE)?;
        Ok(reader)
    }

    pub(crate) fn connect(location: &Location, access: OpenFlags) -> Result<Self> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(&location.path, flags)?;
        let patience = Arc::new(AtomicI32::new(milliseconds(BUSY_LIMIT)));
        let limit = patience.clone();
        connection.busy_handler(Some(move |count| {
            std::thread::sleep(Duration::from_millis(1));
            count < limit.load(Ordering::Relaxed)
        }))?;
        // What is deleted is overwritten with zeros in the file; the rest of the promise is the
        // scrub.
        connection.pragma_update(None, "secure_delete", "ON")?;
        let secure: i32 = connection.pragma_query_value(None, "secure_delete", |row| row.get(0))?;
        if secure != 1 {
            return Err(FileError::new(ErrorKind::Unsupported, "this SQLite cannot overwrite what it deletes"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        // On macOS an fsync alone does not reach the medium.
        connection.pragma_update(None, "fullfsync", "ON")?;
        connection.pragma_update(None, "checkpoint_fullfsync", "ON")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Negative: in KiB, not in pages.
        connection.pragma_update(None, "cache_size", -WRITER_CACHE)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let log_pages = Arc::new(AtomicI32::new(0));
        let counter = log_pages.clone();
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counter.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        connection.pragma_update(None, "cell_size_check", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        Ok(Self { connection, patience, log_pages, mark_is_due: Cell::new(false) })
    }

    /// The sealed keyring.
    pub(crate) fn keyring(&self) -> Result<Vec<u8>> {
        let mut statement = self.connection.prepare_cached("SELECT bytes FROM keyring WHERE number = 1")?;
        let bytes = statement.query_row([], |row| Ok(row.get_ref(0)?.as_blob().unwrap_or_default().to_vec()));
        // A missing row or a value that is no blob is a damaged keyring, as empty bytes are.
        Ok(bytes.optional()?.unwrap_or_default())
    }

    pub(crate) fn write_keyring(&self, sealed: &[u8]) -> Result<()> {
        let mut statement = self.connection.prepare_cached("UPDATE keyring SET bytes = ?1 WHERE number = 1")?;
        statement.execute([sealed])?;
        self.expect_keyring(sealed)
    }

    /// Makes sure that what was written into the keyring's page has damaged no keyring there: all
    /// keys would be lost.
    pub(crate) fn expect_keyring(&self, sealed: &[u8]) -> Result<()> {
        if self.keyring()? == sealed { Ok(()) } else { Err(FileError::damaged_keyring_page()) }
    }

    /// Writes all or nothing, durably.
    pub(crate) fn transaction<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let write = || {
            if self.mark_is_due.get() {
                self.mark_log()?;
            }
            let written = write()?;
            self.commit()?;
            Ok(written)
        };
        let written = write();
        match &written {
            Ok(_) => self.mark_is_due.set(false),
            Err(_) => self.end(),
        }
        written
    }

    /// The same, but without waiting for the disk. The caller makes it durable: by a checkpoint,
    /// which waits for the log to reach the disk first, or by syncing the log.
    pub(crate) fn transaction_not_yet_durable<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.pragma_update(None, "synchronous", "NORMAL")?;
        let written = self.transaction(write);
        self.connection.pragma_update(None, "synchronous", "FULL")?;
        written
    }

    /// Makes the next transaction mark the log, of which it may be the first.
    pub(crate) fn mark_next_transaction(&self) {
        self.mark_is_due.set(true);
    }

    fn commit(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT").map_err(|e| {
            let failure = FileError::from(e);
            // Whether the last page reached the disk before it failed, only a restart tells.
            if failure.kind() == ErrorKind::Unavailable { failure.of_unknown_effect() } else { failure }
        })
    }

    /// Ends a transaction that has written nothing, or is to be undone.
    pub(crate) fn end(&self) {
        if !self.connection.is_autocommit() {
            // What fails here has failed before, and was reported then.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Runs reads that see the database of one moment.
    pub(crate) fn reading<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN")?;
        let read = read();
        self.end();
        read
    }

    /// Copies all pages as they are at one moment into an empty file, which gets an instance of its
    /// own.
    pub(crate) fn copy_to(&self, location: &Location) -> Result<()> {
        copy(&self.connection, location)
    }

    /// The number of faults that SQLite finds in the structure of its pages, up to 100
    /// (<https://sqlite.org/pragma.html#pragma_quick_check>).
    pub(crate) fn count_structural_faults(&self) -> Result<u64> {
        let mut statement = self.connection.prepare("PRAGMA quick_check(100)")?;
        let mut lines = statement.query([])?;
        let mut faults = 0;
        loop {
            match lines.next().map_err(FileError::from) {
                Ok(Some(line)) => faults += u64::from(line.get_ref(0)?.as_bytes().ok() != Some(b"ok")),
                Ok(None) => return Ok(faults),
                // The check itself met damage.
                Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(faults + 1),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// The number of pages in the log after the last transaction, from all processes.
    pub(crate) fn log_pages(&self) -> i32 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// The length in bytes that the log's file must have at least for the transactions in it.
    pub(crate) fn least_log_len(&self) -> Result<u64> {
        let mut statement = self.connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        Ok(log_len(statement.query_row([], |row| row.get(1))?))
    }

    /// The same as of this connection's last commit; `None` before the first. Costs nothing.
    pub(crate) fn last_log_len(&self) -> Option<u64> {
        Some(self.log_pages()).filter(|pages| *pages > 0).map(log_len)
    }

    /// Moves the whole log into the database and empties its file; `false` if readers hold it for
    /// longer than this.
    pub(crate) fn truncate_log(&self, wait: Duration) -> Result<bool> {
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)", wait)
    }

    /// The same, but the log's file keeps its length and is written again from its beginning: a
    /// commit that need not make the file longer is quicker.
    pub(crate) fn restart_log(&self, wait: Duration) -> Result<bool> {
        self.checkpoint("PRAGMA wal_checkpoint(RESTART)", wait)
    }

    fn checkpoint(&self, pragma: &str, wait: Duration) -> Result<bool> {
        self.patience.store(milliseconds(wait), Ordering::Relaxed);
        let busy = self.connection.query_row(pragma, [], |row| row.get::<_, bool>(0));
        self.patience.store(milliseconds(BUSY_LIMIT), Ordering::Relaxed);
        Ok(!busy?)
    }
}

/// Copies all pages of a connection into an empty file.
pub(crate) fn copy(source: &Connection, location: &Location) -> Result<()> {
    let mut target = Database::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let backup = Backup::new(source, &mut target.connection)?;
    let mut attempts = BUSY_LIMIT.as_millis();
    while backup.step(-1)? != StepResult::Done {
        attempts = attempts.checked_sub(1).ok_or_else(FileError::locked_by_foreign_program)?;
        std::thread::sleep(Duration::from_millis(1));
    }
    drop(backup);
    target.transaction(|| target.write_instance(Instance::random()))?;
    // Leaves no log beside the copy.
    if target.truncate_log(BUSY_LIMIT)? { Ok(()) } else { Err(FileError::locked_by_foreign_program()) }
}

/// The length in bytes of a log of this many pages.
fn log_len(pages: i32) -> u64 {
    u64::try_from(pages).ok().filter(|pages| *pages > 0).map_or(0, |pages| LOG_HEADER_LEN + pages * LOG_FRAME_LEN)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

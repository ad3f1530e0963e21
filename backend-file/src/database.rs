//! [`Database`]: one connection to the SQLite database, with its settings, transactions and
//! checkpoints.

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

/// The time for which a statement waits while another program holds SQLite's own locks.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// The page cache of the writer's connection, in KiB.
const WRITER_CACHE: i32 = 8 * 1024;

/// The page cache of each reader's connection, in KiB. With a million keys, a larger cache does not
/// make reads faster (measured from 1 to 16 MiB), because the operating system caches the pages,
/// too.
const READER_CACHE: i32 = 1024;

/// The length in bytes of a log's header (<https://sqlite.org/fileformat2.html#walformat>).
const LOG_HEADER_LEN: u64 = 32;

/// The length in bytes of a frame of the log: its header and a page of 4 KiB.
const LOG_FRAME_LEN: u64 = 24 + 4096;

/// A connection to the database of a store.
pub(crate) struct Database {
    pub(crate) connection: Connection,
    /// The time in milliseconds after which SQLite's busy handler gives up.
    patience: Arc<AtomicI32>,
    /// The number of pages in the log after this connection's last commit.
    log_pages: Arc<AtomicI32>,
    /// True if the next transaction may be the first one in the log, and so must stamp the log with
    /// the file's instance.
    stamp_is_due: Cell<bool>,
}

/// The moment at which a transaction becomes durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The transaction is on the disk when it is committed.
    AtCommit,
    /// The caller makes the transaction durable afterwards: with a checkpoint, which waits for the
    /// disk anyway, or by syncing the log.
    ByCheckpoint,
}

/// The way in which a transaction ends without an error.
pub(crate) enum Ending<T> {
    Commit(T),
    /// Undoes what the transaction has written.
    RollBack(T),
}

impl Database {
    /// Reports whether the file has no tables yet, because its creation was interrupted or has not
    /// begun.
    pub(crate) fn is_blank(location: &Location) -> Result<bool> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(database.connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
    }

    /// Opens a connection that cannot write, for readers of a store that a writer has open.
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
        // SQLite overwrites deleted cells with zeros. Their copies in the log are removed by a
        // scrub.
        connection.pragma_update(None, "secure_delete", "ON")?;
        let secure: i32 = connection.pragma_query_value(None, "secure_delete", |row| row.get(0))?;
        if secure != 1 {
            return Err(FileError::new(ErrorKind::Unsupported, "this SQLite cannot overwrite what it deletes"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        // On macOS, fsync alone does not write to the medium.
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
        Ok(Self { connection, patience, log_pages, stamp_is_due: Cell::new(false) })
    }

    /// Reads the sealed keyring.
    pub(crate) fn keyring(&self) -> Result<Vec<u8>> {
        let mut statement = self.connection.prepare_cached("SELECT bytes FROM keyring WHERE number = 1")?;
        let bytes = statement.query_row([], |row| Ok(row.get_ref(0)?.as_blob().unwrap_or_default().to_vec()));
        // A missing row, or a value that is not a blob, reads as empty bytes: a damaged keyring.
        Ok(bytes.optional()?.unwrap_or_default())
    }

    pub(crate) fn write_keyring(&self, sealed: &[u8]) -> Result<()> {
        let mut statement = self.connection.prepare_cached("UPDATE keyring SET bytes = ?1 WHERE number = 1")?;
        statement.execute([sealed])?;
        self.expect_keyring(sealed)
    }

    /// Reads the keyring back after a write to its page, and fails if it is not this one. Without
    /// its keyring, all keys of a store are lost.
    pub(crate) fn expect_keyring(&self, sealed: &[u8]) -> Result<()> {
        if self.keyring()? == sealed { Ok(()) } else { Err(FileError::damaged_keyring_page()) }
    }

    /// Runs a durable transaction. If `write` fails, nothing is changed.
    pub(crate) fn transaction<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.transaction_with_ending(|| write().map(Ending::Commit))
    }

    /// Runs a transaction that becomes durable at the moment that `durability` names.
    pub(crate) fn durable_transaction<T>(
        &self,
        durability: Durability,
        write: impl FnOnce() -> Result<Ending<T>>,
    ) -> Result<T> {
        match durability {
            Durability::AtCommit => self.transaction_with_ending(write),
            Durability::ByCheckpoint => {
                self.connection.pragma_update(None, "synchronous", "NORMAL")?;
                let written = self.transaction_with_ending(write);
                self.connection.pragma_update(None, "synchronous", "FULL")?;
                written
            }
        }
    }

    /// Runs a durable transaction that may also end by being rolled back.
    pub(crate) fn transaction_with_ending<T>(&self, write: impl FnOnce() -> Result<Ending<T>>) -> Result<T> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let write = || {
            if self.stamp_is_due.get() {
                self.stamp_log()?;
            }
            let ending = write()?;
            if let Ending::Commit(_) = ending {
                self.commit()?;
            }
            Ok(ending)
        };
        match write() {
            Ok(Ending::Commit(written)) => {
                self.stamp_is_due.set(false);
                Ok(written)
            }
            Ok(Ending::RollBack(outcome)) => {
                self.end();
                Ok(outcome)
            }
            Err(failure) => {
                self.end();
                Err(failure)
            }
        }
    }

    /// Makes the next transaction stamp the log with the file's instance, because it may be the
    /// first transaction in the log.
    pub(crate) fn stamp_next_transaction(&self) {
        self.stamp_is_due.set(true);
    }

    fn commit(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT").map_err(|e| {
            let failure = FileError::from(e);
            // Only a restart shows whether the last page reached the disk before the disk failed.
            if failure.kind() == ErrorKind::Unavailable { failure.of_unknown_effect() } else { failure }
        })
    }

    /// Ends the transaction that is open, if there is one, and undoes what it has written.
    pub(crate) fn end(&self) {
        if !self.connection.is_autocommit() {
            // A rollback fails only after another failure, which has been reported.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// Runs reads that all see the same state of the database.
    pub(crate) fn reading<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN")?;
        let read = read();
        self.end();
        read
    }

    /// Copies one consistent state of all pages into an empty file, and gives the copy an instance
    /// of its own.
    pub(crate) fn copy_to(&self, location: &Location) -> Result<()> {
        copy(&self.connection, location)
    }

    /// Returns the number of faults that SQLite finds in the structure of its pages, up to 100
    /// (<https://sqlite.org/pragma.html#pragma_quick_check>).
    pub(crate) fn count_structural_faults(&self) -> Result<u64> {
        let mut statement = self.connection.prepare("PRAGMA quick_check(100)")?;
        let mut lines = statement.query([])?;
        let mut faults = 0;
        loop {
            match lines.next().map_err(FileError::from) {
                Ok(Some(line)) => faults += u64::from(line.get_ref(0)?.as_bytes().ok() != Some(b"ok")),
                Ok(None) => return Ok(faults),
                // Damage has stopped the check itself.
                Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(faults + 1),
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Returns the number of pages in the log, as of this connection's last commit. The pages of
    /// all processes count.
    pub(crate) fn log_pages(&self) -> i32 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// Returns the smallest length, in bytes, that the log's file can have if it holds all
    /// transactions of the log.
    pub(crate) fn least_log_len(&self) -> Result<u64> {
        let mut statement = self.connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
        Ok(log_len(statement.query_row([], |row| row.get(1))?))
    }

    /// Like [`least_log_len`](Self::least_log_len), as of this connection's last commit; `None`
    /// before the first one. Needs no call to SQLite.
    pub(crate) fn last_log_len(&self) -> Option<u64> {
        Some(self.log_pages()).filter(|pages| *pages > 0).map(log_len)
    }

    /// Moves the whole log into the database and empties the log's file. Returns `false` if readers
    /// still hold the log after `wait`.
    pub(crate) fn truncate_log(&self, wait: Duration) -> Result<bool> {
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)", wait)
    }

    /// Moves the whole log into the database and makes the next transaction write from the
    /// beginning of the log's file. Returns `false` if readers still hold the log after `wait`.
    ///
    /// Unlike [`truncate_log`](Self::truncate_log) it keeps the length of the file, because a
    /// commit is faster if it need not make the file longer.
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

/// Copies one consistent state of all pages into an empty file, and gives the copy an instance of
/// its own.
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
    // A copy must have no log beside it.
    if target.truncate_log(BUSY_LIMIT)? { Ok(()) } else { Err(FileError::locked_by_foreign_program()) }
}

/// Returns the length in bytes of a log with this number of pages.
fn log_len(pages: i32) -> u64 {
    u64::try_from(pages).ok().filter(|pages| *pages > 0).map_or(0, |pages| LOG_HEADER_LEN + pages * LOG_FRAME_LEN)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

//! The SQLite database: its two tables, its settings, and the statements on them. FORMAT.md is the specification.

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use keystead_core::ErrorKind;
use keystead_sealing::{RECORD_PREFIX_LEN, RECORD_STEP, RowKey};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::hooks::Wal;
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, ToSql, params};

use crate::config::Location;
use crate::error::{Failure, Result};

/// "KSTD".
const APPLICATION_ID: i32 = 0x4B53_5444;
const FORMAT_VERSION: i32 = 1;

const CREATE_CELLS: &str = "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID";
const CREATE_KEYRING: &str = "CREATE TABLE keyring (number INTEGER PRIMARY KEY, bytes BLOB)";

/// No valid record has more parts.
const MAX_PARTS: usize = 13;

/// How many cells a page of a listing reads: more than one record can have, so that each page ends a record at least.
const PAGE: u32 = 512;

/// How long a statement waits for a foreign program that holds SQLite's own locks.
const BUSY_LIMIT: Duration = Duration::from_secs(2);

/// How much of the database a connection keeps in memory at most, in KiB: enough for the inner pages of some million keys.
const CACHE: i32 = 8 * 1024;

/// One connection, with its settings.
pub(crate) struct Database {
    connection: Connection,
    // In milliseconds: how long SQLite's busy handler goes on.
    patience: Arc<AtomicI32>,
    // How many pages the log held after this connection's last commit.
    log_pages: Arc<AtomicI32>,
}

/// What is found under a row key.
pub(crate) enum Found {
    Nothing,
    /// The parts of a record, joined.
    Record(Vec<u8>),
    /// Parts that no record of ours has.
    Damaged,
}

/// A page of a listing.
pub(crate) struct Page {
    pub(crate) records: Vec<(RowKey, Found)>,
    /// The part to go on after, if there may be more.
    pub(crate) next: Option<Vec<u8>>,
    /// Why records may be missing between this page and the next one.
    pub(crate) damage: Option<Failure>,
}

/// Refuses a file that is not a store of this format, without creating, locking or changing anything.
///
/// A file with a rollback journal is left to [`Database::open`]: its creation was cut off and must be undone first.
pub(crate) fn probe(location: &Location) -> Result<()> {
    if location.has_journal()? {
        return Ok(());
    }
    // Immutable: SQLite reads the file alone and makes no log beside it.
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(immutable_uri(location), flags)?;
    match check_identity(&connection) {
        // A checkpoint that is under way, or was cut off, makes the file look damaged without its log.
        Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(()),
        answer => answer,
    }
}

fn check_identity(connection: &Connection) -> Result<()> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if number("application_id")? != APPLICATION_ID {
        let text = "the file is no keystead store: give the path of one, or another path to create one";
        return Err(Failure::new(ErrorKind::Config, text));
    }
    match number("user_version")? {
        FORMAT_VERSION => Ok(()),
        newer if newer > FORMAT_VERSION => {
            let text = format!("the store has format {newer}, this keystead knows up to {FORMAT_VERSION}: update it");
            Err(Failure::new(ErrorKind::Unsupported, text))
        }
        _ => Err(Failure::new(ErrorKind::Corrupt, "the store's format number is damaged: restore it from a backup")),
    }
}

/// A `file:` URI as SQLite reads it (<https://sqlite.org/uri.html>).
fn immutable_uri(location: &Location) -> OsString {
    let mut uri = String::from("file:");
    for &byte in location.path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

impl Database {
    /// A connection for the writer of an existing store.
    pub(crate) fn open(location: &Location) -> Result<Self> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.check()?;
        let mode: String =
            database.connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            let text = "the store's file system does not carry SQLite's write-ahead log: use a local one";
            return Err(Failure::new(ErrorKind::Unsupported, text));
        }
        Ok(database)
    }

    /// Whether the file holds no table yet: its creation was cut off, or has not begun.
    pub(crate) fn is_blank(location: &Location) -> Result<bool> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        Ok(database.connection.query_row("SELECT count(*) = 0 FROM sqlite_schema", [], |row| row.get(0))?)
    }

    /// Makes a store of an empty file, in one durable transaction.
    pub(crate) fn create(location: &Location, keyring: &[u8]) -> Result<()> {
        let mut database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.connection.pragma_update(None, "page_size", 4096)?;
        let transaction = database.connection.transaction()?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
        transaction.pragma_update(None, "user_version", FORMAT_VERSION)?;
        transaction.execute(CREATE_CELLS, [])?;
        transaction.execute(CREATE_KEYRING, [])?;
        transaction.execute("INSERT INTO keyring VALUES (1, ?1)", [keyring])?;
        transaction.commit()?;
        Ok(())
    }

    /// A connection that cannot write, for readers of a store that a writer holds open.
    pub(crate) fn open_reader(location: &Location) -> Result<Self> {
        Self::connect(location, OpenFlags::SQLITE_OPEN_READ_ONLY)
    }

    fn connect(location: &Location, access: OpenFlags) -> Result<Self> {
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let mut connection = Connection::open_with_flags(&location.path, flags)?;
        let patience = Arc::new(AtomicI32::new(milliseconds(BUSY_LIMIT)));
        let limit = patience.clone();
        connection.busy_handler(Some(move |count| {
            std::thread::sleep(Duration::from_millis(1));
            count < limit.load(Ordering::Relaxed)
        }))?;
        // What is deleted is overwritten with zeros in the file; the rest of the promise is the scrub.
        connection.pragma_update(None, "secure_delete", "ON")?;
        let secure: i32 = connection.pragma_query_value(None, "secure_delete", |row| row.get(0))?;
        if secure != 1 {
            return Err(Failure::new(ErrorKind::Unsupported, "this SQLite cannot overwrite what it deletes"));
        }
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        // Negative: in KiB, not in pages.
        connection.pragma_update(None, "cache_size", -CACHE)?;
        connection.pragma_update(None, "wal_autocheckpoint", 0)?;
        let log_pages = Arc::new(AtomicI32::new(0));
        let counter = log_pages.clone();
        connection.wal_hook(Some(move |_: &mut Wal, pages| {
            counter.store(pages, Ordering::Relaxed);
            Ok(())
        }))?;
        connection.pragma_update(None, "cell_size_check", "ON")?;
        connection.pragma_update(None, "trusted_schema", "OFF")?;
        Ok(Self { connection, patience, log_pages })
    }

    /// Our format, and these two tables and nothing else: an index or a trigger would keep copies that no scrub reaches.
    fn check(&self) -> Result<()> {
        check_identity(&self.connection)?;
        let mut statement = self.connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
        let schema: Vec<Option<String>> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if schema.iter().map(Option::as_deref).ne([Some(CREATE_CELLS), Some(CREATE_KEYRING)]) {
            let text = "the store's tables are not as keystead makes them: restore the store from a backup";
            return Err(Failure::new(ErrorKind::Corrupt, text));
        }
        Ok(())
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
        Ok(())
    }

    /// Writes all or nothing, durably.
    pub(crate) fn transaction<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<T> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let written = write().and_then(|written| self.commit().map(|()| written));
        if written.is_err() {
            self.end();
        }
        written
    }

    fn commit(&self) -> Result<()> {
        self.connection.execute_batch("COMMIT").map_err(|e| {
            let failure = Failure::from(e);
            // Whether the last page reached the disk before it failed, only a restart tells.
            if failure.kind() == ErrorKind::Unavailable { failure.of_unknown_effect() } else { failure }
        })
    }

    /// Ends a transaction that has written nothing, or is to be undone.
    fn end(&self) {
        if !self.connection.is_autocommit() {
            // What fails here has failed before, and was reported then.
            let _ = self.connection.execute_batch("ROLLBACK");
        }
    }

    /// The sealed keyring and a record, of one moment.
    pub(crate) fn keyring_and_record(&self, row: &RowKey) -> Result<(Vec<u8>, Found)> {
        self.connection.execute_batch("BEGIN")?;
        let read = self.keyring().and_then(|keyring| Ok((keyring, self.record(row)?)));
        self.end();
        read
    }

    pub(crate) fn record(&self, row: &RowKey) -> Result<Found> {
        let sql = "SELECT part, bytes FROM cells WHERE part BETWEEN ?1 AND ?2 ORDER BY part";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut cells = statement.query([first_part(row), last_part(row)])?;
        let mut record = Joined::default();
        while let Some(cell) = cells.next()? {
            let (part, bytes) = columns(cell)?;
            record.add(part, bytes);
        }
        Ok(record.finish())
    }

    pub(crate) fn has_record(&self, row: &RowKey) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM cells WHERE part BETWEEN ?1 AND ?2)";
        let mut statement = self.connection.prepare_cached(sql)?;
        Ok(statement.query_row([first_part(row), last_part(row)], |row| row.get(0))?)
    }

    /// Writes a record where there is none.
    pub(crate) fn insert_record(&self, row: &RowKey, record: &[u8]) -> Result<()> {
        let mut statement = self.connection.prepare_cached("INSERT INTO cells VALUES (?1, ?2)")?;
        for (number, bytes) in (0..).zip(record.chunks_exact(RECORD_STEP)) {
            statement.execute(params![part(row, number), bytes])?;
        }
        Ok(())
    }

    /// Writes a record in the place of another.
    pub(crate) fn replace_record(&self, row: &RowKey, record: &[u8]) -> Result<()> {
        let sql = "INSERT INTO cells VALUES (?1, ?2) ON CONFLICT (part) DO UPDATE SET bytes = excluded.bytes";
        let mut statement = self.connection.prepare_cached(sql)?;
        let mut number = 0;
        for bytes in record.chunks_exact(RECORD_STEP) {
            statement.execute(params![part(row, number), bytes])?;
            number += 1;
        }
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        statement.execute([part(row, number), last_part(row)])?;
        Ok(())
    }

    /// Deletes a record; whether there was one.
    pub(crate) fn delete_record(&self, row: &RowKey) -> Result<bool> {
        let mut statement = self.connection.prepare_cached("DELETE FROM cells WHERE part BETWEEN ?1 AND ?2")?;
        Ok(statement.execute([first_part(row), last_part(row)])? > 0)
    }

    /// Some records after this part, in the order of their row keys. Where the database is damaged the page ends, and says
    /// so, and the next one begins where it can be read again.
    pub(crate) fn page(&self, after: &[u8]) -> Result<Page> {
        let sql = "SELECT part, bytes FROM cells WHERE part > ?1 ORDER BY part LIMIT ?2";
        let mut statement = self.connection.prepare_cached(sql)?;
        // At the beginning also what is no blob, and so stands before all blobs: no record of ours, so it is damage.
        let after_or_lowest: &dyn ToSql = if after.is_empty() { &f64::NEG_INFINITY } else { &after };
        let mut cells = statement.query(params![after_or_lowest, PAGE])?;
        let mut records: Vec<(RowKey, Joined)> = Vec::new();
        let (mut read, mut end, mut end_of_whole) = (0, Vec::new(), Vec::new());
        let mut damage = None;
        loop {
            let cell = match cells.next().map_err(Failure::from) {
                Ok(Some(cell)) => cell,
                Ok(None) => break,
                Err(failure) if failure.kind() == ErrorKind::Corrupt => {
                    damage = Some(failure);
                    break;
                }
                Err(failure) => return Err(failure),
            };
            let (part, bytes) = columns(cell)?;
            let row = row_of(part);
            if records.last().is_none_or(|(last, _)| *last != row) {
                end_of_whole = end;
                records.push((row, Joined::default()));
            }
            if let Some((_, record)) = records.last_mut() {
                record.add(part, bytes);
            }
            end = part.to_vec();
            read += 1;
        }
        if end.is_empty() {
            // Nothing but cells of another type: those beyond this page are skipped.
            end = vec![0];
        }
        let next = if damage.is_some() {
            self.readable_after(if records.is_empty() { after } else { &end })?
        } else if read < PAGE {
            None
        } else if records.len() > 1 {
            // The page may have cut the last record: the next one starts with it.
            records.pop();
            Some(end_of_whole)
        } else {
            Some(end)
        };
        let records = records.into_iter().map(|(row, record)| (row, record.finish())).collect();
        Ok(Page { records, next, damage })
    }

    /// Where reading can go on if what follows this part is damaged; `None` if nowhere.
    ///
    /// Row keys are spread evenly, so a damaged page is a short stretch of them: its end is found by doubling and halving.
    fn readable_after(&self, after: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut unreadable = number_of(after);
        let mut readable = loop {
            let step = unreadable - number_of(after) + 1;
            let next = unreadable.saturating_add(step);
            if self.is_readable_after(next)? {
                break next;
            }
            if next == u64::MAX {
                return Ok(None);
            }
            unreadable = next;
        };
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            if self.is_readable_after(middle)? { readable = middle } else { unreadable = middle }
        }
        Ok(Some(readable.to_be_bytes().to_vec()))
    }

    fn is_readable_after(&self, number: u64) -> Result<bool> {
        let mut statement =
            self.connection.prepare_cached("SELECT 1 FROM cells WHERE part > ?1 ORDER BY part LIMIT 1")?;
        let first = statement.query_row([number.to_be_bytes()], |_| Ok(())).optional();
        match first.map_err(Failure::from) {
            Ok(_) => Ok(true),
            Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(false),
            Err(failure) => Err(failure),
        }
    }

    pub(crate) fn count_records(&self) -> Result<u64> {
        let sql = "SELECT count(*) FROM cells WHERE substr(part, 33) = x'00'";
        Ok(self.connection.query_row(sql, [], |row| row.get::<_, i64>(0))?.unsigned_abs())
    }

    /// Whether a record begins otherwise: it was sealed in another epoch, or is damaged there.
    pub(crate) fn has_record_without(&self, prefix: &[u8; RECORD_PREFIX_LEN]) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM cells WHERE substr(part, 33) = x'00' AND substr(bytes, 1, 5) <> ?1)";
        Ok(self.connection.query_row(sql, [prefix], |row| row.get(0))?)
    }

    /// Copies all pages as they are at one moment into an empty file.
    pub(crate) fn copy_to(&self, location: &Location) -> Result<()> {
        let mut target = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let backup = Backup::new(&self.connection, &mut target.connection)?;
        for _ in 0..BUSY_LIMIT.as_millis() {
            match backup.step(-1)? {
                StepResult::Done => return Ok(()),
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        Err(Failure::new(ErrorKind::Timeout, "another program keeps the store's file locked: end it and try again"))
    }

    /// How many pages the log held after the last transaction, from all processes.
    pub(crate) fn log_pages(&self) -> i32 {
        self.log_pages.load(Ordering::Relaxed)
    }

    /// Moves the whole log into the database and empties its file; `false` if readers hold it for longer than this.
    pub(crate) fn truncate_log(&self, wait: Duration) -> Result<bool> {
        self.checkpoint("PRAGMA wal_checkpoint(TRUNCATE)", wait)
    }

    /// The same, but the log's file keeps its length and is written again from its beginning: a commit that need not make
    /// the file longer is quicker.
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

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

/// The parts of one record, in the order of their numbers.
#[derive(Default)]
struct Joined {
    bytes: Vec<u8>,
    parts: usize,
    damaged: bool,
}

impl Joined {
    fn add(&mut self, part: &[u8], bytes: &[u8]) {
        let number = part.get(size_of::<RowKey>()..).unwrap_or_default();
        let in_turn = matches!(number, [number] if usize::from(*number) == self.parts);
        self.damaged |= !in_turn || bytes.len() != RECORD_STEP || self.parts == MAX_PARTS;
        self.parts += 1;
        if !self.damaged {
            self.bytes.extend_from_slice(bytes);
        }
    }

    fn finish(self) -> Found {
        match self {
            Self { damaged: true, .. } => Found::Damaged,
            Self { parts: 0, .. } => Found::Nothing,
            Self { bytes, .. } => Found::Record(bytes),
        }
    }
}

fn columns<'a>(cell: &'a Row<'_>) -> Result<(&'a [u8], &'a [u8])> {
    // A value that is no blob is no cell of ours, as an empty one is none.
    Ok((cell.get_ref(0)?.as_blob().unwrap_or_default(), cell.get_ref(1)?.as_blob().unwrap_or_default()))
}

/// The first 8 bytes of a part, as a number.
fn number_of(part: &[u8]) -> u64 {
    part.iter().chain(std::iter::repeat(&0)).take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}

fn row_of(part: &[u8]) -> RowKey {
    let mut row = [0; _];
    for (byte, value) in row.iter_mut().zip(part) {
        *byte = *value;
    }
    row
}

fn part(row: &RowKey, number: u8) -> [u8; size_of::<RowKey>() + 1] {
    let mut part = [number; _];
    part[..row.len()].copy_from_slice(row);
    part
}

fn first_part(row: &RowKey) -> [u8; size_of::<RowKey>() + 1] {
    part(row, 0)
}

fn last_part(row: &RowKey) -> [u8; size_of::<RowKey>() + 1] {
    part(row, u8::MAX)
}

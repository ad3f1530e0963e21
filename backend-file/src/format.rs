//! The database's two formats: telling a store from another file, creating one, and bringing format
//! 1 up to date. FORMAT.md is the specification.

use std::ffi::OsString;
use std::path::Path;

use keystead_core::ErrorKind;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::config::Location;
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::instance::Instance;

/// "KSTD".
const APPLICATION_ID: i32 = 0x4B53_5444;

/// The format that this version writes.
const FORMAT_VERSION: i32 = 2;

/// The format before: cells did not name their successors, and a log did not name its file.
const UNCHAINED: i32 = 1;

const CREATE_CELLS: &str = "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB, next BLOB) WITHOUT ROWID";
const CREATE_CELLS_1: &str = "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID";
const CREATE_KEYRING: &str = "CREATE TABLE keyring (number INTEGER PRIMARY KEY, bytes BLOB)";

/// The file of a store, as it is without its log.
pub(crate) struct Probed {
    pub(crate) is_current: bool,
    /// `None` if it cannot be read, or is not there yet.
    pub(crate) instance: Option<Instance>,
}

/// Reads the file alone, without creating, locking or changing anything, and refuses one that is
/// not a store.
///
/// A checkpoint that is under way, or was cut off, makes the file look damaged without its log:
/// then `None`.
pub(crate) fn probe(location: &Location) -> Result<Option<Probed>> {
    let connection = open_alone(&location.path)?;
    let version = match format_of(&connection) {
        Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(None),
        version => version?,
    };
    let instance = read_instance(&connection).unwrap_or_default();
    Ok(Some(Probed { is_current: version == FORMAT_VERSION, instance }))
}

/// Opens a file for reading without the files beside it, and without making any.
pub(crate) fn open_alone(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(immutable_uri(path), flags)?)
}

/// Refuses a database that is not a store of a format that we know.
pub(crate) fn check_is_store(connection: &Connection) -> Result<()> {
    format_of(connection).map(drop)
}

/// The number of the store's format.
fn format_of(connection: &Connection) -> Result<i32> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if number("application_id")? != APPLICATION_ID {
        let text = "this file is not a keystead store: give the path of one, or another path to create one";
        return Err(FileError::new(ErrorKind::Config, text));
    }
    match number("user_version")? {
        known @ (UNCHAINED | FORMAT_VERSION) => Ok(known),
        newer if newer > FORMAT_VERSION => {
            let text = format!("the store has format {newer}, this keystead knows up to {FORMAT_VERSION}: update it");
            Err(FileError::new(ErrorKind::Unsupported, text))
        }
        _ => Err(FileError::new(ErrorKind::Corrupt, "the store's format number is damaged: restore it from a backup")),
    }
}

fn read_instance(connection: &Connection) -> Result<Option<Instance>> {
    let mut statement = connection.prepare_cached("SELECT bytes FROM keyring WHERE number = 2")?;
    let bytes = statement.query_row([], |row| Ok(row.get_ref(0)?.as_blob().ok().and_then(Instance::find)));
    Ok(bytes.optional()?.flatten())
}

/// A `file:` URI as SQLite reads it (<https://sqlite.org/uri.html>).
fn immutable_uri(path: &Path) -> OsString {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'/' | b'-' | b'_' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => uri.push(char::from(byte)),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?immutable=1");
    uri.into()
}

impl Database {
    /// Opens a connection for the writer of an existing store, and brings a store of format 1 up to
    /// date.
    pub(crate) fn open(location: &Location) -> Result<Self> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        if format_of(&database.connection)? == UNCHAINED {
            database.check_schema(CREATE_CELLS_1)?;
            database.use_log()?;
            database.upgrade()?;
        }
        database.check_schema(CREATE_CELLS)?;
        database.use_log()?;
        Ok(database)
    }

    fn use_log(&self) -> Result<()> {
        let mode: String = self.connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode != "wal" {
            let text = "the store's file system does not support SQLite's write-ahead log: use a local one";
            return Err(FileError::new(ErrorKind::Unsupported, text));
        }
        Ok(())
    }

    /// Creates a store in an empty file, in one durable transaction.
    pub(crate) fn create(location: &Location, keyring: &[u8]) -> Result<()> {
        let database = Self::connect(location, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        database.connection.pragma_update(None, "page_size", 4096)?;
        database.transaction(|| {
            database.connection.pragma_update(None, "application_id", APPLICATION_ID)?;
            database.connection.execute(CREATE_CELLS, [])?;
            database.connection.execute(CREATE_KEYRING, [])?;
            database.connection.execute("INSERT INTO keyring VALUES (1, ?1)", [keyring])?;
            database.insert_head()?;
            database.finish_format()
        })
    }

    /// Brings a store of format 1 up to date, in one transaction.
    fn upgrade(&self) -> Result<()> {
        self.transaction(|| {
            // Another process may have been quicker.
            if format_of(&self.connection)? != UNCHAINED {
                return Ok(());
            }
            self.connection.execute("ALTER TABLE cells RENAME TO cells_of_format_1", [])?;
            self.connection.execute(CREATE_CELLS, [])?;
            self.chain_cells_of_format_1("cells_of_format_1")?;
            self.connection.execute("DROP TABLE cells_of_format_1", [])?;
            self.finish_format()
        })
    }

    fn finish_format(&self) -> Result<()> {
        self.connection.pragma_update(None, "user_version", FORMAT_VERSION)?;
        self.write_instance(Instance::random())
    }

    /// Refuses other tables than ours: an index or a trigger would keep copies that no scrub
    /// reaches.
    fn check_schema(&self, cells: &str) -> Result<()> {
        let mut statement = self.connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
        let schema: Vec<Option<String>> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if schema.iter().map(Option::as_deref).ne([Some(cells), Some(CREATE_KEYRING)]) {
            let text = "the store's tables are not as keystead makes them: restore the store from a backup";
            return Err(FileError::new(ErrorKind::Corrupt, text));
        }
        Ok(())
    }

    /// The instance of this copy of the store; `None` if it is damaged.
    pub(crate) fn instance(&self) -> Result<Option<Instance>> {
        read_instance(&self.connection)
    }

    pub(crate) fn write_instance(&self, instance: Instance) -> Result<()> {
        let sql = "INSERT INTO keyring VALUES (2, ?1) ON CONFLICT (number) DO UPDATE SET bytes = excluded.bytes";
        self.connection.prepare_cached(sql)?.execute([instance.to_bytes()])?;
        Ok(())
    }

    /// Marks the log with its owner, in the transaction that may be its first.
    pub(crate) fn mark_log(&self) -> Result<()> {
        let sealed = self.keyring()?;
        self.write_instance(self.instance()?.map_or_else(Instance::random, Instance::next_log))?;
        // It is beside the keyring.
        self.expect_keyring(&sealed)
    }
}

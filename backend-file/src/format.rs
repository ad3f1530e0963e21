//! The two formats of the database: recognizing a store, creating one, and upgrading format 1.
//! FORMAT.md is the specification.

use std::ffi::OsString;
use std::path::Path;

use keystead_core::ErrorKind;
use rusqlite::{Connection, OpenFlags, OptionalExtension};

use crate::config::Location;
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::instance::Instance;

/// The `application_id` of a store: "KSTD".
const APPLICATION_ID: i32 = 0x4B53_5444;

/// The `user_version` of the format that this version writes.
const FORMAT_VERSION: i32 = 2;

/// The `user_version` of the previous format. Its cells do not name their successors, and its logs
/// do not name their files.
const UNCHAINED: i32 = 1;

const CREATE_CELLS: &str = "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB, next BLOB) WITHOUT ROWID";
const CREATE_CELLS_1: &str = "CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID";
const CREATE_KEYRING: &str = "CREATE TABLE keyring (number INTEGER PRIMARY KEY, bytes BLOB)";

/// The facts that a store's file shows without its log.
pub(crate) struct Probed {
    /// True if the file has the current format.
    pub(crate) is_current: bool,
    /// `None` if the file has no instance, or it cannot be read.
    pub(crate) instance: Option<Instance>,
}

/// Reads the file without its log, and creates, locks and changes nothing. Fails if the file is not
/// a store.
///
/// Returns `None` if the file looks damaged without its log: a checkpoint is in progress or was
/// interrupted.
pub(crate) fn probe(location: &Location) -> Result<Option<Probed>> {
    let connection = open_alone(&location.path)?;
    let version = match format_of(&connection) {
        Err(failure) if failure.kind() == ErrorKind::Corrupt => return Ok(None),
        version => version?,
    };
    let instance = read_instance(&connection).unwrap_or_default();
    Ok(Some(Probed { is_current: version == FORMAT_VERSION, instance }))
}

/// Opens a file for reading, without the files beside it and without creating any.
pub(crate) fn open_alone(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(immutable_uri(path), flags)?)
}

/// Fails if a database is not a store, or has an unknown format.
pub(crate) fn check_is_store(connection: &Connection) -> Result<()> {
    format_of(connection).map(drop)
}

/// Returns the number of the store's format.
fn format_of(connection: &Connection) -> Result<i32> {
    let number = |pragma| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    if number("application_id")? != APPLICATION_ID {
        let text = "this file is not a keystead store: give the path of one, or another path to create one";
        return Err(FileError::new(ErrorKind::Config, text));
    }
    match number("user_version")? {
        known @ (UNCHAINED | FORMAT_VERSION) => Ok(known),
        newer if newer > FORMAT_VERSION => {
            let text =
                format!("the store has format {newer}, but this keystead knows only up to {FORMAT_VERSION}: update it");
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

/// Returns the `file:` URI (<https://sqlite.org/uri.html>) by which SQLite opens a file without its
/// log.
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
    /// Opens a connection for the writer of an existing store. Upgrades a store of format 1.
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

    /// Turns on SQLite's write-ahead log.
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

    /// Upgrades a store of format 1, in one transaction.
    fn upgrade(&self) -> Result<()> {
        self.transaction(|| {
            // Another process may have upgraded the store meanwhile.
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

    /// Fails if the database does not have exactly the tables of a store. An index or a trigger,
    /// for example, would keep copies of records that a scrub does not reach.
    fn check_schema(&self, cells: &str) -> Result<()> {
        let mut statement = self.connection.prepare("SELECT sql FROM sqlite_schema ORDER BY name")?;
        let schema: Vec<Option<String>> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        if schema.iter().map(Option::as_deref).ne([Some(cells), Some(CREATE_KEYRING)]) {
            let text = "the store's tables are not those that keystead creates: restore the store from a backup";
            return Err(FileError::new(ErrorKind::Corrupt, text));
        }
        Ok(())
    }

    /// Returns the instance of this copy of the store; `None` if it is missing or damaged.
    pub(crate) fn instance(&self) -> Result<Option<Instance>> {
        read_instance(&self.connection)
    }

    pub(crate) fn write_instance(&self, instance: Instance) -> Result<()> {
        let sql = "INSERT INTO keyring VALUES (2, ?1) ON CONFLICT (number) DO UPDATE SET bytes = excluded.bytes";
        self.connection.prepare_cached(sql)?.execute([instance.to_bytes()])?;
        Ok(())
    }

    /// Stamps the log with the instance of its file. Called in a transaction that may be the first
    /// one in the log.
    pub(crate) fn stamp_log(&self) -> Result<()> {
        let sealed = self.keyring()?;
        self.write_instance(self.instance()?.map_or_else(Instance::random, Instance::next_log))?;
        // The instance is in the same page as the keyring.
        self.expect_keyring(&sealed)
    }
}

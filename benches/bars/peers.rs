//! Durable storage without keystead: the cheapest durable write, one file per key, and SQLite by
//! hand.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use keystead_benches::users;
use keystead_core::{BoxError, KeyId, SecretKey};
use keystead_sealing::{Keyring, RootSecret};
use rusqlite::{Connection, OpenFlags, Statement, params};

/// The cheapest durable write: 200 bytes at the end of a file, and `fdatasync`.
pub(crate) struct Log(File);

impl Log {
    pub(crate) fn create(directory: &Path) -> Result<Self, BoxError> {
        Ok(Self(OpenOptions::new().append(true).create_new(true).open(directory.join("log"))?))
    }

    pub(crate) fn append(&mut self) -> Result<(), BoxError> {
        self.0.write_all(&[7; 200])?;
        Ok(self.0.sync_data()?)
    }
}

/// One durable file per key: written under another name, synced, renamed, and the directory synced.
pub(crate) struct FilePerKey(pub(crate) PathBuf);

impl FilePerKey {
    pub(crate) fn put(&self, user: usize) -> Result<(), BoxError> {
        let name = users::name(user);
        let path = self.0.join(&name);
        let temporary = self.0.join(format!("{name}.tmp"));
        let mut file = File::create_new(&temporary)?;
        // As long as a sealed record of ours.
        file.write_all(&[7; 256])?;
        file.sync_data()?;
        fs::rename(&temporary, &path)?;
        Ok(File::open(&self.0)?.sync_all()?)
    }
}

/// Our own file, read by hand with a connection and the keyring in the file. It ignores the chain
/// of the cells.
pub(crate) struct ByHand {
    connection: Connection,
    keyring: Keyring,
}

impl ByHand {
    pub(crate) fn open(path: &Path, root: &RootSecret) -> Result<Self, BoxError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        let sealed: Vec<u8> =
            connection.query_row("SELECT bytes FROM keyring WHERE number = 1", [], |row| row.get(0))?;
        let keyring = Keyring::open_with(root, &sealed)?;
        Ok(Self { connection, keyring })
    }

    /// Prepares the statement that [`find`](Self::find) runs.
    pub(crate) fn select(&self) -> Result<Statement<'_>, BoxError> {
        Ok(self.connection.prepare("SELECT bytes FROM cells WHERE part BETWEEN ?1 AND ?2 ORDER BY part")?)
    }

    /// Returns the key of an id that has one.
    pub(crate) fn get(&self, select: &mut Statement<'_>, id: &KeyId) -> Result<SecretKey, BoxError> {
        self.find(select, id)?.ok_or_else(|| "no such key".into())
    }

    /// Returns the key of an id, or `None` if its record has no cells.
    pub(crate) fn find(&self, select: &mut Statement<'_>, id: &KeyId) -> Result<Option<SecretKey>, BoxError> {
        let row = self.keyring.row_key(id);
        let mut cells = select.query([part(row.as_bytes(), 0), part(row.as_bytes(), u8::MAX)])?;
        let mut sealed = Vec::new();
        while let Some(cell) = cells.next()? {
            sealed.extend_from_slice(cell.get_ref(0)?.as_blob()?);
        }
        if sealed.is_empty() {
            return Ok(None);
        }
        Ok(Some(self.keyring.open(&row, &sealed)?.1))
    }
}

/// A database of cells like ours, written by hand, without the chain that proves that a key is
/// missing.
pub(crate) struct CellsByHand(Connection);

impl CellsByHand {
    /// Creates a database with `users` cells.
    pub(crate) fn create(directory: &Path, users: usize) -> Result<Self, BoxError> {
        let connection = Connection::open(directory.join("cells.db"))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "secure_delete", "ON")?;
        connection.execute_batch("CREATE TABLE cells (part BLOB PRIMARY KEY, bytes BLOB) WITHOUT ROWID")?;
        let mut cells = Self(connection);
        cells.insert(0..users)?;
        Ok(cells)
    }

    /// Inserts the cells of some users in one durable transaction.
    pub(crate) fn insert(&mut self, users: Range<usize>) -> Result<(), BoxError> {
        let transaction = self.0.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO cells VALUES (?1, ?2)")?;
            for user in users {
                // The bytes look random, as those of a row key do.
                insert.execute(params![part(&users::key_bytes(user), 0), [7_u8; 256]])?;
            }
        }
        Ok(transaction.commit()?)
    }
}

fn part(row: &[u8; 32], index: u8) -> [u8; 33] {
    let mut part = [index; 33];
    part[..32].copy_from_slice(row);
    part
}

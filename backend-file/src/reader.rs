//! [`Shared`]: what all handles of an open store and its writer thread share, and reading, inline.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use keystead_core::{ErrorKind, KeyId, SecretKey};
use keystead_sealing::{Keyring, KeyringError, RecordError, RootSecret, RowKey};

use crate::config::Location;
use crate::database::{Database, Found, Page};
use crate::error::{Failure, Result};

pub(crate) struct Shared {
    pub(crate) location: Location,
    root: RootSecret,
    keyring: RwLock<Arc<Keyring>>,
    // `None` once the store is closed.
    idle: Mutex<Option<Vec<Database>>>,
}

impl Shared {
    pub(crate) fn new(location: Location, root: RootSecret, keyring: Keyring) -> Self {
        let keyring = RwLock::new(Arc::new(keyring));
        Self { location, root, keyring, idle: Mutex::new(Some(Vec::new())) }
    }

    pub(crate) fn keyring(&self) -> Arc<Keyring> {
        self.keyring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Opens the keyring again if another process has changed it.
    pub(crate) fn refresh_keyring(&self, database: &Database) -> Result<Arc<Keyring>> {
        let (held, sealed) = (self.keyring(), database.keyring()?);
        if Keyring::generation_of(&sealed) == Some(held.generation()) {
            return Ok(held);
        }
        let keyring = Keyring::open_with(&self.root, &sealed).map_err(|e| match e {
            KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. } => Failure::new(
                ErrorKind::KeyUnavailable,
                "the store has been given a new root secret since it was opened: open it again with that",
            ),
            e => e.into(),
        })?;
        let keyring = Arc::new(keyring);
        *self.keyring.write().unwrap_or_else(PoisonError::into_inner) = keyring.clone();
        Ok(keyring)
    }

    /// The key of `id`, or `None`.
    pub(crate) fn read(&self, id: &KeyId) -> Result<Option<SecretKey>> {
        let keyring = self.keyring();
        let row = keyring.row_key(id);
        self.with_reader(|database| {
            let sealed = match database.record(&row)? {
                Found::Nothing => return Ok(None),
                Found::Record(sealed) => sealed,
                Found::Damaged => return Err(Failure::damaged_record()),
            };
            let (_, key) = self.open_record(database, &keyring, &row, &sealed)?;
            Ok(Some(key))
        })
    }

    /// A page of records, still sealed: none is opened before it is asked for.
    pub(crate) fn page(&self, after: &[u8]) -> Result<Page> {
        self.with_reader(|database| database.page(after))
    }

    /// The id of a listed record.
    pub(crate) fn id_of(&self, row: &RowKey, found: Found) -> Result<KeyId> {
        let Found::Record(sealed) = found else { return Err(Failure::damaged_record()) };
        let keyring = self.keyring();
        match keyring.open(row, &sealed) {
            Ok((id, _)) => Ok(id),
            Err(_) => self.with_reader(|database| Ok(self.open_record(database, &keyring, row, &sealed)?.0)),
        }
    }

    /// Proves that the store can be read and that its keyring is the one we hold.
    pub(crate) fn check(&self) -> Result<()> {
        self.with_reader(|database| self.refresh_keyring(database).map(drop))
    }

    pub(crate) fn close(&self) {
        *self.idle() = None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.idle().is_none()
    }

    fn open_record(
        &self,
        database: &Database,
        keyring: &Keyring,
        row: &RowKey,
        sealed: &[u8],
    ) -> Result<(KeyId, SecretKey)> {
        let opened = match keyring.open(row, sealed) {
            Err(RecordError::UnknownEpoch) => self.refresh_keyring(database)?.open(row, sealed),
            opened => opened,
        };
        opened.map_err(|_| Failure::damaged_record())
    }

    /// Lends an idle connection, or a new one: as many are kept as there were readers at once.
    fn with_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let idle = self.idle().as_mut().ok_or_else(Failure::closed)?.pop();
        let database = match idle {
            Some(database) => database,
            None => Database::open_reader(&self.location)?,
        };
        let answer = read(&database)?;
        if let Some(idle) = self.idle().as_mut() {
            idle.push(database);
        }
        Ok(answer)
    }

    fn idle(&self) -> MutexGuard<'_, Option<Vec<Database>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.location.path).finish_non_exhaustive()
    }
}

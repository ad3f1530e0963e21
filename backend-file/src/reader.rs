//! [`Shared`]: what all handles of an open store and its writer thread share, and reading, inline.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use keystead_core::{ErrorKind, KeyId, SecretKey};
use keystead_sealing::{Keyring, KeyringError, RecordError, RootSecret, RowKey};

use crate::config::{FileIdentity, Location};
use crate::database::{Database, Found, Page};
use crate::error::{Failure, Result};

/// How many connections are kept for the next readers; each holds descriptors and a page cache.
const MAX_IDLE: usize = 16;

pub(crate) struct Shared {
    pub(crate) location: Location,
    identity: FileIdentity,
    root: RootSecret,
    keyring: RwLock<Arc<Keyring>>,
    // `None` once the store is closed.
    idle: Mutex<Option<Vec<Database>>>,
}

impl Shared {
    pub(crate) fn new(location: Location, identity: FileIdentity, root: RootSecret, keyring: Keyring) -> Self {
        let keyring = RwLock::new(Arc::new(keyring));
        Self { location, identity, root, keyring, idle: Mutex::new(Some(Vec::new())) }
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
        let mut held = self.keyring.write().unwrap_or_else(PoisonError::into_inner);
        // Another thread may have met a still newer one meanwhile.
        if keyring.generation() > held.generation() {
            *held = Arc::new(keyring);
        }
        Ok(held.clone())
    }

    /// The key of `id`, or `None`.
    pub(crate) fn read(&self, id: &KeyId) -> Result<Option<SecretKey>> {
        let row = self.keyring().row_key(id);
        self.with_reader(|database| {
            let found = database.record(&row)?;
            Ok(self.open_record(database, &row, found)?.map(|(_, key)| key))
        })
    }

    /// A page of records, still sealed: none is opened before it is asked for.
    pub(crate) fn page(&self, after: &[u8]) -> Result<Page> {
        self.with_reader(|database| database.page(after))
    }

    /// The id of a listed record; `None` if it has been deleted meanwhile.
    pub(crate) fn id_of(&self, row: &RowKey, found: Found) -> Result<Option<KeyId>> {
        if let Found::Record(sealed) = &found
            && let Ok((id, _)) = self.keyring().open(row, sealed)
        {
            return Ok(Some(id));
        }
        self.with_reader(|database| Ok(self.open_record(database, row, found)?.map(|(id, _)| id)))
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

    /// Opens what was found under a row key; `None` if that is nothing.
    fn open_record(&self, database: &Database, row: &RowKey, found: Found) -> Result<Option<(KeyId, SecretKey)>> {
        let sealed = match found {
            Found::Nothing => return Ok(None),
            Found::Record(sealed) => sealed,
            Found::Damaged => return Err(Failure::damaged_record()),
        };
        let opened = match self.keyring().open(row, &sealed) {
            // Another process has changed the keyring, and may have sealed the record again since it was read.
            Err(RecordError::UnknownEpoch) => {
                let keyring = self.refresh_keyring(database)?;
                match database.record(row)? {
                    Found::Nothing => return Ok(None),
                    Found::Record(sealed) => keyring.open(row, &sealed),
                    Found::Damaged => Err(RecordError::Damaged),
                }
            }
            opened => opened,
        };
        opened.map(Some).map_err(|_| Failure::damaged_record())
    }

    /// Lends an idle connection, or a new one.
    fn with_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let idle = self.idle().as_mut().ok_or_else(Failure::closed)?.pop();
        self.is_in_place()?;
        let database = match idle {
            Some(database) => database,
            None => Database::open_reader(&self.location)?,
        };
        let answer = read(&database)?;
        if let Some(idle) = self.idle().as_mut().filter(|idle| idle.len() < MAX_IDLE) {
            idle.push(database);
        }
        Ok(answer)
    }

    /// The file that we have open is the one at the path: else what we read and write is not the store any more.
    pub(crate) fn is_in_place(&self) -> Result<()> {
        if self.location.identity()? == Some(self.identity) { Ok(()) } else { Err(Failure::replaced()) }
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

//! [`Shared`]: what all handles of an open store and its writer thread share, and reading, inline.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use keystead_core::{KeyId, SecretKey, StoreInfo};
use keystead_sealing::{Keyring, KeyringError, RecordError, RootKey, RootSecret, RowKey};

use crate::config::{FileIdentity, Location};
use crate::database::{Database, Found, Page};
use crate::error::{Failure, Result, SCHEME};

/// How many connections are kept for the next readers; each holds descriptors and a page cache.
const MAX_IDLE: usize = 16;

/// How often a keyring is read again because this process has taken up a newer one meanwhile.
const MAX_REREADS: usize = 8;

pub(crate) struct Shared {
    pub(crate) location: Location,
    pub(crate) info: StoreInfo,
    identity: FileIdentity,
    access: RwLock<Arc<Access>>,
    // The generation of a keyring that our root secret does not open; 0 if none was met.
    superseded: AtomicU64,
    // `None` once the store is closed.
    idle: Mutex<Option<Vec<Database>>>,
}

/// What opens the store's records, as this process knows it.
pub(crate) struct Access {
    pub(crate) root: RootSecret,
    pub(crate) root_key: RootKey,
    pub(crate) keyring: Keyring,
}

impl Access {
    pub(crate) fn open(root: RootSecret, sealed: &[u8]) -> Result<Self, KeyringError> {
        let (keyring, root_key) = Keyring::open_keeping_key(&root, None, sealed)?;
        Ok(Self { root, root_key, keyring })
    }
}

impl Shared {
    pub(crate) fn new(location: Location, identity: FileIdentity, access: Access) -> Self {
        let store_id: String = access.keyring.store_id().iter().map(|byte| format!("{byte:02x}")).collect();
        let info = StoreInfo::new(SCHEME, location.path.to_string_lossy()).with_store_id(store_id);
        let access = RwLock::new(Arc::new(access));
        let idle = Mutex::new(Some(Vec::new()));
        Self { location, info, identity, access, superseded: AtomicU64::new(0), idle }
    }

    pub(crate) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes up a keyring that is in the store now, unless a newer one was taken up meanwhile.
    pub(crate) fn take_up(&self, access: Access) -> Arc<Access> {
        let mut held = self.access.write().unwrap_or_else(PoisonError::into_inner);
        if access.keyring.generation() > held.keyring.generation() {
            *held = Arc::new(access);
        }
        held.clone()
    }

    /// Opens the store's sealed keyring if it is not the one we hold: another process has changed it.
    pub(crate) fn refresh(&self, sealed: &[u8]) -> Result<Arc<Access>> {
        let (held, generation) = (self.access(), Keyring::generation_of(sealed));
        if generation == Some(held.keyring.generation()) {
            return Ok(held);
        }
        if generation.is_some_and(|generation| generation < held.keyring.generation()) {
            return Err(Failure::put_back());
        }
        // Once is enough to know: a passphrase takes its time, and writers wait for each other.
        if generation == Some(self.superseded.load(Ordering::Relaxed)) {
            return Err(Failure::superseded());
        }
        match Keyring::open_keeping_key(&held.root, Some(&held.root_key), sealed) {
            Ok((keyring, root_key)) => Ok(self.take_up(Access { root: held.root.clone(), root_key, keyring })),
            Err(KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. }) => {
                self.superseded.store(generation.unwrap_or_default(), Ordering::Relaxed);
                Err(Failure::superseded())
            }
            Err(e) => Err(e.into()),
        }
    }

    /// The keyring that is in the store now, and what is read at the same moment.
    pub(crate) fn follow<T>(&self, read: impl Fn() -> Result<(Vec<u8>, T)>) -> Result<(Arc<Access>, T)> {
        for _ in 0..MAX_REREADS {
            let (sealed, with) = read()?;
            let outcome = self.refresh(&sealed);
            // Another thread of this process may have rotated since the keyring was read.
            if Keyring::generation_of(&sealed).is_none_or(|read| read >= self.access().keyring.generation()) {
                return Ok((outcome?, with));
            }
        }
        Err(Failure::put_back())
    }

    /// The key of `id`, or `None`.
    pub(crate) fn read(&self, id: &KeyId) -> Result<Option<SecretKey>> {
        let row = self.access().keyring.row_key(id);
        self.with_reader(|database| {
            let found = database.record(&row)?;
            self.open_record(database, &row, found, |keyring, sealed| keyring.open_as(id, &row, sealed))
        })
    }

    /// A page of records, still sealed: none is opened before it is asked for.
    pub(crate) fn page(&self, after: &[u8]) -> Result<Page> {
        self.with_reader(|database| database.page(after))
    }

    /// How many records there are.
    pub(crate) fn count(&self) -> Result<u64> {
        self.with_reader(Database::count_records)
    }

    /// The id of a listed record; `None` if it has been deleted meanwhile.
    pub(crate) fn id_of(&self, row: &RowKey, found: Found) -> Result<Option<KeyId>> {
        let open = |keyring: &Keyring, sealed: &[u8]| keyring.open(row, sealed).map(|(id, _)| id);
        if let Found::Record(sealed) = &found
            && let Ok(id) = open(&self.access().keyring, sealed)
        {
            return Ok(Some(id));
        }
        self.with_reader(|database| self.open_record(database, row, found, open))
    }

    /// Proves that the store can be read and that its keyring is the one we hold.
    pub(crate) fn check(&self) -> Result<()> {
        self.with_reader(|database| self.follow(|| Ok((database.keyring()?, ())))).map(drop)
    }

    pub(crate) fn close(&self) {
        *self.idle() = None;
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.idle().is_none()
    }

    /// Opens what was found under a row key; `None` if that is nothing.
    fn open_record<T>(
        &self,
        database: &Database,
        row: &RowKey,
        found: Found,
        open: impl Fn(&Keyring, &[u8]) -> Result<T, RecordError>,
    ) -> Result<Option<T>> {
        let open = |keyring: &Keyring, found| match found {
            Found::Nothing => Ok(None),
            Found::Record(sealed) => open(keyring, &sealed).map(Some),
            Found::Damaged => Err(RecordError::Damaged),
        };
        let opened = match open(&self.access().keyring, found) {
            // A rotation has changed the keyring, and may have sealed the record again since it was read.
            Err(RecordError::UnknownEpoch) => {
                let (access, found) = self.follow(|| database.keyring_and_record(row))?;
                open(&access.keyring, found)
            }
            opened => opened,
        };
        opened.map_err(|_| Failure::damaged_record())
    }

    /// Lends an idle connection, or a new one.
    pub(crate) fn with_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
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

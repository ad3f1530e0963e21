//! [`Shared`]: what all handles of an open store and its writer thread share, and reading, inline.

use std::fmt;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keystead_core::{KeyId, SecretKey, StoreInfo};
use keystead_sealing::{Keyring, RecordError, RowKey};

use crate::access::{AccessState, Held};
use crate::cells::{Cursor, Found, Page};
use crate::config::{FileIdentity, Location};
use crate::database::Database;
use crate::error::{FileError, Result, SCHEME};
use crate::mark::Mark;

/// The largest number of connections that are kept for the next readers. Each holds descriptors and
/// a page cache.
const MAX_IDLE: usize = 16;

/// The time for which a connection is kept that no reader needs.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// The number of times that a read is repeated because the keyring was changed meanwhile.
const MAX_REREADS: usize = 8;

/// The time for which a reader trusts that the files are still in place. A writer looks before each
/// transaction.
const PLACE_LIMIT: Duration = Duration::from_millis(10);

pub(crate) struct Shared {
    pub(crate) location: Location,
    pub(crate) info: StoreInfo,
    pub(crate) access: AccessState,
    file: FileIdentity,
    log: FileIdentity,
    // `None` once the store is closed.
    readers: Mutex<Option<Readers>>,
    opened: Instant,
    // When the files were last seen in place, in milliseconds after `opened`.
    last_in_place: AtomicU64,
    // True if a check of the pages' structure has found faults.
    structure_is_damaged: AtomicBool,
    process: u32,
}

struct Readers {
    idle: Vec<IdleReader>,
    // Held for as long as a connection is open.
    mark: Arc<Mark>,
}

struct IdleReader {
    database: Database,
    since: Instant,
}

/// The outcome of a read with the keyring that this process holds.
pub(crate) enum Read<T> {
    Done(T),
    /// Another process has changed the keyring to this one, which takes its time to open.
    Behind(Vec<u8>),
}

impl Shared {
    pub(crate) fn new(location: Location, file: FileIdentity, log: FileIdentity, mark: Mark, held: Held) -> Self {
        let info = StoreInfo::new(SCHEME, location.path.to_string_lossy()).with_store_id(held.store_id());
        Self {
            location,
            info,
            access: AccessState::new(held),
            file,
            log,
            readers: Mutex::new(Some(Readers { idle: Vec::new(), mark: Arc::new(mark) })),
            opened: Instant::now(),
            last_in_place: AtomicU64::new(0),
            structure_is_damaged: AtomicBool::new(false),
            process: process::id(),
        }
    }

    /// The key of `id`, or `None`.
    pub(crate) async fn read(self: &Arc<Self>, id: &KeyId) -> Result<Option<SecretKey>> {
        self.is_this_process()?;
        let row = self.access.held().keyring.row_key(id);
        let open = |keyring: &Keyring, sealed: &[u8]| keyring.open_as(id, &row, sealed);
        self.catching_up(|| {
            self.lend_reader(|database| {
                let found = database.record(&row)?;
                self.open_record(database, &row, found, open)
            })
        })
        .await
    }

    /// The keys of these ids, in their order, of one moment.
    pub(crate) fn read_together(&self, ids: &[KeyId]) -> Result<Vec<Result<Read<Option<SecretKey>>>>> {
        self.is_this_process()?;
        let held = self.access.held();
        self.lend_reader(|database| {
            database.reading(|| {
                let read = |id: &KeyId| {
                    let row = held.keyring.row_key(id);
                    let open = |keyring: &Keyring, sealed: &[u8]| keyring.open_as(id, &row, sealed);
                    match open_found(&held.keyring, database.record(&row)?, open) {
                        Err(RecordError::UnknownEpoch) => {
                            self.open_in_transaction(database, database.record(&row)?, open)
                        }
                        opened => opened.map(Read::Done).map_err(|_| FileError::damaged_record()),
                    }
                };
                Ok(ids.iter().map(read).collect())
            })
        })
    }

    /// A page of records, still sealed: none is opened before it is asked for.
    pub(crate) fn page(&self, cursor: &Cursor) -> Result<Page> {
        self.is_this_process()?;
        self.with_reader(|database| database.page(cursor))
    }

    /// Counts the faults in the structure of the pages. If there are any, this process creates no new
    /// key from then on.
    pub(crate) fn count_structural_faults(&self) -> Result<u64> {
        let faults = self.with_reader(Database::count_structural_faults)?;
        if faults > 0 {
            self.structure_is_damaged.store(true, Ordering::Relaxed);
        }
        Ok(faults)
    }

    /// Refuses a new key that might be lost: where a page is there twice, SQLite may write it to the
    /// one and look for it in the other.
    pub(crate) fn may_create(&self) -> Result<()> {
        if self.structure_is_damaged.load(Ordering::Relaxed) { Err(FileError::damaged_structure()) } else { Ok(()) }
    }

    /// Counts the records.
    pub(crate) fn count(&self) -> Result<u64> {
        self.with_reader(Database::count_records)
    }

    /// The id of a listed record; `None` if it has been deleted meanwhile.
    pub(crate) async fn id_of(self: &Arc<Self>, row: &RowKey, found: Found) -> Result<Option<KeyId>> {
        let open = |keyring: &Keyring, sealed: &[u8]| keyring.open(row, sealed).map(|(id, _)| id);
        if let Found::Record(sealed) = &found
            && let Ok(id) = open(&self.access.held().keyring, sealed)
        {
            return Ok(Some(id));
        }
        self.catching_up(|| {
            self.with_reader(|database| {
                let found = database.record(row)?;
                self.open_record(database, row, found, open)
            })
        })
        .await
    }

    /// Proves that the store can be read and that its keyring is the one we hold.
    pub(crate) async fn check(self: &Arc<Self>) -> Result<()> {
        self.is_this_process()?;
        let read = || {
            let sealed = self.with_reader(Database::keyring)?;
            Ok(match self.access.current(&sealed)? {
                Some(_) => Read::Done(()),
                None => Read::Behind(sealed),
            })
        };
        self.catching_up(read).await
    }

    /// The sealed keyring that the store has now, and what it holds. May block for as long as a
    /// passphrase or a provider takes.
    pub(crate) fn catch_up(&self) -> Result<(Vec<u8>, Arc<Held>)> {
        for _ in 0..MAX_REREADS {
            let sealed = self.with_reader(Database::keyring)?;
            if let Some(held) = self.access.current(&sealed)? {
                return Ok((sealed, held));
            }
            self.access.catch_up(&sealed)?;
        }
        Err(FileError::put_back())
    }

    /// Ends the reading. The writer drops the mark when its own connection is closed, too.
    pub(crate) fn close(&self) -> Option<Arc<Mark>> {
        self.readers().take().map(|readers| readers.mark)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.readers().is_none()
    }

    /// Repeats a read until this process holds the keyring that the store has.
    async fn catching_up<T>(self: &Arc<Self>, read: impl Fn() -> Result<Read<T>> + Send) -> Result<T> {
        for _ in 0..MAX_REREADS {
            match read()? {
                Read::Done(done) => return Ok(done),
                Read::Behind(sealed) => AccessState::catch_up_off_thread(self, sealed).await?,
            }
        }
        Err(FileError::put_back())
    }

    /// Opens what was found under a row key; `None` if that is nothing.
    fn open_record<T>(
        &self,
        database: &Database,
        row: &RowKey,
        found: Found,
        open: impl Fn(&Keyring, &[u8]) -> Result<T, RecordError>,
    ) -> Result<Read<Option<T>>> {
        match open_found(&self.access.held().keyring, found, &open) {
            // A rotation has changed the keyring, and may have sealed the record again since it was
            // read.
            Err(RecordError::UnknownEpoch) => {
                database.reading(|| self.open_in_transaction(database, database.record(row)?, open))
            }
            opened => opened.map(Read::Done).map_err(|_| FileError::damaged_record()),
        }
    }

    /// The same for a record that was read inside a transaction.
    fn open_in_transaction<T>(
        &self,
        database: &Database,
        found: Found,
        open: impl Fn(&Keyring, &[u8]) -> Result<T, RecordError>,
    ) -> Result<Read<Option<T>>> {
        let sealed = database.keyring()?;
        let Some(held) = self.access.current(&sealed)? else { return Ok(Read::Behind(sealed)) };
        open_found(&held.keyring, found, &open).map(Read::Done).map_err(|_| FileError::damaged_record())
    }

    /// Lends an idle connection, or a new one.
    pub(crate) fn with_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        self.is_this_process()?;
        self.lend_reader(read)
    }

    /// The same for a caller that has made sure that it is not a forked process, which costs a call
    /// to the system.
    fn lend_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        // Dropped after the connection.
        let _mark;
        let idle = {
            let mut readers = self.readers();
            let readers = readers.as_mut().ok_or_else(FileError::closed)?;
            _mark = readers.mark.clone();
            readers.idle.pop()
        };
        let now = Instant::now();
        self.was_in_place(now)?;
        let database = match idle {
            Some(idle) => idle.database,
            None => Database::open_reader(&self.location)?,
        };
        let answer = read(&database)?;
        if let Some(readers) = self.readers().as_mut().filter(|readers| readers.idle.len() < MAX_IDLE) {
            readers.idle.push(IdleReader { database, since: now });
        }
        Ok(answer)
    }

    /// Closes the connections that no reader has needed for a while.
    pub(crate) fn close_idle_readers(&self) {
        let mut expired = Vec::new();
        if let Some(readers) = self.readers().as_mut() {
            let idle = &mut readers.idle;
            // The last one to come back is the first to be lent again, so the others grow old.
            let fresh = idle.iter().position(|reader| reader.since.elapsed() < IDLE_LIMIT).unwrap_or(idle.len());
            expired = idle.drain(..fresh).collect();
        }
        drop(expired);
    }

    /// Refuses a process that was forked off: it has no writer thread, and SQLite's connections
    /// must not be used in it.
    pub(crate) fn is_this_process(&self) -> Result<()> {
        if self.process == process::id() { Ok(()) } else { Err(FileError::forked()) }
    }

    /// Like [`is_in_place`](Self::is_in_place), as of a moment ago.
    fn was_in_place(&self, now: Instant) -> Result<()> {
        let now = u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX);
        let last = self.last_in_place.load(Ordering::Relaxed);
        if last != 0 && u128::from(now - last.min(now)) < PLACE_LIMIT.as_millis() {
            return Ok(());
        }
        self.is_in_place()?;
        self.last_in_place.store(now.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Makes sure that the files that we have open are those at their paths: else what we read and
    /// write is no longer the store. Returns the length of the log in bytes.
    pub(crate) fn is_in_place(&self) -> Result<u64> {
        let log = self.location.log_state()?.filter(|log| log.identity == self.log).ok_or_else(FileError::replaced)?;
        if self.location.identity()? == Some(self.file) { Ok(log.len) } else { Err(FileError::replaced()) }
    }

    fn readers(&self) -> MutexGuard<'_, Option<Readers>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.process != process::id() {
            // Closing them in a forked process would disturb the one that opened them.
            std::mem::forget(self.readers.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

fn open_found<T>(
    keyring: &Keyring,
    found: Found,
    open: impl Fn(&Keyring, &[u8]) -> Result<T, RecordError>,
) -> Result<Option<T>, RecordError> {
    match found {
        Found::Nothing => Ok(None),
        Found::Record(sealed) => open(keyring, &sealed).map(Some),
        Found::Damaged => Err(RecordError::Damaged),
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("path", &self.location.path).finish_non_exhaustive()
    }
}

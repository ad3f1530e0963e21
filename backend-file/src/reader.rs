//! [`Shared`]: the state that the handles of an open store share with its writer thread, and the
//! reads, which run on the calling thread.

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

/// The largest number of idle connections that are kept for the next readers. Each of them has file
/// descriptors and a page cache.
const MAX_IDLE: usize = 16;

/// The time after which an idle connection is closed.
const IDLE_LIMIT: Duration = Duration::from_secs(10);

/// The number of times that a read is tried while other processes change the keyring.
const MAX_REREADS: usize = 8;

/// The time for which a reader relies on the last check that the files are in place. A writer
/// checks that before each transaction.
const IN_PLACE_LIMIT: Duration = Duration::from_millis(10);

/// The state of an open store that its handles share with its writer thread.
pub(crate) struct Shared {
    pub(crate) location: Location,
    pub(crate) info: StoreInfo,
    pub(crate) access: Arc<AccessState>,
    /// The store's file and its log, as they were when the store was opened.
    file: FileIdentity,
    log: FileIdentity,
    /// `None` once the store is closed.
    readers: Mutex<Option<Readers>>,
    opened: Instant,
    /// The time at which the files were last seen in place, in milliseconds after `opened`; 0 for
    /// never.
    last_in_place: AtomicU64,
    /// True if a check of the pages' structure has found faults.
    structure_is_damaged: AtomicBool,
    /// The process that opened the store.
    process: u32,
}

/// The connections for reading.
struct Readers {
    idle: Vec<IdleReader>,
    /// Must be held as long as a connection is open.
    mark: Arc<Mark>,
}

struct IdleReader {
    database: Database,
    since: Instant,
}

/// The outcome of a read with the keyring that this process holds.
pub(crate) enum Read<T> {
    Done(T),
    /// Another process has changed the keyring to this sealed one, and opening it could take long.
    Behind(Vec<u8>),
}

impl Shared {
    pub(crate) fn new(location: Location, file: FileIdentity, log: FileIdentity, mark: Mark, held: Held) -> Self {
        let info = StoreInfo::new(SCHEME, location.path.to_string_lossy()).with_store_id(held.store_id());
        Self {
            location,
            info,
            access: Arc::new(AccessState::new(held)),
            file,
            log,
            readers: Mutex::new(Some(Readers { idle: Vec::new(), mark: Arc::new(mark) })),
            opened: Instant::now(),
            last_in_place: AtomicU64::new(0),
            structure_is_damaged: AtomicBool::new(false),
            process: process::id(),
        }
    }

    /// Returns the key of an id; `None` if it provably has none.
    pub(crate) async fn read(&self, id: &KeyId) -> Result<Option<SecretKey>> {
        self.expect_this_process()?;
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

    /// Reads the keys of these ids, in their order, from one state of the database.
    pub(crate) fn read_together(&self, ids: &[KeyId]) -> Result<Vec<Result<Read<Option<SecretKey>>>>> {
        self.expect_this_process()?;
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

    /// Reads a page of sealed records, without opening them.
    pub(crate) fn page(&self, cursor: &Cursor) -> Result<Page> {
        self.expect_this_process()?;
        self.with_reader(|database| database.page(cursor))
    }

    /// Counts the faults in the structure of the pages. If there are any, this process creates no
    /// more keys.
    pub(crate) fn count_structural_faults(&self) -> Result<u64> {
        let faults = self.with_reader(Database::count_structural_faults)?;
        if faults > 0 {
            self.structure_is_damaged.store(true, Ordering::Relaxed);
        }
        Ok(faults)
    }

    /// Fails if the structure of the pages is known to be damaged, because a new key might then be
    /// lost. If the tree refers to a page twice, for example, SQLite may write the key into one
    /// place and search for it in another.
    pub(crate) fn may_create(&self) -> Result<()> {
        if self.structure_is_damaged.load(Ordering::Relaxed) { Err(FileError::damaged_structure()) } else { Ok(()) }
    }

    /// Counts the records, intact or not.
    pub(crate) fn count(&self) -> Result<u64> {
        self.with_reader(Database::count_records)
    }

    /// Returns the id of a listed record; `None` if the record has been deleted since it was
    /// listed.
    pub(crate) async fn id_of(&self, row: &RowKey, found: Found) -> Result<Option<KeyId>> {
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

    /// Makes sure that the store can be read, and that this process holds its keyring.
    pub(crate) async fn check(&self) -> Result<()> {
        self.expect_this_process()?;
        let read = || {
            let sealed = self.with_reader(Database::keyring)?;
            Ok(match self.access.current(&sealed)? {
                Some(_) => Read::Done(()),
                None => Read::Behind(sealed),
            })
        };
        self.catching_up(read).await
    }

    /// Returns the keyring that the store has now, sealed and open. May block while a passphrase is
    /// stretched or a provider is asked.
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

    /// Closes the idle connections and ends all further reads. Returns the mark, which must be held
    /// until the writer's connection is closed, too.
    pub(crate) fn close(&self) -> Option<Arc<Mark>> {
        self.readers().take().map(|readers| readers.mark)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.readers().is_none()
    }

    /// Repeats a read until this process holds the keyring that the store has.
    async fn catching_up<T>(&self, read: impl Fn() -> Result<Read<T>> + Send) -> Result<T> {
        for _ in 0..MAX_REREADS {
            match read()? {
                Read::Done(done) => return Ok(done),
                Read::Behind(sealed) => self.access.catch_up_off_thread(sealed).await?,
            }
        }
        Err(FileError::put_back())
    }

    /// Opens the record that was found under a row key; `None` if there is none.
    fn open_record<T>(
        &self,
        database: &Database,
        row: &RowKey,
        found: Found,
        open: impl Fn(&Keyring, &[u8]) -> Result<T, RecordError>,
    ) -> Result<Read<Option<T>>> {
        match open_found(&self.access.held().keyring, found, &open) {
            // A rotation has changed the keyring, and may have resealed the record since it was
            // read.
            Err(RecordError::UnknownEpoch) => {
                database.reading(|| self.open_in_transaction(database, database.record(row)?, open))
            }
            opened => opened.map(Read::Done).map_err(|_| FileError::damaged_record()),
        }
    }

    /// Like [`open_record`](Self::open_record), for a record that was read inside a transaction.
    /// The keyring is read inside the same transaction.
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

    /// Runs a read on an idle connection or, if there is none, on a new one.
    pub(crate) fn with_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        self.expect_this_process()?;
        self.lend_reader(read)
    }

    /// Like [`with_reader`](Self::with_reader), for a caller that has called
    /// [`expect_this_process`](Self::expect_this_process), which costs a system call.
    fn lend_reader<T>(&self, read: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        // Declared first, so that it is dropped after the connection.
        let _mark;
        let idle = {
            let mut readers = self.readers();
            let readers = readers.as_mut().ok_or_else(FileError::closed)?;
            _mark = readers.mark.clone();
            readers.idle.pop()
        };
        let now = Instant::now();
        self.expect_recently_in_place(now)?;
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
            // The connections are sorted by age, because the one that was returned last is reused
            // first.
            let fresh = idle.iter().position(|reader| reader.since.elapsed() < IDLE_LIMIT).unwrap_or(idle.len());
            expired = idle.drain(..fresh).collect();
        }
        drop(expired);
    }

    /// Fails in a fork of the process that opened the store. A fork has no writer thread and must
    /// not use SQLite's connections.
    pub(crate) fn expect_this_process(&self) -> Result<()> {
        if self.process == process::id() { Ok(()) } else { Err(FileError::forked()) }
    }

    /// Like [`expect_in_place`](Self::expect_in_place), but accepts a recent check.
    fn expect_recently_in_place(&self, now: Instant) -> Result<()> {
        let now = u64::try_from(now.saturating_duration_since(self.opened).as_millis()).unwrap_or(u64::MAX);
        let last = self.last_in_place.load(Ordering::Relaxed);
        if last != 0 && u128::from(now - last.min(now)) < IN_PLACE_LIMIT.as_millis() {
            return Ok(());
        }
        self.expect_in_place()?;
        self.last_in_place.store(now.max(1), Ordering::Relaxed);
        Ok(())
    }

    /// Makes sure that the files at the store's paths are still those that this process has open,
    /// and returns the length of the log in bytes.
    pub(crate) fn expect_in_place(&self) -> Result<u64> {
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
            // Closing the connections in a fork would interfere with the process that opened them.
            std::mem::forget(self.readers.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

/// Opens the record that was found; `None` if there is none.
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

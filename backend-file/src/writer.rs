//! The writer thread: it opens the store, commits what waits as one transaction, and scrubs.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use keystead_core::{ErrorKind, KeyId, PutMode, SecretKey};
use keystead_sealing::{Keyring, RootSecret, RowKey, SealedRecord};

use crate::config::{Location, Standing};
use crate::database::{self, Database, Found};
use crate::error::{Failure, Result};
use crate::lock::{Locked, WriterLock};
use crate::reader::{Access, Shared};
use crate::rotate::Step;

/// How many requests share one transaction at most.
const MAX_BATCH: usize = 256;

/// How long a delete or an overwrite waits for readers before it leaves the scrub for later.
const SCRUB_WAIT: Duration = Duration::from_millis(500);

/// How long a write waits that has nothing to scrub itself while an earlier scrub is pending, and an idle writer.
const PENDING_SCRUB_WAIT: Duration = Duration::from_millis(20);

/// How long an idle writer rests before it tries a pending scrub again.
const PENDING_SCRUB_PAUSE: Duration = Duration::from_millis(200);

/// The log is begun again above this number of pages (4 MiB), and how long that waits for readers.
const LOG_LIMIT: i32 = 1024;
const LOG_WAIT: Duration = Duration::from_millis(100);

/// How a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    Create,
    Open,
    OpenOrCreate,
}

/// What a handle asks of the writer, with the channel for the answer.
pub(crate) enum Request {
    Write(Offer, Reply<Written>),
    /// Whether the log is empty afterwards.
    Scrub(Reply<bool>),
    Rotate(Step),
    Close(Reply<()>),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

/// A write that its caller may withdraw until the writer has taken it. What waits in the queue holds no secret then.
#[derive(Clone)]
pub(crate) struct Offer(Arc<Mutex<Option<Write>>>);

/// Withdraws an offer when it is dropped.
pub(crate) struct Withdrawal(Offer);

impl Offer {
    pub(crate) fn new(write: Write) -> (Self, Withdrawal) {
        let offer = Self(Arc::new(Mutex::new(Some(write))));
        (offer.clone(), Withdrawal(offer))
    }

    fn take(&self) -> Option<Write> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Withdrawal {
    fn drop(&mut self) {
        drop(self.0.take());
    }
}

pub(crate) enum Write {
    Put(Box<Put>),
    Delete(RowKey),
    /// Deletes the record only if it does not open.
    DeleteDamaged(RowKey),
}

/// A key that its caller has sealed already, under the keyring of this generation.
pub(crate) struct Put {
    pub(crate) id: KeyId,
    pub(crate) key: SecretKey,
    pub(crate) mode: PutMode,
    pub(crate) record: SealedRecord,
    pub(crate) generation: u64,
}

/// What a committed write found and did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// Whether there was a record before.
    pub(crate) existed: bool,
    /// Whether no byte of a dead record is left in the store's files.
    pub(crate) clean: bool,
}

/// What a handle of an open store needs.
pub(crate) type Opened = (Arc<Shared>, Sender<Request>);

/// Opens or creates the store on a new thread, which then serves its writes until the last sender is gone.
pub(crate) fn start(
    location: impl FnOnce() -> Result<Location> + Send + 'static,
    root: RootSecret,
    opening: Opening,
) -> Result<oneshot::Receiver<Result<Opened>>> {
    let (opened, answer) = oneshot::channel();
    let open = move || {
        let location = location()?;
        let path = location.path.clone();
        Writer::open(location, root, opening).map_err(|failure| failure.about(&path))
    };
    let run = move || match open() {
        Ok(mut writer) => {
            let (sender, requests) = channel();
            if opened.send(Ok((writer.shared.clone(), sender))).is_ok() {
                writer.serve(&requests);
            }
            writer.finish();
        }
        Err(failure) => drop(opened.send(Err(failure))),
    };
    spawn(run)?;
    Ok(answer)
}

pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = thread::Builder::new().name("keystead-file".to_owned()).spawn(work);
    let failure = |e| Failure::new(ErrorKind::Unavailable, format!("no thread can be started for the store: {e}"));
    started.map(drop).map_err(failure)
}

struct Writer {
    shared: Arc<Shared>,
    database: Database,
    lock: Arc<WriterLock>,
    scrub_pending: bool,
    // Who waits for the store to be closed; nobody as long as it is not to be.
    closers: Vec<oneshot::Sender<Result<()>>>,
}

impl Writer {
    fn open(location: Location, root: RootSecret, opening: Opening) -> Result<Self> {
        let standing = location.standing()?;
        // A creation that was cut off leaves its journal; what it journals is undone when the database is opened.
        let cut_off = standing == Standing::File && location.has_journal()?;
        if standing == Standing::File && !cut_off {
            database::probe(&location)?;
        }
        let new_keyring = match (standing, opening) {
            (Standing::File, Opening::Create) if !cut_off => return Err(exists(&location)),
            (Standing::Nothing | Standing::EmptyFile, Opening::Open) => return Err(missing(&location)),
            (Standing::File, Opening::Open) => None,
            (Standing::File, _) if !cut_off => None,
            // A root secret that cannot be used is found out before anything is created.
            _ => Some(Keyring::generate().seal_with(&root)?),
        };
        let lock = &Arc::new(WriterLock::open(&location)?);
        let locked = lock.lock()?;
        // Another process may have been quicker.
        let mut standing = location.standing()?;
        if standing == Standing::File && location.has_journal()? && Database::is_blank(&location)? {
            standing = Standing::EmptyFile;
        }
        let creates = match (standing, new_keyring) {
            (Standing::File, _) if opening == Opening::Create => return Err(exists(&location)),
            (Standing::File, _) => false,
            (_, Some(keyring)) => {
                location.create_file()?;
                Database::create(&location, &keyring)?;
                true
            }
            (_, None) => return Err(missing(&location)),
        };
        let synced = if creates { location.sync_directory() } else { Ok(()) };
        let opened = synced.and_then(|()| Self::open_existing(location, root, lock, locked));
        // What fails now leaves a store behind.
        if creates { opened.map_err(Failure::of_unknown_effect) } else { opened }
    }

    fn open_existing(location: Location, root: RootSecret, lock: &Arc<WriterLock>, locked: Locked<'_>) -> Result<Self> {
        let database = Database::open(&location)?;
        let (sealed, identity) = (database.keyring()?, location.identity()?.ok_or_else(|| missing(&location))?);
        drop(locked);
        // Without the lock: a passphrase takes its time.
        let access = Access::open(root, &sealed);
        let locked = lock.lock()?;
        let access = match access {
            Ok(access) => access,
            Err(e) => {
                drop(database);
                return Err(e.into());
            }
        };
        let shared = Arc::new(Shared::new(location, identity, access));
        let mut writer = Self { shared, database, lock: lock.clone(), scrub_pending: false, closers: Vec::new() };
        // The process before us may have died between a commit and its scrub.
        writer.scrub(SCRUB_WAIT);
        drop(locked);
        Ok(writer)
    }

    fn serve(&mut self, requests: &Receiver<Request>) {
        while self.closers.is_empty() {
            match self.next_batch(requests) {
                Some(batch) if batch.is_empty() => self.retry_scrub(),
                Some(batch) => self.run(batch),
                None => break,
            }
        }
    }

    /// What waits, up to a limit; none if it is time to try a pending scrub again; `None` when all handles are gone.
    fn next_batch(&self, requests: &Receiver<Request>) -> Option<Vec<Request>> {
        let first = if self.scrub_pending {
            match requests.recv_timeout(PENDING_SCRUB_PAUSE) {
                Ok(request) => request,
                Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        } else {
            requests.recv().ok()?
        };
        let mut batch = vec![first];
        // Callers who were answered together ask again together: as long as more come, let them.
        loop {
            let before = batch.len();
            batch.extend(requests.try_iter().take(MAX_BATCH - before));
            if batch.len() == before || batch.len() == MAX_BATCH {
                return Some(batch);
            }
            thread::yield_now();
        }
    }

    /// Commits a batch, scrubs, and answers.
    fn run(&mut self, batch: Vec<Request>) {
        let lock = self.lock.clone();
        let locked = lock.lock();
        // Taken not before the lock is held: waiting for it may take longer than a caller would.
        let (mut writes, mut replies, mut scrubs, mut steps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for request in batch {
            match request {
                Request::Write(offer, reply) => {
                    if let Some(write) = offer.take() {
                        writes.push(write);
                        replies.push(reply);
                    }
                }
                Request::Scrub(reply) => scrubs.push(reply),
                Request::Rotate(step) => steps.push(step),
                Request::Close(reply) => self.closers.push(reply),
            }
        }
        let outcome = match &locked {
            Ok(_) => self.write_and_scrub(&writes, !scrubs.is_empty()),
            Err(failure) => Err(failure.clone()),
        };
        for step in steps {
            match &locked {
                Ok(_) => {
                    step.run(&self.shared, &self.database);
                    // A rotation asks for the scrub that it needs when it ends; this one keeps the log short.
                    self.scrub(PENDING_SCRUB_WAIT);
                }
                Err(failure) => step.refuse(failure.clone()),
            }
        }
        // Other processes go on while the answers are given.
        drop(locked);
        // Whoever has stopped waiting needs no answer.
        match outcome {
            Ok((outcomes, clean)) => {
                for (reply, existed) in replies.into_iter().zip(outcomes) {
                    drop(reply.send(existed.map(|existed| Written { existed, clean })));
                }
                scrubs.into_iter().for_each(|reply| drop(reply.send(Ok(clean))));
            }
            Err(failure) => {
                replies.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone()))));
                scrubs.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone()))));
            }
        }
    }

    /// One transaction and what comes after it, under the lock of all processes' writers: for each write whether there was
    /// a record before, and for all whether the files are clean.
    fn write_and_scrub(&mut self, writes: &[Write], scrub_asked: bool) -> Result<(Vec<Result<bool>>, bool)> {
        self.shared.is_in_place()?;
        let outcomes = self.transact(writes)?;
        // A delete that finds nothing scrubs as well: the process that deleted the record may have died before its scrub.
        let died = writes.iter().zip(&outcomes).any(|(write, outcome)| match write {
            Write::Put(put) => matches!(outcome, Ok(true)) && put.mode == PutMode::Overwrite,
            Write::Delete(_) | Write::DeleteDamaged(_) => outcome.is_ok(),
        });
        if died || scrub_asked {
            self.scrub(SCRUB_WAIT);
        } else if self.scrub_pending {
            self.scrub(PENDING_SCRUB_WAIT);
        } else if self.database.log_pages() > LOG_LIMIT {
            // What cannot be done now is tried again after the next write.
            let _ = self.database.restart_log(LOG_WAIT);
        }
        Ok((outcomes, !self.scrub_pending))
    }

    /// Commits all writes at once; if one of them cannot be, each by itself, so that it spoils no neighbour.
    fn transact(&self, writes: &[Write]) -> Result<Vec<Result<bool>>> {
        match self.commit(writes) {
            Ok(existed) => Ok(existed.into_iter().map(Ok).collect()),
            Err(failure) if failure.may_be_one_writes_own() => {
                let alone = |write| self.commit(std::slice::from_ref(write)).map(|existed| existed.contains(&true));
                Ok(writes.iter().map(alone).collect())
            }
            Err(failure) => Err(failure),
        }
    }

    fn commit(&self, writes: &[Write]) -> Result<Vec<bool>> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        self.database.transaction(|| {
            let access = self.shared.refresh(&self.database.keyring()?)?;
            writes.iter().map(|write| self.apply(&access.keyring, write)).collect()
        })
    }

    /// Applies one write inside the transaction; whether there was a record before.
    fn apply(&self, keyring: &Keyring, write: &Write) -> Result<bool> {
        let put = match write {
            Write::Delete(row) => return self.database.delete_record(row),
            Write::DeleteDamaged(row) => {
                let whole = match self.database.record(row)? {
                    Found::Record(sealed) => keyring.open(row, &sealed).is_ok(),
                    Found::Nothing | Found::Damaged => false,
                };
                return if whole { Ok(false) } else { self.database.delete_record(row) };
            }
            Write::Put(put) => put,
        };
        let existed = self.database.has_record(&put.record.row)?;
        if existed && put.mode == PutMode::Create {
            return Ok(true);
        }
        let sealed_again;
        let record = if put.generation == keyring.generation() {
            &put.record
        } else {
            // The keyring was changed after the caller sealed: a retired epoch's record could not be opened.
            sealed_again = keyring.seal(&put.id, &put.key);
            &sealed_again
        };
        if existed {
            self.database.replace_record(&record.row, &record.bytes)?;
        } else {
            self.database.insert_record(&record.row, &record.bytes)?;
        }
        Ok(existed)
    }

    fn retry_scrub(&mut self) {
        let lock = self.lock.clone();
        if let Ok(_locked) = lock.lock() {
            self.scrub(PENDING_SCRUB_WAIT);
        }
    }

    /// Empties the log, unless it is empty, and remembers if that could not be done. A failure of the disk counts as "not
    /// yet": what was committed stays committed.
    fn scrub(&mut self, wait: Duration) {
        let clean = self.shared.is_in_place().and_then(|()| match self.shared.location.wal_len()? {
            0 => Ok(true),
            _ => self.database.truncate_log(wait),
        });
        self.scrub_pending = !clean.unwrap_or(false);
    }

    /// Closes the database, under the lock and where that can be as the last of this store's connections, so that
    /// SQLite removes its log. Requests that come too late are dropped, and their callers see that the store is closed.
    fn finish(mut self) {
        self.shared.close();
        let lock = self.lock.clone();
        let locked = lock.lock();
        if self.scrub_pending {
            // Tried once more; if a reader still holds the log, the next open scrubs.
            self.scrub(SCRUB_WAIT);
        }
        drop(self.database);
        drop(locked);
        self.closers.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
    }
}

fn missing(location: &Location) -> Failure {
    let text = format!("there is no store at {}: create it, or give the path of one", location.path.display());
    Failure::new(ErrorKind::Config, text)
}

fn exists(location: &Location) -> Failure {
    let text = format!("there is a store at {} already: open it, or give another path", location.path.display());
    Failure::new(ErrorKind::AlreadyExists, text)
}

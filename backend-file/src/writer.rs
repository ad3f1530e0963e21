//! The writer thread: it opens the store, commits what waits as one transaction, and scrubs.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use futures_channel::oneshot;
use keystead_core::{ErrorKind, KeyId, PutMode, SecretKey};
use keystead_sealing::{Keyring, RootSecret, RowKey, SealedRecord};

use crate::config::{FileIdentity, Location, Standing};
use crate::database::{self, Database};
use crate::error::{Failure, Result};
use crate::lock::WriterLock;
use crate::reader::Shared;

/// How many requests share one transaction at most.
const MAX_BATCH: usize = 256;

/// How long a delete or an overwrite waits for readers before it leaves the scrub for later.
const SCRUB_WAIT: Duration = Duration::from_millis(500);

/// How long a write waits that has nothing to scrub itself while an earlier scrub is pending, and an idle writer.
const PENDING_SCRUB_WAIT: Duration = Duration::from_millis(20);

/// How long an idle writer rests before it tries a pending scrub again.
const PENDING_SCRUB_PAUSE: Duration = Duration::from_millis(200);

/// The log is emptied above this length in bytes, and how long that waits for readers.
const LOG_LIMIT: u64 = 4 * 1024 * 1024;
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
    Write(Write, oneshot::Sender<Result<Written>>),
    /// Whether the log is empty afterwards.
    Scrub(oneshot::Sender<Result<bool>>),
    Close(oneshot::Sender<Result<()>>),
}

pub(crate) enum Write {
    Put(Box<Put>),
    Delete(RowKey),
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
    let run = move || match location().and_then(|location| Writer::open(location, root, opening)) {
        Ok(mut writer) => {
            let (sender, requests) = channel();
            if opened.send(Ok((writer.shared.clone(), sender))).is_ok() {
                writer.serve(&requests);
            }
            writer.finish();
        }
        Err(failure) => drop(opened.send(Err(failure))),
    };
    let started = thread::Builder::new().name("keystead-file".to_owned()).spawn(run);
    started
        .map_err(|e| Failure::new(ErrorKind::Unavailable, format!("no thread can be started for the store: {e}")))?;
    Ok(answer)
}

struct Writer {
    shared: Arc<Shared>,
    database: Database,
    lock: WriterLock,
    identity: Option<FileIdentity>,
    scrub_pending: bool,
    // Who waits for the store to be closed; nobody as long as it is not to be.
    closers: Vec<oneshot::Sender<Result<()>>>,
}

impl Writer {
    fn open(location: Location, root: RootSecret, opening: Opening) -> Result<Self> {
        let mut standing = location.standing()?;
        if standing == Standing::File {
            database::probe(&location)?;
        }
        let new_keyring = match (standing, opening) {
            (Standing::File, Opening::Create) if !location.has_journal()? => return Err(exists(&location)),
            (Standing::File, _) => None,
            (_, Opening::Open) => return Err(missing(&location)),
            // A root secret that cannot be used is found out before anything is created.
            _ => Some(Keyring::generate().seal_with(&root)?),
        };
        let lock = WriterLock::open(&location)?;
        let locked = lock.lock()?;
        // Another process may have been quicker.
        standing = location.standing()?;
        if standing == Standing::File && location.has_journal()? && Database::is_blank(&location)? {
            standing = Standing::EmptyFile;
        }
        match (standing, new_keyring) {
            (Standing::File, _) if opening == Opening::Create => return Err(exists(&location)),
            (Standing::File, _) => {}
            (_, Some(keyring)) => {
                location.create_file()?;
                Database::create(&location, &keyring)?;
                location.sync_directory()?;
            }
            (_, None) => return Err(missing(&location)),
        }
        let database = Database::open(&location)?;
        let (sealed, identity) = (database.keyring()?, location.identity()?);
        drop(locked);
        // Without the lock: a passphrase takes its time.
        let keyring = Keyring::open_with(&root, &sealed);
        let locked = lock.lock()?;
        let keyring = match keyring {
            Ok(keyring) => keyring,
            Err(e) => {
                drop(database);
                return Err(e.into());
            }
        };
        // The process before us may have died between a commit and its scrub.
        let scrub_pending = !is_scrubbed(&database, &location, SCRUB_WAIT);
        drop(locked);
        let shared = Arc::new(Shared::new(location, root, keyring));
        Ok(Self { shared, database, lock, identity, scrub_pending, closers: Vec::new() })
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
        Some(std::iter::once(first).chain(requests.try_iter().take(MAX_BATCH - 1)).collect())
    }

    /// Commits a batch, scrubs, and answers.
    fn run(&mut self, batch: Vec<Request>) {
        let (mut writes, mut scrubs) = (Vec::new(), Vec::new());
        for request in batch {
            match request {
                Request::Write(write, reply) => writes.push((write, reply)),
                Request::Scrub(reply) => scrubs.push(reply),
                Request::Close(reply) => self.closers.push(reply),
            }
        }
        let outcome = self.write_and_scrub(&mut writes, !scrubs.is_empty());
        // Whoever has stopped waiting needs no answer.
        let replies = writes.into_iter().map(|(_, reply)| reply);
        match outcome {
            Ok((existed, clean)) => {
                for (reply, existed) in replies.zip(existed) {
                    drop(reply.send(Ok(Written { existed, clean })));
                }
                scrubs.into_iter().for_each(|reply| drop(reply.send(Ok(clean))));
            }
            Err(failure) => {
                replies.for_each(|reply| drop(reply.send(Err(failure.clone()))));
                scrubs.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone()))));
            }
        }
    }

    /// One transaction and what comes after it, under the lock of all processes' writers.
    fn write_and_scrub(
        &mut self,
        writes: &mut Vec<(Write, oneshot::Sender<Result<Written>>)>,
        scrub_asked: bool,
    ) -> Result<(Vec<bool>, bool)> {
        let _locked = self.lock.lock()?;
        // Waiting for the lock may have taken longer than a caller would.
        writes.retain(|(_, reply)| !reply.is_canceled());
        let writes: Vec<&Write> = writes.iter().map(|(write, _)| write).collect();
        let existed = if writes.is_empty() { Vec::new() } else { self.transact(&writes)? };
        // A delete that finds nothing scrubs as well: the process that deleted the record may have died before its scrub.
        let died = writes.iter().zip(&existed).any(|(write, existed)| match write {
            Write::Put(put) => *existed && put.mode == PutMode::Overwrite,
            Write::Delete(_) => true,
        });
        if died || scrub_asked || self.scrub_pending {
            let wait = if died || scrub_asked { SCRUB_WAIT } else { PENDING_SCRUB_WAIT };
            self.scrub_pending = !is_scrubbed(&self.database, &self.shared.location, wait);
        } else if self.shared.location.wal_len().is_ok_and(|len| len > LOG_LIMIT) {
            // What cannot be emptied now is tried again after the next write.
            let _ = self.database.truncate_log(LOG_WAIT);
        }
        Ok((existed, !self.scrub_pending))
    }

    fn transact(&self, writes: &[&Write]) -> Result<Vec<bool>> {
        if self.shared.location.identity()? != self.identity {
            let text = "the store's file was removed or replaced while it was open: close the store and open it again";
            return Err(Failure::new(ErrorKind::Unavailable, text));
        }
        let committed = self.database.begin().and_then(|()| {
            let keyring = self.shared.refresh_keyring(&self.database)?;
            let existed = writes.iter().map(|write| self.apply(&keyring, write)).collect::<Result<Vec<bool>>>()?;
            self.database.commit()?;
            Ok(existed)
        });
        if committed.is_err() {
            self.database.rollback();
        }
        committed
    }

    /// Applies one write inside the transaction; whether there was a record before.
    fn apply(&self, keyring: &Keyring, write: &Write) -> Result<bool> {
        let put = match write {
            Write::Delete(row) => return self.database.delete_record(row),
            Write::Put(put) => put,
        };
        let existed = self.database.has_record(&put.record.row)?;
        if existed && put.mode == PutMode::Create {
            return Ok(true);
        }
        if put.generation == keyring.generation() {
            self.database.write_record(&put.record.row, &put.record.bytes)?;
        } else {
            // The keyring was changed after the caller sealed: a retired epoch's record could not be opened.
            let record = keyring.seal(&put.id, &put.key);
            self.database.write_record(&record.row, &record.bytes)?;
        }
        Ok(existed)
    }

    fn retry_scrub(&mut self) {
        if let Ok(_locked) = self.lock.lock() {
            self.scrub_pending = !is_scrubbed(&self.database, &self.shared.location, PENDING_SCRUB_WAIT);
        }
    }

    /// Closes the database, under the lock and where that can be as the last of this store's connections, so that
    /// SQLite removes its log. Requests that come too late are dropped, and their callers see that the store is closed.
    fn finish(self) {
        self.shared.close();
        let locked = self.lock.lock();
        if self.scrub_pending {
            // Tried once more; if a reader still holds the log, the next open scrubs.
            let _ = is_scrubbed(&self.database, &self.shared.location, SCRUB_WAIT);
        }
        drop(self.database);
        drop(locked);
        self.closers.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
    }
}

/// Empties the log, unless it is empty. A failure of the disk counts as "not yet": what was committed stays committed.
fn is_scrubbed(database: &Database, location: &Location, wait: Duration) -> bool {
    match location.wal_len() {
        Ok(0) => true,
        Ok(_) => database.truncate_log(wait).unwrap_or(false),
        Err(_) => false,
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

//! [`FileStore`]: the contract over one encrypted file.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;

use futures_channel::oneshot;
use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind, Finality,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_sealing::{RootSecret, RowKey};

use crate::cells::{Cursor, Found};
use crate::error::{FileError, SCHEME};
use crate::options::FileOptions;
use crate::queue::Handles;
use crate::reader::{Read, Shared};
use crate::request::{Reply, Request, Written};
use crate::threads;
use crate::transaction::{Put, Write};

/// The number of keys of a batch that are read at one moment. Other tasks of the thread run in
/// between.
const READ_TOGETHER: usize = 256;

/// The number of keys from which sorting them by row makes a transaction write few pages twice.
const CREATED_TOGETHER: usize = 16 * 1024;

/// Keys in one encrypted file on a local disk.
///
/// Clones are handles of one store, and any number of processes may have it open. Reads run on the
/// calling thread and take microseconds; writes go to a thread of the store's own and are on the
/// disk when the call returns. When the last handle is dropped that thread finishes in the
/// background; [`close`](Self::close) waits for it. `Debug` shows the path only.
#[derive(Clone)]
pub struct FileStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handles: Arc<Handles>,
    pub(crate) replaced: Option<Arc<Path>>,
}

/// The progress of [`rotate`](FileStore::rotate) or [`verify`](FileStore::verify).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of records that were looked at.
    pub done: u64,
    /// The number of records there are, as counted at the beginning; never below `done`, though
    /// records are written meanwhile.
    pub total: u64,
}

impl Progress {
    pub(crate) fn new(done: u64, total: u64) -> Self {
        Self { done, total: total.max(done) }
    }
}

impl FileStore {
    /// Creates a store. A missing directory is created for its owner only, the file with mode 0600.
    ///
    /// # Errors
    /// Each says what to do.
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists) if there is a store.
    /// - [`Config`](ErrorKind::Config) if the path, what is there or its directory cannot be used,
    ///   or the passphrase is empty.
    /// - [`Corrupt`](ErrorKind::Corrupt) if a store was created there and its file is missing or
    ///   empty.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the directory cannot be written.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if a provider gives no root secret.
    /// - [`Unsupported`](ErrorKind::Unsupported) if the file system does not support SQLite's log.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full;
    ///   [`Unavailable`](ErrorKind::Unavailable) if it fails, or memory, threads or descriptors run
    ///   out.
    /// - [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10 seconds.
    ///
    /// With [`Effect::Unknown`](keystead_core::Effect::Unknown) the store was created and could not
    /// be opened: [`open_or_create`](Self::open_or_create) does both.
    pub async fn create(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().create(path, root).await
    }

    /// Opens a store that exists. One of format 1 is brought up to date, which earlier versions
    /// cannot read.
    ///
    /// # Errors
    /// Each says what to do.
    /// - [`Config`](ErrorKind::Config) if there is no store; if the file is not a store, is another
    ///   one than was created there, is a symbolic link, has several names (hard links), is mounted
    ///   as a single file or is open to others; or if everybody may write to its directory.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not the store's.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the keyring or the database is damaged, if the file of
    ///   a store that was created there is missing or empty, or if the log beside the file is that
    ///   of another one.
    /// - [`Unsupported`](ErrorKind::Unsupported) if a newer keystead wrote it, or the file system
    ///   does not support SQLite's log.
    /// - [`PermissionDenied`](ErrorKind::PermissionDenied) if the file or its directory cannot be
    ///   written.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full;
    ///   [`Unavailable`](ErrorKind::Unavailable) if it fails, if memory, threads or descriptors run
    ///   out, or if a restore is under way or was interrupted.
    /// - [`Timeout`](ErrorKind::Timeout) if a foreign program keeps the file locked.
    pub async fn open(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().open(path, root).await
    }

    /// Opens a store, or creates it if there is none. Of many processes that do so at once, one
    /// creates it.
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`open`](Self::open), but for there being a store or none.
    pub async fn open_or_create(path: impl AsRef<Path> + Send, root: RootSecret) -> Result<Self> {
        FileOptions::new().open_or_create(path, root).await
    }

    /// Removes what is left of deleted and overwritten keys from the store's files now, and returns
    /// whether they are clean.
    ///
    /// Every delete and overwrite does so by itself. This is for a delete whose `Finality` was
    /// `Eventual` because a reader held the log, and for an overwrite, which cannot say so. `false`
    /// means that a reader has held it for half a second or that the disk failed; the store goes on
    /// trying.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the file was removed or replaced, or cannot be
    /// locked; [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10
    /// seconds; [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn scrub(&self) -> Result<bool> {
        self.ask(Request::Scrub).await.map_err(|failure| failure.during(Operation::Erase))
    }

    /// Waits for the writes that are under way and closes the store for all its handles. A second
    /// time it does nothing.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10 seconds:
    /// the store then closes when that ends, and nobody waits for it. [`Other`](ErrorKind::Other)
    /// if the writer thread has ended unexpectedly.
    pub async fn close(&self) -> Result<()> {
        match self.ask(Request::Close).await {
            Err(_) if self.shared.is_closed() => Ok(()),
            answer => answer.map_err(|failure| failure.during(Operation::Open)),
        }
    }

    /// The row that the record of this id has in the file: HMAC-SHA-256 of the id under the store's
    /// own name key (FORMAT.md).
    pub fn row_key(&self, id: &KeyId) -> RowKey {
        self.shared.access.held().keyring.row_key(id)
    }

    pub(crate) async fn write(&self, write: Write) -> Result<Written, FileError> {
        self.ask(|reply| Request::Write(write, reply)).await
    }

    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, FileError> {
        self.shared.is_this_process()?;
        let (reply, answer) = oneshot::channel();
        // A writer that has gone on purpose has left what it did not answer undone.
        let gone = || if self.shared.is_closed() { FileError::closed() } else { FileError::writer_is_gone() };
        let ticket = self.handles.0.push(request(reply))?;
        let answer = answer.await;
        ticket.answered();
        answer.map_err(|_| gone())?
    }
}

#[async_trait]
impl KeyStore for FileStore {
    fn info(&self) -> StoreInfo {
        self.shared.info.clone()
    }

    fn capabilities(&self) -> Capabilities {
        let strong = Consistency::Strong;
        Capabilities::new(Durability::Host, strong, DeletionGrade::Immediate, Some(strong))
            .with_create_batch_size(CREATED_TOGETHER)
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        key_or_error(self.shared.read(id).await)
    }

    /// Reads up to 256 keys at one moment, and lets other tasks run in between.
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut keys = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_TOGETHER) {
            match self.shared.read_together(ids) {
                Ok(outcomes) => {
                    for (id, outcome) in ids.iter().zip(outcomes) {
                        keys.push(match outcome {
                            Ok(Read::Done(key)) => key_or_error(Ok(key)),
                            // By itself: another process has changed the keyring.
                            Ok(Read::Behind(_)) => self.get_key(id).await,
                            Err(failure) => key_or_error(Err(failure)),
                        });
                    }
                }
                Err(failure) => keys.extend(ids.iter().map(|_| key_or_error(Err(failure.clone())))),
            }
            yield_now().await;
        }
        keys
    }

    /// Sends all deletes at once, so that they share transactions and scrubs.
    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let mut first: HashMap<&KeyId, usize> = HashMap::with_capacity(ids.len());
        let mut distinct = Vec::with_capacity(ids.len());
        let outcome_of = ids.iter().map(|id| {
            *first.entry(id).or_insert_with(|| {
                distinct.push(id);
                distinct.len() - 1
            })
        });
        let outcome_of: Vec<usize> = outcome_of.collect();
        let outcomes = join_all(distinct.into_iter().map(|id| self.delete_key(id))).await;
        outcome_of.into_iter().map(|index| outcomes[index].clone()).collect()
    }

    /// Creates all keys as [`load`](FileStore::load) does, sorted, in transactions of up to 4,096.
    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        match keys {
            [] => Vec::new(),
            [(id, key)] => vec![self.put_key_with(id, key, PutMode::Create).await],
            _ => self.load_each(keys).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = match mode {
            PutMode::Overwrite => Operation::Put,
            PutMode::Create => Operation::Create,
            _ => return Err(Error::new(ErrorKind::Unsupported, Operation::Put, SCHEME)),
        };
        self.shared.is_this_process().map_err(|failure| failure.during(operation))?;
        let held = self.shared.access.held();
        let record = held.keyring.seal(id, key);
        let generation = held.keyring.generation();
        let put = Put { id: id.clone(), key: key.clone(), mode, record, generation };
        match self.write(Write::Put(Box::new(put))).await {
            Ok(Written { existed: true, .. }) if mode == PutMode::Create => {
                Err(Error::new(ErrorKind::AlreadyExists, operation, SCHEME))
            }
            Ok(_) => Ok(()),
            Err(failure) => Err(failure.during(operation)),
        }
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        match self.write(Write::Delete(self.row_key(id))).await {
            Ok(written) if written.existed => Ok(Deletion::new(finality(written))),
            Ok(_) => Err(Error::new(ErrorKind::NotFound, Operation::Delete, SCHEME)),
            Err(failure) => Err(failure.during(Operation::Delete)),
        }
    }

    /// Reads a page of records at a time and opens each one when it is asked for. Nothing is held
    /// between two items, so a listing that is left open is in nobody's way, and other tasks of the
    /// thread run between two pages. An id that exists throughout is listed once. A damaged record,
    /// or a stretch of the file that cannot be read or from which records are missing, is an error
    /// among the items, and the rest is listed.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let start = Listing { page: VecDeque::new(), damage: None, next: Some(Cursor::Start) };
        stream::unfold(start, move |mut listing| async move {
            let item = listing.next(&self.shared).await?;
            Some((item.map_err(|failure| failure.during(Operation::List)), listing))
        })
        .boxed()
    }

    async fn check(&self) -> Result<()> {
        self.shared.check().await.map_err(|failure| failure.during(Operation::Check))
    }

    /// Unlike the default it knows whether an earlier delete of a key that is gone has left bytes
    /// in the file.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let erased = self.write(Write::Delete(self.row_key(id))).await;
        let written = erased.map_err(|failure| failure.during(Operation::Erase))?;
        let verified = matches!(self.shared.read(id).await, Ok(None));
        Ok(Erasure::new(written.existed, finality(written), verified))
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").field("path", &self.shared.location.path).finish_non_exhaustive()
    }
}

/// Runs what takes its time on a thread of its own, so that no executor waits.
pub(crate) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    let (reply, answer) = oneshot::channel();
    threads::spawn(move || drop(reply.send(work())))?;
    answer.await.map_err(|_| FileError::writer_is_gone())?
}

fn finality(written: Written) -> Finality {
    if written.clean { Finality::Immediate } else { Finality::Eventual { within: None } }
}

fn key_or_error(outcome: Result<Option<SecretKey>, FileError>) -> Result<SecretKey> {
    match outcome {
        Ok(Some(key)) => Ok(key),
        Ok(None) => Err(Error::new(ErrorKind::NotFound, Operation::Get, SCHEME)),
        Err(failure) => Err(failure.during(Operation::Get)),
    }
}

/// Lets other tasks of this thread run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A listing in progress: the rest of its page, the damage behind that, and the page after it.
struct Listing {
    page: VecDeque<(RowKey, Found)>,
    damage: Option<FileError>,
    next: Option<Cursor>,
}

impl Listing {
    async fn next(&mut self, shared: &Arc<Shared>) -> Option<Result<KeyId, FileError>> {
        loop {
            while let Some((row, found)) = self.page.pop_front() {
                if let Some(item) = shared.id_of(&row, found).await.transpose() {
                    return Some(item);
                }
            }
            if let Some(damage) = self.damage.take() {
                return Some(Err(damage));
            }
            let cursor = self.next.take()?;
            yield_now().await;
            match shared.page(&cursor) {
                Ok(page) => (self.page, self.damage, self.next) = (page.records.into(), page.damage, page.next),
                Err(failure) => return Some(Err(failure)),
            }
        }
    }
}

//! [`FileStore`]: a key store in one encrypted file.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind, Finality,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo, async_trait,
};
use keystead_sealing::RowKey;

use crate::cells::{Cursor, Found};
use crate::error::{FileError, SCHEME};
use crate::queue::Handles;
use crate::reader::{Read, Shared};
use crate::reply::Reply;
use crate::request::{Request, Written};
use crate::threads::yield_now;
use crate::transaction::{Put, Write};

/// The number of keys that `get_keys` reads in one transaction. Other tasks of the executor's
/// thread run between two transactions.
const READ_TOGETHER: usize = 256;

/// The number of keys at which sorting them by row begins to pay off: few pages are then written in
/// more than one transaction.
const CREATED_TOGETHER: usize = 16 * 1024;

/// A key store in one encrypted file on a local disk.
///
/// Clones are handles of the same store, and any number of processes may have it open. Reads run on
/// the calling thread and take microseconds. Writes run on a thread that belongs to the store, and
/// are on the disk when the call returns. When the last handle is dropped, that thread finishes its
/// work in the background; [`close`](Self::close) waits for it. `Debug` shows the path only.
#[derive(Clone)]
pub struct FileStore {
    pub(crate) shared: Arc<Shared>,
    pub(crate) handles: Arc<Handles>,
    /// The path to which a restore has moved the previous store.
    pub(crate) replaced: Option<Arc<Path>>,
}

/// The progress of [`rotate`](FileStore::rotate) or [`verify`](FileStore::verify).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The number of records that have been processed.
    pub done: u64,
    /// The number of records in the store, as counted at the beginning. It is never less than
    /// `done`, even if records are added meanwhile.
    pub total: u64,
}

impl Progress {
    pub(crate) fn new(done: u64, total: u64) -> Self {
        Self { done, total: total.max(done) }
    }
}

impl FileStore {
    /// Removes the remaining bytes of deleted and overwritten keys from the store's files, and
    /// returns whether the files are clean.
    ///
    /// Every delete and overwrite does this by itself. Call this method after a delete whose
    /// [`Finality`] was `Eventual` because a reader held the log, or after an overwrite, which does
    /// not report its finality. `false` means that a reader has held the log for half a second or
    /// that the disk has failed. The store then tries again in the background.
    ///
    /// # Errors
    /// - [`Unavailable`](ErrorKind::Unavailable) if the file was removed or replaced, or cannot be
    ///   locked.
    /// - [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10 seconds.
    /// - [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn scrub(&self) -> Result<bool> {
        self.ask(Request::Scrub).await.map_err(|failure| failure.during(Operation::Erase))
    }

    /// Closes the store for all its handles, after the writes that are in progress. If the store is
    /// closed already, this does nothing.
    ///
    /// # Errors
    /// - [`Timeout`](ErrorKind::Timeout) if another process holds the store's lock for 10 seconds.
    ///   The store then closes in the background when that process releases the lock.
    /// - [`Other`](ErrorKind::Other) if the writer thread has ended unexpectedly.
    pub async fn close(&self) -> Result<()> {
        match self.ask(Request::Close).await {
            Err(_) if self.shared.is_closed() => Ok(()),
            answer => answer.map_err(|failure| failure.during(Operation::Open)),
        }
    }

    /// Returns the row key of an id, under which the file stores its record.
    ///
    /// [`VerifyReport::damaged`](crate::VerifyReport::damaged) lists row keys. Ids cannot be
    /// computed from them, but with this method you can find out whether an id that you know is
    /// among them.
    pub fn row_key(&self, id: &KeyId) -> RowKey {
        self.shared.access.held().keyring.row_key(id)
    }

    pub(crate) async fn write(&self, write: Write) -> Result<Written, FileError> {
        self.ask(|reply| Request::Write(write, reply)).await
    }

    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, FileError> {
        self.shared.expect_this_process()?;
        let (reply, answer) = Reply::channel();
        // A writer that has closed the store has not run the requests that it did not answer.
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
            .with_batch_size(READ_TOGETHER)
            .with_create_batch_size(CREATED_TOGETHER)
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        key_or_error(self.shared.read(id).await)
    }

    /// Reads up to 256 keys in one transaction. Other tasks run between two transactions.
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut keys = Vec::with_capacity(ids.len());
        for ids in ids.chunks(READ_TOGETHER) {
            match self.shared.read_together(ids) {
                Ok(outcomes) => {
                    for (id, outcome) in ids.iter().zip(outcomes) {
                        keys.push(match outcome {
                            Ok(Read::Done(key)) => key_or_error(Ok(key)),
                            // Another process has changed the keyring, so this key is read again.
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

    /// Deletes all keys concurrently, so that the deletes share transactions and scrubs.
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

    /// Creates the keys as [`load`](FileStore::load) does: sorted, in transactions of up to 4,096
    /// keys.
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
        self.shared.expect_this_process().map_err(|failure| failure.during(operation))?;
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

    /// Lists the ids page by page. Each record is opened when its item is polled.
    ///
    /// The listing holds no lock and no transaction between two items, so an unfinished listing
    /// blocks nobody. Other tasks run between two pages. An id that exists throughout is listed
    /// exactly once. A damaged record yields an error. So does a stretch of the file that cannot be
    /// read, or from which records are missing. The listing then continues with the rest.
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

    /// Deletes the key with a single write. Unlike the default implementation, it also reports
    /// whether an earlier delete of a key that is already gone has left bytes in the file.
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

/// A listing in progress.
struct Listing {
    /// The rest of the current page.
    page: VecDeque<(RowKey, Found)>,
    /// The damage between the current page and the next one.
    damage: Option<FileError>,
    /// The beginning of the next page; `None` after the last one.
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
                Ok(page) => {
                    self.page = page.records.into();
                    self.damage = page.damage;
                    self.next = page.next;
                }
                Err(failure) => return Some(Err(failure)),
            }
        }
    }
}

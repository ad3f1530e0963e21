//! [`SealedStore`]: the [`KeyStore`] over a table.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures_util::lock::Mutex;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Error, ErrorKind, Finality, KeyId, KeyStore, Operation,
    PutMode, Result, SecretKey, StoreInfo, async_trait,
};

use super::access::{Access, Held};
use super::error::Failure;
use super::{RecordTable, SealedOptions, WriteOutcome};
use crate::record::RecordError;
use crate::root::RootSecret;
use crate::row_key::RowKey;

/// The number of rows that a listing reads at once.
const PAGE_LEN: usize = 256;

/// The number of times that a call reads the keyring again because it meets a later epoch. Between
/// any two of these times, a whole rotation must have taken place.
const REFRESHES: u32 = 4;

/// A key store in a table: every key sealed, every id hidden.
///
/// Clones are handles of one store, and any number of processes may open the same table. A handle
/// follows rotations by other processes, as long as they keep its root secret. `Debug` shows the
/// table only.
pub struct SealedStore<T> {
    pub(super) inner: Arc<Inner<T>>,
}

pub(super) struct Inner<T> {
    pub(super) table: T,
    pub(super) access: Access,
    /// Held by the rotation of this process.
    pub(super) rotating: Mutex<()>,
}

impl<T: RecordTable> SealedStore<T> {
    /// Creates a store in an empty table, with the default options.
    ///
    /// # Errors
    /// See [`SealedOptions::create`].
    pub async fn create(table: T, root: RootSecret) -> Result<Self> {
        SealedOptions::new().create(table, root).await
    }

    /// Opens the store of a table, with the default options.
    ///
    /// # Errors
    /// See [`SealedOptions::open`].
    pub async fn open(table: T, root: RootSecret) -> Result<Self> {
        SealedOptions::new().open(table, root).await
    }

    /// Opens the store of a table, or creates it if there is none, with the default options.
    ///
    /// # Errors
    /// See [`SealedOptions::open_or_create`].
    pub async fn open_or_create(table: T, root: RootSecret) -> Result<Self> {
        SealedOptions::new().open_or_create(table, root).await
    }

    pub(super) fn new(table: T, access: Access) -> Self {
        Self { inner: Arc::new(Inner { table, access, rotating: Mutex::new(()) }) }
    }

    /// Returns the table.
    pub fn table(&self) -> &T {
        &self.inner.table
    }

    /// Returns the row of this id: HMAC-SHA-256 of the id under the store's name key, the key in
    /// the keyring that hides ids.
    pub fn row_key(&self, id: &KeyId) -> RowKey {
        self.inner.access.held().keyring.row_key(id)
    }

    pub(super) fn scheme(&self) -> &'static str {
        self.inner.table.info().scheme()
    }

    fn not_found(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::NotFound, operation, self.scheme())
    }

    pub(super) fn error(&self, failure: Failure, operation: Operation) -> Error {
        failure.during(operation, self.scheme())
    }

    /// Reads the keys of distinct ids, at most as many as the table reads at once, in their order.
    async fn read(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut keys: Vec<Result<SecretKey>> = ids.iter().map(|_| Err(self.not_found(Operation::Get))).collect();
        let mut pending: Vec<usize> = (0..ids.len()).collect();
        let mut held = self.inner.access.held();
        for _ in 0..REFRESHES {
            let rows: Vec<RowKey> = pending.iter().map(|index| held.keyring.row_key(&ids[*index])).collect();
            let records = match self.read_rows(&rows).await {
                Ok(records) => records,
                Err(failure) => return fail_all(keys, &pending, &self.error(failure, Operation::Get)),
            };
            let mut of_unknown_epoch = Vec::new();
            for ((index, row), record) in pending.iter().zip(&rows).zip(records) {
                keys[*index] = match record.map(|record| held.keyring.open_as(&ids[*index], row, &record)) {
                    Some(Ok(key)) => Ok(key),
                    Some(Err(RecordError::UnknownEpoch)) => {
                        of_unknown_epoch.push(*index);
                        continue;
                    }
                    Some(Err(RecordError::Damaged)) => Err(self.error(Failure::RecordDamaged, Operation::Get)),
                    None => Err(self.not_found(Operation::Get)),
                };
            }
            pending = of_unknown_epoch;
            if pending.is_empty() {
                return keys;
            }
            // Another process has rotated; the record may also have been sealed again since.
            held = match self.later_keyring(&held, Failure::UnknownEpoch).await {
                Ok(later) => later,
                Err(failure) => return fail_all(keys, &pending, &self.error(failure, Operation::Get)),
            };
        }
        fail_all(keys, &pending, &self.error(Failure::UnknownEpoch, Operation::Get))
    }

    pub(super) async fn read_rows(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let records = self.inner.table.read(rows).await?;
        if records.len() == rows.len() {
            Ok(records)
        } else {
            Err(Failure::TableMisbehaves("the table answered for a different number of rows than it was asked for"))
        }
    }

    /// Reads the keyring after an epoch was met that `held` does not know. Fails with `otherwise` if
    /// the table holds no later keyring.
    async fn later_keyring(&self, held: &Held, otherwise: Failure) -> Result<Arc<Held>, Failure> {
        let later = self.inner.access.refresh_after(&self.inner.table, held).await?;
        if later.item == held.item { Err(otherwise) } else { Ok(later) }
    }

    async fn write(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<WriteOutcome, Failure> {
        let Inner { table, access, .. } = &*self.inner;
        let mut held = access.for_writing(table).await?;
        for _ in 0..REFRESHES {
            let record = held.keyring.seal(id, key);
            let (epoch, _) = held.keyring.current_epoch();
            let written = match mode {
                PutMode::Create => table.insert(&record.row, &record.bytes, epoch).await,
                _ => table.upsert(&record.row, &record.bytes, epoch).await,
            };
            match written {
                Ok(WriteOutcome::Superseded) => held = self.later_keyring(&held, Failure::LaterEpochInRow).await?,
                Ok(outcome) => return Ok(outcome),
                // The answer was lost. No other write has the same bytes.
                Err(e) if e.effect() == Effect::Unknown => {
                    return match self.read_rows(&[record.row]).await.as_deref() {
                        Ok([Some(stored)]) if *stored == record.bytes => Ok(WriteOutcome::Stored),
                        _ => Err(e.into()),
                    };
                }
                Err(e) => return Err(e.into()),
            }
        }
        Err(Failure::KeyringContended)
    }

    async fn delete_rows(&self, rows: &[RowKey]) -> Result<Vec<bool>, Failure> {
        let existed = self.inner.table.delete(rows).await?;
        if existed.len() == rows.len() {
            Ok(existed)
        } else {
            Err(Failure::TableMisbehaves("the table answered for a different number of rows than it was asked for"))
        }
    }

    fn batch_size(&self) -> usize {
        self.inner.table.batch_size().max(1)
    }
}

/// Replaces the outcomes at these indices with one error.
fn fail_all<T>(mut outcomes: Vec<Result<T>>, indices: &[usize], error: &Error) -> Vec<Result<T>> {
    for index in indices {
        outcomes[*index] = Err(error.clone());
    }
    outcomes
}

/// The distinct ids of a batch, and the index of each id of the batch among them.
fn distinct(ids: &[KeyId]) -> (Vec<KeyId>, Vec<usize>) {
    let mut distinct = Vec::with_capacity(ids.len());
    let mut first = HashMap::with_capacity(ids.len());
    let index_of = |id| {
        *first.entry(id).or_insert_with(|| {
            distinct.push(KeyId::clone(id));
            distinct.len() - 1
        })
    };
    let indices = ids.iter().map(index_of).collect();
    (distinct, indices)
}

#[async_trait]
impl<T: RecordTable> KeyStore for SealedStore<T> {
    fn info(&self) -> StoreInfo {
        self.inner.table.info().with_store_id(self.inner.access.held().store_id().to_string())
    }

    fn capabilities(&self) -> Capabilities {
        let table = &self.inner.table;
        Capabilities::new(table.durability(), Consistency::Strong, table.deletion(), Some(Consistency::Strong))
            .with_batch_size(self.batch_size())
            .with_delete_batch_size(self.batch_size())
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let mut keys = self.read(std::slice::from_ref(id)).await;
        keys.pop().unwrap_or_else(|| Err(self.not_found(Operation::Get)))
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let (distinct, indices) = distinct(ids);
        let mut keys = Vec::with_capacity(distinct.len());
        for chunk in distinct.chunks(self.batch_size()) {
            keys.extend(self.read(chunk).await);
        }
        indices.into_iter().map(|index| keys[index].clone()).collect()
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = match mode {
            PutMode::Overwrite => Operation::Put,
            PutMode::Create => Operation::Create,
            _ => return Err(Error::new(ErrorKind::Unsupported, Operation::Put, self.scheme())),
        };
        match self.write(id, key, mode).await {
            Ok(WriteOutcome::Exists) => Err(Error::new(ErrorKind::AlreadyExists, operation, self.scheme())),
            Ok(_) => Ok(()),
            Err(failure) => Err(self.error(failure, operation)),
        }
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        match self.delete_rows(&[self.row_key(id)]).await {
            Ok(existed) if existed.contains(&true) => {
                Ok(Deletion::new(Finality::of_grade(self.inner.table.deletion())))
            }
            Ok(_) => Err(self.not_found(Operation::Delete)),
            Err(failure) => Err(self.error(failure, Operation::Delete)),
        }
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let (distinct, indices) = distinct(ids);
        let mut deletions = Vec::with_capacity(distinct.len());
        for chunk in distinct.chunks(self.batch_size()) {
            let rows: Vec<RowKey> = chunk.iter().map(|id| self.row_key(id)).collect();
            match self.delete_rows(&rows).await {
                Ok(existed) => deletions.extend(existed.into_iter().map(|existed| {
                    let deletion = Deletion::new(Finality::of_grade(self.inner.table.deletion()));
                    if existed { Ok(deletion) } else { Err(self.not_found(Operation::Delete)) }
                })),
                Err(failure) => {
                    let error = self.error(failure, Operation::Delete);
                    deletions.extend(rows.iter().map(|_| Err(error.clone())));
                }
            }
        }
        indices.into_iter().map(|index| deletions[index].clone()).collect()
    }

    /// Reads a page of rows at a time. An id that exists throughout is listed once, because a
    /// rotation leaves every record in its row. A damaged record is an error among the ids, and the
    /// rest is listed.
    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let start = Some(Pages::new());
        let items = stream::unfold(start, move |pages| async move {
            let mut pages = pages?;
            match pages.next(self).await {
                Ok(Some(item)) => Some((item.map_err(|failure| self.error(failure, Operation::List)), Some(pages))),
                Ok(None) => None,
                Err(failure) => Some((Err(self.error(failure, Operation::List)), None)),
            }
        });
        items.boxed()
    }

    /// Reads the keyring, which proves that the table can be reached and that the root secret is
    /// still the store's.
    async fn check(&self) -> Result<()> {
        let refreshed = self.inner.access.refresh(&self.inner.table).await;
        refreshed.map(drop).map_err(|failure| self.error(failure, Operation::Check))
    }
}

/// A walk through all rows in ascending order.
pub(super) struct Pages {
    page: std::vec::IntoIter<(RowKey, Vec<u8>)>,
    after: Option<RowKey>,
    is_last: bool,
}

impl Pages {
    pub(super) fn new() -> Self {
        Self { page: Vec::new().into_iter(), after: None, is_last: false }
    }

    /// Returns the next row; `None` at the end.
    pub(super) async fn next_row(&mut self, table: &dyn RecordTable) -> Result<Option<(RowKey, Vec<u8>)>, Failure> {
        loop {
            if let Some((row, record)) = self.page.next() {
                // A table that goes back would be read for ever.
                if self.after.is_some_and(|after| row <= after) {
                    return Err(Failure::TableMisbehaves("the table returned rows that are not in ascending order"));
                }
                self.after = Some(row);
                return Ok(Some((row, record)));
            }
            if self.is_last {
                return Ok(None);
            }
            let page = table.page(self.after.as_ref(), PAGE_LEN).await?;
            self.is_last = page.is_empty();
            self.page = page.into_iter();
        }
    }

    /// Returns the id of the next record; `None` at the end. The inner failure concerns that record
    /// alone.
    async fn next<T: RecordTable>(
        &mut self,
        store: &SealedStore<T>,
    ) -> Result<Option<Result<KeyId, Failure>>, Failure> {
        while let Some((row, record)) = self.next_row(&store.inner.table).await? {
            if let Some(opened) = store.open_row(&row, record).await? {
                return Ok(Some(opened.map(|(id, _)| id)));
            }
        }
        Ok(None)
    }
}

impl<T: RecordTable> SealedStore<T> {
    /// Opens a record that was found in this row; `None` if it was deleted meanwhile. The inner
    /// failure concerns this record alone.
    pub(super) async fn open_row(
        &self,
        row: &RowKey,
        mut record: Vec<u8>,
    ) -> Result<Option<Result<(KeyId, SecretKey), Failure>>, Failure> {
        let mut held = self.inner.access.held();
        for _ in 0..REFRESHES {
            match held.keyring.open(row, &record) {
                Ok(opened) => return Ok(Some(Ok(opened))),
                Err(RecordError::Damaged) => return Ok(Some(Err(Failure::RecordDamaged))),
                Err(RecordError::UnknownEpoch) => {}
            }
            held = match self.later_keyring(&held, Failure::UnknownEpoch).await {
                Ok(later) => later,
                // Another task may have adopted the later keyring since the record was read.
                Err(Failure::UnknownEpoch) => held,
                Err(failure) => return Err(failure),
            };
            match self.read_rows(&[*row]).await?.pop().flatten() {
                Some(found) if found == record && held.keyring.open(row, &found) == Err(RecordError::UnknownEpoch) => {
                    return Ok(Some(Err(Failure::UnknownEpoch)));
                }
                Some(found) => record = found,
                None => return Ok(None),
            }
        }
        Ok(Some(Err(Failure::UnknownEpoch)))
    }
}

impl<T> Clone for SealedStore<T> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl<T: fmt::Debug> fmt::Debug for SealedStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedStore").field("table", &self.inner.table).finish_non_exhaustive()
    }
}

//! [`MemoryTable`]: a table in memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keystead_core::{DeletionGrade, Durability, Result, StoreInfo, async_trait};

use super::item::{KeyringItem, StoreId};
use super::{RecordTable, WriteOutcome};
use crate::row_key::RowKey;

/// A table in the memory of this process: for tests, and to read as an example. Clones share their
/// rows.
#[derive(Clone, Debug, Default)]
pub struct MemoryTable(Arc<Mutex<Rows>>);

#[derive(Debug, Default)]
struct Rows {
    store_id: Option<StoreId>,
    keyring: Option<KeyringItem>,
    records: BTreeMap<RowKey, Vec<u8>>,
}

impl Rows {
    /// Reports whether records of this epoch may still be written.
    fn is_writable(&self, epoch: u32) -> bool {
        self.keyring.as_ref().is_some_and(|keyring| keyring.is_writable(epoch))
    }
}

impl MemoryTable {
    /// Creates an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the epoch of a record, from its first bytes, which are not encrypted.
fn epoch_of(record: &[u8]) -> Option<u32> {
    record.get(1..5)?.try_into().ok().map(u32::from_be_bytes)
}

#[async_trait]
impl RecordTable for MemoryTable {
    fn info(&self) -> StoreInfo {
        StoreInfo::new("memory-table", "this process")
    }

    fn durability(&self) -> Durability {
        Durability::Process
    }

    fn deletion(&self) -> DeletionGrade {
        DeletionGrade::Immediate
    }

    fn late_write_bound(&self) -> Duration {
        // A call runs to its end or not at all.
        Duration::ZERO
    }

    fn batch_size(&self) -> usize {
        1_000
    }

    async fn store_id(&self) -> Result<Option<StoreId>> {
        Ok(self.rows().store_id)
    }

    async fn keyring(&self) -> Result<Option<KeyringItem>> {
        Ok(self.rows().keyring.clone())
    }

    async fn create(&self, store_id: &StoreId, keyring: &KeyringItem) -> Result<bool> {
        let mut rows = self.rows();
        if rows.store_id.is_some() {
            return Ok(false);
        }
        rows.store_id = Some(*store_id);
        rows.keyring = Some(keyring.clone());
        Ok(true)
    }

    async fn replace_keyring(&self, expected: &KeyringItem, new: &KeyringItem) -> Result<bool> {
        let mut rows = self.rows();
        let is_expected = rows.keyring.as_ref() == Some(expected);
        if is_expected {
            rows.keyring = Some(new.clone());
        }
        Ok(is_expected)
    }

    async fn read(&self, keys: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        let rows = self.rows();
        Ok(keys.iter().map(|row| rows.records.get(row).cloned()).collect())
    }

    async fn insert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        let mut rows = self.rows();
        if !rows.is_writable(epoch) {
            return Ok(WriteOutcome::Superseded);
        }
        if rows.records.contains_key(row) {
            return Ok(WriteOutcome::Exists);
        }
        rows.records.insert(*row, record.to_vec());
        Ok(WriteOutcome::Stored)
    }

    async fn upsert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        let mut rows = self.rows();
        let is_later = rows.records.get(row).and_then(|stored| epoch_of(stored)).is_some_and(|stored| stored > epoch);
        if is_later || !rows.is_writable(epoch) {
            return Ok(WriteOutcome::Superseded);
        }
        rows.records.insert(*row, record.to_vec());
        Ok(WriteOutcome::Stored)
    }

    async fn replace_if(&self, row: &RowKey, expected: &[u8], new: &[u8]) -> Result<bool> {
        let mut rows = self.rows();
        match rows.records.get_mut(row) {
            Some(stored) if stored == expected => {
                *stored = new.to_vec();
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    async fn delete_if(&self, row: &RowKey, expected: &[u8]) -> Result<bool> {
        let mut rows = self.rows();
        let is_expected = rows.records.get(row).is_some_and(|stored| stored == expected);
        if is_expected {
            rows.records.remove(row);
        }
        Ok(is_expected)
    }

    async fn delete(&self, keys: &[RowKey]) -> Result<Vec<bool>> {
        let mut rows = self.rows();
        Ok(keys.iter().map(|row| rows.records.remove(row).is_some()).collect())
    }

    async fn page(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Vec<u8>)>> {
        let rows = self.rows();
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = rows.records.range::<RowKey, _>((start, Bound::Unbounded)).take(limit);
        Ok(page.map(|(row, record)| (*row, record.clone())).collect())
    }
}

//! [`PostgresTable`]: the rows of a store in PostgreSQL.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use keystead_core::{DeletionGrade, Durability, ErrorKind, Result, StoreInfo};
use keystead_sealing::RowKey;
use keystead_sealing::table::{KeyringItem, RecordTable, StoreId, WriteOutcome};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql};

use crate::error::{self, SCHEME, Statement};
use crate::pool::Connections;
use crate::sql::Statements;

/// The time for which a rotation waits for transactions that may still write.
const LATE_WRITES_LIMIT: Duration = Duration::from_secs(60);

/// The pause between two searches for such transactions.
const LATE_WRITES_PAUSE: Duration = Duration::from_millis(50);

/// The table of a [`PostgresStore`](crate::PostgresStore).
#[derive(Clone)]
pub struct PostgresTable {
    pub(crate) connections: Connections,
    pub(crate) statements: Arc<Statements>,
    pub(crate) location: Arc<str>,
    pub(crate) durability: Durability,
}

impl fmt::Debug for PostgresTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresTable").field("location", &self.location).finish_non_exhaustive()
    }
}

impl PostgresTable {
    /// Runs a statement that gives exactly one row, whose first column says whether the session may
    /// be used for it.
    async fn write(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Row> {
        let mut rows = self.connections.query(sql, parameters, Statement::Write).await?;
        // The condition of an insert or upsert comes from the row of the keyring.
        let row =
            rows.pop().ok_or_else(|| error::error(ErrorKind::KeyUnavailable, "the keyring of the store is gone"))?;
        if column::<bool>(&row, 0)? { Ok(row) } else { Err(error::not_durable()) }
    }

    /// Runs a statement whose first column says whether the server is a standby.
    async fn rows(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>> {
        let rows = self.connections.query(sql, parameters, Statement::Read).await?;
        let first = rows.first().ok_or_else(error::foreign_row)?;
        if column::<bool>(first, 0)? { Err(error::standby()) } else { Ok(rows) }
    }

    async fn insert_or_upsert(&self, sql: &str, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        let written = self.write(sql, &[&row.as_bytes().as_slice(), &record, &i64::from(epoch)]).await?;
        let is_writable = column::<bool>(&written, 1)?;
        let is_stored = column::<bool>(&written, 2)?;
        Ok(match (is_stored, is_writable) {
            (true, _) => WriteOutcome::Stored,
            (false, true) => WriteOutcome::Exists,
            (false, false) => WriteOutcome::Superseded,
        })
    }

    /// Returns the transactions that may write records, and the server processes that run them.
    async fn writers(&self) -> Result<Vec<(String, Option<i32>)>> {
        let rows = self.rows(&self.statements.writers, &[]).await?;
        let writer = |row| match column::<Option<String>>(row, 1)? {
            Some(transaction) => Ok(Some((transaction, column(row, 2)?))),
            None => Ok(None),
        };
        rows.iter().filter_map(|row| writer(row).transpose()).collect()
    }
}

fn column<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|_| error::foreign_row())
}

fn row_key(bytes: &[u8]) -> Result<RowKey> {
    bytes.try_into().map(RowKey::from_bytes).map_err(|_| error::foreign_row())
}

/// Returns the generation of a keyring as a `bigint` of PostgreSQL, whose limit it never nears.
fn signed(generation: u64) -> i64 {
    i64::try_from(generation).unwrap_or(i64::MAX)
}

#[async_trait]
impl RecordTable for PostgresTable {
    fn info(&self) -> StoreInfo {
        StoreInfo::new(SCHEME, &*self.location)
    }

    fn durability(&self) -> Durability {
        self.durability
    }

    /// Dead rows stay in the files until a vacuum, and in the write-ahead log, its archive, replicas
    /// and base backups for an unknown time.
    fn deletion(&self) -> DeletionGrade {
        DeletionGrade::Eventual { within: None }
    }

    /// [`wait_for_late_writes`](RecordTable::wait_for_late_writes) waits for the transactions
    /// themselves. A statement that arrives later looks at the keyring later.
    fn late_write_bound(&self) -> Duration {
        Duration::ZERO
    }

    fn batch_size(&self) -> usize {
        1_000
    }

    async fn store_id(&self) -> Result<Option<StoreId>> {
        let rows = self.rows(&self.statements.store_id, &[]).await?;
        let row = rows.first().ok_or_else(error::foreign_row)?;
        let Some(bytes) = column::<Option<&[u8]>>(row, 1)? else { return Ok(None) };
        let bytes = bytes.try_into().map_err(|_| error::foreign_row())?;
        Ok(Some(StoreId::from_bytes(bytes)))
    }

    async fn keyring(&self) -> Result<Option<KeyringItem>> {
        let rows = self.rows(&self.statements.keyring, &[]).await?;
        let row = rows.first().ok_or_else(error::foreign_row)?;
        let Some(generation) = column::<Option<i64>>(row, 1)? else { return Ok(None) };
        let generation = u64::try_from(generation).map_err(|_| error::foreign_row())?;
        let oldest_writable = u32::try_from(column::<i64>(row, 2)?).map_err(|_| error::foreign_row())?;
        let current = u32::try_from(column::<i64>(row, 3)?).map_err(|_| error::foreign_row())?;
        Ok(Some(KeyringItem::new(generation, oldest_writable, current, column::<&[u8]>(row, 4)?)))
    }

    async fn create(&self, store_id: &StoreId, keyring: &KeyringItem) -> Result<bool> {
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &store_id.as_bytes().as_slice(),
            &signed(keyring.generation),
            &i64::from(keyring.oldest_writable_epoch),
            &i64::from(keyring.current_epoch),
            &keyring.bytes.as_slice(),
        ];
        column(&self.write(&self.statements.create, parameters).await?, 1)
    }

    async fn replace_keyring(&self, expected: &KeyringItem, new: &KeyringItem) -> Result<bool> {
        let parameters: &[&(dyn ToSql + Sync)] = &[
            &signed(expected.generation),
            &signed(new.generation),
            &i64::from(new.oldest_writable_epoch),
            &i64::from(new.current_epoch),
            &new.bytes.as_slice(),
            &expected.bytes.as_slice(),
        ];
        column(&self.write(&self.statements.replace_keyring, parameters).await?, 1)
    }

    async fn read(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        if let [row] = rows {
            let found = self.rows(&self.statements.read_one, &[&row.as_bytes().as_slice()]).await?;
            let found = found.first().ok_or_else(error::foreign_row)?;
            return Ok(vec![column(found, 1)?]);
        }
        let keys: Vec<&[u8]> = rows.iter().map(|row| row.as_bytes().as_slice()).collect();
        let found = self.rows(&self.statements.read, &[&keys]).await?;
        let mut records = std::collections::HashMap::with_capacity(found.len());
        for row in &found {
            if let Some(key) = column::<Option<&[u8]>>(row, 1)? {
                records.insert(row_key(key)?, column::<Vec<u8>>(row, 2)?);
            }
        }
        Ok(rows.iter().map(|row| records.get(row).cloned()).collect())
    }

    async fn insert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        self.insert_or_upsert(&self.statements.insert, row, record, epoch).await
    }

    async fn upsert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        // `Exists` means here that the row holds a record of a later epoch.
        match self.insert_or_upsert(&self.statements.upsert, row, record, epoch).await? {
            WriteOutcome::Exists => Ok(WriteOutcome::Superseded),
            outcome => Ok(outcome),
        }
    }

    async fn replace_if(&self, row: &RowKey, expected: &[u8], new: &[u8]) -> Result<bool> {
        column(&self.write(&self.statements.replace_if, &[&row.as_bytes().as_slice(), &expected, &new]).await?, 1)
    }

    async fn delete_if(&self, row: &RowKey, expected: &[u8]) -> Result<bool> {
        column(&self.write(&self.statements.delete_if, &[&row.as_bytes().as_slice(), &expected]).await?, 1)
    }

    async fn delete(&self, rows: &[RowKey]) -> Result<Vec<bool>> {
        let keys: Vec<&[u8]> = rows.iter().map(|row| row.as_bytes().as_slice()).collect();
        let answer = self.write(&self.statements.delete, &[&keys]).await?;
        let deleted: Vec<&[u8]> = column::<Option<Vec<&[u8]>>>(&answer, 1)?.unwrap_or_default();
        let deleted: std::collections::HashSet<&[u8]> = deleted.into_iter().collect();
        Ok(keys.iter().map(|key| deleted.contains(key)).collect())
    }

    async fn page(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Vec<u8>)>> {
        let after = after.map_or([].as_slice(), |row| row.as_bytes().as_slice());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.rows(&self.statements.page, &[&after, &limit]).await?;
        let mut page = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(key) = column::<Option<&[u8]>>(row, 1)? {
                page.push((row_key(key)?, column(row, 2)?));
            }
        }
        Ok(page)
    }

    /// Waits for the transactions that hold a writer's lock on the table of records now. A statement
    /// takes that lock before its snapshot, so whoever takes it later sees the present keyring.
    async fn wait_for_late_writes(&self) -> Result<()> {
        let start = Instant::now();
        let mut waiting_for = self.writers().await?;
        while !waiting_for.is_empty() {
            if start.elapsed() > LATE_WRITES_LIMIT {
                let pids: Vec<String> =
                    waiting_for.iter().filter_map(|(_, pid)| *pid).map(|pid| pid.to_string()).collect();
                let text = format!(
                    "a transaction that may have written keys does not end (process {} of the server): end it, and \
                     rotate again",
                    pids.join(", ")
                );
                return Err(error::error(ErrorKind::Timeout, "").with_source(text));
            }
            tokio::time::sleep(LATE_WRITES_PAUSE).await;
            let writers = self.writers().await?;
            waiting_for.retain(|(transaction, _)| writers.iter().any(|(still, _)| still == transaction));
        }
        Ok(())
    }
}

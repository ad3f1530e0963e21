//! A table that fails on demand, as a database behind a network does.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_conformance::Fault;
use keystead_core::{DeletionGrade, Durability, Effect, Error, ErrorKind, Operation, Result, StoreInfo, async_trait};
use keystead_sealing::RowKey;
use keystead_sealing::table::{KeyringItem, MemoryTable, RecordTable, StoreId, WriteOutcome};

/// The time after which the table's client gives up.
pub(crate) const CLIENT_TIMEOUT: Duration = Duration::from_millis(200);

const SCHEME: &str = "memory-table";

/// A memory table and the faults that its next calls meet.
#[derive(Clone, Default)]
pub(crate) struct FaultyTable {
    pub(crate) rows: MemoryTable,
    faults: Arc<Mutex<Vec<Injected>>>,
    hook: Option<Hook>,
    has_lost_keyring: bool,
}

/// Runs before each call, of which it gets the operation and whether it writes; its error is the
/// outcome of the call.
type Hook = Arc<dyn Fn(Operation, bool) -> BoxFuture<'static, Result<()>> + Send + Sync>;

impl std::fmt::Debug for FaultyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FaultyTable")
    }
}

#[derive(Debug)]
struct Injected {
    operation: Option<Operation>,
    fault: Fault,
    left: u32,
}

impl FaultyTable {
    pub(crate) fn inject(&self, operation: Option<Operation>, fault: Fault, requests: u32) {
        self.faults().push(Injected { operation, fault, left: requests });
    }

    pub(crate) fn clear(&self) {
        self.faults().clear();
    }

    /// The same table as a client sees it whose calls this hook precedes.
    pub(crate) fn with_hook(
        &self,
        hook: impl Fn(Operation, bool) -> BoxFuture<'static, Result<()>> + Send + Sync + 'static,
    ) -> Self {
        Self { hook: Some(Arc::new(hook)), ..self.clone() }
    }

    /// The same table after its keyring was lost.
    pub(crate) fn without_keyring(&self) -> Self {
        Self { has_lost_keyring: true, ..self.clone() }
    }

    fn faults(&self) -> std::sync::MutexGuard<'_, Vec<Injected>> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self, operation: Operation) -> Option<Fault> {
        let mut faults = self.faults();
        let meets = |injected: &&mut Injected| injected.left > 0 && injected.operation.is_none_or(|of| of == operation);
        let injected = faults.iter_mut().find(meets)?;
        injected.left -= 1;
        Some(injected.fault.clone())
    }

    /// Runs a call of the table under the fault that is next for its operation.
    async fn call<T>(
        &self,
        operation: Operation,
        is_write: bool,
        run: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        if let Some(hook) = &self.hook {
            hook(operation, is_write).await?;
        }
        let Some(fault) = self.next_fault(operation) else { return run.await };
        let error = |kind| Error::new(kind, operation, SCHEME);
        let unknown = if is_write { Effect::Unknown } else { Effect::NotApplied };
        match fault {
            Fault::Throttled { retry_after: Some(pause) } => Err(error(ErrorKind::Throttled).with_retry_after(pause)),
            Fault::Throttled { retry_after: None } => Err(error(ErrorKind::Throttled)),
            Fault::Denied => Err(error(ErrorKind::PermissionDenied)),
            Fault::ExpiredCredentials => Err(error(ErrorKind::Unauthenticated)),
            Fault::ServerError | Fault::ResetBeforeSend => Err(error(ErrorKind::Unavailable)),
            Fault::ResetAfterApply => {
                run.await?;
                Err(error(ErrorKind::Unavailable).with_effect(unknown))
            }
            Fault::Garbage | Fault::Truncated => {
                run.await?;
                Err(error(ErrorKind::Corrupt).with_effect(unknown))
            }
            Fault::Silent => {
                tokio::time::sleep(CLIENT_TIMEOUT).await;
                Err(error(ErrorKind::Timeout).with_effect(unknown))
            }
            Fault::SlowBody => {
                tokio::time::sleep(CLIENT_TIMEOUT / 2).await;
                run.await
            }
            fault => unreachable!("{fault:?} is not injected"),
        }
    }
}

#[async_trait]
impl RecordTable for FaultyTable {
    fn info(&self) -> StoreInfo {
        self.rows.info()
    }

    fn durability(&self) -> Durability {
        self.rows.durability()
    }

    fn deletion(&self) -> DeletionGrade {
        self.rows.deletion()
    }

    fn late_write_bound(&self) -> Duration {
        self.rows.late_write_bound()
    }

    fn batch_size(&self) -> usize {
        // So that batches of the suite are cut.
        7
    }

    async fn store_id(&self) -> Result<Option<StoreId>> {
        self.rows.store_id().await
    }

    async fn keyring(&self) -> Result<Option<KeyringItem>> {
        if self.has_lost_keyring {
            return Ok(None);
        }
        self.call(Operation::Check, false, self.rows.keyring()).await
    }

    async fn create(&self, store_id: &StoreId, keyring: &KeyringItem) -> Result<bool> {
        self.call(Operation::Open, true, self.rows.create(store_id, keyring)).await
    }

    async fn replace_keyring(&self, expected: &KeyringItem, new: &KeyringItem) -> Result<bool> {
        self.call(Operation::Rotate, true, self.rows.replace_keyring(expected, new)).await
    }

    async fn read(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>> {
        self.call(Operation::Get, false, self.rows.read(rows)).await
    }

    async fn insert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        self.call(Operation::Create, true, self.rows.insert(row, record, epoch)).await
    }

    async fn upsert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome> {
        self.call(Operation::Put, true, self.rows.upsert(row, record, epoch)).await
    }

    async fn replace_if(&self, row: &RowKey, expected: &[u8], new: &[u8]) -> Result<bool> {
        self.call(Operation::Rotate, true, self.rows.replace_if(row, expected, new)).await
    }

    async fn delete_if(&self, row: &RowKey, expected: &[u8]) -> Result<bool> {
        self.call(Operation::Delete, true, self.rows.delete_if(row, expected)).await
    }

    async fn delete(&self, rows: &[RowKey]) -> Result<Vec<bool>> {
        self.call(Operation::Delete, true, self.rows.delete(rows)).await
    }

    async fn page(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Vec<u8>)>> {
        // So that listings of the suite take several pages.
        self.call(Operation::List, false, self.rows.page(after, limit.min(5))).await
    }
}

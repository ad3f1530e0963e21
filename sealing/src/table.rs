//! Sealed tables: a complete key store over any engine that can hold rows of bytes.
//!
//! An engine implements [`RecordTable`]: about ten operations on rows whose content it cannot read.
//! [`SealedStore`] is the [`KeyStore`](keystead_core::KeyStore) over it: it hides ids behind row
//! keys, seals the keys, follows rotations by other processes, and keeps each promise in the same
//! way for every engine. [`MemoryTable`] is the smallest table, for tests and as an example.
//!
//! ```
//! use keystead_core::{KeyId, KeyStoreExt};
//! use keystead_sealing::RootSecret;
//! use keystead_sealing::table::{MemoryTable, SealedStore};
//!
//! # async fn example() -> keystead_core::Result<()> {
//! let table = MemoryTable::new();
//! let store = SealedStore::open_or_create(table.clone(), RootSecret::from_bytes([7; 32])).await?;
//! let key = store.get_or_create_key(&KeyId::new("alice").expect("a valid id")).await?;
//!
//! // Another process opens the same table with the same root secret.
//! let other = SealedStore::open(table, RootSecret::from_bytes([7; 32])).await?;
//! assert_eq!(other.get_or_create_key(&KeyId::new("alice").expect("a valid id")).await?, key);
//! # Ok(())
//! # }
//! # futures_executor::block_on(example()).unwrap();
//! ```
//!
//! FORMAT.md, "Tables", is the specification of what a table holds.

use std::fmt;
use std::time::Duration;

use keystead_core::{DeletionGrade, Durability, Result, StoreInfo, async_trait};

use crate::row_key::RowKey;

mod access;
mod error;
mod item;
mod memory;
mod open;
mod rotate;
mod store;
mod threads;
mod timer;
mod verify;

pub use item::{KeyringItem, StoreId};
pub use memory::MemoryTable;
pub use open::SealedOptions;
pub use rotate::RotateProgress;
pub use store::SealedStore;
pub use timer::{SystemTimer, Timer};
pub use verify::{VerifyProgress, VerifyReport};

/// The result of [`RecordTable::insert`] and [`RecordTable::upsert`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteOutcome {
    /// The record is in the row, as durable as the table promises.
    Stored,
    /// There was a record in the row already, and it was left as it is.
    Exists,
    /// The epoch of the record is too old, and nothing was written.
    Superseded,
}

/// The engine behind a [`SealedStore`]: rows of sealed records, the id of the store and its sealed
/// keyring.
///
/// A table never sees a user's id, a key or the root secret. What it must guarantee:
///
/// - **Strong consistency.** A read sees every write that was acknowledged before it began, through
///   any connection. A table that replicates reads from the primary.
/// - **Conditions are checked by the engine**, in the same atomic step as the write that depends on
///   them. A check in the client followed by a write loses keys.
/// - **Every call ends.** The table sets its own timeouts.
/// - **Errors are accurate.** [`ErrorKind::NotFound`](keystead_core::ErrorKind::NotFound) is never
///   used: absence is a value here. A write whose answer was lost fails with
///   [`Effect::Unknown`](keystead_core::Effect::Unknown), and a write that certainly had no effect
///   with [`Effect::NotApplied`](keystead_core::Effect::NotApplied). The store replaces the
///   operation of each error with its own.
///
/// # Errors
/// Every method fails with the kinds of [`ErrorKind`](keystead_core::ErrorKind) that fit what the
/// engine reported, most often `Unavailable`, `Timeout`, `Throttled`, `PermissionDenied`,
/// `Unauthenticated`, `QuotaExceeded` or `Config`.
#[async_trait]
pub trait RecordTable: fmt::Debug + Send + Sync + 'static {
    /// Returns the scheme and the location of the table, for people. The store adds its own id.
    fn info(&self) -> StoreInfo;

    /// Returns the failure that an acknowledged write survives.
    fn durability(&self) -> Durability;

    /// Returns how final a deletion is in the engine's own files. Most databases keep deleted rows
    /// in dead tuples or logs for an unknown time: `Eventual { within: None }`.
    fn deletion(&self) -> DeletionGrade;

    /// Returns the longest time between the moment at which a write is sent and the last moment at
    /// which the engine may still apply it, for example the lifetime of a signed request. A
    /// rotation waits this long.
    ///
    /// Zero is right only where a write cannot be applied after its call has ended, or where
    /// [`wait_for_late_writes`](Self::wait_for_late_writes) waits for the writes themselves.
    fn late_write_bound(&self) -> Duration;

    /// Returns the largest number of rows that one call of [`read`](Self::read) or
    /// [`delete`](Self::delete) may name; at least 1.
    fn batch_size(&self) -> usize {
        1
    }

    /// Returns the id of the store, or `None` if no store was created in this table.
    async fn store_id(&self) -> Result<Option<StoreId>>;

    /// Returns the keyring, or `None` if there is none.
    async fn keyring(&self) -> Result<Option<KeyringItem>>;

    /// Inserts the store id and then the keyring, if the table holds no store id. Returns whether it
    /// did; if not, nothing was changed.
    ///
    /// An engine with transactions does this in one. Without them, a crash between the two steps
    /// leaves a table that no store can be created in.
    async fn create(&self, store_id: &StoreId, keyring: &KeyringItem) -> Result<bool>;

    /// Replaces the stored keyring with `new` if it is exactly `expected`. Returns whether it did.
    ///
    /// The engine compares not only the generation but also the bytes: after a restore from a
    /// backup, another keyring may have the same generation.
    async fn replace_keyring(&self, expected: &KeyringItem, new: &KeyringItem) -> Result<bool>;

    /// Returns the records of these rows, in their order; `None` for a row without a record.
    async fn read(&self, rows: &[RowKey]) -> Result<Vec<Option<Vec<u8>>>>;

    /// Inserts a record of this epoch into an empty row.
    ///
    /// The stored keyring names the two epochs in which records may be written. The engine checks,
    /// in the same step, that the epoch is one of them ([`KeyringItem::is_writable`]); if not, the
    /// outcome is [`Superseded`](WriteOutcome::Superseded). An engine that keeps the keyring
    /// elsewhere and cannot check the epoch relies on the lease ([`SealedOptions::lease`]) and on
    /// [`late_write_bound`](Self::late_write_bound).
    async fn insert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome>;

    /// Writes a record of this epoch into a row, whether or not the row already holds a record.
    ///
    /// The engine checks the same as for [`insert`](Self::insert), and that the stored record, if
    /// there is one, is of the same epoch or of an earlier one. The epoch of a record is in its
    /// bytes 1 to 4, big-endian.
    async fn upsert(&self, row: &RowKey, record: &[u8], epoch: u32) -> Result<WriteOutcome>;

    /// Replaces a record with `new` if its bytes are exactly `expected`. Returns whether it did.
    async fn replace_if(&self, row: &RowKey, expected: &[u8], new: &[u8]) -> Result<bool>;

    /// Deletes a record if its bytes are exactly `expected`. Returns whether it did.
    async fn delete_if(&self, row: &RowKey, expected: &[u8]) -> Result<bool>;

    /// Deletes the records of these rows, and returns for each whether there was one.
    async fn delete(&self, rows: &[RowKey]) -> Result<Vec<bool>>;

    /// Returns up to `limit` rows and their records in ascending order, beginning with the first
    /// row after `after`; an empty page at the end. Rows whose key is not 32 bytes long are left
    /// out.
    async fn page(&self, after: Option<&RowKey>, limit: usize) -> Result<Vec<(RowKey, Vec<u8>)>>;

    /// Waits until no write that was sent before this call can be applied any longer. A rotation
    /// calls this after it has waited for [`late_write_bound`](Self::late_write_bound).
    ///
    /// The default does nothing. An engine in which a transaction may stay open for longer than its
    /// client waits overrides it.
    ///
    /// # Errors
    /// [`Timeout`](keystead_core::ErrorKind::Timeout) if such writes do not end in time; the source
    /// says which connection holds them. The rotation can be resumed.
    async fn wait_for_late_writes(&self) -> Result<()> {
        Ok(())
    }
}

//! [`SealedOptions`]: creating and opening a store in a table.

use std::sync::Arc;
use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, Operation, Result};

use super::access::{Access, Held};
use super::error::Failure;
use super::item::{KeyringItem, LEASES, StoreId};
use super::threads::off_thread;
use super::{RecordTable, SealedStore, SystemTimer, Timer};
use crate::keyring::Keyring;
use crate::root::RootSecret;

/// The number of attempts to read the keyring of a store that another process is creating.
const CREATION_LOOKS: u32 = 50;

/// The pause between two of these attempts.
const CREATION_PAUSE: Duration = Duration::from_millis(100);

/// Options for creating and opening a [`SealedStore`].
///
/// ```
/// # use keystead_sealing::RootSecret;
/// use std::time::Duration;
/// use keystead_sealing::table::{MemoryTable, SealedOptions};
///
/// # async fn example() -> keystead_core::Result<()> {
/// let options = SealedOptions::new().lease(Duration::from_secs(10));
/// let store = options.create(MemoryTable::new(), RootSecret::from_bytes([7; 32])).await?;
/// # Ok(())
/// # }
/// # futures_executor::block_on(example()).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SealedOptions {
    lease: Duration,
    timer: Arc<dyn Timer>,
}

impl SealedOptions {
    /// Returns the defaults: a lease of 30 seconds, and the system's clock.
    pub fn new() -> Self {
        Self { lease: Duration::from_secs(30), timer: Arc::new(SystemTimer) }
    }

    /// Sets the lease of a new store: the longest time for which a handle seals keys without
    /// reading the keyring again, 10 milliseconds to 1 hour. A rotation waits for one lease.
    /// The lease is kept in the table, so that all handles use the same one.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets the clock, for tests.
    pub fn timer(mut self, timer: Arc<dyn Timer>) -> Self {
        self.timer = timer;
        self
    }

    /// Creates a store in an empty table.
    ///
    /// # Errors
    /// - [`AlreadyExists`](ErrorKind::AlreadyExists) if the table holds a store.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if it holds a store or records without a
    ///   keyring, which must be restored from a backup; or if a provider gives no root secret.
    /// - [`Config`](ErrorKind::Config) if the lease is out of bounds or the passphrase is empty.
    /// - [`Effect::Unknown`] if the answer of the table was lost: open the store to see whether it
    ///   was created.
    /// - What the table reports.
    pub async fn create<T: RecordTable>(&self, table: T, root: RootSecret) -> Result<SealedStore<T>> {
        let scheme = table.info().scheme();
        match self.try_to_create(&table, &root).await {
            Ok(Some(held)) => Ok(self.store(table, held)),
            Ok(None) => Err(Error::new(ErrorKind::AlreadyExists, Operation::Open, scheme)
                .with_source("the table holds a store: open it, or choose another table")),
            Err(failure) => Err(failure.during(Operation::Open, scheme)),
        }
    }

    /// Opens the store of a table.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config) if the table holds no store.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not the store's, or if
    ///   the table holds a store or records without a keyring.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the keyring is damaged.
    /// - What the table reports.
    pub async fn open<T: RecordTable>(&self, table: T, root: RootSecret) -> Result<SealedStore<T>> {
        let scheme = table.info().scheme();
        match self.try_to_open(&table, &root).await {
            Ok(Some(held)) => Ok(self.store(table, held)),
            Ok(None) => Err(Error::new(ErrorKind::Config, Operation::Open, scheme)
                .with_source("the table holds no store: create one, or set the right table")),
            Err(failure) => Err(failure.during(Operation::Open, scheme)),
        }
    }

    /// Opens the store of a table, or creates it if there is none. Of many processes that do so at
    /// once, one creates it.
    ///
    /// # Errors
    /// Those of [`create`](Self::create) and [`open`](Self::open), except that it does not matter
    /// whether there is a store.
    pub async fn open_or_create<T: RecordTable>(&self, table: T, root: RootSecret) -> Result<SealedStore<T>> {
        let scheme = table.info().scheme();
        let opened = async {
            if let Some(held) = self.try_to_open(&table, &root).await? {
                return Ok(held);
            }
            if let Some(held) = self.try_to_create(&table, &root).await? {
                return Ok(held);
            }
            // Another process was quicker. In an engine without transactions its keyring comes a
            // moment after its store id.
            for _ in 0..CREATION_LOOKS {
                match self.try_to_open(&table, &root).await {
                    Err(Failure::KeyringLost) => self.timer.sleep(CREATION_PAUSE).await,
                    opened => return opened?.ok_or(Failure::KeyringLost),
                }
            }
            Err(Failure::KeyringLost)
        };
        match opened.await {
            Ok(held) => Ok(self.store(table, held)),
            Err(failure) => Err(failure.during(Operation::Open, scheme)),
        }
    }

    /// Opens the store of the table. Returns `None` if the table holds no store.
    async fn try_to_open(&self, table: &dyn RecordTable, root: &RootSecret) -> Result<Option<Held>, Failure> {
        let before = self.timer.now();
        let item = match table.keyring().await? {
            Some(item) => item,
            None if is_empty(table).await? => return Ok(None),
            // Another process may have created the store since.
            None => table.keyring().await?.ok_or(Failure::KeyringLost)?,
        };
        Held::open(root.clone(), None, item, before).await.map(Some)
    }

    /// Creates a store in the table. Returns `None` if the table already holds one.
    async fn try_to_create(&self, table: &dyn RecordTable, root: &RootSecret) -> Result<Option<Held>, Failure> {
        if !LEASES.contains(&self.lease) {
            let text = "the lease must be from 10 milliseconds to 1 hour";
            let error = Error::new(ErrorKind::Config, Operation::Open, table.info().scheme()).with_source(text);
            return Err(error.into());
        }
        if table.keyring().await?.is_some() {
            return Ok(None);
        }
        if !is_empty(table).await? {
            // Another process may have created the store since.
            return if table.keyring().await?.is_some() { Ok(None) } else { Err(Failure::KeyringLost) };
        }
        let root_of_thread = root.clone();
        let root_key = off_thread(move || root_of_thread.new_key()).await?;
        let keyring = Keyring::generate();
        let (epoch, _) = keyring.current_epoch();
        let item = KeyringItem::of(&keyring.seal_under(&root_key), self.lease, epoch, epoch);
        let store_id = StoreId::of(&keyring).expect("the id of a store has 16 bytes");
        let before = self.timer.now();
        let is_created = match table.create(&store_id, &item).await {
            Ok(is_created) => is_created,
            // The answer was lost: the store was created if the keyring there is ours.
            Err(e) if e.effect() == Effect::Unknown => match table.keyring().await {
                Ok(Some(found)) => found == item,
                _ => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        };
        if !is_created {
            return Ok(None);
        }
        Held::open(root.clone(), Some(root_key), item, before).await.map(Some)
    }

    fn store<T: RecordTable>(&self, table: T, held: Held) -> SealedStore<T> {
        SealedStore::new(table, Access::new(held, self.timer.clone()))
    }
}

impl Default for SealedOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// Reports whether a table without a keyring holds neither a store id nor a record.
async fn is_empty(table: &dyn RecordTable) -> Result<bool, Failure> {
    if table.store_id().await?.is_some() {
        return Ok(false);
    }
    Ok(table.page(None, 1).await?.is_empty())
}

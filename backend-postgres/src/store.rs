//! [`PostgresStore`]: the store, and how it is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Pool;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Durability, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode,
    Result, SecretKey, StoreIdentity, StoreInfo,
};
use keystead_sealing::table::{RotateProgress, SealedOptions, SealedStore, VerifyProgress, VerifyReport};
use keystead_sealing::{RootSecret, RowKey};

use crate::config::PostgresConfig;
use crate::error::{self, SCHEME, Statement};
use crate::pool::Connections;
use crate::sql::Statements;
use crate::table::PostgresTable;

/// Keys in PostgreSQL, sealed before they are sent. Any number of hosts may use the same tables.
///
/// Clones share one pool of connections. `Debug` shows the server and the schema only.
#[derive(Clone)]
pub struct PostgresStore(SealedStore<PostgresTable>);

impl PostgresStore {
    /// Returns a builder, which opens a store.
    pub fn builder(config: PostgresConfig) -> PostgresBuilder {
        PostgresBuilder { config, root: None, pool: None, options: SealedOptions::new(), creates: false }
    }

    /// Seals every record under a new key, and then destroys the old one. See
    /// [`SealedStore::rotate`].
    ///
    /// # Errors
    /// Those of [`SealedStore::rotate`]; [`Timeout`](ErrorKind::Timeout) if a transaction that may
    /// have written keys does not end within a minute.
    pub async fn rotate(
        &self,
        new_root: impl Into<Option<RootSecret>> + Send,
        progress: impl FnMut(RotateProgress) + Send,
    ) -> Result<()> {
        self.0.rotate(new_root, progress).await
    }

    /// Seals the keyring under another root secret, and leaves all records as they are. See
    /// [`SealedStore::rewrap`].
    ///
    /// # Errors
    /// Those of [`SealedStore::rewrap`].
    pub async fn rewrap(&self, new_root: RootSecret) -> Result<()> {
        self.0.rewrap(new_root).await
    }

    /// Reads and opens every record. See [`SealedStore::verify`].
    ///
    /// # Errors
    /// Those of [`SealedStore::verify`].
    pub async fn verify(&self, progress: impl FnMut(VerifyProgress) + Send) -> Result<VerifyReport> {
        self.0.verify(progress).await
    }

    /// Deletes the damaged records among these rows. See [`SealedStore::delete_damaged`].
    ///
    /// # Errors
    /// Those of [`SealedStore::delete_damaged`].
    pub async fn delete_damaged(&self, rows: &[RowKey]) -> Result<u64> {
        self.0.delete_damaged(rows).await
    }

    /// Returns the row of this id. See [`SealedStore::row_key`].
    pub fn row_key(&self, id: &KeyId) -> RowKey {
        self.0.row_key(id)
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PostgresStore").field(self.0.table()).finish()
    }
}

/// A [`PostgresStore`] that is about to be opened.
#[derive(Debug)]
#[must_use = "nothing is opened before `connect`"]
pub struct PostgresBuilder {
    config: PostgresConfig,
    root: Option<RootSecret>,
    pool: Option<PoolOfService>,
    options: SealedOptions,
    creates: bool,
}

/// A pool that the program made itself. Its `Debug` output shows nothing.
struct PoolOfService(Pool);

impl fmt::Debug for PoolOfService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pool")
    }
}

impl PostgresBuilder {
    /// Sets the root secret, which opens the store's keyring. Required.
    pub fn root_secret(mut self, root: RootSecret) -> Self {
        self.root = Some(root);
        self
    }

    /// Sets whether the tables and the store are created if they are missing. Default: no; then
    /// a missing store is an error.
    pub fn create_if_missing(mut self, creates: bool) -> Self {
        self.creates = creates;
        self
    }

    /// Uses the service's own pool instead of the connections that the configuration describes. Its
    /// sessions must run with `synchronous_commit` other than `off` and at `read committed`; a
    /// write in any other session is refused.
    pub fn pool(mut self, pool: Pool) -> Self {
        self.pool = Some(PoolOfService(pool));
        self
    }

    /// Sets the lease of a new store. See [`SealedOptions::lease`].
    pub fn lease(mut self, lease: Duration) -> Self {
        self.options = self.options.lease(lease);
        self
    }

    /// Connects and opens the store.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config) if a setting is invalid, no root secret was set, there is no
    ///   store, the server is a standby, or its durability is less than was declared.
    /// - [`Unauthenticated`](ErrorKind::Unauthenticated) or
    ///   [`PermissionDenied`](ErrorKind::PermissionDenied) if the server refuses the role.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if the root secret is not the store's, or its
    ///   keyring is gone.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the keyring is damaged.
    /// - [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) if the server
    ///   cannot be reached.
    pub async fn connect(self) -> Result<PostgresStore> {
        let as_open = |e: Error| e.with_operation(Operation::Open);
        let config = &self.config;
        let invalid = |e| Error::new(ErrorKind::Config, Operation::Open, SCHEME).with_source(e);
        config.check().map_err(|e| invalid(keystead_core::BoxError::from(e)))?;
        let root = self.root.ok_or_else(|| invalid("no root secret was set: set one with root_secret".into()))?;
        let connections = match self.pool {
            Some(PoolOfService(pool)) => Connections::of_pool(pool, config.call_timeout),
            None => Connections::new(config).map_err(as_open)?,
        };
        let table = PostgresTable {
            connections,
            statements: Arc::new(Statements::new(&config.schema, config.durability)),
            location: config.location().into(),
            durability: config.durability,
        };
        expect_durability(&table).await.map_err(as_open)?;
        if !self.creates {
            return self.options.open(table, root).await.map(PostgresStore);
        }
        create_tables(&table).await.map_err(as_open)?;
        self.options.open_or_create(table, root).await.map(PostgresStore)
    }
}

/// Creates the tables unless they are there: a role that may only use them may not create them.
async fn create_tables(table: &PostgresTable) -> Result<()> {
    if has_tables(table).await? {
        return Ok(());
    }
    match table.connections.execute(&table.statements.create_tables).await {
        // Of two processes that create the same schema at once, one fails.
        Err(_) if has_tables(table).await? => Ok(()),
        created => created,
    }
}

async fn has_tables(table: &PostgresTable) -> Result<bool> {
    let rows = table.connections.query(&table.statements.has_tables, &[], Statement::Read).await?;
    rows.first().and_then(|row| row.try_get(0).ok()).ok_or_else(error::foreign_row)
}

/// Refuses a server whose durability is less than was declared.
async fn expect_durability(table: &PostgresTable) -> Result<()> {
    if table.durability != Durability::Replicated {
        return Ok(());
    }
    let sql = "SELECT current_setting('synchronous_standby_names') = ''";
    let rows = table.connections.query(sql, &[], Statement::Read).await?;
    let is_alone: bool = rows.first().and_then(|row| row.try_get(0).ok()).ok_or_else(error::foreign_row)?;
    if is_alone {
        let text = "replication was declared, but synchronous_standby_names of the server is empty: set it, or do not \
                    declare replication";
        return Err(error::error(ErrorKind::Config, text));
    }
    Ok(())
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl KeyStore for PostgresStore {
    fn info(&self) -> StoreInfo {
        self.0.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.0.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.0.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.0.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.0.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.0.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.0.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.0.get_keys(ids).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.0.delete_keys(ids).await
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        self.0.create_keys(keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        self.0.get_or_create(id, candidate).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        self.0.erase_key(id).await
    }
}

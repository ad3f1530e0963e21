//! [`ReadOnly`]: a store that refuses every write.

use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreIdentity, StoreInfo, async_trait,
};

/// A store that refuses every write.
///
/// Use it for code that has no reason to change keys, such as a report, an export, a service that
/// only decrypts, or the source of a copy.
///
/// # What it promises
/// Every write fails with [`Unsupported`](ErrorKind::Unsupported) before it reaches the store
/// beneath: `put_key`, `create_key`, `create_keys`, `delete_key`, `delete_keys`, `erase_key` and
/// `get_or_create`. Reads, listings and `check` are forwarded unchanged.
/// [`get_or_create_key`](keystead_core::KeyStoreExt::get_or_create_key) returns an existing key,
/// because it reads first.
///
/// Put it inside a [`Fenced`](crate::Fenced), not around it: a read through a fence deletes an
/// erased key that has come back.
///
/// The capabilities are those of the store beneath, because they also describe the writes of
/// others.
///
/// It protects against mistakes in a program, not against an attacker who controls the program. For
/// that, remove the permission to write from the program's credentials.
///
/// ```
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};
/// use keystead_layers::ReadOnly;
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let store = MemoryStore::new();
/// let alice = KeyId::new("alice")?;
/// let key = store.get_or_create_key(&alice).await?;
///
/// let reader = ReadOnly::new(store);
/// assert_eq!(reader.get_key(&alice).await?, key);
/// assert_eq!(reader.delete_key(&alice).await.unwrap_err().kind(), ErrorKind::Unsupported);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct ReadOnly<S> {
    store: S,
}

impl<S: KeyStore> ReadOnly<S> {
    /// Refuses all writes to this store.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    fn refusal(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Unsupported, operation, self.store.info().scheme())
            .with_source("this handle is read-only: write through one that is not wrapped in `ReadOnly`")
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for ReadOnly<S> {
    fn info(&self) -> StoreInfo {
        self.store.info().with_note("read-only")
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.store.get_key(id).await
    }

    async fn put_key_with(&self, _id: &KeyId, _key: &SecretKey, mode: PutMode) -> Result<()> {
        Err(self.refusal(match mode {
            PutMode::Create => Operation::Create,
            _ => Operation::Put,
        }))
    }

    async fn delete_key(&self, _id: &KeyId) -> Result<Deletion> {
        Err(self.refusal(Operation::Delete))
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.store.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.store.get_keys(ids).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let refusal = self.refusal(Operation::Delete);
        ids.iter().map(|_| Err(refusal.clone())).collect()
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let refusal = self.refusal(Operation::Create);
        keys.iter().map(|_| Err(refusal.clone())).collect()
    }

    async fn get_or_create(&self, _id: &KeyId, _candidate: &SecretKey) -> Result<SecretKey> {
        Err(self.refusal(Operation::Create))
    }

    async fn erase_key(&self, _id: &KeyId) -> Result<Erasure> {
        Err(self.refusal(Operation::Erase))
    }
}

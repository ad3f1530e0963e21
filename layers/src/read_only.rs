//! [`ReadOnly`]: reads, and nothing else.

use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreIdentity, StoreInfo, async_trait,
};

/// A store that cannot be written to: for code that has no business to change keys, such as a
/// report, an export, a decrypting service, or the source of a copy.
///
/// # What it promises
/// Every write fails with [`Unsupported`](ErrorKind::Unsupported), and nothing of it reaches the
/// store beneath: `put_key`, `create_key`, `create_keys`, `delete_key`, `delete_keys`, `erase_key`,
/// `get_or_create`. Reads, listings and `check` pass through as they are.
/// [`get_or_create_key`](keystead_core::KeyStoreExt::get_or_create_key) gives a key that exists,
/// since it reads first.
///
/// Around a [`Fenced`](crate::Fenced) store, a read may still clear away what an erasure left
/// behind: put it inside instead.
///
/// The capabilities are those of the store beneath: they say what the writes promise that others
/// make to it.
///
/// It guards against a mistake in a program. Against a program that is taken over, take the right
/// to write from its credentials.
///
/// ```
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};
/// use keystead_layers::ReadOnly;
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let (store, alice) = (MemoryStore::new(), KeyId::new("alice")?);
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
    /// Lets only reads through to this store.
    pub fn new(store: S) -> Self {
        Self { store }
    }

    fn refusal(&self, operation: Operation) -> Error {
        Error::new(ErrorKind::Unsupported, operation, self.store.info().scheme())
            .with_source("this handle only reads: write through one that is not wrapped in `ReadOnly`")
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

//! [`Stack`]: the layers that a service needs, in the one order that keeps their promises.

mod builder;
mod front;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::SystemTime;

use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreIdentity, StoreInfo, async_trait,
};

pub use self::builder::StackBuilder;
use self::front::Front;
use crate::cached::{CacheStats, Cached};
use crate::fenced::{ErasureReceipt, Fenced, ReconcileFailure, ReconcileReport};
use crate::observed::Observed;

/// A key store for a service: a store of keys behind limits, retries, a cache, a fence and an
/// observer.
///
/// Layers that are composed by hand can be in an order that breaks a promise. For example, a cache
/// around a fence returns erased keys, and retries around a cache verify writes by cached keys. A
/// `Stack` has one order, from the inside out: the keys, [`Limited`](crate::Limited),
/// [`Resilient`](crate::Resilient), [`Cached`], [`Fenced`], [`Observed`]. Layers that are not
/// configured are left out.
///
/// # What it promises
/// - [`erase`](Self::erase) deletes the key and verifies the deletion beneath the cache, so a
///   receipt can have `verified: true`. Once it has returned, no `Stack` and no [`Fenced`] with the
///   same tombstones returns the key, in any process, because the fence is asked before the cache.
/// - [`allow_new_key`](Self::allow_new_key) fails until every cache that shares the tombstones must
///   have dropped the erased key.
/// - A background thread wipes expired keys. It runs once per time to live, but at least once a
///   minute and at most once a second.
/// - No call to one of the two stores takes longer than the deadline, plus the visibility bounds
///   for which the store has to wait. Batches and listings have limits of their own
///   ([`Resilient`](crate::Resilient)). One call of the stack makes several such calls one after
///   the other: a read up to two, a write up to four.
///
/// A plain [`delete_key`](KeyStore::delete_key) writes no tombstone, so other processes may return
/// the key from their caches for the time to live. Use [`erase`](Self::erase) if the user is to be
/// forgotten.
///
/// The tombstones must be strongly consistent, shared by all processes and at least as durable as
/// the keys. For keys in AWS, a file store is the only choice so far, and it serves one host:
/// [`accept_tombstone_durability`](StackBuilder::accept_tombstone_durability) accepts that.
///
/// Clones are handles of one stack. It needs a Tokio runtime with its timer.
///
/// ```
/// use std::time::Duration;
///
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};
/// use keystead_layers::Stack;
/// use keystead_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// // An AWS store is built with `sdk_attempts(1)`, because the stack retries.
/// let stack = Stack::builder(MemoryStore::new())
///     .tombstones(MemoryStore::new())
///     .cache_ttl(Duration::from_secs(300))
///     .read_rate(35.0)
///     .write_rate(3.0)
///     .deadline(Duration::from_secs(10))
///     .build()?;
/// let alice = KeyId::new("alice")?;
/// stack.get_or_create_key(&alice).await?;
///
/// let receipt = stack.erase(&alice).await?;
/// assert!(receipt.existed && receipt.verified);
/// assert_eq!(stack.get_key(&alice).await.unwrap_err().kind(), ErrorKind::Erased);
/// // Another process may still have the key in its cache.
/// assert_eq!(stack.allow_new_key(&alice).await.unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Stack {
    /// The layer that receives the calls of [`KeyStore`].
    outermost: Arc<dyn KeyStore>,
    observer: Option<Observed<Arc<dyn KeyStore>>>,
    fence: Option<Arc<Fence>>,
    cache: Option<Cached<Arc<dyn KeyStore>>>,
    /// The thread that wipes expired keys ends when the last handle drops this.
    _expiry: Option<Sender<()>>,
}

type Fence = Fenced<Front, Arc<dyn KeyStore>>;

impl Stack {
    /// Returns a builder of a stack around this store of keys, which must be neither cached nor
    /// fenced.
    pub fn builder(keys: impl KeyStore) -> StackBuilder {
        StackBuilder::new(Arc::new(keys))
    }

    /// Erases a user and returns a receipt: see [`Fenced::erase`]. The deletion is verified beneath
    /// the cache.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) without tombstones, and the errors of
    /// [`Fenced::erase`].
    pub async fn erase(&self, id: &KeyId) -> Result<ErasureReceipt> {
        let call = self.fence(Operation::Erase)?.erase(id);
        match &self.observer {
            Some(observer) => observer.watch("erase", call).await,
            None => call.await,
        }
    }

    /// Lets an erased user have a new key: see [`Fenced::allow_new_key`].
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) without tombstones, and the errors of
    /// [`Fenced::allow_new_key`].
    pub async fn allow_new_key(&self, id: &KeyId) -> Result<()> {
        let call = self.fence(Operation::Erase)?.allow_new_key(id);
        match &self.observer {
            Some(observer) => observer.watch("allow_new_key", call).await,
            None => call.await,
        }
    }

    /// Erases the keys of erased users again after a restore of the keys: see
    /// [`Fenced::reconcile`].
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) without tombstones, and the errors of
    /// [`Fenced::reconcile`].
    pub async fn reconcile(
        &self,
        on_outcome: impl FnMut(Result<ErasureReceipt, ReconcileFailure>) + Send,
    ) -> Result<ReconcileReport> {
        self.fence(Operation::Erase)?.reconcile(on_outcome).await
    }

    /// Returns the moment at which an erased user was erased: see [`Fenced::erased_at`].
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) without tombstones, and the errors of
    /// [`Fenced::erased_at`].
    pub async fn erased_at(&self, id: &KeyId) -> Result<Option<SystemTime>> {
        self.fence(Operation::Get)?.erased_at(id).await
    }

    /// Returns the user's pseudonym in receipts: see [`Fenced::tombstone_of`].
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) without tombstones, and the errors of
    /// [`Fenced::tombstone_of`].
    pub async fn tombstone_of(&self, id: &KeyId) -> Result<String> {
        self.fence(Operation::Get)?.tombstone_of(id).await
    }

    /// Returns the statistics of the cache, or `None` if the stack has no cache.
    pub fn statistics(&self) -> Option<CacheStats> {
        self.cache.as_ref().map(Cached::statistics)
    }

    /// Removes the cached entry of this id: see [`Cached::invalidate`]. Call it when you learn that
    /// another process has deleted or overwritten the key.
    pub fn invalidate(&self, id: &KeyId) {
        if let Some(cache) = &self.cache {
            cache.invalidate(id);
        }
    }

    fn fence(&self, operation: Operation) -> Result<&Fence> {
        self.fence.as_deref().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, operation, self.outermost.info().scheme())
                .with_source("this stack has no tombstones: set a store for them when you build it")
        })
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl KeyStore for Stack {
    fn info(&self) -> StoreInfo {
        self.outermost.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.outermost.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.outermost.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.outermost.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.outermost.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.outermost.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.outermost.check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.outermost.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.outermost.get_keys(ids).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.outermost.delete_keys(ids).await
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        self.outermost.create_keys(keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        self.outermost.get_or_create(id, candidate).await
    }

    /// Erases as [`Stack::erase`] does, without a receipt. If the stack has no tombstones, it
    /// deletes the key, and other caches may still return it for their time to live.
    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        self.outermost.erase_key(id).await
    }
}

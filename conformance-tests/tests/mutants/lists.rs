//! Mutants that get the listing, further handles or texts wrong.

use std::fmt;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result, SecretKey,
    StoreInfo,
};
use keystead_memory::MemoryStore;
use tokio::runtime::Handle;

use crate::over_memory::{OverMemory, keep, over_memory};

/// A store that lists what this expression makes of the memory store's listing.
macro_rules! lists {
    ($name:ident, |$listing:ident| $changed:expr) => {
        over_memory!($name);

        #[async_trait]
        impl KeyStore for $name {
            keep!(info, capabilities, get_key, put_key_with, delete_key, check);

            fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
                let $listing = self.memory.list_keys();
                $changed.boxed()
            }
        }
    };
}

lists!(ListLosesAPage, |listing| listing.take(1_000));
lists!(ListSkipsAnId, |listing| listing.skip(1));
lists!(ListRepeatsAnId, |listing| listing.flat_map(|id| match &id {
    Ok(first) if first.as_str().ends_with('7') => stream::iter(vec![id.clone(), id]),
    _ => stream::iter(vec![id]),
}));
lists!(ListGivesIdsInLowerCase, |listing| listing
    .map(|id| id.map(|id| KeyId::new(id.as_str().to_lowercase()).expect("an id in lower case is one"))));

/// Pages by number: what moves to an earlier page meanwhile is lost.
#[derive(Debug)]
pub(crate) struct ListPagesByNumber {
    memory: MemoryStore,
}

impl OverMemory for ListPagesByNumber {
    fn over(memory: MemoryStore) -> Self {
        Self { memory }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for ListPagesByNumber {
    keep!(info, capabilities, get_key, put_key_with, delete_key, check);

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let page = move |number: usize| async move {
            let mut ids: Vec<KeyId> = self.memory.list_keys().filter_map(|id| async { id.ok() }).collect().await;
            ids.sort();
            tokio::task::yield_now().await;
            let id = ids.get(number)?.clone();
            Some((Ok(id), number + 1))
        };
        stream::unfold(0, page).boxed()
    }
}

/// Holds a lock for as long as a listing is open.
#[derive(Debug)]
pub(crate) struct ListHoldsALock {
    memory: MemoryStore,
    lock: Arc<tokio::sync::RwLock<()>>,
}

impl OverMemory for ListHoldsALock {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, lock: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), lock: self.lock.clone() }
    }
}

#[async_trait]
impl KeyStore for ListHoldsALock {
    keep!(info, capabilities, get_key, delete_key, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let _writing = self.lock.write().await;
        self.memory.put_key_with(id, key, mode).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let locked = stream::once(self.lock.read());
        locked.flat_map(|reading| self.memory.list_keys().map(move |id| (&reading, id).1)).boxed()
    }
}

over_memory!(ListSaysNothingInsteadOfUnsupported);

#[async_trait]
impl KeyStore for ListSaysNothingInsteadOfUnsupported {
    keep!(info, get_key, put_key_with, delete_key, check);

    fn capabilities(&self) -> Capabilities {
        let Capabilities { durability, consistency, deletion, .. } = self.memory.capabilities();
        Capabilities::new(durability, consistency, deletion, None)
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        stream::empty().boxed()
    }
}

/// Takes whatever lies beside the keys for a key.
#[derive(Debug)]
pub(crate) struct ListGivesForeignEntries {
    memory: MemoryStore,
}

impl OverMemory for ListGivesForeignEntries {
    const PLANTS: Option<&str> = Some("somebody else's");

    fn over(memory: MemoryStore) -> Self {
        Self { memory }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for ListGivesForeignEntries {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);
}

/// A namespace is not looked at.
#[derive(Debug)]
pub(crate) struct NamespacesMeet {
    memory: MemoryStore,
}

impl OverMemory for NamespacesMeet {
    const ONE_NAMESPACE: bool = true;

    fn over(memory: MemoryStore) -> Self {
        Self { memory }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for NamespacesMeet {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);
}

/// Each handle has keys of its own.
#[derive(Debug)]
pub(crate) struct NothingIsShared {
    memory: MemoryStore,
}

impl OverMemory for NothingIsShared {
    fn over(memory: MemoryStore) -> Self {
        Self { memory }
    }

    fn reopened(&self) -> Self {
        Self::over(MemoryStore::new())
    }
}

#[async_trait]
impl KeyStore for NothingIsShared {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);
}

over_memory!(CheckFails);

#[async_trait]
impl KeyStore for CheckFails {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys);

    async fn check(&self) -> Result<()> {
        Err(Error::new(ErrorKind::PermissionDenied, Operation::Check, "memory"))
    }
}

/// Works on the runtime that opened it only.
#[derive(Debug)]
pub(crate) struct BoundToItsRuntime {
    memory: MemoryStore,
    home: tokio::runtime::Id,
}

impl OverMemory for BoundToItsRuntime {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, home: Handle::current().id() }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for BoundToItsRuntime {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        assert_eq!(Handle::current().id(), self.home, "the background task has gone");
        self.memory.put_key_with(id, key, mode).await
    }
}

/// Derives Debug, or prints what it holds to be helpful.
pub(crate) struct KeyInDebug {
    memory: MemoryStore,
    last: Mutex<Vec<u8>>,
}

impl fmt::Debug for KeyInDebug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyInDebug").field("last", &self.last.lock().expect("no call panics")).finish_non_exhaustive()
    }
}

impl OverMemory for KeyInDebug {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, last: Mutex::default() }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for KeyInDebug {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        *self.last.lock().expect("no call panics") = key.expose_secret().to_vec();
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(IdInTheCause);

#[async_trait]
impl KeyStore for IdInTheCause {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let helpful = |e: Error| e.with_source(format!("no entry named {}", id.as_str()));
        self.memory.get_key(id).await.map_err(helpful)
    }
}

over_memory!(KeyInTheCause);

#[async_trait]
impl KeyStore for KeyInTheCause {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let hex: String = key.expose_secret().iter().map(|byte| format!("{byte:02X}")).collect();
        self.memory.put_key_with(id, key, mode).await.map_err(|e| e.with_source(format!("refused value {hex}")))
    }
}

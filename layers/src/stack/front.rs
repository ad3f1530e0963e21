//! [`Front`]: the store behind the fence of a stack, with or without a cache.

use std::sync::Arc;

use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, KeyId, KeyStore, PutMode, Result, SecretKey, StoreIdentity, StoreInfo,
    async_trait,
};

use crate::cached::Cached;

/// The store behind the fence of a stack.
///
/// It differs from its cache in one call: an erasure returns `verified` as the store beneath does.
/// That is right only behind a fence, which keeps readers from the keys that other caches still
/// hold.
#[derive(Clone, Debug)]
pub(super) enum Front {
    Uncached(Arc<dyn KeyStore>),
    Cached(Cached<Arc<dyn KeyStore>>),
}

impl Front {
    fn store(&self) -> &dyn KeyStore {
        match self {
            Self::Uncached(store) => store,
            Self::Cached(cache) => cache,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl KeyStore for Front {
    fn info(&self) -> StoreInfo {
        self.store().info()
    }

    fn capabilities(&self) -> Capabilities {
        self.store().capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.store().get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.store().put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.store().delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store().list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store().check().await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.store().identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        self.store().get_keys(ids).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.store().delete_keys(ids).await
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        self.store().create_keys(keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        self.store().get_or_create(id, candidate).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        match self {
            Self::Uncached(store) => store.erase_key(id).await,
            Self::Cached(cache) => cache.erase_beneath(id).await,
        }
    }
}

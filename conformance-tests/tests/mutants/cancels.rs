//! Mutants that are right as long as every call is awaited to its end; and some that talk too much meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, ErrorKind, KeyId, KeyStore, KeyStoreExt, PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

/// Waits as long as a slow engine takes, so that a caller may give up meanwhile.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(2)).await;
}

fn placeholder() -> SecretKey {
    SecretKey::new([0]).expect("one byte is a key")
}

over_memory!(PutClearsFirst);

#[async_trait]
impl KeyStore for PutClearsFirst {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::Overwrite && self.memory.delete_key(id).await.is_ok() {
            pause().await;
        }
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(DeleteLeavesAMark);

#[async_trait]
impl KeyStore for DeleteLeavesAMark {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        if self.memory.get_key(id).await.is_ok() {
            self.memory.put_key(id, &placeholder()).await?;
            pause().await;
        }
        self.memory.delete_key(id).await
    }
}

over_memory!(GetOrCreateReservesFirst);

#[async_trait]
impl KeyStore for GetOrCreateReservesFirst {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        match self.memory.create_key(id, &placeholder()).await {
            Ok(()) => pause().await,
            Err(_) => return self.memory.get_key(id).await,
        }
        self.memory.put_key(id, candidate).await?;
        Ok(candidate.clone())
    }
}

/// Takes a lock by hand and gives it back by hand, if it comes to that.
#[derive(Debug)]
pub(crate) struct LockIsNotGivenBack {
    memory: MemoryStore,
    locked: Arc<AtomicBool>,
}

impl OverMemory for LockIsNotGivenBack {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, locked: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), locked: self.locked.clone() }
    }
}

#[async_trait]
impl KeyStore for LockIsNotGivenBack {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        while self.locked.swap(true, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::task::yield_now().await;
        let answer = self.memory.put_key_with(id, key, mode).await;
        self.locked.store(false, Ordering::SeqCst);
        answer
    }
}

over_memory!(KeyInATrace);

#[async_trait]
impl KeyStore for KeyInATrace {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let start: Vec<u8> = key.expose_secret().iter().take(16).copied().collect();
        tracing::trace!(value = ?start, "transmitting request");
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(IdInATraceOfAnotherThread);

#[async_trait]
impl KeyStore for IdInATraceOfAnotherThread {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let name = id.as_str().to_owned();
        let worker = std::thread::spawn(move || tracing::debug_span!("get", name).in_scope(|| ()));
        worker.join().expect("it only traces");
        self.memory.get_key(id).await
    }
}

over_memory!(KeyInAPanic);

#[async_trait]
impl KeyStore for KeyInAPanic {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let answer = self.memory.put_key_with(id, key, mode).await;
        let twice = answer.as_ref().is_err_and(|e| e.kind() == ErrorKind::AlreadyExists);
        let start: Vec<u8> = key.expose_secret().iter().take(16).copied().collect();
        assert!(!twice, "{start:?} was stored twice");
        answer
    }
}

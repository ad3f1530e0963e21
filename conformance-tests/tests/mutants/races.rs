//! Mutants that are right as long as one call is made at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, PutMode, Result,
    SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

/// Long enough for another thread to come between.
async fn pause() {
    tokio::time::sleep(Duration::from_micros(200)).await;
}

over_memory!(CreateLooksThenWrites);

#[async_trait]
impl KeyStore for CreateLooksThenWrites {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::Create && self.memory.get_key(id).await.is_ok() {
            return Err(Error::new(ErrorKind::AlreadyExists, Operation::Create, "memory"));
        }
        pause().await;
        self.memory.put_key_with(id, key, PutMode::Overwrite).await
    }
}

over_memory!(GetOrCreateLooksThenWrites);

#[async_trait]
impl KeyStore for GetOrCreateLooksThenWrites {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        if let Some(key) = self.memory.find_key(id).await? {
            return Ok(key);
        }
        pause().await;
        self.memory.put_key(id, candidate).await?;
        Ok(candidate.clone())
    }
}

over_memory!(PutWritesInTwoHalves);

#[async_trait]
impl KeyStore for PutWritesInTwoHalves {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if let (PutMode::Overwrite, Some(old)) = (mode, self.memory.find_key(id).await?) {
            let new = key.expose_secret();
            let old = old.expose_secret();
            let half = new.len() / 2;
            let torn: Vec<u8> = new[..half].iter().chain(old.iter().skip(half)).copied().take(3072).collect();
            if let Ok(torn) = SecretKey::new(torn) {
                self.memory.put_key(id, &torn).await?;
            }
        }
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(DeleteLooksThenDeletes);

#[async_trait]
impl KeyStore for DeleteLooksThenDeletes {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.memory.get_key(id).await.map_err(|e| e.with_operation(Operation::Delete))?;
        pause().await;
        let answer = self.memory.delete_key(id).await;
        // Gone is gone.
        answer.or(Ok(Deletion::new(keystead_core::Finality::Immediate)))
    }
}

/// Answers reads from a copy that is renewed a moment after each write, and calls that strong.
#[derive(Debug)]
pub(crate) struct ReadsLagALittle {
    memory: MemoryStore,
    copy: Arc<Mutex<HashMap<KeyId, SecretKey>>>,
}

impl OverMemory for ReadsLagALittle {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, copy: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), copy: self.copy.clone() }
    }
}

#[async_trait]
impl KeyStore for ReadsLagALittle {
    keep!(info, capabilities, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let key = self.memory.get_key(id).await?;
        let mut copy = self.copy.lock().expect("no call panics");
        // The first read after a write still gets the old copy.
        Ok(copy.insert(id.clone(), key.clone()).unwrap_or(key))
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }
}

/// Gives up a write when another one is under way, and says that it is done.
#[derive(Debug)]
pub(crate) struct WritesThatMeetAreLost {
    memory: MemoryStore,
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl OverMemory for WritesThatMeetAreLost {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, writing: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), writing: self.writing.clone() }
    }
}

#[async_trait]
impl KeyStore for WritesThatMeetAreLost {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::Create {
            return self.memory.put_key_with(id, key, mode).await;
        }
        let Ok(_writing) = self.writing.try_lock() else { return Ok(()) };
        pause().await;
        self.memory.put_key_with(id, key, mode).await
    }
}

//! Mutants that get deletion wrong.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Finality, KeyId, KeyStore,
    PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

over_memory!(DeleteDoesNothing);

#[async_trait]
impl KeyStore for DeleteDoesNothing {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, _: &KeyId) -> Result<Deletion> {
        Ok(Deletion::new(Finality::Immediate))
    }
}

over_memory!(DeleteOfAMissingKeyIsOk);

#[async_trait]
impl KeyStore for DeleteOfAMissingKeyIsOk {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.memory.delete_key(id).await.or(Ok(Deletion::new(Finality::Immediate)))
    }
}

over_memory!(DeletesByPrefix);

#[async_trait]
impl KeyStore for DeletesByPrefix {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let others: Vec<KeyId> = self.memory.list_keys().filter_map(|id| async { id.ok() }).collect().await;
        for other in others.iter().filter(|other| *other != id && other.as_str().starts_with(id.as_str())) {
            self.memory.delete_key(other).await?;
        }
        self.memory.delete_key(id).await
    }
}

/// Marks keys as deleted in the handle and leaves them in the store.
#[derive(Debug)]
pub(crate) struct DeletesInThisHandleOnly {
    memory: MemoryStore,
    deleted: Mutex<HashSet<KeyId>>,
}

impl OverMemory for DeletesInThisHandleOnly {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, deleted: Mutex::default() }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for DeletesInThisHandleOnly {
    keep!(info, capabilities, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let deleted = self.deleted.lock().expect("no call panics").contains(id);
        let nobody = KeyId::new("nobody at all").expect("an id");
        self.memory.get_key(if deleted { &nobody } else { id }).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let deleted = self.deleted.lock().expect("no call panics").remove(id);
        self.memory.put_key_with(id, key, if deleted { PutMode::Overwrite } else { mode }).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.get_key(id).await.map_err(|e| e.with_operation(keystead_core::Operation::Delete))?;
        self.deleted.lock().expect("no call panics").insert(id.clone());
        Ok(Deletion::new(Finality::Immediate))
    }
}

/// A cache that no other handle's delete reaches.
#[derive(Debug)]
pub(crate) struct StaleAfterDelete {
    memory: MemoryStore,
    seen: Mutex<HashMap<KeyId, SecretKey>>,
}

impl OverMemory for StaleAfterDelete {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, seen: Mutex::default() }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for StaleAfterDelete {
    keep!(info, capabilities, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let seen = self.seen.lock().expect("no call panics").get(id).cloned();
        match (self.memory.get_key(id).await, seen) {
            (Err(_), Some(seen)) => Ok(seen),
            (answer, _) => {
                self.seen.lock().expect("no call panics").extend(answer.clone().ok().map(|key| (id.clone(), key)));
                answer
            }
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.seen.lock().expect("no call panics").remove(id);
        self.memory.delete_key(id).await
    }
}

over_memory!(OldValueComesBackAfterDelete);

#[async_trait]
impl KeyStore for OldValueComesBackAfterDelete {
    keep!(info, capabilities, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if let (Ok(old), Ok(version)) = (self.memory.get_key(id).await, older(id)) {
            self.memory.put_key_with(&version, &old, PutMode::Overwrite).await?;
        }
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let deletion = self.memory.delete_key(id).await?;
        let Ok(version) = older(id) else { return Ok(deletion) };
        if let Ok(old) = self.memory.get_key(&version).await {
            self.memory.put_key_with(id, &old, PutMode::Overwrite).await?;
        }
        Ok(deletion)
    }
}

fn older(id: &KeyId) -> Result<KeyId, keystead_core::InvalidKeyId> {
    KeyId::new(format!("{}?version=1", id.as_str()))
}

over_memory!(DeletionSaysMoreThanItDoes);

#[async_trait]
impl KeyStore for DeletionSaysMoreThanItDoes {
    keep!(info, get_key, put_key_with, delete_key, list_keys, check);

    fn capabilities(&self) -> Capabilities {
        let deletion = DeletionGrade::Recoverable { window: Duration::from_secs(7 * 86_400) };
        Capabilities::new(Durability::Process, Consistency::Strong, deletion, Some(Consistency::Strong))
    }
}

over_memory!(ErasingTwiceFails);

#[async_trait]
impl KeyStore for ErasingTwiceFails {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let deletion = self.memory.delete_key(id).await?;
        Ok(Erasure::new(true, deletion.finality, true))
    }
}

over_memory!(ReceiptAlwaysSaysItExisted);

#[async_trait]
impl KeyStore for ReceiptAlwaysSaysItExisted {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let erasure = self.memory.erase_key(id).await?;
        Ok(Erasure::new(true, erasure.finality, erasure.verified))
    }
}

over_memory!(ReceiptIsNeverVerified);

#[async_trait]
impl KeyStore for ReceiptIsNeverVerified {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let erasure = self.memory.erase_key(id).await?;
        Ok(Erasure::new(erasure.existed, erasure.finality, false))
    }
}

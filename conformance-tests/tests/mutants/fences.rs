//! Stores that say of themselves that the erased stay erased.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use futures_util::future::BoxFuture;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

over_memory!(FenceIsOnlyClaimed);

#[async_trait]
impl KeyStore for FenceIsOnlyClaimed {
    keep!(info, get_key, put_key_with, delete_key, list_keys, check);

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities().with_fence()
    }
}

/// Guards reads and creates, and forgets that an overwrite creates as well.
#[derive(Debug)]
pub(crate) struct FenceLetsOverwritesThrough {
    memory: MemoryStore,
    erased: Arc<Mutex<HashSet<KeyId>>>,
}

impl OverMemory for FenceLetsOverwritesThrough {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, erased: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), erased: self.erased.clone() }
    }
}

impl FenceLetsOverwritesThrough {
    fn guard(&self, id: &KeyId, operation: Operation) -> Result<()> {
        match self.erased.lock().expect("no call panics").contains(id) {
            true => Err(Error::new(ErrorKind::Erased, operation, "memory")),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl KeyStore for FenceLetsOverwritesThrough {
    keep!(info, delete_key, list_keys, check);

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities().with_fence()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.guard(id, Operation::Get)?;
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if mode == PutMode::Create {
            self.guard(id, Operation::Create)?;
        }
        self.memory.put_key_with(id, key, mode).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        self.erased.lock().expect("no call panics").insert(id.clone());
        self.memory.erase_key(id).await
    }
}

//! Mutants of stores that lag and of stores that schedule their deletions.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::StreamExt;
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Erasure, Error, ErrorKind, Finality,
    KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::awkward::{Lagging, Recoverable};
use crate::over_memory::{OverMemory, keep, over_memory};

/// Every fifth read of a key comes from a replica that never catches up.
#[derive(Debug)]
pub(crate) struct NeverSettles {
    memory: MemoryStore,
    before: Mutex<HashMap<KeyId, SecretKey>>,
    reads: AtomicUsize,
}

impl OverMemory for NeverSettles {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, before: Mutex::default(), reads: AtomicUsize::new(0) }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

fn eventual() -> Capabilities {
    let eventual = Consistency::Eventual { within: Duration::from_millis(50) };
    Capabilities::new(Durability::Process, eventual, DeletionGrade::Immediate, Some(eventual))
}

#[async_trait]
impl KeyStore for NeverSettles {
    keep!(info, delete_key, list_keys, check);

    fn capabilities(&self) -> Capabilities {
        eventual()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let old = self.before.lock().expect("no call panics").get(id).cloned();
        match old {
            Some(old) if self.reads.fetch_add(1, Ordering::SeqCst) % 5 == 4 => Ok(old),
            _ => self.memory.get_key(id).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if let Ok(old) = self.memory.get_key(id).await {
            self.before.lock().expect("no call panics").insert(id.clone(), old);
        }
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(OverwrittenIsAbsentForAMoment, Lagging);

#[async_trait]
impl KeyStore for OverwrittenIsAbsentForAMoment {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        match self.memory.is_stale(id) {
            // An index that is rebuilt with each write.
            true => Err(Error::new(ErrorKind::NotFound, Operation::Get, "memory")),
            false => self.memory.get_key(id).await,
        }
    }
}

/// Every second listing comes from a replica that has lost an id.
#[derive(Debug)]
pub(crate) struct ListingNeverSettles {
    memory: MemoryStore,
    listings: AtomicUsize,
}

impl OverMemory for ListingNeverSettles {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, listings: AtomicUsize::new(0) }
    }

    fn reopened(&self) -> Self {
        Self::over(self.memory.clone())
    }
}

#[async_trait]
impl KeyStore for ListingNeverSettles {
    keep!(info, get_key, put_key_with, delete_key, check);

    fn capabilities(&self) -> Capabilities {
        eventual()
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let lost = self.listings.fetch_add(1, Ordering::SeqCst) % 2;
        self.memory.list_keys().skip(lost).boxed()
    }
}

over_memory!(InvisibleWinnerLoses, Lagging);

#[async_trait]
impl KeyStore for InvisibleWinnerLoses {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        match self.memory.put_key_with(id, candidate, PutMode::Create).await {
            // There must be one, and if it cannot be read it must be ours.
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                self.memory.get_key(id).await.or_else(|_| Ok(candidate.clone()))
            }
            answer => answer.map(|()| candidate.clone()),
        }
    }
}

over_memory!(VerifiesAtOnce, Lagging);

#[async_trait]
impl KeyStore for VerifiesAtOnce {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let existed = self.memory.delete_key(id).await.is_ok();
        let verified = self.memory.get_key(id).await.is_err();
        Ok(Erasure::new(existed, Finality::Immediate, verified))
    }
}

over_memory!(PendingReadsAsNotFound, Recoverable);

#[async_trait]
impl KeyStore for PendingReadsAsNotFound {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.memory.get_key(id).await.map_err(|_| Error::new(ErrorKind::NotFound, Operation::Get, "memory"))
    }
}

over_memory!(PutRevives, Recoverable);

#[async_trait]
impl KeyStore for PutRevives {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.memory.forget(id);
        self.memory.put_key_with(id, key, mode).await
    }
}

over_memory!(PendingIsInTheWay, Recoverable);

#[async_trait]
impl KeyStore for PendingIsInTheWay {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        match self.memory.put_key_with(id, key, mode).await {
            Err(e) if e.kind() == ErrorKind::PendingDeletion && mode == PutMode::Create => {
                Err(Error::new(ErrorKind::AlreadyExists, Operation::Create, "memory"))
            }
            answer => answer,
        }
    }
}

over_memory!(SchedulesAgain, Recoverable);

#[async_trait]
impl KeyStore for SchedulesAgain {
    keep!(info, capabilities, get_key, put_key_with, list_keys, check);

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        match self.memory.delete_key(id).await {
            Err(e) if e.kind() == ErrorKind::PendingDeletion => {
                let until = std::time::SystemTime::now() + e.retry_after().unwrap_or_default();
                Ok(Deletion::new(Finality::RecoverableUntil(until)))
            }
            answer => answer,
        }
    }
}

over_memory!(PendingIsErased, Recoverable);

#[async_trait]
impl KeyStore for PendingIsErased {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        if self.memory.is_scheduled(id) {
            return Ok(Erasure::new(true, Finality::Immediate, true));
        }
        self.memory.erase_key(id).await
    }
}

//! Mutants that take something by hand and give it back by hand, if it comes to that; and listings
//! and batches without an end or a beginning.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Deletion, Erasure, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

/// Marks on ids, shared by all handles.
type Marks = Arc<Mutex<HashSet<KeyId>>>;

/// Defines a store over the memory store with marks.
macro_rules! marking {
    ($name:ident) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            memory: MemoryStore,
            marks: Marks,
        }

        impl OverMemory for $name {
            fn over(memory: MemoryStore) -> Self {
                Self { memory, marks: Marks::default() }
            }

            fn reopened(&self) -> Self {
                Self { memory: self.memory.clone(), marks: self.marks.clone() }
            }
        }
    };
}

async fn mark(marks: &Marks, id: &KeyId) {
    while !marks.lock().expect("no call panics").insert(id.clone()) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    tokio::task::yield_now().await;
}

fn unmark(marks: &Marks, id: &KeyId) {
    marks.lock().expect("no call panics").remove(id);
}

marking!(GetLeavesALoadMark);

#[async_trait]
impl KeyStore for GetLeavesALoadMark {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        mark(&self.marks, id).await;
        let answer = self.memory.get_key(id).await;
        unmark(&self.marks, id);
        answer
    }
}

marking!(EraseLeavesAMark);

#[async_trait]
impl KeyStore for EraseLeavesAMark {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        if self.marks.lock().expect("no call panics").contains(id) {
            return Err(Error::new(ErrorKind::Conflict, Operation::Put, "memory"));
        }
        self.memory.put_key_with(id, key, mode).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        mark(&self.marks, id).await;
        let answer = self.memory.erase_key(id).await;
        unmark(&self.marks, id);
        answer
    }
}

marking!(BatchLeavesMarks);

#[async_trait]
impl KeyStore for BatchLeavesMarks {
    keep!(info, capabilities, put_key_with, delete_key, list_keys, check);

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        while self.marks.lock().expect("no call panics").contains(id) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.memory.get_key(id).await
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        self.marks.lock().expect("no call panics").extend(ids.iter().cloned());
        tokio::task::yield_now().await;
        let answers = self.memory.delete_keys(ids).await;
        ids.iter().for_each(|id| unmark(&self.marks, id));
        answers
    }
}

/// Lets 32 puts in at once.
#[derive(Debug)]
pub(crate) struct PermitsAreUsedUp {
    memory: MemoryStore,
    taken: Arc<AtomicUsize>,
}

impl OverMemory for PermitsAreUsedUp {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, taken: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), taken: self.taken.clone() }
    }
}

#[async_trait]
impl KeyStore for PermitsAreUsedUp {
    keep!(info, capabilities, get_key, delete_key, list_keys, check);

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        while self.taken.load(Ordering::SeqCst) >= 32 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        self.taken.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        let answer = self.memory.put_key_with(id, key, mode).await;
        self.taken.fetch_sub(1, Ordering::SeqCst);
        answer
    }
}

over_memory!(LastPageComesAgain);

#[async_trait]
impl KeyStore for LastPageComesAgain {
    keep!(info, capabilities, get_key, put_key_with, delete_key, check);

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        stream::repeat(()).take(1_000_000).flat_map(|()| self.memory.list_keys()).boxed()
    }
}

over_memory!(NoIdsMeansAll);

#[async_trait]
impl KeyStore for NoIdsMeansAll {
    keep!(info, capabilities, get_key, put_key_with, delete_key, list_keys, check);

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        if ids.is_empty() {
            // No condition, no WHERE.
            let all: Vec<KeyId> = self.memory.list_keys().filter_map(|id| async { id.ok() }).collect().await;
            self.memory.delete_keys(&all).await;
            return Vec::new();
        }
        self.memory.delete_keys(ids).await
    }
}

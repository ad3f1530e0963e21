//! Stores that keep every promise in an unusual way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_conformance::async_trait;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Error, ErrorKind, Finality, KeyId,
    KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

use crate::over_memory::{OverMemory, keep, over_memory};

over_memory!(Listless);

#[async_trait]
impl KeyStore for Listless {
    keep!(info, get_key, put_key_with, delete_key, check);

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Durability::Process, Consistency::Strong, DeletionGrade::Immediate, None)
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        stream::iter([Err(Error::new(ErrorKind::Unsupported, Operation::List, "memory"))]).boxed()
    }
}

/// Before and after what the memory store does: a pause, as over a network.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Before and after what the memory store does: some polls without an answer.
async fn yields() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// A store that takes its time in this way.
macro_rules! takes_its_time {
    ($name:ident, $rest:ident, scale $scale:literal) => {
        #[derive(Debug)]
        pub(crate) struct $name {
            memory: MemoryStore,
        }

        impl OverMemory for $name {
            const SCALE: f64 = $scale;

            fn over(memory: MemoryStore) -> Self {
                Self { memory }
            }

            fn reopened(&self) -> Self {
                Self::over(self.memory.clone())
            }
        }

        #[async_trait]
        impl KeyStore for $name {
            keep!(info, capabilities, list_keys);

            async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
                $rest().await;
                let answer = self.memory.get_key(id).await;
                $rest().await;
                answer
            }

            async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
                $rest().await;
                let answer = self.memory.put_key_with(id, key, mode).await;
                $rest().await;
                answer
            }

            async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
                $rest().await;
                let answer = self.memory.delete_key(id).await;
                $rest().await;
                answer
            }

            async fn check(&self) -> Result<()> {
                $rest().await;
                self.memory.check().await
            }
        }
    };
}

takes_its_time!(Slow, pause, scale 0.1);
takes_its_time!(Yielding, yields, scale 1.0);

const LAG: Duration = Duration::from_millis(30);

/// The previous state of each id that was written lately, and the time of the write.
type Before = HashMap<KeyId, (Instant, Option<SecretKey>)>;

/// Reads and lists what stood a moment ago.
#[derive(Debug)]
pub(crate) struct Lagging {
    memory: MemoryStore,
    before: Arc<Mutex<Before>>,
}

impl Lagging {
    async fn remember(&self, id: &KeyId) {
        let old = self.memory.get_key(id).await.ok();
        let mut before = self.before.lock().expect("no call panics");
        let lately = before.get(id).filter(|(since, _)| since.elapsed() < LAG).map(|(_, key)| key.clone());
        before.insert(id.clone(), (Instant::now(), lately.unwrap_or(old)));
    }

    pub(crate) fn is_stale(&self, id: &KeyId) -> bool {
        self.stale(id).is_some()
    }

    fn stale(&self, id: &KeyId) -> Option<Option<SecretKey>> {
        let before = self.before.lock().expect("no call panics");
        before.get(id).filter(|(since, _)| since.elapsed() < LAG).map(|(_, key)| key.clone())
    }
}

impl OverMemory for Lagging {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, before: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), before: self.before.clone() }
    }
}

#[async_trait]
impl KeyStore for Lagging {
    keep!(info, check);

    fn capabilities(&self) -> Capabilities {
        let eventual = Consistency::Eventual { within: 3 * LAG };
        Capabilities::new(Durability::Process, eventual, DeletionGrade::Immediate, Some(eventual))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        match self.stale(id) {
            Some(stale) => stale.ok_or_else(|| Error::new(ErrorKind::NotFound, Operation::Get, "memory")),
            None => self.memory.get_key(id).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.remember(id).await;
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.remember(id).await;
        self.memory.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let stale = |id: &KeyId| matches!(self.stale(id), Some(None));
        self.memory.list_keys().filter(move |id| futures_util::future::ready(!id.as_ref().is_ok_and(stale))).boxed()
    }
}

const WINDOW: Duration = Duration::from_secs(7 * 86_400);

/// Schedules deletion; until it happens a key can neither be read nor replaced.
#[derive(Debug)]
pub(crate) struct Recoverable {
    memory: MemoryStore,
    scheduled: Arc<Mutex<HashMap<KeyId, SystemTime>>>,
}

impl Recoverable {
    pub(crate) fn is_scheduled(&self, id: &KeyId) -> bool {
        self.scheduled.lock().expect("no call panics").contains_key(id)
    }

    /// Takes the schedule back: the key is there again, as whoever recovers it wants.
    pub(crate) fn forget(&self, id: &KeyId) {
        self.scheduled.lock().expect("no call panics").remove(id);
    }

    fn refuse_scheduled(&self, id: &KeyId, operation: Operation) -> Result<()> {
        match self.is_scheduled(id) {
            true => Err(Error::new(ErrorKind::PendingDeletion, operation, "memory").with_retry_after(WINDOW)),
            false => Ok(()),
        }
    }
}

impl OverMemory for Recoverable {
    fn over(memory: MemoryStore) -> Self {
        Self { memory, scheduled: Arc::default() }
    }

    fn reopened(&self) -> Self {
        Self { memory: self.memory.clone(), scheduled: self.scheduled.clone() }
    }
}

#[async_trait]
impl KeyStore for Recoverable {
    keep!(info, list_keys, check);

    fn capabilities(&self) -> Capabilities {
        let strong = Consistency::Strong;
        Capabilities::new(Durability::Process, strong, DeletionGrade::Recoverable { window: WINDOW }, Some(strong))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.refuse_scheduled(id, Operation::Get)?;
        self.memory.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.refuse_scheduled(id, if mode == PutMode::Create { Operation::Create } else { Operation::Put })?;
        self.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.refuse_scheduled(id, Operation::Delete)?;
        self.memory.delete_key(id).await?;
        let until = SystemTime::now() + WINDOW;
        self.scheduled.lock().expect("no call panics").insert(id.clone(), until);
        Ok(Deletion::new(Finality::RecoverableUntil(until)))
    }
}

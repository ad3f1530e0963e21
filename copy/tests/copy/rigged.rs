//! [`Rigged`]: a memory store that a test can make fail, lag or lie.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Error, ErrorKind, KeyId,
    KeyStore, KeyStoreExt, Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

/// The scheme of the rigged stores.
const SCHEME: &str = "memory";

/// A call that is about to happen: the operation, the id if there is one, and the number of earlier
/// calls of this operation.
pub(crate) struct Event<'a> {
    pub(crate) operation: Operation,
    pub(crate) id: Option<&'a KeyId>,
    pub(crate) earlier: usize,
}

/// The outcome that replaces the real one.
pub(crate) enum Fate {
    Fail(ErrorKind),
    /// The operation does not happen, and the error leaves open whether it did.
    Lose(ErrorKind),
    /// The operation happens, but the answer is this error of unknown effect.
    HappenAndFail(ErrorKind),
}

type Rule = dyn Fn(&Event<'_>) -> Option<Fate> + Send + Sync;

/// A call as a remote store would count it: a page of ten ids, a batch, or a single operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) ids: usize,
    pub(crate) at: Instant,
}

#[derive(Clone)]
pub(crate) struct Rigged {
    pub(crate) memory: MemoryStore,
    rig: Arc<Rig>,
}

struct Rig {
    /// The store's description, if it is not that of the memory store.
    info: Mutex<Option<StoreInfo>>,
    /// The result of `identify`.
    identifies: Mutex<Option<std::result::Result<StoreInfo, ErrorKind>>>,
    durability: Durability,
    bound: Duration,
    /// True if a delete within the visibility bound of a write is not applied and answers "not
    /// found".
    deletes_late: bool,
    lists: bool,
    /// The batch size in its capabilities.
    batch_size: Option<usize>,
    /// The batch size for creating in its capabilities.
    creates_together: Option<usize>,
    forgets: bool,
    rule: Box<Rule>,
    calls: Mutex<Vec<Call>>,
    /// The state of each key before its last write, and the time of that write.
    before: Mutex<HashMap<KeyId, (Instant, Option<SecretKey>)>>,
}

impl Rigged {
    pub(crate) fn new(memory: &MemoryStore) -> Self {
        Self::ruled(memory, |_| None)
    }

    pub(crate) fn ruled(
        memory: &MemoryStore,
        rule: impl Fn(&Event<'_>) -> Option<Fate> + Send + Sync + 'static,
    ) -> Self {
        let rig = Rig {
            info: Mutex::default(),
            identifies: Mutex::default(),
            durability: Durability::Process,
            deletes_late: false,
            bound: Duration::ZERO,
            lists: true,
            batch_size: None,
            creates_together: None,
            forgets: false,
            rule: Box::new(rule),
            calls: Mutex::default(),
            before: Mutex::default(),
        };
        Self { memory: memory.clone(), rig: Arc::new(rig) }
    }

    /// Makes each write visible only after the bound.
    pub(crate) fn lagging(self, bound: Duration) -> Self {
        self.with(|rig| rig.bound = bound)
    }

    pub(crate) fn listless(self) -> Self {
        self.with(|rig| rig.lists = false)
    }

    pub(crate) fn batching(self, ids: usize) -> Self {
        self.with(|rig| rig.batch_size = Some(ids))
    }

    pub(crate) fn creating_together(self, keys: usize) -> Self {
        self.with(|rig| rig.creates_together = Some(keys))
    }

    /// Makes each batch lack its first outcome.
    pub(crate) fn forgetful(self) -> Self {
        self.with(|rig| rig.forgets = true)
    }

    /// Makes a delete within the bound of a write answer "not found" without being applied.
    pub(crate) fn deleting_late(self) -> Self {
        self.with(|rig| rig.deletes_late = true)
    }

    pub(crate) fn durable(self, durability: Durability) -> Self {
        self.with(|rig| rig.durability = durability)
    }

    /// Sets the description of the store.
    pub(crate) fn known_as(self, info: StoreInfo) -> Self {
        self.says(info);
        self
    }

    /// Changes the description of the store from now on.
    pub(crate) fn says(&self, info: StoreInfo) {
        *self.rig.info.lock().unwrap() = Some(info);
    }

    /// Sets the result of `identify`.
    pub(crate) fn identifies(&self, answer: std::result::Result<StoreInfo, ErrorKind>) {
        *self.rig.identifies.lock().unwrap() = Some(answer);
    }

    fn with(mut self, change: impl FnOnce(&mut Rig)) -> Self {
        change(Arc::get_mut(&mut self.rig).expect("it is not shared yet"));
        self
    }

    pub(crate) fn calls(&self, operation: Operation) -> Vec<Call> {
        let calls = self.rig.calls.lock().unwrap();
        calls.iter().filter(|call| call.operation == operation).copied().collect()
    }

    pub(crate) fn all_calls(&self) -> Vec<Call> {
        self.rig.calls.lock().unwrap().clone()
    }

    fn log(&self, operation: Operation, ids: usize) -> usize {
        let mut calls = self.rig.calls.lock().unwrap();
        calls.push(Call { operation, ids, at: Instant::now() });
        calls.iter().filter(|call| call.operation == operation).count() - 1
    }

    /// Returns the error to answer with, and whether the operation happens nevertheless.
    fn fate(&self, operation: Operation, id: Option<&KeyId>, earlier: usize) -> (Option<Error>, bool) {
        match (self.rig.rule)(&Event { operation, id, earlier }) {
            None => (None, true),
            Some(Fate::Fail(kind)) => {
                let e = Error::new(kind, operation, SCHEME).with_effect(Effect::NotApplied);
                (Some(e), false)
            }
            Some(Fate::Lose(kind)) => (Some(Error::new(kind, operation, SCHEME).with_effect(Effect::Unknown)), false),
            Some(Fate::HappenAndFail(kind)) => {
                (Some(Error::new(kind, operation, SCHEME).with_effect(Effect::Unknown)), true)
            }
        }
    }

    /// Writes a key without logging a call, as another program would.
    pub(crate) fn written_by_another(&self, id: &KeyId, key: &SecretKey) {
        futures_executor::block_on(async {
            self.remember(id).await;
            self.memory.put_key(id, key).await.unwrap();
        });
    }

    async fn remember(&self, id: &KeyId) {
        let earlier = self.memory.find_key(id).await.unwrap();
        self.rig.before.lock().unwrap().insert(id.clone(), (Instant::now(), earlier));
    }

    async fn read(&self, id: &KeyId, earlier: usize) -> Result<SecretKey> {
        if let (Some(e), _) = self.fate(Operation::Get, Some(id), earlier) {
            return Err(e);
        }
        let late = self.rig.before.lock().unwrap().get(id).filter(|(at, _)| at.elapsed() < self.rig.bound).cloned();
        match late {
            Some((_, before)) => before.ok_or_else(|| Error::new(ErrorKind::NotFound, Operation::Get, SCHEME)),
            None => self.memory.get_key(id).await,
        }
    }
}

impl fmt::Debug for Rigged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rigged")
    }
}

#[async_trait]
impl KeyStore for Rigged {
    fn info(&self) -> StoreInfo {
        let known = self.rig.info.lock().unwrap().clone();
        known.unwrap_or_else(|| {
            let store = self.memory.info().identity().store_id().unwrap_or_default().to_owned();
            StoreInfo::new(SCHEME, "rigged").with_store_id(store)
        })
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        tokio::task::yield_now().await;
        let answer = self.rig.identifies.lock().unwrap().clone();
        match answer {
            None => {}
            Some(Ok(info)) => self.says(info),
            Some(Err(kind)) => return Err(Error::new(kind, Operation::Check, SCHEME)),
        }
        Ok(self.info().identity().clone())
    }

    fn capabilities(&self) -> Capabilities {
        let consistency = match self.rig.bound {
            Duration::ZERO => Consistency::Strong,
            within => Consistency::Eventual { within },
        };
        let listing = self.rig.lists.then_some(Consistency::Strong);
        let mut capabilities = Capabilities::new(self.rig.durability, consistency, DeletionGrade::Immediate, listing);
        capabilities.batch_size = self.rig.batch_size;
        capabilities.create_batch_size = self.rig.creates_together;
        capabilities
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        let earlier = self.log(Operation::Get, 1);
        tokio::task::yield_now().await;
        self.read(id, earlier).await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let earlier = self.log(Operation::Get, ids.len());
        tokio::task::yield_now().await;
        let mut keys = Vec::new();
        for id in ids.iter().skip(usize::from(self.rig.forgets)) {
            keys.push(self.read(id, earlier).await);
        }
        keys
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        let earlier = self.log(operation, 1);
        tokio::task::yield_now().await;
        let (error, happens) = self.fate(operation, Some(id), earlier);
        if happens {
            let stands = self.memory.find_key(id).await?.is_some();
            if !(stands && mode == PutMode::Create) {
                self.remember(id).await;
            }
            self.memory.put_key_with(id, key, mode).await?;
            tokio::task::yield_now().await;
        }
        error.map_or(Ok(()), Err)
    }

    /// Logs one call for the whole batch.
    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        let earlier = self.log(Operation::Create, keys.len());
        tokio::task::yield_now().await;
        let mut outcomes = Vec::new();
        for (id, key) in keys.iter().skip(usize::from(self.rig.forgets)) {
            let (error, happens) = self.fate(Operation::Create, Some(id), earlier);
            let written = if happens { self.memory.put_key_with(id, key, PutMode::Create).await } else { Ok(()) };
            outcomes.push(error.map_or(written, Err));
        }
        outcomes
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let earlier = self.log(Operation::Delete, 1);
        tokio::task::yield_now().await;
        let (error, happens) = self.fate(Operation::Delete, Some(id), earlier);
        if !happens {
            return Err(error.expect("what does not happen fails"));
        }
        let is_late = |at: &Instant| at.elapsed() < self.rig.bound;
        if self.rig.deletes_late && self.rig.before.lock().unwrap().get(id).is_some_and(|(at, _)| is_late(at)) {
            return Err(Error::new(ErrorKind::NotFound, Operation::Delete, SCHEME));
        }
        self.remember(id).await;
        let deletion = self.memory.delete_key(id).await?;
        tokio::task::yield_now().await;
        error.map_or(Ok(deletion), Err)
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let start = async move {
            let earlier = self.log(Operation::List, 0);
            let (error, _) = self.fate(Operation::List, None, earlier);
            let ids: Vec<_> = self.memory.list_keys().collect().await;
            futures_util::stream::iter(error.map(Err).into_iter().chain(ids))
        };
        let ids = futures_util::stream::once(start).flatten();
        let pages = ids.enumerate().then(async |(number, id)| {
            if number % 10 == 0 {
                tokio::task::yield_now().await;
                if number > 0 {
                    self.rig.calls.lock().unwrap().push(Call {
                        operation: Operation::List,
                        ids: 10,
                        at: Instant::now(),
                    });
                }
            }
            id
        });
        pages.boxed()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }
}

//! A store over an engine whose answers invite a false success, in process: from a replica that
//! lags, about an entry that it does not delete, about a name that it holds back, about an entry
//! without a value. And what such stores get wrong.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keystead_conformance::{Fault, Faults, Harness, Namespace, Options, Report, async_trait, run};
use keystead_core::{
    BoxError, BoxStream, Capabilities, Consistency, Deletion, DeletionGrade, Durability, Effect, Erasure, Error,
    ErrorKind, Finality, KeyId, KeyStore, Operation, PutMode, Result, SecretKey, StoreInfo,
};
use keystead_memory::MemoryStore;

const SCHEME: &str = "memory";

/// The time for which the replica lags after a write.
const LAG: Duration = Duration::from_millis(40);

const BOUND: Duration = Duration::from_millis(80);

/// The pause between two tries.
const POLL: Duration = Duration::from_millis(5);

/// The number of times an erasure waits for the whole bound.
const ERASE_ROUNDS: usize = 3;

/// The mistake of a store.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Mistake {
    None,
    ErasesByOneStaleAnswer,
    SeenKeyNeverExisted,
    RefusedDeleteIsErased,
    HeldNameIsPending,
    HeldNameIsNotWaitedFor,
    ValuelessIsNotFound,
    IdentityIsShared,
    IdentityChangesByHandle,
}

/// A store that makes one mistake, or none.
pub(crate) trait Makes: Default + fmt::Debug + Send + Sync + 'static {
    const MISTAKE: Mistake;
}

macro_rules! makes {
    ($($name:ident),+) => {
        $(#[derive(Debug, Default)]
        pub(crate) struct $name;

        impl Makes for $name {
            const MISTAKE: Mistake = Mistake::$name;
        })+
    };
}

#[derive(Debug, Default)]
pub(crate) struct Honest;

impl Makes for Honest {
    const MISTAKE: Mistake = Mistake::None;
}

makes!(
    ErasesByOneStaleAnswer,
    SeenKeyNeverExisted,
    RefusedDeleteIsErased,
    HeldNameIsPending,
    HeldNameIsNotWaitedFor,
    ValuelessIsNotFound,
    IdentityIsShared,
    IdentityChangesByHandle
);

/// The moment of each id's last write, and the key before it.
type LastWrites = HashMap<KeyId, (Instant, Option<SecretKey>)>;

#[derive(Debug, Default)]
struct Engine {
    memory: MemoryStore,
    last_writes: Mutex<LastWrites>,
    without_value: Mutex<HashSet<KeyId>>,
    script: Mutex<Vec<(Option<Operation>, Fault, u32)>>,
    handles: AtomicU32,
}

impl Engine {
    /// Meets this fault if it is scripted for this operation, and uses it up.
    fn meets(&self, operation: Operation, fault: &Fault) -> bool {
        let mut script = self.script.lock().expect("no call panics");
        let met = script
            .iter_mut()
            .find(|(op, scripted, left)| *left > 0 && scripted == fault && op.is_none_or(|op| op == operation));
        met.map(|(_, _, left)| *left -= 1).is_some()
    }

    /// Returns the replica's entry for an id whose last write it has not seen, if it is the one
    /// that answers.
    fn stale(&self, id: &KeyId, operation: Operation) -> Option<Option<SecretKey>> {
        let (at, before) = self.last_writes.lock().expect("no call panics").get(id).cloned()?;
        (at.elapsed() < LAG && self.meets(operation, &Fault::Stale)).then_some(before)
    }

    async fn remember(&self, id: &KeyId) {
        let before = self.memory.get_key(id).await.ok();
        self.last_writes.lock().expect("no call panics").insert(id.clone(), (Instant::now(), before));
    }

    fn is_without_value(&self, id: &KeyId) -> bool {
        self.without_value.lock().expect("no call panics").contains(id)
    }
}

#[derive(Debug)]
struct Doubtful<M> {
    engine: Arc<Engine>,
    handle: u32,
    mistake: PhantomData<M>,
}

fn failed(kind: ErrorKind, operation: Operation) -> Error {
    Error::new(kind, operation, SCHEME)
}

#[async_trait]
impl<M: Makes> KeyStore for Doubtful<M> {
    fn info(&self) -> StoreInfo {
        match M::MISTAKE {
            Mistake::IdentityIsShared => StoreInfo::new(SCHEME, "").with_store_id("1"),
            Mistake::IdentityChangesByHandle => self.engine.memory.info().with_region(self.handle.to_string()),
            _ => self.engine.memory.info(),
        }
    }

    fn capabilities(&self) -> Capabilities {
        let eventual = Consistency::Eventual { within: BOUND };
        Capabilities::new(Durability::Process, eventual, DeletionGrade::Immediate, Some(eventual))
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        if self.engine.is_without_value(id) {
            let kind = match M::MISTAKE {
                Mistake::ValuelessIsNotFound => ErrorKind::NotFound,
                _ => ErrorKind::Corrupt,
            };
            return Err(failed(kind, Operation::Get));
        }
        match self.engine.stale(id, Operation::Get) {
            Some(before) => before.ok_or_else(|| failed(ErrorKind::NotFound, Operation::Get)),
            None => self.engine.memory.get_key(id).await,
        }
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = if mode == PutMode::Create { Operation::Create } else { Operation::Put };
        if self.engine.is_without_value(id) && mode == PutMode::Create {
            let kind = match M::MISTAKE {
                Mistake::ValuelessIsNotFound => ErrorKind::AlreadyExists,
                _ => ErrorKind::Corrupt,
            };
            return Err(failed(kind, operation));
        }
        if self.engine.meets(operation, &Fault::NameHeld) {
            return Err(match M::MISTAKE {
                Mistake::HeldNameIsPending => failed(ErrorKind::PendingDeletion, operation),
                _ => failed(ErrorKind::Conflict, operation).with_retry_after(BOUND),
            });
        }
        self.engine.remember(id).await;
        self.engine.without_value.lock().expect("no call panics").remove(id);
        self.engine.memory.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        if self.engine.meets(Operation::Delete, &Fault::Refused) {
            return Err(match M::MISTAKE {
                Mistake::RefusedDeleteIsErased => failed(ErrorKind::PendingDeletion, Operation::Delete),
                _ => failed(ErrorKind::Config, Operation::Delete),
            });
        }
        if self.engine.stale(id, Operation::Delete).is_some() {
            return Err(failed(ErrorKind::NotFound, Operation::Delete));
        }
        if self.engine.without_value.lock().expect("no call panics").remove(id) {
            return Ok(Deletion::new(Finality::Immediate));
        }
        self.engine.remember(id).await;
        self.engine.memory.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.engine.memory.list_keys()
    }

    async fn check(&self) -> Result<()> {
        Ok(())
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        let begin = Instant::now();
        loop {
            let is_last = begin.elapsed() >= BOUND;
            let refusal = match self.put_key_with(id, candidate, PutMode::Create).await {
                Ok(()) => return Ok(candidate.clone()),
                Err(e) => e,
            };
            match refusal.kind() {
                ErrorKind::Conflict if M::MISTAKE == Mistake::HeldNameIsNotWaitedFor => return Err(refusal),
                ErrorKind::Conflict => {}
                ErrorKind::AlreadyExists => match self.get_key(id).await {
                    Err(e) if e.kind() == ErrorKind::NotFound => {}
                    answer => return answer,
                },
                _ => return Err(refusal),
            }
            if is_last {
                return Err(failed(ErrorKind::Conflict, Operation::Create).with_retry_after(BOUND));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let mut existed = false;
        for round in 0..ERASE_ROUNDS {
            match self.delete_key(id).await {
                // The mistake: what the first delete has not found was never there.
                Ok(_) => existed |= round == 0 || M::MISTAKE != Mistake::SeenKeyNeverExisted,
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) if e.kind() == ErrorKind::PendingDeletion => {
                    return Ok(Erasure::new(
                        true,
                        Finality::of_pending_deletion(DeletionGrade::Immediate, None),
                        false,
                    ));
                }
                Err(e) => return Err(e.with_operation(Operation::Erase)),
            }
            tokio::time::sleep(BOUND).await;
            match self.get_key(id).await {
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Ok(Erasure::new(existed, Finality::Immediate, true));
                }
                _ if M::MISTAKE == Mistake::ErasesByOneStaleAnswer => {
                    return Ok(Erasure::new(existed, Finality::Immediate, false));
                }
                Ok(_) => {}
                Err(e) => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
            }
        }
        Err(failed(ErrorKind::Conflict, Operation::Erase).with_effect(Effect::Unknown).with_retry_after(BOUND))
    }
}

#[derive(Default)]
struct Engines<M> {
    engines: Mutex<HashMap<Namespace, Arc<Engine>>>,
    mistake: PhantomData<M>,
}

impl<M> Engines<M> {
    fn of(&self, ns: &Namespace) -> Arc<Engine> {
        self.engines.lock().expect("no harness call panics").entry(ns.clone()).or_default().clone()
    }
}

#[async_trait]
impl<M: Makes> Harness for Engines<M> {
    fn name(&self) -> &str {
        std::any::type_name::<M>()
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let engine = self.of(ns);
        let handle = engine.handles.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(Doubtful::<M> { engine, handle, mistake: PhantomData }))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    async fn plant_without_value(&self, ns: &Namespace, id: &KeyId) -> Result<bool, BoxError> {
        self.of(ns).without_value.lock().expect("no harness call panics").insert(id.clone());
        Ok(true)
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl<M: Makes> Faults for Engines<M> {
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError> {
        if !matches!(fault, Fault::Stale | Fault::Refused | Fault::NameHeld) {
            return Ok(false);
        }
        self.of(ns).script.lock().expect("no harness call panics").push((op, fault, requests));
        Ok(true)
    }

    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.of(ns).script.lock().expect("no harness call panics").clear();
        Ok(())
    }

    fn call_bound(&self) -> Duration {
        Duration::from_secs(5)
    }
}

/// Runs the whole suite over a store that makes this mistake.
pub(crate) fn doubtful_over<M: Makes>() -> Report {
    let options = Options { scale: 0.2, ..Options::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build();
    let runtime = runtime.expect("the system gives the threads of a runtime");
    let report = runtime.block_on(run(Engines::<M>::default(), options));
    runtime.shutdown_background();
    report
}

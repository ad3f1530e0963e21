//! [`Faulty`]: a store that fails when a test wants it to.

mod script;

use std::future;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Deletion, Effect, Erasure, Error, ErrorDetails, ErrorKind, KeyId, KeyStore, Operation,
    PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};

use self::script::{Answer, Chance, Script};
use crate::describe::misconfigured;
use crate::distinct::Distinct;

/// The kinds of seeded failures if none are set: those that time may cure.
const USUAL_KINDS: [ErrorKind; 3] = [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Timeout];

/// A store that fails on demand: for unit tests of what your code does then. A memory store never
/// says `Throttled`.
///
/// Faults are **scripted** (the next call, or the next one of an operation, meets this [`Fault`])
/// or **seeded** (each call fails with this probability). Keep an `Arc` of it in the test to add
/// faults while the code under test runs.
///
/// # What it promises
/// - A call meets the first scripted fault that is for its operation, and uses it up. Only a call
///   that finds none is subject to the seeded ones.
/// - An error is given instead of a call: nothing reaches the store beneath, and a write says
///   [`Effect::NotApplied`], whatever its kind. [`Fault::applied`] makes it the other case that
///   code forgets: the write is carried out, and the caller is told the error, with
///   [`Effect::Unknown`].
/// - The same seed and the same calls in the same order give the same failures.
/// - `put_key` is a [`Put`](Operation::Put), `create_key` and `get_or_create` are a
///   [`Create`](Operation::Create) each, and what `erase_key` and `get_or_create` do within the
///   store beneath meets no further faults. (`get_or_create_key` reads first: a
///   [`Get`](Operation::Get).)
/// - Each distinct id of a batch is a call of its own, one after the other. A batch for whose
///   operation there is no fault goes to the store beneath as one.
/// - A listing meets its fault when it is polled first: an error is its only item.
///
/// Capabilities are those of the store beneath. Latencies need a Tokio runtime with time, in a test
/// best with its clock paused; all else runs in any executor.
///
/// ```
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, SecretKey};
/// use keystead_layers::{Fault, Faulty};
/// use keystead_memory::MemoryStore;
///
/// # futures_executor::block_on(async {
/// let store = Faulty::builder(MemoryStore::new())
///     .fault(Fault::error(ErrorKind::Throttled).on(Operation::Get))
///     .fault(Fault::error(ErrorKind::Timeout).on(Operation::Put).applied())
///     .build()?;
/// let (alice, key) = (KeyId::new("alice")?, SecretKey::generate(32)?);
///
/// assert_eq!(store.put_key(&alice, &key).await.unwrap_err().kind(), ErrorKind::Timeout);
/// assert_eq!(store.get_key(&alice).await.unwrap_err().kind(), ErrorKind::Throttled);
/// assert_eq!(store.pending(), 0);
/// // The write that timed out had landed.
/// assert_eq!(store.get_key(&alice).await?, key);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct Faulty<S> {
    store: S,
    scheme: &'static str,
    script: Mutex<Script>,
}

/// A builder of a [`Faulty`].
#[derive(Clone, Debug)]
pub struct FaultyBuilder<S> {
    store: S,
    faults: Vec<Fault>,
    seed: u64,
    failure_rate: f64,
    kinds: Vec<ErrorKind>,
    latency: RangeInclusive<Duration>,
    applied_rate: f64,
}

/// The fault that a call meets: an error, a pause, or no answer at all.
#[derive(Clone, Debug)]
pub struct Fault {
    pause: Duration,
    answer: Answer,
    applied: bool,
    on: Option<Operation>,
    times: u32,
    retry_after: Option<Duration>,
    details: Option<ErrorDetails>,
}

impl Fault {
    /// The call fails with this kind, and has no effect.
    pub fn error(kind: ErrorKind) -> Self {
        Self::new(Duration::ZERO, Answer::Error(kind))
    }

    /// The call is carried out after this pause.
    pub fn latency(pause: Duration) -> Self {
        Self::new(pause, Answer::Real)
    }

    /// The call never ends, and has no effect: what a timeout is for.
    pub fn hang() -> Self {
        Self::new(Duration::ZERO, Answer::None)
    }

    fn new(pause: Duration, answer: Answer) -> Self {
        Self { pause, answer, applied: false, on: None, times: 1, retry_after: None, details: None }
    }

    /// The call has its effect all the same: it is carried out before the error is told, or before
    /// silence falls. The effect of a write is then [`Effect::Unknown`] to the caller.
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Only calls of this operation meet it; any does if nothing is said.
    pub fn on(mut self, operation: Operation) -> Self {
        self.on = Some(operation);
        self
    }

    /// Sets the number of calls that meet the fault (default: 1).
    pub fn times(mut self, calls: u32) -> Self {
        self.times = calls;
        self
    }

    /// The error asks to be tried again after this time.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// The error has these details, as a service's answer would.
    pub fn with_details(mut self, details: ErrorDetails) -> Self {
        self.details = Some(details);
        self
    }
}

impl<S: KeyStore> Faulty<S> {
    /// Faults around this store; none if nothing else is said.
    pub fn builder(store: S) -> FaultyBuilder<S> {
        FaultyBuilder {
            store,
            faults: Vec::new(),
            seed: 0,
            failure_rate: 0.0,
            kinds: USUAL_KINDS.to_vec(),
            latency: Duration::ZERO..=Duration::ZERO,
            applied_rate: 0.0,
        }
    }

    /// Adds a fault behind those that wait to be met.
    pub fn inject(&self, fault: Fault) {
        self.script().faults.push_back(fault);
    }

    /// Ends all faults, the seeded ones and latencies too: from now on each call is carried out as
    /// it is.
    pub fn clear(&self) {
        let mut script = self.script();
        script.faults.clear();
        script.chance = None;
    }

    /// Returns the number of calls that have yet to meet a scripted fault. It is zero when all
    /// faults that the test has prepared have occurred.
    pub fn pending(&self) -> usize {
        self.script().faults.iter().fold(0, |calls, fault| calls.saturating_add(fault.times as usize))
    }

    /// Returns the number of calls of an operation that this store has received, including those
    /// that met a fault.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.script().calls.get(&operation).copied().unwrap_or(0)
    }

    // A poisoned lock is used on: what a test counts after a panic is its own affair.
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries a call out, or what is to happen in its place.
    async fn meet<T>(&self, operation: Operation, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fault = self.script().next(operation);
        if !fault.pause.is_zero() {
            tokio::time::sleep(fault.pause).await;
        }
        if fault.answer == Answer::Real {
            return call.await;
        }
        if fault.applied {
            // Whether it came off is what the caller is not to learn.
            drop(call.await);
        }
        match fault.answer {
            Answer::Error(kind) => Err(self.error(kind, operation, fault)),
            _ => future::pending().await,
        }
    }

    fn error(&self, kind: ErrorKind, operation: Operation, fault: Fault) -> Error {
        use Operation::{Create, Delete, Erase, Put};
        let unknown = fault.applied && matches!(operation, Put | Create | Delete | Erase);
        let mut error = Error::new(kind, operation, self.scheme)
            .with_effect(if unknown { Effect::Unknown } else { Effect::NotApplied })
            .with_source("a fault that the test has asked for");
        if let Some(pause) = fault.retry_after {
            error = error.with_retry_after(pause);
        }
        if let Some(details) = fault.details {
            error = error.with_details(details);
        }
        error
    }

    /// Reports whether a batch of this many ids can go to the store beneath as one.
    fn passes_whole(&self, operation: Operation, len: usize) -> bool {
        let mut script = self.script();
        let free = script.is_free_of(operation);
        if free {
            script.count(operation, len as u64);
        }
        free
    }
}

impl<S: KeyStore> FaultyBuilder<S> {
    /// Adds a scripted fault behind those added before.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Sets the seed of the random failures and latencies (default: 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The share of calls that fail, 0 (the default) to 1.
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = share;
        self
    }

    /// Sets the kinds of the seeded failures, each as likely as the others (default:
    /// [`Throttled`](ErrorKind::Throttled), [`Unavailable`](ErrorKind::Unavailable) and
    /// [`Timeout`](ErrorKind::Timeout)).
    pub fn kinds(mut self, kinds: impl IntoIterator<Item = ErrorKind>) -> Self {
        self.kinds = kinds.into_iter().collect();
        self
    }

    /// Sets the range of the pause that each call makes before its answer unless it meets a
    /// scripted fault (default: no pause).
    pub fn latency(mut self, pause: RangeInclusive<Duration>) -> Self {
        self.latency = pause;
        self
    }

    /// The share of the seeded failures that are applied all the same (see [`Fault::applied`]), 0
    /// (the default) to 1.
    pub fn applied_rate(mut self, share: f64) -> Self {
        self.applied_rate = share;
        self
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a share is not between 0 and 1, the shortest latency is
    /// longer than the longest, or there are to be failures of no kind.
    pub fn build(self) -> Result<Faulty<S>> {
        let shares = 0.0..=1.0;
        let why = if !shares.contains(&self.failure_rate) {
            "the failure rate is not between 0 and 1: set another one"
        } else if !shares.contains(&self.applied_rate) {
            "the rate of applied failures is not between 0 and 1: set another one"
        } else if self.latency.is_empty() {
            "the shortest latency is longer than the longest: set them the other way round"
        } else if self.failure_rate > 0.0 && self.kinds.is_empty() {
            "there is no kind for the failures to be of: name one, or leave the kinds out"
        } else {
            let chance = Chance::new(self.seed, self.failure_rate, self.kinds, self.latency, self.applied_rate);
            let script = Script::new(self.faults, chance);
            let scheme = self.store.info().scheme();
            return Ok(Faulty { store: self.store, scheme, script: Mutex::new(script) });
        };
        Err(misconfigured(&self.store, why))
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Faulty<S> {
    fn info(&self) -> StoreInfo {
        self.store.info().with_note("faulty")
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.meet(Operation::Get, self.store.get_key(id)).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let operation = match mode {
            PutMode::Create => Operation::Create,
            _ => Operation::Put,
        };
        self.meet(operation, self.store.put_key_with(id, key, mode)).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.meet(Operation::Delete, self.store.delete_key(id)).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let start = async move {
            match self.meet(Operation::List, future::ready(Ok(()))).await {
                Ok(()) => self.store.list_keys(),
                Err(e) => stream::iter([Err(e)]).boxed(),
            }
        };
        start.flatten_stream().boxed()
    }

    async fn check(&self) -> Result<()> {
        self.meet(Operation::Check, self.store.check()).await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.store.identify().await
    }

    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let batch = Distinct::of(ids);
        if self.passes_whole(Operation::Get, batch.ids.len()) {
            return self.store.get_keys(ids).await;
        }
        // One after the other, so that their order, and with it who fails, does not depend on how
        // long each takes.
        let mut outcomes = Vec::with_capacity(batch.ids.len());
        for id in &batch.ids {
            outcomes.push(self.get_key(id).await);
        }
        batch.spread(&outcomes)
    }

    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let batch = Distinct::of(ids);
        if self.passes_whole(Operation::Delete, batch.ids.len()) {
            return self.store.delete_keys(ids).await;
        }
        let mut outcomes = Vec::with_capacity(batch.ids.len());
        for id in &batch.ids {
            outcomes.push(self.delete_key(id).await);
        }
        batch.spread(&outcomes)
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        if self.passes_whole(Operation::Create, keys.len()) {
            return self.store.create_keys(keys).await;
        }
        let mut outcomes = Vec::with_capacity(keys.len());
        for (id, key) in keys {
            outcomes.push(self.put_key_with(id, key, PutMode::Create).await);
        }
        outcomes
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        self.meet(Operation::Create, self.store.get_or_create(id, candidate)).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        self.meet(Operation::Erase, self.store.erase_key(id)).await
    }
}

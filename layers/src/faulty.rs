//! [`Faulty`]: a store that fails on demand.

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

/// The default kinds of seeded failures: errors that time may cure.
const USUAL_KINDS: [ErrorKind; 3] = [ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Timeout];

/// A store that fails on demand, for tests of how your code handles failures.
///
/// Faults are **scripted** or **seeded**. A scripted [`Fault`] applies to the next call, or to the
/// next call of one operation. Seeded failures happen to each call with a given probability. Keep
/// an `Arc` of the store in the test to add faults while the code under test runs.
///
/// # What it promises
/// - A call meets the first scripted fault that applies to its operation, and uses it up. Only if
///   there is none, seeded failures apply.
/// - An error replaces the call: nothing reaches the store beneath, and the effect of a write is
///   [`Effect::NotApplied`], whatever the kind. With [`Fault::applied`] the write is carried out
///   first, and the effect of the error is [`Effect::Unknown`].
/// - The same seed and the same calls in the same order give the same failures.
/// - `put_key` is a [`Put`](Operation::Put); `create_key` and `get_or_create` are each a
///   [`Create`](Operation::Create). `get_or_create_key` reads first, which is a
///   [`Get`](Operation::Get). The calls that `erase_key` and `get_or_create` make within the store
///   beneath meet no further faults.
/// - Each distinct id of a batch is a separate call, and these are made one after the other. If no
///   fault applies to the operation, the batch goes to the store beneath as a whole.
/// - A listing meets its fault when it is first polled. An error is then its only item.
///
/// The capabilities are those of the store beneath. Latencies need a Tokio runtime with its timer;
/// pause its clock in tests. Everything else works in any executor.
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
/// let alice = KeyId::new("alice")?;
/// let key = SecretKey::generate(32)?;
///
/// assert_eq!(store.put_key(&alice, &key).await.unwrap_err().kind(), ErrorKind::Timeout);
/// assert_eq!(store.get_key(&alice).await.unwrap_err().kind(), ErrorKind::Throttled);
/// assert_eq!(store.pending(), 0);
/// // The write that timed out was applied.
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

/// A builder of a [`Faulty`]. The setters cannot fail; [`build`](Self::build) checks everything.
#[derive(Clone, Debug)]
#[must_use]
pub struct FaultyBuilder<S> {
    store: S,
    faults: Vec<Fault>,
    seed: u64,
    failure_rate: f64,
    kinds: Vec<ErrorKind>,
    latency: RangeInclusive<Duration>,
    applied_rate: f64,
}

/// A fault that a call meets: an error, a delay, or no answer at all.
#[derive(Clone, Debug)]
#[must_use]
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
    /// Creates a fault in which the call fails with this kind and has no effect.
    pub fn error(kind: ErrorKind) -> Self {
        Self::new(Duration::ZERO, Answer::Error(kind))
    }

    /// Creates a fault in which the call is carried out after this delay.
    pub fn latency(pause: Duration) -> Self {
        Self::new(pause, Answer::Real)
    }

    /// Creates a fault in which the call never ends and has no effect.
    pub fn hang() -> Self {
        Self::new(Duration::ZERO, Answer::None)
    }

    fn new(pause: Duration, answer: Answer) -> Self {
        Self { pause, answer, applied: false, on: None, times: 1, retry_after: None, details: None }
    }

    /// Lets the call take effect: it is carried out before the fault occurs. To the caller, the
    /// effect of a write is then [`Effect::Unknown`].
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }

    /// Restricts the fault to calls of this operation. By default it applies to any call.
    pub fn on(mut self, operation: Operation) -> Self {
        self.on = Some(operation);
        self
    }

    /// Sets the number of calls that meet the fault (default: 1).
    pub fn times(mut self, calls: u32) -> Self {
        self.times = calls;
        self
    }

    /// Sets the [`retry_after`](Error::retry_after) of the error.
    pub fn retry_after(mut self, pause: Duration) -> Self {
        self.retry_after = Some(pause);
        self
    }

    /// Sets the [`details`](Error::details) of the error.
    pub fn details(mut self, details: ErrorDetails) -> Self {
        self.details = Some(details);
        self
    }
}

impl<S: KeyStore> Faulty<S> {
    /// Returns a builder of a store that fails on demand, with this store beneath. By default it
    /// does not fail.
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

    /// Adds a scripted fault after those that no call has met yet.
    pub fn inject(&self, fault: Fault) {
        self.script().faults.push_back(fault);
    }

    /// Removes all faults, including seeded failures and latencies. From now on each call is
    /// carried out unchanged.
    pub fn clear(&self) {
        let mut script = self.script();
        script.faults.clear();
        script.chance = None;
    }

    /// Returns the number of scripted faults that have not occurred yet.
    pub fn pending(&self) -> usize {
        self.script().faults.iter().fold(0, |calls, fault| calls.saturating_add(fault.times as usize))
    }

    /// Returns the number of calls of an operation that this store has received, including those
    /// that met a fault.
    pub fn calls(&self, operation: Operation) -> u64 {
        self.script().calls.get(&operation).copied().unwrap_or(0)
    }

    // Poisoning is ignored: a test that goes on after a panic may still read the counts.
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out a call, or the fault that it meets.
    async fn meet<T>(&self, operation: Operation, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fault = self.script().next(operation);
        if !fault.pause.is_zero() {
            tokio::time::sleep(fault.pause).await;
        }
        if fault.answer == Answer::Real {
            return call.await;
        }
        if fault.applied {
            // The caller is not told whether the call succeeded.
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
            .with_source("this is an injected fault");
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
    /// Adds a scripted fault after those added before.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Sets the seed of the random failures and latencies (default: 0).
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the probability of a seeded failure, from 0 (the default) to 1.
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

    /// Sets the range of the random delay of each call that meets no scripted fault (default: no
    /// delay).
    pub fn latency(mut self, pause: RangeInclusive<Duration>) -> Self {
        self.latency = pause;
        self
    }

    /// Sets the probability with which a seeded failure is applied (see [`Fault::applied`]), from 0
    /// (the default) to 1.
    pub fn applied_rate(mut self, share: f64) -> Self {
        self.applied_rate = share;
        self
    }

    /// Builds the store.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if a probability is not between 0 and 1, if the shortest
    /// latency is longer than the longest one, or if calls are to fail but the list of kinds is
    /// empty.
    pub fn build(self) -> Result<Faulty<S>> {
        let shares = 0.0..=1.0;
        let why = if !shares.contains(&self.failure_rate) {
            "the failure rate is not between 0 and 1: set another one"
        } else if !shares.contains(&self.applied_rate) {
            "the rate of applied failures is not between 0 and 1: set another one"
        } else if self.latency.is_empty() {
            "the shortest latency is longer than the longest one: swap them"
        } else if self.failure_rate > 0.0 && self.kinds.is_empty() {
            "the list of kinds is empty, but calls are to fail: name a kind, or leave the list out"
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
        // One after the other, so that it does not depend on their duration which of them fail.
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

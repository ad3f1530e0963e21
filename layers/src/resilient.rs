//! [`Resilient`]: time limits and retries.

mod batch;
mod call;

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, Finality, KeyId, KeyStore,
    Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait, create_each,
};
use tokio::time::Instant;

use self::batch::Batch;
use self::call::TimedCall;
use crate::describe::misconfigured;
use crate::distinct::Distinct;

/// The pause between two reads that wait for a written key to become visible.
const POLL: Duration = Duration::from_millis(100);

/// The largest number of visibility bounds for which a store waits during one erasure. If a read
/// still sees the key, the store deletes it and waits again.
const BOUNDS_OF_AN_ERASURE: u32 = 4;

/// The largest number of visibility bounds for which a store waits during one creation, if another
/// caller has created a key that is not visible yet.
const BOUNDS_OF_A_CREATION: u32 = 3;

/// A store whose calls have time limits and are retried. Use it for a store that is reached over a
/// network.
///
/// Each attempt of a call has a time limit, and the call as a whole has a deadline. After an error
/// that time may cure ([`Error::is_retryable`]) there is a pause and then another attempt. The
/// pauses grow and are random, so that clients that failed together do not retry together. A pause
/// is never shorter than the store asks for ([`Error::retry_after`]). If the pause would exceed the
/// deadline, the last error is returned at once.
///
/// # What it promises
/// - No call takes longer than the deadline, whatever the store does. Batches and listings have
///   limits of their own, see below. If the store itself waits for its visibility bound, both
///   limits are extended: by four bounds for an erasure, which the store verifies, and by three for
///   a `get_or_create`, which may wait for another caller's key.
/// - A write without an answer is settled by reading the key back. If the written key is found, the
///   write returns `Ok`. A deletion after which no key is found returns `Ok` on a
///   [`Strong`](Consistency::Strong) store. An erasure then has `existed: true`, because it can no
///   longer be known whether there was a key. A write that cannot be settled fails with
///   [`Effect::Unknown`], and never with an `AlreadyExists` or `NotFound` that claims to be
///   certain.
/// - An erasure is retried if it fails with [`Conflict`](ErrorKind::Conflict) because reads still
///   see the key.
/// - A definite answer is not retried, such as not found, denied or damaged.
///
/// # Batches
/// A batch is sent in chunks. Each chunk is an attempt with its own time limit, so that received
/// answers are kept and only the rest is retried. A chunk has as many ids as one call to the engine
/// handles ([`Capabilities::batch_size`], which [`Limited`](crate::Limited) sets). If that is not
/// known, it has 100 ids, and fewer after a chunk has timed out. The ids of a chunk that has timed
/// out are retried one by one, so that an id that hangs does not affect the others. At most 16
/// chunks are in flight at once. While answers are slow there are fewer, down to one, so that
/// chunks do not time out while they wait for each other at a rate limit beneath.
///
/// Each id has up to [`max_attempts`](ResilientBuilder::max_attempts) attempts. A batch ends when
/// it has made no progress for the time of the [`deadline`](ResilientBuilder::deadline). It makes
/// progress when an id gets its outcome: a key, a deletion, or an error that time cannot cure. So a
/// batch of n distinct ids takes at most n + 1 deadlines. An id for which no call was made by then
/// fails with [`Timeout`](ErrorKind::Timeout) and [`Effect::NotApplied`].
///
/// A listing is retried until it has returned its first id. From then on, the time limit of an
/// attempt applies to each further id.
///
/// # Where to put it
/// Put it around the store, with [`Limited`](crate::Limited) between the two so that each attempt
/// counts. Turn off the retries of the store itself, or the attempts multiply: build an AWS store
/// with `sdk_attempts(1)`. [`Cached`](crate::Cached) goes around it. The opposite order would
/// settle writes by reading from the cache, so [`build`](ResilientBuilder::build) refuses it.
///
/// A retried write may be applied late. If another caller has deleted the key meanwhile, the write
/// brings it back. Only [`Fenced`](crate::Fenced) prevents that.
///
/// It needs a Tokio runtime with its timer.
///
/// ```
/// use std::time::Duration;
///
/// use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation};
/// use keystead_layers::{Fault, Faulty, Resilient};
/// use keystead_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build()?.block_on(async {
/// let unsteady = Faulty::builder(MemoryStore::new()).fault(Fault::error(ErrorKind::Throttled).times(2)).build()?;
/// let store = Resilient::builder(unsteady).attempt_timeout(Duration::from_secs(1)).build()?;
/// store.get_or_create_key(&KeyId::new("alice")?).await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Resilient<S> {
    store: S,
    settings: RetrySettings,
}

/// A builder of a [`Resilient`]. The setters cannot fail; [`build`](Self::build) checks everything.
#[derive(Clone, Debug)]
#[must_use]
pub struct ResilientBuilder<S> {
    store: S,
    settings: RetrySettings,
}

#[derive(Clone, Copy, Debug)]
struct RetrySettings {
    attempt_timeout: Duration,
    deadline: Duration,
    max_attempts: u32,
    first_pause: Duration,
    longest_pause: Duration,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            attempt_timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(20),
            max_attempts: 4,
            first_pause: Duration::from_millis(100),
            longest_pause: Duration::from_secs(5),
        }
    }
}

impl<S: KeyStore> ResilientBuilder<S> {
    /// Sets the time limit of one attempt, 5 seconds by default.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.settings.attempt_timeout = attempt_timeout;
        self
    }

    /// Sets the time limit of a call with all its attempts and pauses, 20 seconds by default. For a
    /// batch, it is the longest time without progress.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Sets the largest number of attempts for a call, or for an id of a batch, 4 by default. With
    /// 1 nothing is retried.
    ///
    /// The reads that settle a write are not counted. One such read follows each attempt with an
    /// unknown outcome.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.settings.max_attempts = max_attempts;
        self
    }

    /// Sets the limits of the pauses: 100 milliseconds and 5 seconds by default.
    ///
    /// The pause before the second attempt is random, up to `first`. The limit doubles with each
    /// further attempt, up to `longest`.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.first_pause = first;
        self.settings.longest_pause = longest;
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) in these cases:
    /// - `max_attempts` or `attempt_timeout` is zero.
    /// - The deadline is shorter than `attempt_timeout`.
    /// - The first pause is longer than the longest one.
    /// - Reads of the store may come from a cache ([`Capabilities::cached`]).
    pub fn build(self) -> Result<Resilient<S>> {
        let RetrySettings { attempt_timeout, deadline, max_attempts, first_pause, longest_pause } = self.settings;
        let wrong = if self.store.capabilities().cached {
            Some("it is around a cache and would settle writes by reading from the cache: put the cache around it")
        } else if max_attempts == 0 {
            Some("max_attempts is zero: set 1 to try once")
        } else if attempt_timeout.is_zero() {
            Some("attempt_timeout is zero: set the longest time that an answer may take")
        } else if deadline < attempt_timeout {
            Some("the deadline is shorter than attempt_timeout: set a longer deadline or a shorter timeout")
        } else if first_pause > longest_pause {
            Some("the first pause is longer than the longest one: swap them")
        } else {
            None
        };
        match wrong {
            Some(why) => Err(misconfigured(&self.store, why)),
            None => Ok(Resilient { store: self.store, settings: self.settings }),
        }
    }
}

/// The result of reading a key back after a write whose effect is unknown.
enum ReadBack {
    /// The written key.
    Ours,
    /// Another key.
    Another,
    /// No key was found, or it could not be read.
    Unseen,
}

impl<S: KeyStore> Resilient<S> {
    /// Returns a builder of time limits and retries around this store.
    pub fn builder(store: S) -> ResilientBuilder<S> {
        ResilientBuilder { store, settings: RetrySettings::default() }
    }

    /// Begins a call, during which the store waits for its visibility bound at most `bounds` times.
    fn call(&self, operation: Operation, bounds: u32) -> TimedCall {
        let wait = self.store.capabilities().consistency.bound().saturating_mul(bounds);
        TimedCall::new(self.settings, wait, operation, self.store.info().scheme())
    }

    fn batch<T: Send>(&self, operation: Operation, ids: &[KeyId]) -> Batch<T> {
        let capabilities = self.store.capabilities();
        let batch_size = match operation {
            Operation::Delete => capabilities.delete_batch_size.or(capabilities.batch_size),
            _ => capabilities.batch_size,
        };
        Batch::new(self.settings, operation, self.store.info().scheme(), ids, batch_size)
    }

    /// Makes attempts until one has an answer that is not retried. `once` makes one attempt.
    async fn until_answered<T, F>(&self, call: &mut TimedCall, mut once: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>> + Send,
    {
        loop {
            match call.attempt(once()).await {
                Err(e) => call.pause(e).await?,
                answer => return answer,
            }
        }
    }

    /// Reads until a key is seen, for at most `wait`.
    async fn read_back(&self, call: &TimedCall, id: &KeyId, key: &SecretKey, wait: Duration) -> ReadBack {
        let give_up = call::after(Instant::now(), wait);
        loop {
            let last = Instant::now() >= give_up;
            match call.look(self.store.get_key(id)).await {
                Ok(stored) if stored == *key => return ReadBack::Ours,
                Ok(_) => return ReadBack::Another,
                Err(e) if e.kind() == ErrorKind::NotFound && !last && !call.is_over() => call.nap(POLL).await,
                Err(_) => return ReadBack::Unseen,
            }
        }
    }

    /// Returns the finality of a deletion that was made by an attempt without an answer.
    fn usual_finality(&self, e: &Error) -> Finality {
        let grade = self.store.capabilities().deletion;
        match e.kind() {
            ErrorKind::PendingDeletion => Finality::of_pending_deletion(grade, e.retry_after()),
            _ => Finality::of_grade(grade),
        }
    }

    /// Returns the outcome of a deletion. If an earlier attempt ended without an answer (`unsure`),
    /// a key that is gone counts as deleted, except that absence proves nothing on an eventually
    /// consistent store.
    fn settled_deletion(&self, answer: Result<Deletion>, unsure: bool) -> Result<Deletion> {
        let strong = self.store.capabilities().consistency == Consistency::Strong;
        let is_done = |e: &Error| match e.kind() {
            ErrorKind::NotFound => strong,
            kind => kind == ErrorKind::PendingDeletion,
        };
        match answer {
            Err(e) if unsure && is_done(&e) => Ok(Deletion::new(self.usual_finality(&e)).with_unsettled(true)),
            Ok(deletion) if unsure => Ok(deletion.with_unsettled(true)),
            answer => answer,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Resilient<S> {
    fn info(&self) -> StoreInfo {
        let RetrySettings { deadline, max_attempts, .. } = self.settings;
        self.store.info().with_note(format!("at most {max_attempts} attempts in {deadline:?}"))
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities().without_create_batch_size()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.until_answered(&mut self.call(Operation::Get, 0), || self.store.get_key(id)).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let create = mode == PutMode::Create;
        let mut call = self.call(if create { Operation::Create } else { Operation::Put }, 0);
        loop {
            let Err(e) = call.attempt(self.store.put_key_with(id, key, mode)).await else { return Ok(()) };
            // The create was refused after an attempt that may have created the key. So the
            // existing key is probably ours, unless another one is seen.
            let ambiguous = create && call.is_unsure() && e.kind() == ErrorKind::AlreadyExists;
            if e.effect() == Effect::Unknown || ambiguous {
                let wait = if ambiguous { self.store.capabilities().consistency.bound() } else { Duration::ZERO };
                match self.read_back(&call, id, key, wait).await {
                    ReadBack::Ours => return Ok(()),
                    ReadBack::Another if create && !ambiguous => {
                        let exists = Error::new(ErrorKind::AlreadyExists, Operation::Create, e.store());
                        return Err(exists.with_effect(Effect::Unknown).with_source(e));
                    }
                    ReadBack::Another | ReadBack::Unseen => {}
                }
            }
            call.pause(e).await?;
        }
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        let mut call = self.call(Operation::Delete, 0);
        loop {
            let answer = call.attempt(self.store.delete_key(id)).await;
            match self.settled_deletion(answer, call.is_unsure()) {
                Err(e) => call.pause(e).await?,
                answer => return answer,
            }
        }
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        let store = &self.store;
        let begin =
            move || Listing { call: self.call(Operation::List, 0), ids: store.list_keys(), phase: Phase::Begun };
        stream::unfold(None, move |listing: Option<Listing<'_>>| async move {
            let mut listing = listing.unwrap_or_else(begin);
            listing.next(store).await.map(|id| (id, Some(listing)))
        })
        .boxed()
    }

    async fn check(&self) -> Result<()> {
        self.until_answered(&mut self.call(Operation::Check, 0), || self.store.check()).await
    }

    async fn identify(&self) -> Result<StoreIdentity> {
        self.until_answered(&mut self.call(Operation::Check, 0), || self.store.identify()).await
    }

    /// Retries only the ids whose error time may cure.
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let distinct = Distinct::of(ids);
        let send = |ids: Vec<KeyId>| async move { self.store.get_keys(&ids).await }.boxed();
        let outcomes = self.batch(Operation::Get, &distinct.ids).run(send, |answer, _| answer).await;
        distinct.spread(&outcomes)
    }

    /// Retries only the ids whose error time may cure.
    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let distinct = Distinct::of(ids);
        let send = |ids: Vec<KeyId>| async move { self.store.delete_keys(&ids).await }.boxed();
        let settle = |answer, unsure| self.settled_deletion(answer, unsure);
        let outcomes = self.batch(Operation::Delete, &distinct.ids).run(send, settle).await;
        distinct.spread(&outcomes)
    }

    async fn create_keys(&self, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
        create_each(self, keys).await
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        // A retry returns the candidate itself if an earlier attempt has stored it.
        let mut call = self.call(Operation::Create, BOUNDS_OF_A_CREATION);
        self.until_answered(&mut call, || self.store.get_or_create(id, candidate)).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let mut call = self.call(Operation::Erase, BOUNDS_OF_AN_ERASURE);
        let erasure = self.until_answered(&mut call, || self.store.erase_key(id)).await?;
        let existed = erasure.existed || call.is_unsure();
        let unsettled = erasure.unsettled || call.is_unsure();
        Ok(Erasure::new(existed, erasure.finality, erasure.verified).with_unsettled(unsettled))
    }
}

/// A listing in progress.
struct Listing<'a> {
    call: TimedCall,
    ids: BoxStream<'a, Result<KeyId>>,
    phase: Phase,
}

#[derive(PartialEq)]
enum Phase {
    /// No id was returned yet, so the listing can start again.
    Begun,
    Giving,
    Ended,
}

impl<'a> Listing<'a> {
    async fn next<S: KeyStore>(&mut self, store: &'a S) -> Option<Result<KeyId>> {
        while self.phase != Phase::Ended {
            let step = self.call.step(self.ids.next(), self.phase == Phase::Begun).await;
            let (e, silent) = match step {
                Ok(Some(Err(e))) => (e, false),
                Ok(other) => {
                    self.phase = Phase::Giving;
                    return other;
                }
                Err(e) => (e, true),
            };
            if self.phase == Phase::Begun {
                match self.call.pause(e).await {
                    Ok(()) => self.ids = store.list_keys(),
                    Err(e) => {
                        self.phase = if silent { Phase::Ended } else { Phase::Giving };
                        return Some(Err(e));
                    }
                }
                continue;
            }
            if silent {
                self.phase = Phase::Ended;
            }
            return Some(Err(e));
        }
        None
    }
}

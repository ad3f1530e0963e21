//! [`Resilient`]: calls that end, and try again before they fail.

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

/// Between two reads that wait for a key of unknown fate to become visible.
const POLL: Duration = Duration::from_millis(100);

/// The most visibility bounds for which a store waits within one erasure: a read that sees the key
/// makes it delete and wait again.
const BOUNDS_OF_AN_ERASURE: u32 = 4;

/// The same for a creation that loses to a key not visible yet, which the store tries twice.
const BOUNDS_OF_A_CREATION: u32 = 3;

/// Time limits and retries, for a store that is reached over a network.
///
/// Each attempt of a call has a time limit, all attempts together have another, and an error that
/// time can mend ([`Error::is_retryable`]) leads to another attempt after a pause. The pauses grow,
/// are random up to their limit (so that many clients that failed together don't come back
/// together), and are never shorter than the store asks for ([`Error::retry_after`]). If the time
/// left does not allow for the pause, the last error is returned at once.
///
/// # What it promises
/// - No call takes longer than the deadline, whatever the store does; a batch and a listing have
///   limits of their own, below. Where the store itself has to wait for its visibility bound (an
///   erasure that it verifies, up to four times; a creation that lost to a key not visible yet,
///   three times) so much is added to both limits.
/// - A write whose attempt ended without an answer is settled by reading back: if the key is ours,
///   the write is `Ok`; a deletion that finds no key is `Ok` on a [`Strong`](Consistency::Strong)
///   store. An erasure after such an attempt says that the key existed, because that can no longer
///   be told. What can't be settled is reported with [`Effect::Unknown`], and never as a bare
///   `AlreadyExists` or `NotFound`.
/// - An erasure that fails with [`Conflict`](ErrorKind::Conflict), because reads still see the key,
///   is tried again.
/// - What has an answer is not tried again: not found, denied, damaged, refused.
///
/// # Batches
/// A batch is sent in chunks, and each chunk is an attempt with a time limit of its own, so that
/// what has arrived is kept and only the rest is tried again. A chunk has as many ids as one call
/// of the store handles ([`Capabilities::batch_size`], which [`Limited`](crate::Limited) sets), or
/// 100 if that is not known (then fewer after one without an answer in time). The ids of a chunk
/// without an answer are tried again one by one: one that hangs does not keep the others from their
/// answers. At most 16 chunks are under way at once, as few as one while answers are slow, so that
/// a rate limit beneath does not make them time out while they wait for each other.
///
/// Each id has [`max_attempts`](ResilientBuilder::max_attempts) attempts. The
/// [`deadline`](ResilientBuilder::deadline) is how long a batch goes on *while no id gets its
/// outcome*, which is a key, a deletion, or an error that time can't mend; each outcome starts it
/// anew. So a batch of n distinct ids takes as long as the store needs for it, at most n + 1
/// deadlines, and ends one deadline after the store falls silent. An id for which no call was made
/// by then fails with [`Timeout`](ErrorKind::Timeout) and [`Effect::NotApplied`].
///
/// A listing is tried again until it has returned its first id; from then on each step has an
/// attempt's time.
///
/// # Where to put it
/// Around the store, with [`Limited`](crate::Limited) between the two so that each attempt counts.
/// Turn off the retries below: an AWS store is built with `sdk_attempts(1)`, or attempts multiply.
/// [`Cached`](crate::Cached) goes around it: around a cache it would settle writes by reading what
/// the cache remembers, so [`build`](ResilientBuilder::build) refuses that.
///
/// A repeated write may be applied late: after another caller's delete, it brings the key back.
/// Only [`Fenced`](crate::Fenced) guards against that.
///
/// Needs a tokio runtime with its timer.
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

/// The settings of a [`Resilient`].
#[derive(Clone, Debug)]
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
    /// Sets how long one attempt may take; 5 seconds if it is not set.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.settings.attempt_timeout = attempt_timeout;
        self
    }

    /// Sets how long a call may take with all its attempts and pauses, and for how long a batch
    /// goes on while no id gets its outcome; 20 seconds if it is not set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// Sets how often a call, or an id of a batch, is tried at most; 4 times if it is not set, and
    /// once means never again. The reads that settle a write don't count: one follows each attempt
    /// of unknown outcome.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.settings.max_attempts = max_attempts;
        self
    }

    /// Sets the pauses. The one before the second attempt is random up to `first`, each further one
    /// up to twice as much, but never above `longest`; 100 milliseconds and 5 seconds if they are
    /// not set.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.first_pause = first;
        self.settings.longest_pause = longest;
        self
    }

    /// Builds the layer.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if there is no attempt, no time for one, less time for all
    /// than for one, if the first pause is longer than the longest one, or if reads of the store
    /// may come from a cache ([`Capabilities::cached`]).
    pub fn build(self) -> Result<Resilient<S>> {
        let RetrySettings { attempt_timeout, deadline, max_attempts, first_pause, longest_pause } = self.settings;
        let wrong = if self.store.capabilities().cached {
            Some("it is around a cache and would settle writes by what the cache remembers: put the cache around it")
        } else if max_attempts == 0 {
            Some("max_attempts is zero: set 1 to try once")
        } else if attempt_timeout.is_zero() {
            Some("attempt_timeout is zero: set the longest time that an answer may take")
        } else if deadline < attempt_timeout {
            Some("the deadline is shorter than attempt_timeout: set a longer deadline or a shorter timeout")
        } else if first_pause > longest_pause {
            Some("the first pause is above the longest one: swap them")
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
enum Fate {
    /// It is ours.
    Ours,
    /// Another key stands.
    Another,
    /// There is none, or it could not be read.
    Unseen,
}

impl<S: KeyStore> Resilient<S> {
    /// Time limits and retries around this store.
    pub fn builder(store: S) -> ResilientBuilder<S> {
        ResilientBuilder { store, settings: RetrySettings::default() }
    }

    /// A call, and how often the store waits for its visibility bound during it.
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

    /// Tries until there is an answer; `once` is one attempt.
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
    async fn fate(&self, call: &TimedCall, id: &KeyId, key: &SecretKey, wait: Duration) -> Fate {
        let give_up = call::after(Instant::now(), wait);
        loop {
            let last = Instant::now() >= give_up;
            match call.look(self.store.get_key(id)).await {
                Ok(standing) if standing == *key => return Fate::Ours,
                Ok(_) => return Fate::Another,
                Err(e) if e.kind() == ErrorKind::NotFound && !last && !call.is_over() => call.nap(POLL).await,
                Err(_) => return Fate::Unseen,
            }
        }
    }

    /// The finality of a deletion that an attempt without an answer has carried out.
    fn usual_finality(&self, e: &Error) -> Finality {
        let grade = self.store.capabilities().deletion;
        match e.kind() {
            ErrorKind::PendingDeletion => Finality::of_pending_deletion(grade, e.retry_after()),
            _ => Finality::of_grade(grade),
        }
    }

    /// One deletion's outcome, `unsure` if an earlier attempt of it ended without an answer.
    /// Absence proves nothing where reads may lag.
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
            // Refused after an attempt that may have created it: by our own key, unless another is
            // seen.
            let ambiguous = create && call.is_unsure() && e.kind() == ErrorKind::AlreadyExists;
            if e.effect() == Effect::Unknown || ambiguous {
                let wait = if ambiguous { self.store.capabilities().consistency.bound() } else { Duration::ZERO };
                match self.fate(&call, id, key, wait).await {
                    Fate::Ours => return Ok(()),
                    Fate::Another if create && !ambiguous => {
                        let refused = Error::new(ErrorKind::AlreadyExists, Operation::Create, e.store());
                        return Err(refused.with_effect(Effect::Unknown).with_source(e));
                    }
                    Fate::Another | Fate::Unseen => {}
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

    /// Only the ids whose outcome time can mend are tried again.
    async fn get_keys(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let distinct = Distinct::of(ids);
        let send = |ids: Vec<KeyId>| async move { self.store.get_keys(&ids).await }.boxed();
        let outcomes = self.batch(Operation::Get, &distinct.ids).run(send, |answer, _| answer).await;
        distinct.spread(&outcomes)
    }

    /// Only the ids whose outcome time can mend are tried again.
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
        // Asked again, the store gives our own candidate back if an attempt has stored it.
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

/// A listing under way.
struct Listing<'a> {
    call: TimedCall,
    ids: BoxStream<'a, Result<KeyId>>,
    phase: Phase,
}

#[derive(PartialEq)]
enum Phase {
    /// Nothing was given yet: the listing may begin again.
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

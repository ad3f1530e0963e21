//! [`Resilient`]: calls that end, and try again before they fail.

mod call;

use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Effect, Erasure, Error, ErrorKind, Finality, KeyId, KeyStore,
    Operation, PutMode, Result, SecretKey, StoreIdentity, StoreInfo, async_trait,
};
use tokio::time::Instant;

use self::call::Call;
use crate::describe::misconfigured;

/// Between two reads that wait for a key of unknown fate to become visible.
const POLL: Duration = Duration::from_millis(100);

/// Time limits and retries: for a store that a network lies before.
///
/// Each attempt of a call has a time limit, all attempts together have another, and what time can mend
/// ([`Error::is_retryable`]) is tried again after a pause. The pauses grow, are random up to that (so that many clients
/// that failed together don't come back together), and are never shorter than the store asks for
/// ([`Error::retry_after`]). If the time left does not allow for the pause, the last error is given at once.
///
/// # What it promises
/// - No call takes longer than the deadline, whatever the store does. Where the store itself has to wait for its visibility
///   bound (an erasure that it verifies, a creation that lost to a key not visible yet) so much is added to both limits.
/// - A write whose attempt ended without an answer is settled by reading back: if the key is ours, the write is `Ok`; a
///   deletion that finds no key any more is `Ok` on a [`Strong`](Consistency::Strong) store, and an erasure says that the key
///   existed, which can't be told then. What can't be settled is reported with [`Effect::Unknown`], and never as a bare `AlreadyExists` or `NotFound`.
/// - What has an answer is not tried again: not found, denied, damaged, refused.
///
/// A repeated write may land late: after somebody else's delete, it brings the key back. Only
/// [`Fenced`](crate::Fenced) guards against that.
///
/// Put it around the store, with [`Limited`](crate::Limited) between the two so that each attempt counts, and turn off the
/// retries below: an AWS store is built with `sdk_attempts(1)`, or attempts multiply. A batch is one call, and must end within one
/// attempt's time: with a [`Limited`](crate::Limited) beneath that is the number of ids by the rate times the size of its batches. Set
/// [`attempt_timeout`](ResilientBuilder::attempt_timeout) accordingly, or ask for fewer ids at a time. A listing is tried again until it has
/// given its first id; from then on each step has an attempt's time.
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
    settings: Settings,
}

/// How a [`Resilient`] is set up.
#[derive(Clone, Debug)]
pub struct ResilientBuilder<S> {
    store: S,
    settings: Settings,
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    attempt_timeout: Duration,
    deadline: Duration,
    max_attempts: u32,
    first_pause: Duration,
    longest_pause: Duration,
}

impl Default for Settings {
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
    /// How long one attempt may take; 5 seconds if it is not set.
    pub fn attempt_timeout(mut self, attempt_timeout: Duration) -> Self {
        self.settings.attempt_timeout = attempt_timeout;
        self
    }

    /// How long a call may take with all its attempts and pauses; 20 seconds if it is not set.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.settings.deadline = deadline;
        self
    }

    /// How often a call is tried at most; 4 times if it is not set, and once means never again. The reads that settle a write
    /// don't count: one follows each attempt of unknown outcome.
    pub fn max_attempts(mut self, max_attempts: u32) -> Self {
        self.settings.max_attempts = max_attempts;
        self
    }

    /// The pause before the second attempt is random up to `first`, each further one up to twice as much, but never above
    /// `longest`; 100 milliseconds and 5 seconds if they are not set.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        (self.settings.first_pause, self.settings.longest_pause) = (first, longest);
        self
    }

    /// The layer.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if there is no attempt, no time for one, less time for all than for one, or if the first
    /// pause is the longest already and more.
    pub fn build(self) -> Result<Resilient<S>> {
        let Settings { attempt_timeout, deadline, max_attempts, first_pause, longest_pause } = self.settings;
        let wrong = if max_attempts == 0 {
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

/// What reading back a key of unknown fate has shown.
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
        ResilientBuilder { store, settings: Settings::default() }
    }

    /// A call, and how often the store waits for its visibility bound during it.
    fn call(&self, operation: Operation, bounds: u32) -> Call {
        let wait = self.store.capabilities().consistency.bound().saturating_mul(bounds);
        Call::new(self.settings, wait, operation, self.store.info().scheme())
    }

    /// Tries until there is an answer; `once` is one attempt.
    async fn until_answered<T, F>(&self, call: &mut Call, mut once: impl FnMut() -> F) -> Result<T>
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
    async fn fate(&self, call: &Call, id: &KeyId, key: &SecretKey, wait: Duration) -> Fate {
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

    /// One deletion's outcome, `unsure` if an earlier attempt of it ended without an answer. Absence proves nothing where
    /// reads may lag.
    fn settled_deletion(&self, answer: Result<Deletion>, unsure: bool) -> Result<Deletion> {
        let strong = self.store.capabilities().consistency == Consistency::Strong;
        let is_done = |e: &Error| match e.kind() {
            ErrorKind::NotFound => strong,
            kind => kind == ErrorKind::PendingDeletion,
        };
        match answer {
            Err(e) if unsure && is_done(&e) => Ok(Deletion::new(self.usual_finality(&e))),
            answer => answer,
        }
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<S: KeyStore> KeyStore for Resilient<S> {
    fn info(&self) -> StoreInfo {
        let Settings { deadline, max_attempts, .. } = self.settings;
        self.store.info().with_note(format!("at most {max_attempts} attempts in {deadline:?}"))
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.until_answered(&mut self.call(Operation::Get, 0), || self.store.get_key(id)).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        let create = mode == PutMode::Create;
        let mut call = self.call(if create { Operation::Create } else { Operation::Put }, 0);
        loop {
            let Err(e) = call.attempt(self.store.put_key_with(id, key, mode)).await else { return Ok(()) };
            // Refused after an attempt that may have created it: by our own key, unless another is seen.
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
        let mut call = self.call(Operation::Get, 0);
        let mut outcomes = call.attempt_batch(ids, self.store.get_keys(ids)).await;
        while let Some(again) = call.pause_batch(&outcomes).await {
            let ids: Vec<KeyId> = again.iter().map(|number| ids[*number].clone()).collect();
            let answers = call.attempt_batch(&ids, self.store.get_keys(&ids)).await;
            again.into_iter().zip(answers).for_each(|(number, answer)| outcomes[number] = answer);
        }
        outcomes
    }

    /// Only the ids whose outcome time can mend are tried again.
    async fn delete_keys(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let mut call = self.call(Operation::Delete, 0);
        let mut outcomes = call.attempt_batch(ids, self.store.delete_keys(ids)).await;
        let is_unsure = |answer: &Result<Deletion>| matches!(answer, Err(e) if e.effect() == Effect::Unknown);
        let mut unsure: Vec<bool> = outcomes.iter().map(is_unsure).collect();
        while let Some(again) = call.pause_batch(&outcomes).await {
            let ids: Vec<KeyId> = again.iter().map(|number| ids[*number].clone()).collect();
            let answers = call.attempt_batch(&ids, self.store.delete_keys(&ids)).await;
            for (number, answer) in again.into_iter().zip(answers) {
                let answer = self.settled_deletion(answer, unsure[number]);
                unsure[number] |= is_unsure(&answer);
                let still_unsure = unsure[number];
                outcomes[number] = answer.map_err(|e| if still_unsure { e.with_effect(Effect::Unknown) } else { e });
            }
        }
        outcomes
    }

    async fn get_or_create(&self, id: &KeyId, candidate: &SecretKey) -> Result<SecretKey> {
        // Asked again, the store gives our own candidate back if an attempt has stored it.
        let mut call = self.call(Operation::Create, 2);
        self.until_answered(&mut call, || self.store.get_or_create(id, candidate)).await
    }

    async fn erase_key(&self, id: &KeyId) -> Result<Erasure> {
        let mut call = self.call(Operation::Erase, 1);
        let erasure = self.until_answered(&mut call, || self.store.erase_key(id)).await?;
        Ok(Erasure::new(erasure.existed || call.is_unsure(), erasure.finality, erasure.verified))
    }
}

/// A listing under way.
struct Listing<'a> {
    call: Call,
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

//! [`Context`], which gives a case its store and its harness, and the expectations that cases are written with.

use std::fmt::{self, Debug};
use std::future::Future;
use std::slice;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use keystead_core::{
    BoxError, Capabilities, Consistency, DeletionGrade, Durability, Effect, Error, ErrorKind, Finality, KeyId,
    KeyStore, KeyStoreExt, Operation, SecretKey,
};
use tokio::runtime::Handle;

use crate::case::Need;
use crate::harness::{Fault, Faults, Harness, Namespace};

/// The pause between two reads that wait for a write to become visible.
const POLL: Duration = Duration::from_millis(20);

/// The time that calls which must not block may take on a slow store.
const UNBLOCKED: Duration = Duration::from_secs(10);

/// The greatest accepted difference between the store's clock and this one.
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(3600);

/// The number of ids at which a listing counts as endless. No case stores that many.
pub(crate) const ENDLESS: usize = 20_000;

/// The result of a case or of a step of it.
pub(crate) type Outcome<T = ()> = Result<T, Stop>;

/// The reason why a case stops before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Failed(Failure),
    Ignored(&'static str),
}

/// A promise that a store has broken. It contains no key bytes and no ids.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) call: String,
    pub(crate) expected: String,
    pub(crate) got: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "    call: {}", self.call)?;
        writeln!(f, "expected: {}", self.expected)?;
        write!(f, "     got: {}", self.got)
    }
}

/// The last fault that a case has injected, for the text of a failure.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastFault(Arc<Mutex<Option<(String, FaultState)>>>);

#[derive(Clone, Copy, Debug)]
enum FaultState {
    Active,
    Lifted,
}

impl LastFault {
    fn set(&self, fault: String) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((fault, FaultState::Active));
    }

    fn lift(&self) {
        if let Some((_, state)) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            *state = FaultState::Lifted;
        }
    }

    /// Returns a line that names the fault and says whether it was lifted, if the case has injected one.
    pub(crate) fn line(&self) -> Option<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (fault, state) = last.as_ref()?;
        let state = match state {
            FaultState::Active => "not lifted yet",
            FaultState::Lifted => "lifted before this check",
        };
        Some(format!("   fault: {fault}, {state}"))
    }
}

/// Ends the case with a failure.
pub(crate) fn fail<T>(call: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Outcome<T> {
    Err(Stop::Failed(Failure { call: call.into(), expected: expected.into(), got: got.into() }))
}

/// Ends the case with a failure unless the condition holds.
pub(crate) fn ensure(
    holds: bool,
    call: impl Into<String>,
    expected: impl Into<String>,
    got: impl Into<String>,
) -> Outcome {
    if holds { Ok(()) } else { fail(call, expected, got) }
}

pub(crate) type Store = Arc<dyn KeyStore>;

/// A case's namespace, the store in it, and what the case may use besides.
pub(crate) struct Context {
    pub(crate) store: Store,
    pub(crate) capabilities: Capabilities,
    pub(crate) namespaces: Arc<Mutex<Vec<Namespace>>>,
    pub(crate) harness: Arc<dyn Harness>,
    pub(crate) namespace: Namespace,
    pub(crate) scale: f64,
    pub(crate) fault: LastFault,
}

impl Context {
    /// Returns the size to use, given the sizes for local and for remote stores at scale 1.
    pub(crate) fn size(&self, local: usize, remote: usize) -> usize {
        let size = if self.is_remote() { remote } else { local };
        // Sizes are far below the integers that f64 cannot represent.
        ((size as f64 * self.scale).ceil() as usize).max(1)
    }

    fn is_remote(&self) -> bool {
        self.capabilities.durability == Durability::Replicated
    }

    /// Opens a second client over the same data.
    pub(crate) async fn reopen(&self) -> Outcome<Store> {
        supplied("Harness::reopen", self.harness.reopen(&self.namespace).await)
    }

    /// Opens the store of another namespace.
    pub(crate) async fn open_another(&self) -> Outcome<Store> {
        let namespace = Namespace::random();
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner).push(namespace.clone());
        supplied("Harness::open", self.harness.open(&namespace).await)
    }

    /// Stores an entry that is not a key beside the keys. Returns `false` if the harness cannot.
    pub(crate) async fn plant_foreign(&self) -> Outcome<bool> {
        supplied("Harness::plant_foreign", self.harness.plant_foreign(&self.namespace).await)
    }

    /// Makes an entry for this id that has no value. If the engine has no such entries, the case
    /// ends here as ignored.
    pub(crate) async fn plant_without_value(&self, id: &KeyId) -> Outcome {
        let planted = self.harness.plant_without_value(&self.namespace, id).await;
        match supplied("Harness::plant_without_value", planted)? {
            true => Ok(()),
            false => Err(Stop::Ignored(Need::EntriesWithoutValue.reason())),
        }
    }

    /// Returns the harness's faults. Only for cases that need them.
    pub(crate) fn faults(&self) -> &dyn Faults {
        self.harness.faults().expect("a case that needs faults runs only if the harness has them")
    }

    /// Makes the next requests meet this fault. If the engine does not have it, the case ends here
    /// as ignored.
    pub(crate) async fn inject(&self, op: Option<Operation>, fault: Fault, requests: u32) -> Outcome {
        let reason = match fault {
            Fault::NameHeld => Need::HeldNames.reason(),
            _ => "the engine has no such fault (Faults::inject gave false)",
        };
        let text = match op {
            Some(op) => format!("{fault:?} for the operation {op}"),
            None => format!("{fault:?} for every operation"),
        };
        match supplied("Faults::inject", self.faults().inject(&self.namespace, op, fault, requests).await)? {
            true => {
                self.fault.set(text);
                Ok(())
            }
            false => Err(Stop::Ignored(reason)),
        }
    }

    /// Lifts all faults.
    pub(crate) async fn clear(&self) -> Outcome {
        supplied("Faults::clear", self.faults().clear(&self.namespace).await)?;
        self.fault.lift();
        Ok(())
    }

    pub(crate) fn can_list(&self) -> bool {
        self.capabilities.listing.is_some()
    }

    /// Returns the visibility bound of reads.
    pub(crate) fn bound(&self) -> Duration {
        self.capabilities.consistency.bound()
    }

    /// Returns the visibility bound of listings.
    pub(crate) fn listing_bound(&self) -> Duration {
        self.capabilities.listing.as_ref().map_or(Duration::ZERO, Consistency::bound)
    }

    /// Reports whether the store may answer `PendingDeletion` for a deleted key.
    pub(crate) fn is_recoverable(&self) -> bool {
        matches!(self.capabilities.deletion, DeletionGrade::Recoverable { .. })
    }

    /// Reports whether this removal leaves the id free for a new key.
    pub(crate) fn frees(&self, removal: Removal) -> bool {
        let fenced = self.capabilities.fenced && removal == Removal::Erase;
        !fenced && !self.is_recoverable()
    }

    /// Returns a way to remove a key, a different one for each index. In a fenced store, erasing is left
    /// out, because the id could not be used again.
    pub(crate) fn removal(&self, index: usize) -> Removal {
        let ways: &[Removal] =
            if self.capabilities.fenced { &[Removal::Delete, Removal::DeleteMany] } else { &Removal::ALL };
        ways[index % ways.len()]
    }

    /// Reports whether a read of a removed key may fail with this kind instead of `NotFound`.
    pub(crate) fn is_gone(&self, kind: ErrorKind) -> bool {
        match kind {
            ErrorKind::PendingDeletion => self.is_recoverable(),
            ErrorKind::Erased => self.capabilities.fenced,
            _ => false,
        }
    }

    /// Expects reads to give this key within the bound, by itself and in a batch.
    pub(crate) async fn expect_key(&self, store: &Store, id: &KeyId, key: &SecretKey) -> Outcome {
        self.eventually(|| async {
            same(&call("get_key", id), store.get_key(id).await, key)?;
            for answer in self.batch_of_one(store, id).await? {
                same(&call("get_keys", id), answer, key)?;
            }
            Ok(())
        })
        .await
    }

    /// Expects reads to find no key within the bound, by itself and in a batch.
    pub(crate) async fn expect_absent(&self, store: &Store, id: &KeyId) -> Outcome {
        let gone = |call: &str, answer: Result<SecretKey, Error>| match &answer {
            Err(e) if self.is_gone(e.kind()) => Ok(()),
            _ => self.expect_error(call, answer, ErrorKind::NotFound, Operation::Get),
        };
        self.eventually(|| async {
            gone(&call("get_key", id), store.get_key(id).await)?;
            self.batch_of_one(store, id).await?.into_iter().try_for_each(|answer| gone(&call("get_keys", id), answer))
        })
        .await
    }

    /// Reads a batch of one id and returns its outcome, or nothing on a remote store,
    /// where each call takes time.
    pub(crate) async fn batch_of_one(&self, store: &Store, id: &KeyId) -> Outcome<Vec<Result<SecretKey, Error>>> {
        if self.is_remote() {
            return Ok(Vec::new());
        }
        let answers = store.get_keys(slice::from_ref(id)).await;
        ensure(answers.len() == 1, "get_keys of one id", "one outcome", format!("{} outcomes", answers.len()))?;
        Ok(answers)
    }

    /// Puts a key, and waits first if the store asks for a pause, as it may after a delete.
    pub(crate) async fn put(&self, store: &Store, id: &KeyId, key: &SecretKey) -> Outcome {
        self.patiently(&call("put_key", id), || store.put_key(id, key)).await
    }

    /// Makes a call, and repeats it up to three times while it answers `Conflict`, after the pause that
    /// the answer asks for.
    pub(crate) async fn patiently<T, F, A>(&self, call: &str, mut calls: F) -> Outcome<T>
    where
        F: FnMut() -> A,
        A: Future<Output = Result<T, Error>>,
    {
        for _ in 0..3 {
            match calls().await {
                Err(e) if e.kind() == ErrorKind::Conflict => {
                    tokio::time::sleep(e.retry_after().unwrap_or(POLL)).await;
                }
                answer => return ok(call, answer),
            }
        }
        ok(call, calls().await)
    }

    /// Returns the store and a second client over the same data.
    pub(crate) async fn two_handles(&self) -> Outcome<[Store; 2]> {
        Ok([self.store.clone(), self.reopen().await?])
    }

    /// Expects the listing to give exactly these ids, each once, within its bound.
    pub(crate) async fn expect_listing(&self, store: &Store, ids: &[KeyId]) -> Outcome {
        self.within(self.listing_bound(), || self.expect_listing_now(store, ids)).await
    }

    /// Expects the listing to give exactly these ids, each once, now.
    pub(crate) async fn expect_listing_now(&self, store: &Store, ids: &[KeyId]) -> Outcome {
        let mut expected = ids.to_vec();
        let mut listed = list(store).await?;
        expected.sort();
        listed.sort();
        let got = || difference(&expected, &listed);
        ensure(listed == expected, "list_keys", format!("{} ids, each once", expected.len()), got())
    }

    /// Waits for the visibility bound, before calls that a stale read could mislead.
    pub(crate) async fn bound_over(&self) {
        if self.capabilities.consistency != Consistency::Strong {
            tokio::time::sleep(self.bound()).await;
        }
    }

    /// Repeats a check until it succeeds or the visibility bound is over.
    pub(crate) async fn eventually<F, A>(&self, check: F) -> Outcome
    where
        F: FnMut() -> A,
        A: Future<Output = Outcome>,
    {
        self.within(self.bound(), check).await
    }

    /// Expects an error of this kind that names the operation and the store.
    pub(crate) fn expect_error<T: Debug>(
        &self,
        call: &str,
        answer: Result<T, Error>,
        kind: ErrorKind,
        operation: Operation,
    ) -> Outcome {
        let scheme = self.store.info().scheme();
        // With these kinds nothing has happened, and a retry does not help.
        use ErrorKind::{AlreadyExists, Erased, NotFound, Unsupported};
        let is_final = matches!(kind, NotFound | AlreadyExists | Erased | Unsupported);
        let show = |e: &Error| format!("{}, retry_after {:?}", describe(e), e.retry_after());
        let settled = if is_final { ", effect NotApplied, retry_after None" } else { "" };
        let expected = format!("an error of kind {kind:?}, operation {operation:?}, store {scheme:?}{settled}");
        match answer {
            Err(e) => {
                let named = e.kind() == kind && e.operation() == operation && e.store() == scheme;
                let is_settled = e.effect() == Effect::NotApplied && e.retry_after().is_none();
                ensure(named && (is_settled || !is_final), call, expected, show(&e))
            }
            Ok(value) => fail(call, expected, format!("Ok({value:?})")),
        }
    }

    /// Repeats a check until it succeeds or this bound is over.
    async fn within<F, A>(&self, bound: Duration, mut check: F) -> Outcome
    where
        F: FnMut() -> A,
        A: Future<Output = Outcome>,
    {
        let start = Instant::now();
        loop {
            // Read before the check, because a check that begins within the bound may still be stale.
            let last = start.elapsed() >= bound;
            match check().await {
                Err(Stop::Failed(_)) if !last => tokio::time::sleep(POLL).await,
                outcome => return outcome,
            }
        }
    }

    /// Runs calls on a thread of their own, so that a call that blocks its thread fails the case and
    /// blocks nothing else.
    pub(crate) async fn unblocked<F>(&self, what: &str, calls: F) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let runtime = Handle::current();
        std::thread::spawn(move || done.send(runtime.block_on(calls)));
        let limit = UNBLOCKED + self.bound();
        match tokio::time::timeout(limit, outcome).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => fail(what, "an answer", "a panic in the store"),
            Err(_) => fail(what, format!("an answer within {limit:?}"), "no answer"),
        }
    }
}

/// Runs each call on a thread of its own, all from the same moment on, and returns their outcomes in
/// order. `what` names the calls in failures.
pub(crate) async fn in_parallel<F>(what: &str, calls: impl IntoIterator<Item = F>) -> Outcome<Vec<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let calls: Vec<F> = calls.into_iter().collect();
    let start = Arc::new(Barrier::new(calls.len()));
    let run = |call: F| {
        let start = start.clone();
        let runtime = Handle::current();
        let (done, outcome) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            start.wait();
            // Nobody waits for the outcome of a case that was given up.
            drop(done.send(runtime.block_on(call)));
        });
        outcome
    };
    let racers: Vec<_> = calls.into_iter().map(run).collect();
    let mut outcomes = Vec::with_capacity(racers.len());
    for racer in racers {
        match racer.await {
            Ok(outcome) => outcomes.push(outcome),
            Err(_) => return fail(what, "an answer to each call", "a panic in the store"),
        }
    }
    Ok(outcomes)
}

fn supplied<T>(what: &str, answer: Result<T, BoxError>) -> Outcome<T> {
    // The harness belongs to the author of the store, so its errors are shown in full.
    answer.or_else(|e| fail(what, "Ok", format!("an error of the harness: {e}")))
}

/// A way to remove a key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Removal {
    Delete,
    Erase,
    DeleteMany,
}

impl Removal {
    pub(crate) const ALL: [Self; 3] = [Self::Delete, Self::Erase, Self::DeleteMany];

    /// Removes a key that exists, and returns the finality that the store reports.
    pub(crate) async fn apply(self, store: &Store, id: &KeyId) -> Outcome<Finality> {
        match self {
            Self::Delete => Ok(ok(&call("delete_key", id), store.delete_key(id).await)?.finality),
            Self::Erase => {
                let erasure = ok(&call("erase_key", id), store.erase_key(id).await)?;
                ensure(erasure.existed, call("erase_key", id), "existed: true", format!("{erasure:?}"))?;
                Ok(erasure.finality)
            }
            Self::DeleteMany => match store.delete_keys(slice::from_ref(id)).await.pop() {
                Some(answer) => Ok(ok(&call("delete_keys", id), answer)?.finality),
                None => fail("delete_keys of one id", "one outcome", "no outcome"),
            },
        }
    }
}

/// Returns a call as failures quote it. They show only the length of an id.
pub(crate) fn call(method: &str, id: &KeyId) -> String {
    format!("{method}(id of {} bytes)", id.as_str().len())
}

/// Expects this call to have succeeded.
pub(crate) fn ok<T>(call: &str, answer: Result<T, Error>) -> Outcome<T> {
    answer.or_else(|e| fail(call, "Ok", describe(&e)))
}

/// Expects this call to have given exactly this key.
pub(crate) fn same(call: &str, answer: Result<SecretKey, Error>, key: &SecretKey) -> Outcome {
    let expected = format!("the key of {} bytes that was stored last", key.expose_secret().len());
    match answer {
        Ok(got) if got == *key => Ok(()),
        Ok(got) => {
            let got = got.expose_secret();
            let key = key.expose_secret();
            let equal = got.iter().zip(key).take_while(|(a, b)| a == b).count();
            fail(call, expected, format!("a key of {} bytes, of which the first {equal} are equal", got.len()))
        }
        Err(e) => fail(call, expected, describe(&e)),
    }
}

/// Returns all ids of a listing, which must neither fail nor go on forever.
pub(crate) async fn list(store: &Store) -> Outcome<Vec<KeyId>> {
    let mut ids = Vec::new();
    let mut listing = store.list_keys().take(ENDLESS);
    while let Some(id) = listing.next().await {
        ids.push(ok("list_keys", id)?);
    }
    ensure(ids.len() < ENDLESS, "list_keys", "an end of the listing", format!("{ENDLESS} ids or more"))?;
    Ok(ids)
}

fn describe(e: &Error) -> String {
    format!("kind {:?}, operation {:?}, store {:?}, effect {:?}", e.kind(), e.operation(), e.store(), e.effect())
}

/// Describes the difference between a sorted listing and the sorted ids that it should give.
fn difference(expected: &[KeyId], listed: &[KeyId]) -> String {
    let missing = expected.iter().filter(|id| listed.binary_search(id).is_err()).count();
    let strange = listed.iter().filter(|id| expected.binary_search(id).is_err()).count();
    let repeated = listed.windows(2).filter(|pair| pair[0] == pair[1]).count();
    format!("{} ids: {missing} missing, {strange} that were not stored, {repeated} repeated", listed.len())
}

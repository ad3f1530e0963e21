//! [`Endpoint`]: one of the two stores of a copy, called no more often than the options allow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_core::{
    BoxStream, Capabilities, Consistency, Deletion, Durability, Effect, Error, ErrorKind, KeyId, KeyStore, Operation,
    PutMode, Result, SecretKey, StoreIdentity,
};
use keystead_layers::Limit;
use tokio::time::{Instant, sleep};

use crate::options::CopyOptions;
use crate::patience::{is_throttling, unless_throttled};

/// The number of ids that are counted as one call of a listing, if the store does not state it.
const USUAL_PAGE: usize = 10;

/// A store that the copy has borrowed, and its rate limit.
///
/// A layer needs to own its store, so this type paces the calls itself, with the `Limit` of the
/// layer `Limited`.
#[derive(Clone)]
pub(crate) struct Endpoint<'a> {
    store: &'a dyn KeyStore,
    pace: Option<Pace>,
    concurrency: usize,
}

/// The rate limit of a store, and the sizes of the calls that it counts.
#[derive(Clone)]
struct Pace {
    limit: Limit,
    sizes: CallSizes,
}

/// The number of ids that one call to the engine handles, by operation.
#[derive(Clone, Copy)]
struct CallSizes {
    list: usize,
    read: usize,
    delete: usize,
}

impl CallSizes {
    /// Takes the sizes from the options, or else from the store's capabilities. Of a store that
    /// states none, each id may be a call; but no engine lists its ids one by one.
    fn new(capabilities: &Capabilities, batch_size: Option<usize>) -> Self {
        if let Some(ids) = batch_size {
            return Self { list: ids, read: ids, delete: ids };
        }
        let read = capabilities.batch_size.unwrap_or(1);
        let delete = capabilities.delete_batch_size.unwrap_or(read);
        let list = capabilities.list_page_size.unwrap_or(USUAL_PAGE);
        Self { list: list.max(1), read: read.max(1), delete: delete.max(1) }
    }
}

impl<'a> Endpoint<'a> {
    /// Creates an endpoint that keeps to the rate and the concurrency of the options.
    pub(crate) fn new(store: &'a dyn KeyStore, options: &CopyOptions) -> Result<Self> {
        let pace = match options.rate {
            None => None,
            Some(rate) => {
                // The calls of ten milliseconds, because timers are only accurate to a few.
                let burst = (rate / 100.0).ceil().max(1.0) as u32;
                let limit = Limit::builder().rate(rate).burst(burst).build();
                let limit = limit.map_err(|e| e.with_operation(Operation::Copy))?;
                Some(Pace { limit, sizes: CallSizes::new(&store.capabilities(), options.batch_size) })
            }
        };
        Ok(Self { store, pace, concurrency: options.concurrency })
    }

    /// Creates an endpoint without a limit.
    pub(crate) fn unlimited(store: &'a dyn KeyStore) -> Self {
        Self { store, pace: None, concurrency: 1 }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.store.info().scheme()
    }

    pub(crate) fn durability(&self) -> Durability {
        self.store.capabilities().durability
    }

    /// Asks the store for its identity. Returns what is known of it, and the error if that call
    /// failed.
    pub(crate) async fn identify(&self) -> (StoreIdentity, Option<Error>) {
        match self.store.identify().await {
            Ok(identity) => (identity, None),
            Err(e) => (self.identity(), Some(e)),
        }
    }

    /// Returns the store's identity, as far as it is known without a call.
    pub(crate) fn identity(&self) -> StoreIdentity {
        self.store.info().identity().clone()
    }

    /// Returns the visibility bound of the store.
    pub(crate) fn bound(&self) -> Duration {
        self.store.capabilities().consistency.bound()
    }

    /// Returns the visibility bound of the store's listing, or `None` if it cannot list.
    pub(crate) fn listing_bound(&self) -> Option<Duration> {
        self.store.capabilities().listing.map(|listing: Consistency| listing.bound())
    }

    /// Lists the store's ids. The stream may be polled again after its end.
    pub(crate) fn list(&self) -> BoxStream<'_, Result<KeyId>> {
        let ids = self.store.list_keys().fuse().boxed();
        let Some(pace) = &self.pace else { return ids };
        let paced = stream::unfold((ids, 0), move |(mut ids, given)| async move {
            if given % pace.sizes.list == 0 {
                drop(pace.limit.acquire().await);
            }
            Some((ids.next().await?, (ids, given + 1)))
        });
        paced.fuse().boxed()
    }

    /// Reads keys. Returns one outcome for each id, in the order of the ids.
    pub(crate) async fn read(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        unless_throttled(ids, |ids| async move { self.read_at_once(&ids).await }.boxed()).await
    }

    async fn read_at_once(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let call = |ids| async move { self.one_each(ids, self.store.get_keys(ids).await, Operation::Get) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.sizes.read).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// Reads the keys of ids that the store has just listed. Keys that are not found are read again
    /// after the visibility bound, because they may have been created a moment ago.
    pub(crate) async fn read_listed(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let mut keys = self.read(ids).await;
        let bound = self.bound();
        let is_missing = |key: &Result<SecretKey>| matches!(key, Err(e) if e.kind() == ErrorKind::NotFound);
        if !bound.is_zero() && keys.iter().any(is_missing) {
            sleep(bound).await;
            let missing = ids.iter().zip(&keys).filter(|(_, key)| is_missing(key)).map(|(id, _)| id.clone());
            let missing: Vec<KeyId> = missing.collect();
            let mut again = self.read(&missing).await.into_iter();
            for key in keys.iter_mut().filter(|key| is_missing(key)) {
                *key = again.next().expect("one outcome was given for each id");
            }
        }
        keys
    }

    /// Deletes keys. Returns one outcome for each id, in the order of the ids.
    pub(crate) async fn delete(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        unless_throttled(ids, |ids| async move { self.delete_at_once(&ids).await }.boxed()).await
    }

    async fn delete_at_once(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let call = |ids| async move { self.one_each(ids, self.store.delete_keys(ids).await, Operation::Delete) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.sizes.delete).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// Deletes keys that a read has just seen. Returns one outcome for each id, in the order of the
    /// ids.
    ///
    /// `Ok` means that the store has acknowledged the deletion, or that the key was not found by a
    /// read that began one visibility bound after the last read that saw it. If the answer to the
    /// delete is "not found", it may be stale and nothing may have been deleted. Such a key is
    /// read, and deleted again as long as it is there.
    pub(crate) async fn delete_seen(&self, ids: &[KeyId]) -> Vec<Result<()>> {
        let bound = self.bound();
        let begun = Instant::now();
        let mut pause = bound / 8;
        let deletions = self.delete(ids).await;
        let mut seen: Vec<Seen> = ids.iter().zip(deletions).map(|(id, answer)| Seen::new(id.clone(), answer)).collect();
        while seen.iter().any(Seen::is_doubtful) {
            self.delete_again(&mut seen, begun.elapsed() >= bound).await;
            if seen.iter().any(Seen::is_doubtful) {
                sleep(pause).await;
                pause = (pause * 2).min(bound);
            }
        }
        seen.into_iter().map(|seen| seen.outcome.expect("the loop ends when each has an outcome")).collect()
    }

    /// Reads the keys whose deletion is in doubt, and deletes those that are still there. If
    /// `is_last`, a key that cannot be deleted now fails.
    async fn delete_again(&self, seen: &mut [Seen], is_last: bool) {
        let ids: Vec<KeyId> = seen.iter().filter(|seen| seen.is_doubtful()).map(|seen| seen.id.clone()).collect();
        let keys = self.read(&ids).await;
        let mut present = Vec::new();
        for (seen, key) in seen.iter_mut().filter(|seen| seen.is_doubtful()).zip(keys) {
            match key {
                Ok(_) => {
                    seen.last_seen = Instant::now();
                    present.push(seen);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    seen.outcome = (seen.last_seen.elapsed() >= self.bound()).then_some(Ok(()));
                }
                Err(e) if e.kind() == ErrorKind::PendingDeletion => seen.outcome = Some(Ok(())),
                Err(e) => {
                    seen.outcome = Some(Err(e.with_operation(Operation::Delete).with_effect(Effect::Unknown)));
                }
            }
        }
        let ids: Vec<KeyId> = present.iter().map(|seen| seen.id.clone()).collect();
        let deletions = self.delete(&ids).await;
        for (seen, deletion) in present.into_iter().zip(deletions) {
            seen.outcome = deletion_outcome(deletion).or_else(|| is_last.then(|| Err(self.still_there())));
        }
    }

    fn still_there(&self) -> Error {
        Error::new(ErrorKind::Conflict, Operation::Delete, self.scheme())
            .with_effect(Effect::Unknown)
            .with_retry_after(self.bound().max(Duration::from_millis(100)))
            .with_source(
                "the key can still be read after several deletes; stop the program that writes it, and run again",
            )
    }

    /// Returns the number of keys that should be created at once, or `None` if the store takes a
    /// call for each key or the calls are limited.
    pub(crate) fn create_batch_size(&self) -> Option<usize> {
        self.store.capabilities().create_batch_size.filter(|_| self.pace.is_none())
    }

    /// Writes keys. Returns one outcome for each key, in the order of the keys, and counts in
    /// `answered` the keys that have their outcome.
    pub(crate) async fn write(
        &self,
        keys: &[(KeyId, SecretKey)],
        mode: PutMode,
        answered: &AtomicU64,
    ) -> Vec<Result<()>> {
        unless_throttled(keys, |keys| async move { self.write_at_once(&keys, mode, answered).await }.boxed()).await
    }

    async fn write_at_once(&self, keys: &[(KeyId, SecretKey)], mode: PutMode, answered: &AtomicU64) -> Vec<Result<()>> {
        if mode == PutMode::Create && self.create_batch_size().is_some() {
            let outcomes = self.store.create_keys(keys).await;
            return self.one_each(keys, outcomes, Operation::Create);
        }
        let count = |answer: Result<()>| {
            // A throttled write is repeated, so it is not counted yet.
            if !answer.as_ref().is_err_and(is_throttling) {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            vec![answer]
        };
        let mut calls = Vec::with_capacity(keys.len());
        for (id, key) in keys {
            let call = self.store.put_key_with(id, key, mode).map(count).boxed();
            calls.push(match &self.pace {
                Some(pace) => pace.paced(call),
                None => call,
            });
        }
        self.in_order(calls).await
    }

    /// Returns the outcomes, or an error for each id if their number is wrong, because then it is
    /// not known which outcome belongs to which id.
    fn one_each<I, T>(&self, asked: &[I], outcomes: Vec<Result<T>>, operation: Operation) -> Vec<Result<T>> {
        if outcomes.len() == asked.len() {
            return outcomes;
        }
        let text = "the store did not return one outcome for each id; report that to its author";
        let effect = if operation == Operation::Get { Effect::NotApplied } else { Effect::Unknown };
        let failure =
            || Err(Error::new(ErrorKind::Other, operation, self.scheme()).with_effect(effect).with_source(text));
        asked.iter().map(|_| failure()).collect()
    }

    /// Makes the calls, several at a time, and returns their outcomes in the order of the calls.
    async fn in_order<T: Send>(&self, calls: Vec<BoxFuture<'_, Vec<T>>>) -> Vec<T> {
        let outcomes: Vec<Vec<T>> = stream::iter(calls).buffered(self.concurrency).collect().await;
        outcomes.into_iter().flatten().collect()
    }
}

/// A key that a read has seen and that is being deleted.
struct Seen {
    id: KeyId,
    last_seen: Instant,
    /// `None` as long as the answers contradict each other.
    outcome: Option<Result<()>>,
}

impl Seen {
    fn new(id: KeyId, deletion: Result<Deletion>) -> Self {
        Self { id, last_seen: Instant::now(), outcome: deletion_outcome(deletion) }
    }

    fn is_doubtful(&self) -> bool {
        self.outcome.is_none()
    }
}

/// Returns the outcome of deleting a key that was seen before, or `None` if the answer is that
/// there is no such key.
fn deletion_outcome(deletion: Result<Deletion>) -> Option<Result<()>> {
    match deletion {
        Ok(_) => Some(Ok(())),
        Err(e) if e.kind() == ErrorKind::PendingDeletion => Some(Ok(())),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => Some(Err(e)),
    }
}

impl Pace {
    /// Returns a future that waits for the limit before it makes the call.
    fn paced<'f, T: 'f>(&'f self, call: BoxFuture<'f, T>) -> BoxFuture<'f, T> {
        async move {
            let _permit = self.limit.acquire().await;
            call.await
        }
        .boxed()
    }
}

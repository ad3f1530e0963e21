//! [`Endpoint`]: one of the two stores, called no more often than the options allow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_layers::Limit;
use tokio::time::{Instant, sleep};

use super::options::CopyOptions;
use super::patience::{is_throttling, unless_throttled};
use crate::{
    BoxStream, Consistency, Deletion, Durability, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode,
    Result, SecretKey, StoreIdentity,
};

/// A store is lent to the copy, which a layer cannot be put around: so this does what `Limited`
/// does, with its `Limit`.
#[derive(Clone)]
pub(super) struct Endpoint<'a> {
    store: &'a dyn KeyStore,
    pace: Option<Pace>,
    concurrency: usize,
}

#[derive(Clone)]
struct Pace {
    limit: Limit,
    calls: Calls,
}

/// How many ids one call of the store handles.
#[derive(Clone, Copy)]
struct Calls {
    listed: usize,
    read: usize,
    deleted: usize,
}

impl Calls {
    fn of(store: &dyn KeyStore, batch_size: Option<usize>) -> Self {
        let usual = match store.info().scheme() {
            "secretsmanager" => Self { listed: 100, read: 20, deleted: 1 },
            _ => Self { listed: 10, read: 10, deleted: 10 },
        };
        batch_size.map_or(usual, |ids| Self { listed: ids, read: ids, deleted: ids })
    }
}

impl<'a> Endpoint<'a> {
    pub(super) fn new(store: &'a dyn KeyStore, options: &CopyOptions) -> Result<Self> {
        let pace = match options.rate {
            None => None,
            Some(rate) => {
                // Ten milliseconds' worth, as timers are no finer than a few.
                let burst = (rate / 100.0).ceil().max(1.0) as u32;
                let limit = Limit::builder().rate(rate).burst(burst).build();
                let limit = limit.map_err(|e| e.with_operation(Operation::Copy))?;
                Some(Pace { limit, calls: Calls::of(store, options.batch_size) })
            }
        };
        Ok(Self { store, pace, concurrency: options.concurrency })
    }

    /// As fast as it can.
    pub(super) fn unlimited(store: &'a dyn KeyStore) -> Self {
        Self { store, pace: None, concurrency: 1 }
    }

    pub(super) fn scheme(&self) -> &'static str {
        self.store.info().scheme()
    }

    pub(super) fn durability(&self) -> Durability {
        self.store.capabilities().durability
    }

    /// Returns what identifies the store, after the calls that it takes to learn that, and why they
    /// failed if they did.
    pub(super) async fn identify(&self) -> (StoreIdentity, Option<Error>) {
        match self.store.identify().await {
            Ok(identity) => (identity, None),
            Err(e) => (self.identity(), Some(e)),
        }
    }

    /// Returns what is known of the store's identity without a call.
    pub(super) fn identity(&self) -> StoreIdentity {
        self.store.info().identity().clone()
    }

    /// The visibility bound.
    pub(super) fn bound(&self) -> Duration {
        self.store.capabilities().consistency.bound()
    }

    /// The visibility bound of the listing; `None` if the store cannot list.
    pub(super) fn listing_bound(&self) -> Option<Duration> {
        self.store.capabilities().listing.map(|listing: Consistency| listing.bound())
    }

    /// May be asked again after its end.
    pub(super) fn list(&self) -> BoxStream<'_, Result<KeyId>> {
        let ids = self.store.list_keys().fuse().boxed();
        let Some(pace) = &self.pace else { return ids };
        let paced = stream::unfold((ids, 0), move |(mut ids, given)| async move {
            if given % pace.calls.listed == 0 {
                drop(pace.limit.acquire().await);
            }
            Some((ids.next().await?, (ids, given + 1)))
        });
        paced.fuse().boxed()
    }

    /// One outcome per id, in the ids' order.
    pub(super) async fn read(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        unless_throttled(ids, |ids| async move { self.read_at_once(&ids).await }.boxed()).await
    }

    async fn read_at_once(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let call = |ids| async move { self.one_each(ids, self.store.get_keys(ids).await, Operation::Get) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.calls.read).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// The keys of ids that it has just listed. What it does not find is asked for again once the
    /// bound has passed: it may have come just now.
    pub(super) async fn read_listed(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
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

    /// One outcome per id, in the ids' order.
    pub(super) async fn delete(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        unless_throttled(ids, |ids| async move { self.delete_at_once(&ids).await }.boxed()).await
    }

    async fn delete_at_once(&self, ids: &[KeyId]) -> Vec<Result<Deletion>> {
        let call = |ids| async move { self.one_each(ids, self.store.delete_keys(ids).await, Operation::Delete) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.calls.deleted).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// Deletes keys that a read has just seen; one outcome per id, in the ids' order.
    ///
    /// `Ok` means that the store has acknowledged the deletion, or that a read begun one bound
    /// after the last one that saw the key does not find it. A "not found" in answer to the delete
    /// may be stale, and then nothing was deleted, so such a key is read, and deleted again while
    /// it is there.
    pub(super) async fn delete_seen(&self, ids: &[KeyId]) -> Vec<Result<()>> {
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

    /// Reads what is doubtful, and deletes what is still there. `is_last`: what withstands this
    /// time is given up.
    async fn delete_again(&self, seen: &mut [Seen], is_last: bool) {
        let ids: Vec<KeyId> = seen.iter().filter(|seen| seen.is_doubtful()).map(|seen| seen.id.clone()).collect();
        let keys = self.read(&ids).await;
        let mut standing = Vec::new();
        for (seen, key) in seen.iter_mut().filter(|seen| seen.is_doubtful()).zip(keys) {
            match key {
                Ok(_) => {
                    seen.last_seen = Instant::now();
                    standing.push(seen);
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
        let ids: Vec<KeyId> = standing.iter().map(|seen| seen.id.clone()).collect();
        let deletions = self.delete(&ids).await;
        for (seen, deletion) in standing.into_iter().zip(deletions) {
            seen.outcome = settled(deletion).or_else(|| is_last.then(|| Err(self.still_there())));
        }
    }

    fn still_there(&self) -> Error {
        Error::new(ErrorKind::Conflict, Operation::Delete, self.scheme())
            .with_effect(Effect::Unknown)
            .with_retry_after(self.bound().max(Duration::from_millis(100)))
            .with_source("the key can still be read after several deletes: stop what writes it, and run again")
    }

    /// Returns the number of keys that the store creates best together; `None` if it takes a call
    /// for each, or the calls are counted.
    pub(super) fn create_batch_size(&self) -> Option<usize> {
        self.store.capabilities().create_batch_size.filter(|_| self.pace.is_none())
    }

    /// One outcome per key, in the keys' order. Counts in `answered` the keys that have their outcome.
    pub(super) async fn write(
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
            // A write that is throttled is made again.
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

    /// Of a store that breaks this promise nobody knows which outcome is whose.
    fn one_each<I, T>(&self, asked: &[I], outcomes: Vec<Result<T>>, operation: Operation) -> Vec<Result<T>> {
        if outcomes.len() == asked.len() {
            return outcomes;
        }
        let text = "the store did not give one outcome for each id: report that to its author";
        let effect = if operation == Operation::Get { Effect::NotApplied } else { Effect::Unknown };
        let failure =
            || Err(Error::new(ErrorKind::Other, operation, self.scheme()).with_effect(effect).with_source(text));
        asked.iter().map(|_| failure()).collect()
    }

    async fn in_order<T: Send>(&self, calls: Vec<BoxFuture<'_, Vec<T>>>) -> Vec<T> {
        let outcomes: Vec<Vec<T>> = stream::iter(calls).buffered(self.concurrency).collect().await;
        outcomes.into_iter().flatten().collect()
    }
}

/// A key that a read has seen and that is to be deleted.
struct Seen {
    id: KeyId,
    last_seen: Instant,
    /// `None` as long as the answers contradict each other.
    outcome: Option<Result<()>>,
}

impl Seen {
    fn new(id: KeyId, deletion: Result<Deletion>) -> Self {
        Self { id, last_seen: Instant::now(), outcome: settled(deletion) }
    }

    fn is_doubtful(&self) -> bool {
        self.outcome.is_none()
    }
}

/// Returns what the answer to a delete says of a key that was seen before; `None` if it says that
/// there is none.
fn settled(deletion: Result<Deletion>) -> Option<Result<()>> {
    match deletion {
        Ok(_) => Some(Ok(())),
        Err(e) if e.kind() == ErrorKind::PendingDeletion => Some(Ok(())),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => Some(Err(e)),
    }
}

impl Pace {
    fn paced<'f, T: 'f>(&'f self, call: BoxFuture<'f, T>) -> BoxFuture<'f, T> {
        async move {
            let _turn = self.limit.acquire().await;
            call.await
        }
        .boxed()
    }
}

//! [`Endpoint`]: one of the two stores, called no more often than the options allow.

use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_layers::Limit;
use tokio::time::sleep;

use super::options::CopyOptions;
use crate::{
    BoxStream, Consistency, Deletion, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result, SecretKey,
};

/// A store is lent to the copy, which a layer cannot be put around: so this does what `Limited` does, with its `Limit`.
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
                drop(pace.limit.turn().await);
            }
            Some((ids.next().await?, (ids, given + 1)))
        });
        paced.fuse().boxed()
    }

    /// One outcome per id, in the ids' order.
    pub(super) async fn read(&self, ids: &[KeyId]) -> Vec<Result<SecretKey>> {
        let call = |ids| async move { self.one_each(ids, self.store.get_keys(ids).await, Operation::Get) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.calls.read).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// The keys of ids that it has just listed. What it does not find is asked for again once the bound has passed: it may have
    /// come just now.
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
        let call = |ids| async move { self.one_each(ids, self.store.delete_keys(ids).await, Operation::Delete) };
        let Some(pace) = &self.pace else { return call(ids).await };
        self.in_order(ids.chunks(pace.calls.deleted).map(|ids| pace.paced(call(ids).boxed())).collect()).await
    }

    /// One outcome per key, in the keys' order.
    pub(super) async fn write(&self, keys: &[(&KeyId, &SecretKey)], mode: PutMode) -> Vec<Result<()>> {
        let mut calls = Vec::with_capacity(keys.len());
        for (id, key) in keys {
            let call = self.store.put_key_with(id, key, mode).map(|answer| vec![answer]).boxed();
            calls.push(match &self.pace {
                Some(pace) => pace.paced(call),
                None => call,
            });
        }
        self.in_order(calls).await
    }

    /// Of a store that breaks this promise nobody knows which outcome is whose.
    fn one_each<T>(&self, ids: &[KeyId], outcomes: Vec<Result<T>>, operation: Operation) -> Vec<Result<T>> {
        if outcomes.len() == ids.len() {
            return outcomes;
        }
        let text = "the store did not give one outcome for each id: report that to its author";
        let failure = || Err(Error::new(ErrorKind::Other, operation, self.scheme()).with_source(text));
        ids.iter().map(|_| failure()).collect()
    }

    async fn in_order<T: Send>(&self, calls: Vec<BoxFuture<'_, Vec<T>>>) -> Vec<T> {
        let outcomes: Vec<Vec<T>> = stream::iter(calls).buffered(self.concurrency).collect().await;
        outcomes.into_iter().flatten().collect()
    }
}

impl Pace {
    fn paced<'f, T: 'f>(&'f self, call: BoxFuture<'f, T>) -> BoxFuture<'f, T> {
        async move {
            let _turn = self.limit.turn().await;
            call.await
        }
        .boxed()
    }
}

//! A load: one call to the store for ids without a fresh cached entry, and the callers that wait
//! for it.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, Shared, WeakShared};
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, Operation, Result, SecretKey};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::table::{Arrival, Begun, Entry, Ticket};
use super::{CacheSettings, Cached, CachedStore};

/// A call to the store that several readers wait for.
type Load = Shared<BoxFuture<'static, Arc<Loaded>>>;

/// The result of a load.
enum Loaded {
    /// One answer for each id.
    Answers(Vec<Result<SecretKey>>),
    /// The payload with which the store panicked. The caller that started the load takes it.
    Panicked(Mutex<Option<Box<dyn Any + Send>>>),
}

/// A reference to the answer that a load in progress will have for one id.
pub(super) struct PendingAnswer {
    load: WeakShared<BoxFuture<'static, Arc<Loaded>>>,
    index: usize,
}

impl<S: KeyStore> Cached<S> {
    /// Reads distinct ids that have no fresh cached entry, and returns one answer for each.
    pub(super) async fn load(&self, ids: &[&KeyId]) -> Vec<Result<SecretKey>> {
        let now = Instant::now();
        let (start, tickets) = oneshot::channel();
        let load: Load = self.shared.clone().carry_out(tickets).boxed().shared();
        let mut own = Vec::new();
        // A load is joined only for a limited time: an answer must not be older than the time to
        // live, and a load that hangs must not stop later callers.
        let CacheSettings { ttl, join_window, .. } = self.shared.settings;
        let not_before = now.checked_sub(join_window.min(ttl));
        let begun: Vec<_> = ids
            .iter()
            .map(|id| {
                let join = |answer: &PendingAnswer| Some((answer.load.upgrade()?, answer.index));
                let make = |ticket| {
                    let index = own.len();
                    own.push(ticket);
                    let weak = load.downgrade().expect("the load has not ended before it is started");
                    (PendingAnswer { load: weak, index }, (load.clone(), index))
                };
                self.shared.table.begin(id, now, not_before, join, make)
            })
            .collect();
        // The load starts only now that all ids have joined it, so that they are one batch. If no
        // id has joined it, nobody polls it.
        drop(start.send(own));
        let answer = async |begun: Begun<(Load, usize)>| match begun {
            Begun::Fresh(entry) => self.shared.answer_of(entry),
            Begun::Joined((load, index)) => self.shared.answer(load.await.as_ref(), index),
        };
        let answers = future::join_all(begun.into_iter().map(answer)).await;
        // The caller that started the load panics as the store did. The others receive an error.
        if let Some(payload) = load.peek().and_then(|loaded| loaded.take_panic()) {
            panic::resume_unwind(payload);
        }
        answers
    }
}

impl<S: KeyStore> CachedStore<S> {
    /// Asks the store for all ids that have joined the load.
    ///
    /// It must not panic, because `Shared` would then wake nobody, and the waiting callers would
    /// hang.
    async fn carry_out(self: Arc<Self>, tickets: oneshot::Receiver<Vec<Ticket<PendingAnswer>>>) -> Arc<Loaded> {
        let tickets = tickets.await.unwrap_or_default();
        self.loads.fetch_add(1, Ordering::Relaxed);
        let ids: Vec<KeyId> = tickets.iter().map(|ticket| ticket.id().clone()).collect();
        let read = async {
            match ids.as_slice() {
                [id] => vec![self.store.get_key(id).await],
                ids => self.store.get_keys(ids).await,
            }
        };
        let loaded = match AssertUnwindSafe(read).catch_unwind().await {
            Ok(answers) => {
                let settled = tickets.into_iter().zip(answers).map(|(ticket, answer)| self.settle(ticket, answer));
                Loaded::Answers(settled.collect())
            }
            Err(payload) => Loaded::Panicked(Mutex::new(Some(payload))),
        };
        Arc::new(loaded)
    }

    /// Caches an answer, and returns the answer that the callers get.
    fn settle(&self, ticket: Ticket<PendingAnswer>, answer: Result<SecretKey>) -> Result<SecretKey> {
        let CacheSettings { ttl, max_stale, negative_ttl, .. } = self.settings;
        let begun = ticket.begun();
        let arrival = match &answer {
            Ok(key) => Arrival::Known(Entry { key: Some(key.clone()), until: begun + ttl }),
            Err(e) if e.kind() == ErrorKind::NotFound && !negative_ttl.is_zero() => {
                Arrival::Known(Entry { key: None, until: begun + negative_ttl })
            }
            Err(e) if !max_stale.is_zero() && is_no_answer(e) => Arrival::Failed { at: Instant::now(), max_stale },
            Err(_) => Arrival::Unknown,
        };
        match ticket.settle(arrival) {
            Some(Entry { key: Some(stale), .. }) => Ok(stale),
            _ => answer,
        }
    }

    /// Returns the answer for the id with this index.
    fn answer(&self, loaded: &Loaded, index: usize) -> Result<SecretKey> {
        let why = match loaded {
            Loaded::Answers(answers) => match answers.get(index) {
                Some(answer) => return answer.clone(),
                None => {
                    "the store returned fewer answers than it was asked for: its get_keys must return one for each id"
                }
            },
            Loaded::Panicked(_) => {
                "the store panicked while it read the key: see the panic's own message, and read again"
            }
        };
        Err(Error::new(ErrorKind::Other, Operation::Get, self.store.info().scheme()).with_source(why))
    }
}

impl Loaded {
    fn take_panic(&self) -> Option<Box<dyn Any + Send>> {
        match self {
            Self::Answers(_) => None,
            Self::Panicked(payload) => payload.lock().unwrap_or_else(PoisonError::into_inner).take(),
        }
    }
}

/// Reports whether the error says nothing about the key, so that a stale one may be returned.
fn is_no_answer(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Timeout)
}

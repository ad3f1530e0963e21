//! The default batch methods: bounded concurrency without a runtime.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use crate::{KeyId, KeyStore, PutMode, Result, SecretKey};

/// The number of calls of one batch that are under way at once.
const IN_FLIGHT: usize = 16;

/// Calls once for each distinct id and gives one outcome per id, in the ids' order.
pub(crate) async fn each<'a, T: Clone>(
    ids: &'a [KeyId],
    call: impl FnMut(&'a KeyId) -> BoxFuture<'a, Result<T>>,
) -> Vec<Result<T>> {
    let mut distinct = Vec::new();
    let mut numbers = HashMap::new();
    let mut outcome_of = Vec::with_capacity(ids.len());
    for id in ids {
        let number = *numbers.entry(id).or_insert_with(|| {
            distinct.push(id);
            distinct.len() - 1
        });
        outcome_of.push(number);
    }
    // Boxed and collected first: a stream that maps lazily borrows the closure for every lifetime, which rustc refuses.
    let calls: Vec<BoxFuture<'a, Result<T>>> = distinct.into_iter().map(call).collect();
    let outcomes: Vec<Result<T>> = stream::iter(calls).buffered(IN_FLIGHT).collect().await;
    outcome_of.into_iter().filter_map(|number| outcomes.get(number).cloned()).collect()
}

/// Creates each key with a call of its own, up to 16 at once: the default of
/// [`KeyStore::create_keys`], for layers that change what a single
/// [`put_key_with`](KeyStore::put_key_with) does.
pub async fn create_each<S: KeyStore + ?Sized>(store: &S, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
    let calls: Vec<BoxFuture<'_, Result<()>>> =
        keys.iter().map(|(id, key)| store.put_key_with(id, key, PutMode::Create)).collect();
    stream::iter(calls).buffered(IN_FLIGHT).collect().await
}

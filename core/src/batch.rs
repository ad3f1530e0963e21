//! The default batch methods, which make several calls at once without an async runtime.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use crate::{KeyId, KeyStore, PutMode, Result, SecretKey};

/// The number of calls of one batch that are in flight at once.
const IN_FLIGHT: usize = 16;

/// Makes one call for each distinct id and returns one outcome for each id, in the order of `ids`.
pub(crate) async fn each<'a, T: Clone>(
    ids: &'a [KeyId],
    call: impl FnMut(&'a KeyId) -> BoxFuture<'a, Result<T>>,
) -> Vec<Result<T>> {
    let mut distinct = Vec::new();
    let mut index_of = HashMap::new();
    let mut indexes = Vec::with_capacity(ids.len());
    for id in ids {
        let index = *index_of.entry(id).or_insert_with(|| {
            distinct.push(id);
            distinct.len() - 1
        });
        indexes.push(index);
    }
    // The futures are collected before the stream starts, because rustc rejects a stream that maps
    // lazily: it would have to borrow the closure for every lifetime.
    let calls: Vec<BoxFuture<'a, Result<T>>> = distinct.into_iter().map(call).collect();
    let outcomes: Vec<Result<T>> = stream::iter(calls).buffered(IN_FLIGHT).collect().await;
    indexes.into_iter().filter_map(|index| outcomes.get(index).cloned()).collect()
}

/// Creates each key by a separate call to [`put_key_with`](KeyStore::put_key_with), up to 16 at
/// once.
///
/// This is the default of [`KeyStore::create_keys`]. A layer that changes what `put_key_with` does
/// calls this function instead of forwarding the batch.
pub async fn create_each<S: KeyStore + ?Sized>(store: &S, keys: &[(KeyId, SecretKey)]) -> Vec<Result<()>> {
    let calls: Vec<BoxFuture<'_, Result<()>>> =
        keys.iter().map(|(id, key)| store.put_key_with(id, key, PutMode::Create)).collect();
    stream::iter(calls).buffered(IN_FLIGHT).collect().await
}

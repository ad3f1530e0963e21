//! The default batch methods: bounded concurrency without a runtime.

use std::collections::HashMap;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};

use crate::{KeyId, Result};

/// How many calls of one batch are under way at once.
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

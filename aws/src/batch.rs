//! [`Batches`]: calls for several keys at once, a few of them in parallel.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_core::{ErrorKind, KeyId, Operation, Result};

use crate::failure::{AwsFailure, Service};

/// The largest number of calls of one batch that are in progress at once.
const IN_FLIGHT: usize = 8;

/// The outcomes of one call, by name.
pub type Outcomes<T> = HashMap<String, Result<T>>;

/// A service's batch calls for one operation.
#[derive(Clone, Copy, Debug)]
pub struct Batches {
    /// The service.
    pub service: Service,
    /// The operation that is carried out for each key.
    pub operation: Operation,
    /// The largest number of names in one call.
    pub names: usize,
}

impl Batches {
    /// Returns one outcome for each id, in the order of the ids. Each distinct id is sent once.
    ///
    /// `batch_call` makes a call for several names. `single_call` makes a call for one id: for each
    /// id that the answer of a batch leaves out because it failed for a reason of its own, and for
    /// all ids of a batch that one of them may have made fail.
    pub async fn run<'a, T: Clone + Send>(
        self,
        ids: &'a [KeyId],
        name: impl Fn(&KeyId) -> String + Sync,
        batch_call: impl Fn(Vec<String>) -> BoxFuture<'a, Result<Outcomes<T>, AwsFailure>>,
        single_call: impl Fn(&'a KeyId) -> BoxFuture<'a, Result<T>> + Sync,
    ) -> Vec<Result<T>> {
        let mut distinct: Vec<&KeyId> = ids.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let name = &name;
        let single_call = &single_call;
        let calls: Vec<_> = distinct
            .chunks(self.names)
            .map(|batch| {
                let outcomes = batch_call(batch.iter().map(|id| name(id)).collect());
                async move {
                    let mut outcomes = match outcomes.await {
                        Ok(outcomes) => outcomes,
                        // A call for each key could not tell what a lost attempt of this one has
                        // done.
                        Err(e) if self.operation != Operation::Get && e.may_have_applied() => {
                            self.refused(batch, name, e)
                        }
                        Err(e) if is_about_one_name(&e, batch.len()) => Outcomes::new(),
                        Err(e) => self.refused(batch, name, e),
                    };
                    for id in batch {
                        if let Entry::Vacant(left_out) = outcomes.entry(name(id)) {
                            left_out.insert(single_call(id).await);
                        }
                    }
                    outcomes
                }
            })
            .collect();
        let outcomes: Vec<Outcomes<T>> = stream::iter(calls).buffer_unordered(IN_FLIGHT).collect().await;
        let outcomes: Outcomes<T> = outcomes.into_iter().flatten().collect();
        let outcome = |id| outcomes.get(&name(id)).cloned().expect("every distinct id has an outcome");
        ids.iter().map(outcome).collect()
    }

    fn refused<T>(self, batch: &[&KeyId], name: impl Fn(&KeyId) -> String, e: AwsFailure) -> Outcomes<T> {
        let names: Vec<String> = batch.iter().map(|id| name(id)).collect();
        let ids = batch.iter().map(|id| id.as_str());
        let sensitive: Vec<&str> = names.iter().map(String::as_str).chain(ids).collect();
        let error = e.during(self.operation, &sensitive);
        names.into_iter().map(|name| (name, Err(error.clone()))).collect()
    }
}

/// Reports whether a single name may have made the whole call fail: because the caller may not use
/// it or its KMS key, or because of its state. Each name is then asked for alone, which gives the
/// reason of each.
fn is_about_one_name(e: &AwsFailure, names: usize) -> bool {
    match e.kind() {
        // The reason would be the same for each name.
        _ if e.lacks_credentials() => false,
        ErrorKind::PermissionDenied | ErrorKind::KeyUnavailable => names > 1,
        ErrorKind::Config | ErrorKind::NotFound => true,
        _ => false,
    }
}

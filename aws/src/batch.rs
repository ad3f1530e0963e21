//! [`in_batches`]: many keys, some names a call, a few calls at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use keystead_core::{ErrorKind, KeyId, Operation, Result};

use crate::failure::{AwsFailure, Service};

/// The largest number of calls of one batch that are under way at once.
const IN_FLIGHT: usize = 8;

/// The outcomes that one call has brought, by name.
pub type Outcomes<T> = HashMap<String, Result<T>>;

/// The properties of a service's batch calls for one operation.
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
    /// One outcome per id, in the ids' order; each distinct id is sent once. `some` makes a call
    /// for some names; `one` is for an id that the answer leaves out, as it has a reason of its
    /// own, and for all where one of them fails the whole call.
    pub async fn run<'a, T: Clone + Send>(
        self,
        ids: &'a [KeyId],
        name: impl Fn(&KeyId) -> String + Sync,
        some: impl Fn(Vec<String>) -> BoxFuture<'a, Result<Outcomes<T>, AwsFailure>>,
        one: impl Fn(&'a KeyId) -> BoxFuture<'a, Result<T>> + Sync,
    ) -> Vec<Result<T>> {
        let mut distinct: Vec<&KeyId> = ids.iter().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let name = &name;
        let one = &one;
        let calls: Vec<_> = distinct
            .chunks(self.names)
            .map(|batch| {
                let outcomes = some(batch.iter().map(|id| name(id)).collect());
                async move {
                    let mut outcomes = match outcomes.await {
                        Ok(outcomes) => outcomes,
                        // What a lost attempt has done, no other call would know.
                        Err(e) if self.operation != Operation::Get && e.may_have_landed() => {
                            self.refused(batch, name, e)
                        }
                        Err(e) if is_about_one_name(&e, batch.len()) => Outcomes::new(),
                        Err(e) => self.refused(batch, name, e),
                    };
                    for id in batch {
                        if let Entry::Vacant(left_out) = outcomes.entry(name(id)) {
                            left_out.insert(one(id).await);
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

/// Reports whether one name may have failed the call for all: one that may not be used, whose KMS
/// key may not, or that is in a state of its own. Then each name is asked for by itself, which
/// tells its own reason.
fn is_about_one_name(e: &AwsFailure, names: usize) -> bool {
    match e.kind() {
        // It would be the same for each name.
        _ if e.lacks_credentials() => false,
        ErrorKind::PermissionDenied | ErrorKind::KeyUnavailable => names > 1,
        ErrorKind::Config | ErrorKind::NotFound => true,
        _ => false,
    }
}

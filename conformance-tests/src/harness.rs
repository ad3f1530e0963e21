//! The traits that the author of a store implements: [`Harness`] and, for engines that can be made to
//! fail, [`Faults`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keystead_core::{BoxError, KeyId, KeyStore, Operation};

/// A supplier of the stores that the suite runs over.
///
/// Its methods are called on the runtime of the run, from several threads at once.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Returns the name of the store in the report.
    fn name(&self) -> &str;

    /// Opens an empty store that is isolated from those of all other namespaces.
    ///
    /// # Errors
    /// Any error fails the case. A missing environment is an error, never a reason to skip.
    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError>;

    /// Opens another client over the data of an opened namespace. It shares no memory with the first
    /// one, unless the store allows nothing else.
    ///
    /// # Errors
    /// Any error fails the case.
    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError>;

    /// Removes the data of a namespace. It is called after the case, whatever its outcome.
    ///
    /// # Errors
    /// Any error fails a case that has passed.
    async fn close(&self, _ns: &Namespace) -> Result<(), BoxError> {
        Ok(())
    }

    /// Stores an entry beside the keys that the store did not make, under a name that it could not have
    /// made. Returns `false` if there is no place for such an entry.
    ///
    /// # Errors
    /// Any error fails the case.
    async fn plant_foreign(&self, _ns: &Namespace) -> Result<bool, BoxError> {
        Ok(false)
    }

    /// Makes an entry for this id that has no value, as other tools can in some engines. Returns
    /// `false` if the engine has no such entries or the harness cannot make one.
    ///
    /// # Errors
    /// Any error fails the case.
    async fn plant_without_value(&self, _ns: &Namespace, _id: &KeyId) -> Result<bool, BoxError> {
        Ok(false)
    }

    /// Returns the means to make the engine fail, or `None` if there is none. Without it, fifteen cases
    /// are ignored.
    fn faults(&self) -> Option<&dyn Faults> {
        None
    }
}

/// The means to make the engine behind a store fail on demand.
#[async_trait]
pub trait Faults: Send + Sync {
    /// Makes the next `requests` requests of this namespace to the engine meet this fault. Returns
    /// `false` if the engine has no such fault.
    ///
    /// With an operation, only its requests are affected. It is the operation of the request, not of
    /// the method of [`KeyStore`] that sends it: [`KeyStore::get_or_create`] sends creates and gets, and
    /// [`KeyStore::erase_key`] sends deletes and gets.
    ///
    /// # Errors
    /// Any error fails the case.
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError>;

    /// Lifts all faults of this namespace.
    ///
    /// # Errors
    /// Any error fails the case.
    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError>;

    /// Returns the time within which a call to a silent engine must end.
    fn call_bound(&self) -> Duration;
}

/// A way for an engine to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The engine refuses the request for now.
    Throttled {
        /// The pause that the engine asks the caller to make.
        retry_after: Option<Duration>,
    },
    /// The caller lacks the permission.
    Denied,
    /// The caller's credentials have expired.
    ExpiredCredentials,
    /// The key that encrypts the keys is disabled, pending deletion or missing.
    KeyUnavailable,
    /// The engine fails with an error of its own.
    ServerError,
    /// The engine answers success with a meaningless body.
    Garbage,
    /// The answer ends halfway.
    Truncated,
    /// The connection ends before the request is sent.
    ResetBeforeSend,
    /// The connection ends after the request has taken effect.
    ResetAfterApply,
    /// The engine never answers.
    Silent,
    /// The answer comes a byte at a time.
    SlowBody,
    /// A lagging replica answers: a read returns what was there before the last write of the id, and a
    /// delete answers that there is no key *and is not applied*. The lag must end within the store's
    /// visibility bound after that write, so an engine whose reads do not lag does not have this fault.
    /// Other writes are applied as usual and are not counted.
    Stale,
    /// The engine refuses a delete for a reason that is neither a missing permission nor a pending
    /// deletion: the entry belongs to somebody else, or is in a state in which the engine does not
    /// delete it.
    Refused,
    /// The engine holds back the name of a deleted entry: the entry does not exist, and a write that
    /// would create it is refused.
    NameHeld,
}

/// The name of the part of the engine that belongs to one case: a lowercase letter, followed by 7 to 31
/// lowercase letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// Returns a name that was not used before.
    pub fn random() -> Self {
        Self(format!("ks{}", random_text(14)))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns `len` random characters of `a-v` and `0-9`.
pub(crate) fn random_text(len: usize) -> String {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("the operating system has a working random generator");
    bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuv0123456789"[usize::from(byte % 32)])).collect()
}

//! The traits that the author of a store implements: [`Harness`] and, for remote stores,
//! [`Faults`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use keystead_core::{BoxError, KeyId, KeyStore, Operation};

/// Supplies the suite with stores.
#[async_trait]
pub trait Harness: Send + Sync + 'static {
    /// Returns the name of the store in the report.
    fn name(&self) -> &str;

    /// An empty store, isolated from that of every other namespace.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it. A missing environment is an error, never a reason to skip.
    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError>;

    /// A new client over the data of an opened namespace: it shares no state in memory with the first one where the
    /// store allows that.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it.
    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError>;

    /// Cleans up on the provider's side, after the case and whatever its outcome.
    ///
    /// # Errors
    /// Anything; the case fails with it.
    async fn close(&self, _ns: &Namespace) -> Result<(), BoxError> {
        Ok(())
    }

    /// Puts an entry that is not a key of ours beside the keys. `false`: this store has no room for one.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it.
    async fn plant_foreign(&self, _ns: &Namespace) -> Result<bool, BoxError> {
        Ok(false)
    }

    /// Makes an entry of this id that exists without a value, as other tools can in some engines.
    /// `false`: this engine has no such entries, or the harness cannot make one.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it.
    async fn plant_without_value(&self, _ns: &Namespace, _id: &KeyId) -> Result<bool, BoxError> {
        Ok(false)
    }

    /// Returns a means to make the engine fail, or `None` if there is none.
    fn faults(&self) -> Option<&dyn Faults> {
        None
    }
}

/// Makes the engine behind a store fail on demand.
#[async_trait]
pub trait Faults: Send + Sync {
    /// The next `requests` calls of this namespace, and of this operation if one is given, meet this fault.
    /// `Ok(false)`: the engine has no such fault.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it.
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError>;

    /// Ends all faults of this namespace.
    ///
    /// # Errors
    /// Anything; the case that asked fails with it.
    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError>;

    /// Within which a call to a silent engine must end.
    fn call_bound(&self) -> Duration;
}

/// A way for an engine to fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// It refuses for now.
    Throttled {
        /// The time after which it asks the caller to come back.
        retry_after: Option<Duration>,
    },
    /// The caller may not do that.
    Denied,
    /// The caller's credentials have expired.
    ExpiredCredentials,
    /// The key that encrypts the keys is disabled, pending deletion or missing.
    KeyUnavailable,
    /// It fails by itself.
    ServerError,
    /// It answers success with a body that means nothing.
    Garbage,
    /// Its answer ends half-way.
    Truncated,
    /// The connection ends before the request is sent.
    ResetBeforeSend,
    /// The connection ends after the request has taken effect.
    ResetAfterApply,
    /// It never answers.
    Silent,
    /// It answers a byte at a time.
    SlowBody,
    /// A replica answers that lags: reads answer as of before the last write of the id, and a
    /// delete answers that there is no key *and is not applied*. It must end within the store's
    /// visibility bound after that write, so an engine whose reads do not lag does not have it.
    /// Writes other than deletes are applied as usual, and are not counted.
    Stale,
    /// It refuses a delete for a reason that is neither a missing permission nor a deletion that is
    /// already pending: the entry belongs to somebody else, or is in a state in which the engine
    /// does not delete.
    Refused,
    /// It holds the name of a deleted entry back: the entry does not exist, and a write that would
    /// create it is refused.
    NameHeld,
}

/// The name of one case's own space in the engine: a lower-case letter, then 7 to 31 lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Namespace(String);

impl Namespace {
    /// A name that was not used before.
    pub fn random() -> Self {
        Self(format!("ks{}", random_text(14)))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `len` random characters out of `a-v` and `0-9`.
pub(crate) fn random_text(len: usize) -> String {
    let mut bytes = vec![0; len];
    getrandom::fill(&mut bytes).expect("the operating system has a working random generator");
    bytes.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuv0123456789"[usize::from(byte % 32)])).collect()
}

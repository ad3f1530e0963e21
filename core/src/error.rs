//! [`Error`] and its parts: what failed, who must act, and whether it may have happened all the same.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A boxed error of any type, for causes.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed store operation. One word wide; clones share the cause.
///
/// `Display` says this level only ("delete on ssm failed: throttled"); the cause is reached through
/// [`source`](StdError::source). Neither holds an id, a key byte, a URL or a response body.
///
/// ```
/// use keystead_core::{Effect, Error, ErrorKind, Operation};
///
/// let error = Error::new(ErrorKind::Timeout, Operation::Put, "ssm");
/// assert_eq!(error.to_string(), "put on ssm failed: timed out");
/// assert!(error.is_retryable());
/// assert_eq!(error.effect(), Effect::Unknown);
/// ```
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    operation: Operation,
    store: &'static str,
    effect: Effect,
    retry_after: Option<Duration>,
    details: Option<ErrorDetails>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `operation` on the store of scheme `store`.
    ///
    /// The effect starts as the cautious guess: [`Effect::Unknown`] for a write that ended without an answer
    /// ([`Timeout`](ErrorKind::Timeout), [`Unavailable`](ErrorKind::Unavailable), [`Other`](ErrorKind::Other)), else
    /// [`Effect::NotApplied`]. Who knows better says so with [`with_effect`](Self::with_effect).
    pub fn new(kind: ErrorKind, operation: Operation, store: &'static str) -> Self {
        let unanswered = matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Other);
        let effect = if unanswered && operation.is_write() { Effect::Unknown } else { Effect::NotApplied };
        Self(Box::new(Inner { kind, operation, store, effect, retry_after: None, details: None, source: None }))
    }

    /// Adds the cause. It must hold no id, no key byte, no URL and no response body in any rendering.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Adds what the service answered.
    pub fn with_details(mut self, details: ErrorDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Says whether the failed write may have been applied.
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Says when another try makes sense.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Names the operation that the caller asked for, where that is made of others.
    pub fn with_operation(mut self, operation: Operation) -> Self {
        self.0.operation = operation;
        self
    }

    /// Returns the kind of the error, which groups errors by who must act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed.
    pub fn operation(&self) -> Operation {
        self.0.operation
    }

    /// The scheme of the store that failed: `memory`, `file`, `ssm`, ...
    pub fn store(&self) -> &'static str {
        self.0.store
    }

    /// Reports whether the same call may succeed later without anybody's help.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{Conflict, Throttled, Timeout, Unavailable};
        matches!(self.0.kind, Conflict | Throttled | Unavailable | Timeout)
    }

    /// Reports whether the failed write may have been applied. Reads always return
    /// [`Effect::NotApplied`].
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Returns the time that the store asks the caller to wait before the next attempt, if it asks
    /// for any.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns the answer of the remote service, if there was one.
    pub fn details(&self) -> Option<&ErrorDetails> {
        self.0.details.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on {} failed: {}", self.0.operation, self.0.store, self.0.kind)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("store", &self.0.store)
            .field("effect", &self.0.effect)
            .field("retry_after", &self.0.retry_after)
            .field("details", &self.0.details)
            .field("source", &self.0.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// The kind of an [`Error`]. The kinds are grouped by who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    // The application's logic: it asked about a key that is not in the state it assumed.
    /// There is no such key: the engine's own word, never a guess.
    NotFound,
    /// A key stands where one was to be created.
    AlreadyExists,
    /// The user was erased and must not come back unless that is allowed expressly.
    Erased,
    /// The key is scheduled for deletion; the engine could still recover it.
    PendingDeletion,

    // The programmer: the call itself is wrong.
    /// The store refuses this id.
    InvalidId,
    /// The store refuses this key.
    InvalidKey,
    /// The store cannot do that.
    Unsupported,
    /// The store is set up wrongly.
    Config,

    // The operator: rights, keys and quotas.
    /// The caller may not do that.
    PermissionDenied,
    /// The caller's credentials are missing, wrong or expired.
    Unauthenticated,
    /// The key that encrypts the keys cannot be used: wrong root secret, disabled KMS key, ...
    KeyUnavailable,
    /// A hard limit is reached: parameters, disk space, ...
    QuotaExceeded,

    // Time: the same call may succeed later.
    /// Somebody else's write is in the way.
    Conflict,
    /// Too many calls.
    Throttled,
    /// The store cannot be reached or cannot answer now.
    Unavailable,
    /// No answer in time.
    Timeout,

    // Nobody yet: it has to be looked into.
    /// The stored data is not a valid key, or is damaged. A call that fails with this kind has not
    /// overwritten or deleted the damaged data.
    Corrupt,
    /// Anything else.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Erased => "erased",
            Self::PendingDeletion => "pending deletion",
            Self::InvalidId => "invalid id",
            Self::InvalidKey => "invalid key",
            Self::Unsupported => "unsupported",
            Self::Config => "wrong configuration",
            Self::PermissionDenied => "permission denied",
            Self::Unauthenticated => "unauthenticated",
            Self::KeyUnavailable => "encryption key unavailable",
            Self::QuotaExceeded => "quota exceeded",
            Self::Conflict => "conflict",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Corrupt => "corrupt",
            Self::Other => "unexpected failure",
        })
    }
}

/// The operation during which an [`Error`] occurred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// Opening the store.
    Open,
    /// Reading a key.
    Get,
    /// Creating or overwriting a key.
    Put,
    /// Creating a key.
    Create,
    /// Deleting a key.
    Delete,
    /// Erasing a key.
    Erase,
    /// Listing the ids.
    List,
    /// Checking the store.
    Check,
    /// Giving the store a new root secret.
    Rotate,
    /// Reading every record to see whether it is whole.
    Verify,
    /// Copying the whole store.
    Backup,
    /// Putting a backup in the place of a store.
    Restore,
    /// Copying the keys of one store to another.
    Copy,
}

impl Operation {
    fn is_write(self) -> bool {
        matches!(
            self,
            Self::Put | Self::Create | Self::Delete | Self::Erase | Self::Rotate | Self::Copy | Self::Restore
        )
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::Get => "get",
            Self::Put => "put",
            Self::Create => "create",
            Self::Delete => "delete",
            Self::Erase => "erase",
            Self::List => "list",
            Self::Check => "check",
            Self::Rotate => "rotate",
            Self::Verify => "verify",
            Self::Backup => "backup",
            Self::Restore => "restore",
            Self::Copy => "copy",
        })
    }
}

/// The effect of a failed write: it was not applied, or that is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// It was not.
    NotApplied,
    /// It may have been: read back before deciding what to do.
    Unknown,
}

/// The answer of a remote service to a call that failed.
///
/// This is the error map of the Clojure library `dev.gethop/secret-storage.aws-ssm-ps` (the
/// origin). With feature `serde`, the fields have the names that it uses: `error-code`,
/// `error-type`, `status-code`, `request-id`, `service-name`, `message`. Absent fields are left
/// out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case", default))]
pub struct ErrorDetails {
    /// The service's own code, such as `ParameterNotFound`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error_code: Option<String>,
    /// Whose fault it is in the service's eyes.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error_type: Option<ErrorType>,
    /// The HTTP status.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub status_code: Option<u16>,
    /// The id of the request, which the service's support asks for.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub request_id: Option<String>,
    /// The service's name.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub service_name: Option<String>,
    /// The service's message; names, ARNs, ids and values are replaced by `<redacted>`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub message: Option<String>,
}

/// Whose fault an error is in the service's eyes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ErrorType {
    /// The caller's (HTTP 4xx).
    Client,
    /// The service's (HTTP 5xx).
    Service,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
    }

    #[test]
    fn display_says_this_level_only() {
        let error = Error::new(ErrorKind::Throttled, Operation::Delete, "ssm").with_source("slow down");
        assert_eq!(error.to_string(), "delete on ssm failed: throttled");
        assert_eq!(error.source().unwrap().to_string(), "slow down");
    }

    #[test]
    fn a_write_without_an_answer_may_have_landed_unless_the_store_knows_better() {
        for kind in [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Other] {
            assert_eq!(Error::new(kind, Operation::Put, "x").effect(), Effect::Unknown);
            assert_eq!(Error::new(kind, Operation::Get, "x").effect(), Effect::NotApplied);
        }
        assert_eq!(Error::new(ErrorKind::Throttled, Operation::Put, "x").effect(), Effect::NotApplied);
        let known = Error::new(ErrorKind::Timeout, Operation::Put, "x").with_effect(Effect::NotApplied);
        assert_eq!(known.effect(), Effect::NotApplied);
    }

    #[test]
    fn only_what_time_can_mend_is_retryable() {
        let retryable = |kind| Error::new(kind, Operation::Get, "x").is_retryable();
        assert!(retryable(ErrorKind::Conflict) && retryable(ErrorKind::Throttled));
        assert!(retryable(ErrorKind::Unavailable) && retryable(ErrorKind::Timeout));
        assert!(!retryable(ErrorKind::NotFound) && !retryable(ErrorKind::PermissionDenied));
        assert!(!retryable(ErrorKind::QuotaExceeded) && !retryable(ErrorKind::Corrupt));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn details_serialise_with_the_origins_names() {
        let details = ErrorDetails {
            error_code: Some("ParameterNotFound".into()),
            error_type: Some(ErrorType::Client),
            status_code: Some(400),
            ..ErrorDetails::default()
        };
        let json = serde_json::to_string(&details).unwrap();
        assert_eq!(json, r#"{"error-code":"ParameterNotFound","error-type":"Client","status-code":400}"#);
        assert_eq!(serde_json::from_str::<ErrorDetails>(&json).unwrap(), details);
    }
}

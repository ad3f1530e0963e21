//! [`Error`] and its parts: what failed, who must act, and whether the call took effect anyway.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A boxed error of any type, used for the cause of an [`Error`].
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a failed store operation.
///
/// `Display` shows this level only ("delete on ssm failed: throttled");
/// [`source`](StdError::source) returns the cause. Neither contains an id, a byte of a key, a URL
/// or a response body. An `Error` is one word wide, and its clones share the cause.
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
    /// Creates an error of `operation` on a store with the scheme `store`.
    ///
    /// The initial effect is a cautious guess. It is [`Effect::Unknown`] for a write that ended
    /// without an answer ([`Timeout`](ErrorKind::Timeout), [`Unavailable`](ErrorKind::Unavailable)
    /// or [`Other`](ErrorKind::Other)), and [`Effect::NotApplied`] for everything else. A store
    /// that knows more sets it with [`with_effect`](Self::with_effect).
    pub fn new(kind: ErrorKind, operation: Operation, store: &'static str) -> Self {
        let unanswered = matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable | ErrorKind::Other);
        let effect = if unanswered && operation.is_write() { Effect::Unknown } else { Effect::NotApplied };
        Self(Box::new(Inner { kind, operation, store, effect, retry_after: None, details: None, source: None }))
    }

    /// Sets the cause. No rendering of it may contain an id, a byte of a key, a URL or a response
    /// body.
    pub fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.0.source = Some(Arc::from(source.into()));
        self
    }

    /// Sets the details of the service's answer.
    pub fn with_details(mut self, details: ErrorDetails) -> Self {
        self.0.details = Some(details);
        self
    }

    /// Sets whether the failed write may have been applied.
    pub fn with_effect(mut self, effect: Effect) -> Self {
        self.0.effect = effect;
        self
    }

    /// Sets the time that the caller should wait before the next attempt.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.0.retry_after = Some(retry_after);
        self
    }

    /// Replaces the operation. A method that is made up of several operations calls this, so that
    /// the error names the one that the caller asked for.
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

    /// Returns the scheme of the store that failed, such as `memory`, `file` or `ssm`.
    pub fn store(&self) -> &'static str {
        self.0.store
    }

    /// Reports whether the same call may succeed later even if nobody changes anything.
    pub fn is_retryable(&self) -> bool {
        use ErrorKind::{Conflict, Throttled, Timeout, Unavailable};
        matches!(self.0.kind, Conflict | Throttled | Unavailable | Timeout)
    }

    /// Reports whether the failed write may have been applied. Reads always return
    /// [`Effect::NotApplied`].
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// Returns the time that the caller should wait before the next attempt, if it is known.
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

/// The kind of an [`Error`].
///
/// The kinds are grouped by who must act: the application (`NotFound` to `PendingDeletion`), the
/// programmer (`InvalidId` to `Config`), the operator (`PermissionDenied` to `QuotaExceeded`),
/// nobody, because time may help (`Conflict` to `Timeout`), or somebody who first has to find out
/// what is wrong (`Corrupt` and `Other`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    // The application must act: the key is not in the state that it assumed.
    /// There is no such key. The engine itself said so; the store never guesses this.
    NotFound,
    /// A key was to be created, but its id already has one.
    AlreadyExists,
    /// The user was erased, and no new key has been allowed since.
    Erased,
    /// The key is scheduled for deletion, but the engine can still recover it.
    PendingDeletion,

    // The programmer must act: the call itself is wrong.
    /// The store does not accept this id.
    InvalidId,
    /// The store does not accept this key.
    InvalidKey,
    /// The store does not support this operation or option.
    Unsupported,
    /// The configuration of the store is wrong.
    Config,

    // The operator must act: permissions, keys or quotas.
    /// The caller lacks the permission for this operation.
    PermissionDenied,
    /// The caller's credentials are missing, wrong or expired.
    Unauthenticated,
    /// The key that encrypts the stored keys cannot be used, for example because the root secret is
    /// wrong or the KMS key is disabled.
    KeyUnavailable,
    /// A hard limit is reached, such as the number of parameters or the disk space.
    QuotaExceeded,

    // Time may help: the same call may succeed later.
    /// A concurrent write by another caller is in the way.
    Conflict,
    /// The store has received too many calls.
    Throttled,
    /// The store cannot be reached or cannot answer now.
    Unavailable,
    /// The store has not answered in time.
    Timeout,

    // Somebody has to find out what is wrong.
    /// The stored data is not a valid key, or is damaged. A call that fails with this kind has not
    /// overwritten or deleted the damaged data.
    Corrupt,
    /// Any other failure.
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
    /// Replacing the root secret of the store.
    Rotate,
    /// Reading every record to check that it is intact.
    Verify,
    /// Copying the whole store to a backup.
    Backup,
    /// Restoring a store from a backup.
    Restore,
    /// Copying keys from one store to another.
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

/// The effect that a failed write had on the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Effect {
    /// The write was not applied.
    NotApplied,
    /// The write may have been applied, or may still be. Read the key back before deciding what to
    /// do.
    Unknown,
}

/// The answer of a remote service to a call that failed.
///
/// It corresponds to the error map of the Clojure library `dev.gethop/secret-storage.aws-ssm-ps`.
/// With the feature `serde` it serializes under the names that the Clojure library uses:
/// `error-code`, `error-type`, `status-code`, `request-id`, `service-name` and `message`. Fields
/// without a value are left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "kebab-case", default))]
pub struct ErrorDetails {
    /// The service's own code, such as `ParameterNotFound`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error_code: Option<String>,
    /// The side that caused the error, as the service sees it.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub error_type: Option<ErrorType>,
    /// The HTTP status code.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub status_code: Option<u16>,
    /// The id of the request, for the service's support team.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub request_id: Option<String>,
    /// The service's name.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub service_name: Option<String>,
    /// The service's message, in which names, ARNs, ids and values are replaced by `<redacted>`.
    #[cfg_attr(feature = "serde", serde(skip_serializing_if = "Option::is_none"))]
    pub message: Option<String>,
}

/// The side that caused an error, as the service sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ErrorType {
    /// The caller (HTTP 4xx).
    Client,
    /// The service (HTTP 5xx).
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
    fn display_shows_this_level_only() {
        let error = Error::new(ErrorKind::Throttled, Operation::Delete, "ssm").with_source("slow down");
        assert_eq!(error.to_string(), "delete on ssm failed: throttled");
        assert_eq!(error.source().unwrap().to_string(), "slow down");
    }

    #[test]
    fn a_write_without_an_answer_may_have_been_applied_unless_the_store_knows_better() {
        for kind in [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Other] {
            assert_eq!(Error::new(kind, Operation::Put, "x").effect(), Effect::Unknown);
            assert_eq!(Error::new(kind, Operation::Get, "x").effect(), Effect::NotApplied);
        }
        assert_eq!(Error::new(ErrorKind::Throttled, Operation::Put, "x").effect(), Effect::NotApplied);
        let known = Error::new(ErrorKind::Timeout, Operation::Put, "x").with_effect(Effect::NotApplied);
        assert_eq!(known.effect(), Effect::NotApplied);
    }

    #[test]
    fn only_errors_that_time_may_cure_are_retryable() {
        let retryable = |kind| Error::new(kind, Operation::Get, "x").is_retryable();
        assert!(retryable(ErrorKind::Conflict) && retryable(ErrorKind::Throttled));
        assert!(retryable(ErrorKind::Unavailable) && retryable(ErrorKind::Timeout));
        assert!(!retryable(ErrorKind::NotFound) && !retryable(ErrorKind::PermissionDenied));
        assert!(!retryable(ErrorKind::QuotaExceeded) && !retryable(ErrorKind::Corrupt));
    }

    #[test]
    fn errors_can_be_sent_to_and_shared_between_threads() {
        fn assert_send_and_sync<T: Send + Sync + 'static>() {}
        assert_send_and_sync::<Error>();
    }

    #[cfg(feature = "serde")]
    #[test]
    fn details_serialize_under_the_names_of_the_clojure_library() {
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

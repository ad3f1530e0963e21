//! The table from what SQLite, the operating system and the sealing say to what callers get.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use keystead_core::{Effect, Error, ErrorKind, Operation};
use keystead_sealing::KeyringError;
use rusqlite::ErrorCode;

pub(crate) const SCHEME: &str = "file";

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// A failure that does not know yet which operation it ends. Shared by all requests of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    kind: ErrorKind,
    effect: Effect,
    cause: Cause,
}

/// What failed, why, and what to do: the source of the caller's error.
#[derive(Clone, Debug)]
struct Cause {
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Failure {
    /// A failure before any effect.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, effect: Effect::NotApplied, cause: Cause { text: text.into(), source: None } }
    }

    fn from_source(kind: ErrorKind, text: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind, effect: Effect::NotApplied, cause: Cause { text: text.into(), source: Some(Arc::new(source)) } }
    }

    /// Nothing tells whether the write will be found after a restart.
    pub(crate) fn of_unknown_effect(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The caller's error.
    pub(crate) fn during(self, operation: Operation) -> Error {
        Error::new(self.kind, operation, SCHEME).with_effect(self.effect).with_source(self.cause)
    }

    pub(crate) fn io(what: &str, path: &Path, e: io::Error) -> Self {
        let kind = match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::QuotaExceeded,
            _ => ErrorKind::Unavailable,
        };
        Self::from_source(kind, format!("{what} {} failed", path.display()), e)
    }

    pub(crate) fn damaged_record() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the record is damaged: restore the store from a backup, or delete this key; nothing was changed",
        )
    }

    pub(crate) fn closed() -> Self {
        Self::new(ErrorKind::Other, "the store has been closed: open it again")
    }

    pub(crate) fn writer_is_gone() -> Self {
        Self::new(ErrorKind::Other, "the store's writer thread has ended unexpectedly: open the store again")
            .of_unknown_effect()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(e: rusqlite::Error) -> Self {
        let Some(code) = e.sqlite_error_code() else {
            // A column of another type: somebody else wrote it.
            return Self::from_source(ErrorKind::Corrupt, "the database holds values of another kind", e);
        };
        let (kind, text) = match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
                (ErrorKind::Timeout, "another program keeps the store's file locked: end it and try again")
            }
            ErrorCode::DiskFull => (ErrorKind::QuotaExceeded, "the disk is full: free some space and try again"),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (
                ErrorKind::PermissionDenied,
                "the store's files or its directory cannot be written: give this user the right to",
            ),
            ErrorCode::CannotOpen => (
                ErrorKind::Unavailable,
                "the store's files cannot be opened: look whether its directory is there and descriptors are left",
            ),
            ErrorCode::SystemIoFailure => {
                (ErrorKind::Unavailable, "reading or writing the store's files failed: look at the disk")
            }
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "there is not enough memory"),
            ErrorCode::NotADatabase => {
                (ErrorKind::Config, "the file is no keystead store, or its beginning is destroyed: give another path")
            }
            ErrorCode::DatabaseCorrupt => {
                (ErrorKind::Corrupt, "the store's database is damaged: restore it from a backup")
            }
            _ => (ErrorKind::Other, "the database failed"),
        };
        Self::from_source(kind, text, e)
    }
}

impl From<KeyringError> for Failure {
    fn from(e: KeyringError) -> Self {
        let kind = match e {
            KeyringError::Damaged | KeyringError::CostOutOfBounds => ErrorKind::Corrupt,
            KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. } | KeyringError::Provider(_) => {
                ErrorKind::KeyUnavailable
            }
            KeyringError::EmptyPassphrase | KeyringError::PassphraseTooLong => ErrorKind::Config,
            KeyringError::OutOfMemory => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        };
        Self::from_source(kind, "the store's keyring cannot be opened", e)
    }
}

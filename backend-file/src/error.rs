//! [`FileError`]: the errors of the file store, and the mapping to them from the errors of SQLite,
//! the operating system and the sealing.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use keystead_core::{Effect, Error, ErrorKind, Operation};
use keystead_sealing::KeyringError;
use rusqlite::ErrorCode;

pub(crate) const SCHEME: &str = "file";

const DISK_FULL: &str = "the disk is full: free some space and try again";

const LOCKED: &str = "another program keeps the store's file locked: end that program and try again";

/// SQLite's code for an index of the log that cannot grow
/// (<https://sqlite.org/rescode.html#ioerr_shmsize>).
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

pub(crate) type Result<T, E = FileError> = std::result::Result<T, E>;

/// A failure of the file store, before it is known which operation of the caller it ends. All
/// requests of a batch can share one.
#[derive(Clone, Debug)]
pub(crate) struct FileError {
    kind: ErrorKind,
    effect: Effect,
    cause: Cause,
}

/// The source of the caller's error: it says what failed, why, and what to do.
#[derive(Clone, Debug)]
struct Cause {
    text: String,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The beginning of a text that names a backup, and so needs no other path.
const BACKUP: &str = "the backup ";

impl FileError {
    /// Creates a failure that has changed nothing.
    pub(crate) fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, effect: Effect::NotApplied, cause: Cause { text: text.into(), source: None } }
    }

    fn from_source(kind: ErrorKind, text: impl Into<String>, source: impl StdError + Send + Sync + 'static) -> Self {
        Self { kind, effect: Effect::NotApplied, cause: Cause { text: text.into(), source: Some(Arc::new(source)) } }
    }

    /// Says that the write may have been applied.
    pub(crate) fn of_unknown_effect(mut self) -> Self {
        self.effect = Effect::Unknown;
        self
    }

    /// Reports whether other writes may succeed although this one has failed: it has met a damaged
    /// page, or needs more space than there is.
    pub(crate) fn may_be_one_writes_own(&self) -> bool {
        matches!(self.kind, ErrorKind::Corrupt | ErrorKind::QuotaExceeded)
    }

    pub(crate) fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Returns the caller's error.
    pub(crate) fn during(self, operation: Operation) -> Error {
        Error::new(self.kind, operation, SCHEME).with_effect(self.effect).with_source(self.cause)
    }

    /// Creates a failure from an error of the operating system. `what` says what was being done to
    /// the path.
    pub(crate) fn io(what: &str, path: &Path, e: io::Error) -> Self {
        let kind = match e.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => ErrorKind::PermissionDenied,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::QuotaExceeded,
            io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
                ErrorKind::Config
            }
            _ => ErrorKind::Unavailable,
        };
        let text = match kind {
            ErrorKind::Config => format!("{} cannot be the path of a store: give another one", path.display()),
            _ => format!("{what} {} failed", path.display()),
        };
        Self::from_source(kind, text, e)
    }

    /// Adds the path of the store's file, unless the text names it already.
    pub(crate) fn about(mut self, path: &Path) -> Self {
        let path = path.display().to_string();
        if !self.cause.text.contains(&path) && !self.cause.text.starts_with(BACKUP) {
            self.cause.text = format!("{path}: {}", self.cause.text);
        }
        self
    }

    /// Says that the backup has caused the failure, and not the store that it was to replace.
    pub(crate) fn about_backup(mut self, path: &Path) -> Self {
        self.cause.text = format!("{BACKUP}{}: {}", path.display(), self.cause.text);
        self
    }

    pub(crate) fn missing_store(path: &Path) -> Self {
        let path = path.display();
        let text = format!(
            "there is no store at {path}: if there was one, put it back or restore a backup; otherwise create one, \
             or give another path"
        );
        Self::new(ErrorKind::Config, text)
    }

    pub(crate) fn replaced() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the store's file was removed or replaced while the store was open: put it back, or close the store and \
             open it again",
        )
    }

    pub(crate) fn log_cut_off() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "another program has truncated the store's log while the store was open, and with it the latest keys: \
             close the store, and restore a backup if you need them",
        )
    }

    pub(crate) fn put_back() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the store's file contains an older keyring than before, because an old copy was put back while the \
             store was open: close the store and open it again",
        )
    }

    pub(crate) fn superseded() -> Self {
        Self::new(
            ErrorKind::KeyUnavailable,
            "another process has given the store a new root secret: open the store again with that one",
        )
    }

    pub(crate) fn provider_panicked() -> Self {
        Self::new(
            ErrorKind::KeyUnavailable,
            "the provider of the root secret panicked: see the message in this program's output, and fix the provider",
        )
    }

    pub(crate) fn locked_by_foreign_program() -> Self {
        Self::new(ErrorKind::Timeout, LOCKED)
    }

    /// The chain of cells has a gap, so keys may be missing.
    pub(crate) fn lost_cells() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the store's database is damaged at this place and keys may be missing: restore the store from a \
             backup; nothing was changed",
        )
    }

    pub(crate) fn damaged_structure() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the structure of the store's database is damaged, as a check has found, so a new key might be lost: \
             restore the store from a backup, or copy its keys to a new store; nothing was changed",
        )
    }

    pub(crate) fn damaged_keyring_page() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the page with the store's keyring is damaged, so nothing can be written to it safely: make a backup, \
             and restore the store from an earlier one; nothing was changed",
        )
    }

    pub(crate) fn forked() -> Self {
        Self::new(
            ErrorKind::Other,
            "this process was forked after the store was opened: open the store again in the child process",
        )
    }

    pub(crate) fn damaged_record() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the record is damaged: restore the store from a backup, or delete this key; nothing was changed",
        )
    }

    pub(crate) fn no_epoch_left() -> Self {
        Self::new(
            ErrorKind::QuotaExceeded,
            "15 rotations have begun and not ended: rotate to the store's present root secret again, which ends them",
        )
    }

    /// The rotation cannot end, because damaged records may need the keys of earlier epochs.
    pub(crate) fn damage_keeps_old_epochs(records: u64, stretches: u64) -> Self {
        let text = format!(
            "{records} records are damaged and {stretches} stretches of the file cannot be read, so the keys that \
             they were sealed under were kept; all other records were sealed again: run verify, and restore the \
             store from a backup or delete the damaged records (delete_damaged)"
        );
        Self::new(ErrorKind::Corrupt, text)
    }

    pub(crate) fn rotated_by_another() -> Self {
        Self::new(
            ErrorKind::Conflict,
            "another rotation has given the store a different root secret meanwhile: open the store with that one",
        )
    }

    pub(crate) fn old_epochs_return() -> Self {
        Self::new(ErrorKind::Conflict, "another program keeps writing records of an earlier epoch: end that program")
    }

    /// Says that the new root secret is in force, but the rotation has not ended.
    pub(crate) fn in_rotation(mut self) -> Self {
        let before = "the new root secret opens the store already, but the rotation has not ended";
        self.cause.text = format!("{before}: {}; then rotate to the same root secret again", self.cause.text);
        self.of_unknown_effect()
    }

    /// Says that the restore has begun to rename files.
    pub(crate) fn in_restore(mut self) -> Self {
        self.cause.text = format!(
            "the restore was interrupted: {}; the store does not open until the restore is run again with the \
             same backup",
            self.cause.text
        );
        self.of_unknown_effect()
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

// Written by hand, because thiserror would return the `Arc` as the source: callers could then no
// longer downcast it to the error inside.
impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl From<rusqlite::Error> for FileError {
    fn from(e: rusqlite::Error) -> Self {
        let Some(code) = e.sqlite_error_code() else {
            // A column has another type, so another program has written it.
            return Self::from_source(ErrorKind::Corrupt, "the database contains values of another type", e);
        };
        if e.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_IOERR_SHMSIZE) {
            return Self::from_source(ErrorKind::QuotaExceeded, DISK_FULL, e);
        }
        let (kind, text) = match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (ErrorKind::Timeout, LOCKED),
            ErrorCode::DiskFull => (ErrorKind::QuotaExceeded, DISK_FULL),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (
                ErrorKind::PermissionDenied,
                "the store's files or its directory are not writable: give this user the right to write to them",
            ),
            ErrorCode::CannotOpen => (
                ErrorKind::Unavailable,
                "the store's files cannot be opened: check that descriptors are left (ulimit -n) and that the \
                 directory exists",
            ),
            ErrorCode::SystemIoFailure => {
                (ErrorKind::Unavailable, "reading or writing the store's files failed: check the disk")
            }
            ErrorCode::FileLockingProtocolFailed => {
                (ErrorKind::Unavailable, "too many processes are opening the store at once: try again")
            }
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "there is not enough memory: free some and try again"),
            ErrorCode::NotADatabase => (
                ErrorKind::Config,
                "this file is not a keystead store, or its beginning is destroyed: give another path",
            ),
            // A constraint is violated only by a write to a damaged page.
            ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation => {
                (ErrorKind::Corrupt, "the store's database is damaged: restore it from a backup")
            }
            _ => (ErrorKind::Other, "the database failed"),
        };
        Self::from_source(kind, text, e)
    }
}

impl From<KeyringError> for FileError {
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
        Self::from_source(kind, "the store's keyring cannot be used", e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_error_can_be_found_in_the_source_chain() {
        let failure = FileError::io("reading", Path::new("keys.db"), io::Error::from(io::ErrorKind::TimedOut));
        let error = failure.during(Operation::Get);
        let cause = StdError::source(&error).unwrap();
        assert_eq!(cause.to_string(), "reading keys.db failed");
        assert!(cause.source().unwrap().is::<io::Error>());
    }
}

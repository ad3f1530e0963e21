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

const DISK_FULL: &str = "the disk is full: free some space and try again";

const LOCKED: &str = "another program keeps the store's file locked: end it and try again";

/// The index beside the log could not grow (<https://sqlite.org/rescode.html#ioerr_shmsize>).
const SQLITE_IOERR_SHMSIZE: i32 = 4874;

pub(crate) type Result<T, E = FileError> = std::result::Result<T, E>;

/// A failure that does not know yet which operation it ends. Shared by all requests of a batch.
#[derive(Clone, Debug)]
pub(crate) struct FileError {
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

/// The beginning of what is said of a backup, which needs no other path.
const BACKUP: &str = "the backup ";

impl FileError {
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

    /// Reports whether another write might succeed: this one meets a damaged page, or needs more
    /// room than there is.
    pub(crate) fn may_be_one_writes_own(&self) -> bool {
        matches!(self.kind, ErrorKind::Corrupt | ErrorKind::QuotaExceeded)
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
            io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => {
                ErrorKind::Config
            }
            _ => ErrorKind::Unavailable,
        };
        let text = match kind {
            ErrorKind::Config => format!("{} cannot be a path of a store: give another one", path.display()),
            _ => format!("{what} {} failed", path.display()),
        };
        Self::from_source(kind, text, e)
    }

    /// Names the store's file, where the text does not do so already.
    pub(crate) fn about(mut self, path: &Path) -> Self {
        let path = path.display().to_string();
        if !self.cause.text.contains(&path) && !self.cause.text.starts_with(BACKUP) {
            self.cause.text = format!("{path}: {}", self.cause.text);
        }
        self
    }

    /// Says that the backup is at fault, and not the store that it was to replace.
    pub(crate) fn about_backup(mut self, path: &Path) -> Self {
        self.cause.text = format!("{BACKUP}{}: {}", path.display(), self.cause.text);
        self
    }

    pub(crate) fn missing_store(path: &Path) -> Self {
        let path = path.display();
        let text = format!(
            "there is no store at {path}: if there was one, put it back or restore a backup; otherwise create \
             it, or give another path"
        );
        Self::new(ErrorKind::Config, text)
    }

    pub(crate) fn replaced() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the store's file was removed or replaced while it was open: put it back, or close the store and \
             open it again",
        )
    }

    pub(crate) fn log_cut_off() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "another program has cut off the store's log while the store was open, and the latest keys with it: \
             close the store, and restore a backup if you need them",
        )
    }

    pub(crate) fn put_back() -> Self {
        Self::new(
            ErrorKind::Unavailable,
            "the store's file holds an older keyring than it did: a copy was put back while it was open; close \
             the store and open it again",
        )
    }

    pub(crate) fn superseded() -> Self {
        Self::new(
            ErrorKind::KeyUnavailable,
            "the store has been given a new root secret since it was opened: open it again with that",
        )
    }

    pub(crate) fn provider_panicked() -> Self {
        Self::new(
            ErrorKind::KeyUnavailable,
            "the provider of the root secret panicked: its message is in this program's output; mend the provider",
        )
    }

    pub(crate) fn locked_by_foreign_program() -> Self {
        Self::new(ErrorKind::Timeout, LOCKED)
    }

    /// The chain of cells does not lead where it says, so keys may be missing.
    pub(crate) fn lost_cells() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the store's database is damaged here and keys are missing from it: restore the store from a \
             backup; nothing was changed",
        )
    }

    pub(crate) fn damaged_structure() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the structure of the store's database is damaged, as verify has found, so a new key might be \
             lost: restore the store from a backup, or copy its keys to a new one; nothing was changed",
        )
    }

    pub(crate) fn damaged_keyring_page() -> Self {
        Self::new(
            ErrorKind::Corrupt,
            "the page of the store's keyring is damaged, so that nothing can be written to it safely: make a \
             backup, and \
             restore the store from an earlier one; nothing was changed",
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
            "15 rotations were begun and not ended: rotate to the store's present root secret again, which ends them",
        )
    }

    /// Damaged records may need the keys of earlier epochs.
    pub(crate) fn damage_keeps_old_epochs(records: u64, stretches: u64) -> Self {
        let text = format!(
            "{records} records are damaged and {stretches} stretches of the file cannot be read, so the keys \
             that they were \
             sealed under were kept; all other records are sealed anew: see verify, and restore the store from \
             a backup or \
             delete the damaged records (delete_damaged)"
        );
        Self::new(ErrorKind::Corrupt, text)
    }

    pub(crate) fn rotated_by_another() -> Self {
        Self::new(
            ErrorKind::Conflict,
            "another rotation has given the store another root secret meanwhile: open it with that",
        )
    }

    pub(crate) fn old_epochs_return() -> Self {
        Self::new(ErrorKind::Conflict, "another program goes on writing records of an earlier epoch: end it")
    }

    /// The new root secret is in force, and not all records are sealed under it.
    pub(crate) fn in_rotation(mut self) -> Self {
        let before = "the new root secret opens the store already, the rotation has not ended";
        self.cause.text = format!("{before}: {}; then rotate to the same root secret again", self.cause.text);
        self.of_unknown_effect()
    }

    /// The present store may have another name already.
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
            // A column of another type: somebody else wrote it.
            return Self::from_source(ErrorKind::Corrupt, "the database holds values of another kind", e);
        };
        if e.sqlite_error().is_some_and(|e| e.extended_code == SQLITE_IOERR_SHMSIZE) {
            return Self::from_source(ErrorKind::QuotaExceeded, DISK_FULL, e);
        }
        let (kind, text) = match code {
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => (ErrorKind::Timeout, LOCKED),
            ErrorCode::DiskFull => (ErrorKind::QuotaExceeded, DISK_FULL),
            ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::AuthorizationForStatementDenied => (
                ErrorKind::PermissionDenied,
                "the store's files or its directory cannot be written: give this user the right to",
            ),
            ErrorCode::CannotOpen => (
                ErrorKind::Unavailable,
                "the store's files cannot be opened: look whether descriptors are left (ulimit -n) and the \
                 directory is there",
            ),
            ErrorCode::SystemIoFailure => {
                (ErrorKind::Unavailable, "reading or writing the store's files failed: look at the disk")
            }
            ErrorCode::FileLockingProtocolFailed => {
                (ErrorKind::Unavailable, "too many processes opened the store at once: try again")
            }
            ErrorCode::OutOfMemory => (ErrorKind::Unavailable, "there is not enough memory"),
            ErrorCode::NotADatabase => (
                ErrorKind::Config,
                "this file is not a keystead store, or its beginning is destroyed: give another path",
            ),
            // Of a write that the state of the page rules out.
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

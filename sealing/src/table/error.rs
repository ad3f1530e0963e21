//! [`Failure`]: an error of a sealed store that does not yet name the store and the operation.

use std::io;

use keystead_core::{BoxError, Error, ErrorKind, Operation};

use crate::error::KeyringError;

/// A failure of the store itself, or one that its table reported.
#[derive(Debug)]
pub(super) enum Failure {
    Table(Error),
    Keyring(KeyringError),
    /// There are records or a store id, and no keyring.
    KeyringLost,
    /// The keyring's item is not what a store writes.
    KeyringDamaged,
    /// The keyring is older than the one in use.
    KeyringWentBack,
    /// The table holds a different store from the one that was opened.
    OtherStore,
    /// Another process has given the store a new root secret.
    RootReplaced,
    /// A record names an epoch that the keyring does not hold.
    UnknownEpoch,
    /// The row that is to be written holds a record of a later epoch than the keyring knows.
    LaterEpochInRow,
    /// A record is not what was sealed for its row.
    RecordDamaged,
    /// The table gave an answer that breaks the contract of [`RecordTable`](super::RecordTable).
    TableMisbehaves(&'static str),
    /// Other rotations kept changing the keyring.
    KeyringContended,
    NoThread(io::Error),
    ProviderPanicked,
}

impl Failure {
    pub(super) fn during(self, operation: Operation, store: &'static str) -> Error {
        let error = |kind, text: &'static str| Error::new(kind, operation, store).with_source(text);
        match self {
            Self::Table(e) => e.with_operation(operation),
            Self::Keyring(e) => Error::new(kind_of(&e), operation, store).with_source(BoxError::from(e)),
            Self::KeyringLost => error(
                ErrorKind::KeyUnavailable,
                "the table holds a store without its keyring: restore the keyring from a backup of the same store",
            ),
            Self::KeyringDamaged => error(
                ErrorKind::Corrupt,
                "the keyring of the table is damaged: restore it from a backup of the same store",
            ),
            Self::KeyringWentBack => error(
                ErrorKind::KeyUnavailable,
                "the keyring in the table is older than the one in use, as after a restore: reopen the store",
            ),
            Self::OtherStore => error(
                ErrorKind::Config,
                "the table holds a different store from the one that was opened: reopen it, or set the right table",
            ),
            Self::RootReplaced => {
                error(ErrorKind::KeyUnavailable, "the store was given a new root secret: reopen it with that one")
            }
            Self::UnknownEpoch => error(
                ErrorKind::Corrupt,
                "the record was sealed in an epoch that the keyring does not hold: restore it from a backup",
            ),
            Self::LaterEpochInRow => error(
                ErrorKind::Corrupt,
                "the row holds a record of a later epoch than the keyring knows, or the keyring was damaged: verify \
                 the store",
            ),
            Self::RecordDamaged => error(
                ErrorKind::Corrupt,
                "the record is damaged, or was written for another id or store: restore it from a backup",
            ),
            Self::TableMisbehaves(text) => error(ErrorKind::Corrupt, text),
            Self::KeyringContended => error(
                ErrorKind::Conflict,
                "another rotation is changing the keyring: wait for it to end, and look at its result",
            ),
            Self::NoThread(e) => Error::new(ErrorKind::Unavailable, operation, store)
                .with_source(format!("no thread can be started for the store: {e}")),
            Self::ProviderPanicked => error(ErrorKind::Other, "the provider of the root secret panicked"),
        }
    }
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Table(e)
    }
}

impl From<KeyringError> for Failure {
    fn from(e: KeyringError) -> Self {
        Self::Keyring(e)
    }
}

fn kind_of(e: &KeyringError) -> ErrorKind {
    match e {
        KeyringError::Damaged | KeyringError::CostOutOfBounds => ErrorKind::Corrupt,
        KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. } | KeyringError::Provider(_) => {
            ErrorKind::KeyUnavailable
        }
        KeyringError::EmptyPassphrase | KeyringError::PassphraseTooLong => ErrorKind::Config,
        KeyringError::OutOfMemory => ErrorKind::Unavailable,
    }
}

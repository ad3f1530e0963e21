//! The modes of a write, and the results of a deletion.

use std::time::{Duration, SystemTime};

use crate::DeletionGrade;

/// The longest time for which any engine known to us keeps a key whose deletion is pending: 30
/// days, in AWS Secrets Manager and AWS KMS. It is assumed where nothing is known, because a
/// shorter time would promise too much.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// The mode of [`put_key_with`](crate::KeyStore::put_key_with): what to do if there is a key
/// already.
///
/// A store that does not know a mode returns [`Unsupported`](crate::ErrorKind::Unsupported) and
/// writes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PutMode {
    /// Replace the existing key.
    Overwrite,
    /// Leave the existing key and fail with [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Create,
}

/// The moment from which the engine can no longer recover the stored bytes of a deleted key.
///
/// It covers only the store's own bytes. It says nothing about copies that somebody else keeps,
/// such as backups, archived write-ahead logs and replicas; `docs/erasure.md` in the repository
/// explains how the keys in those are destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Finality {
    /// The engine can no longer recover the bytes.
    Immediate,
    /// The engine will lose the bytes some time after the call, without further action.
    Eventual {
        /// The longest time until then, or `None` if no bound is known.
        within: Option<Duration>,
    },
    /// An operator can restore the key until this moment.
    RecoverableUntil(SystemTime),
}

impl Finality {
    /// Returns the usual finality of a deletion that is made now, in a store of this grade.
    pub fn of_grade(grade: DeletionGrade) -> Self {
        match grade {
            DeletionGrade::Immediate => Self::Immediate,
            DeletionGrade::Eventual { within } => Self::Eventual { within },
            DeletionGrade::Recoverable { window } => Self::recoverable_for(window),
        }
    }

    /// Returns the finality of an earlier deletion of a key that is no longer found.
    ///
    /// In a store with a recovery window it is [`Immediate`](Self::Immediate), because a key that
    /// can still be restored would be reported as pending deletion, not as absent.
    pub fn of_absence(grade: DeletionGrade) -> Self {
        match grade {
            DeletionGrade::Immediate | DeletionGrade::Recoverable { .. } => Self::Immediate,
            DeletionGrade::Eventual { within } => Self::Eventual { within },
        }
    }

    /// Returns the finality of a key whose deletion is pending, in a store of this grade.
    ///
    /// `remaining` is the time for which the key can still be restored, according to the store. If
    /// it is `None`, the window of the grade is assumed, or 30 days if the grade has none. If it is
    /// zero although the key is still there, the store's clock cannot be trusted, and the longer of
    /// 30 days and the window is assumed.
    pub fn of_pending_deletion(grade: DeletionGrade, remaining: Option<Duration>) -> Self {
        let window = match grade {
            DeletionGrade::Recoverable { window } => Some(window),
            DeletionGrade::Immediate | DeletionGrade::Eventual { .. } => None,
        };
        Self::recoverable_for(match remaining {
            Some(Duration::ZERO) => LONGEST_WINDOW.max(window.unwrap_or_default()),
            Some(remaining) => remaining,
            None => window.unwrap_or(LONGEST_WINDOW),
        })
    }

    fn recoverable_for(window: Duration) -> Self {
        let now = SystemTime::now();
        let end = now.checked_add(window).or_else(|| now.checked_add(LONGEST_WINDOW));
        Self::RecoverableUntil(end.unwrap_or(now))
    }
}

/// The result of [`delete_key`](crate::KeyStore::delete_key).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Deletion {
    /// The moment from which the engine can no longer recover the stored bytes.
    pub finality: Finality,
    /// True if an earlier attempt of the same call ended without an answer and may still be
    /// applied. It would then delete a key that was created in the meantime.
    pub unsettled: bool,
}

impl Deletion {
    /// Creates the result of a deletion with this finality and no unsettled attempt.
    pub fn new(finality: Finality) -> Self {
        Self { finality, unsettled: false }
    }

    /// Sets whether an earlier attempt may still be applied ([`unsettled`](Self::unsettled)).
    pub fn with_unsettled(mut self, unsettled: bool) -> Self {
        self.unsettled = unsettled;
        self
    }
}

/// The result of [`erase_key`](crate::KeyStore::erase_key).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Erasure {
    /// True if there was a key, or may have been one. It is false only after an unambiguous "not
    /// found".
    pub existed: bool,
    /// The moment from which the engine can no longer recover the stored bytes.
    pub finality: Finality,
    /// True if a read proved that the key is gone: it found no key, and it began after the delete
    /// (on an eventually consistent store, at least one visibility bound after it).
    pub verified: bool,
    /// True if an earlier attempt of the same call ended without an answer and may still be
    /// applied. It would then delete a key that was created in the meantime.
    pub unsettled: bool,
}

impl Erasure {
    /// Creates the result of an erasure with these findings and no unsettled attempt.
    pub fn new(existed: bool, finality: Finality, verified: bool) -> Self {
        Self { existed, finality, verified, unsettled: false }
    }

    /// Sets whether an earlier attempt may still be applied ([`unsettled`](Self::unsettled)).
    pub fn with_unsettled(mut self, unsettled: bool) -> Self {
        self.unsettled = unsettled;
        self
    }
}

//! The options of a write and the results that it reports.

use std::time::{Duration, SystemTime};

use crate::DeletionGrade;

/// The longest time for which a known engine keeps a key whose deletion is pending: 30 days, in AWS
/// Secrets Manager and AWS KMS. It stands in where nothing is known, because a shorter time would
/// promise too much.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// The treatment of an existing key by [`put_key_with`](crate::KeyStore::put_key_with).
///
/// A store that meets a mode it does not know answers
/// [`Unsupported`](crate::ErrorKind::Unsupported) before any effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PutMode {
    /// Replace it.
    Overwrite,
    /// Leave it and answer [`AlreadyExists`](crate::ErrorKind::AlreadyExists).
    Create,
}

/// The time after which the engine itself can no longer recover the stored bytes of a deleted key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Finality {
    /// They are now.
    Immediate,
    /// They will be, without anybody's help.
    Eventual {
        /// The longest that takes, or `None` where no bound is known.
        within: Option<Duration>,
    },
    /// Until this moment an operator can bring the key back.
    RecoverableUntil(SystemTime),
}

impl Finality {
    /// The usual finality of a deletion in a store of this grade.
    pub fn of_grade(grade: DeletionGrade) -> Self {
        match grade {
            DeletionGrade::Immediate => Self::Immediate,
            DeletionGrade::Eventual { within } => Self::Eventual { within },
            DeletionGrade::Recoverable { window } => Self::recoverable_for(window),
        }
    }

    /// The finality of what an earlier deletion has left of a key that is not found any more. A key
    /// that could still be brought back would be pending deletion and not absent, which is why
    /// `Recoverable` counts as over.
    pub fn of_absence(grade: DeletionGrade) -> Self {
        match grade {
            DeletionGrade::Immediate | DeletionGrade::Recoverable { .. } => Self::Immediate,
            DeletionGrade::Eventual { within } => Self::Eventual { within },
        }
    }

    /// The finality of a key whose deletion is pending, in a store of this grade. `remaining` is
    /// how long the store says that the key can still be brought back. Where it says nothing, the
    /// store's own window is assumed. Where it says that the time is over although the key is still
    /// there, its clock or its date means something else, and the longest time that is possible is
    /// assumed: 30 days.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deletion {
    /// The time after which the stored bytes are beyond recovery.
    pub finality: Finality,
    /// True if an earlier attempt of the same call ended without an answer, so that it may be
    /// applied later: it then deletes a key that was created in the meantime.
    pub unsettled: bool,
}

impl Deletion {
    /// A deletion of this finality, of which no attempt is still to come.
    pub fn new(finality: Finality) -> Self {
        Self { finality, unsettled: false }
    }

    /// Says whether an earlier attempt may still be applied.
    pub fn with_unsettled(mut self, unsettled: bool) -> Self {
        self.unsettled = unsettled;
        self
    }
}

/// The result of [`erase_key`](crate::KeyStore::erase_key), with what was proved.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Erasure {
    /// True if there was a key. It is false only after an unambiguous "not found".
    pub existed: bool,
    /// The time after which the stored bytes are beyond recovery.
    pub finality: Finality,
    /// True if a read that began after the delete, and on an eventually consistent store one
    /// visibility bound later, answered "not found".
    pub verified: bool,
    /// True if an earlier attempt of the same call ended without an answer, so that it may be
    /// applied later: it then deletes a key that was created in the meantime.
    pub unsettled: bool,
}

impl Erasure {
    /// An erasure with these findings, of which no attempt is still to come.
    pub fn new(existed: bool, finality: Finality, verified: bool) -> Self {
        Self { existed, finality, verified, unsettled: false }
    }

    /// Says whether an earlier attempt may still be applied.
    pub fn with_unsettled(mut self, unsettled: bool) -> Self {
        self.unsettled = unsettled;
        self
    }
}

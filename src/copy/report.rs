//! [`CopyReport`]: what a copy came to.

use crate::{Error, ErrorKind, KeyId};

/// What [`copy_keys`](super::copy_keys) has done; for a dry run, what it would do.
///
/// Each listed id is in one of these: `done_before`, `copied`, `already_there`, `overwritten`, `skipped`, `vanished`,
/// `conflicts`, `unreadable`, `failed` (which also holds failed removals and deletions).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// Whether this is of a dry run, which has changed nothing.
    pub dry_run: bool,
    /// Whether the journal said at the beginning that its copy was complete, so that only what came since was looked for.
    pub was_complete: bool,
    /// How many ids the source listed.
    pub listed: u64,
    /// How many of them the journal names as copied and verified, or found to be equal, by earlier runs; these were not read
    /// again.
    pub done_before: u64,
    /// How many were created at the target and read back. One that an earlier run of the journal began to create counts too.
    pub copied: u64,
    /// How many had the same key at the target already.
    pub already_there: u64,
    /// How many had a different key at the target, which was replaced ([`ConflictPolicy::Overwrite`](super::ConflictPolicy::Overwrite)).
    pub overwritten: u64,
    /// How many have a different key at the target, which was left ([`ConflictPolicy::Skip`](super::ConflictPolicy::Skip)).
    pub skipped: u64,
    /// How many were listed but not found when they were read: deleted meanwhile.
    pub vanished: u64,
    /// How many were deleted at the source after all had been verified.
    pub deleted_at_source: u64,
    /// The ids that have a different key at the target, which was left ([`ConflictPolicy::Report`](super::ConflictPolicy::Report)).
    pub conflicts: Bounded<KeyId>,
    /// The ids whose keys the source could not give.
    pub unreadable: Bounded<KeyFailure>,
    /// How many entries the source listed as damaged, so that not even their ids are known.
    pub unlisted: u64,
    /// The ids that could not be written or read back at the target, or be deleted where that was to be.
    pub failed: Bounded<KeyFailure>,
    /// The ids that the source lost during the copy, and whose copies were removed at the target.
    pub removed_at_target: Bounded<KeyId>,
    /// The ids that the source lost during the copy, but that have another key at the target than the copy wrote, which was
    /// left.
    pub left_at_target: Bounded<KeyId>,
    /// How many ids seem lost at the source and were left at the target, because the target cannot list, the source could
    /// not be asked, or they are so many (more than 100, and more than half of what was copied) that the source is more likely
    /// to be the wrong one. Look into it, and run again with the same journal.
    pub unsettled: u64,
    /// The ids that were to be deleted at the source but are not equal on both sides (any more): they came or changed after
    /// they had been copied.
    pub left_at_source: Bounded<KeyId>,
}

impl CopyReport {
    /// Whether the copy proves complete: every key that the source lists was read back at the target with the same bytes (or
    /// skipped, where the policy is to skip), and nothing is left to settle. Never of a dry run.
    pub fn is_complete(&self) -> bool {
        !self.dry_run && self.has_nothing_open()
    }

    pub(super) fn has_nothing_open(&self) -> bool {
        let open = self.conflicts.total
            + self.unreadable.total
            + self.unlisted
            + self.failed.total
            + self.unsettled
            + self.left_at_source.total;
        open == 0
    }

    /// How many ids of the source have its key at the target, as far as is known.
    pub(super) fn at_target(&self) -> u64 {
        self.done_before + self.copied + self.already_there + self.overwritten
    }
}

/// The first so many of a list, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounded<T> {
    /// The first [`KEPT`](Self::KEPT) of them.
    pub first: Vec<T>,
    /// How many there are.
    pub total: u64,
}

impl<T> Bounded<T> {
    /// How many are kept.
    pub const KEPT: usize = 1000;

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    pub(super) fn push(&mut self, item: T) {
        if self.first.len() < Self::KEPT {
            self.first.push(item);
        }
        self.total += 1;
    }
}

impl<T> Default for Bounded<T> {
    fn default() -> Self {
        Self { first: Vec::new(), total: 0 }
    }
}

/// An id that could not be dealt with, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyFailure {
    /// Whose key it is.
    pub id: KeyId,
    /// What failed, on which store, with what the service answered.
    pub error: Error,
}

impl KeyFailure {
    pub(super) fn new(id: KeyId, error: Error) -> Self {
        Self { id, error }
    }

    /// What went wrong, grouped by who must act.
    pub fn kind(&self) -> ErrorKind {
        self.error.kind()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_list_keeps_the_first_thousand_and_counts_the_rest() {
        let mut list = Bounded::default();
        (0..1500).for_each(|number| list.push(number));
        assert_eq!((list.first.len(), list.first.last(), list.total), (1000, Some(&999), 1500));
    }
}

//! [`CopyReport`]: what a copy came to.

use std::fmt;

use crate::{Error, ErrorKind, KeyId};

/// The result of [`copy_keys`](super::copy_keys); after a dry run, what would happen.
///
/// Each listed id is in one of these: `done_before`, `copied`, `already_there`, `overwritten`,
/// `skipped`, `vanished`, `conflicts`, `unreadable`, `failed` (which also holds failed removals and
/// deletions).
///
/// `Display` says in one sentence what was proved and what is left, without any id.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// True if this is the report of a dry run, which has changed nothing.
    pub dry_run: bool,
    /// True if the journal said at the beginning that its copy was complete.
    pub was_complete: bool,
    /// The number of ids that the source listed.
    pub listed: u64,
    /// The number of those that earlier runs of the journal had copied, or found to be equal. This
    /// run has read all of them again on both sides and found them equal, except for those in
    /// `not_rechecked`.
    pub done_before: u64,
    /// The number of those in `done_before` that this run has not read again
    /// ([`CopyOptions::recheck`](super::CopyOptions::recheck)).
    pub not_rechecked: u64,
    /// The number of keys created at the target and read back. One that an earlier run of the
    /// journal began to create counts too.
    pub copied: u64,
    /// The number of ids that had the same key at the target already.
    pub already_there: u64,
    /// The number of ids with a different key at the target, which was replaced
    /// ([`ConflictPolicy::Overwrite`](super::ConflictPolicy::Overwrite)).
    pub overwritten: u64,
    /// The number of ids with a different key at the target, which was left
    /// ([`ConflictPolicy::Skip`](super::ConflictPolicy::Skip)).
    pub skipped: u64,
    /// The number of ids that were listed but no longer found when they were read.
    pub vanished: u64,
    /// The number of keys that were deleted at the source after all had been verified.
    pub deleted_at_source: u64,
    /// The ids that have a different key at the target, which was left
    /// ([`ConflictPolicy::Report`](super::ConflictPolicy::Report)).
    pub conflicts: Bounded<KeyId>,
    /// The ids whose keys the source could not give.
    pub unreadable: Bounded<KeyFailure>,
    /// The number of entries that the source listed as damaged, so that not even their ids are
    /// known.
    pub unlisted: u64,
    /// The ids that could not be written or read back at the target, or be deleted where that was
    /// to be.
    pub failed: Bounded<KeyFailure>,
    /// The ids that the source lost during the copy, and whose copies were removed at the target.
    pub removed_at_target: Bounded<KeyId>,
    /// The ids that the source lost during the copy, but that have another key at the target than
    /// the copy wrote, which was left.
    pub left_at_target: Bounded<KeyId>,
    /// The number of ids that seem lost at the source and were left at the target, because the
    /// target cannot list, the source could not be asked, `removals_to_confirm` was not confirmed,
    /// or for the reason in `withheld`.
    pub unsettled: u64,
    /// The number of ids that the source seems to have lost, if there are so many that their
    /// removal at the target must be confirmed, else 0. Find out why they are missing, then repeat
    /// the copy with the same journal and
    /// [`CopyOptions::confirm_removals`](super::CopyOptions::confirm_removals).
    pub removals_to_confirm: u64,
    /// The reason why nothing was removed at the target and nothing deleted at the source although
    /// there was something to remove or delete: it is not known for sure which stores these are.
    pub withheld: Option<String>,
    /// The ids that were to be deleted at the source but are not equal on both sides (any more):
    /// they came or changed after they had been copied.
    pub left_at_source: Bounded<KeyId>,
    /// The number of keys that a listing of the source after the deletions has shown, whatever the
    /// reason: skipped, left, failed or new.
    pub remaining_at_source: u64,
    /// The key that was created at the target to tell the two stores apart, if it could not be
    /// removed again.
    pub probe_left: Option<KeyFailure>,
}

impl CopyReport {
    /// Returns whether the copy proves complete: this run has read every key that the source lists
    /// at the target, with the same bytes (or has skipped it, where the policy is to skip), and
    /// nothing is left to settle.
    ///
    /// It is never true after a dry run, and never if keys that earlier runs copied were not read
    /// again.
    pub fn is_complete(&self) -> bool {
        !self.dry_run && self.not_rechecked == 0 && self.has_nothing_open()
    }

    /// Returns whether nothing is left to do, as far as this run and the journal know.
    pub fn has_nothing_open(&self) -> bool {
        let open = self.conflicts.total
            + self.unreadable.total
            + self.unlisted
            + self.failed.total
            + self.unsettled
            + self.left_at_source.total;
        open == 0 && self.withheld.is_none()
    }

    /// Returns the number of the source's ids that are known to have their key at the target.
    pub(super) fn at_target(&self) -> u64 {
        self.done_before + self.copied + self.already_there + self.overwritten
    }

    /// Returns what the sentence must say besides the keys that were read back.
    fn exceptions(&self) -> Vec<String> {
        let exceptions = [
            (
                self.not_rechecked,
                "that earlier runs copied was not read again",
                "that earlier runs copied were not read again",
            ),
            (self.skipped, "differs and was skipped", "differ and were skipped"),
            (
                self.vanished,
                "was deleted at the source before it was read",
                "were deleted at the source before they were read",
            ),
            (
                self.removed_at_target.total,
                "was deleted at the source meanwhile and removed at the target",
                "were deleted at the source meanwhile and removed at the target",
            ),
            (
                self.left_at_target.total,
                "was deleted at the source meanwhile and has another key at the target",
                "were deleted at the source meanwhile and have another key at the target",
            ),
            (self.conflicts.total, "differs and was left", "differ and were left"),
            (self.unreadable.total, "could not be read at the source", "could not be read at the source"),
            (self.unlisted, "is damaged at the source, even its id", "are damaged at the source, even their ids"),
            (self.failed.total, "failed", "failed"),
            (
                self.unsettled,
                "is missing at the source and was left at the target",
                "are missing at the source and were left at the target",
            ),
            (
                self.left_at_source.total,
                "came or changed since and was left at the source",
                "came or changed since and were left at the source",
            ),
        ];
        let mut texts = Vec::new();
        for (number, one, several) in exceptions {
            match number {
                0 => {}
                1 => texts.push(format!("1 {one}")),
                _ => texts.push(format!("{number} {several}")),
            }
        }
        texts
    }
}

impl fmt::Display for CopyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.dry_run {
            return f.write_str("a dry run: nothing was changed");
        }
        let exceptions = self.exceptions();
        let read = match self.at_target().saturating_sub(self.not_rechecked) {
            1 => "1 key was read back at the target".to_owned(),
            read => format!("{read} keys were read back at the target"),
        };
        match (self.is_complete(), self.has_nothing_open()) {
            (true, _) if self.listed == 0 && exceptions.is_empty() => {
                f.write_str("complete: the source lists no key")?;
            }
            (true, _) if exceptions.is_empty() => {
                f.write_str("complete: every key of the source was read back at the target")?;
            }
            (true, _) => write!(f, "complete: {read}")?,
            (false, true) => write!(f, "nothing is left to copy, but not every key was checked: {read}")?,
            (false, false) => write!(f, "NOT complete: {read}")?,
        }
        for exception in exceptions {
            write!(f, "; {exception}")?;
        }
        Ok(())
    }
}

/// The first so many of a list, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounded<T> {
    /// The first [`KEPT`](Self::KEPT) of them.
    pub first: Vec<T>,
    /// The number of all items, including those that are not kept.
    pub total: u64,
}

impl<T> Bounded<T> {
    /// The largest number of items that are kept.
    pub const KEPT: usize = 1000;

    /// Reports whether there are no items.
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
    /// The error, with the store on which it occurred and the answer of the service.
    pub error: Error,
}

impl KeyFailure {
    pub(super) fn new(id: KeyId, error: Error) -> Self {
        Self { id, error }
    }

    /// Returns the kind of the error, which groups errors by who must act.
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

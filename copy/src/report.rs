//! [`CopyReport`]: the result of a copy.

use std::fmt;

use keystead_core::{Error, ErrorKind, KeyId};

/// The result of [`copy_keys`](crate::copy_keys). After a dry run, it says what a copy would do.
///
/// Each listed id is counted in exactly one of these fields: `done_before`, `copied`,
/// `already_there`, `overwritten`, `skipped`, `vanished`, `conflicts`, `unreadable` and `failed`,
/// which also has the keys that could not be removed or deleted.
///
/// `Display` says in one sentence what was verified and what remains, without any id.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct CopyReport {
    /// True if this is the report of a dry run, which has changed nothing.
    pub dry_run: bool,
    /// True if the journal recorded a complete copy when this run began.
    pub was_complete: bool,
    /// The number of ids that the source listed.
    pub listed: u64,
    /// The number of listed ids that earlier runs with this journal had copied or found equal. This
    /// run has read them again on both sides and found them equal, except those in `not_rechecked`.
    pub done_before: u64,
    /// The number of ids in `done_before` that this run has not read again
    /// ([`CopyOptions::recheck`](crate::CopyOptions::recheck)).
    pub not_rechecked: u64,
    /// The number of keys that were created at the target and read back, including those that an
    /// earlier run with this journal began to create.
    pub copied: u64,
    /// The number of ids that already had the same key at the target.
    pub already_there: u64,
    /// The number of ids with a different key at the target, which was replaced
    /// ([`ConflictPolicy::Overwrite`](crate::ConflictPolicy::Overwrite)).
    pub overwritten: u64,
    /// The number of ids with a different key at the target, which was kept
    /// ([`ConflictPolicy::Skip`](crate::ConflictPolicy::Skip)).
    pub skipped: u64,
    /// The number of ids that were listed but were no longer found when they were read.
    pub vanished: u64,
    /// The number of keys that were deleted at the source after all had been verified.
    pub deleted_at_source: u64,
    /// The ids with a different key at the target, which was kept
    /// ([`ConflictPolicy::Report`](crate::ConflictPolicy::Report)).
    pub conflicts: Bounded<KeyId>,
    /// The ids whose keys could not be read at the source.
    pub unreadable: Bounded<KeyFailure>,
    /// The number of entries that are so damaged at the source that their ids are not known.
    pub unlisted: u64,
    /// The ids whose keys could not be written or read back at the target, or could not be removed
    /// there or deleted at the source.
    pub failed: Bounded<KeyFailure>,
    /// The ids that the source lost during the copy and whose keys were removed at the target, too.
    pub removed_at_target: Bounded<KeyId>,
    /// The ids that the source lost during the copy and that have a key at the target that the copy
    /// did not write. That key was kept.
    pub left_at_target: Bounded<KeyId>,
    /// The number of ids that the source seems to have lost and whose keys remain at the target:
    /// because the target cannot list, the source could not be read, `removals_to_confirm` was not
    /// confirmed, or for the reason in `withheld`.
    pub unsettled: u64,
    /// The number of ids that the source seems to have lost, if their removal at the target must be
    /// confirmed because there are so many; otherwise 0. Find out why they are missing, then repeat
    /// the copy with the same journal and
    /// [`CopyOptions::confirm_removals`](crate::CopyOptions::confirm_removals).
    pub removals_to_confirm: u64,
    /// The reason why no key was removed at the target or deleted at the source although there were
    /// keys to remove or delete: it is not certain which stores these are.
    pub withheld: Option<String>,
    /// The ids that were not deleted at the source because their keys differ between the two sides:
    /// they were added or changed after the copy had passed them.
    pub left_at_source: Bounded<KeyId>,
    /// The number of keys that a listing of the source has shown after the deletions: skipped,
    /// left, failed or new.
    pub remaining_at_source: u64,
    /// The key that was created at the target to prove that the two stores are different, if it
    /// could not be removed again.
    pub probe_left: Option<KeyFailure>,
}

impl CopyReport {
    /// Reports whether the copy is complete: this run has read every key that the source lists at
    /// the target and found the same bytes (or has skipped it under [`ConflictPolicy::Skip`]), and
    /// nothing remains to be done.
    ///
    /// It is never complete after a dry run, or if keys that earlier runs copied were not read
    /// again.
    ///
    /// [`ConflictPolicy::Skip`]: crate::ConflictPolicy::Skip
    pub fn is_complete(&self) -> bool {
        !self.dry_run && self.not_rechecked == 0 && self.has_nothing_open()
    }

    /// Reports whether nothing remains to be done, as far as this run and the journal know.
    pub fn has_nothing_open(&self) -> bool {
        let open = self.conflicts.total
            + self.unreadable.total
            + self.unlisted
            + self.failed.total
            + self.unsettled
            + self.left_at_source.total;
        open == 0 && self.withheld.is_none()
    }

    /// Returns the number of ids of the source whose key is known to be at the target.
    pub(crate) fn at_target(&self) -> u64 {
        self.done_before + self.copied + self.already_there + self.overwritten
    }

    /// Returns the parts of the sentence about keys that were not just copied and read back.
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

/// The first items of a list, and the number of all its items.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounded<T> {
    /// The first items, at most [`KEPT`](Self::KEPT).
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

    pub(crate) fn push(&mut self, item: T) {
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

/// An id whose key could not be processed, and the error.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct KeyFailure {
    /// The id.
    pub id: KeyId,
    /// The error, with the store on which it occurred and the answer of the service.
    pub error: Error,
}

impl KeyFailure {
    pub(crate) fn new(id: KeyId, error: Error) -> Self {
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

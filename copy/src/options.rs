//! [`CopyOptions`], the options of a copy, and [`CopyProgress`], the progress that it reports.

use std::fmt;
use std::path::PathBuf;

use keystead_core::{Durability, ErrorKind, Result};

use crate::failure::refusal;

/// The number of concurrent writes, unless set otherwise.
const CONCURRENCY: usize = 8;

/// The options of [`copy_keys`](crate::copy_keys).
///
/// By default a copy is as fast as the stores allow, keeps no journal, reports the ids that have a
/// different key at the target, and does not change the source.
///
/// ```
/// use keystead_copy::{ConflictPolicy, CopyOptions};
///
/// let options = CopyOptions::default()
///     .journal("/var/lib/app/copy.journal")
///     .rate(10.0)
///     .on_conflict(ConflictPolicy::Skip)
///     .on_progress(|progress| println!("{:?}: {} keys", progress.phase, progress.done));
/// ```
pub struct CopyOptions {
    pub(crate) concurrency: usize,
    pub(crate) rate: Option<f64>,
    pub(crate) batch_size: Option<usize>,
    pub(crate) journal: Option<PathBuf>,
    pub(crate) on_conflict: ConflictPolicy,
    pub(crate) delete_source: bool,
    pub(crate) accepted_durability: Option<Durability>,
    pub(crate) confirmed_removals: Option<u64>,
    pub(crate) recheck: bool,
    pub(crate) dry_run: bool,
    pub(crate) on_progress: OnProgress,
}

pub(crate) type OnProgress = Box<dyn FnMut(CopyProgress) + Send>;

impl CopyOptions {
    /// Sets the number of concurrent writes to the target, at least 1. Default: 8.
    ///
    /// A target that creates many keys in one call gets one such call at a time. The stores
    /// themselves decide how many reads of a batch are concurrent; with a [`rate`](Self::rate),
    /// there are at most as many concurrent reads as writes.
    pub fn concurrency(mut self, writes: usize) -> Self {
        self.concurrency = writes;
        self
    }

    /// Sets the largest number of calls per second to each of the two stores, from one a day to a
    /// million per second. Default: no limit. Calls of other programs, and attempts that a store
    /// repeats by itself, are not counted.
    pub fn rate(mut self, calls_per_second: f64) -> Self {
        self.rate = Some(calls_per_second);
        self
    }

    /// Sets the number of ids that both stores handle in one call, at least 1, so that a
    /// [`rate`](Self::rate) counts calls and not ids.
    ///
    /// Default: the [`batch_size`](keystead_core::Capabilities::batch_size), `delete_batch_size`
    /// and `list_page_size` in the store's capabilities. If a store does not state them, each id
    /// that is read or deleted counts as a call, and so do every 10 ids that are listed.
    pub fn batch_size(mut self, ids: usize) -> Self {
        self.batch_size = Some(ids);
        self
    }

    /// Sets the file in which the run records its progress, so that the next run with the same file
    /// can continue. The file is created with mode 0600 if it does not exist. Default: no journal;
    /// after a run that was cut off, the next run compares the keys that are at the target already.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Sets the policy for ids that have a different key at the target. Default:
    /// [`ConflictPolicy::Report`].
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Sets whether the source's keys are deleted once nothing is left to copy. Default: no. They
    /// are deleted in a separate pass, which reads each key on both sides again and deletes it only
    /// if the two are equal.
    ///
    /// This is refused if the target is less durable than the source (see
    /// [`accept_durability`](Self::accept_durability)) or if it is not known that the two are
    /// different stores. Before the first deletion, a key with a random id is created at the
    /// target, looked for at the source, and removed again, to prove that the two are not the same
    /// store under two names.
    pub fn delete_source(mut self, delete: bool) -> Self {
        self.delete_source = delete;
        self
    }

    /// Accepts a target of this durability for [`delete_source`](Self::delete_source), even if the
    /// source is more durable. A move from Parameter Store to a file needs [`Durability::Host`].
    /// Default: the target must be at least as durable as the source. [`Durability::Process`] is
    /// never accepted, because the keys would be lost when the program ends.
    pub fn accept_durability(mut self, durability: Durability) -> Self {
        self.accepted_durability = Some(durability);
        self
    }

    /// Confirms that exactly this number of keys may be removed at the target because the source
    /// has lost them.
    ///
    /// Up to ten keys, or 1 % of the copied keys, need no confirmation, unless they are more than
    /// half of the copied keys. If more are missing at the source, nothing is removed, because the
    /// source may be the wrong store or may have lost keys by accident. Find out why they are
    /// missing. Then repeat the copy with the same journal and the number in
    /// [`CopyReport::removals_to_confirm`](crate::CopyReport::removals_to_confirm). Any other
    /// number confirms nothing.
    pub fn confirm_removals(mut self, number: u64) -> Self {
        self.confirmed_removals = Some(number);
        self
    }

    /// Sets whether keys that earlier runs with this journal have copied are read again on both
    /// sides and compared. Default: yes. Without it, the copy never counts as complete
    /// ([`CopyReport::is_complete`](crate::CopyReport::is_complete)), because it has not read those
    /// keys.
    pub fn recheck(mut self, recheck: bool) -> Self {
        self.recheck = recheck;
        self
    }

    /// Sets whether the copy only reads, and reports what it would do. Default: no.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets a function that is called after each chunk of keys, and every half second while the
    /// keys of a chunk are written one by one. If it panics, the copy panics, too; with a journal,
    /// the next run continues it.
    pub fn on_progress(mut self, progress: impl FnMut(CopyProgress) + Send + 'static) -> Self {
        self.on_progress = Box::new(progress);
        self
    }

    /// Checks the options, except the rate, which `Limit` checks.
    pub(crate) fn check(&self) -> Result<()> {
        if self.concurrency == 0 {
            return Err(refusal(ErrorKind::Config, "a concurrency of zero writes nothing; set at least 1"));
        }
        if self.batch_size == Some(0) {
            return Err(refusal(ErrorKind::Config, "a batch of zero ids reads nothing; set at least 1"));
        }
        if self.accepted_durability == Some(Durability::Process) {
            let text = "a move into the memory of a process is never accepted, because its keys are lost when \
                        the process ends; give a target that lasts";
            return Err(refusal(ErrorKind::Config, text));
        }
        Ok(())
    }
}

impl Default for CopyOptions {
    fn default() -> Self {
        Self {
            concurrency: CONCURRENCY,
            rate: None,
            batch_size: None,
            journal: None,
            on_conflict: ConflictPolicy::Report,
            delete_source: false,
            accepted_durability: None,
            confirmed_removals: None,
            recheck: true,
            dry_run: false,
            on_progress: Box::new(|_| {}),
        }
    }
}

impl fmt::Debug for CopyOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("concurrency", &self.concurrency)
            .field("rate", &self.rate)
            .field("batch_size", &self.batch_size)
            .field("journal", &self.journal)
            .field("on_conflict", &self.on_conflict)
            .field("delete_source", &self.delete_source)
            .field("accepted_durability", &self.accepted_durability)
            .field("confirmed_removals", &self.confirmed_removals)
            .field("recheck", &self.recheck)
            .field("dry_run", &self.dry_run)
            .finish_non_exhaustive()
    }
}

/// The policy for ids that have a different key at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// The target's key stays, the id is reported, and the copy is not complete.
    #[default]
    Report,
    /// The target's key stays, the id is counted, and the copy can still be complete.
    Skip,
    /// The source's key replaces the target's, which is lost.
    Overwrite,
}

/// The phase of a copy or a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CopyPhase {
    /// Copies the keys that the source lists.
    Copying,
    /// Lists the source again, to find keys that were added or deleted meanwhile.
    Checking,
    /// Removes at the target the keys that the source has lost.
    Removing,
    /// Deletes keys at the source.
    Deleting,
    /// Compares the keys of two stores.
    Comparing,
}

/// The progress of a copy or a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// The current phase.
    pub phase: CopyPhase,
    /// The number of ids that this phase has finished. While keys are written one by one, it
    /// includes those that are written but not yet read back.
    pub done: u64,
    /// The approximate number of all ids, or `None` until the source has been listed once.
    pub total: Option<u64>,
}

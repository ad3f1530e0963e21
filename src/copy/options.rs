//! [`CopyOptions`]: how a copy is made, and [`CopyProgress`]: how far it is.

use std::fmt;
use std::path::PathBuf;

use super::refusal;
use crate::{Durability, ErrorKind, Result};

/// How many writes are under way at once if nothing else is said.
const CONCURRENCY: usize = 8;

/// The options of [`copy_keys`](super::copy_keys). The defaults copy as fast as the stores
/// allow, keep no journal, report ids that have a different key at the target, and leave the source
/// as it is.
///
/// ```
/// use keystead::copy::{ConflictPolicy, CopyOptions};
///
/// let options = CopyOptions::default()
///     .journal("/var/lib/app/copy.journal")
///     .rate(10.0)
///     .on_conflict(ConflictPolicy::Skip)
///     .on_progress(|progress| println!("{:?}: {} keys", progress.phase, progress.done));
/// ```
pub struct CopyOptions {
    pub(super) concurrency: usize,
    pub(super) rate: Option<f64>,
    pub(super) batch_size: Option<usize>,
    pub(super) journal: Option<PathBuf>,
    pub(super) on_conflict: ConflictPolicy,
    pub(super) delete_source: bool,
    pub(super) accepted_durability: Option<Durability>,
    pub(super) confirmed_removals: Option<u64>,
    pub(super) recheck: bool,
    pub(super) dry_run: bool,
    pub(super) on_progress: OnProgress,
}

pub(super) type OnProgress = Box<dyn FnMut(CopyProgress) + Send>;

impl CopyOptions {
    /// Sets the number of writes under way at the target at once, at least 1. Default: 8. A target
    /// that creates many keys best together gets one such call at a time. Reads are
    /// as many at once as the stores themselves make of a batch, or with a [`rate`](Self::rate) at
    /// most this many.
    pub fn concurrency(mut self, writes: usize) -> Self {
        self.concurrency = writes;
        self
    }

    /// Sets the number of calls a second to each of the two stores, from one a day to a million.
    /// Default: any number. Calls of other programs, and what a store tries again by itself, are
    /// not counted.
    pub fn rate(mut self, calls_per_second: f64) -> Self {
        self.rate = Some(calls_per_second);
        self
    }

    /// Sets the number of ids that a store handles in one call, at least 1, so that a
    /// [`rate`](Self::rate) counts calls and not ids. Default: what Secrets Manager takes for a
    /// `secretsmanager` store (reads 20, a page of the listing 100, deletions 1), and 10, as
    /// Parameter Store takes, for every other.
    pub fn batch_size(mut self, ids: usize) -> Self {
        self.batch_size = Some(ids);
        self
    }

    /// Sets the file in which the run writes what it has done, so that the next run with the same
    /// file goes on from there. Created with mode 0600 if there is none. Default: no journal; a run
    /// that is cut off then compares what it had copied again.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    /// Sets what becomes of an id that has a different key at the target. Default:
    /// [`ConflictPolicy::Report`].
    pub fn on_conflict(mut self, policy: ConflictPolicy) -> Self {
        self.on_conflict = policy;
        self
    }

    /// Sets whether the source's keys are deleted once nothing is left to copy, in a pass of its
    /// own that reads both sides again and deletes only what is equal. Default: no.
    ///
    /// It is refused if the target is less durable than the source (see
    /// [`accept_durability`](Self::accept_durability)) and if it is not known that the two are
    /// different stores. Before the first deletion a key of a random id is created at the target,
    /// looked for at the source, and removed again, to see that the two are not one store under two
    /// names.
    pub fn delete_source(mut self, delete: bool) -> Self {
        self.delete_source = delete;
        self
    }

    /// Accepts a target of this durability for [`delete_source`](Self::delete_source), although the
    /// source is more durable: a move from Parameter Store to a file needs [`Durability::Host`].
    /// Default: the target must be as durable as the source. [`Durability::Process`] is never
    /// accepted, because the keys would be gone when the program ends.
    pub fn accept_durability(mut self, durability: Durability) -> Self {
        self.accepted_durability = Some(durability);
        self
    }

    /// Confirms that exactly so many keys may be removed at the target because the source has lost
    /// them.
    ///
    /// Up to ten, or one in a hundred of what was copied, need no confirmation, unless they are
    /// more than half of it. If more are missing at the source, nothing is removed: either the
    /// source is the wrong one, or something happened to it. Find out, then repeat the copy with
    /// the same journal and the number in
    /// [`CopyReport::removals_to_confirm`](super::CopyReport::removals_to_confirm). Another number
    /// confirms nothing.
    pub fn confirm_removals(mut self, number: u64) -> Self {
        self.confirmed_removals = Some(number);
        self
    }

    /// Sets whether the keys that earlier runs of the journal have copied are read again on both
    /// sides and compared. Default: yes. If not, the copy is never complete
    /// ([`CopyReport::is_complete`](super::CopyReport::is_complete)), because it has not seen those
    /// keys.
    pub fn recheck(mut self, recheck: bool) -> Self {
        self.recheck = recheck;
        self
    }

    /// Whether to read only, and report what would happen. Default: no.
    pub fn dry_run(mut self, dry_run: bool) -> Self {
        self.dry_run = dry_run;
        self
    }

    /// Sets the function that is called after each chunk of keys, and every half second while a chunk
    /// is written key by key. If it panics, so does the copy; with a journal nothing is lost.
    pub fn on_progress(mut self, progress: impl FnMut(CopyProgress) + Send + 'static) -> Self {
        self.on_progress = Box::new(progress);
        self
    }

    /// The limits of the rate are checked where it is made use of.
    pub(super) fn check(&self) -> Result<()> {
        if self.concurrency == 0 {
            return Err(refusal(ErrorKind::Config, "a concurrency of zero writes nothing: set at least 1"));
        }
        if self.batch_size == Some(0) {
            return Err(refusal(ErrorKind::Config, "a batch of zero ids reads nothing: set at least 1"));
        }
        if self.accepted_durability == Some(Durability::Process) {
            let text =
                "a move into the memory of a process is never accepted: its keys would be gone when the process ends";
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

/// What becomes of an id that has a different key at the target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConflictPolicy {
    /// The target's key stays, the id is reported, and the copy is not complete.
    #[default]
    Report,
    /// The target's key stays and is counted.
    Skip,
    /// The source's key replaces it. What is replaced is gone.
    Overwrite,
}

/// What a copy or a comparison is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CopyPhase {
    /// Copies what the source lists.
    Copying,
    /// Lists the source again, for what came or went meanwhile.
    Checking,
    /// Removes at the target what the source has lost.
    Removing,
    /// Deletes at the source.
    Deleting,
    /// Compares, and changes nothing.
    Comparing,
}

/// How far a copy or a comparison is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CopyProgress {
    /// What it is at.
    pub phase: CopyPhase,
    /// The number of ids that it has dealt with in this phase. While keys are written one by one,
    /// those that are written and not yet read back count.
    pub done: u64,
    /// How many there are about; `None` until the source has been listed once.
    pub total: Option<u64>,
}

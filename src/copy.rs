//! Verified, resumable copy from one store to another (feature `layers`).
//!
//! [`copy_keys`] lists the source, reads its keys in batches, creates them at the target, and reads each back to compare it. It
//! never replaces a key at the target unless it is told to, and deletes nothing at the source unless it is told to and
//! everything is verified. With a journal, a run that is killed at any point goes on where it was.
//!
#![cfg_attr(feature = "memory", doc = "```")]
#![cfg_attr(not(feature = "memory"), doc = "```ignore")]
//! use keystead::copy::{CopyOptions, copy_keys};
//! use keystead::memory::MemoryStore;
//! use keystead::{KeyId, KeyStore, KeyStoreExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), keystead::BoxError> {
//! let (source, target) = (MemoryStore::new(), MemoryStore::new());
//! let alice = KeyId::new("alice")?;
//! let key = source.get_or_create_key(&alice).await?;
//!
//! let report = copy_keys(&source, &target, CopyOptions::default()).await?;
//! assert!(report.is_complete());
//! assert_eq!(report.copied, 1);
//! assert_eq!(target.get_key(&alice).await?, key);
//! # Ok(())
//! # }
//! ```
//!
//! # What a copy does
//! 1. It lists the source and goes through it in chunks of 100 ids: reads the keys, writes each with
//!    [`PutMode::Create`](crate::PutMode::Create), and reads them back. What an eventually consistent target does not show yet
//!    is read again until its visibility bound has passed. A key that stands there already is left: the same one is counted, a
//!    different one is dealt with as [`ConflictPolicy`] says.
//! 2. If anything was copied, it lists the source again, and copies what came meanwhile. What it wrote and the source does not
//!    list any more is asked for twice, one visibility bound apart; if the source does not find it either time, the user was
//!    erased during the copy, and the key that the copy wrote is removed at the target.
//! 3. If that is asked for and the copy is complete, it lists the source once more, reads both sides of each key, and
//!    deletes at the source what is equal.
//!
//! An entry that cannot be read or written does not stop it: it is in the [`CopyReport`]. A chunk of which nothing can be read
//! or written because the store throttles, cannot be reached, or is full, ends the run with that error.
//!
//! **It does not try again by itself** what a store refuses: give it stores that do (the AWS stores, or a `Resilient` around
//! another). Give it no `Cached` target: what is read back must come from the store itself. A key that changes at the source
//! after it was copied is not noticed, unless the source is to be deleted: let applications write to the target only, or
//! [`compare`] afterwards.
//!
//! **What is deleted at the source while it runs counts as erased.** So run one copy of a pair at a time, or one would take what
//! the other moves for erased, and remove it at the target.
//!
//! Memory stays bounded: about 50 bytes for each id, and the first 1,000 of each list in the report.
//!
//! It needs a Tokio runtime with time (`enable_time`), and writes its journal on the calling task.
//!
//! # The journal
//! It holds neither ids nor keys, but keyed hashes of them, with the key in its header: who reads it can tell whether an id
//! that he guesses was copied, so it has mode 0600. It is of one source and one target, told by their
//! [`info`](crate::KeyStore::info); two accounts with equal names cannot be told apart. It may be deleted once the copy is
//! complete; if it is lost, the next run compares what stands at the target, takes none of it for its own, and removes none of it.
//!
//! With the journal of a copy that was complete, a run lists the source once, copies what came since, and removes nothing at
//! the target, whatever the source has lost since then.
//!
//! A header and records of fixed size, one behind the other. All numbers are little-endian. A digest of purpose P is the first 16
//! bytes of HMAC-SHA-256(digest key, the byte P followed by the data); a checksum is the first 8 bytes of one of purpose 5, whose
//! data are the offset in the file of the header or record (8 bytes) and the bytes of it that come before the checksum.
//!
//! | bytes of the header | |
//! |---|---|
//! | 16 | `keystead-journal` |
//! | 4 | version: 1 |
//! | 32 | digest key, random |
//! | 16 | digest of the source: purpose 3, `info()` as text |
//! | 16 | digest of the target: purpose 4, likewise |
//! | 8 | checksum |
//! | 1 | 0, or 1 once a run has begun to delete the source: then nothing at the target counts as written by the copy any more |
//!
//! | bytes of a record | |
//! |---|---|
//! | 1 | step: 1 intended, 2 written, 3 found, 4 removed, 5 ended |
//! | 16 | digest of the id: purpose 1; zeros for 5 |
//! | 16 | digest of the key: purpose 2, the id's digest and the key's bytes; zeros for 4 and 5 |
//! | 8 | checksum |
//!
//! A file shorter than a header is one whose creation was cut off, if it begins like one. What is behind the last whole record
//! is cut off. *Intended* is on the disk before the write (or the removal) begins, *written* (by us) and *found* (there
//! already) after the key was read back, *removed* after a removal at the target. *Ended* says that the copy was complete: what
//! stands at the target then does not count as written by the copy any more.

mod chunk;
mod compare;
mod delete_source;
mod digest;
mod dry_run;
mod endpoint;
mod final_pass;
mod journal;
mod ledger;
mod options;
mod report;

use futures_util::StreamExt;

pub use self::compare::{Comparison, compare};
use self::endpoint::Endpoint;
use self::ledger::{Ledger, ListedState};
use self::options::OnProgress;
pub use self::options::{ConflictPolicy, CopyOptions, CopyPhase, CopyProgress};
pub use self::report::{Bounded, CopyReport, KeyFailure};
use crate::{BoxError, BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result};

/// How many ids are dealt with at a time: whole batches of every store.
const CHUNK: usize = 100;

/// After how many ids that are at the target already the progress is told.
const TELL_EVERY: u64 = 1000;

/// Copies all keys of `source` to `target`, as the [module](self) says.
///
/// Dropping the future ends the copy; with a journal, the next one goes on where it was.
///
/// # Errors
/// Before any effect: [`Unsupported`](ErrorKind::Unsupported) if the source cannot list, or the journal is of a newer version;
/// [`Config`](ErrorKind::Config) if an option is out of its bounds, if the journal is no journal, of another pair of stores,
/// or open to others; [`Conflict`](ErrorKind::Conflict) if another run holds it; [`Corrupt`](ErrorKind::Corrupt) if its header
/// is damaged; [`PermissionDenied`](ErrorKind::PermissionDenied) if it may not be read and written, and
/// [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable) if its disk is full or fails.
///
/// Later: those of listing the source; those with which the store refuses all of a chunk
/// ([`Throttled`](ErrorKind::Throttled), [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout),
/// [`Unauthenticated`](ErrorKind::Unauthenticated), [`QuotaExceeded`](ErrorKind::QuotaExceeded); as long as nothing was written
/// yet, also [`PermissionDenied`](ErrorKind::PermissionDenied), [`KeyUnavailable`](ErrorKind::KeyUnavailable),
/// [`Unsupported`](ErrorKind::Unsupported) and [`Config`](ErrorKind::Config)); [`Config`](ErrorKind::Config) if the source is
/// to be deleted but is the target; [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable)
/// with [`Effect::Unknown`] if the journal cannot be written. Run it again with the same journal then. Everything else is in the
/// report, which must be looked at: [`CopyReport::is_complete`].
pub async fn copy_keys(source: &dyn KeyStore, target: &dyn KeyStore, options: CopyOptions) -> Result<CopyReport> {
    let is_to_delete = options.delete_source;
    let mut run = Run::prepare(source, target, options)?;
    if run.report.dry_run {
        run.plan(is_to_delete).await?;
        return Ok(run.report);
    }
    let has_copied = run.copy_all(CopyPhase::Copying).await?;
    if has_copied {
        run.copy_all(CopyPhase::Checking).await?;
    }
    run.settle_losses().await?;
    run.end_if_complete()?;
    if is_to_delete && run.report.is_complete() {
        run.delete_source().await?;
    }
    Ok(run.report)
}

/// A copy under way.
struct Run<'a> {
    source: Endpoint<'a>,
    target: Endpoint<'a>,
    on_conflict: ConflictPolicy,
    on_progress: OnProgress,
    ledger: Ledger,
    report: CopyReport,
    /// Whether something shows that source and target are not one and the same.
    are_two_stores: bool,
}

impl<'a> Run<'a> {
    fn prepare(source: &'a dyn KeyStore, target: &'a dyn KeyStore, options: CopyOptions) -> Result<Self> {
        options.check()?;
        if source.capabilities().listing.is_none() {
            let e = Error::new(ErrorKind::Unsupported, Operation::List, source.info().scheme());
            return Err(e.with_source("the source cannot list its keys: copy those whose ids you know one by one"));
        }
        let (from, to) = (Endpoint::new(source, &options)?, Endpoint::new(target, &options)?);
        let open = if options.dry_run { Ledger::look } else { Ledger::open };
        let ledger = open(options.journal.as_deref(), &source.info(), &target.info())?;
        let report = CopyReport { dry_run: options.dry_run, was_complete: ledger.has_ended(), ..CopyReport::default() };
        Ok(Self {
            source: from,
            target: to,
            on_conflict: options.on_conflict,
            on_progress: options.on_progress,
            ledger,
            report,
            are_two_stores: false,
        })
    }

    /// Lists the source and copies what is not at the target yet; whether there was any.
    async fn copy_all(&mut self, phase: CopyPhase) -> Result<bool> {
        let source = self.source.clone();
        let (mut ids, mut done, mut has_copied) = (source.list(), 0, false);
        self.ledger.begin_pass();
        while let Some(chunk) = self.next_to_do(&mut ids, phase, &mut done).await? {
            let len = chunk.len() as u64;
            self.copy_chunk(chunk).await?;
            (done, has_copied) = (done + len, true);
            self.tell(phase, done, self.total(phase)).await;
        }
        Ok(has_copied)
    }

    /// The next ids that are to be copied, up to a chunk; `None` at the end of the listing. The others are counted on the way.
    async fn next_to_do(
        &mut self,
        ids: &mut BoxStream<'_, Result<KeyId>>,
        phase: CopyPhase,
        done: &mut u64,
    ) -> Result<Option<Vec<KeyId>>> {
        let mut to_do = Vec::with_capacity(CHUNK);
        while to_do.len() < CHUNK {
            let id = match ids.next().await {
                None => break,
                Some(Ok(id)) => id,
                Some(Err(e)) if e.kind() == ErrorKind::Corrupt => {
                    self.report.unlisted += u64::from(phase == CopyPhase::Copying);
                    continue;
                }
                Some(Err(e)) => return Err(e),
            };
            match self.ledger.listed_state(&id) {
                ListedState::Repeated => {}
                ListedState::ToDo => {
                    self.report.listed += 1;
                    to_do.push(id);
                }
                ListedState::Vanished => {
                    self.report.vanished -= 1;
                    to_do.push(id);
                }
                ListedState::AtTarget | ListedState::Skipped => {
                    *done += 1;
                    if phase == CopyPhase::Copying {
                        self.report.listed += 1;
                        self.report.done_before += 1;
                    }
                    if done.is_multiple_of(TELL_EVERY) {
                        self.tell(phase, *done, self.total(phase)).await;
                    }
                }
            }
        }
        Ok((!to_do.is_empty()).then_some(to_do))
    }
}

impl Run<'_> {
    /// The next ids of a listing, up to a chunk; `None` at its end.
    async fn next_ids(&mut self, ids: &mut BoxStream<'_, Result<KeyId>>) -> Result<Option<Vec<KeyId>>> {
        let mut chunk = Vec::with_capacity(CHUNK);
        while chunk.len() < CHUNK {
            match ids.next().await {
                None => break,
                Some(Ok(id)) => chunk.push(id),
                Some(Err(e)) if e.kind() == ErrorKind::Corrupt => {}
                Some(Err(e)) => return Err(e),
            }
        }
        Ok((!chunk.is_empty()).then_some(chunk))
    }

    fn end_if_complete(&mut self) -> Result<()> {
        if self.report.is_complete() { self.ledger.end() } else { Ok(()) }
    }

    /// How many ids there are about, once the source has been listed.
    fn total(&self, phase: CopyPhase) -> Option<u64> {
        (phase != CopyPhase::Copying).then_some(self.report.listed)
    }

    /// Says how far it is, and lets other tasks run: some stores never wait.
    async fn tell(&mut self, phase: CopyPhase, done: u64, total: Option<u64>) {
        (self.on_progress)(CopyProgress { phase, done, total });
        tokio::task::yield_now().await;
    }
}

/// Whether all other keys would meet the same failure, for now or until somebody acts.
fn is_the_stores_fault(kind: ErrorKind) -> bool {
    use ErrorKind::{QuotaExceeded, Throttled, Timeout, Unauthenticated, Unavailable};
    matches!(kind, QuotaExceeded | Throttled | Timeout | Unauthenticated | Unavailable)
}

/// Going on would fail for every other key just so.
fn stop_if_all_failed<T>(outcomes: &[Result<T>], is_fatal: impl Fn(&Error) -> bool) -> Result<()> {
    let ends = |outcome: &Result<T>| outcome.as_ref().is_err_and(&is_fatal);
    match outcomes.first() {
        Some(Err(first)) if outcomes.iter().all(ends) => Err(first.clone()),
        _ => Ok(()),
    }
}

/// A failure that comes before any effect and belongs to neither store.
fn refusal(kind: ErrorKind, why: impl Into<BoxError>) -> Error {
    Error::new(kind, Operation::Copy, "keystead").with_effect(Effect::NotApplied).with_source(why)
}

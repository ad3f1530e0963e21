//! Verified, resumable copy from one store to another (feature `layers`).
//!
//! [`copy_keys`] lists the source, reads its keys in batches, creates them at the target, and reads
//! each back to compare it. It never replaces a key at the target unless it is told to, and deletes
//! nothing at the source unless it is told to and everything is verified. With a journal, a run
//! that is killed at any point goes on where it was.
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
//! 1. It asks both stores for their [identity](crate::KeyStore::identify) and refuses to copy a
//!    store to itself.
//! 2. It lists the source and goes through it in chunks: reads the keys, writes each with
//!    [`PutMode::Create`](crate::PutMode::Create), and reads them back. A chunk has 100 ids. For a
//!    target that creates many keys best together ([`Capabilities::create_batch_size`](crate::Capabilities),
//!    such as a file) it grows to that size while chunks take less than half a second. What an eventually
//!    consistent target does not show yet is read again until its visibility bound has passed. A
//!    key that is at the target already is left: the same one is counted, a different one is
//!    treated as [`ConflictPolicy`] says.
//! 3. If it read anything, it lists the source again, and copies what came meanwhile. What it wrote
//!    and the source no longer lists is looked for twice at the source, one visibility bound apart.
//!    If the source does not find it either time, the user was erased during the copy, and the key
//!    that the copy wrote is removed at the target. If more than ten keys and more than 1 % of
//!    what was copied are missing, or more than half of it, nothing is removed until the caller has
//!    confirmed the exact number ([`CopyOptions::confirm_removals`]).
//! 4. If [`CopyOptions::delete_source`] is set and nothing is left to copy, it proves with a key of
//!    its own that the two are different stores, lists the source once more, reads both sides of
//!    each key, deletes at the source what is equal, and counts what is left there.
//!
//! An entry that cannot be read or written does not stop the copy: it is in the [`CopyReport`]. If
//! the store cannot be reached or is full, so that nothing of a chunk can be read or written, the
//! run ends with that error.
//!
//! **It waits for quotas.** What a store throttles is done again after a pause, as long as some of
//! it succeeds. The run ends with [`Throttled`](crate::ErrorKind::Throttled) when nothing has
//! succeeded for two minutes.
//!
//! **It does not retry** what a store refuses otherwise: give it stores that do (the AWS stores, or a
//! `Resilient` around another one). Give it no `Cached` target, because what is read back must come
//! from the store itself. It does not notice a key that changes at the source after it was copied,
//! unless the source is to be deleted: let applications write to the target only, or [`compare`]
//! afterwards.
//!
//! **What is deleted at the source while it runs counts as erased.** So run one copy of a pair at a
//! time: a second copy that moves keys would look like erasures to the first one, which would
//! remove them at the target.
//!
//! # When the stores are not known for sure
//! A store may not know its account, because [`identify`](crate::KeyStore::identify) failed. Keys
//! are copied and verified all the same, but nothing is removed at the target and nothing is
//! deleted at the source as long as the copy cannot tell that the two are different stores, or that
//! the journal is of these two. [`CopyReport::withheld`] says so, and how to make it known.
//!
//! Memory stays bounded: about 50 bytes for each id, the keys of a chunk, and the first 1,000 of
//! each list in the report.
//!
//! It needs a Tokio runtime with time (`enable_time`), and writes its journal on the calling task.
//!
//! # The journal
//! With a journal, a run that was cut off is continued by the next run with the same file. The keys
//! that earlier runs copied are then read again on both sides and compared, unless
//! [`CopyOptions::recheck`] is false: a report calls a copy complete only for what its own run has
//! seen.
//!
//! The journal belongs to one source and one target, whose identities are in its header. A run
//! between other stores is refused. It contains neither ids nor keys, but keyed hashes of ids, with
//! the key in its header, so a reader can tell whether an id that they guess was copied: it has
//! mode 0600. It may be deleted once the copy is complete. If it is lost, the next run compares
//! what is at the target, takes none of it for its own, and removes none of it. With the journal of
//! a copy that was complete, a run copies what came since, and removes nothing at the target that
//! the earlier runs wrote, whatever the source has lost since then.
//!
//! [FORMAT.md](https://docs.rs/crate/keystead/latest/source/src/copy/FORMAT.md), in `src/copy`,
//! describes its bytes.

mod chunk;
mod compare;
mod delete_source;
mod digest;
mod dry_run;
mod endpoint;
mod final_pass;
mod header;
mod identity;
mod journal;
mod ledger;
mod options;
mod patience;
mod report;

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, sleep};

pub use self::compare::{Comparison, compare};
use self::endpoint::Endpoint;
use self::identity::{Doubt, Identities, Learned};
use self::ledger::{Ledger, ListedState};
use self::options::OnProgress;
pub use self::options::{ConflictPolicy, CopyOptions, CopyPhase, CopyProgress};
use self::patience::{Waits, is_throttling};
pub use self::report::{Bounded, CopyReport, KeyFailure};
use crate::{BoxError, BoxStream, Durability, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result};

/// The number of ids that are dealt with at a time: whole batches of every store.
const CHUNK: usize = 100;

/// A chunk that took less time than this is followed by one of twice the size, where the target
/// creates many keys best together.
const SHORT: Duration = Duration::from_millis(500);

/// A chunk that took longer is followed by one of half the size, because a run that is cut off
/// repeats its last chunk.
const LONG: Duration = Duration::from_secs(2);

/// After how many ids that are at the target already the progress is told.
const TELL_EVERY: u64 = 1000;

/// The pause between two reports of progress while a chunk is being written.
const TELL_PAUSE: Duration = Duration::from_millis(500);

/// Copies all keys of `source` to `target`, as the [module](self) says.
///
/// Dropping the future ends the copy; with a journal, the next one goes on where it was.
///
/// # Errors
/// Before any effect:
/// - [`Unsupported`](ErrorKind::Unsupported) if the source cannot list, or the journal has format
///   version 1 or a later one than this version knows.
/// - [`Config`](ErrorKind::Config) if an option is out of its bounds; if source and target are one
///   store; if the source is to be deleted and the target is less durable; if the journal is not a
///   journal, belongs to other stores, or is open to others.
/// - [`Conflict`](ErrorKind::Conflict) if another run holds the journal,
///   [`Corrupt`](ErrorKind::Corrupt) if its header is damaged,
///   [`PermissionDenied`](ErrorKind::PermissionDenied) if it may not be read and written, and
///   [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable) if its
///   disk is full or fails.
///
/// Later:
/// - Those of listing the source.
/// - Those with which the store refuses all of a chunk ([`Throttled`](ErrorKind::Throttled),
///   [`Unavailable`](ErrorKind::Unavailable), [`Timeout`](ErrorKind::Timeout),
///   [`Unauthenticated`](ErrorKind::Unauthenticated), [`QuotaExceeded`](ErrorKind::QuotaExceeded);
///   as long as nothing was written yet, also [`PermissionDenied`](ErrorKind::PermissionDenied),
///   [`KeyUnavailable`](ErrorKind::KeyUnavailable), [`Unsupported`](ErrorKind::Unsupported) and
///   [`Config`](ErrorKind::Config)).
/// - [`Config`](ErrorKind::Config), before the first deletion, if the source is to be deleted but
///   is the target or may be the target; and if one of the stores becomes another one under the
///   copy, as when credentials change to those of another account.
/// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable) with
///   [`Effect::Unknown`] if the journal cannot be written. Run it again with the same journal then.
///
/// Everything else is in the report, which must be looked at: [`CopyReport::is_complete`].
pub async fn copy_keys(source: &dyn KeyStore, target: &dyn KeyStore, options: CopyOptions) -> Result<CopyReport> {
    let is_to_delete = options.delete_source;
    let mut run = Run::prepare(source, target, options).await?;
    if run.report.dry_run {
        run.plan(is_to_delete).await?;
        return Ok(run.report);
    }
    let has_worked = run.copy_all(CopyPhase::Copying).await?;
    if has_worked {
        run.copy_all(CopyPhase::Checking).await?;
    }
    run.settle_losses().await?;
    run.end_if_complete()?;
    if is_to_delete && run.report.has_nothing_open() {
        run.delete_source().await?;
    }
    Ok(run.report)
}

/// A copy under way.
struct Run<'a> {
    source: Endpoint<'a>,
    target: Endpoint<'a>,
    /// The identities of the two as known when the copy began.
    identities: Identities,
    on_conflict: ConflictPolicy,
    on_progress: OnProgress,
    /// The pass under way, and the number of ids that it has dealt with.
    phase: CopyPhase,
    done: u64,
    rechecks: bool,
    confirmed_removals: Option<u64>,
    ledger: Ledger,
    /// The pauses of a listing that is throttled.
    listing_waits: Waits,
    report: CopyReport,
}

/// An id that the source has listed and this run has to deal with.
struct Listed {
    id: KeyId,
    /// An earlier run has copied it.
    is_recheck: bool,
}

impl<'a> Run<'a> {
    /// Refuses what can be refused before any effect.
    async fn prepare(source: &'a dyn KeyStore, target: &'a dyn KeyStore, options: CopyOptions) -> Result<Self> {
        options.check()?;
        if source.capabilities().listing.is_none() {
            let e = Error::new(ErrorKind::Unsupported, Operation::List, source.info().scheme());
            return Err(e.with_source("the source cannot list its keys: copy those whose ids you know one by one"));
        }
        let source = Endpoint::new(source, &options)?;
        let target = Endpoint::new(target, &options)?;
        if options.delete_source {
            refuse_weaker_target(source.durability(), target.durability(), options.accepted_durability)?;
        }
        let learned = Learned::from(&source, &target).await;
        learned.refuse_one_store()?;
        let identities = learned.identities;
        let open = if options.dry_run { Ledger::look } else { Ledger::open };
        let ledger = open(options.journal.as_deref(), &identities)?;
        let report = CopyReport { dry_run: options.dry_run, was_complete: ledger.has_ended(), ..CopyReport::default() };
        Ok(Self {
            source,
            target,
            identities,
            on_conflict: options.on_conflict,
            on_progress: options.on_progress,
            phase: CopyPhase::Copying,
            done: 0,
            rechecks: options.recheck,
            confirmed_removals: options.confirmed_removals,
            ledger,
            listing_waits: Waits::default(),
            report,
        })
    }

    /// Lists the source and copies what is not at the target yet. Returns whether anything had to
    /// be read.
    async fn copy_all(&mut self, phase: CopyPhase) -> Result<bool> {
        let source = self.source.clone();
        let mut ids = source.list();
        let mut has_worked = false;
        let mut chunk_size = CHUNK;
        self.begin_pass(phase);
        loop {
            let begun = Instant::now();
            let Some(chunk) = self.next_to_do(&source, &mut ids, chunk_size).await? else { break };
            let len = chunk.len() as u64;
            self.copy_chunk(chunk).await?;
            chunk_size = self.next_chunk_size(chunk_size, begun.elapsed());
            self.done += len;
            has_worked = true;
            self.tell_pass().await;
        }
        Ok(has_worked)
    }

    fn begin_pass(&mut self, phase: CopyPhase) {
        self.ledger.begin_pass();
        self.phase = phase;
        self.done = 0;
    }

    fn next_chunk_size(&self, size: usize, took: Duration) -> usize {
        let most = self.target.create_batch_size().unwrap_or(CHUNK).max(CHUNK);
        match took {
            took if took < SHORT => (size * 2).min(most),
            took if took > LONG => (size / 2).max(CHUNK),
            _ => size,
        }
    }

    /// The next ids that are to be dealt with, up to a chunk; `None` at the end of the listing. The
    /// others are counted on the way.
    async fn next_to_do<'s>(
        &mut self,
        source: &'s Endpoint<'_>,
        ids: &mut BoxStream<'s, Result<KeyId>>,
        chunk_size: usize,
    ) -> Result<Option<Vec<Listed>>> {
        let mut to_do = Vec::with_capacity(chunk_size);
        while to_do.len() < chunk_size {
            let id = match ids.next().await {
                None => break,
                Some(Ok(id)) => id,
                Some(Err(e)) if e.kind() == ErrorKind::Corrupt => {
                    self.report.unlisted += u64::from(self.phase == CopyPhase::Copying);
                    continue;
                }
                // Listed from the beginning: what this pass has met is passed over.
                Some(Err(e)) if is_throttling(&e) => {
                    let Some(pause) = self.listing_waits.next(e.retry_after().unwrap_or_default()) else {
                        return Err(e);
                    };
                    self.listing_waits.saw(false);
                    sleep(pause).await;
                    *ids = source.list();
                    continue;
                }
                Some(Err(e)) => return Err(e),
            };
            match self.ledger.listed_state(&id) {
                ListedState::Repeated => continue,
                ListedState::ToDo => {
                    self.report.listed += 1;
                    to_do.push(Listed { id, is_recheck: false });
                    continue;
                }
                ListedState::Vanished => {
                    self.report.vanished -= 1;
                    to_do.push(Listed { id, is_recheck: false });
                    continue;
                }
                ListedState::Before if self.rechecks => {
                    self.report.listed += 1;
                    to_do.push(Listed { id, is_recheck: true });
                    continue;
                }
                ListedState::Before => {
                    self.report.listed += 1;
                    self.report.done_before += 1;
                    self.report.not_rechecked += 1;
                    self.ledger.believe(&id);
                }
                ListedState::Done => {}
            }
            self.done += 1;
            if self.done.is_multiple_of(TELL_EVERY) {
                self.tell_pass().await;
            }
        }
        Ok((!to_do.is_empty()).then_some(to_do))
    }
}

impl Run<'_> {
    /// Asks both stores again who they are, right before something is removed or deleted, and
    /// returns what forbids that.
    async fn doubt(&mut self) -> Result<Option<Doubt>> {
        let learned = Learned::from(&self.source, &self.target).await;
        self.identities.refuse_others(&learned.identities)?;
        learned.refuse_one_store()?;
        if let Some(journal) = self.ledger.journal_stores() {
            journal.refuse_others(&learned.identities)?;
        }
        Ok(learned.doubt(self.ledger.journal_stores()))
    }

    /// Refuses to go on with other stores than the copy began with, as far as they know it by
    /// themselves.
    fn refuse_changed_stores(&self) -> Result<()> {
        let now = Identities { source: self.source.identity(), target: self.target.identity() };
        self.identities.refuse_others(&now)
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

    /// Returns how far the pass under way is.
    fn progress(&self) -> CopyProgress {
        // The first pass does not know how many there are.
        let total = (self.phase != CopyPhase::Copying).then_some(self.report.listed);
        CopyProgress { phase: self.phase, done: self.done, total }
    }

    /// Says how far the pass under way is.
    async fn tell_pass(&mut self) {
        let CopyProgress { phase, done, total } = self.progress();
        self.tell(phase, done, total).await;
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

/// Refuses to move keys to where they would last less long, unless that is accepted by name.
fn refuse_weaker_target(source: Durability, target: Durability, accepted: Option<Durability>) -> Result<()> {
    if target >= source || target != Durability::Process && accepted.is_some_and(|accepted| target >= accepted) {
        return Ok(());
    }
    let what_to_do = match target {
        Durability::Process => "give a target that lasts, or leave the source as it is",
        _ => "accept it by name (accept_durability, --accept-durability host), or leave the source as it is",
    };
    let text = format!(
        "nothing was copied: the source would be deleted, and its keys would be less durable at the target ({target:?}) \
         than at the source ({source:?}): {what_to_do}"
    );
    Err(refusal(ErrorKind::Config, text))
}

/// A failure that comes before any effect and belongs to neither store.
fn refusal(kind: ErrorKind, why: impl Into<BoxError>) -> Error {
    Error::new(kind, Operation::Copy, "keystead").with_effect(Effect::NotApplied).with_source(why)
}

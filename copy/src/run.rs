//! The run of a copy: its passes over the source, one after the other.

use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{BoxStream, Durability, Error, ErrorKind, KeyId, KeyStore, Operation, Result};
use tokio::time::{Instant, sleep};

use crate::endpoint::Endpoint;
use crate::failure::refusal;
use crate::identity::{Doubt, Identities, Learned};
use crate::ledger::{Ledger, ListedState};
use crate::options::{ConflictPolicy, CopyOptions, CopyPhase, CopyProgress, OnProgress};
use crate::patience::{Waits, is_throttling};
use crate::report::CopyReport;

/// The number of ids in a chunk: a multiple of the batch sizes of all stores that we know.
pub(crate) const CHUNK: usize = 100;

/// The time below which a chunk is followed by one of twice the size, if the target has a batch
/// size for creating.
const SHORT: Duration = Duration::from_millis(500);

/// The time above which a chunk is followed by one of half the size, because a run that was cut off
/// repeats its last chunk.
const LONG: Duration = Duration::from_secs(2);

/// The number of ids without work between two reports of progress.
const TELL_EVERY: u64 = 1000;

/// The pause between two reports of progress while a chunk is being written.
pub(crate) const TELL_PAUSE: Duration = Duration::from_millis(500);

/// Copies all keys of `source` to `target`, in the steps that the [crate](crate) describes.
///
/// Look at the report: [`CopyReport::is_complete`]. Dropping the future ends the copy; with a
/// journal, the next run continues it.
///
/// # Errors
/// Before any effect:
/// - [`Unsupported`](ErrorKind::Unsupported) if the source cannot list, or the journal has format
///   version 1 or a later one than this version knows.
/// - [`Config`](ErrorKind::Config) if an option is out of its bounds; if source and target are one
///   store; if the source is to be deleted and the target is less durable; if the journal is not a
///   journal, belongs to other stores, or is accessible to other users.
/// - [`Conflict`](ErrorKind::Conflict) if another run holds the journal.
/// - [`Corrupt`](ErrorKind::Corrupt) if the header of the journal is damaged.
/// - [`PermissionDenied`](ErrorKind::PermissionDenied) if this user may not read and write the
///   journal.
/// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable) if the
///   disk of the journal is full or fails.
///
/// Later:
/// - The errors of listing the source.
/// - [`Throttled`](ErrorKind::Throttled), [`Unavailable`](ErrorKind::Unavailable),
///   [`Timeout`](ErrorKind::Timeout), [`Unauthenticated`](ErrorKind::Unauthenticated) and
///   [`QuotaExceeded`](ErrorKind::QuotaExceeded) if a store refuses a whole chunk. As long as
///   nothing was written, also [`PermissionDenied`](ErrorKind::PermissionDenied),
///   [`KeyUnavailable`](ErrorKind::KeyUnavailable), [`Unsupported`](ErrorKind::Unsupported) and
///   [`Config`](ErrorKind::Config).
/// - [`Config`](ErrorKind::Config), before the first deletion, if the source is to be deleted but
///   is, or may be, the same store as the target.
/// - [`Config`](ErrorKind::Config) if the identity of a store changes during the copy, for example
///   because its credentials are now those of another account.
/// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) or [`Unavailable`](ErrorKind::Unavailable) with
///   [`Effect::Unknown`](keystead_core::Effect::Unknown) if the journal cannot be written. Run the
///   copy again with the same journal then.
///
/// Every other failure is in the report.
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

/// A copy in progress.
pub(crate) struct Run<'a> {
    pub(crate) source: Endpoint<'a>,
    pub(crate) target: Endpoint<'a>,
    /// The identities of the two stores, as known when the copy began.
    identities: Identities,
    pub(crate) on_conflict: ConflictPolicy,
    pub(crate) on_progress: OnProgress,
    /// The current pass.
    phase: CopyPhase,
    /// The number of ids that the current pass has finished.
    pub(crate) done: u64,
    /// True if keys that earlier runs copied are read again.
    rechecks: bool,
    pub(crate) confirmed_removals: Option<u64>,
    pub(crate) ledger: Ledger,
    /// The pauses between attempts to list a source that throttles.
    listing_waits: Waits,
    pub(crate) report: CopyReport,
}

/// An id that the source has listed and that this run has to process.
pub(crate) struct Listed {
    pub(crate) id: KeyId,
    /// True if an earlier run has copied it.
    pub(crate) is_recheck: bool,
}

impl<'a> Run<'a> {
    /// Checks everything that can be checked before any effect.
    async fn prepare(source: &'a dyn KeyStore, target: &'a dyn KeyStore, options: CopyOptions) -> Result<Self> {
        options.check()?;
        if source.capabilities().listing.is_none() {
            let e = Error::new(ErrorKind::Unsupported, Operation::List, source.info().scheme());
            return Err(e.with_source("the source cannot list its keys; copy one by one the keys whose ids you know"));
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

    /// Lists the source and copies the keys that are not at the target yet. Returns whether any key
    /// had to be read.
    async fn copy_all(&mut self, phase: CopyPhase) -> Result<bool> {
        let source = self.source.clone();
        let mut ids = source.list();
        let mut has_worked = false;
        let mut chunk_size = CHUNK;
        self.begin_pass(phase);
        loop {
            let begun = Instant::now();
            let Some(chunk) = self.next_chunk(&source, &mut ids, chunk_size).await? else { break };
            let len = chunk.len() as u64;
            self.copy_chunk(chunk).await?;
            chunk_size = self.next_chunk_size(chunk_size, begun.elapsed());
            self.done += len;
            has_worked = true;
            self.tell_pass().await;
        }
        Ok(has_worked)
    }

    pub(crate) fn begin_pass(&mut self, phase: CopyPhase) {
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

    /// Returns the next ids that need work, up to a chunk, or `None` at the end of the listing.
    /// Counts the ids that need none.
    pub(crate) async fn next_chunk<'s>(
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
                // The listing starts over. Ids that this pass has met count as repeated.
                Some(Err(e)) if is_throttling(&e) => {
                    let Some(pause) = self.listing_waits.next(e.retry_after().unwrap_or_default()) else {
                        return Err(e);
                    };
                    self.listing_waits.record(false);
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
    /// Asks both stores for their identities again, right before keys are removed or deleted, and
    /// returns the doubt that forbids it, if there is one.
    pub(crate) async fn doubt(&mut self) -> Result<Option<Doubt>> {
        let learned = Learned::from(&self.source, &self.target).await;
        self.identities.refuse_others(&learned.identities)?;
        learned.refuse_one_store()?;
        if let Some(journal) = self.ledger.journal_stores() {
            journal.refuse_others(&learned.identities)?;
        }
        Ok(learned.doubt(self.ledger.journal_stores()))
    }

    /// Refuses to go on if a store's identity has changed since the copy began, as far as the store
    /// knows it without a call.
    pub(crate) fn refuse_changed_stores(&self) -> Result<()> {
        let now = Identities { source: self.source.identity(), target: self.target.identity() };
        self.identities.refuse_others(&now)
    }

    /// Returns the next ids of a listing, up to a chunk, or `None` at its end.
    pub(crate) async fn next_ids(&mut self, ids: &mut BoxStream<'_, Result<KeyId>>) -> Result<Option<Vec<KeyId>>> {
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

    /// Returns the progress of the current pass.
    pub(crate) fn progress(&self) -> CopyProgress {
        // The first pass does not know yet how many ids there are.
        let total = (self.phase != CopyPhase::Copying).then_some(self.report.listed);
        CopyProgress { phase: self.phase, done: self.done, total }
    }

    /// Reports the progress of the current pass.
    pub(crate) async fn tell_pass(&mut self) {
        let CopyProgress { phase, done, total } = self.progress();
        self.tell(phase, done, total).await;
    }

    /// Reports progress and lets other tasks run, because some stores never wait.
    pub(crate) async fn tell(&mut self, phase: CopyPhase, done: u64, total: Option<u64>) {
        (self.on_progress)(CopyProgress { phase, done, total });
        tokio::task::yield_now().await;
    }
}

/// Refuses to move keys to a less durable store, unless the caller has accepted its durability.
fn refuse_weaker_target(source: Durability, target: Durability, accepted: Option<Durability>) -> Result<()> {
    let is_accepted = target != Durability::Process && accepted.is_some_and(|accepted| target >= accepted);
    if target >= source || is_accepted {
        return Ok(());
    }
    let remedy = match target {
        Durability::Process => "give a target that lasts, or leave the source as it is",
        _ => "accept it by name (accept_durability, --accept-durability host), or leave the source as it is",
    };
    let text = format!(
        "nothing was copied: the source would be deleted, and its keys would be less durable at the target \
         ({target:?}) than at the source ({source:?}): {remedy}"
    );
    Err(refusal(ErrorKind::Config, text))
}

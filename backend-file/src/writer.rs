//! The writer thread: it opens the store, commits what waits as one transaction, and scrubs.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use keystead_core::PutMode;
use keystead_sealing::RootSecret;

use crate::config::{Location, LogState};
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::load::Chunk;
use crate::lock::{LOCK_LIMIT, Locked, WriterLock};
use crate::open::{self, Opening};
use crate::periodic::PeriodicCheck;
use crate::queue::{Handles, Queue, Wakeup, WriterGuard};
use crate::reader::Shared;
use crate::request::{Reply, Request, Written};
use crate::rotate::Step;
use crate::threads;
use crate::transaction::{Durability, Transacted, Transaction, Write};

/// The largest number of requests that share one transaction.
const MAX_BATCH: usize = 256;

/// The time for which a checkpoint waits for readers, while other writers wait for it.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(25);

/// The same for a log that is far longer than its limit.
const LONG_LOG_WAIT: Duration = Duration::from_millis(150);

/// The pause after a checkpoint that readers have refused, for as long as a delete waits for it.
/// Other writers go on.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// The same when no delete waits, or when readers have refused for the whole of [`SCRUB_LIMIT`].
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// The time for which a delete waits for a checkpoint before it says that bytes are left.
const SCRUB_LIMIT: Duration = Duration::from_millis(500);

/// The pause of an idle writer before it looks for a log that was left behind.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// The log is begun again above this number of pages (4 MiB).
const LOG_LIMIT: i32 = 1024;

/// The same while keys are loaded (64 MiB), because each checkpoint writes each page again.
const LOAD_LOG_LIMIT: i32 = 16 * 1024;

/// The number of times that a batch is repeated because the keyring was changed.
const MAX_CATCH_UPS: usize = 8;

/// The time for which the end of a store waits for other processes.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// The state that a handle of an open store needs.
pub(crate) type Opened = (Arc<Shared>, Arc<Handles>);

/// Opens or creates the store on a new thread, which then serves its writes until the last handle
/// is gone.
pub(crate) fn start(
    location: impl FnOnce() -> Result<Location> + Send + 'static,
    root: RootSecret,
    opening: Opening,
    check: PeriodicCheck,
) -> Result<oneshot::Receiver<Result<Opened>>> {
    let (opened, answer) = oneshot::channel();
    let open = move || {
        let location = location()?;
        let path = location.path.clone();
        open::open(location, root, opening).map_err(|failure| failure.about(&path))
    };
    let run = move || match open() {
        Ok((shared, database, lock)) => {
            let mut writer = Writer::new(shared, database, lock, check);
            let _guard = WriterGuard(writer.queue.clone());
            writer.clean_up_after_the_dead();
            let handles = Arc::new(Handles(writer.queue.clone()));
            if opened.send(Ok((writer.shared.clone(), handles))).is_ok() {
                writer.serve();
            }
            writer.finish();
        }
        Err(failure) => drop(opened.send(Err(failure))),
    };
    threads::spawn(run)?;
    Ok(answer)
}

struct Writer {
    shared: Arc<Shared>,
    database: Database,
    lock: Arc<WriterLock>,
    check: PeriodicCheck,
    queue: Arc<Queue>,
    /// True if bytes of dead records may be in the log or in the pages that it replaces.
    scrub_pending: bool,
    /// The moment from which the next checkpoint may be tried.
    next_checkpoint: Instant,
    /// True if readers have refused all checkpoints for as long as a delete waits.
    is_held: bool,
    /// The number of checkpoints when this process last marked the log.
    marked_at: Option<u64>,
    /// The log when the idle writer last looked at it.
    idle_log: Option<LogState>,
    /// Committed writes whose callers want to know whether the files are clean.
    unscrubbed: Vec<Unscrubbed>,
    /// The callers that wait for the store to be closed.
    closers: Vec<Reply<()>>,
}

struct Unscrubbed {
    until: Instant,
    answer: Answer,
}

enum Answer {
    Write { existed: bool, reply: Reply<Written> },
    Scrub(Reply<bool>),
}

impl Unscrubbed {
    fn send(self, clean: bool) {
        match self.answer {
            Answer::Write { existed, reply } => drop(reply.send(Ok(Written { existed, clean }))),
            Answer::Scrub(reply) => drop(reply.send(Ok(clean))),
        }
    }
}

/// The requests of one batch by what they need.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    replies: Vec<Reply<Written>>,
    scrubs: Vec<Reply<bool>>,
    loads: Vec<(Chunk, Reply<Vec<usize>>)>,
    steps: Vec<Step>,
}

impl Writer {
    fn new(shared: Arc<Shared>, database: Database, lock: Arc<WriterLock>, check: PeriodicCheck) -> Self {
        Self {
            shared,
            database,
            lock,
            check,
            queue: Queue::new(),
            scrub_pending: false,
            next_checkpoint: Instant::now(),
            is_held: false,
            marked_at: None,
            idle_log: None,
            unscrubbed: Vec::new(),
            closers: Vec::new(),
        }
    }

    /// Empties the log of a process that died between a commit and its scrub. One that lives does
    /// so itself.
    fn clean_up_after_the_dead(&mut self) {
        self.scrub_pending = !self.shared.location.wal_len().is_ok_and(|len| len == 0);
        let lock = self.lock.clone();
        if self.scrub_pending
            && let Ok(Some(_locked)) = lock.try_lock()
        {
            self.checkpoint();
        }
    }

    fn serve(&mut self) {
        while self.closers.is_empty() {
            self.check.run_if_due(&self.shared);
            match self.queue.wait(self.rest()) {
                Wakeup::Requests => self.run(),
                Wakeup::Idle => self.idle(),
                Wakeup::Closed => break,
            }
        }
    }

    /// The time for which the writer may rest.
    fn rest(&self) -> Duration {
        if !self.scrub_pending {
            return IDLE_PAUSE;
        }
        let until_checkpoint = self.next_checkpoint.saturating_duration_since(Instant::now());
        let deadlines = self.unscrubbed.iter().map(|unscrubbed| unscrubbed.until);
        let until_deadline = deadlines.min().map(|until| until.saturating_duration_since(Instant::now()));
        until_checkpoint.min(until_deadline.unwrap_or(IDLE_PAUSE)).max(Duration::from_millis(1))
    }

    /// Commits a batch, scrubs, and answers.
    fn run(&mut self) {
        // Callers who were answered together ask again together: as long as more come, let them.
        let mut waiting = 0;
        while waiting < self.queue.len() && waiting < MAX_BATCH {
            waiting = self.queue.len();
            thread::yield_now();
        }
        let lock = self.lock.clone();
        let locked = match lock.try_lock() {
            Ok(Some(locked)) => Ok(locked),
            Ok(None) => self.queue.while_blocked(&lock, || lock.lock()),
            Err(failure) => Err(failure),
        };
        // Taken not before the lock is held: waiting for it may take longer than a caller would.
        let requests = self.queue.take(MAX_BATCH);
        let locked = match locked.and_then(|locked| self.begin_batch().map(|()| locked)) {
            Ok(locked) => locked,
            Err(failure) => return requests.into_iter().for_each(|request| self.refuse(request, &failure)),
        };
        let batch = self.sort(requests);
        let (locked, outcome) = self.write_and_scrub(locked, &lock, &batch);
        // Without the lock nothing more is written.
        let lost_lock = outcome.as_ref().err().filter(|_| locked.is_none());
        for (chunk, reply) in batch.loads {
            match lost_lock {
                Some(failure) => drop(reply.send(Err(failure.clone()))),
                None => {
                    drop(reply.send(chunk.insert(&self.shared, &self.database)));
                    self.limit_log(LOAD_LOG_LIMIT);
                }
            }
        }
        for step in batch.steps {
            match lost_lock {
                Some(failure) => step.refuse(failure.clone()),
                None => {
                    step.run(&self.shared, &self.database);
                    // A rotation asks for the scrub that it needs when it ends; this one keeps the
                    // log short.
                    self.checkpoint();
                }
            }
        }
        // Other processes go on while the answers are given.
        drop(locked);
        match outcome {
            Ok(outcomes) => self.answer(&batch.writes, batch.replies, batch.scrubs, outcomes),
            Err(failure) => {
                // A caller that has stopped waiting needs no answer.
                batch.replies.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone()))));
                batch.scrubs.into_iter().for_each(|reply| drop(reply.send(Err(failure.clone()))));
            }
        }
        self.answer_scrubbed();
    }

    /// A store that was lost must be closed, too.
    fn refuse(&mut self, request: Request, failure: &FileError) {
        match request {
            Request::Close(reply) => self.closers.push(reply),
            request => request.refuse(failure),
        }
    }

    fn sort(&mut self, requests: Vec<Request>) -> Batch {
        let mut batch = Batch::default();
        for request in requests {
            match request {
                Request::Write(write, reply) => {
                    batch.writes.push(write);
                    batch.replies.push(reply);
                }
                Request::Scrub(reply) => batch.scrubs.push(reply),
                Request::Load(chunk, reply) => batch.loads.push((chunk, reply)),
                Request::Rotate(step) => batch.steps.push(step),
                Request::Close(reply) => self.closers.push(reply),
            }
        }
        batch
    }

    /// Looks, under the lock, for what other processes have done since the last batch.
    fn begin_batch(&mut self) -> Result<()> {
        let log_len = self.log_len()?;
        let checkpoints = self.lock.checkpoints()?;
        if log_len == 0 || self.marked_at != Some(checkpoints) {
            self.database.mark_next_transaction();
            self.marked_at = Some(checkpoints);
        }
        Ok(())
    }

    /// The length in bytes of the log. Refuses one that was cut off: SQLite would write behind the
    /// gap and then move the gap into the database.
    fn log_len(&self) -> Result<u64> {
        let len = self.shared.is_in_place()?;
        if self.database.last_log_len().is_some_and(|last| len >= last) {
            return Ok(len);
        }
        // Emptied by a checkpoint, or cut off.
        let least = self.database.least_log_len()?;
        let len = self.shared.is_in_place()?;
        if len < least { Err(FileError::log_cut_off()) } else { Ok(len) }
    }

    /// One transaction and the checkpoint that it needs, under the lock of all processes' writers.
    /// Gives for each write whether there was a record before.
    fn write_and_scrub<'a>(
        &mut self,
        mut locked: Locked<'a>,
        lock: &'a WriterLock,
        batch: &Batch,
    ) -> (Option<Locked<'a>>, Result<Vec<Result<bool>>>) {
        let durability = Durability::of(&batch.writes);
        for _ in 0..MAX_CATCH_UPS {
            let transaction = Transaction { shared: &self.shared, database: &self.database };
            let outcomes = match transaction.run(&batch.writes, durability) {
                Ok(Transacted::Done(outcomes)) => outcomes,
                Ok(Transacted::Behind(sealed)) => {
                    // A passphrase or a provider takes its time, which no other process is to wait
                    // for.
                    drop(locked);
                    let locked_again = self.shared.access.catch_up(&sealed).and_then(|_| lock.lock_within(LOCK_LIMIT));
                    locked = match locked_again.and_then(|locked| self.begin_batch().map(|()| locked)) {
                        Ok(locked) => locked,
                        Err(failure) => return (None, Err(failure)),
                    };
                    continue;
                }
                Err(failure) => return (Some(locked), Err(failure)),
            };
            // A delete that finds nothing scrubs as well: the process that deleted the record may
            // have died before its scrub.
            let died = batch.writes.iter().zip(&outcomes).any(|(write, outcome)| match write {
                Write::Put(put) => matches!(outcome, Ok(true)) && put.mode == PutMode::Overwrite,
                Write::Delete(_) | Write::DeleteDamaged(_) => outcome.is_ok(),
            });
            if died || !batch.scrubs.is_empty() {
                self.scrub_pending = true;
            }
            if self.scrub_pending {
                self.checkpoint();
            } else {
                self.limit_log(LOG_LIMIT);
            }
            if self.scrub_pending && durability == Durability::ByCheckpoint {
                // Readers, or the disk, have kept the checkpoint from it.
                if let Err(failure) = self.shared.location.sync_log() {
                    return (Some(locked), Err(failure.of_unknown_effect()));
                }
            }
            return (Some(locked), Ok(outcomes));
        }
        (Some(locked), Err(FileError::put_back()))
    }

    /// Answers those who need not wait for a clean file, and keeps the others.
    fn answer(
        &mut self,
        writes: &[Write],
        replies: Vec<Reply<Written>>,
        scrubs: Vec<Reply<bool>>,
        outcomes: Vec<Result<bool>>,
    ) {
        let until = Instant::now() + SCRUB_LIMIT;
        for ((write, reply), outcome) in writes.iter().zip(replies).zip(outcomes) {
            match outcome {
                Ok(existed) if self.scrub_pending && !matches!(write, Write::Put(_)) => {
                    self.unscrubbed.push(Unscrubbed { until, answer: Answer::Write { existed, reply } });
                }
                outcome => {
                    let clean = !self.scrub_pending;
                    drop(reply.send(outcome.map(|existed| Written { existed, clean })));
                }
            }
        }
        for reply in scrubs {
            self.unscrubbed.push(Unscrubbed { until, answer: Answer::Scrub(reply) });
        }
        if !self.unscrubbed.is_empty() && !self.is_held {
            self.next_checkpoint = self.next_checkpoint.min(Instant::now() + SHORT_PAUSE);
        }
    }

    /// Answers those who wait for a clean file, if it is clean or they have waited long enough.
    fn answer_scrubbed(&mut self) {
        let clean = !self.scrub_pending;
        let now = Instant::now();
        for unscrubbed in self.unscrubbed.extract_if(.., |unscrubbed| clean || unscrubbed.until <= now) {
            self.is_held |= !clean;
            unscrubbed.send(clean);
        }
    }

    fn idle(&mut self) {
        self.shared.close_idle_readers();
        if self.scrub_pending {
            if Instant::now() >= self.next_checkpoint {
                let lock = self.lock.clone();
                match lock.try_lock() {
                    Ok(Some(_locked)) => self.checkpoint(),
                    // Another process writes, and scrubs for all.
                    _ => self.next_checkpoint = Instant::now() + SHORT_PAUSE,
                }
            }
            self.answer_scrubbed();
        } else {
            self.clean_up_after_others();
        }
    }

    /// Empties a log that nobody has written to for a while, whoever it was: an acknowledged write
    /// is safer in the database, and a process may have ended between a commit and its scrub.
    fn clean_up_after_others(&mut self) {
        let Ok(log) = self.shared.location.log_state() else { return };
        let is_quiet = self.idle_log == log;
        self.idle_log = log;
        if !is_quiet || log.is_none_or(|log| log.len == 0) || Instant::now() < self.next_checkpoint {
            return;
        }
        let lock = self.lock.clone();
        if let Ok(Some(_locked)) = lock.try_lock() {
            self.checkpoint();
            // If a reader holds it, the next look tries again.
            self.scrub_pending = false;
        }
    }

    /// Empties the log, unless it is empty or readers have refused that a moment ago. A failure of
    /// the disk counts as "not yet": what was committed stays committed.
    fn checkpoint(&mut self) {
        let clean = self.log_len().and_then(|log_len| match log_len {
            0 => Ok(true),
            _ if Instant::now() < self.next_checkpoint => Ok(false),
            _ => {
                self.marked_at = None;
                self.lock.count_checkpoint()?;
                self.database.mark_next_transaction();
                let emptied = self.database.truncate_log(CHECKPOINT_WAIT);
                if emptied.as_ref().is_ok_and(|emptied| *emptied) {
                    self.is_held = false;
                } else {
                    let is_waited_for = !self.unscrubbed.is_empty() && !self.is_held;
                    self.next_checkpoint = Instant::now() + if is_waited_for { SHORT_PAUSE } else { LONG_PAUSE };
                }
                emptied
            }
        });
        self.scrub_pending = !clean.unwrap_or(false);
    }

    /// Begins the log again if it is longer than this number of pages.
    fn limit_log(&mut self, limit: i32) {
        if self.database.log_pages() <= limit || Instant::now() < self.next_checkpoint {
            return;
        }
        self.marked_at = None;
        let is_far_too_long = self.database.log_pages() > limit + limit / 4;
        let restarted = self.lock.count_checkpoint().and_then(|_| {
            self.database.mark_next_transaction();
            self.database.restart_log(if is_far_too_long { LONG_LOG_WAIT } else { CHECKPOINT_WAIT })
        });
        // What cannot be done now is tried again later.
        if !restarted.unwrap_or(false) {
            // A log that is far too long is cut before anything else is done.
            let pause = if is_far_too_long { Duration::ZERO } else { LONG_PAUSE };
            self.next_checkpoint = Instant::now() + pause;
        }
    }

    /// Closes the database, under the lock and where that can be as the last of this store's
    /// connections, so that SQLite removes its log. Requests that come too late are dropped, and
    /// their callers see that the store is closed.
    fn finish(mut self) {
        let mark = self.shared.close();
        self.queue.refuse_all();
        let lock = self.lock.clone();
        // Without the lock SQLite still closes safely; the log may stay, and the next to open the
        // store empties it.
        let locked = lock.lock_within(CLOSE_LIMIT);
        if self.scrub_pending {
            self.next_checkpoint = Instant::now();
            self.checkpoint();
        }
        let clean = !self.scrub_pending;
        self.unscrubbed.drain(..).for_each(|unscrubbed| unscrubbed.send(clean));
        drop(self.database);
        drop(locked);
        // From here on a restore may replace the files.
        drop(mark);
        self.closers.into_iter().for_each(|reply| drop(reply.send(Ok(()))));
    }
}

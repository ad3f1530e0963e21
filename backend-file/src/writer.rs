//! The writer thread: it opens the store, commits the waiting requests as one transaction, scrubs
//! the log (empties it, so that no bytes of deleted records remain in it), and answers.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use futures_channel::oneshot;
use keystead_core::PutMode;
use keystead_sealing::RootSecret;

use crate::chunk::Chunk;
use crate::config::{Location, LogState};
use crate::database::{Database, Durability};
use crate::error::{FileError, Result};
use crate::lock::{LOCK_LIMIT, Locked, WriterLock};
use crate::open::{self, Opening};
use crate::periodic::PeriodicCheck;
use crate::queue::{Handles, Queue, Wakeup, WriterGuard};
use crate::reader::Shared;
use crate::reply::Reply;
use crate::request::{Request, Written};
use crate::reseal::Step;
use crate::threads;
use crate::transaction::{Transacted, Transaction, Write, durability_of};

/// The largest number of requests that share one transaction.
const MAX_BATCH: usize = 256;

/// The time for which a checkpoint waits for readers. Other writers are blocked meanwhile.
const CHECKPOINT_WAIT: Duration = Duration::from_millis(25);

/// The time for which a checkpoint waits for readers if the log is much longer than its limit.
const LONG_LOG_WAIT: Duration = Duration::from_millis(150);

/// The pause after a checkpoint that readers have prevented, while a delete waits for the scrub.
/// Other writers can write during the pause.
const SHORT_PAUSE: Duration = Duration::from_millis(5);

/// The pause after a checkpoint that readers have prevented, if no delete waits for the scrub or if
/// they have prevented it for the whole of [`SCRUB_LIMIT`].
const LONG_PAUSE: Duration = Duration::from_millis(200);

/// The time for which a delete waits for the scrub before it reports that bytes may remain.
const SCRUB_LIMIT: Duration = Duration::from_millis(500);

/// The interval at which an idle writer looks for a log that another process has left behind.
const IDLE_PAUSE: Duration = Duration::from_secs(1);

/// The number of pages in the log (4 MiB) above which the log is restarted.
const LOG_LIMIT: i32 = 1024;

/// The number of pages in the log (64 MiB) above which the log is restarted while keys are loaded.
/// It is higher, because each checkpoint writes the same pages again.
const LOAD_LOG_LIMIT: i32 = 16 * 1024;

/// The number of times that a batch is tried while other processes change the keyring.
const MAX_CATCH_UPS: usize = 8;

/// The time for which closing a store waits for the writers of other processes.
const CLOSE_LIMIT: Duration = Duration::from_secs(2);

/// The parts of an open store that its handles use.
pub(crate) type Opened = (Arc<Shared>, Arc<Handles>);

/// Opens or creates the store on a new thread. The thread then serves the store's writes until the
/// last handle is dropped.
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
            writer.scrub_log_found_at_open();
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

/// The state of the writer thread.
struct Writer {
    shared: Arc<Shared>,
    database: Database,
    lock: Arc<WriterLock>,
    check: PeriodicCheck,
    queue: Arc<Queue>,
    /// True if bytes of deleted or replaced records may be in the log, or in the pages that the log
    /// replaces.
    scrub_pending: bool,
    /// The time of the next attempt at a checkpoint.
    next_checkpoint: Instant,
    /// True if a request was answered before its scrub, because readers prevented every checkpoint
    /// for the whole of [`SCRUB_LIMIT`].
    readers_hold_log: bool,
    /// The count of checkpoints in the lock file when this process last prepared to stamp the log;
    /// see [`Database::stamp_next_transaction`].
    stamped_at: Option<u64>,
    /// The state of the log when the idle writer last looked at it.
    idle_log: Option<LogState>,
    /// The committed requests whose answers wait for the scrub.
    unscrubbed: Vec<Unscrubbed>,
    /// The callers that wait for the store to be closed.
    closers: Vec<Reply<()>>,
}

/// A committed request whose answer says whether the files are clean.
struct Unscrubbed {
    /// The time at which the request is answered in any case.
    until: Instant,
    answer: PendingAnswer,
}

enum PendingAnswer {
    Write { existed: bool, reply: Reply<Written> },
    Scrub(Reply<bool>),
}

impl Unscrubbed {
    fn send(self, clean: bool) {
        match self.answer {
            PendingAnswer::Write { existed, reply } => reply.send(Ok(Written { existed, clean })),
            PendingAnswer::Scrub(reply) => reply.send(Ok(clean)),
        }
    }
}

/// The requests of one batch, sorted by kind.
#[derive(Default)]
struct Batch {
    writes: Vec<Write>,
    replies: Vec<Reply<Written>>,
    scrubs: Vec<Reply<bool>>,
    loads: Vec<(Chunk, Reply<Vec<usize>>)>,
    steps: Vec<Step>,
}

impl Batch {
    /// Answers all requests of the batch with a failure.
    fn refuse(self, failure: &FileError) {
        self.loads.into_iter().for_each(|(_, reply)| reply.refuse(failure));
        self.steps.into_iter().for_each(|step| step.refuse(failure));
        self.replies.into_iter().for_each(|reply| reply.refuse(failure));
        self.scrubs.into_iter().for_each(|reply| reply.refuse(failure));
    }
}

/// The state after the transaction of a batch.
enum AfterWrites<'a> {
    /// The transaction has succeeded or failed, and this process still holds the lock. The outcome
    /// of each write says whether there was a record before.
    Locked(Locked<'a>, Result<Vec<Result<bool>>>),
    /// Nothing was written. This process gave up the lock to open a changed keyring, and could not
    /// continue after that.
    LockLost(FileError),
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
            readers_hold_log: false,
            stamped_at: None,
            idle_log: None,
            unscrubbed: Vec::new(),
            closers: Vec::new(),
        }
    }

    /// Scrubs a log that is not empty when the store is opened: a process may have died between a
    /// commit and its scrub. If another process holds the lock, that process scrubs the log.
    fn scrub_log_found_at_open(&mut self) {
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
            match self.queue.wait(self.time_until_next_task()) {
                Wakeup::Requests => self.run_batch(),
                Wakeup::Idle => self.idle(),
                Wakeup::Closed => break,
            }
        }
    }

    /// Returns how long the writer may sleep if no request arrives.
    fn time_until_next_task(&self) -> Duration {
        if !self.scrub_pending {
            return IDLE_PAUSE;
        }
        let until_checkpoint = self.next_checkpoint.saturating_duration_since(Instant::now());
        let deadlines = self.unscrubbed.iter().map(|unscrubbed| unscrubbed.until);
        let until_deadline = deadlines.min().map(|until| until.saturating_duration_since(Instant::now()));
        until_checkpoint.min(until_deadline.unwrap_or(IDLE_PAUSE)).max(Duration::from_millis(1))
    }

    /// Commits the waiting requests, scrubs the log, and answers.
    fn run_batch(&mut self) {
        self.let_requests_gather();
        let lock = self.lock.clone();
        let locked = match lock.try_lock() {
            Ok(Some(locked)) => Ok(locked),
            Ok(None) => self.queue.while_blocked(&lock, || lock.lock()),
            Err(failure) => Err(failure),
        };
        // The requests stay in the queue until the lock is held, so that a caller that has waited
        // too long for the lock can be refused there.
        let requests = self.queue.take(MAX_BATCH);
        let locked = match locked.and_then(|locked| self.begin_batch().map(|()| locked)) {
            Ok(locked) => locked,
            Err(failure) => return requests.into_iter().for_each(|request| self.refuse(request, &failure)),
        };
        let mut batch = self.sort(requests);
        match self.write_and_scrub(locked, &lock, &batch) {
            AfterWrites::Locked(locked, outcome) => {
                self.insert_loads(std::mem::take(&mut batch.loads));
                self.run_steps(std::mem::take(&mut batch.steps));
                // Other processes can write while this one answers.
                drop(locked);
                match outcome {
                    Ok(outcomes) => self.answer(batch, outcomes),
                    Err(failure) => batch.refuse(&failure),
                }
            }
            AfterWrites::LockLost(failure) => batch.refuse(&failure),
        }
        self.answer_scrubbed();
    }

    /// Waits as long as more requests arrive. Callers that were answered together send their next
    /// requests together, too.
    fn let_requests_gather(&self) {
        let mut waiting = 0;
        while waiting < self.queue.len() && waiting < MAX_BATCH {
            waiting = self.queue.len();
            thread::yield_now();
        }
    }

    /// Refuses a request that cannot be run. A request to close the store is kept, because a store
    /// must close even if its files are lost.
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

    /// Checks, under the lock, what other processes have done since the last batch.
    fn begin_batch(&mut self) -> Result<()> {
        let log_len = self.log_len()?;
        let checkpoints = self.lock.checkpoints()?;
        if log_len == 0 || self.stamped_at != Some(checkpoints) {
            self.database.stamp_next_transaction();
            self.stamped_at = Some(checkpoints);
        }
        Ok(())
    }

    /// Returns the length of the log in bytes. Fails if the log was truncated by another program:
    /// SQLite would write after the gap and later copy the gap into the database.
    fn log_len(&self) -> Result<u64> {
        let len = self.shared.expect_in_place()?;
        if self.database.last_log_len().is_some_and(|last| len >= last) {
            return Ok(len);
        }
        // A checkpoint has emptied the log, or a program has truncated it.
        let least = self.database.least_log_len()?;
        let len = self.shared.expect_in_place()?;
        if len < least { Err(FileError::log_cut_off()) } else { Ok(len) }
    }

    /// Runs the transaction of a batch and the checkpoint that it needs, under the lock that the
    /// writers of all processes share.
    fn write_and_scrub<'a>(&mut self, locked: Locked<'a>, lock: &'a WriterLock, batch: &Batch) -> AfterWrites<'a> {
        let durability = durability_of(&batch.writes);
        let mut locked = locked;
        for _ in 0..MAX_CATCH_UPS {
            let transaction = Transaction { shared: &self.shared, database: &self.database };
            match transaction.run(&batch.writes, durability) {
                Ok(Transacted::Done(outcomes)) => {
                    let scrubbed = self.scrub_after(batch, &outcomes, durability);
                    return AfterWrites::Locked(locked, scrubbed.map(|()| outcomes));
                }
                Ok(Transacted::Behind(sealed)) => {
                    // A passphrase or a provider can take a long time, and other processes must not
                    // wait for it.
                    drop(locked);
                    locked = match self.catch_up_and_lock(&sealed, lock) {
                        Ok(locked) => locked,
                        Err(failure) => return AfterWrites::LockLost(failure),
                    };
                }
                Err(failure) => return AfterWrites::Locked(locked, Err(failure)),
            }
        }
        AfterWrites::Locked(locked, Err(FileError::put_back()))
    }

    /// Opens a keyring that another process has written, and takes the lock again.
    fn catch_up_and_lock<'a>(&mut self, sealed: &[u8], lock: &'a WriterLock) -> Result<Locked<'a>> {
        self.shared.access.catch_up(sealed)?;
        let locked = lock.lock_within(LOCK_LIMIT)?;
        self.begin_batch()?;
        Ok(locked)
    }

    /// Scrubs the log if the batch needs that, and makes the transaction durable if it is not yet.
    fn scrub_after(&mut self, batch: &Batch, outcomes: &[Result<bool>], durability: Durability) -> Result<()> {
        // A delete that finds no record needs a scrub, too: the process that deleted the record may
        // have died before its scrub.
        let leaves_bytes = batch.writes.iter().zip(outcomes).any(|(write, outcome)| match write {
            Write::Put(put) => matches!(outcome, Ok(true)) && put.mode == PutMode::Overwrite,
            Write::Delete(_) | Write::DeleteDamaged(_) => outcome.is_ok(),
        });
        if leaves_bytes || !batch.scrubs.is_empty() {
            self.scrub_pending = true;
        }
        if self.scrub_pending {
            self.checkpoint();
        } else {
            self.limit_log(LOG_LIMIT);
        }
        if self.scrub_pending && durability == Durability::ByCheckpoint {
            // Readers or the disk have prevented the checkpoint that was to make the transaction
            // durable.
            self.shared.location.sync_log().map_err(FileError::of_unknown_effect)?;
        }
        Ok(())
    }

    fn insert_loads(&mut self, loads: Vec<(Chunk, Reply<Vec<usize>>)>) {
        for (chunk, reply) in loads {
            reply.send(chunk.insert(&self.shared, &self.database));
            self.limit_log(LOAD_LOG_LIMIT);
        }
    }

    fn run_steps(&mut self, steps: Vec<Step>) {
        for step in steps {
            step.run(&self.shared, &self.database);
            // This only keeps the log short: a rotation requests the scrub that it needs when it
            // ends.
            self.checkpoint();
        }
    }

    /// Answers the requests that need not wait for a clean file, and keeps the others.
    fn answer(&mut self, batch: Batch, outcomes: Vec<Result<bool>>) {
        let until = Instant::now() + SCRUB_LIMIT;
        for ((write, reply), outcome) in batch.writes.iter().zip(batch.replies).zip(outcomes) {
            match outcome {
                Ok(existed) if self.scrub_pending && !matches!(write, Write::Put(_)) => {
                    self.unscrubbed.push(Unscrubbed { until, answer: PendingAnswer::Write { existed, reply } });
                }
                outcome => {
                    let clean = !self.scrub_pending;
                    reply.send(outcome.map(|existed| Written { existed, clean }));
                }
            }
        }
        for reply in batch.scrubs {
            self.unscrubbed.push(Unscrubbed { until, answer: PendingAnswer::Scrub(reply) });
        }
        if !self.unscrubbed.is_empty() && !self.readers_hold_log {
            self.next_checkpoint = self.next_checkpoint.min(Instant::now() + SHORT_PAUSE);
        }
    }

    /// Answers the requests that wait for a clean file, if it is clean or they have waited long
    /// enough.
    fn answer_scrubbed(&mut self) {
        let clean = !self.scrub_pending;
        let now = Instant::now();
        for unscrubbed in self.unscrubbed.extract_if(.., |unscrubbed| clean || unscrubbed.until <= now) {
            self.readers_hold_log |= !clean;
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
                    // Another process is writing, and its scrub covers the whole log.
                    _ => self.next_checkpoint = Instant::now() + SHORT_PAUSE,
                }
            }
            self.answer_scrubbed();
        } else {
            self.scrub_quiet_log();
        }
    }

    /// Empties a log that no process has written to since the last look. A committed write is safer
    /// in the database than in the log, and a process may have died between a commit and its scrub.
    fn scrub_quiet_log(&mut self) {
        let Ok(log) = self.shared.location.log_state() else { return };
        let is_quiet = self.idle_log == log;
        self.idle_log = log;
        if !is_quiet || log.is_none_or(|log| log.len == 0) || Instant::now() < self.next_checkpoint {
            return;
        }
        let lock = self.lock.clone();
        if let Ok(Some(_locked)) = lock.try_lock() {
            self.checkpoint();
            // If a reader has prevented the checkpoint, the next call tries again.
            self.scrub_pending = false;
        }
    }

    /// Empties the log, unless it is already empty or readers prevented that a moment ago. If the
    /// disk fails, the scrub stays pending, but the committed writes stay committed.
    fn checkpoint(&mut self) {
        let clean = self.log_len().and_then(|log_len| match log_len {
            0 => Ok(true),
            _ if Instant::now() < self.next_checkpoint => Ok(false),
            _ => self.empty_log(),
        });
        self.scrub_pending = !clean.unwrap_or(false);
    }

    /// Tries to empty the log, which is not empty yet, and returns whether that succeeded.
    fn empty_log(&mut self) -> Result<bool> {
        self.stamped_at = None;
        self.lock.count_checkpoint()?;
        self.database.stamp_next_transaction();
        let emptied = self.database.truncate_log(CHECKPOINT_WAIT);
        if emptied.as_ref().is_ok_and(|emptied| *emptied) {
            self.readers_hold_log = false;
        } else {
            let is_waited_for = !self.unscrubbed.is_empty() && !self.readers_hold_log;
            self.next_checkpoint = Instant::now() + if is_waited_for { SHORT_PAUSE } else { LONG_PAUSE };
        }
        emptied
    }

    /// Restarts the log if it has more pages than `limit`. If that fails, a later batch tries
    /// again.
    fn limit_log(&mut self, limit: i32) {
        if self.database.log_pages() <= limit || Instant::now() < self.next_checkpoint {
            return;
        }
        self.stamped_at = None;
        let is_far_too_long = self.database.log_pages() > limit + limit / 4;
        let restarted = self.lock.count_checkpoint().and_then(|_| {
            self.database.stamp_next_transaction();
            self.database.restart_log(if is_far_too_long { LONG_LOG_WAIT } else { CHECKPOINT_WAIT })
        });
        if !restarted.unwrap_or(false) {
            // If the log is far too long, the very next batch tries again.
            let pause = if is_far_too_long { Duration::ZERO } else { LONG_PAUSE };
            self.next_checkpoint = Instant::now() + pause;
        }
    }

    /// Closes the database under the lock and, if possible, as the last connection of this store,
    /// so that SQLite removes the log. Requests that arrive too late are dropped, and their callers
    /// see that the store is closed.
    fn finish(mut self) {
        let mark = self.shared.close();
        self.queue.refuse_all();
        let lock = self.lock.clone();
        // Without the lock, SQLite still closes safely. The log may remain, and the next process to
        // open the store empties it.
        let locked = lock.lock_within(CLOSE_LIMIT);
        if self.scrub_pending {
            self.next_checkpoint = Instant::now();
            self.checkpoint();
        }
        let clean = !self.scrub_pending;
        self.unscrubbed.drain(..).for_each(|unscrubbed| unscrubbed.send(clean));
        drop(self.database);
        drop(locked);
        // From here on, a restore may replace the files.
        drop(mark);
        self.closers.into_iter().for_each(|reply| reply.send(Ok(())));
    }
}

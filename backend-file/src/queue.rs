//! [`Queue`]: the requests that wait for the writer thread.
//!
//! A request stays in the queue until the writer holds the lock that the writers of all processes
//! share. If another process keeps the lock for too long, for example because it is stopped, a
//! watcher thread refuses the requests that have waited for [`LOCK_LIMIT`]. The writer continues to
//! wait for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use crate::error::{FileError, Result};
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::request::Request;
use crate::threads::spawn;

/// The interval at which the watcher checks the queue.
const WATCH_PAUSE: Duration = Duration::from_millis(250);

/// The time that must have passed since the writer last began to wait for the lock before the
/// watcher ends.
const WATCH_LIMIT: Duration = Duration::from_secs(5);

/// The requests of one store's handles, in the order of their arrival.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    /// The process that opened the store.
    process: u32,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    intake: Intake,
    /// The time at which the writer began to wait for the lock; `None` if it does not wait.
    blocked_since: Option<Instant>,
    /// The time at which the writer last began to wait for the lock.
    last_blocked: Option<Instant>,
    /// True while a watcher runs.
    is_watched: bool,
}

/// The state of the queue: open for requests, or closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Open,
    /// The last handle was dropped, or the store was closed.
    Closed,
    /// The writer thread has ended unexpectedly.
    Lost,
}

struct Waiting {
    request: Request,
    since: Instant,
}

/// The reason why the writer wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wakeup {
    Requests,
    Idle,
    Closed,
}

/// A caller's place in the queue. If it is dropped before the request was answered, the request is
/// withdrawn.
pub(crate) struct Ticket<'a> {
    queue: &'a Queue,
    number: u64,
    is_answered: bool,
}

impl Ticket<'_> {
    /// Records that the request was answered, so that dropping the ticket withdraws nothing.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Queue {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), arrived: Condvar::new(), process: process::id() })
    }

    /// Reports whether this process is a fork of the one that opened the store. The writer thread
    /// may have held the mutex at the time of the fork; in this process the mutex would then never
    /// be released.
    fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    /// Appends a request and wakes the writer.
    pub(crate) fn push(&self, request: Request) -> Result<Ticket<'_>> {
        let mut state = self.state();
        match state.intake {
            Intake::Open => {}
            Intake::Closed => return Err(FileError::closed()),
            Intake::Lost => return Err(FileError::writer_is_gone()),
        }
        let number = state.next_ticket;
        state.next_ticket += 1;
        // The writer sleeps only if the queue is empty.
        let is_first = state.waiting.is_empty();
        state.waiting.insert(number, Waiting { request, since: Instant::now() });
        drop(state);
        if is_first {
            self.arrived.notify_one();
        }
        Ok(Ticket { queue: self, number, is_answered: false })
    }

    /// Accepts no more requests. The writer still runs those in the queue.
    pub(crate) fn close(&self) {
        self.state().close(Intake::Closed);
        self.arrived.notify_one();
    }

    /// Waits until there are requests, the queue is closed, or this time has passed.
    pub(crate) fn wait(&self, limit: Duration) -> Wakeup {
        let is_quiet = |state: &mut State| state.waiting.is_empty() && state.intake == Intake::Open;
        let waited = self.arrived.wait_timeout_while(self.state(), limit, is_quiet);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match state.waiting.is_empty() {
            false => Wakeup::Requests,
            true if state.intake == Intake::Open => Wakeup::Idle,
            true => Wakeup::Closed,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    /// Takes the earliest requests, at most `max` of them.
    pub(crate) fn take(&self, max: usize) -> Vec<Request> {
        let mut state = self.state();
        let batch = std::iter::from_fn(|| state.waiting.pop_first()).take(max);
        batch.map(|(_, waiting)| waiting.request).collect()
    }

    /// Drops all requests and accepts no more.
    pub(crate) fn refuse_all(&self) {
        self.close();
        let dropped = std::mem::take(&mut self.state().waiting);
        // This must happen outside the mutex, because a dropped request wakes its caller.
        drop(dropped);
    }

    /// Runs `wait`, which waits for the lock. Meanwhile a watcher refuses the requests that have
    /// waited for too long.
    pub(crate) fn while_blocked<T>(self: &Arc<Self>, lock: &Arc<WriterLock>, wait: impl FnOnce() -> T) -> T {
        let mut state = self.state();
        state.blocked_since = Some(Instant::now());
        state.last_blocked = state.blocked_since;
        let starts_watcher = !std::mem::replace(&mut state.is_watched, true);
        drop(state);
        if starts_watcher {
            let queue = self.clone();
            let lock = lock.clone();
            if spawn(move || queue.watch(&lock)).is_err() {
                // Without a watcher, the wait has no limit. The next call tries again.
                self.state().is_watched = false;
            }
        }
        let waited = wait();
        self.state().blocked_since = None;
        waited
    }

    fn watch(&self, lock: &WriterLock) {
        loop {
            thread::sleep(WATCH_PAUSE);
            let mut state = self.state();
            if state.blocked_since.is_none() && state.last_blocked.is_none_or(|last| last.elapsed() > WATCH_LIMIT) {
                state.is_watched = false;
                return;
            }
            if state.blocked_since.is_none_or(|since| since.elapsed() < LOCK_LIMIT) {
                continue;
            }
            let late = state.take_late();
            drop(state);
            if !late.is_empty() {
                let failure = lock.held_by_another();
                late.into_iter().for_each(|request| request.refuse(&failure));
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the requests that have waited for [`LOCK_LIMIT`].
    fn take_late(&mut self) -> Vec<Request> {
        let all = std::mem::take(&mut self.waiting);
        let (late, waiting) = all.into_iter().partition(|(_, waiting)| waiting.since.elapsed() >= LOCK_LIMIT);
        self.waiting = waiting;
        let late: BTreeMap<u64, Waiting> = late;
        if late.values().any(|waiting| matches!(waiting.request, Request::Close(_))) {
            // The store still closes as soon as the writer gets the lock, but the caller of `close`
            // no longer waits for that.
            self.close(Intake::Closed);
        }
        late.into_values().map(|waiting| waiting.request).collect()
    }

    fn close(&mut self, intake: Intake) {
        if self.intake == Intake::Open {
            self.intake = intake;
        }
    }
}

/// A guard that the writer thread holds. If the thread ends unexpectedly, the guard refuses all
/// requests, so that no caller waits forever.
pub(crate) struct WriterGuard(pub(crate) Arc<Queue>);

impl Drop for WriterGuard {
    fn drop(&mut self) {
        self.0.state().close(Intake::Lost);
        self.0.refuse_all();
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        if self.is_answered || self.queue.is_forked() {
            return;
        }
        let withdrawn = self.queue.state().waiting.remove(&self.number);
        // This must happen outside the mutex, as in `refuse_all`.
        drop(withdrawn);
    }
}

/// The part that all handles of a store share. When the last handle is dropped, the writer runs the
/// waiting requests and closes the store.
pub(crate) struct Handles(pub(crate) Arc<Queue>);

impl Drop for Handles {
    fn drop(&mut self) {
        if !self.0.is_forked() {
            self.0.close();
        }
    }
}

//! [`Queue`]: the requests that wait for the writer thread.
//!
//! A request stays here until the writer holds the lock of all processes. If that takes too long,
//! because another process is stopped, a watcher refuses the requests that have waited for their
//! limit; the writer goes on waiting for the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{process, thread};

use crate::error::{FileError, Result};
use crate::lock::{LOCK_LIMIT, WriterLock};
use crate::request::Request;
use crate::threads::spawn;

/// The pause between two looks of the watcher.
const WATCH_PAUSE: Duration = Duration::from_millis(250);

/// The time for which the watcher goes on after the writer last waited for the lock.
const WATCH_LIMIT: Duration = Duration::from_secs(5);

/// The requests of one store's handles, in the order of their arrival.
pub(crate) struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
    process: u32,
}

#[derive(Default)]
struct State {
    waiting: BTreeMap<u64, Waiting>,
    next_ticket: u64,
    intake: Intake,
    /// The moment at which the writer began to wait for the lock.
    blocked_since: Option<Instant>,
    last_blocked: Option<Instant>,
    is_watched: bool,
}

/// The state of the queue's entrance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Open,
    /// The handles are gone, or the store is closed.
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

/// A request in the queue. If this is dropped first, the request leaves the queue.
pub(crate) struct Ticket<'a> {
    queue: &'a Queue,
    number: u64,
    is_answered: bool,
}

impl Ticket<'_> {
    /// Ends a ticket whose request has left the queue.
    pub(crate) fn answered(mut self) {
        self.is_answered = true;
    }
}

impl Queue {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), arrived: Condvar::new(), process: process::id() })
    }

    /// Reports whether this process was forked off. The writer may have held the mutex at that
    /// moment, and would hold it for ever here.
    fn is_forked(&self) -> bool {
        self.process != process::id()
    }

    /// Appends a request.
    pub(crate) fn push(&self, request: Request) -> Result<Ticket<'_>> {
        let mut state = self.state();
        match state.intake {
            Intake::Open => {}
            Intake::Closed => return Err(FileError::closed()),
            Intake::Lost => return Err(FileError::writer_is_gone()),
        }
        let number = state.next_ticket;
        state.next_ticket += 1;
        // The writer sleeps only while the queue is empty.
        let is_first = state.waiting.is_empty();
        state.waiting.insert(number, Waiting { request, since: Instant::now() });
        drop(state);
        if is_first {
            self.arrived.notify_one();
        }
        Ok(Ticket { queue: self, number, is_answered: false })
    }

    pub(crate) fn close(&self) {
        self.state().close(Intake::Closed);
        self.arrived.notify_one();
    }

    /// Waits for requests, for as long as the writer may rest.
    pub(crate) fn wait(&self, rest: Duration) -> Wakeup {
        let is_quiet = |state: &mut State| state.waiting.is_empty() && state.intake == Intake::Open;
        let waited = self.arrived.wait_timeout_while(self.state(), rest, is_quiet);
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

    /// Takes the earliest requests.
    pub(crate) fn take(&self, max: usize) -> Vec<Request> {
        let mut state = self.state();
        let batch = std::iter::from_fn(|| state.waiting.pop_first()).take(max);
        batch.map(|(_, waiting)| waiting.request).collect()
    }

    /// Drops all requests, and takes no more.
    pub(crate) fn refuse_all(&self) {
        self.close();
        let dropped = std::mem::take(&mut self.state().waiting);
        // Outside the lock: a request wakes the caller that waits for its answer when it is
        // dropped.
        drop(dropped);
    }

    /// Runs the waiting for the lock, and refuses requests meanwhile that have waited for too long.
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
                // Without a thread for it the waiting is not limited; the next one tries again.
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
            let (late, waiting) = std::mem::take(&mut state.waiting)
                .into_iter()
                .partition(|(_, waiting)| waiting.since.elapsed() >= LOCK_LIMIT);
            state.waiting = waiting;
            let late: BTreeMap<u64, Waiting> = late;
            if late.values().any(|waiting| matches!(waiting.request, Request::Close(_))) {
                // The store closes when the lock comes; nobody waits for it.
                state.close(Intake::Closed);
            }
            drop(state);
            if late.is_empty() {
                continue;
            }
            let failure: FileError = lock.held_by_another();
            late.into_values().for_each(|waiting| waiting.request.refuse(&failure));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn close(&mut self, intake: Intake) {
        if self.intake == Intake::Open {
            self.intake = intake;
        }
    }
}

/// Held by the writer thread. If that ends unexpectedly, its callers do not wait for ever.
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
        // Outside the lock, as above.
        drop(withdrawn);
    }
}

/// The handles of a store. When the last one is dropped, the writer ends what waits and closes the
/// store.
pub(crate) struct Handles(pub(crate) Arc<Queue>);

impl Drop for Handles {
    fn drop(&mut self) {
        if !self.0.is_forked() {
            self.0.close();
        }
    }
}

//! [`Batch`]: a batch that is sent in chunks, so that received answers are kept when a chunk fails.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use keystead_core::{Effect, Error, ErrorKind, KeyId, Operation, Result};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::RetrySettings;
use super::call::{after, timed_out};

/// The number of ids in one attempt if the batch size of the store is not known.
const USUAL_CHUNK: usize = 100;

/// The largest number of attempts of one batch in flight.
const ATTEMPTS_IN_FLIGHT: usize = 16;

/// The largest number of ids in those attempts.
const IDS_IN_FLIGHT: usize = 200;

/// The number of timeouts after which an id is suspected to hang. A suspect is tried alone, because
/// the ids that wait behind it in the store would time out with it.
const TIMEOUTS_OF_A_SUSPECT: u32 = 2;

/// A batch and the progress of its ids.
pub(super) struct Batch<T> {
    settings: RetrySettings,
    operation: Operation,
    scheme: &'static str,
    members: Vec<Member<T>>,
    /// The first member that was never sent.
    next_fresh: usize,
    retries: BTreeMap<RetryOrder, Vec<usize>>,
    next_sequence: u64,
    /// The earliest moment at which the store may be asked for ids that were never sent, after it
    /// has throttled.
    not_before: Option<Instant>,
    flow: Flow,
    /// The moment at which the batch ends unless another id gets its outcome before.
    give_up: Instant,
    /// The moment of the last fast answer.
    last_quick: Option<Instant>,
}

/// The state of one id.
struct Member<T> {
    id: KeyId,
    attempts: u32,
    /// The number of attempts that ended without an answer in time.
    timeouts: u32,
    /// True if an attempt may have been applied although it failed.
    unsure: bool,
    outcome: Outcome<T>,
}

enum Outcome<T> {
    NotSent,
    UnderWay,
    /// Failed, and to be retried unless the batch ends before.
    Failed(Error),
    Final(Result<T>),
}

/// The position of a retry in the order of retries.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct RetryOrder {
    /// Zero, or greater than zero for an id that is suspected to hang.
    suspicion: u32,
    not_before: Instant,
    /// Makes each position unique.
    sequence: u64,
}

/// The part of the batch that is sent at once. It grows while answers come fast. A store that
/// answers slowly has a queue, in which more attempts would only wait for each other until they
/// time out.
struct Flow {
    /// The number of ids in one attempt.
    chunk: usize,
    longest_chunk: usize,
    /// True if the store handles a chunk in one call, so that a smaller one would not be answered
    /// sooner.
    is_one_call: bool,
    attempts: usize,
}

/// The speed with which an attempt was answered.
enum Speed {
    Quick,
    Slow,
    TimedOut,
    /// Timed out while another attempt was answered fast, so the cause is not a queue in the store.
    TimedOutAlone,
}

/// The ids of one attempt, before it is made.
struct Chunk {
    indexes: Vec<usize>,
    ids: Vec<KeyId>,
    not_before: Option<Instant>,
}

/// An attempt that has ended.
struct Attempt<T> {
    indexes: Vec<usize>,
    start: Instant,
    took: Duration,
    /// `None` if the attempt has timed out.
    answers: Option<Vec<Result<T>>>,
}

impl<T: Send> Batch<T> {
    /// Creates a batch of distinct ids. `batch_size` is the number of ids that one call of the
    /// store handles, if that is known.
    pub(super) fn new(
        settings: RetrySettings,
        operation: Operation,
        scheme: &'static str,
        ids: &[KeyId],
        batch_size: Option<usize>,
    ) -> Self {
        let member =
            |id: &KeyId| Member { id: id.clone(), attempts: 0, timeouts: 0, unsure: false, outcome: Outcome::NotSent };
        let longest_chunk = batch_size.unwrap_or(USUAL_CHUNK).max(1);
        Self {
            settings,
            operation,
            scheme,
            members: ids.iter().map(member).collect(),
            next_fresh: 0,
            retries: BTreeMap::new(),
            next_sequence: 0,
            not_before: None,
            flow: Flow { chunk: longest_chunk, longest_chunk, is_one_call: batch_size.is_some(), attempts: 1 },
            give_up: after(Instant::now(), settings.deadline),
            last_quick: None,
        }
    }

    /// Sends chunks until each id has its outcome, or until none has got one for the time of the
    /// deadline. `settle` turns an answer into an outcome; its second argument tells whether an
    /// earlier attempt for the id may have been applied.
    pub(super) async fn run<'a>(
        mut self,
        send: impl Fn(Vec<KeyId>) -> BoxFuture<'a, Vec<Result<T>>> + Send,
        settle: impl Fn(Result<T>, bool) -> Result<T> + Send,
    ) -> Vec<Result<T>> {
        let mut in_flight = FuturesUnordered::new();
        loop {
            while let Some(chunk) = self.next_chunk(in_flight.len()) {
                let Chunk { indexes, ids, not_before } = chunk;
                let answers = send(ids);
                in_flight.push(attempt(indexes, not_before, self.settings.attempt_timeout, answers).boxed());
            }
            match timeout_at(self.give_up, in_flight.next()).await {
                Ok(Some(attempt)) => self.take(attempt, &settle),
                Ok(None) | Err(_) => break,
            }
        }
        self.members.into_iter().map(|member| member.into_outcome(self.operation, self.scheme)).collect()
    }

    /// Returns the next ids to send, if another attempt may be made while `in_flight` are in
    /// flight.
    fn next_chunk(&mut self, in_flight: usize) -> Option<Chunk> {
        if in_flight >= self.flow.attempts {
            return None;
        }
        let retry = self.retries.first_key_value().map(|(place, _)| *place);
        // The ids of a chunk that has timed out come before new ids. Most of them have an answer
        // when tried alone, which shows that the store still answers.
        let is_due = retry.is_some_and(|place| place.suspicion == 0 && place.not_before <= Instant::now());
        if self.next_fresh < self.members.len() && !is_due {
            let end = self.members.len().min(self.next_fresh + self.flow.chunk);
            let indexes = (self.next_fresh..end).collect();
            self.next_fresh = end;
            return Some(self.chunk(indexes, self.not_before));
        }
        if retry?.suspicion > 0 {
            // Only suspects are left, which are tried one after the other.
            self.flow.attempts = 1;
            if in_flight > 0 {
                return None;
            }
        }
        let (place, indexes) = self.retries.pop_first()?;
        Some(self.chunk(indexes, Some(place.not_before)))
    }

    fn chunk(&mut self, indexes: Vec<usize>, not_before: Option<Instant>) -> Chunk {
        let mut ids = Vec::with_capacity(indexes.len());
        for index in &indexes {
            let member = &mut self.members[*index];
            member.outcome = Outcome::UnderWay;
            ids.push(member.id.clone());
        }
        Chunk { indexes, ids, not_before }
    }

    fn take(&mut self, attempt: Attempt<T>, settle: impl Fn(Result<T>, bool) -> Result<T>) {
        let Attempt { indexes, start, took, answers } = attempt;
        let speed = match &answers {
            None if self.last_quick.is_some_and(|quick| quick > start) => Speed::TimedOutAlone,
            None => Speed::TimedOut,
            Some(answers) if answers.iter().any(|answer| matches!(answer, Err(e) if e.is_retryable())) => Speed::Slow,
            Some(_) if took > self.settings.attempt_timeout / 4 => Speed::Slow,
            Some(_) => Speed::Quick,
        };
        if let Speed::Quick = speed {
            self.last_quick = Some(Instant::now());
        }
        self.flow.adapt(speed);
        let mut answers = answers.map(Vec::into_iter);
        let mut failed = Vec::new();
        for index in indexes {
            let answer = match &mut answers {
                Some(answers) => answers.next().unwrap_or_else(|| Err(too_few_answers(self.operation, self.scheme))),
                None => Err(timed_out(self.operation, self.scheme)),
            };
            let member = &mut self.members[index];
            member.attempts += 1;
            let answer = settle(answer, member.unsure);
            match answer {
                Err(e) if e.is_retryable() => {
                    member.unsure |= e.effect() == Effect::Unknown;
                    member.timeouts += u32::from(e.kind() == ErrorKind::Timeout);
                    failed.push((index, e));
                }
                answer => {
                    member.outcome = Outcome::Final(answer);
                    self.give_up = after(Instant::now(), self.settings.deadline);
                }
            }
        }
        self.try_again(failed);
    }

    /// Schedules retries. Ids that have timed out are retried one by one, because one of them may
    /// have delayed the others.
    fn try_again(&mut self, failed: Vec<(usize, Error)>) {
        let now = Instant::now();
        let mut together = Vec::new();
        let mut longest_pause = Duration::ZERO;
        for (index, e) in failed {
            let attempts = self.members[index].attempts;
            let Some(pause) = self.settings.pause_after(&e, attempts, self.give_up) else {
                self.members[index].outcome = Outcome::Final(Err(e));
                continue;
            };
            if e.kind() == ErrorKind::Timeout {
                let suspicion = (self.members[index].timeouts + 1).saturating_sub(TIMEOUTS_OF_A_SUSPECT);
                self.retry(vec![index], suspicion, after(now, pause));
            } else {
                together.push(index);
                longest_pause = longest_pause.max(pause);
                if e.kind() == ErrorKind::Throttled {
                    self.not_before = self.not_before.max(Some(after(now, pause)));
                }
            }
            self.members[index].outcome = Outcome::Failed(e);
        }
        if !together.is_empty() {
            self.retry(together, 0, after(now, longest_pause));
        }
    }

    fn retry(&mut self, indexes: Vec<usize>, suspicion: u32, not_before: Instant) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.retries.insert(RetryOrder { suspicion, not_before, sequence }, indexes);
    }
}

impl<T> Member<T> {
    fn into_outcome(self, operation: Operation, scheme: &'static str) -> Result<T> {
        match self.outcome {
            Outcome::Final(Err(e)) | Outcome::Failed(e) if self.unsure => Err(e.with_effect(Effect::Unknown)),
            Outcome::Failed(e) => Err(e),
            Outcome::Final(outcome) => outcome,
            Outcome::UnderWay => Err(timed_out(operation, scheme)),
            Outcome::NotSent => {
                let why = "no call for this id was made, because earlier ones had no success for too long: check \
                           whether the store can be reached, and try again";
                Err(Error::new(ErrorKind::Timeout, operation, scheme).with_effect(Effect::NotApplied).with_source(why))
            }
        }
    }
}

impl Flow {
    fn adapt(&mut self, speed: Speed) {
        match speed {
            Speed::Quick => {
                self.chunk = (self.chunk * 2).min(self.longest_chunk);
                let most = ATTEMPTS_IN_FLIGHT.min(IDS_IN_FLIGHT / self.chunk).max(1);
                self.attempts = most.min(self.attempts + 1);
            }
            Speed::Slow => self.attempts = (self.attempts / 2).max(1),
            Speed::TimedOutAlone => {}
            Speed::TimedOut => {
                self.attempts = (self.attempts / 2).max(1);
                if !self.is_one_call {
                    self.chunk = (self.chunk / 2).max(1);
                }
            }
        }
    }
}

async fn attempt<T>(
    indexes: Vec<usize>,
    not_before: Option<Instant>,
    attempt_timeout: Duration,
    answers: BoxFuture<'_, Vec<Result<T>>>,
) -> Attempt<T> {
    if let Some(not_before) = not_before {
        sleep_until(not_before).await;
    }
    let start = Instant::now();
    let answers = timeout(attempt_timeout, answers).await.ok();
    Attempt { indexes, start, took: start.elapsed(), answers }
}

fn too_few_answers(operation: Operation, scheme: &'static str) -> Error {
    let why = "the store returned fewer answers than it was asked for: its batch methods must return one for each id";
    Error::new(ErrorKind::Other, operation, scheme).with_source(why)
}

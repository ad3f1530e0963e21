//! [`Batch`]: the attempts of a batch, of which each is for a few ids, so that what has arrived is
//! kept.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use keystead_core::{Effect, Error, ErrorKind, KeyId, Operation, Result};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::RetrySettings;
use super::call::{after, timed_out};

/// The number of ids in one attempt if the store does not say how many one of its calls handles.
const USUAL_CHUNK: usize = 100;

/// The most attempts of one batch that are under way at once, and the most ids in them.
const ATTEMPTS_UNDER_WAY: usize = 16;
const IDS_UNDER_WAY: usize = 200;

/// An id that was in so many attempts without an answer is tried by itself: if it is the one that
/// hangs, those that wait behind it in the store must not fail with it.
const TIMEOUTS_OF_A_SUSPECT: u32 = 2;

pub(super) struct Batch<T> {
    settings: RetrySettings,
    operation: Operation,
    scheme: &'static str,
    members: Vec<Member<T>>,
    /// The first member that was never sent.
    next_fresh: usize,
    retries: BTreeMap<Place, Vec<usize>>,
    next_number: u64,
    /// The earliest moment at which the store may be asked for ids that were never sent, after it
    /// has throttled.
    not_before: Option<Instant>,
    flow: Flow,
    /// The moment at which the batch ends if no other id gets its outcome before.
    give_up: Instant,
    /// The moment of the last quick answer.
    last_quick: Option<Instant>,
}

/// The state of one id.
struct Member<T> {
    id: KeyId,
    attempts: u32,
    /// The number of attempts that ended without an answer in time.
    timeouts: u32,
    /// True if an attempt may have had an effect that its caller was not told of.
    unsure: bool,
    outcome: Outcome<T>,
}

enum Outcome<T> {
    NotSent,
    UnderWay,
    /// It will be tried again, unless the batch ends before.
    Failed(Error),
    Final(Result<T>),
}

/// The place of a retry in their order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Zero, or for a suspect how often it was one.
    suspicion: u32,
    not_before: Instant,
    number: u64,
}

/// The part of the batch that is sent at once. It grows while answers come quickly, because a store
/// that answers slowly has a queue in which attempts would wait for each other until they time out.
struct Flow {
    /// The number of ids in one attempt.
    chunk: usize,
    longest_chunk: usize,
    /// True if a chunk is what the store handles with one call, so that a smaller one would not be
    /// answered sooner.
    is_one_call: bool,
    attempts: usize,
}

enum Speed {
    Quick,
    Slow,
    TimedOut,
    /// Without an answer, while another attempt was answered quickly: there is no queue to wait in.
    TimedOutAlone,
}

struct Chunk {
    indexes: Vec<usize>,
    ids: Vec<KeyId>,
    not_before: Option<Instant>,
}

struct Attempt<T> {
    indexes: Vec<usize>,
    start: Instant,
    took: Duration,
    /// None if there was no answer in time.
    answers: Option<Vec<Result<T>>>,
}

impl<T: Send> Batch<T> {
    /// `batch_size` is the number of ids that one call of the store handles, if that is known. The
    /// ids are distinct.
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
            next_number: 0,
            not_before: None,
            flow: Flow { chunk: longest_chunk, longest_chunk, is_one_call: batch_size.is_some(), attempts: 1 },
            give_up: after(Instant::now(), settings.deadline),
            last_quick: None,
        }
    }

    /// Sends chunks of ids until each id has its outcome, or until none has got one for the
    /// deadline. `settle` decides what an answer means, given whether an earlier attempt for the id
    /// may have had an effect.
    pub(super) async fn run<'a>(
        mut self,
        send: impl Fn(Vec<KeyId>) -> BoxFuture<'a, Vec<Result<T>>> + Send,
        settle: impl Fn(Result<T>, bool) -> Result<T> + Send,
    ) -> Vec<Result<T>> {
        let mut under_way = FuturesUnordered::new();
        loop {
            while let Some(chunk) = self.next_chunk(under_way.len()) {
                let Chunk { indexes, ids, not_before } = chunk;
                let answers = send(ids);
                under_way.push(attempt(indexes, not_before, self.settings.attempt_timeout, answers).boxed());
            }
            match timeout_at(self.give_up, under_way.next()).await {
                Ok(Some(attempt)) => self.take(attempt, &settle),
                Ok(None) | Err(_) => break,
            }
        }
        self.members.into_iter().map(|member| member.last_word(self.operation, self.scheme)).collect()
    }

    /// The next ids to send while so many attempts are under way.
    fn next_chunk(&mut self, under_way: usize) -> Option<Chunk> {
        if under_way >= self.flow.attempts {
            return None;
        }
        let retry = self.retries.first_key_value().map(|(place, _)| *place);
        // Of a chunk without an answer most ids have one by themselves, which shows that the store
        // still answers.
        let is_due = retry.is_some_and(|place| place.suspicion == 0 && place.not_before <= Instant::now());
        if self.next_fresh < self.members.len() && !is_due {
            let end = self.members.len().min(self.next_fresh + self.flow.chunk);
            let indexes = (self.next_fresh..end).collect();
            self.next_fresh = end;
            return Some(self.chunk(indexes, self.not_before));
        }
        if retry?.suspicion > 0 {
            // From here on only suspects are left, which are tried one after the other.
            self.flow.attempts = 1;
            if under_way > 0 {
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

    /// Those that have no answer are tried again one by one, as one of them may be what keeps the
    /// others waiting.
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
        let number = self.next_number;
        self.next_number += 1;
        self.retries.insert(Place { suspicion, not_before, number }, indexes);
    }
}

impl<T> Member<T> {
    fn last_word(self, operation: Operation, scheme: &'static str) -> Result<T> {
        match self.outcome {
            Outcome::Final(Err(e)) | Outcome::Failed(e) if self.unsure => Err(e.with_effect(Effect::Unknown)),
            Outcome::Failed(e) => Err(e),
            Outcome::Final(outcome) => outcome,
            Outcome::UnderWay => Err(timed_out(operation, scheme)),
            Outcome::NotSent => {
                let why = "no call for this id was made, because those before it had no success for too long: see \
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
                let most = ATTEMPTS_UNDER_WAY.min(IDS_UNDER_WAY / self.chunk).max(1);
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

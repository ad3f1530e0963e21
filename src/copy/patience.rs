//! [`unless_throttled`]: calls that a store throttles are made again, as slowly as it asks.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::sleep;

use crate::{Effect, Error, ErrorKind, Result};

/// The first pause, and the longest one, if the store asks for no longer one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The number of rounds in a row in which everything is throttled before the copy gives up: after a
/// little more than two minutes.
const FRUITLESS_ROUNDS: u32 = 8;

/// Makes these calls, and those that the store throttles again after a pause, as long as some of
/// them succeed. One outcome for each, in their order.
///
/// A quota is by the second, and a copy that ends because of it would have to be begun again by
/// hand. What may have been applied is left to the caller.
pub(super) async fn unless_throttled<'f, I: Clone + Send + Sync, T: Send>(
    items: &[I],
    call: impl Fn(Vec<I>) -> BoxFuture<'f, Vec<Result<T>>> + Send,
) -> Vec<Result<T>> {
    let mut outcomes = call(items.to_vec()).await;
    let mut waits = Waits::default();
    loop {
        let is_throttled = |outcome: &Result<T>| outcome.as_ref().err().is_some_and(is_throttling);
        let throttled: Vec<usize> =
            outcomes.iter().enumerate().filter(|(_, outcome)| is_throttled(outcome)).map(|(index, _)| index).collect();
        let asked_for = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).filter_map(Error::retry_after);
        let Some(pause) = waits.next(asked_for.max().unwrap_or_default()).filter(|_| !throttled.is_empty()) else {
            return outcomes;
        };
        sleep(pause).await;
        let again: Vec<I> = throttled.iter().filter_map(|index| items.get(*index).cloned()).collect();
        let answers = call(again).await;
        waits.saw(answers.iter().any(|answer| !is_throttled(answer)));
        for (index, answer) in throttled.into_iter().zip(answers) {
            outcomes[index] = answer;
        }
    }
}

/// Reports whether the store has refused a call, or a listing, because there were too many.
pub(super) fn is_throttling(e: &Error) -> bool {
    e.kind() == ErrorKind::Throttled && e.effect() == Effect::NotApplied
}

/// The pauses between the rounds.
#[derive(Default)]
pub(super) struct Waits {
    fruitless: u32,
}

impl Waits {
    /// The next pause; `None` if there were too many in vain.
    pub(super) fn next(&self, asked_for: Duration) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.fruitless.min(16)).min(LONGEST_PAUSE);
        (self.fruitless < FRUITLESS_ROUNDS).then_some(pause.max(asked_for.min(LONGEST_PAUSE)))
    }

    /// Counts a round in which something succeeded, or nothing did.
    pub(super) fn saw(&mut self, progress: bool) {
        self.fruitless = if progress { 0 } else { self.fruitless + 1 };
    }
}

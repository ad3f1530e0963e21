//! [`unless_throttled`]: repeats the calls that a store throttles, as slowly as it asks.

use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_core::{Effect, Error, ErrorKind, Result};
use tokio::time::sleep;

/// The first pause, if the store does not ask for a longer one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, even if the store asks for a longer one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The number of rounds in a row in which every call is throttled before the copy gives up, which
/// is after a little more than two minutes.
const FRUITLESS_ROUNDS: u32 = 8;

/// Makes a call for these items, and repeats it after a pause for those that the store throttled,
/// as long as some of them succeed. Returns one outcome for each item, in their order.
///
/// Quotas are per second, and a copy that ended because of one would have to be started again by
/// hand. A throttled call that may have been applied is not repeated.
pub(crate) async fn unless_throttled<'f, I: Clone + Send + Sync, T: Send>(
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
        waits.record(answers.iter().any(|answer| !is_throttled(answer)));
        for (index, answer) in throttled.into_iter().zip(answers) {
            outcomes[index] = answer;
        }
    }
}

/// Reports whether the store refused a call or a listing because there were too many, and did not
/// apply it.
pub(crate) fn is_throttling(e: &Error) -> bool {
    e.kind() == ErrorKind::Throttled && e.effect() == Effect::NotApplied
}

/// The pauses between rounds of throttled calls.
#[derive(Default)]
pub(crate) struct Waits {
    /// The number of rounds in a row in which every call was throttled.
    fruitless: u32,
}

impl Waits {
    /// Returns the next pause, or `None` if there were too many rounds in which nothing succeeded.
    pub(crate) fn next(&self, asked_for: Duration) -> Option<Duration> {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.fruitless.min(16)).min(LONGEST_PAUSE);
        (self.fruitless < FRUITLESS_ROUNDS).then_some(pause.max(asked_for.min(LONGEST_PAUSE)))
    }

    /// Records a round, and whether any call in it succeeded.
    pub(crate) fn record(&mut self, has_progress: bool) {
        self.fruitless = if has_progress { 0 } else { self.fruitless + 1 };
    }
}

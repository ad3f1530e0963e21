//! [`WritePace`]: sends a store's writes no faster than the service accepts them.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use keystead_core::ErrorKind;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::failure::{AwsFailure, Service};

/// The window in which writes are counted, to find out how many the service accepts per second.
const WINDOW: Duration = Duration::from_secs(1);

/// The longest pause between two writes.
const LONGEST: Duration = Duration::from_secs(2);

/// The shortest pause between two writes. A shorter one is skipped.
const SHORTEST: Duration = Duration::from_millis(5);

/// The time without a throttled write after which the pauses end.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The factors by which the pauses change: they become longer with a throttled write and shorter
/// with each write that succeeds. With a constant quota, about one write in forty is throttled.
const SLOWER: f64 = 1.4;
const FASTER: f64 = 0.99;

/// The pace of a store's writes, shared by its clones.
///
/// By default, Parameter Store accepts three writes a second from an account. A throttled write is
/// tried again for three quarters of the operation timeout, and the writes of the process are
/// spaced out so that most of them are sent once. Nothing waits as long as nothing is throttled,
/// and nothing ever waits if the client makes a single attempt.
///
/// The SDK's own mode for this (adaptive) is not used, because a single refusal can make it hold
/// back all calls of a client for 20 s.
#[derive(Clone, Debug)]
pub struct WritePace {
    state: Arc<Mutex<State>>,
    /// The time limit of one write with all its attempts.
    limit: Duration,
    /// True if a throttled write is sent again.
    repeats: bool,
}

#[derive(Debug)]
struct State {
    /// The pause between two writes; zero while nothing is throttled.
    interval: Duration,
    /// The time of the next write.
    next: Instant,
    last_throttled: Option<Instant>,
    /// The start of the current window, and the number of writes that succeeded in it.
    window: Instant,
    succeeded: u32,
    succeeded_before: u32,
}

impl WritePace {
    /// Creates a pace for a client with these settings.
    pub fn new(timeouts: Option<&TimeoutConfig>, retries: Option<&RetryConfig>) -> Self {
        let now = Instant::now();
        let state = State {
            interval: Duration::ZERO,
            next: now,
            last_throttled: None,
            window: now,
            succeeded: 0,
            succeeded_before: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            limit: timeouts.and_then(TimeoutConfig::operation_timeout).unwrap_or(Duration::MAX),
            repeats: retries.is_none_or(|retries| retries.max_attempts() > 1),
        }
    }

    /// Makes a write when it is its turn, and again while it is throttled. `write` makes one call
    /// of the SDK, which must not itself try a throttled call again.
    ///
    /// # Errors
    /// Those of `write`. [`Throttled`](ErrorKind::Throttled) has the pause after which it makes
    /// sense to try again.
    pub async fn run<T, F>(&self, service: Service, write: impl Fn() -> F) -> Result<T, AwsFailure>
    where
        F: Future<Output = Result<T, AwsFailure>>,
    {
        let begun = Instant::now();
        let deadline = begun.checked_add(self.limit);
        // The last call needs a part of the time, too.
        let last_turn = begun.checked_add(self.limit / 4 * 3);
        let mut refusal: Option<AwsFailure> = None;
        loop {
            // If a write is not sent again here, a layer outside does the waiting.
            let turn = if self.repeats { self.turn(last_turn) } else { Ok(None) };
            match turn {
                Ok(None) => {}
                Ok(Some(turn)) => turn.wait().await,
                Err(wait) => {
                    let refusal = refusal.unwrap_or_else(|| AwsFailure::held_back(service));
                    return Err(refusal.with_retry_after(wait));
                }
            }
            let answer = match (&refusal, deadline) {
                (Some(refusal), Some(deadline)) => match timeout_at(deadline, write()).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(AwsFailure::out_of_time(service, refusal.is_ambiguous())),
                },
                // The SDK limits the time of the first call.
                _ => write().await,
            };
            match answer {
                // A service that provides credentials has a quota of its own.
                Err(e) if e.kind() == ErrorKind::Throttled && !e.lacks_credentials() => {
                    let asked_for = e.retry_after();
                    let e = e.with_retry_after(self.throttled(asked_for));
                    let is_too_long = asked_for.is_some_and(|pause| pause > LONGEST);
                    if !self.repeats || is_too_long {
                        return Err(e);
                    }
                    refusal = Some(e);
                }
                answer => {
                    if answer.is_ok() {
                        self.succeeded();
                    }
                    return answer;
                }
            }
        }
    }

    /// Reserves the next turn; `None` if it is now. If the turn would come after `last`, fails with
    /// the time until the turn.
    fn turn(&self, last: Option<Instant>) -> Result<Option<ReservedTurn<'_>>, Duration> {
        let mut state = self.state();
        let now = Instant::now();
        if state.last_throttled.is_none_or(|at| now - at > FORGOTTEN_AFTER) {
            state.interval = Duration::ZERO;
        }
        if state.interval < SHORTEST {
            return Ok(None);
        }
        let at = state.next.max(now);
        if at > now && last.is_some_and(|last| at > last) {
            return Err(at - now);
        }
        let length = state.interval;
        state.next = at + length;
        Ok((at > now).then(|| ReservedTurn { pace: self, at, length, is_used: false }))
    }

    fn succeeded(&self) {
        let mut state = self.state();
        state.begin_window(Instant::now());
        state.succeeded = state.succeeded.saturating_add(1);
        state.interval = state.interval.mul_f64(FASTER);
    }

    /// Slows down and returns the time until the next turn. Of several writes that are throttled at
    /// once, only the first counts.
    fn throttled(&self, asked_for: Option<Duration>) -> Duration {
        let mut state = self.state();
        let now = Instant::now();
        state.begin_window(now);
        let is_news = state.last_throttled.is_none_or(|at| now - at > state.interval.max(SHORTEST));
        if state.interval < SHORTEST {
            let each_second = state.succeeded.max(state.succeeded_before).max(1);
            state.interval = (WINDOW / each_second).max(SHORTEST);
            state.next = now + state.interval;
        } else if is_news {
            state.interval = state.interval.mul_f64(SLOWER).min(LONGEST);
            state.next = state.next.max(now + state.interval);
        }
        let asked_for = asked_for.unwrap_or_default();
        state.next = state.next.max(now + asked_for.min(LONGEST));
        state.last_throttled = Some(now);
        state.next.saturating_duration_since(now).max(state.interval).max(asked_for)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The turn of a waiting write. If it is dropped before its time, the turn is free for others.
/// Otherwise, callers that give up before their turn would keep all others waiting.
struct ReservedTurn<'a> {
    pace: &'a WritePace,
    at: Instant,
    length: Duration,
    is_used: bool,
}

impl ReservedTurn<'_> {
    async fn wait(mut self) {
        sleep_until(self.at).await;
        self.is_used = true;
    }
}

impl Drop for ReservedTurn<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            let mut state = self.pace.state();
            state.next = state.next.checked_sub(self.length).unwrap_or(self.at);
        }
    }
}

impl State {
    fn begin_window(&mut self, now: Instant) {
        let age = now - self.window;
        if age < WINDOW {
            return;
        }
        self.succeeded_before = if age < 2 * WINDOW { self.succeeded } else { 0 };
        self.succeeded = 0;
        self.window = now;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures_util::stream::{self, StreamExt};

    use super::*;

    const SERVICE: Service = Service { scheme: "ssm", name: "Parameter Store", error_name: "" };

    /// A quota of writes per second. The writes of one second may come at once.
    struct Quota {
        per_second: f64,
        tokens: Mutex<(f64, Instant)>,
        calls: AtomicU32,
    }

    impl Quota {
        fn new(per_second: f64) -> Self {
            Self { per_second, tokens: Mutex::new((per_second, Instant::now())), calls: AtomicU32::new(0) }
        }

        async fn write(&self) -> Result<(), AwsFailure> {
            tokio::time::sleep(Duration::from_millis(20)).await;
            self.calls.fetch_add(1, Ordering::SeqCst);
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let refill = (now - tokens.1).as_secs_f64() * self.per_second;
            *tokens = ((tokens.0 + refill).min(self.per_second), now);
            if tokens.0 < 1.0 {
                return Err(AwsFailure::held_back(SERVICE));
            }
            tokens.0 -= 1.0;
            Ok(())
        }
    }

    fn pace(seconds: u64, attempts: u32) -> WritePace {
        let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(seconds)).build();
        WritePace::new(Some(&timeouts), Some(&RetryConfig::standard().with_max_attempts(attempts)))
    }

    #[tokio::test(start_paused = true)]
    async fn few_writes_are_sent_twice_at_any_quota() {
        for per_second in [2.0, 3.0, 10.0, 50.0] {
            let quota = Quota::new(per_second);
            let pace = pace(15, 3);
            let begun = Instant::now();
            let writes = stream::iter(0..500).map(|_| pace.run(SERVICE, || quota.write()));
            let outcomes: Vec<_> = writes.buffer_unordered(8).collect().await;
            assert!(outcomes.iter().all(Result::is_ok), "{per_second} a second");
            let calls = quota.calls.load(Ordering::SeqCst);
            assert!(calls <= 550, "{per_second} a second: {calls} calls");
            let least = 500.0 / per_second;
            let took = begun.elapsed().as_secs_f64();
            assert!(took <= 1.5 * least + 2.0, "{per_second} a second: {took} s, where {least} s are needed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_the_quota_takes_within_the_time_of_an_operation_succeeds() {
        let quota = Quota::new(3.0);
        let pace = pace(15, 3);
        let writes = stream::iter(0..30).map(|_| pace.run(SERVICE, || quota.write()));
        let outcomes: Vec<_> = writes.buffer_unordered(30).collect().await;
        assert!(outcomes.iter().all(Result::is_ok));
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_is_too_large_is_throttled_within_the_time_of_an_operation() {
        let quota = Quota::new(3.0);
        let pace = pace(5, 3);
        let begun = Instant::now();
        let writes = stream::iter(0..200).map(|_| pace.run(SERVICE, || quota.write()));
        let outcomes: Vec<_> = writes.buffer_unordered(200).collect().await;
        assert!(begun.elapsed() <= Duration::from_secs(6), "{:?}", begun.elapsed());
        assert!(outcomes.iter().filter(|outcome| outcome.is_ok()).count() >= 10);
        for refusal in outcomes.into_iter().filter_map(Result::err) {
            assert_eq!(refusal.kind(), ErrorKind::Throttled);
            assert!(refusal.retry_after().is_some_and(|pause| !pause.is_zero()));
            assert!(!refusal.may_have_applied());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_while_nothing_is_throttled_and_a_minute_after_that() {
        let pace = pace(15, 3);
        let begun = Instant::now();
        for _ in 0..100 {
            pace.run(SERVICE, async || Ok(())).await.unwrap();
        }
        assert!(begun.elapsed().is_zero());
        let refused = AtomicU32::new(0);
        let write = async || match refused.fetch_add(1, Ordering::SeqCst) {
            0 => Err(AwsFailure::held_back(SERVICE)),
            _ => Ok(()),
        };
        pace.run(SERVICE, write).await.unwrap();
        tokio::time::sleep(FORGOTTEN_AFTER + Duration::from_secs(1)).await;
        let begun = Instant::now();
        for _ in 0..100 {
            pace.run(SERVICE, async || Ok(())).await.unwrap();
        }
        assert!(begun.elapsed().is_zero());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_with_one_attempt_and_a_service_that_asks_for_long_are_not_asked_again() {
        for (attempts, asked_for) in [(1, None), (3, Some(Duration::from_secs(30)))] {
            let calls = AtomicU32::new(0);
            let write = async || {
                calls.fetch_add(1, Ordering::SeqCst);
                let refusal = AwsFailure::held_back(SERVICE);
                Err::<(), _>(match asked_for {
                    Some(pause) => refusal.with_retry_after(pause),
                    None => refusal,
                })
            };
            let pace = pace(15, attempts);
            let refusal = pace.run(SERVICE, &write).await.unwrap_err();
            assert_eq!(calls.load(Ordering::SeqCst), 1);
            assert!(refusal.retry_after() >= asked_for.or(Some(Duration::from_millis(100))));
            if attempts == 1 {
                // The next call does not wait either.
                let begun = Instant::now();
                pace.run(SERVICE, &write).await.unwrap_err();
                assert_eq!(calls.load(Ordering::SeqCst), 2);
                assert!(begun.elapsed().is_zero());
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_give_up_before_their_turn_keep_nobody_out() {
        let pace = pace(15, 3);
        let calls = AtomicU32::new(0);
        // Three writes are throttled early on; from then on the service accepts all.
        let write = async || match calls.fetch_add(1, Ordering::SeqCst) {
            10..13 => Err(AwsFailure::held_back(SERVICE)),
            _ => Ok(()),
        };
        let patience = Duration::from_millis(900);
        let writes = stream::iter(0..600).then(async |index| {
            tokio::time::sleep(Duration::from_millis(100)).await;
            index
        });
        let outcomes: Vec<_> = writes
            .map(|_| tokio::time::timeout(patience, pace.run(SERVICE, &write)))
            .buffer_unordered(20)
            .collect()
            .await;
        let written = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Ok(())))).count();
        assert!(written >= 300, "{written} of 600");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_is_silent_after_it_was_throttled_ends_in_time() {
        let calls = AtomicU32::new(0);
        let write = async || match calls.fetch_add(1, Ordering::SeqCst) {
            0 => Err::<(), _>(AwsFailure::held_back(SERVICE)),
            _ => std::future::pending().await,
        };
        let begun = Instant::now();
        let failure = pace(15, 3).run(SERVICE, write).await.unwrap_err();
        assert_eq!((failure.kind(), failure.may_have_applied()), (ErrorKind::Timeout, true));
        assert!(begun.elapsed() <= Duration::from_secs(16));
    }
}

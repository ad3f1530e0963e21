//! [`TimedCall`]: the time limits and the attempts of one call.

use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, Operation, Result};
use tokio::time::{Instant, sleep, timeout_at};

use super::RetrySettings;

/// A call with its time limits and the attempts made so far.
pub(super) struct TimedCall {
    settings: RetrySettings,
    operation: Operation,
    scheme: &'static str,
    attempt_timeout: Duration,
    deadline: Instant,
    attempts: u32,
    /// True if an attempt may have been applied although it failed.
    unsure: bool,
}

impl TimedCall {
    /// Creates a call whose limits are extended by `wait`, the time for which the store itself
    /// waits.
    pub(super) fn new(settings: RetrySettings, wait: Duration, operation: Operation, scheme: &'static str) -> Self {
        let attempt_timeout = settings.attempt_timeout.saturating_add(wait);
        let deadline = after(Instant::now(), settings.deadline.saturating_add(wait));
        Self { settings, operation, scheme, attempt_timeout, deadline, attempts: 0, unsure: false }
    }

    pub(super) fn is_unsure(&self) -> bool {
        self.unsure
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    pub(super) async fn nap(&self, time: Duration) {
        tokio::time::sleep_until(after(Instant::now(), time).min(self.deadline)).await;
    }

    /// Makes one attempt, within its time limit.
    pub(super) async fn attempt<T>(&mut self, once: impl Future<Output = Result<T>> + Send) -> Result<T> {
        self.attempts += 1;
        let answer = self.look(once).await;
        if let Err(e) = &answer {
            self.unsure |= e.effect() == Effect::Unknown;
        }
        answer
    }

    /// Makes a read that does not count as an attempt, within the same time limit.
    pub(super) async fn look<T>(&self, read: impl Future<Output = Result<T>> + Send) -> Result<T> {
        timeout_at(self.attempt_end(), read).await.unwrap_or_else(|_| Err(self.timed_out()))
    }

    /// Makes one step of a listing. The first step counts as an attempt (`is_first`). The deadline
    /// does not apply to later ones.
    pub(super) async fn step<T>(&mut self, step: impl Future<Output = T> + Send, is_first: bool) -> Result<T> {
        let end = if is_first { self.attempt_end() } else { after(Instant::now(), self.attempt_timeout) };
        self.attempts += u32::from(is_first);
        timeout_at(end, step).await.map_err(|_| self.timed_out())
    }

    /// Waits until the next attempt may be made.
    ///
    /// # Errors
    /// The given error of the last attempt, if there is to be no other: see
    /// [`pause_after`](RetrySettings::pause_after).
    pub(super) async fn pause(&self, e: Error) -> Result<()> {
        match self.settings.pause_after(&e, self.attempts, self.deadline) {
            Some(pause) => {
                sleep(pause).await;
                Ok(())
            }
            None if self.unsure => Err(e.with_effect(Effect::Unknown)),
            None => Err(e),
        }
    }

    fn attempt_end(&self) -> Instant {
        after(Instant::now(), self.attempt_timeout).min(self.deadline)
    }

    fn timed_out(&self) -> Error {
        timed_out(self.operation, self.scheme)
    }
}

impl RetrySettings {
    /// Returns the pause after a failed attempt, or `None` if there is to be no other attempt
    /// because it cannot help, all attempts are used up, or the pause would exceed the deadline.
    pub(super) fn pause_after(&self, e: &Error, attempts: u32, deadline: Instant) -> Option<Duration> {
        if !e.is_retryable() || attempts >= self.max_attempts {
            return None;
        }
        let doubled = 2_u32.saturating_pow(attempts.saturating_sub(1));
        let most = self.first_pause.saturating_mul(doubled).min(self.longest_pause);
        let pause = most.mul_f64(fastrand::f64()).max(e.retry_after().unwrap_or_default());
        (after(Instant::now(), pause) < deadline).then_some(pause)
    }
}

pub(super) fn timed_out(operation: Operation, scheme: &'static str) -> Error {
    Error::new(ErrorKind::Timeout, operation, scheme)
        .with_source("the store did not answer within the time set for it: see whether it can be reached")
}

/// Returns the moment after this time. A very long time is shortened, so that it cannot overflow.
pub(super) fn after(now: Instant, time: Duration) -> Instant {
    const FAR_OFF: Duration = Duration::from_secs(30 * 365 * 86_400);
    now + time.min(FAR_OFF)
}

//! [`Patience`]: repeats calls that fail for a while.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keystead::{Error, ErrorKind};
use tokio::time::{Instant, sleep};

/// The number of attempts of a call that fails for a reason other than throttling.
const ATTEMPTS: u32 = 4;

/// The first pause before another attempt; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The time without any success after which a throttled call is given up.
const FRUITLESS: Duration = Duration::from_secs(120);

/// The retry policy of calls that share a store's quota: as long as some of them succeed, throttled
/// ones wait for their turn.
#[derive(Debug)]
pub(super) struct Patience {
    first_pause: Duration,
    fruitless: Duration,
    last_success: Mutex<Instant>,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self::with_times(FIRST_PAUSE, FRUITLESS)
    }

    fn with_times(first_pause: Duration, fruitless: Duration) -> Self {
        Self { first_pause, fruitless, last_success: Mutex::new(Instant::now()) }
    }

    /// Repeats a call until it succeeds or until waiting cannot help. The call must be safe to
    /// repeat, whatever its effect was.
    pub(super) async fn repeat<T, F>(&self, call: impl Fn() -> F + Send) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>> + Send,
        T: Send,
    {
        let mut failures = 0;
        let mut pause = self.first_pause;
        loop {
            let failure = match call().await {
                Ok(done) => {
                    *self.last_success.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                    return Ok(done);
                }
                Err(e) => e,
            };
            let is_hopeful = if failure.kind() == ErrorKind::Throttled {
                self.since_success() < self.fruitless
            } else {
                failures += 1;
                failure.is_retryable() && failures < ATTEMPTS
            };
            if !is_hopeful {
                return Err(failure);
            }
            sleep(failure.retry_after().unwrap_or_default().clamp(pause, LONGEST_PAUSE)).await;
            pause = (2 * pause).min(LONGEST_PAUSE);
        }
    }

    fn since_success(&self) -> Duration {
        self.last_success.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use keystead::Operation;

    use super::*;

    fn error(kind: ErrorKind) -> Error {
        Error::new(kind, Operation::Erase, "test")
    }

    fn patience(fruitless: Duration) -> Patience {
        Patience::with_times(Duration::from_millis(1), fruitless)
    }

    #[tokio::test]
    async fn a_throttled_call_waits_as_long_as_others_succeed() {
        let patience = patience(Duration::from_secs(2));
        let start = Instant::now();
        let is_over = || start.elapsed() > Duration::from_secs(3);
        let throttled = patience.repeat(async || if is_over() { Ok(()) } else { Err(error(ErrorKind::Throttled)) });
        let others = async {
            while !is_over() {
                sleep(Duration::from_millis(100)).await;
                patience.repeat(async || Ok(())).await.unwrap();
            }
        };
        let (throttled, ()) = tokio::join!(throttled, others);
        throttled.unwrap();
    }

    #[tokio::test]
    async fn a_throttled_call_is_given_up_if_nothing_succeeds() {
        let patience = patience(Duration::from_millis(50));
        let given_up = patience.repeat(async || Err::<(), _>(error(ErrorKind::Throttled))).await;
        assert_eq!(given_up.unwrap_err().kind(), ErrorKind::Throttled);
    }

    #[tokio::test]
    async fn other_failures_are_tried_again_if_waiting_can_help() {
        for (kind, attempts) in
            [(ErrorKind::Unavailable, 4), (ErrorKind::Conflict, 4), (ErrorKind::PermissionDenied, 1)]
        {
            let calls = AtomicU32::new(0);
            let call = async || {
                calls.fetch_add(1, Ordering::Relaxed);
                Err::<(), _>(error(kind))
            };
            assert_eq!(patience(Duration::ZERO).repeat(call).await.unwrap_err().kind(), kind);
            assert_eq!(calls.load(Ordering::Relaxed), attempts, "{kind}");
        }
    }
}

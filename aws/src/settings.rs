//! [`ClientSettings`]: timeouts and retries of an AWS client.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_smithy_types::retry::{RetryConfig, RetryMode};
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use keystead_core::{Effect, Error, ErrorKind, Operation};

/// The timeouts and retries of an AWS client.
///
/// A setting made here has precedence over that of an `SdkConfig` or a ready client. If neither
/// sets it, the default applies:
///
/// | setting | default |
/// |---|---|
/// | connecting | 3 s |
/// | one attempt, from its start to the end of its answer | 5 s |
/// | a call with all its attempts and the pauses between them | 15 s |
/// | attempts | 3, in the SDK's standard mode |
/// | the pauses between attempts | jittered, from 100 ms to 5 s |
/// | loading credentials, before the first attempt | 30 s |
///
/// The SDK's adaptive mode is never used, because a single refusal can hold back a new client for
/// 20 s. The pauses of an `SdkConfig` or a client are kept if they differ from the SDK's defaults
/// (1 s and 20 s), which it fills in if the user has set none.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    attempt_timeout: Option<Duration>,
    operation_timeout: Option<Duration>,
    credentials_timeout: Option<Duration>,
    attempts: Option<u32>,
}

pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
const CREDENTIALS_TIMEOUT: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 3;
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

impl ClientSettings {
    /// Creates settings in which nothing is set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time of one attempt.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Limits the time of a call with all its attempts.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = Some(timeout);
        self
    }

    /// Limits the time for loading credentials.
    pub fn credentials_timeout(mut self, timeout: Duration) -> Self {
        self.credentials_timeout = Some(timeout);
        self
    }

    /// Limits the number of attempts of a call. 1 turns the SDK's retries off, for callers that
    /// retry themselves.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts);
        self
    }

    /// Returns what is wrong with these settings and what to do, if something is.
    pub(crate) fn problem(&self) -> Option<&'static str> {
        let is_zero = |timeout: Option<Duration>| timeout.is_some_and(|timeout| timeout.is_zero());
        if self.attempts == Some(0) {
            return Some("sdk_attempts is 0: set it to 1 or more; 1 turns the SDK's retries off");
        }
        if is_zero(self.attempt_timeout) {
            return Some("attempt_timeout is zero: set the longest time that one attempt may take");
        }
        if is_zero(self.operation_timeout) {
            return Some("operation_timeout is zero: set the longest time that a call may take");
        }
        is_zero(self.credentials_timeout)
            .then_some("credentials_timeout is zero: set the longest time that loading credentials may take")
    }

    /// Returns the time limit for loading credentials.
    pub(crate) fn credentials_limit(&self) -> Duration {
        self.credentials_timeout.unwrap_or(CREDENTIALS_TIMEOUT)
    }

    /// Returns the timeouts of a client whose own configuration sets `given`. A timeout that is
    /// disabled there gets the default.
    pub fn timeouts(&self, given: Option<&TimeoutConfig>) -> TimeoutConfig {
        let of = |timeout: fn(&TimeoutConfig) -> Option<Duration>| given.and_then(timeout);
        let attempt = self.attempt_timeout.or(of(TimeoutConfig::operation_attempt_timeout));
        let operation = self.operation_timeout.or(of(TimeoutConfig::operation_timeout));
        let mut timeouts = TimeoutConfig::builder()
            .connect_timeout(of(TimeoutConfig::connect_timeout).unwrap_or(CONNECT_TIMEOUT))
            .operation_attempt_timeout(attempt.unwrap_or(ATTEMPT_TIMEOUT))
            .operation_timeout(operation.unwrap_or(OPERATION_TIMEOUT));
        if let Some(timeout) = of(TimeoutConfig::read_timeout) {
            timeouts = timeouts.read_timeout(timeout);
        }
        timeouts.build()
    }

    /// Returns the retries of a client whose own configuration sets `given`. The pauses in it are
    /// kept, unless they are the SDK's defaults.
    pub fn retries(&self, given: Option<&RetryConfig>) -> RetryConfig {
        let sdks_own = RetryConfig::standard();
        let pause = |of: fn(&RetryConfig) -> Duration| given.map(of).filter(|given| *given != of(&sdks_own));
        let attempts = self.attempts.or(given.map(RetryConfig::max_attempts)).unwrap_or(ATTEMPTS);
        RetryConfig::standard()
            .with_retry_mode(RetryMode::Standard)
            .with_max_attempts(attempts.max(1))
            .with_initial_backoff(pause(RetryConfig::initial_backoff).unwrap_or(INITIAL_BACKOFF))
            .with_max_backoff(pause(RetryConfig::max_backoff).unwrap_or(MAX_BACKOFF))
    }

    /// Returns the configuration with these timeouts and retries, and with the behavior version of
    /// the SDK pinned.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if the configuration has no region or no provider of
    /// credentials.
    pub fn applied_to(&self, config: &SdkConfig, store: &'static str) -> Result<SdkConfig, Error> {
        let missing = match (config.region(), config.credentials_provider()) {
            (None, _) => Some("no AWS region is set: set AWS_REGION, or set one in the configuration"),
            (_, None) => Some("the AWS configuration has no provider of credentials: set one"),
            _ => None,
        };
        if let Some(text) = missing {
            let error = Error::new(ErrorKind::Config, Operation::Open, store);
            return Err(error.with_effect(Effect::NotApplied).with_source(text));
        }
        let timeouts = self.timeouts(config.timeout_config());
        let retries = self.retries(config.retry_config());
        let mut tuned = config.to_builder().timeout_config(timeouts).retry_config(retries);
        if config.behavior_version().is_none() {
            tuned.set_behavior_version(Some(behavior()));
        }
        Ok(tuned.build())
    }
}

/// Returns the SDK's behavior version. It is pinned, so that an update of the SDK does not change
/// timeouts or retries.
pub(crate) fn behavior() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_wait_is_bounded_by_default() {
        let timeouts = ClientSettings::new().timeouts(None);
        assert_eq!(timeouts.operation_attempt_timeout(), Some(ATTEMPT_TIMEOUT));
        assert_eq!(timeouts.operation_timeout(), Some(OPERATION_TIMEOUT));
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
    }

    #[test]
    fn what_is_set_here_wins_and_what_was_given_comes_second() {
        let here = Duration::from_secs(1);
        let given = Duration::from_secs(2);
        let elsewhere = TimeoutConfig::builder().operation_attempt_timeout(given).operation_timeout(given).build();
        let timeouts = ClientSettings::new().operation_timeout(here).timeouts(Some(&elsewhere));
        assert_eq!(timeouts.operation_timeout(), Some(here));
        assert_eq!(timeouts.operation_attempt_timeout(), Some(given));
        assert_eq!(timeouts.connect_timeout(), Some(CONNECT_TIMEOUT));
    }

    #[test]
    fn a_timeout_that_was_switched_off_elsewhere_is_on() {
        let off = TimeoutConfig::disabled();
        assert_eq!(ClientSettings::new().timeouts(Some(&off)).operation_timeout(), Some(OPERATION_TIMEOUT));
    }

    #[test]
    fn retries_are_bounded_and_never_adaptive() {
        let settings = ClientSettings::new();
        assert_eq!(settings.retries(None).max_attempts(), ATTEMPTS);
        let given = RetryConfig::adaptive().with_max_attempts(7);
        assert_eq!(settings.retries(Some(&given)).max_attempts(), 7);
        assert_eq!(settings.retries(Some(&given)).mode(), RetryMode::Standard);
        assert_eq!(settings.attempts(1).retries(Some(&given)).max_attempts(), 1);
    }

    #[test]
    fn pauses_that_the_user_has_set_are_kept() {
        let short = Duration::from_millis(7);
        let long = Duration::from_secs(60);
        let given = RetryConfig::standard().with_initial_backoff(short).with_max_backoff(long);
        let retries = ClientSettings::new().retries(Some(&given));
        assert_eq!((retries.initial_backoff(), retries.max_backoff()), (short, long));
        let retries = ClientSettings::new().retries(Some(&RetryConfig::standard().with_max_backoff(long)));
        assert_eq!((retries.initial_backoff(), retries.max_backoff()), (INITIAL_BACKOFF, long));
        let retries = ClientSettings::new().retries(Some(&RetryConfig::standard()));
        assert_eq!((retries.initial_backoff(), retries.max_backoff()), (INITIAL_BACKOFF, MAX_BACKOFF));
    }

    #[test]
    fn a_configuration_without_a_region_is_refused() {
        let refused = ClientSettings::new().applied_to(&SdkConfig::builder().build(), "ssm").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
}

//! [`ClientSettings`]: timeouts and retries of an AWS client.

use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_smithy_types::retry::{RetryConfig, RetryMode};
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;
use keystead_core::{Effect, Error, ErrorKind, Operation};

use crate::call::quietly;

/// Timeouts and retries of an AWS client.
///
/// What is set here wins; what an `SdkConfig` or a ready client says comes second, then the defaults:
///
/// | setting | default |
/// |---|---|
/// | connecting | 3 s |
/// | one attempt, from its beginning to the end of its answer | 5 s |
/// | a call with all its attempts and the pauses between them | 15 s |
/// | attempts | 3, in the SDK's standard mode, with jittered pauses that begin at 100 ms |
///
/// The SDK's adaptive mode is never used: a single refusal can hold back a new client for 20 s.
#[derive(Clone, Debug, Default)]
pub struct ClientSettings {
    attempt_timeout: Option<Duration>,
    operation_timeout: Option<Duration>,
    attempts: Option<u32>,
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
const OPERATION_TIMEOUT: Duration = Duration::from_secs(15);
const ATTEMPTS: u32 = 3;
const INITIAL_BACKOFF: Duration = Duration::from_millis(100);
const MAX_BACKOFF: Duration = Duration::from_secs(5);

impl ClientSettings {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bounds one attempt.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.attempt_timeout = Some(timeout);
        self
    }

    /// Bounds a call with all its attempts.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = Some(timeout);
        self
    }

    /// Bounds the number of attempts of a call; 1 turns the SDK's retries off, for those who retry outside. 0 counts as 1.
    pub fn attempts(mut self, attempts: u32) -> Self {
        self.attempts = Some(attempts.max(1));
        self
    }

    /// The timeouts of a client for which these were given elsewhere. One that is switched off there gets the default.
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

    /// The retries of a client for which these were given elsewhere.
    pub fn retries(&self, given: Option<&RetryConfig>) -> RetryConfig {
        let attempts = self.attempts.or(given.map(RetryConfig::max_attempts)).unwrap_or(ATTEMPTS);
        RetryConfig::standard()
            .with_retry_mode(RetryMode::Standard)
            .with_max_attempts(attempts)
            .with_initial_backoff(INITIAL_BACKOFF)
            .with_max_backoff(MAX_BACKOFF)
    }

    /// The same configuration with these timeouts and retries, and with the behaviour of the SDK pinned.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if it names no region, or has nothing that provides credentials.
    pub fn applied_to(&self, config: &SdkConfig, store: &'static str) -> Result<SdkConfig, Error> {
        let missing = match (config.region(), config.credentials_provider()) {
            (None, _) => Some("no AWS region is set: set AWS_REGION, or give the configuration one"),
            (_, None) => Some("the AWS configuration has no provider of credentials: give it one"),
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
            tuned.set_behavior_version(Some(behaviour()));
        }
        Ok(tuned.build())
    }
}

/// The SDK's behaviour, pinned: an update must not change timeouts or retries by itself.
fn behaviour() -> BehaviorVersion {
    BehaviorVersion::v2026_01_12()
}

/// Returns what the SDK's default chains give (environment, profile, container, instance), with a
/// region of one's own.
pub async fn default_sdk_config(region: Option<String>) -> SdkConfig {
    let mut loader = aws_config::defaults(behaviour());
    if let Some(region) = region {
        loader = loader.region(Region::new(region));
    }
    // Boxed: it holds the whole chain of providers.
    quietly(Box::pin(loader.load())).await
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
        let (here, given) = (Duration::from_secs(1), Duration::from_secs(2));
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
    fn a_configuration_without_a_region_is_refused() {
        let refused = ClientSettings::new().applied_to(&SdkConfig::builder().build(), "ssm").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
    }
}

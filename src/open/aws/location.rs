//! [`Location`]: the settings of an AWS URL that replace the SDK's default chains.

use std::time::Duration;

use keystead_aws::{AwsStore, StoreBuilder};

use super::decoded;
use crate::BoxError;

/// The parameters for these settings, for people.
pub(super) const NAMES: &str = "region, endpoint_url, profile, role_arn, external_id, session_name, fips, dualstack, \
                                sdk_attempts, attempt_timeout and operation_timeout";

/// The region, endpoint, identity, timeouts and attempts that a URL names. The builder checks them.
#[derive(Clone, Default)]
pub(super) struct Location {
    region: Option<String>,
    endpoint_url: Option<String>,
    profile: Option<String>,
    role_arn: Option<String>,
    external_id: Option<String>,
    session_name: Option<String>,
    fips: Option<bool>,
    dualstack: Option<bool>,
    sdk_attempts: Option<u32>,
    attempt_timeout: Option<Duration>,
    operation_timeout: Option<Duration>,
}

impl Location {
    /// Takes a parameter of the URL. Returns false if it is not one of these.
    ///
    /// # Errors
    /// The text names the parameter and says what to write.
    pub(super) fn take(&mut self, name: &str, value: &str) -> Result<bool, BoxError> {
        match name {
            "region" => self.region = Some(decoded(value)?),
            "endpoint_url" => self.endpoint_url = Some(decoded(value)?),
            "profile" => self.profile = Some(decoded(value)?),
            "role_arn" => self.role_arn = Some(decoded(value)?),
            "external_id" => self.external_id = Some(decoded(value)?),
            "session_name" => self.session_name = Some(decoded(value)?),
            "fips" => self.fips = Some(boolean(name, value)?),
            "dualstack" => self.dualstack = Some(boolean(name, value)?),
            "sdk_attempts" => self.sdk_attempts = Some(number(name, value, "attempts")?),
            "attempt_timeout" => self.attempt_timeout = Some(seconds(name, value)?),
            "operation_timeout" => self.operation_timeout = Some(seconds(name, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Adds these settings to the builder of a store.
    pub(super) fn apply_to<S: AwsStore>(self, mut builder: StoreBuilder<S>) -> StoreBuilder<S> {
        if let Some(region) = self.region {
            builder = builder.region(region);
        }
        if let Some(url) = self.endpoint_url {
            builder = builder.endpoint_url(url);
        }
        if let Some(profile) = self.profile {
            builder = builder.profile(profile);
        }
        if let Some(arn) = self.role_arn {
            builder = builder.role_arn(arn);
        }
        if let Some(id) = self.external_id {
            builder = builder.external_id(id);
        }
        if let Some(name) = self.session_name {
            builder = builder.session_name(name);
        }
        if let Some(is_used) = self.fips {
            builder = builder.fips(is_used);
        }
        if let Some(is_used) = self.dualstack {
            builder = builder.dualstack(is_used);
        }
        if let Some(attempts) = self.sdk_attempts {
            builder = builder.sdk_attempts(attempts);
        }
        if let Some(timeout) = self.attempt_timeout {
            builder = builder.attempt_timeout(timeout);
        }
        if let Some(timeout) = self.operation_timeout {
            builder = builder.operation_timeout(timeout);
        }
        builder
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, BoxError> {
    value.parse().map_err(|_| format!("{name} is neither true nor false; write one of them").into())
}

fn number(name: &str, value: &str, unit: &str) -> Result<u32, BoxError> {
    value.parse().map_err(|_| format!("{name} is not a whole number; write a number of {unit}").into())
}

fn seconds(name: &str, value: &str) -> Result<Duration, BoxError> {
    Ok(Duration::from_secs(number(name, value, "seconds")?.into()))
}

//! [`StoreBuilder`]: an AWS store from what a program has at hand.

use std::fmt;
use std::time::Duration;

use aws_types::SdkConfig;
use aws_types::region::Region;
use keystead_core::{Effect, Error, ErrorKind, Operation, Result};

use crate::settings::{ClientSettings, default_sdk_config};

/// AWS promises no bound; "not found" right after a write has been seen for well under a second.
const VISIBILITY_BOUND: Duration = Duration::from_secs(5);

/// What [`StoreBuilder`] needs to know of a store.
pub trait AwsStore: Sized {
    /// The SDK's client.
    type Client;

    /// What the user sets: names, KMS key and the like.
    type Config;

    /// The scheme, for errors.
    const SCHEME: &'static str;

    /// A client with this configuration, timeouts and retries included, and with the store's own rules for retries.
    fn client_of(config: &SdkConfig) -> Self::Client;

    /// The same client with these settings, where it has none, and with the store's own rules for retries.
    fn tuned(client: Self::Client, settings: &ClientSettings) -> Self::Client;

    /// The store.
    fn assembled(client: Self::Client, config: Self::Config, visibility_bound: Duration) -> Self;
}

/// Builds a store: from an `SdkConfig`, from a ready client, or with the SDK's default chains.
#[must_use]
pub struct StoreBuilder<S: AwsStore> {
    config: S::Config,
    settings: ClientSettings,
    visibility_bound: Duration,
    region: Option<String>,
    endpoint_url: Option<String>,
    source: Source<S::Client>,
}

enum Source<C> {
    None,
    SdkConfig(Box<SdkConfig>),
    Client(C),
}

impl<S: AwsStore> StoreBuilder<S> {
    /// A builder with this configuration.
    pub fn new(config: S::Config) -> Self {
        Self {
            config,
            settings: ClientSettings::new(),
            visibility_bound: VISIBILITY_BOUND,
            region: None,
            endpoint_url: None,
            source: Source::None,
        }
    }

    /// Takes region, credentials, endpoint and HTTP client from here. Timeouts that it leaves open get our defaults.
    pub fn sdk_config(mut self, config: &SdkConfig) -> Self {
        self.source = Source::SdkConfig(Box::new(config.clone()));
        self
    }

    /// Takes a ready client. It is copied with our rules for retries, and timeouts that it leaves open get our defaults.
    pub fn client(mut self, client: S::Client) -> Self {
        self.source = Source::Client(client);
        self
    }

    /// Uses this region instead of what the configuration or the default chain says. A ready client keeps its own.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Uses this endpoint instead of AWS's own, such as that of a private link. A ready client keeps its own.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// Bounds one attempt of a call; 5 s if it is not set anywhere.
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.attempt_timeout(timeout);
        self
    }

    /// Bounds a call with all its attempts; 15 s if it is not set anywhere.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.operation_timeout(timeout);
        self
    }

    /// Bounds the SDK's attempts of a call; 3 if it is not set anywhere. Set 1 where a layer outside retries, so that attempts
    /// don't multiply.
    pub fn sdk_attempts(mut self, attempts: u32) -> Self {
        self.settings = self.settings.attempts(attempts);
        self
    }

    /// How long a write may take until every read sees it; 5 s if it is not called. `erase_key` waits that long before it
    /// verifies, and `get_or_create` for a winner that is not visible yet.
    pub fn visibility_bound(mut self, bound: Duration) -> Self {
        self.visibility_bound = bound;
        self
    }

    /// The store. No call is made: [`check`](keystead_core::KeyStore::check) makes one.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if neither [`sdk_config`](Self::sdk_config) nor [`client`](Self::client) was called, or
    /// if no region is set.
    pub fn build(self) -> Result<S> {
        let client = match self.source {
            Source::Client(client) => S::tuned(client, &self.settings),
            Source::SdkConfig(config) => {
                let mut config = config.to_builder();
                if let Some(region) = self.region {
                    config.set_region(Region::new(region));
                }
                if let Some(url) = self.endpoint_url {
                    config.set_endpoint_url(Some(url));
                }
                S::client_of(&self.settings.applied_to(&config.build(), S::SCHEME)?)
            }
            Source::None => {
                let text = "no AWS configuration is given: call sdk_config or client, or connect instead of build";
                let error = Error::new(ErrorKind::Config, Operation::Open, S::SCHEME);
                return Err(error.with_effect(Effect::NotApplied).with_source(text));
            }
        };
        Ok(S::assembled(client, self.config, self.visibility_bound))
    }

    /// The store with what the SDK's default chains give, where neither [`sdk_config`](Self::sdk_config) nor
    /// [`client`](Self::client) was called: region and credentials from the environment, a profile, the container or the
    /// instance.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if no region is found.
    pub async fn connect(mut self) -> Result<S> {
        if let Source::None = self.source {
            let config = default_sdk_config(self.region.take(), self.endpoint_url.take()).await;
            self.source = Source::SdkConfig(Box::new(config));
        }
        self.build()
    }
}

impl<S: AwsStore> fmt::Debug for StoreBuilder<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreBuilder")
            .field("scheme", &S::SCHEME)
            .field("settings", &self.settings)
            .field("visibility_bound", &self.visibility_bound)
            .finish_non_exhaustive()
    }
}

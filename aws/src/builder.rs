//! [`StoreBuilder`]: an AWS store from what a program has at hand.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_types::SdkConfig;
use aws_types::origin::Origin;
use aws_types::region::Region;
use aws_types::service_config::ServiceConfigKey;
use keystead_core::{Effect, Error, ErrorKind, Operation, Result, StoreInfo};

use crate::identity::{AwsIdentity, Sts};
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

    /// The name under which the SDK looks for an endpoint of this service alone, such as `SSM`.
    const SERVICE_ID: &'static str;

    /// Creates a client with this configuration, timeouts and retries included, and with the
    /// store's own rules for retries.
    fn client_from_config(config: &SdkConfig) -> Self::Client;

    /// Returns the client with these settings, where it has none, and with the store's own rules
    /// for retries.
    fn configure_client(client: Self::Client, settings: &ClientSettings) -> Self::Client;

    /// Returns the region of this client.
    fn region_of(client: &Self::Client) -> Option<&str>;

    /// Returns where in the region this configuration keeps the keys: the template of their names.
    fn location_of(config: &Self::Config) -> String;

    /// Creates the store.
    fn from_parts(
        client: Self::Client,
        config: Self::Config,
        visibility_bound: Duration,
        identity: AwsIdentity,
    ) -> Self;
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
    ///
    /// It is taken for an endpoint of this one service, so `identify` does not ask AWS STS for the
    /// account there, unless it is on the loopback interface, where emulators serve all services.
    /// An endpoint in an `SdkConfig` or in the environment is one of all services, as the SDK has
    /// it.
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
        let (client, endpoint, sts) = match self.source {
            Source::Client(client) => (S::configure_client(client, &self.settings), None, Sts::Unknown),
            Source::SdkConfig(config) => {
                let mut builder = config.to_builder();
                if let Some(region) = self.region {
                    builder.set_region(Region::new(region));
                }
                let config = self.settings.applied_to(&builder.build(), S::SCHEME)?;
                match self.endpoint_url {
                    None => (
                        S::client_from_config(&config),
                        endpoint_of(&config, S::SERVICE_ID),
                        Sts::Configured(Arc::new(config)),
                    ),
                    Some(url) => {
                        let mut builder = config.into_builder();
                        builder.set_endpoint_url(Some(url.clone()));
                        // Before one that the environment has for this service.
                        builder.insert_origin("endpoint_url", Origin::shared_config());
                        let config = builder.build();
                        let client = S::client_from_config(&config);
                        let sts = if is_loopback(&url) { Sts::Guessed(Arc::new(config)) } else { Sts::Unknown };
                        (client, Some(url), sts)
                    }
                }
            }
            Source::None => {
                let text = "no AWS configuration is given: call sdk_config or client, or connect instead of build";
                let error = Error::new(ErrorKind::Config, Operation::Open, S::SCHEME);
                return Err(error.with_effect(Effect::NotApplied).with_source(text));
            }
        };
        let info = StoreInfo::new(S::SCHEME, S::location_of(&self.config));
        let identity = AwsIdentity::new(info, S::region_of(&client), endpoint.as_deref(), sts);
        Ok(S::from_parts(client, self.config, self.visibility_bound, identity))
    }

    /// The store with what the SDK's default chains give, where neither [`sdk_config`](Self::sdk_config) nor
    /// [`client`](Self::client) was called: region and credentials from the environment, a profile, the container or the
    /// instance.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) if no region is found.
    pub async fn connect(mut self) -> Result<S> {
        if let Source::None = self.source {
            let config = default_sdk_config(self.region.take()).await;
            self.source = Source::SdkConfig(Box::new(config));
        }
        self.build()
    }
}

/// The endpoint that the SDK takes from this configuration for a service, if one is set.
fn endpoint_of(config: &SdkConfig, service_id: &str) -> Option<String> {
    let set = config.endpoint_url().map(str::to_owned);
    if config.get_origin("endpoint_url").is_client_config() {
        return set;
    }
    let key =
        ServiceConfigKey::builder().service_id(service_id).env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    let own = key.ok().and_then(|key| config.service_config()?.load_config(key));
    own.or(set)
}

/// Reports whether this URL leads to the machine itself.
fn is_loopback(url: &str) -> bool {
    let authority =
        url.split_once("://").map_or(url, |(_, rest)| rest).split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
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

#[cfg(test)]
mod tests {
    use aws_types::service_config::LoadServiceConfig;

    use super::*;

    /// An environment that has an endpoint for one service, as `AWS_ENDPOINT_URL_SSM` sets it.
    #[derive(Debug)]
    struct Environment;

    impl LoadServiceConfig for Environment {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let is_asked = (key.service_id(), key.env(), key.profile()) == ("SSM", "AWS_ENDPOINT_URL", "endpoint_url");
            is_asked.then(|| "http://own".to_owned())
        }
    }

    #[test]
    fn the_endpoint_that_is_told_is_the_one_that_the_sdk_takes() {
        let mut config = SdkConfig::builder().service_config(Environment);
        config.set_endpoint_url(Some("http://shared".to_owned()));
        let environments = config.build();
        assert_eq!(endpoint_of(&environments, "SSM").as_deref(), Some("http://own"));
        assert_eq!(endpoint_of(&environments, "Secrets Manager").as_deref(), Some("http://shared"));
        let mut config = environments.into_builder();
        config.insert_origin("endpoint_url", Origin::shared_config());
        assert_eq!(endpoint_of(&config.build(), "SSM").as_deref(), Some("http://shared"));
        assert_eq!(endpoint_of(&SdkConfig::builder().build(), "SSM"), None);
    }

    #[test]
    fn only_the_machine_itself_is_loopback() {
        for url in ["http://127.0.0.1:4566", "http://LOCALHOST/x", "https://[::1]:80", "http://a@127.1.2.3"] {
            assert!(is_loopback(url), "{url}");
        }
        for url in
            ["https://vpce-1.ssm.eu-west-1.vpce.amazonaws.com", "http://localhost.example", "http://10.0.0.1", ""]
        {
            assert!(!is_loopback(url), "{url}");
        }
    }
}

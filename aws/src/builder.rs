//! [`StoreBuilder`]: builds an AWS store from the configuration that a program has.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::SdkConfig;
use aws_types::origin::Origin;
use aws_types::region::Region;
use aws_types::service_config::ServiceConfigKey;
use keystead_core::{BoxError, Effect, Error, ErrorKind, Operation, Result, StoreInfo};

use crate::checks::{endpoint_problem, region_problem};
use crate::default_chain::DefaultChain;
use crate::identity::{AwsIdentity, Sts};
use crate::role::Role;
use crate::session::Session;
use crate::settings::ClientSettings;

/// The default visibility bound. AWS promises none; "not found" right after a write has been
/// observed for well under a second.
const VISIBILITY_BOUND: Duration = Duration::from_secs(5);

/// The services that provide credentials, by the names under which the SDK looks for an endpoint.
const CREDENTIAL_SERVICES: [&str; 4] = ["STS", "SSO", "SSO OIDC", "Signin"];

/// The service-specific parts of a store that [`StoreBuilder`] builds.
pub trait AwsStore: Sized {
    /// The SDK's client for the service.
    type Client;

    /// The settings that the user chooses, such as the names and the KMS key.
    type Config;

    /// The store's scheme, for errors.
    const SCHEME: &'static str;

    /// The name under which the SDK looks for an endpoint of this service, such as `SSM`.
    const SERVICE_ID: &'static str;

    /// Creates a client with this configuration, including its timeouts and retries, and with the
    /// store's own retry rules.
    fn client_from_config(config: &SdkConfig) -> Self::Client;

    /// Returns the client with these settings where it has none of its own, and with the store's
    /// own retry rules.
    fn configure_client(client: Self::Client, settings: &ClientSettings) -> Self::Client;

    /// Returns the region of a client.
    fn region_of(client: &Self::Client) -> Option<&str>;

    /// Checks a configuration. [`StoreBuilder::build`] and [`StoreBuilder::connect`] call this
    /// first.
    ///
    /// # Errors
    /// A text that says what is wrong and what to do. It becomes the source of an error of the kind
    /// [`Config`](ErrorKind::Config).
    fn check_config(config: &Self::Config) -> Result<(), BoxError>;

    /// Returns the place of the keys within the region: the template of their names.
    fn location_of(config: &Self::Config) -> String;

    /// Creates the store from its parts.
    fn from_parts(
        client: Self::Client,
        config: Self::Config,
        visibility_bound: Duration,
        identity: AwsIdentity,
    ) -> Self;
}

/// A builder of a store from an `SdkConfig`, from a ready client, or from the SDK's default chains.
#[must_use]
pub struct StoreBuilder<S: AwsStore> {
    config: S::Config,
    settings: ClientSettings,
    visibility_bound: Duration,
    /// Settings that replace those of the source.
    chain: DefaultChain,
    endpoint_url: Option<String>,
    role: Role,
    source: Source<S::Client>,
}

enum Source<C> {
    None,
    SdkConfig(Box<SdkConfig>),
    Client(C),
}

impl<S: AwsStore> StoreBuilder<S> {
    /// Creates a builder with this configuration.
    pub fn new(config: S::Config) -> Self {
        Self {
            config,
            settings: ClientSettings::new(),
            visibility_bound: VISIBILITY_BOUND,
            chain: DefaultChain::default(),
            endpoint_url: None,
            role: Role::default(),
            source: Source::None,
        }
    }

    /// Takes the region, the credentials, the endpoint and the HTTP client from an `SdkConfig`.
    /// Timeouts that it does not set get our defaults. Credentials without an expiry are loaded
    /// again after 15 minutes.
    pub fn sdk_config(mut self, config: &SdkConfig) -> Self {
        self.source = Source::SdkConfig(Box::new(config.clone()));
        self
    }

    /// Uses this client. It is copied with our retry rules, and timeouts that it does not set get
    /// our defaults.
    pub fn client(mut self, client: S::Client) -> Self {
        self.source = Source::Client(client);
        self
    }

    /// Sets the region, in place of the one in the configuration or the default chain. A ready
    /// client keeps its own.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.chain.region = Some(region.into());
        self
    }

    /// Takes the region, the endpoint and the credentials from this profile of the AWS
    /// configuration files, in place of the one that `AWS_PROFILE` names.
    ///
    /// Credentials come from the profile alone, even if the environment contains some. A region or
    /// an endpoint in the environment takes precedence over that of the profile.
    ///
    /// This is for [`connect`](Self::connect) alone: it cannot be combined with
    /// [`sdk_config`](Self::sdk_config) or [`client`](Self::client), which bring their own
    /// credentials.
    pub fn profile(mut self, name: impl Into<String>) -> Self {
        self.chain.profile = Some(name.into());
        self
    }

    /// Makes the store's calls as this role (`arn:aws:iam::ACCOUNT:role/NAME`), which is assumed
    /// with the credentials that are found. It cannot be combined with a ready client.
    ///
    /// The role is assumed again before its session ends. AWS STS is called at its usual endpoint,
    /// not at the [`endpoint_url`](Self::endpoint_url), unless that is on the loopback interface.
    pub fn role_arn(mut self, arn: impl Into<String>) -> Self {
        self.role.arn = Some(arn.into());
        self
    }

    /// Sets the external id to send when the role is assumed. A role's trust policy can demand one.
    pub fn external_id(mut self, id: impl Into<String>) -> Self {
        self.role.external_id = Some(id.into());
        self
    }

    /// Sets the name of the role's session, which AWS CloudTrail shows (default: `keystead`).
    pub fn session_name(mut self, name: impl Into<String>) -> Self {
        self.role.session_name = Some(name.into());
        self
    }

    /// Sets whether to use AWS's endpoints that are validated under FIPS 140, whatever the
    /// environment says. Not every region has them. It cannot be combined with an endpoint URL or a
    /// ready client.
    pub fn fips(mut self, is_used: bool) -> Self {
        self.chain.fips = Some(is_used);
        self
    }

    /// Sets whether to use AWS's endpoints that have both IPv4 and IPv6 addresses, whatever the
    /// environment says. It cannot be combined with an endpoint URL or a ready client.
    pub fn dualstack(mut self, is_used: bool) -> Self {
        self.chain.dualstack = Some(is_used);
        self
    }

    /// Sets the service's endpoint, such as that of a private link, in place of AWS's own. A ready
    /// client keeps its own.
    ///
    /// The endpoint is taken to serve this one service. `identify` therefore does not ask AWS STS
    /// for the account there, unless it is on the loopback interface, where emulators serve all
    /// services. The SDK uses an endpoint in an `SdkConfig` or in the environment for all services.
    pub fn endpoint_url(mut self, url: impl Into<String>) -> Self {
        self.endpoint_url = Some(url.into());
        self
    }

    /// Limits the time of one attempt of a call (default: 5 s, unless the source sets another).
    pub fn attempt_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.attempt_timeout(timeout);
        self
    }

    /// Limits the time of a call with all its attempts (default: 15 s, unless the source sets
    /// another).
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.operation_timeout(timeout);
        self
    }

    /// Limits the time for loading credentials (default: 30 s). They are loaded before the first
    /// attempt, and the other two timeouts do not include that.
    ///
    /// This has no effect on a ready client: the SDK loads its credentials within an attempt.
    pub fn credentials_timeout(mut self, timeout: Duration) -> Self {
        self.settings = self.settings.credentials_timeout(timeout);
        self
    }

    /// Limits the number of the SDK's attempts of a call (default: 3, unless the source sets
    /// another). Set 1 if a layer outside retries, so that attempts do not multiply.
    pub fn sdk_attempts(mut self, attempts: u32) -> Self {
        self.settings = self.settings.attempts(attempts);
        self
    }

    /// Sets the time within which a write becomes visible to every read (default: 5 s). `erase_key`
    /// waits that long before it verifies, and `get_or_create` waits up to that long for the key of
    /// another creator that is not visible yet.
    pub fn visibility_bound(mut self, bound: Duration) -> Self {
        self.visibility_bound = bound;
        self
    }

    /// Builds the store. No call is made: [`check`](keystead_core::KeyStore::check) makes one.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming the setting, if
    /// - the store's configuration is invalid,
    /// - neither [`sdk_config`](Self::sdk_config) nor [`client`](Self::client) was called,
    /// - the region is missing or is not the code of a region,
    /// - an endpoint is not an HTTP URL, or is combined with FIPS or dual-stack endpoints,
    /// - a timeout or the number of attempts is zero,
    /// - the role, the external id or the session name is not valid, or
    /// - a setting was made that the source of the configuration does not accept.
    pub fn build(mut self) -> Result<S> {
        self.check().map_err(config_error::<S>)?;
        match std::mem::replace(&mut self.source, Source::None) {
            Source::Client(client) => {
                if let Some(problem) = S::region_of(&client).and_then(region_problem) {
                    return Err(config_error::<S>(format!("the region of the AWS client {problem}")));
                }
                let client = S::configure_client(client, &self.settings);
                let info = StoreInfo::new(S::SCHEME, S::location_of(&self.config));
                let identity = AwsIdentity::new(info, S::region_of(&client), None, Sts::Unknown);
                Ok(S::from_parts(client, self.config, self.visibility_bound, identity))
            }
            Source::SdkConfig(config) => self.build_from(*config),
            Source::None => Err(config_error::<S>(
                "no AWS configuration is given: call sdk_config or client, or call connect in place of build",
            )),
        }
    }

    /// Builds the store. If neither [`sdk_config`](Self::sdk_config) nor [`client`](Self::client)
    /// was called, the region and the credentials come from the SDK's default chains: the
    /// environment, a profile, the container or the instance.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming the setting, for the reasons of
    /// [`build`](Self::build), if the profile does not exist, or if `AWS_MAX_ATTEMPTS`,
    /// `AWS_RETRY_MODE`, `AWS_USE_FIPS_ENDPOINT`, `AWS_USE_DUALSTACK_ENDPOINT` or
    /// `AWS_IGNORE_CONFIGURED_ENDPOINT_URLS` has a value that the SDK does not know.
    pub async fn connect(mut self) -> Result<S> {
        self.check().map_err(config_error::<S>)?;
        if let Source::None = self.source {
            let chain = std::mem::take(&mut self.chain);
            let config = chain.load().await.map_err(config_error::<S>)?;
            self.source = Source::SdkConfig(Box::new(config));
        }
        self.build()
    }

    /// Checks everything that can be checked before the AWS configuration is loaded.
    fn check(&self) -> Result<(), BoxError> {
        S::check_config(&self.config)?;
        let region = self.chain.region.as_deref().and_then(region_problem).map(|problem| format!("region {problem}"));
        let endpoint = self.endpoint_url.as_deref().and_then(endpoint_problem);
        let endpoint = endpoint.map(|problem| format!("endpoint_url {problem}"));
        let problem = self.settings.problem().or_else(|| self.role.problem()).or_else(|| self.misplaced());
        match region.or(endpoint).or_else(|| problem.map(str::to_owned)) {
            Some(problem) => Err(problem.into()),
            None => Ok(()),
        }
    }

    /// Returns the objection to a setting that the source of the configuration does not accept.
    fn misplaced(&self) -> Option<&'static str> {
        let has_endpoint_variant = self.chain.fips.is_some() || self.chain.dualstack.is_some();
        match self.source {
            Source::None => None,
            Source::SdkConfig(_) => self.chain.profile.is_some().then_some(
                "profile is set together with sdk_config, which has its own credentials: load that with the profile",
            ),
            Source::Client(_) => (self.chain.profile.is_some() || self.role.arn.is_some() || has_endpoint_variant)
                .then_some(
                    "profile, role_arn, fips or dualstack is set together with client, which has its own: set it there",
                ),
        }
    }

    /// Builds the store with this AWS configuration.
    fn build_from(self, config: SdkConfig) -> Result<S> {
        let mut changed = config.into_builder();
        if let Some(region) = self.chain.region {
            changed.set_region(Region::new(region));
        }
        if self.chain.fips.is_some() {
            changed.set_use_fips(self.chain.fips);
        }
        if self.chain.dualstack.is_some() {
            changed.set_use_dual_stack(self.chain.dualstack);
        }
        let shared = self.settings.applied_to(&changed.build(), S::SCHEME)?;
        check_sdk_config(&shared, S::SERVICE_ID).map_err(config_error::<S>)?;
        let own = self.endpoint_url.as_deref().map(|url| with_endpoint(&shared, url));
        let endpoint = match &self.endpoint_url {
            Some(url) => Some(url.clone()),
            None => endpoint_of(&shared, S::SERVICE_ID),
        };
        if endpoint.is_some() {
            check_endpoint_variant(&shared).map_err(config_error::<S>)?;
        }
        let serves_all = self.endpoint_url.as_deref().is_some_and(is_loopback);
        let of_other_services = own.as_ref().filter(|_| serves_all).unwrap_or(&shared);
        let role = self.role.provider(of_other_services).map(SharedCredentialsProvider::new);
        let provider = role.or_else(|| shared.credentials_provider());
        let session = provider.map(|provider| Session::new(provider, self.settings.credentials_limit()));
        let with_session = |config: &SdkConfig| {
            let mut config = config.to_builder();
            config.set_credentials_provider(session.clone().map(SharedCredentialsProvider::new));
            config.build()
        };
        let sts = match own.is_some() {
            false => Sts::Configured(Arc::new(with_session(&shared))),
            true if serves_all => Sts::Guessed(Arc::new(with_session(of_other_services))),
            true => Sts::Unknown,
        };
        let client = S::client_from_config(&with_session(own.as_ref().unwrap_or(&shared)));
        let info = StoreInfo::new(S::SCHEME, S::location_of(&self.config));
        let identity = AwsIdentity::new(info, S::region_of(&client), endpoint.as_deref(), sts).with_session(session);
        Ok(S::from_parts(client, self.config, self.visibility_bound, identity))
    }
}

fn config_error<S: AwsStore>(text: impl Into<BoxError>) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, S::SCHEME).with_effect(Effect::NotApplied).with_source(text)
}

/// Refuses a region or an endpoint at which the SDK would panic, or which it would report as a
/// network failure.
fn check_sdk_config(config: &SdkConfig, service_id: &str) -> Result<(), String> {
    if let Some(problem) = config.region().and_then(|region| region_problem(region.as_ref())) {
        return Err(format!("the region of the AWS configuration {problem}"));
    }
    for service_id in [service_id].into_iter().chain(CREDENTIAL_SERVICES) {
        if let Some(problem) = endpoint_of(config, service_id).and_then(|url| endpoint_problem(&url)) {
            let variable = service_id.to_uppercase().replace(' ', "_");
            let name =
                format!("the endpoint of {service_id} (AWS_ENDPOINT_URL_{variable}, AWS_ENDPOINT_URL or endpoint_url)");
            return Err(format!("{name} {problem}"));
        }
    }
    Ok(())
}

/// Refuses FIPS and dual-stack endpoints together with an endpoint URL, because the SDK would
/// refuse each call.
fn check_endpoint_variant(config: &SdkConfig) -> Result<(), String> {
    for (is_used, setting, variable) in [
        (config.use_fips(), "fips", "AWS_USE_FIPS_ENDPOINT"),
        (config.use_dual_stack(), "dualstack", "AWS_USE_DUALSTACK_ENDPOINT"),
    ] {
        if is_used == Some(true) {
            return Err(format!(
                "{setting} (or {variable}) is set together with an endpoint URL, and the SDK refuses both: unset one"
            ));
        }
    }
    Ok(())
}

/// Returns the configuration with this endpoint, in place of one that the environment sets for the
/// service.
fn with_endpoint(config: &SdkConfig, url: &str) -> SdkConfig {
    let mut config = config.to_builder();
    config.set_endpoint_url(Some(url.to_owned()));
    config.insert_origin("endpoint_url", Origin::shared_config());
    config.build()
}

/// Returns the endpoint that the SDK takes from this configuration for a service, if one is set.
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

/// Reports whether this URL leads to the loopback interface.
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

    /// An environment that sets an endpoint for one service, as `AWS_ENDPOINT_URL_SSM` does.
    #[derive(Debug)]
    struct Environment;

    impl LoadServiceConfig for Environment {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let is_asked = (key.service_id(), key.env(), key.profile()) == ("SSM", "AWS_ENDPOINT_URL", "endpoint_url");
            is_asked.then(|| "http://own".to_owned())
        }
    }

    #[test]
    fn the_endpoint_in_the_identity_is_the_one_that_the_sdk_uses() {
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
    fn only_loopback_addresses_are_recognized() {
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

//! [`DefaultChain`]: an `SdkConfig` from the environment and the profile files.

use std::borrow::Cow;

use aws_config::profile::{self, ProfileFileCredentialsProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_types::retry::RetryMode;
use aws_types::SdkConfig;
use aws_types::region::Region;

use crate::call::quietly;
use crate::checks::region_problem;
use crate::settings::behavior;

/// Settings of the user that replace what the SDK's default chains (environment, profile,
/// container, instance) would find.
#[derive(Clone, Debug, Default)]
pub(crate) struct DefaultChain {
    pub(crate) region: Option<String>,
    pub(crate) profile: Option<String>,
    pub(crate) fips: Option<bool>,
    pub(crate) dualstack: Option<bool>,
}

impl DefaultChain {
    /// Loads the configuration. Credentials are not loaded yet.
    ///
    /// # Errors
    /// A text about a setting at which the SDK would panic, or which it would ignore.
    pub(crate) async fn load(self) -> Result<SdkConfig, String> {
        let surroundings = Surroundings::of(self.profile.clone()).await?;
        surroundings.check()?;
        if self.region.is_none() {
            surroundings.check_region()?;
        }
        let mut loader = aws_config::defaults(behavior());
        if let Some(region) = self.region {
            loader = loader.region(Region::new(region));
        }
        if let Some(fips) = self.fips {
            loader = loader.use_fips(fips);
        }
        if let Some(dualstack) = self.dualstack {
            loader = loader.use_dual_stack(dualstack);
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        // Boxed, because the future contains the whole chain of providers.
        let config = quietly(Box::pin(loader.load())).await;
        Ok(match self.profile {
            Some(profile) => with_credentials_of(profile, &config),
            None => config,
        })
    }
}

/// Returns the configuration with credentials from this profile alone. The SDK's chain would prefer
/// those in the environment, which can belong to another account.
fn with_credentials_of(profile: String, config: &SdkConfig) -> SdkConfig {
    let mut surroundings = ProviderConfig::default()
        .with_region(config.region().cloned())
        .with_use_fips(config.use_fips())
        .with_use_dual_stack(config.use_dual_stack());
    if let Some(retries) = config.retry_config() {
        surroundings = surroundings.with_retry_config(retries.clone());
    }
    if let Some(timeouts) = config.timeout_config() {
        surroundings = surroundings.with_timeout_config(timeouts.clone());
    }
    let provider = ProfileFileCredentialsProvider::builder().configure(&surroundings).profile_name(profile).build();
    config.to_builder().credentials_provider(SharedCredentialsProvider::new(provider)).build()
}

/// The environment and the selected profile.
struct Surroundings {
    profiles: Option<ProfileSet>,
}

impl Surroundings {
    /// Reads the profile files.
    async fn of(profile: Option<String>) -> Result<Self, String> {
        // The real file system and environment, and the files in their usual places.
        let fs = Default::default();
        let env = Default::default();
        let files = Default::default();
        let profiles = quietly(profile::load(&fs, &env, &files, profile.clone().map(Cow::Owned))).await;
        match (profile, profiles) {
            (None, profiles) => Ok(Self { profiles: profiles.ok() }),
            (Some(_), Err(_)) => Err("profile is set, but the AWS profile files cannot be parsed: correct \
                                      ~/.aws/config and ~/.aws/credentials, or the files that AWS_CONFIG_FILE and \
                                      AWS_SHARED_CREDENTIALS_FILE name"
                .to_owned()),
            (Some(name), Ok(profiles)) if profiles.get_profile(&name).is_none() => {
                let name = if crate::texts::is_plain_name(&name) { name.as_str() } else { "with that name" };
                Err(format!("profile is set, but there is no AWS profile {name}: correct it, or add the profile"))
            }
            (Some(_), Ok(profiles)) => Ok(Self { profiles: Some(profiles) }),
        }
    }

    /// Returns the value of a setting and the name under which it was found. The environment takes
    /// precedence over the profile.
    fn setting(&self, variable: &str, key: &str) -> Option<(String, String)> {
        if let Ok(value) = std::env::var(variable) {
            return Some((value, variable.to_owned()));
        }
        let value = self.profiles.as_ref()?.get(key)?;
        Some((value.to_owned(), format!("{key} of the AWS profile")))
    }

    /// Refuses settings at which the SDK would panic, or which it would ignore.
    fn check(&self) -> Result<(), String> {
        if let Some((attempts, name)) = self.setting("AWS_MAX_ATTEMPTS", "max_attempts")
            && !attempts.parse::<u32>().is_ok_and(|attempts| attempts > 0)
        {
            return Err(format!("{name} is not a number above 0: set it to one such as 3, or unset it"));
        }
        if let Some((mode, name)) = self.setting("AWS_RETRY_MODE", "retry_mode")
            && mode.parse::<RetryMode>().is_err()
        {
            return Err(format!("{name} is not a retry mode of the SDK for Rust: set it to standard, or unset it"));
        }
        for (variable, key) in [
            ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls"),
        ] {
            let is_boolean = |text: &str| ["", "true", "false"].iter().any(|known| text.eq_ignore_ascii_case(known));
            if let Some((value, name)) = self.setting(variable, key)
                && !is_boolean(&value)
            {
                return Err(format!("{name} is neither true nor false: set it to one of them, or unset it"));
            }
        }
        Ok(())
    }

    /// Refuses a region that is not the code of a region.
    fn check_region(&self) -> Result<(), String> {
        let by_default = || self.setting("AWS_DEFAULT_REGION", "region");
        let region = match std::env::var("AWS_REGION") {
            Ok(region) => Some((region, "AWS_REGION".to_owned())),
            Err(_) => by_default(),
        };
        match region.and_then(|(region, name)| region_problem(&region).map(|problem| (problem, name))) {
            Some((problem, name)) => Err(format!("{name} {problem}")),
            None => Ok(()),
        }
    }
}

//! [`AwsUrl`]: the contents of an `ssm:` or `secretsmanager:` URL.
//!
//! Credentials come from the SDK's default chains or from a profile, never from the URL.

mod location;

use std::fmt;
use std::sync::Arc;

use keystead_aws::Reencrypt;
use percent_encoding::percent_decode_str;

use self::location::Location;
use super::creation::Creation;
use super::url::UrlParts;
use super::{refusal, url};
use crate::{BoxError, KeyStore, Result};

/// The checked contents of an `ssm:` or `secretsmanager:` URL. Nothing has been opened yet.
///
/// It is for programs that need to know what a URL says, besides opening it with
/// [`open`](crate::open). `Debug` shows neither the path nor the KMS key.
#[derive(Clone)]
pub struct AwsUrl {
    kms_key: Option<String>,
    config: Config,
    location: Location,
}

/// The configuration of the store that the URL names.
#[derive(Clone)]
enum Config {
    #[cfg(feature = "ssm")]
    Ssm { config: Box<keystead_ssm::SsmConfig>, tier: keystead_ssm::Tier },
    #[cfg(feature = "secretsmanager")]
    SecretsManager(Box<keystead_secretsmanager::SecretsManagerConfig>),
}

/// The AWS service of a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Ssm,
    SecretsManager,
}

impl Service {
    /// Returns the service, or `None` if it is not one of this build.
    fn from_scheme(scheme: &str) -> Option<Self> {
        match scheme {
            "ssm" if cfg!(feature = "ssm") => Some(Self::Ssm),
            "secretsmanager" if cfg!(feature = "secretsmanager") => Some(Self::SecretsManager),
            _ => None,
        }
    }

    fn scheme(self) -> &'static str {
        match self {
            Self::Ssm => "ssm",
            Self::SecretsManager => "secretsmanager",
        }
    }

    /// Returns the name of the parameter for the service's own setting.
    fn own_parameter(self) -> &'static str {
        match self {
            Self::Ssm => "tier",
            Self::SecretsManager => "recovery_window_days",
        }
    }

    /// Returns the parameters that a URL of the service takes, for people.
    fn parameters(self) -> String {
        let more = match self {
            Self::Ssm => "legacy",
            Self::SecretsManager => "replica_region.REGION",
        };
        format!("kms_key, {}, tag.KEY, description, {more}, {}", self.own_parameter(), location::NAMES)
    }
}

/// The parameters of a URL, before the configuration of its store is built from them.
struct Settings<'a> {
    kms_key: Option<String>,
    path: String,
    /// The value of the service's own parameter.
    own: Option<&'a str>,
    creation: Creation,
    location: Location,
}

impl AwsUrl {
    /// Parses a URL and checks its parameters, as [`open`](crate::open) describes them.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it is not the URL of an AWS store of this build, or
    /// is refused. No error quotes the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let scheme = url::scheme(url).map_err(|text| refusal("keystead", text))?;
        let Some(service) = Service::from_scheme(&scheme) else {
            let text = "the URL does not name a store in AWS; write ssm:///PATH?kms_key=... or \
                        secretsmanager:///PATH?kms_key=...";
            return Err(refusal("keystead", text));
        };
        let parse = || Settings::parse(UrlParts::parse(url)?, service)?.into_url(service);
        parse().map_err(|e: BoxError| refusal(service.scheme(), e))
    }

    /// Returns the KMS key, or `None` for a legacy path, which needs none.
    pub fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref()
    }

    /// Returns the tier of new parameters, or `None` if the URL does not name a Parameter Store.
    #[cfg(feature = "ssm")]
    pub fn tier(&self) -> Option<keystead_ssm::Tier> {
        match &self.config {
            Config::Ssm { tier, .. } => Some(*tier),
            #[cfg(feature = "secretsmanager")]
            Config::SecretsManager(_) => None,
        }
    }

    pub(super) async fn open(self) -> Result<Arc<dyn KeyStore>> {
        match self.config {
            #[cfg(feature = "ssm")]
            Config::Ssm { config, .. } => Ok(Arc::new(connect_ssm(*config, self.location).await?)),
            #[cfg(feature = "secretsmanager")]
            Config::SecretsManager(config) => Ok(Arc::new(connect_secrets_manager(*config, self.location).await?)),
        }
    }

    pub(super) async fn open_to_reencrypt(self) -> Result<Arc<dyn Reencrypt>> {
        match self.config {
            #[cfg(feature = "ssm")]
            Config::Ssm { config, .. } => Ok(Arc::new(connect_ssm(*config, self.location).await?)),
            #[cfg(feature = "secretsmanager")]
            Config::SecretsManager(config) => Ok(Arc::new(connect_secrets_manager(*config, self.location).await?)),
        }
    }

    #[cfg(feature = "ssm")]
    pub(super) async fn open_ssm(self) -> Result<keystead_ssm::SsmStore> {
        match self.config {
            Config::Ssm { config, .. } => connect_ssm(*config, self.location).await,
            #[cfg(feature = "secretsmanager")]
            Config::SecretsManager(_) => {
                Err(refusal("ssm", "the URL does not name a Parameter Store; write ssm:///PATH?kms_key=..."))
            }
        }
    }
}

impl fmt::Debug for AwsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AwsUrl").finish_non_exhaustive()
    }
}

#[cfg(feature = "ssm")]
async fn connect_ssm(config: keystead_ssm::SsmConfig, location: Location) -> Result<keystead_ssm::SsmStore> {
    location.apply_to(keystead_ssm::SsmStore::builder(config)).connect().await
}

#[cfg(feature = "secretsmanager")]
async fn connect_secrets_manager(
    config: keystead_secretsmanager::SecretsManagerConfig,
    location: Location,
) -> Result<keystead_secretsmanager::SecretsManagerStore> {
    location.apply_to(keystead_secretsmanager::SecretsManagerStore::builder(config)).connect().await
}

impl<'a> Settings<'a> {
    fn parse(url: UrlParts<'a>, service: Service) -> Result<Self, BoxError> {
        let mut settings = Self {
            kms_key: None,
            // Strictly encoded, %s is written as %25s.
            path: url.path.replace("%25s", "%s"),
            own: None,
            creation: Creation::default(),
            location: Location::default(),
        };
        for (name, value) in url.parameters {
            match name {
                "kms_key" => settings.kms_key = Some(decoded(value)?),
                _ if name == service.own_parameter() => settings.own = Some(value),
                _ if settings.creation.take(name, value, service)? => {}
                _ if settings.location.take(name, value)? => {}
                _ => {
                    let text = "unknown parameter; such a URL takes";
                    return Err(
                        format!("{text} {}; credentials come from the SDK's chains", service.parameters()).into()
                    );
                }
            }
        }
        if settings.kms_key.is_none() && !settings.creation.is_legacy {
            return Err("the parameter kms_key is missing; give a key id, an ARN or alias/...".into());
        }
        Ok(settings)
    }

    fn into_url(self, service: Service) -> Result<AwsUrl, BoxError> {
        let config = match service {
            #[cfg(feature = "ssm")]
            Service::Ssm => self.ssm()?,
            #[cfg(feature = "secretsmanager")]
            Service::SecretsManager => self.secrets_manager()?,
            #[allow(unreachable_patterns, reason = "a build may have one of these services alone")]
            _ => return Err("this build does not have the store of this URL".into()),
        };
        let kms_key = self.kms_key.filter(|_| !self.creation.is_legacy);
        Ok(AwsUrl { kms_key, config, location: self.location })
    }

    #[cfg(feature = "ssm")]
    fn ssm(&self) -> Result<Config, BoxError> {
        let config = match self.creation.is_legacy {
            true => keystead_ssm::SsmConfig::legacy(&self.path)?,
            false => keystead_ssm::SsmConfig::new(self.kms_key.as_deref().unwrap_or_default(), &self.path)?,
        };
        let config = self.creation.apply_to_parameters(config);
        let Some(tier) = self.own else {
            return Ok(Config::Ssm { config: Box::new(config), tier: keystead_ssm::Tier::default() });
        };
        let tier = tier.parse()?;
        Ok(Config::Ssm { config: Box::new(config.tier(tier)), tier })
    }

    #[cfg(feature = "secretsmanager")]
    fn secrets_manager(&self) -> Result<Config, BoxError> {
        let kms_key = self.kms_key.as_deref().unwrap_or_default();
        let config = keystead_secretsmanager::SecretsManagerConfig::new(kms_key, &self.path)?;
        let mut config = self.creation.apply_to_secrets(config);
        if let Some(days) = self.own {
            let days = days.parse().map_err(|_| "recovery_window_days is not a number; give 7 to 30")?;
            config = config.recovery_window(days);
        }
        Ok(Config::SecretsManager(Box::new(config)))
    }
}

/// Returns a percent-encoded value in plain text.
pub(super) fn decoded(value: &str) -> Result<String, BoxError> {
    let text = percent_decode_str(value).decode_utf8();
    Ok(text.map_err(|_| "a parameter's value is not UTF-8; correct the %XX in it")?.into_owned())
}

//! [`SsmConfig`]: the KMS key, the names and the tier.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use aws_sdk_ssm::types::ParameterTier;
use keystead_aws::is_kms_key;
use keystead_core::NameTemplate;

use crate::name::{self, InvalidParameterTemplate};

/// Which KMS key encrypts, what parameters are called, and which tier they are in. Checked when it is built.
///
/// With feature `serde` it deserialises from the origin's names, and is checked likewise:
///
/// ```json
/// { "aws-kms-key": "alias/app", "user-keys-path": "/app/user-keys/%s", "tier": "standard" }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "Settings"))]
pub struct SsmConfig {
    kms_key: String,
    names: NameTemplate,
    tier: Tier,
}

impl SsmConfig {
    /// `aws_kms_key` is a key id, a key's ARN, or `alias/...`. `user_keys_path` has one `%s` where the id goes, as
    /// `/app/user-keys/%s`; the name of the longest id must fit into the limits of Parameter Store: 1,011 characters with the
    /// ARN before it, for which 70 are set aside, and 15 levels.
    ///
    /// # Errors
    /// [`InvalidSsmConfig`] with what to mend.
    pub fn new(aws_kms_key: impl Into<String>, user_keys_path: impl AsRef<str>) -> Result<Self, InvalidSsmConfig> {
        let kms_key = aws_kms_key.into();
        if !is_kms_key(&kms_key) {
            return Err(InvalidSsmConfig::KmsKey);
        }
        let names = name::template(user_keys_path.as_ref()).map_err(InvalidSsmConfig::Path)?;
        Ok(Self { kms_key, names, tier: Tier::Standard })
    }

    /// Puts parameters into this tier; [`Tier::Standard`] if it is not called.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    pub(crate) fn kms_key(&self) -> &str {
        &self.kms_key
    }

    pub(crate) fn names(&self) -> &NameTemplate {
        &self.names
    }

    pub(crate) fn parameter_tier(&self) -> ParameterTier {
        match self.tier {
            Tier::Standard => ParameterTier::Standard,
            Tier::Advanced => ParameterTier::Advanced,
            Tier::IntelligentTiering => ParameterTier::IntelligentTiering,
        }
    }
}

/// The tier of parameters (AWS Systems Manager, `PutParameter`). It is sent with each put: the account's own default may
/// cost money. A parameter that is in the advanced tier can't go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// 10,000 parameters an account and region, without charge.
    #[default]
    Standard,
    /// 100,000 parameters, each charged by the month.
    Advanced,
    /// Advanced where standard will not do. Our values never need it; the account's number of parameters may.
    IntelligentTiering,
}

impl FromStr for Tier {
    type Err = InvalidSsmConfig;

    /// Takes `standard`, `advanced` and `intelligent-tiering`, in any case, and AWS's own spelling of these.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "standard" => Ok(Self::Standard),
            "advanced" => Ok(Self::Advanced),
            "intelligent-tiering" | "intelligenttiering" => Ok(Self::IntelligentTiering),
            _ => Err(InvalidSsmConfig::Tier),
        }
    }
}

/// Why a text or a pair of texts is no [`SsmConfig`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSsmConfig {
    /// The KMS key is empty, longer than 256 characters, or holds one that no key id, ARN or alias does.
    KmsKey,
    /// The path will not do.
    Path(InvalidParameterTemplate),
    /// There is no such tier.
    Tier,
}

impl fmt::Display for InvalidSsmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KmsKey => f.write_str("aws-kms-key is no key id, ARN or alias: give one such as alias/app"),
            Self::Path(e) => write!(f, "user-keys-path will not do: {e}"),
            Self::Tier => f.write_str("unknown tier: give standard, advanced or intelligent-tiering"),
        }
    }
}

impl StdError for InvalidSsmConfig {}

/// The configuration as it is written.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Settings {
    aws_kms_key: String,
    user_keys_path: String,
    tier: Option<String>,
}

#[cfg(feature = "serde")]
impl TryFrom<Settings> for SsmConfig {
    type Error = InvalidSsmConfig;

    fn try_from(settings: Settings) -> Result<Self, Self::Error> {
        let config = Self::new(settings.aws_kms_key, settings.user_keys_path)?;
        match settings.tier {
            Some(tier) => Ok(config.tier(tier.parse()?)),
            None => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kms_key_is_refused() {
        for key in ["", "alias/a b"] {
            assert_eq!(SsmConfig::new(key, "/app/%s"), Err(InvalidSsmConfig::KmsKey), "{key}");
        }
    }

    #[test]
    fn tiers_are_read_in_our_spelling_and_in_awss() {
        assert_eq!("standard".parse(), Ok(Tier::Standard));
        assert_eq!("Advanced".parse(), Ok(Tier::Advanced));
        assert_eq!("Intelligent-Tiering".parse(), Ok(Tier::IntelligentTiering));
        assert_eq!("cheap".parse::<Tier>(), Err(InvalidSsmConfig::Tier));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_deserialises_from_the_origins_names() {
        let config: SsmConfig =
            serde_json::from_str(r#"{"aws-kms-key": "alias/app", "user-keys-path": "/app/user-keys/%s"}"#).unwrap();
        assert_eq!(config, SsmConfig::new("alias/app", "/app/user-keys/%s").unwrap());
        let config: SsmConfig =
            serde_json::from_str(r#"{"aws-kms-key": "k", "user-keys-path": "/a/%s", "tier": "advanced"}"#).unwrap();
        assert_eq!(config, SsmConfig::new("k", "/a/%s").unwrap().tier(Tier::Advanced));
        for wrong in [
            r#"{"aws-kms-key": "alias/app"}"#,
            r#"{"user-keys-path": "/app/%s"}"#,
            r#"{"aws-kms-key": "alias/app", "user-keys-path": "/app/keys"}"#,
            r#"{"aws-kms-key": "alias/app", "user-keys-path": "/app/%s", "region": "x"}"#,
        ] {
            assert!(serde_json::from_str::<SsmConfig>(wrong).is_err(), "{wrong}");
        }
    }
}

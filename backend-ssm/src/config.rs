//! [`SsmConfig`]: the KMS key, the names of parameters, their tier, and the settings of new
//! parameters.

use std::str::FromStr;

use aws_sdk_ssm::types::ParameterTier;
use keystead_aws::{InvalidTag, Tags, is_kms_key};
use keystead_core::NameTemplate;

use crate::name::{self, InvalidParameterTemplate};

/// The longest description of a parameter, in characters (`PutParameter`, `Description`).
const LONGEST_DESCRIPTION: usize = 1024;

/// The KMS key, the names of parameters, their tier, and the settings of new parameters.
///
/// The KMS key and the names are checked by [`new`](Self::new), everything else when the store is
/// built.
///
/// With feature `serde`, it deserializes from the names of the Clojure library
/// secret-storage.aws-ssm-ps, and all of it is checked then:
///
/// ```json
/// {
///   "aws-kms-key": "alias/app",
///   "user-keys-path": "/app/user-keys/%s",
///   "tier": "standard",
///   "tags": { "owner": "privacy" },
///   "description": "user key"
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "SerializedConfig"))]
#[must_use]
pub struct SsmConfig {
    /// `None` if the store only reads.
    kms_key: Option<String>,
    names: NameTemplate,
    tier: Tier,
    tags: Tags,
    description: Option<String>,
}

impl SsmConfig {
    /// Creates a configuration.
    ///
    /// `aws_kms_key` is a key id, `alias/...`, or the ARN of a key or an alias. A key of another
    /// account needs its ARN.
    ///
    /// `user_keys_path` has one `%s` in the place of the id, as in `/app/user-keys/%s`. The name of
    /// the longest id must be within the limits of Parameter Store: 15 levels, and 1,011 characters
    /// including the ARN before the name, for which 70 are reserved.
    ///
    /// # Errors
    /// [`InvalidSsmConfig`], which says what to correct.
    pub fn new(aws_kms_key: impl Into<String>, user_keys_path: impl AsRef<str>) -> Result<Self, InvalidSsmConfig> {
        let kms_key = aws_kms_key.into();
        if !is_kms_key(&kms_key) {
            return Err(InvalidSsmConfig::KmsKey);
        }
        let names = name::template(user_keys_path.as_ref()).map_err(InvalidSsmConfig::Path)?;
        Ok(Self::of(Some(kms_key), names))
    }

    /// Creates the configuration of a store that only reads what other software has written under
    /// this path, as the source of a copy. The path may be flat: `/%s`, `/app-%s` or `app-%s`.
    ///
    /// Every write is [`Unsupported`](keystead_core::ErrorKind::Unsupported), before any call. The
    /// listing uses `DescribeParameters`, and every parameter whose name matches the path counts as
    /// a key. Ids have the same names as with [`new`](Self::new). An id whose name would begin with
    /// `aws` or `ssm` has no key, because Parameter Store reserves these names.
    ///
    /// # Errors
    /// [`InvalidSsmConfig::Path`], which says what to correct.
    pub fn legacy(user_keys_path: impl AsRef<str>) -> Result<Self, InvalidSsmConfig> {
        let names = name::legacy_template(user_keys_path.as_ref()).map_err(InvalidSsmConfig::Path)?;
        Ok(Self::of(None, names))
    }

    fn of(kms_key: Option<String>, names: NameTemplate) -> Self {
        Self { kms_key, names, tier: Tier::Standard, tags: Tags::new(), description: None }
    }

    /// Sets the tier of the parameters that are written (default: [`Tier::Standard`]).
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// Adds a tag that each new parameter gets in the call that creates it. Call this once for each
    /// tag. An existing parameter keeps its tags.
    ///
    /// Parameter Store does not accept tags in a call that may overwrite. With tags or a
    /// [description](Self::description), `put_key` therefore first tries to create the parameter, and
    /// overwrites it only if it exists: one call for a new id, two for an existing one.
    ///
    /// Tags that AWS would refuse, and tags in a [legacy](Self::legacy) configuration, are refused
    /// when the store is built.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.add(key, value);
        self
    }

    /// Sets the description that each new parameter gets, of at most 1,024 characters. Anyone who
    /// may list parameters can read it without a permission on the KMS key, so it must not contain
    /// personal data. A put then takes the same calls as with a [`tag`](Self::tag).
    ///
    /// A longer description, and any in a [legacy](Self::legacy) configuration, is refused when the
    /// store is built.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Checks what the setters have stored.
    pub(crate) fn check(&self) -> Result<(), InvalidSsmConfig> {
        if self.is_legacy() && self.has_creation_settings() {
            return Err(InvalidSsmConfig::ReadOnly);
        }
        self.tags.check().map_err(InvalidSsmConfig::Tag)?;
        match &self.description {
            Some(text) if text.chars().count() > LONGEST_DESCRIPTION => Err(InvalidSsmConfig::Description),
            _ => Ok(()),
        }
    }

    pub(crate) fn is_legacy(&self) -> bool {
        self.kms_key.is_none()
    }

    pub(crate) fn kms_key(&self) -> Option<&str> {
        self.kms_key.as_deref()
    }

    pub(crate) fn names(&self) -> &NameTemplate {
        &self.names
    }

    pub(crate) fn tags(&self) -> &Tags {
        &self.tags
    }

    pub(crate) fn description_text(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Reports whether new parameters get something that an overwrite cannot set.
    pub(crate) fn has_creation_settings(&self) -> bool {
        !self.tags.is_empty() || self.description.is_some()
    }

    /// Returns the advice for a write that was refused as invalid.
    pub(crate) fn advice_for_invalid_put(&self) -> &'static str {
        self.tier.advice_for_invalid_put()
    }

    /// Returns the tier to send; `None` lets the account's default apply.
    pub(crate) fn parameter_tier(&self) -> Option<ParameterTier> {
        match self.tier {
            Tier::Standard => Some(ParameterTier::Standard),
            Tier::Advanced => Some(ParameterTier::Advanced),
            Tier::IntelligentTiering => Some(ParameterTier::IntelligentTiering),
            Tier::AccountDefault => None,
        }
    }
}

/// The tier of parameters (AWS Systems Manager, `PutParameter`).
///
/// Each put sends it, because the account's default may cost money; only
/// [`AccountDefault`](Self::AccountDefault) sends none. A parameter cannot return from the advanced
/// tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// Up to 10,000 parameters for each account and region, free of charge.
    #[default]
    Standard,
    /// Up to 100,000 parameters, each charged by the month.
    Advanced,
    /// The advanced tier only if the standard tier is not sufficient. Our values never need it, but
    /// the number of the account's parameters may.
    IntelligentTiering,
    /// The account's default tier, because no tier is sent. It is for an account whose parameters
    /// are already advanced and can therefore not be overwritten as standard ones.
    AccountDefault,
}

impl Tier {
    fn advice_for_invalid_put(self) -> &'static str {
        match self {
            Self::Standard => {
                "the write was refused as invalid; an advanced parameter cannot be overwritten as a standard one: if \
                 parameters here are in the advanced tier, set tier to advanced or account-default; otherwise check \
                 the store's configuration"
            }
            Self::AccountDefault => {
                "the write was refused as invalid; an advanced parameter cannot be overwritten as a standard one: if \
                 parameters here are in the advanced tier and the account's default is not, set tier to advanced; \
                 otherwise check the store's configuration"
            }
            _ => "the write was refused as invalid: check the store's configuration, including its tier",
        }
    }
}

impl FromStr for Tier {
    type Err = InvalidSsmConfig;

    /// Parses `standard`, `advanced`, `intelligent-tiering` and `account-default` in any case, and
    /// AWS's own spelling of these.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "standard" => Ok(Self::Standard),
            "advanced" => Ok(Self::Advanced),
            "intelligent-tiering" | "intelligenttiering" => Ok(Self::IntelligentTiering),
            "account-default" => Ok(Self::AccountDefault),
            _ => Err(InvalidSsmConfig::Tier),
        }
    }
}

/// The reason why an [`SsmConfig`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSsmConfig {
    /// The KMS key is not a key id, an ARN or an alias: it is empty, has more than 256 characters,
    /// or contains a character that none of them has.
    #[error("aws-kms-key is not a key id, an ARN or an alias: set one such as alias/app")]
    KmsKey,
    /// The path is not a template of parameter names.
    #[error("user-keys-path is not valid: {0}")]
    Path(InvalidParameterTemplate),
    /// The tier is unknown.
    #[error("the tier is unknown: set standard, advanced, intelligent-tiering or account-default")]
    Tier,
    /// AWS would refuse a tag.
    #[error("{0}")]
    Tag(InvalidTag),
    /// The description has more than 1,024 characters.
    #[error("the description of a parameter has more than 1024 characters: shorten it")]
    Description,
    /// Tags or a description are set for a legacy path, where nothing is ever created.
    #[error("tags or a description are set for a legacy path, which is only read: remove them")]
    ReadOnly,
}

/// The serialized form of a configuration.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct SerializedConfig {
    aws_kms_key: Option<String>,
    user_keys_path: String,
    tier: Option<String>,
    #[serde(default)]
    tags: std::collections::BTreeMap<String, String>,
    description: Option<String>,
    #[serde(default)]
    legacy: bool,
}

#[cfg(feature = "serde")]
impl TryFrom<SerializedConfig> for SsmConfig {
    type Error = InvalidSsmConfig;

    fn try_from(settings: SerializedConfig) -> Result<Self, Self::Error> {
        let mut config = match settings.legacy {
            true => Self::legacy(settings.user_keys_path)?,
            false => Self::new(settings.aws_kms_key.unwrap_or_default(), settings.user_keys_path)?,
        };
        if let Some(tier) = settings.tier {
            config = config.tier(tier.parse()?);
        }
        for (key, value) in settings.tags {
            config = config.tag(key, value);
        }
        if let Some(description) = settings.description {
            config = config.description(description);
        }
        config.check()?;
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use keystead_core::{ErrorKind, Operation};

    use super::*;
    use crate::store::SsmStore;

    #[test]
    fn a_text_that_does_not_name_a_kms_key_is_refused() {
        for key in ["", "alias/a b", "arn:aws:iam::123456789012:role/app"] {
            assert_eq!(SsmConfig::new(key, "/app/%s"), Err(InvalidSsmConfig::KmsKey), "{key}");
        }
    }

    #[test]
    fn tiers_are_read_in_our_spelling_and_in_awss() {
        assert_eq!("standard".parse(), Ok(Tier::Standard));
        assert_eq!("Advanced".parse(), Ok(Tier::Advanced));
        assert_eq!("Intelligent-Tiering".parse(), Ok(Tier::IntelligentTiering));
        assert_eq!("account-default".parse(), Ok(Tier::AccountDefault));
        assert_eq!("cheap".parse::<Tier>(), Err(InvalidSsmConfig::Tier));
    }

    #[test]
    fn tags_and_a_description_beyond_awss_limits_are_refused() {
        let config = SsmConfig::new("alias/app", "/app/%s").unwrap();
        let reserved = config.clone().tag("aws:owner", "x");
        assert_eq!(reserved.check(), Err(InvalidSsmConfig::Tag(InvalidTag::Reserved)));
        assert_eq!(config.clone().description("\u{e9}".repeat(1024)).check(), Ok(()));
        assert_eq!(config.description("d".repeat(1025)).check(), Err(InvalidSsmConfig::Description));
    }

    #[test]
    fn a_store_with_a_refused_configuration_is_not_built() {
        let config = SsmConfig::new("alias/app", "/app/%s").unwrap().tag("aws:owner", "x");
        let error = SsmStore::builder(config).build().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
        assert_eq!(cause, Some(&InvalidSsmConfig::Tag(InvalidTag::Reserved)));
    }

    #[test]
    fn a_legacy_configuration_creates_nothing() {
        let config = SsmConfig::legacy("/%s").unwrap();
        assert_eq!(config.clone().tag("owner", "x").check(), Err(InvalidSsmConfig::ReadOnly));
        assert_eq!(config.description("x").check(), Err(InvalidSsmConfig::ReadOnly));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_deserializes_from_the_clojure_librarys_names() {
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

    #[cfg(feature = "serde")]
    #[test]
    fn tags_description_and_legacy_deserialize_and_are_checked() {
        let config: SsmConfig = serde_json::from_str(
            r#"{"aws-kms-key": "k", "user-keys-path": "/a/%s", "tags": {"owner": "x"}, "description": "d"}"#,
        )
        .unwrap();
        let expected = SsmConfig::new("k", "/a/%s").unwrap().tag("owner", "x").description("d");
        assert_eq!(config, expected);
        // The KMS key, which the Clojure library needs, may stay in the file.
        let config: SsmConfig =
            serde_json::from_str(r#"{"aws-kms-key": "k", "user-keys-path": "/%s", "legacy": true}"#).unwrap();
        assert_eq!(config, SsmConfig::legacy("/%s").unwrap());
        for wrong in [
            r#"{"aws-kms-key": "k", "user-keys-path": "/a/%s", "tags": {"aws:owner": "x"}}"#,
            r#"{"aws-kms-key": "k", "user-keys-path": "/%s"}"#,
            r#"{"user-keys-path": "/%s", "legacy": true, "tags": {"owner": "x"}}"#,
        ] {
            assert!(serde_json::from_str::<SsmConfig>(wrong).is_err(), "{wrong}");
        }
    }
}

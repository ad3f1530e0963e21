//! [`SsmConfig`]: the KMS key, the names, the tier, and what a new parameter gets besides.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;

use aws_sdk_ssm::types::ParameterTier;
use keystead_aws::{InvalidTag, Tags, is_kms_key};
use keystead_core::NameTemplate;

use crate::name::{self, InvalidParameterTemplate};

/// The longest description of a parameter, in characters (`PutParameter`, `Description`).
const LONGEST_DESCRIPTION: usize = 1024;

/// The KMS key that encrypts, the names of parameters, their tier, and what a new one gets besides.
/// It is checked when it is built.
///
/// With feature `serde` it deserializes from the names of the Clojure library
/// secret-storage.aws-ssm-ps, and is checked likewise:
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
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "Settings"))]
pub struct SsmConfig {
    /// `None` if the store only reads.
    kms_key: Option<String>,
    names: NameTemplate,
    tier: Tier,
    tags: Tags,
    description: Option<String>,
}

impl SsmConfig {
    /// Creates a configuration. `aws_kms_key` is a key id, `alias/...`, or the ARN of a key or of
    /// an alias; a key of another account needs its ARN. `user_keys_path` has one `%s` where the id
    /// goes, as `/app/user-keys/%s`; the name of the longest id must fit into the limits of
    /// Parameter Store: 1,011 characters with the ARN before it, for which 70 are set aside, and 15
    /// levels.
    ///
    /// # Errors
    /// [`InvalidSsmConfig`] with what to mend.
    pub fn new(aws_kms_key: impl Into<String>, user_keys_path: impl AsRef<str>) -> Result<Self, InvalidSsmConfig> {
        let kms_key = aws_kms_key.into();
        if !is_kms_key(&kms_key) {
            return Err(InvalidSsmConfig::KmsKey);
        }
        let names = name::template(user_keys_path.as_ref()).map_err(InvalidSsmConfig::Path)?;
        Ok(Self::of(Some(kms_key), names))
    }

    /// Creates the configuration of a store that only reads what other software has written under
    /// this path, which may be flat, as `/%s`, `/app-%s` or `app-%s`: the source of a copy.
    ///
    /// Every write is [`Unsupported`](keystead_core::ErrorKind::Unsupported), before any call. The
    /// listing uses `DescribeParameters`, and every parameter whose name fits the path counts as a
    /// key. Ids are found under the same names as with [`new`](Self::new). An id whose name would
    /// begin with `aws` or `ssm` has no key, because Parameter Store reserves these names.
    ///
    /// # Errors
    /// [`InvalidSsmConfig::Path`] with what to mend.
    pub fn legacy(user_keys_path: impl AsRef<str>) -> Result<Self, InvalidSsmConfig> {
        let names = name::legacy_template(user_keys_path.as_ref()).map_err(InvalidSsmConfig::Path)?;
        Ok(Self::of(None, names))
    }

    fn of(kms_key: Option<String>, names: NameTemplate) -> Self {
        Self { kms_key, names, tier: Tier::Standard, tags: Tags::new(), description: None }
    }

    /// Puts parameters into this tier; [`Tier::Standard`] if it is not called.
    pub fn tier(mut self, tier: Tier) -> Self {
        self.tier = tier;
        self
    }

    /// Adds a tag that each new parameter gets in the call that creates it. Call it once for each
    /// tag. An existing parameter keeps its tags.
    ///
    /// Parameter Store takes no tags with an overwrite. So with tags or a
    /// [description](Self::description) a `put_key` first tries to create the parameter, and
    /// overwrites it only if it exists: one call for a new id, two for an existing one.
    ///
    /// # Errors
    /// [`InvalidSsmConfig::Tag`] if AWS would not take it, [`InvalidSsmConfig::ReadOnly`] if the
    /// configuration is a [legacy](Self::legacy) one.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Result<Self, InvalidSsmConfig> {
        self.refuse_read_only()?;
        self.tags.insert(key, value).map_err(InvalidSsmConfig::Tag)?;
        Ok(self)
    }

    /// Sets the description that each new parameter gets. It can be read without any right on the
    /// KMS key, so it must hold no personal data. What it costs is told at [`tag`](Self::tag).
    ///
    /// # Errors
    /// [`InvalidSsmConfig::Description`] if it has more than 1,024 characters,
    /// [`InvalidSsmConfig::ReadOnly`] if the configuration is a [legacy](Self::legacy) one.
    pub fn description(mut self, description: impl Into<String>) -> Result<Self, InvalidSsmConfig> {
        self.refuse_read_only()?;
        let description = description.into();
        if description.chars().count() > LONGEST_DESCRIPTION {
            return Err(InvalidSsmConfig::Description);
        }
        self.description = Some(description);
        Ok(self)
    }

    fn refuse_read_only(&self) -> Result<(), InvalidSsmConfig> {
        if self.is_legacy() { Err(InvalidSsmConfig::ReadOnly) } else { Ok(()) }
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

    /// Reports whether a new parameter gets what an overwrite cannot give it.
    pub(crate) fn has_creation_settings(&self) -> bool {
        !self.tags.is_empty() || self.description.is_some()
    }

    /// Returns the advice for a write that was refused as invalid.
    pub(crate) fn advice_for_invalid_put(&self) -> &'static str {
        self.tier.advice_for_invalid_put()
    }

    /// Returns the tier to send; `None` leaves it to the account.
    pub(crate) fn parameter_tier(&self) -> Option<ParameterTier> {
        match self.tier {
            Tier::Standard => Some(ParameterTier::Standard),
            Tier::Advanced => Some(ParameterTier::Advanced),
            Tier::IntelligentTiering => Some(ParameterTier::IntelligentTiering),
            Tier::AccountDefault => None,
        }
    }
}

/// The tier of parameters (AWS Systems Manager, `PutParameter`). It is sent with each put, except
/// for [`AccountDefault`](Self::AccountDefault), because the account's own default may cost money.
/// A parameter that is in the advanced tier can't go back.
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
    /// No tier is sent, so the account's default decides: for an account in which parameters are
    /// advanced already, and cannot be overwritten as standard ones.
    AccountDefault,
}

impl Tier {
    fn advice_for_invalid_put(self) -> &'static str {
        match self {
            Self::Standard => {
                "the write was refused as invalid; an advanced parameter cannot be overwritten as a standard one: if \
                 parameters here are in the advanced tier, set tier to advanced or account-default; else look at the \
                 store's configuration"
            }
            Self::AccountDefault => {
                "the write was refused as invalid; an advanced parameter cannot be overwritten as a standard one: if \
                 parameters here are in the advanced tier and the account's default is not, set tier to advanced; else \
                 look at the store's configuration"
            }
            _ => "the write was refused as invalid: look at the store's configuration, its tier too",
        }
    }
}

impl FromStr for Tier {
    type Err = InvalidSsmConfig;

    /// Takes `standard`, `advanced`, `intelligent-tiering` and `account-default`, in any case, and
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

/// The reason why an [`SsmConfig`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSsmConfig {
    /// The KMS key is empty, longer than 256 characters, or holds one that no key id, ARN or alias does.
    KmsKey,
    /// The path will not do.
    Path(InvalidParameterTemplate),
    /// There is no such tier.
    Tier,
    /// A tag will not do.
    Tag(InvalidTag),
    /// The description has more than 1,024 characters.
    Description,
    /// Tags or a description are set where nothing is ever created.
    ReadOnly,
}

impl fmt::Display for InvalidSsmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KmsKey => f.write_str("aws-kms-key is no key id, ARN or alias: give one such as alias/app"),
            Self::Path(e) => write!(f, "user-keys-path will not do: {e}"),
            Self::Tier => f.write_str("unknown tier: give standard, advanced, intelligent-tiering or account-default"),
            Self::Tag(e) => e.fmt(f),
            Self::Description => {
                f.write_str("the description of a parameter has more than 1024 characters: shorten it")
            }
            Self::ReadOnly => f.write_str("a legacy path is only read: leave out tags and description"),
        }
    }
}

impl StdError for InvalidSsmConfig {}

/// The configuration as it is written.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Settings {
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
impl TryFrom<Settings> for SsmConfig {
    type Error = InvalidSsmConfig;

    fn try_from(settings: Settings) -> Result<Self, Self::Error> {
        let mut config = match settings.legacy {
            true => Self::legacy(settings.user_keys_path)?,
            false => Self::new(settings.aws_kms_key.unwrap_or_default(), settings.user_keys_path)?,
        };
        if let Some(tier) = settings.tier {
            config = config.tier(tier.parse()?);
        }
        for (key, value) in settings.tags {
            config = config.tag(key, value)?;
        }
        match settings.description {
            Some(description) => config.description(description),
            None => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_kms_key_is_refused() {
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
        let refusal = config.clone().tag("aws:owner", "x").unwrap_err();
        assert_eq!(refusal, InvalidSsmConfig::Tag(InvalidTag::Reserved));
        assert!(config.clone().description("\u{e9}".repeat(1024)).is_ok());
        assert_eq!(config.description("d".repeat(1025)), Err(InvalidSsmConfig::Description));
    }

    #[test]
    fn a_legacy_configuration_creates_nothing() {
        let config = SsmConfig::legacy("/%s").unwrap();
        assert_eq!(config.clone().tag("owner", "x"), Err(InvalidSsmConfig::ReadOnly));
        assert_eq!(config.description("x"), Err(InvalidSsmConfig::ReadOnly));
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

    #[cfg(feature = "serde")]
    #[test]
    fn tags_description_and_legacy_deserialize_and_are_checked() {
        let config: SsmConfig = serde_json::from_str(
            r#"{"aws-kms-key": "k", "user-keys-path": "/a/%s", "tags": {"owner": "x"}, "description": "d"}"#,
        )
        .unwrap();
        let expected = SsmConfig::new("k", "/a/%s").unwrap().tag("owner", "x").unwrap().description("d").unwrap();
        assert_eq!(config, expected);
        // The key that the Clojure library needs may stay where it is.
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

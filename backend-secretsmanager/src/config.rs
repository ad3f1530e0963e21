//! [`SecretsManagerConfig`]: the KMS key, the names, what a new secret gets besides, and whether
//! deletions can be undone.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use keystead_aws::{InvalidTag, Tags, is_arn, is_kms_key};
use keystead_core::{InvalidNameTemplate, NameTemplate};

use crate::replica::Replica;

/// The longest name of a secret, in characters (`CreateSecret`, `Name`).
const LONGEST_NAME: usize = 512;

/// The longest description of a secret, in characters (`CreateSecret`, `Description`).
const LONGEST_DESCRIPTION: usize = 2048;

/// `ListSecrets` may lag by so much.
const LISTING_BOUND: Duration = Duration::from_secs(300);

/// The recovery windows that Secrets Manager has, in days (`DeleteSecret`, `RecoveryWindowInDays`).
const WINDOWS: std::ops::RangeInclusive<u16> = 7..=30;

const DAY: Duration = Duration::from_secs(86_400);

/// The longest time for which Secrets Manager keeps a secret that is scheduled for deletion.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(*WINDOWS.end() as u64 * DAY.as_secs());

/// The KMS key that encrypts, the names of secrets, what a new one gets besides, and whether
/// deletions can be undone. It is checked when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsManagerConfig {
    kms_key: String,
    names: NameTemplate,
    window_days: Option<u16>,
    listing_bound: Duration,
    tags: Tags,
    description: Option<String>,
    replicas: Vec<Replica>,
}

impl SecretsManagerConfig {
    /// Creates a configuration. `aws_kms_key` is a key id, `alias/...`, as
    /// `alias/aws/secretsmanager`, or the ARN of a key or of an alias; a key of another account
    /// needs its ARN. `user_keys_path` has one `%s` where the id goes, as `/app/user-keys/%s`; the name
    /// of the longest id must not exceed 512 characters.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig`] with what to mend.
    pub fn new(
        aws_kms_key: impl Into<String>,
        user_keys_path: impl AsRef<str>,
    ) -> Result<Self, InvalidSecretsManagerConfig> {
        let kms_key = aws_kms_key.into();
        if !is_kms_key(&kms_key) {
            return Err(InvalidSecretsManagerConfig::KmsKey);
        }
        if is_arn(user_keys_path.as_ref().trim_start_matches('/')) {
            return Err(InvalidSecretsManagerConfig::Arn);
        }
        let names = NameTemplate::new(user_keys_path.as_ref()).map_err(InvalidSecretsManagerConfig::Path)?;
        if names.max_name_len() > LONGEST_NAME {
            return Err(InvalidSecretsManagerConfig::TooLong);
        }
        Ok(Self {
            kms_key,
            names,
            window_days: None,
            listing_bound: LISTING_BOUND,
            tags: Tags::new(),
            description: None,
            replicas: Vec::new(),
        })
    }

    /// Lets an operator restore a deleted key for so many days, 7 to 30. Without this call a delete
    /// is forced: the key is gone.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig::Window`] for another number of days.
    pub fn recovery_window(mut self, days: u16) -> Result<Self, InvalidSecretsManagerConfig> {
        if !WINDOWS.contains(&days) {
            return Err(InvalidSecretsManagerConfig::Window);
        }
        self.window_days = Some(days);
        Ok(self)
    }

    /// Sets the time within which a write becomes visible in a listing (default: 5 minutes, which
    /// is what AWS documents).
    pub fn listing_bound(mut self, bound: Duration) -> Self {
        self.listing_bound = bound;
        self
    }

    /// Adds a tag that each new secret gets in the call that creates it. Call it once for each tag.
    /// An existing secret keeps its tags.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig::Tag`] if AWS would not take it.
    pub fn tag(
        mut self,
        key: impl Into<String>,
        value: impl Into<String>,
    ) -> Result<Self, InvalidSecretsManagerConfig> {
        self.tags.insert(key, value).map_err(InvalidSecretsManagerConfig::Tag)?;
        Ok(self)
    }

    /// Sets the description that each new secret gets. It can be read without any right on the KMS
    /// key, so it must hold no personal data.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig::Description`] if it has more than 2,048 characters.
    pub fn description(mut self, description: impl Into<String>) -> Result<Self, InvalidSecretsManagerConfig> {
        let description = description.into();
        if description.chars().count() > LONGEST_DESCRIPTION {
            return Err(InvalidSecretsManagerConfig::Description);
        }
        self.description = Some(description);
        Ok(self)
    }

    /// Has each new secret replicated to this region, encrypted there under this KMS key: a key id,
    /// `alias/...` as `alias/aws/secretsmanager`, or an ARN of that region. Call it once for each
    /// region. An existing secret keeps its replicas.
    ///
    /// AWS replicates after it has answered, and a replica can fail: where that region has a secret
    /// of this name already, for example. Keys are read and written in the store's own region only.
    /// A delete first removes all replicas that the secret has then, at the cost of one more call.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig::ReplicaRegion`],
    /// [`ReplicaKmsKey`](InvalidSecretsManagerConfig::ReplicaKmsKey), or
    /// [`ReplicaRepeated`](InvalidSecretsManagerConfig::ReplicaRepeated) if the region was given
    /// already.
    pub fn replica_region(
        mut self,
        region: impl Into<String>,
        aws_kms_key: impl Into<String>,
    ) -> Result<Self, InvalidSecretsManagerConfig> {
        let replica = Replica::new(region.into(), aws_kms_key.into())?;
        if self.replicas.iter().any(|present| present.region == replica.region) {
            return Err(InvalidSecretsManagerConfig::ReplicaRepeated);
        }
        self.replicas.push(replica);
        Ok(self)
    }

    pub(crate) fn tags(&self) -> &Tags {
        &self.tags
    }

    pub(crate) fn description_text(&self) -> Option<&str> {
        self.description.as_deref()
    }

    pub(crate) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    pub(crate) fn kms_key(&self) -> &str {
        &self.kms_key
    }

    pub(crate) fn names(&self) -> &NameTemplate {
        &self.names
    }

    pub(crate) fn window_days(&self) -> Option<u16> {
        self.window_days
    }

    pub(crate) fn window(&self) -> Option<Duration> {
        self.window_days.map(|days| DAY * u32::from(days))
    }

    pub(crate) fn lists_within(&self) -> Duration {
        self.listing_bound
    }
}

/// The reason why a [`SecretsManagerConfig`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSecretsManagerConfig {
    /// The KMS key is empty, longer than 256 characters, or holds one that no key id, ARN or alias does.
    KmsKey,
    /// The path is no template of names.
    Path(InvalidNameTemplate),
    /// The path is an ARN.
    Arn,
    /// The name of the longest id would have more than 512 characters.
    TooLong,
    /// The recovery window is not of 7 to 30 days.
    Window,
    /// A tag will not do.
    Tag(InvalidTag),
    /// The description has more than 2,048 characters.
    Description,
    /// The region of a replica is not the code of a region.
    ReplicaRegion,
    /// The KMS key of a replica is no key id, ARN or alias, or the ARN of another region.
    ReplicaKmsKey,
    /// Two replicas are in the same region.
    ReplicaRepeated,
}

impl fmt::Display for InvalidSecretsManagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KmsKey => f.write_str("the KMS key is no key id, ARN or alias: give one such as alias/app"),
            Self::Path(e) => write!(f, "user_keys_path will not do: {e}"),
            Self::Arn => f.write_str(
                "an ARN cannot be a path, because AWS ends each secret's ARN with random characters: to use another \
                 account, assume a role in it, and give the path alone, as /app/user-keys/%s",
            ),
            Self::TooLong => {
                f.write_str("the longest id would get a name of more than 512 characters: shorten user_keys_path")
            }
            Self::Window => f.write_str("a recovery window has 7 to 30 days: give one of these, or none"),
            Self::Tag(e) => e.fmt(f),
            Self::Description => f.write_str("the description of a secret has more than 2048 characters: shorten it"),
            Self::ReplicaRegion => f.write_str("a replica's region is no code of a region: give one such as eu-west-1"),
            Self::ReplicaKmsKey => f.write_str(
                "a replica's KMS key is no key id, alias or ARN of its region: give one such as alias/app, or \
                 alias/aws/secretsmanager",
            ),
            Self::ReplicaRepeated => f.write_str("two replicas are in the same region: give each region once"),
        }
    }
}

impl StdError for InvalidSecretsManagerConfig {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_of_an_accepted_path_fits() {
        let fits = format!("/{}/%s", "a".repeat(LONGEST_NAME - 386 - 2));
        assert_eq!(SecretsManagerConfig::new("k", &fits).unwrap().names().max_name_len(), LONGEST_NAME);
        let longer = fits.replace("/%s", "a/%s");
        assert_eq!(SecretsManagerConfig::new("k", &longer), Err(InvalidSecretsManagerConfig::TooLong));
    }

    #[test]
    fn what_will_not_do_is_refused() {
        assert_eq!(SecretsManagerConfig::new("", "/app/%s"), Err(InvalidSecretsManagerConfig::KmsKey));
        let no_placeholder = InvalidSecretsManagerConfig::Path(InvalidNameTemplate::NoPlaceholder);
        assert_eq!(SecretsManagerConfig::new("k", "/app/keys"), Err(no_placeholder));
        let config = SecretsManagerConfig::new("k", "/app/%s").unwrap();
        for days in [0, 6, 31] {
            assert_eq!(config.clone().recovery_window(days), Err(InvalidSecretsManagerConfig::Window), "{days}");
        }
        assert_eq!(config.recovery_window(7).unwrap().window(), Some(7 * DAY));
    }

    #[test]
    fn an_arn_is_refused_with_the_way_into_another_account() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:/app/%s";
        assert_eq!(SecretsManagerConfig::new("k", arn), Err(InvalidSecretsManagerConfig::Arn));
        assert!(InvalidSecretsManagerConfig::Arn.to_string().contains("assume a role"));
        let key = "arn:aws:kms:eu-west-1:999999999999:key/mrk-1";
        assert!(SecretsManagerConfig::new(key, "/app/%s").is_ok());
    }

    #[test]
    fn what_a_new_secret_gets_is_checked() {
        let config = SecretsManagerConfig::new("k", "/app/%s").unwrap();
        let refusal = config.clone().tag("", "x").unwrap_err();
        assert_eq!(refusal, InvalidSecretsManagerConfig::Tag(InvalidTag::Key));
        assert!(config.clone().description("d".repeat(2048)).is_ok());
        let refusal = config.clone().description("d".repeat(2049)).unwrap_err();
        assert_eq!(refusal, InvalidSecretsManagerConfig::Description);
        let replicated = config.replica_region("eu-west-1", "alias/app").unwrap();
        let refusal = replicated.replica_region("eu-west-1", "alias/other").unwrap_err();
        assert_eq!(refusal, InvalidSecretsManagerConfig::ReplicaRepeated);
    }
}

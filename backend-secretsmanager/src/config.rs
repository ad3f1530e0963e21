//! [`SecretsManagerConfig`]: the KMS key, the names of secrets, the settings of new secrets, and
//! the recovery window.

use std::collections::HashSet;
use std::time::Duration;

use keystead_aws::{InvalidTag, Tags, is_arn, is_kms_key};
use keystead_core::{InvalidNameTemplate, NameTemplate};

use crate::replica::Replica;

/// The longest name of a secret, in characters (`CreateSecret`, `Name`).
const LONGEST_NAME: usize = 512;

/// The longest description of a secret, in characters (`CreateSecret`, `Description`).
const LONGEST_DESCRIPTION: usize = 2048;

/// The time by which `ListSecrets` may lag, according to AWS.
const LISTING_BOUND: Duration = Duration::from_secs(300);

/// The recovery windows that Secrets Manager offers, in days (`DeleteSecret`,
/// `RecoveryWindowInDays`).
const WINDOWS: std::ops::RangeInclusive<u16> = 7..=30;

const DAY: Duration = Duration::from_secs(86_400);

/// The longest time for which Secrets Manager keeps a secret that is scheduled for deletion.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(*WINDOWS.end() as u64 * DAY.as_secs());

/// The KMS key, the names of secrets, the settings of new secrets, and the recovery window.
///
/// The KMS key and the names are checked by [`new`](Self::new), everything else when the store is
/// built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
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
    /// Creates a configuration.
    ///
    /// `aws_kms_key` is a key id, `alias/...` such as `alias/aws/secretsmanager`, or the ARN of a
    /// key or an alias. A key of another account needs its ARN.
    ///
    /// `user_keys_path` has one `%s` in the place of the id, as in `/app/user-keys/%s`. The name of
    /// the longest id must not exceed 512 characters.
    ///
    /// # Errors
    /// [`InvalidSecretsManagerConfig`], which says what to correct.
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

    /// Lets an operator restore a deleted key for this number of days, 7 to 30. Without this call a
    /// delete is forced, and the key cannot be restored.
    ///
    /// Another number of days is refused when the store is built.
    pub fn recovery_window(mut self, days: u16) -> Self {
        self.window_days = Some(days);
        self
    }

    /// Sets the time within which a write becomes visible in a listing (default: 5 minutes, which
    /// is what AWS documents).
    pub fn listing_bound(mut self, bound: Duration) -> Self {
        self.listing_bound = bound;
        self
    }

    /// Adds a tag that each new secret gets in the call that creates it. Call this once for each
    /// tag. An existing secret keeps its tags.
    ///
    /// A tag that AWS would refuse is refused when the store is built.
    pub fn tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.tags.add(key, value);
        self
    }

    /// Sets the description that each new secret gets, of at most 2,048 characters. It can be read
    /// without a permission on the KMS key, so it must not contain personal data.
    ///
    /// A longer description is refused when the store is built.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.description = Some(description.into());
        self
    }

    /// Replicates each new secret to this region, where it is encrypted under this KMS key: a key
    /// id, `alias/...` such as `alias/aws/secretsmanager`, or an ARN of that region. Call this once
    /// for each region. An existing secret keeps its replicas.
    ///
    /// AWS replicates after it has answered, and replication can fail, for example because that
    /// region already has a secret of this name. Keys are read and written in the store's own region
    /// only. A delete first removes all replicas that the secret has at that time, which takes one
    /// more call.
    ///
    /// A region or a KMS key that is not valid, a KMS key of another region, and a region that is
    /// given twice are refused when the store is built.
    pub fn replica_region(mut self, region: impl Into<String>, aws_kms_key: impl Into<String>) -> Self {
        self.replicas.push(Replica { region: region.into(), kms_key: aws_kms_key.into() });
        self
    }

    /// Checks what the setters have stored.
    pub(crate) fn check(&self) -> Result<(), InvalidSecretsManagerConfig> {
        use InvalidSecretsManagerConfig::{Description, ReplicaRepeated, Tag, Window};
        if self.window_days.is_some_and(|days| !WINDOWS.contains(&days)) {
            return Err(Window);
        }
        self.tags.check().map_err(Tag)?;
        if self.description.as_ref().is_some_and(|text| text.chars().count() > LONGEST_DESCRIPTION) {
            return Err(Description);
        }
        let mut regions = HashSet::new();
        for replica in &self.replicas {
            replica.check()?;
            if !regions.insert(&replica.region) {
                return Err(ReplicaRepeated);
            }
        }
        Ok(())
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

/// The reason why a [`SecretsManagerConfig`] is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidSecretsManagerConfig {
    /// The KMS key is not a key id, an ARN or an alias: it is empty, has more than 256 characters,
    /// or contains a character that none of them has.
    #[error("the KMS key is not a key id, an ARN or an alias: set one such as alias/app")]
    KmsKey,
    /// The path is not a [`NameTemplate`].
    #[error("user_keys_path is not valid: {0}")]
    Path(InvalidNameTemplate),
    /// The path is an ARN.
    #[error(
        "an ARN cannot be a path, because AWS ends each secret's ARN with random characters: to use another account, \
         assume a role in it, and give the path alone, as /app/user-keys/%s"
    )]
    Arn,
    /// The name of the longest id would have more than 512 characters.
    #[error("the name of the longest id would have more than 512 characters: shorten user_keys_path")]
    TooLong,
    /// The recovery window is shorter than 7 days or longer than 30.
    #[error("the recovery window is not 7 to 30 days: set one within this range, or none")]
    Window,
    /// AWS would refuse a tag.
    #[error("{0}")]
    Tag(InvalidTag),
    /// The description has more than 2,048 characters.
    #[error("the description of a secret has more than 2048 characters: shorten it")]
    Description,
    /// The region of a replica is not the code of a region.
    #[error("a replica's region is not the code of a region: set one such as eu-west-1")]
    ReplicaRegion,
    /// The KMS key of a replica is not a key id, an alias or an ARN, or is an ARN of another region.
    #[error(
        "a replica's KMS key is not a key id, an alias or an ARN of its region: set one such as alias/app, or \
         alias/aws/secretsmanager"
    )]
    ReplicaKmsKey,
    /// Two replicas are in the same region.
    #[error("two replicas are in the same region: set each region once")]
    ReplicaRepeated,
}

#[cfg(test)]
mod tests {
    use keystead_core::{ErrorKind, Operation};

    use super::*;
    use crate::store::SecretsManagerStore;

    #[test]
    fn the_longest_name_of_an_accepted_path_fits() {
        let fits = format!("/{}/%s", "a".repeat(LONGEST_NAME - 386 - 2));
        assert_eq!(SecretsManagerConfig::new("k", &fits).unwrap().names().max_name_len(), LONGEST_NAME);
        let longer = fits.replace("/%s", "a/%s");
        assert_eq!(SecretsManagerConfig::new("k", &longer), Err(InvalidSecretsManagerConfig::TooLong));
    }

    #[test]
    fn invalid_values_are_refused() {
        assert_eq!(SecretsManagerConfig::new("", "/app/%s"), Err(InvalidSecretsManagerConfig::KmsKey));
        let no_placeholder = InvalidSecretsManagerConfig::Path(InvalidNameTemplate::NoPlaceholder);
        assert_eq!(SecretsManagerConfig::new("k", "/app/keys"), Err(no_placeholder));
        let config = SecretsManagerConfig::new("k", "/app/%s").unwrap();
        for days in [0, 6, 31] {
            let refusal = config.clone().recovery_window(days).check();
            assert_eq!(refusal, Err(InvalidSecretsManagerConfig::Window), "{days}");
        }
        let shortest = config.recovery_window(7);
        assert_eq!((shortest.check(), shortest.window()), (Ok(()), Some(7 * DAY)));
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
    fn the_settings_of_new_secrets_are_checked() {
        let config = SecretsManagerConfig::new("k", "/app/%s").unwrap();
        let refusal = config.clone().tag("", "x").check();
        assert_eq!(refusal, Err(InvalidSecretsManagerConfig::Tag(InvalidTag::Key)));
        assert_eq!(config.clone().description("d".repeat(2048)).check(), Ok(()));
        let refusal = config.clone().description("d".repeat(2049)).check();
        assert_eq!(refusal, Err(InvalidSecretsManagerConfig::Description));
        let replicated = config.replica_region("eu-west-1", "alias/app");
        assert_eq!(replicated.check(), Ok(()));
        let refusal = replicated.replica_region("eu-west-1", "alias/other").check();
        assert_eq!(refusal, Err(InvalidSecretsManagerConfig::ReplicaRepeated));
    }

    #[test]
    fn a_store_with_a_refused_configuration_is_not_built() {
        let config = SecretsManagerConfig::new("k", "/app/%s").unwrap().recovery_window(31);
        let error = SecretsManagerStore::builder(config).build().unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open));
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref());
        assert_eq!(cause, Some(&InvalidSecretsManagerConfig::Window));
    }
}

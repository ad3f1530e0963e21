//! [`SecretsManagerConfig`]: the KMS key, the names, and whether deletions can be undone.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use keystead_aws::is_kms_key;
use keystead_core::{InvalidNameTemplate, NameTemplate};

/// The longest name of a secret, in characters (`CreateSecret`, `Name`).
const LONGEST_NAME: usize = 512;

/// `ListSecrets` may lag by so much.
const LISTING_BOUND: Duration = Duration::from_secs(300);

/// The recovery windows that Secrets Manager has, in days (`DeleteSecret`, `RecoveryWindowInDays`).
const WINDOWS: std::ops::RangeInclusive<u16> = 7..=30;

const DAY: Duration = Duration::from_secs(86_400);

/// The longest time for which Secrets Manager keeps a secret that is scheduled for deletion.
pub(crate) const LONGEST_WINDOW: Duration = Duration::from_secs(*WINDOWS.end() as u64 * DAY.as_secs());

/// Which KMS key encrypts, what secrets are called, and whether deletions can be undone. Checked when it is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretsManagerConfig {
    kms_key: String,
    names: NameTemplate,
    window_days: Option<u16>,
    listing_bound: Duration,
}

impl SecretsManagerConfig {
    /// `aws_kms_key` is a key id, a key's ARN, or `alias/...`, as `alias/aws/secretsmanager`. `user_keys_path` has one `%s`
    /// where the id goes, as `/app/user-keys/%s`; the name of the longest id must not exceed 512 characters.
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
        let names = NameTemplate::new(user_keys_path.as_ref()).map_err(InvalidSecretsManagerConfig::Path)?;
        if names.max_name_len() > LONGEST_NAME {
            return Err(InvalidSecretsManagerConfig::TooLong);
        }
        Ok(Self { kms_key, names, window_days: None, listing_bound: LISTING_BOUND })
    }

    /// Lets an operator restore a deleted key for so many days, 7 to 30. Without this call a delete is forced: the key is gone.
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

    /// How long a write may take until a listing shows it; 5 minutes, which is what AWS says, if it is not called.
    pub fn listing_bound(mut self, bound: Duration) -> Self {
        self.listing_bound = bound;
        self
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

/// Why a [`SecretsManagerConfig`] cannot be built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidSecretsManagerConfig {
    /// The KMS key is empty, longer than 256 characters, or holds one that no key id, ARN or alias does.
    KmsKey,
    /// The path is no template of names.
    Path(InvalidNameTemplate),
    /// The name of the longest id would have more than 512 characters.
    TooLong,
    /// The recovery window is not of 7 to 30 days.
    Window,
}

impl fmt::Display for InvalidSecretsManagerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KmsKey => f.write_str("the KMS key is no key id, ARN or alias: give one such as alias/app"),
            Self::Path(e) => write!(f, "user_keys_path will not do: {e}"),
            Self::TooLong => {
                f.write_str("the longest id would get a name of more than 512 characters: shorten user_keys_path")
            }
            Self::Window => f.write_str("a recovery window has 7 to 30 days: give one of these, or none"),
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
}

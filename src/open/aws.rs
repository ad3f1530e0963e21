//! The contents of an `ssm:` or `secretsmanager:` URL: names, KMS key, and the way to reach AWS.
//!
//! Credentials come from the SDK's default chains or from a profile, never from the URL.

mod location;

use percent_encoding::percent_decode_str;

pub(super) use self::location::Location;
use super::creation::Creation;
use super::url::StoreUrl;
use crate::BoxError;

/// The settings that both AWS backends take from a URL.
pub(super) struct Settings<'a> {
    kms_key: String,
    path: String,
    /// The value of the one parameter that is the backend's own.
    own: Option<&'a str>,
    creation: Creation,
    pub(super) location: Location,
}

impl<'a> Settings<'a> {
    /// Takes a URL with this parameter besides `kms_key` and those of a [`Location`].
    pub(super) fn of(url: StoreUrl<'a>, own_name: &str) -> Result<Self, BoxError> {
        // %s is where the id goes; who encodes a URL by the book writes it as %25s.
        let path = url.path.replace("%25s", "%s");
        let mut kms_key = None;
        let mut own = None;
        let mut creation = Creation::default();
        let mut location = Location::default();
        let is_ssm = own_name == "tier";
        for (name, value) in url.parameters {
            match name {
                "kms_key" => kms_key = Some(decoded(value)?),
                _ if name == own_name => own = Some(value),
                _ if creation.take(name, value, is_ssm)? => {}
                _ if location.take(name, value)? => {}
                _ => {
                    let more = if is_ssm { "legacy" } else { "replica_region.REGION" };
                    let taken = format!(
                        "such a URL takes kms_key, {own_name}, tag.KEY, description, {more}, {}",
                        location::NAMES
                    );
                    return Err(format!("unknown parameter: {taken}; credentials come from the SDK's chains").into());
                }
            }
        }
        let kms_key = kms_key.or(creation.is_legacy.then(String::new));
        let kms_key = kms_key.ok_or("the parameter kms_key is missing: give a key id, an ARN or alias/...")?;
        Ok(Self { kms_key, path, own, creation, location })
    }

    #[cfg(feature = "ssm")]
    pub(super) fn ssm(&self) -> Result<keystead_ssm::SsmConfig, BoxError> {
        let config = match self.creation.is_legacy {
            true => keystead_ssm::SsmConfig::legacy(&self.path)?,
            false => keystead_ssm::SsmConfig::new(self.kms_key.as_str(), &self.path)?,
        };
        let config = self.creation.of_parameters(config);
        Ok(match self.own {
            Some(tier) => config.tier(tier.parse()?),
            None => config,
        })
    }

    #[cfg(feature = "secretsmanager")]
    pub(super) fn secretsmanager(&self) -> Result<keystead_secretsmanager::SecretsManagerConfig, BoxError> {
        let config = keystead_secretsmanager::SecretsManagerConfig::new(self.kms_key.as_str(), &self.path)?;
        let config = self.creation.of_secrets(config);
        Ok(match self.own {
            Some(days) => {
                config.recovery_window(days.parse().map_err(|_| "recovery_window_days is no number: give 7 to 30")?)
            }
            None => config,
        })
    }
}

pub(super) fn decoded(value: &str) -> Result<String, BoxError> {
    let text = percent_decode_str(value).decode_utf8();
    Ok(text.map_err(|_| "a parameter's value is not UTF-8: mend the %XX in it")?.into_owned())
}

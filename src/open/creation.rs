//! [`Creation`]: what an `ssm:` or `secretsmanager:` URL says of the parameters or secrets that are
//! created, and whether any are.

use super::aws::decoded;
use crate::BoxError;

/// The prefix of a parameter that sets a tag: `tag.KEY=VALUE`.
const TAG: &str = "tag.";

/// The prefix of a parameter that names a replica: `replica_region.REGION=KMS_KEY`.
const REPLICA: &str = "replica_region.";

/// The settings that are sent only when something is created.
#[derive(Default)]
pub(super) struct Creation {
    tags: Vec<(String, String)>,
    description: Option<String>,
    replicas: Vec<(String, String)>,
    /// True if the store only reads, so that it needs no KMS key.
    pub(super) is_legacy: bool,
}

impl Creation {
    /// Takes a parameter of the URL, and returns whether it is one of these. Replicas are known to
    /// Secrets Manager only, and legacy paths to Parameter Store only.
    pub(super) fn take(&mut self, name: &str, value: &str, is_ssm: bool) -> Result<bool, BoxError> {
        if let Some(key) = name.strip_prefix(TAG) {
            self.tags.push((decoded(key)?, decoded(value)?));
        } else if name == "description" {
            self.description = Some(decoded(value)?);
        } else if let (Some(region), false) = (name.strip_prefix(REPLICA), is_ssm) {
            self.replicas.push((decoded(region)?, decoded(value)?));
        } else if name == "legacy" && is_ssm {
            self.is_legacy = match value {
                "true" => true,
                "false" => false,
                _ => return Err("legacy is neither true nor false: give one of these".into()),
            };
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    #[cfg(feature = "ssm")]
    pub(super) fn of_parameters(&self, mut config: keystead_ssm::SsmConfig) -> keystead_ssm::SsmConfig {
        for (key, value) in &self.tags {
            config = config.tag(key, value);
        }
        match &self.description {
            Some(description) => config.description(description),
            None => config,
        }
    }

    #[cfg(feature = "secretsmanager")]
    pub(super) fn of_secrets(
        &self,
        mut config: keystead_secretsmanager::SecretsManagerConfig,
    ) -> keystead_secretsmanager::SecretsManagerConfig {
        for (key, value) in &self.tags {
            config = config.tag(key, value);
        }
        for (region, kms_key) in &self.replicas {
            config = config.replica_region(region, kms_key);
        }
        match &self.description {
            Some(description) => config.description(description),
            None => config,
        }
    }
}

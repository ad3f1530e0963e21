//! [`Creation`]: the settings of an `ssm:` or `secretsmanager:` URL for the entries that the store
//! creates.

use super::aws::{Service, decoded};
use crate::BoxError;

/// The prefix of a parameter that sets a tag: `tag.KEY=VALUE`.
const TAG: &str = "tag.";

/// The prefix of a parameter that names a replica: `replica_region.REGION=KMS_KEY`.
const REPLICA: &str = "replica_region.";

/// The settings that are sent only when an entry is created.
#[derive(Clone, Default)]
pub(super) struct Creation {
    tags: Vec<(String, String)>,
    description: Option<String>,
    replicas: Vec<(String, String)>,
    /// True if the store is read-only, so that it creates nothing and needs no KMS key.
    pub(super) is_legacy: bool,
}

impl Creation {
    /// Takes a parameter of the URL. Returns false if it is not one of these. Only Secrets Manager
    /// has replicas, and only Parameter Store has legacy paths.
    pub(super) fn take(&mut self, name: &str, value: &str, service: Service) -> Result<bool, BoxError> {
        if let Some(key) = name.strip_prefix(TAG) {
            self.tags.push((decoded(key)?, decoded(value)?));
        } else if name == "description" {
            self.description = Some(decoded(value)?);
        } else if let Some(region) = name.strip_prefix(REPLICA)
            && service == Service::SecretsManager
        {
            self.replicas.push((decoded(region)?, decoded(value)?));
        } else if name == "legacy" && service == Service::Ssm {
            self.is_legacy = match value {
                "true" => true,
                "false" => false,
                _ => return Err("legacy is neither true nor false; give one of these".into()),
            };
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Adds these settings to the configuration of a Parameter Store.
    #[cfg(feature = "ssm")]
    pub(super) fn apply_to_parameters(&self, mut config: keystead_ssm::SsmConfig) -> keystead_ssm::SsmConfig {
        for (key, value) in &self.tags {
            config = config.tag(key, value);
        }
        match &self.description {
            Some(description) => config.description(description),
            None => config,
        }
    }

    /// Adds these settings to the configuration of a Secrets Manager.
    #[cfg(feature = "secretsmanager")]
    pub(super) fn apply_to_secrets(
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

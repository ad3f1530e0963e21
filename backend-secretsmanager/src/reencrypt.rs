//! [`Reencrypt`] for Secrets Manager: `UpdateSecret` with another KMS key, which writes no value.

use std::time::Duration;

use keystead_aws::{Page, Reencrypt, Reencryption, is_same_kms_key, listing};
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result, async_trait};
use tokio::time::{Instant, sleep};

use crate::config::SecretsManagerConfig;
use crate::description::{SecretDescription, refine_error};
use crate::error::{SCHEME, SERVICE, kind};
use crate::store::SecretsManagerStore;

/// The number of keys a second: each is one write and three reads, far below the default quotas.
const RATE: f64 = 10.0;

/// The KMS key of a secret that names none.
const DEFAULT_KEY: &str = "alias/aws/secretsmanager";

/// The pause between two looks at a secret that does not show its new KMS key yet.
const PAUSE: Duration = Duration::from_millis(200);

const NOT_SHOWN: &str = "the secret was given the KMS key, but does not show it yet: run this again";

#[async_trait]
impl Reencrypt for SecretsManagerStore {
    /// No value is written, so nothing that others write or delete can be lost or come back.
    fn needs_exclusive(&self) -> bool {
        false
    }

    fn default_rate(&self) -> f64 {
        RATE
    }

    /// Needs `secretsmanager:ListSecrets`. May lag by five minutes.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>> {
        listing(SERVICE, |token| Box::pin(current_page(self, token)))
    }

    /// Needs `secretsmanager:UpdateSecret` and the rights of a get, with both KMS keys; without
    /// `kms:Encrypt` with the new one AWS encrypts only later versions under it.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption> {
        let name = self.name(id);
        let sensitive = [id.as_str(), &name];
        let call = self.identity.call();
        let update = || {
            let request = self.client.update_secret().secret_id(&name).kms_key_id(self.config.kms_key());
            call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
        };
        match self.writes.run(SERVICE, update).await {
            Ok(_) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Reencryption::Gone),
            Err(e) => {
                let e = refine_error(self, &name, e, Operation::Check).await;
                return match e.kind() {
                    // Somebody else has deleted it.
                    ErrorKind::PendingDeletion => Ok(Reencryption::Gone),
                    _ => Err(e.during(Operation::Put, &sensitive)),
                };
            }
        }
        let start = Instant::now();
        loop {
            match SecretDescription::of(self, &name).await {
                Ok(secret) if has_key(&self.config, secret.kms_key.as_deref(), secret.arn.as_deref()) => break,
                Ok(_) if start.elapsed() < self.visibility_bound => {}
                Ok(_) => {
                    let e = Error::new(ErrorKind::Conflict, Operation::Put, SCHEME).with_source(NOT_SHOWN);
                    return Err(e.with_effect(Effect::Unknown));
                }
                Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Reencryption::Gone),
                Err(e) => return Err(e.partly_applied().during(Operation::Put, &sensitive)),
            }
            sleep(PAUSE.min(self.visibility_bound)).await;
        }
        match self.get_key(id).await {
            Ok(_) => Ok(Reencryption::Done),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => Ok(Reencryption::Gone),
            Err(e) => Err(e.with_effect(Effect::Unknown)),
        }
    }
}

/// Returns the ids on one page of the listing, each with whether it is current.
async fn current_page(store: &SecretsManagerStore, token: Option<String>) -> Result<Page<(KeyId, bool)>> {
    let secrets = store.secrets(token).await?;
    Ok(secrets.filter_map(|secret| {
        let id = store.config.names().id(secret.name()?)?;
        Some((id, has_key(&store.config, secret.kms_key_id(), secret.arn())))
    }))
}

/// Reports whether a secret that shows this KMS key has the one of the configuration.
fn has_key(config: &SecretsManagerConfig, shown: Option<&str>, arn: Option<&str>) -> bool {
    is_same_kms_key(shown.unwrap_or(DEFAULT_KEY), config.kms_key(), arn)
}

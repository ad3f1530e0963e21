//! [`Reencrypt`] for Secrets Manager: `UpdateSecret` with another KMS key. No value is written.

use std::time::Duration;

use aws_sdk_secretsmanager::types::SecretVersionsListEntry;
use keystead_aws::{AwsFailure, Page, Reencrypt, Reencryption, eventual, is_same_kms_key, listing};
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, Operation, Result, async_trait};
use tokio::time::{Instant, sleep};

use crate::config::SecretsManagerConfig;
use crate::description::{SecretDescription, refine_error};
use crate::error::{SCHEME, SERVICE, kind};
use crate::store::SecretsManagerStore;

/// The number of keys per second. Each key is one write and four reads, far below the default
/// quotas.
const RATE: f64 = 10.0;

/// The KMS key of a secret whose description shows none.
const DEFAULT_KEY: &str = "alias/aws/secretsmanager";

/// The pause between two reads of a secret that does not show its new KMS key yet.
const PAUSE: Duration = Duration::from_millis(200);

/// The name of the default KMS key in the `KmsKeyIds` of a version.
const DEFAULT_KEY_OF_VERSION: &str = "DefaultEncryptionKey";

/// The labels of the versions that AWS re-encrypts (`UpdateSecret`, `KmsKeyId`).
const LABELS: [&str; 3] = ["AWSCURRENT", "AWSPREVIOUS", "AWSPENDING"];

/// The largest number of versions on a page (`ListSecretVersionIds`, `MaxResults`).
const PAGE: i32 = 100;

/// The largest number of pages that are read, which is more than a secret has.
const MAX_PAGES: usize = 10;

const NOT_ENCRYPTED: &str = "the secret has the KMS key, but not all of its versions are encrypted under it: keep the \
                             old KMS key, allow kms:Encrypt and kms:GenerateDataKey on the new one and kms:Decrypt on \
                             the old one, and run this again";

const NOT_COMPARABLE: &str = "the secret has the KMS key, but its versions show a key id where the configuration has \
                              an alias, so nothing is proved: keep the old KMS key, set the new one in the \
                              configuration by the ARN of the key, and run this again";

const NOT_TOLD: &str = "the secret has the KMS key, but Secrets Manager does not show under which one its versions \
                        are encrypted, so nothing is proved: keep the old KMS key, and run this again";

const NOT_SHOWN: &str = "the secret was given the KMS key, but does not show it yet: keep the old KMS key, and run \
                         this again";

#[async_trait]
impl Reencrypt for SecretsManagerStore {
    /// No value is written, so no write or delete by somebody else can be undone.
    fn needs_exclusive(&self) -> bool {
        false
    }

    fn default_rate(&self) -> f64 {
        RATE
    }

    /// Lists the secrets. It needs `secretsmanager:ListSecrets`, and may lag by five minutes. Each
    /// secret that shows the KMS key costs a call of `ListSecretVersionIds`, because it is done
    /// only if its versions are encrypted under that key.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>> {
        listing(SERVICE, |token| Box::pin(current_page(self, token)))
    }

    /// Re-encrypts one key. It needs `secretsmanager:UpdateSecret`,
    /// `secretsmanager:ListSecretVersionIds` and the permissions of a get, with both KMS keys.
    /// Without `kms:Encrypt` on the new KMS key, AWS uses it only for later versions and does not
    /// say so; that is `PermissionDenied` here.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption> {
        let name = self.name(id);
        let sensitive = [id.as_str(), &name];
        match update(self, &name).await {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Reencryption::Gone),
            Err(e) => {
                let e = refine_error(self, &name, e, Operation::Check).await;
                return match e.kind() {
                    // Somebody else has scheduled its deletion.
                    ErrorKind::PendingDeletion => Ok(Reencryption::Gone),
                    _ => Err(e.during(Operation::Put, &sensitive)),
                };
            }
        }
        let start = Instant::now();
        loop {
            let is_last = start.elapsed() >= self.visibility_bound;
            match proof(self, &name).await {
                Ok(Proof::Encrypted) => break,
                Ok(lacking) if is_last => return Err(lacking.error()),
                Err(e) if e.kind() == ErrorKind::NotFound && is_last => return Ok(Reencryption::Gone),
                Err(e) if e.kind() != ErrorKind::NotFound => {
                    return Err(e.partly_applied().during(Operation::Put, &sensitive));
                }
                _ => sleep(PAUSE.min(self.visibility_bound)).await,
            }
        }
        match eventual::visible_within(self, id, self.visibility_bound).await {
            Ok(Some(_)) => Ok(Reencryption::Done),
            Ok(None) => Ok(Reencryption::Gone),
            Err(e) if e.kind() == ErrorKind::PendingDeletion => Ok(Reencryption::Gone),
            Err(e) => Err(e.with_effect(Effect::Unknown)),
        }
    }
}

/// Sets the KMS key of a secret. If the secret is not visible yet, tries again until the visibility
/// bound is over.
async fn update(store: &SecretsManagerStore, name: &str) -> Result<(), AwsFailure> {
    let call = store.identity.call();
    let update = || {
        let request = store.client.update_secret().secret_id(name).kms_key_id(store.config.kms_key());
        call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send())
    };
    let start = Instant::now();
    loop {
        let is_last = start.elapsed() >= store.visibility_bound;
        match store.writes.run(SERVICE, update).await {
            Ok(_) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound && !is_last => {}
            Err(e) => return Err(e),
        }
        sleep(PAUSE.min(store.visibility_bound)).await;
    }
}

/// The evidence that a secret is encrypted under the KMS key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// The secret shows the KMS key, and each version with one of the labels is encrypted under it.
    Encrypted,
    /// The secret does not show the KMS key.
    NotShown,
    /// A version with one of the labels is encrypted under another KMS key.
    NotEncrypted,
    /// A version with one of the labels shows the id of a KMS key where the configuration has an
    /// alias.
    NotComparable,
    /// A version with one of the labels shows no KMS key, or no version has one of the labels.
    NotTold,
}

impl Proof {
    /// Returns the error for a key for which the evidence is lacking.
    fn error(self) -> Error {
        let (kind, text) = match self {
            Self::NotEncrypted => (ErrorKind::PermissionDenied, NOT_ENCRYPTED),
            Self::NotComparable => (ErrorKind::Config, NOT_COMPARABLE),
            Self::NotTold => (ErrorKind::Conflict, NOT_TOLD),
            Self::NotShown | Self::Encrypted => (ErrorKind::Conflict, NOT_SHOWN),
        };
        Error::new(kind, Operation::Put, SCHEME).with_effect(Effect::Unknown).with_source(text)
    }
}

/// Checks a secret and its versions.
async fn proof(store: &SecretsManagerStore, name: &str) -> Result<Proof, AwsFailure> {
    let secret = SecretDescription::of(store, name).await?;
    if !has_key(&store.config, secret.kms_key.as_deref(), secret.arn.as_deref()) {
        return Ok(Proof::NotShown);
    }
    proof_of_versions(store, name, secret.arn.as_deref()).await
}

/// Checks the versions of a secret that shows the KMS key. `arn` is the ARN of the secret.
async fn proof_of_versions(store: &SecretsManagerStore, name: &str, arn: Option<&str>) -> Result<Proof, AwsFailure> {
    let mut token = None;
    let mut is_any_told = false;
    for _ in 0..MAX_PAGES {
        let call = store.identity.call();
        let request = store.client.list_secret_version_ids().secret_id(name).max_results(PAGE);
        let request = request.set_next_token(token).customize().interceptor(call.attempts());
        let answer = call.run(SERVICE, kind, request.send()).await?;
        for version in answer.versions().iter().filter(|version| is_labelled(version)) {
            match proof_of_version(&store.config, version, arn) {
                Proof::Encrypted => is_any_told = true,
                lacking => return Ok(lacking),
            }
        }
        token = answer.next_token.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(if is_any_told { Proof::Encrypted } else { Proof::NotTold });
        }
    }
    Ok(Proof::NotTold)
}

/// Reports whether AWS re-encrypts this version.
fn is_labelled(version: &SecretVersionsListEntry) -> bool {
    version.version_stages().iter().any(|label| LABELS.contains(&label.as_str()))
}

/// Checks that a version is encrypted under the configured KMS key and under no other one.
fn proof_of_version(config: &SecretsManagerConfig, version: &SecretVersionsListEntry, arn: Option<&str>) -> Proof {
    let configured = config.kms_key();
    let is_alias = |key: &str| key.starts_with("alias/") || key.contains(":alias/");
    for key in version.kms_key_ids() {
        let key = if key == DEFAULT_KEY_OF_VERSION { DEFAULT_KEY } else { key };
        if !is_same_kms_key(key, configured, arn) {
            // A version that was re-encrypted under a configured key id does not show an alias.
            let is_comparable = is_alias(key) || !is_alias(configured);
            return if is_comparable { Proof::NotEncrypted } else { Proof::NotComparable };
        }
    }
    if version.kms_key_ids().is_empty() { Proof::NotTold } else { Proof::Encrypted }
}

/// Returns the ids on one page of the listing, each with whether its key is done.
async fn current_page(store: &SecretsManagerStore, token: Option<String>) -> Result<Page<(KeyId, bool)>> {
    let Page { entries: secrets, next, request_id } = store.secrets(token).await?;
    let mut entries = Vec::new();
    for secret in secrets {
        let Some(name) = secret.name() else { continue };
        let Some(id) = store.config.names().id(name) else { continue };
        let is_shown = has_key(&store.config, secret.kms_key_id(), secret.arn());
        // If this cannot be proved, re-encrypting the key will tell why.
        let is_current = is_shown && matches!(proof_of_versions(store, name, secret.arn()).await, Ok(Proof::Encrypted));
        entries.push((id, is_current));
    }
    Ok(Page { entries, next, request_id })
}

/// Reports whether a secret that shows this KMS key has the configured one.
fn has_key(config: &SecretsManagerConfig, shown: Option<&str>, arn: Option<&str>) -> bool {
    is_same_kms_key(shown.unwrap_or(DEFAULT_KEY), config.kms_key(), arn)
}

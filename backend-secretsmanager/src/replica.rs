//! Replicas of secrets in other regions. They are named when a secret is created, and removed
//! before it is deleted.

use std::time::Duration;

use aws_sdk_secretsmanager::types::ReplicaRegionType;
use keystead_aws::{AwsFailure, AwsStore, is_kms_key, kms_key_region};
use keystead_core::{Effect, Error, ErrorKind, Operation, Result};
use tokio::time::{Instant, sleep};

use crate::config::InvalidSecretsManagerConfig;
use crate::description::SecretDescription;
use crate::error::{SCHEME, SERVICE, kind};
use crate::store::SecretsManagerStore;

/// The longest code of a region, in characters (`ReplicaRegionType`, `Region`).
const LONGEST_REGION: usize = 128;

/// The pause between two reads of a secret whose replicas are being removed.
const PAUSE: Duration = Duration::from_millis(200);

const NOT_REMOVED: &str = "the secret's replicas in other regions could not be removed, so the key was not deleted, \
                           although some replicas may be gone: delete again";

const STILL_THERE: &str = "the secret still has replicas in other regions, and the key was not deleted: delete again \
                           after the pause";

/// The refusal to delete a replicated secret with a store that has no replica regions.
const KEPT: &str = "the secret has replicas in other regions, which keep the key: set the store's replica regions so \
                    that it removes them, or remove them first";

/// The refusal to delete a replica with a store in the replica's region.
const IS_REPLICA: &str = "the secret is a replica of one in another region: delete it with a store of that region";

/// A region in which a new secret gets a replica, and the KMS key that encrypts it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) region: String,
    pub(crate) kms_key: String,
}

impl Replica {
    /// Checks the region and the KMS key. The ARN of a KMS key must be in the replica's region.
    pub(crate) fn check(&self) -> std::result::Result<(), InvalidSecretsManagerConfig> {
        if !is_region(&self.region) {
            return Err(InvalidSecretsManagerConfig::ReplicaRegion);
        }
        let is_in_region = kms_key_region(&self.kms_key).is_none_or(|of_key| of_key == self.region);
        match is_kms_key(&self.kms_key) && is_in_region {
            true => Ok(()),
            false => Err(InvalidSecretsManagerConfig::ReplicaKmsKey),
        }
    }
}

/// Reports whether this has the form of a region's code: words of lower-case letters and a number,
/// joined by hyphens.
fn is_region(text: &str) -> bool {
    let Some((words, number)) = text.rsplit_once('-') else { return false };
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    text.len() <= LONGEST_REGION && words.split('-').all(is_word) && is_number
}

/// Converts the replicas for the SDK; `None` if there are none.
pub(crate) fn to_sdk(replicas: &[Replica]) -> Option<Vec<ReplicaRegionType>> {
    let to_sdk =
        |replica: &Replica| ReplicaRegionType::builder().region(&replica.region).kms_key_id(&replica.kms_key).build();
    (!replicas.is_empty()).then(|| replicas.iter().map(to_sdk).collect())
}

/// Removes the replicas of a secret that is to be deleted, and returns whether there were any.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported), before any effect, if the secret is itself a replica,
/// or if it has replicas and the store has no replica regions, because the store may then lack the
/// permission. Otherwise the error of the removal.
pub(crate) async fn remove_before_delete(
    store: &SecretsManagerStore,
    name: &str,
    description: SecretDescription,
    failed: impl Fn(AwsFailure) -> Error,
) -> Result<bool> {
    let details = SERVICE.details_of_answer(description.request_id.as_deref());
    let unsupported = |text: &'static str| {
        Error::new(ErrorKind::Unsupported, Operation::Delete, SCHEME).with_details(details.clone()).with_source(text)
    };
    let own_region = SecretsManagerStore::region_of(&store.client);
    if description.primary_region.is_some_and(|primary| own_region.is_some_and(|own| own != primary)) {
        return Err(unsupported(IS_REPLICA));
    }
    if description.replica_regions.is_empty() {
        return Ok(false);
    }
    if store.config.replicas().is_empty() {
        return Err(unsupported(KEPT));
    }
    remove(store, name, description.replica_regions, failed).await?;
    Ok(true)
}

/// Removes the replicas in these regions and waits, for at most the visibility bound, until the
/// secret has none. Removed replicas are deleted at once, even if the secret itself can be
/// restored.
async fn remove(
    store: &SecretsManagerStore,
    name: &str,
    regions: Vec<String>,
    failed: impl Fn(AwsFailure) -> Error,
) -> Result<()> {
    let call = store.identity.call();
    let request = store.client.remove_regions_from_replication().secret_id(name);
    let request = request.set_remove_replica_regions(Some(regions));
    let answer = match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
        Ok(answer) => answer,
        Err(e) => {
            let kind = e.kind();
            return Err(failed(e.with_kind(kind, NOT_REMOVED)));
        }
    };
    let mut is_replicated = !answer.replication_status().is_empty();
    let start = Instant::now();
    while is_replicated {
        if start.elapsed() >= store.visibility_bound {
            return Err(Error::new(ErrorKind::Conflict, Operation::Delete, SCHEME)
                .with_effect(Effect::Unknown)
                .with_retry_after(store.visibility_bound)
                .with_source(STILL_THERE));
        }
        sleep(PAUSE.min(store.visibility_bound)).await;
        let description = SecretDescription::of(store, name).await.map_err(|e| failed(e.partly_applied()))?;
        is_replicated = !description.replica_regions.is_empty();
    }
    Ok(())
}

/// Explains why a delete with valid parameters was refused: the secret has replicas that its
/// description did not show, or is itself a replica.
pub(crate) fn explain_refusal(e: AwsFailure, store: &SecretsManagerStore) -> AwsFailure {
    match store.config.replicas().is_empty() {
        true => e.with_kind(ErrorKind::Unsupported, KEPT),
        false => e.with_kind(ErrorKind::Conflict, STILL_THERE).with_retry_after(store.visibility_bound),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_checked_against_awss_limits() {
        use InvalidSecretsManagerConfig::{ReplicaKmsKey, ReplicaRegion};
        let arn = "arn:aws:kms:eu-west-1:999999999999:key/mrk-1";
        for (region, key, expected) in [
            ("eu-west-1", "alias/app", Ok(())),
            ("us-gov-west-1", "alias/aws/secretsmanager", Ok(())),
            ("eu-west-1", arn, Ok(())),
            ("us-east-2", arn, Err(ReplicaKmsKey)),
            ("eu-west-1", "", Err(ReplicaKmsKey)),
            ("eu-west-1", "alias/a b", Err(ReplicaKmsKey)),
            ("", "alias/app", Err(ReplicaRegion)),
            ("eu-west", "alias/app", Err(ReplicaRegion)),
            ("EU-west-1", "alias/app", Err(ReplicaRegion)),
            ("eu--1", "alias/app", Err(ReplicaRegion)),
            ("-1", "alias/app", Err(ReplicaRegion)),
            ("eu-west-1,us-east-1", "alias/app", Err(ReplicaRegion)),
        ] {
            let replica = Replica { region: region.to_owned(), kms_key: key.to_owned() };
            assert_eq!(replica.check(), expected, "{region} {key}");
        }
    }
}

//! [`SecretDescription`]: a secret without its value, which explains why a call was refused.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::operation::RequestId;
use aws_sdk_secretsmanager::primitives::DateTime;
use keystead_aws::AwsFailure;
use keystead_core::{ErrorKind, Operation};

use crate::config::LONGEST_WINDOW;
use crate::error::{INVALID_REQUEST, SERVICE, kind};
use crate::store::SecretsManagerStore;

/// The pause after which to use a name again that is held back after a forced delete. AWS releases
/// it after seconds to minutes.
pub(crate) const RECREATE_PAUSE: Duration = Duration::from_secs(30);

/// The largest assumed difference between this host's clock and AWS's. AWS refuses requests whose
/// signing clock is off by more than five minutes.
const CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);

/// The staging label of the version that a read returns.
const CURRENT: &str = "AWSCURRENT";

const NOT_SCHEDULED: &str = "the secret is managed by another service or in another state in which this is refused, \
                             and its deletion is not scheduled: check its owning service and its status";

const NAME_HELD: &str = "the name is taken, but no secret is visible under it: it is being released after a forced \
                         delete, or was created a moment ago; try again after the pause";

const NO_VALUE: &str = "the secret exists without a value, or no version of it has the label AWSCURRENT: look at its \
                        versions, and move the label to the one that holds the key; only if no version has a value, \
                        put a key";

const SCHEDULED: &str = "the secret is scheduled for deletion: restore it, or wait until it is gone";

/// The answer of `DescribeSecret`.
pub(crate) struct SecretDescription {
    /// The time for which the secret can still be restored, if it is scheduled for deletion.
    pub(crate) remaining: Option<Duration>,
    /// The regions of its replicas.
    pub(crate) replica_regions: Vec<String>,
    /// The region of the primary secret, which may be this one's own; `None` if the secret was
    /// never replicated.
    pub(crate) primary_region: Option<String>,
    /// The request id of the answer, for errors.
    pub(crate) request_id: Option<String>,
    pub(crate) arn: Option<String>,
    /// The KMS key that encrypts the secret; `None` if it is the default key.
    pub(crate) kms_key: Option<String>,
    /// The staging labels of each version.
    versions: HashMap<String, Vec<String>>,
}

impl SecretDescription {
    pub(crate) async fn of(store: &SecretsManagerStore, name: &str) -> Result<Self, AwsFailure> {
        let call = store.identity.call();
        let request = store.client.describe_secret().secret_id(name);
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
        store.identity.learn_from_arn(answer.arn());
        Ok(Self {
            remaining: answer.deleted_date().map(remaining),
            replica_regions: answer.replication_status().iter().filter_map(|of| of.region.clone()).collect(),
            request_id: answer.request_id().map(str::to_owned),
            primary_region: answer.primary_region,
            arn: answer.arn,
            kms_key: answer.kms_key_id,
            versions: answer.version_ids_to_stages.unwrap_or_default(),
        })
    }

    /// Reports whether a version was written with this request token, which becomes its id.
    pub(crate) fn has_version(&self, token: &str) -> bool {
        self.versions.contains_key(token)
    }

    /// Reports whether there is a version that a read returns.
    pub(crate) fn has_value(&self) -> bool {
        self.versions.values().flatten().any(|label| label == CURRENT)
    }
}

/// Returns the time for which a secret with this deletion date can be restored. AWS's documents
/// disagree on whether the date is that of the deletion or of the request for it. If it is past, or
/// so near that the clocks may differ by as much, the longest window is assumed.
fn remaining(date: &DateTime) -> Duration {
    let until = moment(date).and_then(|until| until.duration_since(SystemTime::now()).ok());
    until.filter(|remaining| *remaining > CLOCK_SKEW).unwrap_or(LONGEST_WINDOW)
}

pub(crate) fn moment(date: &DateTime) -> Option<SystemTime> {
    SystemTime::try_from(*date).ok()
}

/// Explains the failure of a call that found the name taken, or no value. Returns `None` if the
/// secret exists, has a value, and is not scheduled for deletion.
fn explained(e: &AwsFailure, description: &SecretDescription) -> Option<AwsFailure> {
    match description.remaining {
        Some(remaining) => Some(e.clone().with_kind(ErrorKind::PendingDeletion, SCHEDULED).with_retry_after(remaining)),
        None if !description.has_value() => Some(e.clone().with_kind(ErrorKind::Corrupt, NO_VALUE)),
        None => None,
    }
}

/// Refines an `InvalidRequestException`, which has many causes. It means a pending deletion only if
/// the secret's description shows a deletion date. If the description cannot be read, the reason
/// for that is returned. Other failures are returned unchanged.
pub(crate) async fn refine_error(
    store: &SecretsManagerStore,
    name: &str,
    e: AwsFailure,
    operation: Operation,
) -> AwsFailure {
    if e.code() != Some(INVALID_REQUEST) {
        return e;
    }
    match SecretDescription::of(store, name).await {
        Ok(SecretDescription { remaining: Some(remaining), .. }) => {
            e.with_kind(ErrorKind::PendingDeletion, SCHEDULED).with_retry_after(remaining)
        }
        Ok(_) => e.with_kind(ErrorKind::Config, NOT_SCHEDULED),
        Err(look) if look.kind() == ErrorKind::NotFound && is_put(operation) => name_held(e),
        Err(look) => look.in_place_of(&e),
    }
}

fn is_put(operation: Operation) -> bool {
    matches!(operation, Operation::Put | Operation::Create)
}

fn name_held(e: AwsFailure) -> AwsFailure {
    e.with_kind(ErrorKind::Conflict, NAME_HELD).with_retry_after(RECREATE_PAUSE)
}

/// Refines a `ResourceExistsException`. The secret may be scheduled for deletion or have no value,
/// and the name may be held back after a forced delete. Returns `Ok` if an earlier attempt of the
/// same call created the secret, with this `token`.
pub(crate) async fn refine_exists(
    store: &SecretsManagerStore,
    name: &str,
    token: &str,
    e: AwsFailure,
) -> Result<(), AwsFailure> {
    match SecretDescription::of(store, name).await {
        Ok(description) if e.is_ambiguous() && description.has_version(token) => Ok(()),
        // Somebody else created the secret, so our create was never applied.
        Ok(description) => {
            let e = e.settled();
            Err(explained(&e, &description).unwrap_or(e))
        }
        Err(look) if look.kind() == ErrorKind::NotFound => Err(name_held(e)),
        Err(look) => Err(look.in_place_of(&e)),
    }
}

/// Refines a `ResourceNotFoundException`, which Secrets Manager also gives for a secret that exists
/// without a value. Returns `None` if the secret has a value, because it was created in the
/// meantime.
pub(crate) async fn refine_absence(store: &SecretsManagerStore, name: &str, e: AwsFailure) -> Option<AwsFailure> {
    match SecretDescription::of(store, name).await {
        Ok(description) => explained(&e, &description),
        Err(look) if look.kind() == ErrorKind::NotFound => Some(e),
        Err(look) => Some(look.in_place_of(&e)),
    }
}

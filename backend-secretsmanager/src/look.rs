//! A look at a secret without its value: whether it is there, scheduled for deletion, or replicated.

use std::time::{Duration, SystemTime};

use aws_sdk_secretsmanager::primitives::DateTime;
use keystead_aws::{Call, Failure};
use keystead_core::ErrorKind;

use crate::error::{SERVICE, kind};
use crate::store::SecretsManagerStore;

const NOT_SCHEDULED: &str =
    "the secret is in a state in which this is refused, and not because of a deletion: look at it";

/// What `DescribeSecret` says.
pub(crate) struct Look {
    /// Until when it can be restored, if it is scheduled for deletion.
    pub(crate) scheduled: Option<SystemTime>,
    pub(crate) has_replicas: bool,
    versions: Vec<String>,
}

impl Look {
    pub(crate) async fn at(store: &SecretsManagerStore, name: &str) -> Result<Self, Failure> {
        let call = Call::new();
        let request = store.client.describe_secret().secret_id(name);
        let answer = call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await?;
        Ok(Self {
            scheduled: answer.deleted_date().and_then(moment),
            has_replicas: !answer.replication_status().is_empty(),
            versions: answer.version_ids_to_stages.unwrap_or_default().into_keys().collect(),
        })
    }

    /// Whether a version was written with this request token, which becomes its id.
    pub(crate) fn has_version(&self, token: &str) -> bool {
        self.versions.iter().any(|version| version == token)
    }

    pub(crate) fn remaining(&self) -> Option<Duration> {
        Some(self.scheduled?.duration_since(SystemTime::now()).unwrap_or_default())
    }
}

/// `InvalidRequestException` is what Secrets Manager says of a scheduled secret, and of others: the secret itself tells.
pub(crate) async fn closer(store: &SecretsManagerStore, name: &str, e: Failure) -> Failure {
    if e.kind() != ErrorKind::PendingDeletion {
        return e;
    }
    match Look::at(store, name).await.map(|look| look.remaining()) {
        Ok(Some(remaining)) => e.with_retry_after(remaining),
        Ok(None) => e.with_kind(ErrorKind::Config, NOT_SCHEDULED),
        // Who may not look is told the cause that AWS documents.
        Err(_) => e,
    }
}

pub(crate) fn moment(date: &DateTime) -> Option<SystemTime> {
    SystemTime::try_from(*date).ok()
}

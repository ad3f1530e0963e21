//! The harness over the emulator behind the strict proxy, or over a real account with
//! `KEYSTEAD_TEST_AWS=1`, see CONTRIBUTING.md.

use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use keystead_aws_testbed::{Account, BedFaults, KMS_KEY, TestBed};
use keystead_conformance::{Faults, Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyId, KeyStore};
use keystead_secretsmanager::{SecretsManagerConfig, SecretsManagerStore};
use serde_json::json;

/// The visibility and listing bound of the stores under test. The emulator does not lag.
const BOUND: Duration = Duration::from_millis(200);

/// A harness in which each namespace has a prefix of its own, and a second client its own
/// connections.
pub(crate) struct Secrets {
    target: Target,
    window_days: Option<u16>,
}

enum Target {
    Bed(&'static TestBed, BedFaults),
    Account(Account),
}

impl Secrets {
    /// Creates a harness whose stores have a recovery window of this many days, or force their
    /// deletes.
    pub(crate) fn new(window_days: Option<u16>) -> Result<Self, BoxError> {
        let target = match Account::from_environment()? {
            Some(account) => Target::Account(account),
            None => {
                let bed = TestBed::shared()?;
                Target::Bed(bed, bed.faults(Duration::from_secs(8)).with_held_names())
            }
        };
        Ok(Self { target, window_days })
    }

    async fn store(&self, ns: &Namespace) -> Result<SecretsManagerStore, BoxError> {
        match &self.target {
            Target::Bed(bed, _) => {
                let config = self.config(KMS_KEY, &format!("/{ns}/user-keys/%s"))?.listing_bound(BOUND);
                let store = SecretsManagerStore::builder(config).sdk_config(&bed.sdk_config());
                // The emulator answers within milliseconds, so short timeouts suffice.
                let store = store.attempt_timeout(Duration::from_secs(2)).operation_timeout(Duration::from_secs(5));
                Ok(store.visibility_bound(BOUND).build()?)
            }
            Target::Account(Account { prefix, kms_key }) => {
                let config = self.config(kms_key, &format!("{prefix}/{ns}/user-keys/%s"))?;
                Ok(SecretsManagerStore::builder(config).connect().await?)
            }
        }
    }

    fn config(&self, kms_key: &str, path: &str) -> Result<SecretsManagerConfig, BoxError> {
        let config = SecretsManagerConfig::new(kms_key, path)?;
        Ok(match self.window_days {
            Some(days) => config.recovery_window(days),
            None => config,
        })
    }
}

#[async_trait]
impl Harness for Secrets {
    fn name(&self) -> &str {
        "secretsmanager"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(self.store(ns).await?))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    /// Deletes the secrets that a case leaves in a real account. The emulator forgets everything
    /// when it ends.
    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        if let Target::Account(_) = self.target {
            let store = self.store(ns).await?;
            let ids: Vec<KeyId> = store.list_keys().try_collect().await?;
            store.delete_keys(&ids).await;
        }
        Ok(())
    }

    async fn plant_foreign(&self, ns: &Namespace) -> Result<bool, BoxError> {
        let Target::Bed(bed, _) = &self.target else { return Ok(false) };
        let secret = json!({"Name": format!("/{ns}/user-keys/--"), "SecretString": "somebody else's"});
        bed.ask_emulator("secretsmanager.CreateSecret", secret).await?;
        Ok(true)
    }

    async fn plant_without_value(&self, ns: &Namespace, id: &KeyId) -> Result<bool, BoxError> {
        let Target::Bed(bed, _) = &self.target else { return Ok(false) };
        let token = "0".repeat(32);
        // The suite's ids appear in names unchanged.
        let secret = json!({"Name": format!("/{ns}/user-keys/{}", id.as_str()), "ClientRequestToken": token});
        bed.ask_emulator("secretsmanager.CreateSecret", secret).await?;
        Ok(true)
    }

    fn faults(&self) -> Option<&dyn Faults> {
        match &self.target {
            Target::Bed(_, faults) => Some(faults),
            Target::Account(_) => None,
        }
    }
}

//! The conformance suite over Parameter Store, which is the emulator behind the strict proxy.
//!
//! With `KEYSTEAD_TEST_AWS=1` it runs in a real account instead, see CONTRIBUTING.md.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use futures_util::TryStreamExt;
use keystead_aws_testbed::{Account, BedFaults, KMS_KEY, TestBed};
use keystead_conformance::{Faults, Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyId, KeyStore};
use keystead_ssm::{SsmConfig, SsmStore};
use serde_json::json;

/// The visibility bound of the stores under test. The emulator does not lag.
const BOUND: Duration = Duration::from_millis(200);

/// A harness in which each namespace has a path of its own, and a second client its own
/// connections.
enum Ssm {
    Bed(&'static TestBed, BedFaults),
    Account(Account),
}

impl Ssm {
    fn new() -> Result<Self, BoxError> {
        if let Some(account) = Account::from_environment()? {
            return Ok(Self::Account(account));
        }
        let bed = TestBed::shared()?;
        Ok(Self::Bed(bed, bed.faults(Duration::from_secs(8))))
    }

    async fn store(&self, ns: &Namespace) -> Result<SsmStore, BoxError> {
        match self {
            Self::Bed(bed, _) => {
                let config = SsmConfig::new(KMS_KEY, format!("/{ns}/user-keys/%s"))?;
                let store = SsmStore::builder(config).sdk_config(&bed.sdk_config());
                // The emulator answers within milliseconds, so short timeouts suffice.
                let store = store.attempt_timeout(Duration::from_secs(2)).operation_timeout(Duration::from_secs(5));
                Ok(store.visibility_bound(BOUND).build()?)
            }
            Self::Account(Account { prefix, kms_key }) => {
                let config = SsmConfig::new(kms_key.as_str(), format!("{prefix}/{ns}/user-keys/%s"))?;
                Ok(SsmStore::builder(config).connect().await?)
            }
        }
    }
}

#[async_trait]
impl Harness for Ssm {
    fn name(&self) -> &str {
        "ssm"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(self.store(ns).await?))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    /// Deletes the parameters that a case leaves in a real account. The emulator forgets everything
    /// when it ends.
    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        if let Self::Account(_) = self {
            let store = self.store(ns).await?;
            let ids: Vec<KeyId> = store.list_keys().try_collect().await?;
            store.delete_keys(&ids).await;
        }
        Ok(())
    }

    async fn plant_foreign(&self, ns: &Namespace) -> Result<bool, BoxError> {
        let Self::Bed(bed, _) = self else { return Ok(false) };
        let parameter = json!({"Name": format!("/{ns}/user-keys/--"), "Type": "String", "Value": "somebody else's"});
        bed.ask_emulator("AmazonSSM.PutParameter", parameter).await?;
        Ok(true)
    }

    fn faults(&self) -> Option<&dyn Faults> {
        match self {
            Self::Bed(_, faults) => Some(faults),
            Self::Account(_) => None,
        }
    }
}

fn main() -> Result<ExitCode, BoxError> {
    Ok(keystead_conformance::main(Ssm::new()?))
}

//! The harness: a layer over Parameter Store, which an emulator behind a strict proxy provides.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_aws_testbed::{BedFaults, KMS_KEY, TestBed};
use keystead_conformance::{Faults, Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore, Result};
use keystead_file::{FileStore, RootSecret};
use keystead_ssm::{SsmConfig, SsmStore};

/// The visibility bound of the stores under test. The emulator does not lag.
const BOUND: Duration = Duration::from_millis(200);

/// The stores beneath the layers of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Beneath {
    pub(crate) keys: SsmStore,
    #[allow(dead_code, reason = "only a fence has tombstones")]
    pub(crate) tombstones: FileStore,
}

/// Builds the layers around the stores.
type Build = fn(Beneath) -> Result<Arc<dyn KeyStore>>;

/// The harness of a layer. Reopening makes other layers and connections.
struct OverSsm {
    name: &'static str,
    build: Build,
    bed: &'static TestBed,
    faults: Option<BedFaults>,
    tombstones: Mutex<HashMap<Namespace, FileStore>>,
    directory: tempfile::TempDir,
}

impl OverSsm {
    /// Returns the store of a namespace's tombstones. It is a file store, because tombstones must
    /// be durable if the keys are.
    async fn tombstones(&self, ns: &Namespace) -> Result<FileStore, BoxError> {
        let known = self.tombstones.lock().expect("no harness call panics").get(ns).cloned();
        if let Some(store) = known {
            return Ok(store);
        }
        let store = FileStore::create(self.directory.path().join(ns.as_str()), RootSecret::generate()).await?;
        self.tombstones.lock().expect("no harness call panics").insert(ns.clone(), store.clone());
        Ok(store)
    }
}

#[async_trait]
impl Harness for OverSsm {
    fn name(&self) -> &str {
        self.name
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let config = SsmConfig::new(KMS_KEY, format!("/{ns}/user-keys/%s"))?;
        let store = SsmStore::builder(config).sdk_config(&self.bed.sdk_config()).sdk_attempts(1);
        // The emulator answers within milliseconds, so a short timeout is enough.
        let store = store.attempt_timeout(Duration::from_secs(2)).operation_timeout(Duration::from_secs(2));
        let keys = store.visibility_bound(BOUND).build()?;
        Ok((self.build)(Beneath { keys, tombstones: self.tombstones(ns).await? })?)
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    fn faults(&self) -> Option<&dyn Faults> {
        self.faults.as_ref().map(|faults| faults as _)
    }
}

/// Runs the suite. `call_bound` is the longest time of a call, whatever the engine does, or `None`
/// if the layer hides the engine's faults.
pub(crate) fn suite(name: &'static str, call_bound: Option<Duration>, build: Build) -> Result<ExitCode, BoxError> {
    let bed = TestBed::shared()?;
    let faults = call_bound.map(|bound| bed.faults(bound));
    let directory = tempfile::tempdir()?;
    Ok(keystead_conformance::main(OverSsm { name, build, bed, faults, tombstones: Mutex::default(), directory }))
}

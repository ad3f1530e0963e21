//! The harness: a layer over Parameter Store, the emulator behind the strict proxy.

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

/// The stores underneath the layers of one namespace.
#[derive(Clone, Debug)]
pub(crate) struct Beneath {
    pub(crate) keys: SsmStore,
    #[allow(dead_code, reason = "only a fence has tombstones")]
    pub(crate) tombstones: FileStore,
}

/// Puts the layers on.
type Build = fn(Beneath) -> Result<Arc<dyn KeyStore>>;

/// A second client has layers and connections of its own.
struct OverSsm {
    name: &'static str,
    build: Build,
    bed: &'static TestBed,
    faults: Option<BedFaults>,
    tombstones: Mutex<HashMap<Namespace, FileStore>>,
    directory: tempfile::TempDir,
}

impl OverSsm {
    /// The tombstones of a namespace, in a file: they must outlive the process, as the keys do.
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
        // The emulator answers within milliseconds, so a silent one is given up soon.
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

/// `call_bound` is how long a call may take whatever the engine does; none where the layer hides what the engine does.
pub(crate) fn suite(name: &'static str, call_bound: Option<Duration>, build: Build) -> Result<ExitCode, BoxError> {
    let bed = TestBed::shared()?;
    let faults = call_bound.map(|bound| bed.faults(bound));
    let directory = tempfile::tempdir()?;
    Ok(keystead_conformance::main(OverSsm { name, build, bed, faults, tombstones: Mutex::default(), directory }))
}

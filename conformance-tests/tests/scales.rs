//! A correct store passes every case at every scale, however few rounds and ids are left of a case.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Harness, Namespace, Options, async_trait, run};
use keystead_core::{BoxError, KeyStore};
use keystead_memory::MemoryStore;

#[derive(Default)]
struct Memory(Mutex<HashMap<Namespace, MemoryStore>>);

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(self.0.lock().expect("no call panics").entry(ns.clone()).or_default().clone()))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }
}

#[test]
fn a_correct_store_passes_at_small_scales() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    for scale in [0.001, 0.01, 0.03, 0.1, 0.3] {
        let options = Options { scale, ..Options::default() };
        let report = runtime.block_on(run(Memory::default(), options));
        assert!(report.failed().is_empty() && !report.passed().is_empty(), "at scale {scale}: {report}");
    }
}

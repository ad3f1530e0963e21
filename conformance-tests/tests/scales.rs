//! A correct store passes every case that applies at every scale, however small the cases become.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Case, Harness, Namespace, Need, Options, async_trait, cases, run};
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
    // The harness can do none of what only a harness can do.
    let lacking = [Need::ForeignEntries, Need::EntriesWithoutValue, Need::Faults, Need::HeldNames];
    let capabilities = MemoryStore::new().capabilities();
    let reason = |case: &'static Case| Some((case.id(), case.excluded_by(&capabilities, &lacking)?));
    let excluded: Vec<(&str, &str)> = cases().iter().filter_map(reason).collect();
    for scale in [0.001, 0.01, 0.03, 0.1, 0.3] {
        let options = Options { scale, ..Options::default() };
        let report = runtime.block_on(run(Memory::default(), options));
        assert!(report.failed().is_empty() && !report.passed().is_empty(), "at scale {scale}: {report}");
        assert_eq!(report.ignored(), excluded, "at scale {scale}");
    }
}

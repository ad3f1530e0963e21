//! The conformance suite over the memory store.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore};
use keystead_memory::MemoryStore;

/// The harness of the memory store. Each namespace has its own store, and reopening clones the
/// handle.
#[derive(Default)]
struct Memory(Mutex<HashMap<Namespace, MemoryStore>>);

#[async_trait]
impl Harness for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(self.0.lock().expect("no harness call panics").entry(ns.clone()).or_default().clone()))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.0.lock().expect("no harness call panics").remove(ns);
        Ok(())
    }
}

fn main() -> ExitCode {
    keystead_conformance::main(Memory::default())
}

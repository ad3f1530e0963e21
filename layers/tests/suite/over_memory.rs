//! The harness: a layer over the memory store.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore, Result};
use keystead_memory::MemoryStore;

/// The stores beneath the layers of one namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beneath {
    pub(crate) keys: MemoryStore,
    #[allow(dead_code, reason = "only a fence has tombstones")]
    pub(crate) tombstones: MemoryStore,
}

/// Builds the layers around the stores.
type Build = fn(Beneath) -> Result<Arc<dyn KeyStore>>;

/// The harness of a layer. Reopening puts other layers around the same stores.
struct OverMemory {
    name: &'static str,
    build: Build,
    beneath: Mutex<HashMap<Namespace, Beneath>>,
}

#[async_trait]
impl Harness for OverMemory {
    fn name(&self) -> &str {
        self.name
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let beneath = self.beneath.lock().expect("no harness call panics").entry(ns.clone()).or_default().clone();
        Ok((self.build)(beneath)?)
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.beneath.lock().expect("no harness call panics").remove(ns);
        Ok(())
    }
}

pub(crate) fn suite(name: &'static str, build: Build) -> ExitCode {
    keystead_conformance::main(OverMemory { name, build, beneath: Mutex::default() })
}

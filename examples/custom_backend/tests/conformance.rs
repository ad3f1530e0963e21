//! The conformance suite over the store of this package.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use keystead_conformance::{Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore, NameTemplate, SecretKey};
use keystead_example_custom_backend::{Engine, TreeStore};

/// An engine for each namespace. A second client is a second store over the same engine.
#[derive(Default)]
struct Trees(Mutex<HashMap<Namespace, Engine>>);

impl Trees {
    fn engine(&self, ns: &Namespace) -> Engine {
        self.0.lock().expect("no harness call panics").entry(ns.clone()).or_default().clone()
    }
}

#[async_trait]
impl Harness for Trees {
    fn name(&self) -> &str {
        "tree"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(TreeStore::new(self.engine(ns), NameTemplate::new(&format!("{ns}/user-keys/%s"))?)))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.0.lock().expect("no harness call panics").remove(ns);
        Ok(())
    }

    async fn plant_foreign(&self, ns: &Namespace) -> Result<bool, BoxError> {
        let engine = self.engine(ns);
        let mut entries = engine.lock().expect("no harness call panics");
        for name in ["user-keys", "user-keys/", "user-keys/a/b", "user-keys/--abc", "settings"] {
            entries.insert(format!("{ns}/{name}"), SecretKey::new(*b"somebody else's")?);
        }
        entries.insert("zzz".to_owned(), SecretKey::new(*b"somebody else's")?);
        Ok(true)
    }
}

fn main() -> ExitCode {
    keystead_conformance::main(Trees::default())
}

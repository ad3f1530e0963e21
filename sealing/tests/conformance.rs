//! The conformance suite over a sealed store in a memory table that fails on demand.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use faulty_table::{CLIENT_TIMEOUT, FaultyTable};
use keystead_conformance::{Fault, Faults, Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore, Operation};
use keystead_sealing::RootSecret;
use keystead_sealing::table::SealedOptions;

mod faulty_table;

/// A namespace is a table of its own, and a second client is another store over it.
#[derive(Default)]
struct Tables(Mutex<HashMap<Namespace, FaultyTable>>);

impl Tables {
    fn table(&self, ns: &Namespace) -> FaultyTable {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(ns.clone()).or_default().clone()
    }
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

#[async_trait]
impl Harness for Tables {
    fn name(&self) -> &str {
        "sealed memory table"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        // A short lease, so that the keyring is read again within a case.
        let options = SealedOptions::new().lease(Duration::from_millis(20));
        Ok(Arc::new(options.create(self.table(ns), root()).await?))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(SealedOptions::new().open(self.table(ns), root()).await?))
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(ns);
        Ok(())
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for Tables {
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError> {
        // A table has no key of its own, reads from one place, and refuses no delete.
        let is_possible = !matches!(fault, Fault::KeyUnavailable | Fault::Stale | Fault::Refused | Fault::NameHeld);
        if is_possible {
            self.table(ns).inject(op, fault, requests);
        }
        Ok(is_possible)
    }

    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.table(ns).clear();
        Ok(())
    }

    fn call_bound(&self) -> Duration {
        CLIENT_TIMEOUT * 10
    }
}

fn main() -> ExitCode {
    keystead_conformance::main(Tables::default())
}

//! The conformance suite over the file store.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use keystead_conformance::{Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore};
use keystead_file::{FileStore, RootSecret};
use tempfile::TempDir;

/// A namespace is a file of its own, and a second client has a writer thread and connections of its
/// own.
struct Files(TempDir);

impl Files {
    fn path(&self, ns: &Namespace) -> PathBuf {
        self.0.path().join(ns.as_str()).join("keys.db")
    }
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

#[async_trait]
impl Harness for Files {
    fn name(&self) -> &str {
        "file"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(FileStore::create(self.path(ns), root()).await?))
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(Arc::new(FileStore::open(self.path(ns), root()).await?))
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        if let Some(directory) = self.path(ns).parent() {
            std::fs::remove_dir_all(directory)?;
        }
        Ok(())
    }
}

fn main() -> ExitCode {
    let directory = tempfile::tempdir().expect("the system has a directory for temporary files");
    keystead_conformance::main(Files(directory))
}

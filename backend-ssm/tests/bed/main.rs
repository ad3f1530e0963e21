//! Tests over Parameter Store behind the test bed's proxy: compatibility with the Clojure library
//! and other tools, unusual answers, and the requests that are sent.
#![allow(clippy::unwrap_used, reason = "test code")]

mod answers;
mod attempts;
mod calls;
mod clojure_library;
mod connections;
mod count;
mod credentials;
mod diagnosis;
mod identity;
mod interop;
mod legacy;
mod organization;
mod policies;
mod quotas;
mod reencrypt;
mod storm;

use std::time::Duration;

use keystead_aws_testbed::{KMS_KEY, LoggedCall, TestBed};
use keystead_conformance::Namespace;
use keystead_core::{KeyId, SecretKey};
use keystead_ssm::{SsmConfig, SsmStore, SsmStoreBuilder};

/// A test's own namespace on the shared test bed.
pub(crate) struct Fixture {
    pub(crate) bed: &'static TestBed,
    pub(crate) ns: Namespace,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self { bed: TestBed::shared().expect("the test bed starts"), ns: Namespace::random() }
    }

    pub(crate) fn path(&self) -> String {
        format!("/{}/user-keys/%s", self.ns)
    }

    pub(crate) fn config(&self) -> SsmConfig {
        SsmConfig::new(KMS_KEY, self.path()).expect("the configuration is valid")
    }

    pub(crate) fn builder(&self) -> SsmStoreBuilder {
        SsmStore::builder(self.config()).sdk_config(&self.bed.sdk_config()).visibility_bound(Duration::from_millis(200))
    }

    pub(crate) fn store(&self) -> SsmStore {
        self.builder().build().expect("the store is built")
    }

    /// Returns the requests of this namespace that have reached the proxy.
    pub(crate) fn calls(&self) -> Vec<LoggedCall> {
        self.bed.calls(self.ns.as_str())
    }

    pub(crate) fn operations(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.operation).collect()
    }

    pub(crate) fn answer(&self, operation: &str, times: u32, status: u16, body: serde_json::Value) {
        self.bed.answer(operation, self.ns.as_str(), times, status, body.to_string());
    }
}

pub(crate) fn id(text: &str) -> KeyId {
    KeyId::new(text).expect("the id is valid")
}

pub(crate) fn key(bytes: impl Into<Vec<u8>>) -> SecretKey {
    SecretKey::new(bytes).expect("the key is valid")
}

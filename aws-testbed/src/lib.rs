//! The test bed of the AWS backends: an emulator (moto), and in front of it a proxy that is
//! stricter than the emulator and fails on demand.
//!
//! The emulator accepts what AWS refuses: any name, any KMS key, values of any length, batches of
//! any size. The proxy therefore refuses what AWS's documents say that AWS refuses, with AWS's kind
//! of answer, and corrects answers that are known to differ. **The proxy is as strict as we have
//! read the documents**: a store that passes here is not thereby proven against AWS. In some places
//! it demands more than AWS does (a decrypting read, a `KeyId` and a `Tier` in each put), because
//! our stores must send that.
//!
//! The proxy keeps a log of requests, injects faults by namespace and operation, and gives scripted
//! answers.
//!
//! `scripts/test.sh` installs the emulator into a virtual environment in the target directory. Each
//! test program starts an emulator of its own, unless
//! `KEYSTEAD_TEST_EMULATOR=http://127.0.0.1:PORT` names one. If it is not installed, the error
//! contains the command that installs it.
//!
//! Nothing here reads AWS's environment variables or files, or connects to anything but the
//! loopback interface. The exception is the conformance suites with `KEYSTEAD_TEST_AWS=1`, which
//! then run in a real [`Account`].

mod account;
mod answer;
mod bucket;
mod direct;
mod emulator;
mod fault;
mod isolated;
mod log;
mod policy;
mod proxy;
mod quiet;
mod replica;
mod request;
mod rules;
mod strict;
mod trace_capture;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_types::SdkConfig;
use aws_types::region::Region;
use keystead_core::BoxError;

pub use crate::account::Account;
pub use crate::emulator::python;
pub use crate::fault::BedFaults;
pub use crate::isolated::isolated;
pub use crate::log::LoggedCall;
pub use crate::policy::{Statement, statements_in};
pub use crate::quiet::assert_nothing_leaks;
pub use crate::trace_capture::TraceCapture;

/// The alias of the KMS key that exists.
pub const KMS_KEY: &str = "alias/keystead-test";

/// The ARN of the KMS key that exists.
pub const KMS_KEY_ARN: &str = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// The ARN of a KMS key in another account, which exists and may be used.
pub const FOREIGN_KMS_KEY_ARN: &str = "arn:aws:kms:us-east-1:999999999999:key/9999abcd-12ab-34cd-56ef-1234567890ab";

/// The access key id in [`sdk_config`].
pub const ACCESS_KEY_ID: &str = "AKIDTEST";

/// The secret access key in [`sdk_config`].
pub const SECRET_ACCESS_KEY: &str = "canary-credential-5e1f";

/// An emulator with the proxy in front of it.
#[derive(Debug)]
pub struct TestBed {
    emulator: emulator::Emulator,
    proxy: u16,
    state: Arc<proxy::State>,
}

impl TestBed {
    /// Returns the test bed of this process, which is started at the first call and ends with the
    /// process.
    ///
    /// # Errors
    /// A text that says what is missing and how to install it.
    pub fn shared() -> Result<&'static Self, BoxError> {
        static SHARED: OnceLock<Result<TestBed, String>> = OnceLock::new();
        let bed = SHARED.get_or_init(|| Self::start().map_err(|e| e.to_string()));
        bed.as_ref().map_err(|e| e.clone().into())
    }

    fn start() -> Result<Self, BoxError> {
        let emulator = emulator::Emulator::start()?;
        let state = Arc::new(proxy::State::default());
        let proxy = proxy::start(emulator.authority.clone(), state.clone())?;
        Ok(Self { emulator, proxy, state })
    }

    /// Returns the proxy's URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// Returns the emulator's URL. Requests to it are neither checked nor logged.
    pub fn emulator_url(&self) -> String {
        format!("http://{}", self.emulator.authority)
    }

    /// Makes one call to the emulator, such as `AmazonSSM.PutParameter` or
    /// `secretsmanager.CreateSecret`, for what our stores would not do.
    ///
    /// # Errors
    /// If the emulator refuses it.
    pub async fn ask_emulator(&self, target: &str, body: serde_json::Value) -> Result<serde_json::Value, BoxError> {
        direct::ask(&self.emulator.authority, target, &body).await
    }

    /// Returns a configuration that leads to the proxy and does not depend on the environment.
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.url())
    }

    /// Returns the requests whose bodies contain this text, such as a namespace in a name, in the
    /// order of their arrival.
    pub fn calls(&self, text: &str) -> Vec<LoggedCall> {
        self.state.log.calls(text)
    }

    /// Returns the faults for a harness. `call_bound` is the longest time that a call of its stores
    /// takes.
    pub fn faults(&'static self, call_bound: Duration) -> BedFaults {
        BedFaults::new(&self.state.faults, call_bound)
    }

    /// Limits the writes whose bodies contain this text to a number per second, and throttles the
    /// others as AWS does. The writes of one second can come at once.
    pub fn limit_writes(&self, text: &str, per_second: f64) {
        self.state.buckets.add(text, per_second);
    }

    /// Simulates a policy that demands tags with these keys of every create whose body contains
    /// this text, and of every parameter that is overwritten. Requests without them are refused
    /// with `AccessDeniedException`.
    pub fn require_tags(&self, text: &str, keys: &[&str]) {
        self.state.rules.require_tags(text, keys);
    }

    /// Sets the account's default tier for puts whose bodies contain this text. Without it, a put
    /// that names no tier is refused.
    pub fn set_default_tier(&self, text: &str, tier: &str) {
        self.state.rules.set_default_tier(text, tier);
    }

    /// Answers the next `times` requests of this operation, such as `GetParameter`, whose bodies
    /// contain this text. They do not reach the emulator.
    pub fn answer(&self, operation: &str, text: &str, times: u32, status: u16, body: impl Into<String>) {
        self.state.faults.script(operation, text, times, status, body.into());
    }
}

/// Returns a configuration for an endpoint on the loopback interface that does not depend on the
/// environment.
pub fn sdk_config(url: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test bed");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        // A client that ignores HTTP_PROXY.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

//! The test bed of the AWS backends: an emulator (moto), and in front of it a proxy that is
//! stricter than the emulator and fails on demand.
//!
//! The emulator accepts what AWS refuses: any name, any KMS key, values of any length, batches of
//! any size. So the proxy refuses what AWS's documents say that it refuses, in AWS's shape, and
//! corrects answers that are known to differ. **Its strictness is ours, read from documents**: a
//! store that passes here is not thereby proven against AWS. Where the proxy demands more than AWS
//! does (a decrypting read, a `KeyId` and a `Tier` on each put), it is because our stores must send
//! that.
//!
//! It keeps a log of calls to count and look at, meets faults by namespace and operation, and gives scripted answers.
//!
//! `scripts/test.sh` installs the emulator into a virtual environment in the target directory. Each
//! test program starts one of its own, unless `KEYSTEAD_TEST_EMULATOR=http://127.0.0.1:PORT` names
//! one; one that is missing is an error with the command that installs it. Nothing here reads AWS's
//! environment or files, or reaches any address but the loopback's, but for the conformance suites
//! with `KEYSTEAD_TEST_AWS=1`, which run over a real [`Account`] then.

mod account;
mod answer;
mod bucket;
mod direct;
mod emulator;
mod fault;
mod heard;
mod isolated;
mod log;
mod policy;
mod proxy;
mod quiet;
mod replica;
mod request;
mod rules;
mod strict;

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
pub use crate::heard::Heard;
pub use crate::isolated::isolated;
pub use crate::log::LoggedCall;
pub use crate::policy::{Statement, statements_in};
pub use crate::quiet::shows_nothing;

/// The KMS key that exists, by its alias.
pub const KMS_KEY: &str = "alias/keystead-test";

/// The KMS key that exists, by its ARN.
pub const KMS_KEY_ARN: &str = "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";

/// A KMS key of another account that exists and may be used, by its ARN.
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
    /// The one of this process, started at the first call. It ends with the process.
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

    /// The proxy's URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.proxy)
    }

    /// The emulator's URL: what is sent there is neither checked nor logged.
    pub fn emulator_url(&self) -> String {
        format!("http://{}", self.emulator.authority)
    }

    /// Makes one call to the emulator, such as `AmazonSSM.PutParameter` or
    /// `secretsmanager.CreateSecret`: for what our stores would not do.
    ///
    /// # Errors
    /// If the emulator refuses it.
    pub async fn ask_emulator(&self, target: &str, body: serde_json::Value) -> Result<serde_json::Value, BoxError> {
        direct::ask(&self.emulator.authority, target, &body).await
    }

    /// A configuration that leads to the proxy and reads nothing from the environment.
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.url())
    }

    /// The calls whose bodies contain this text (a namespace, as it stands in the names), in the order they came.
    pub fn calls(&self, text: &str) -> Vec<LoggedCall> {
        self.state.log.calls(text)
    }

    /// The faults of a harness; `call_bound` is what its stores' timeouts come to.
    pub fn faults(&'static self, call_bound: Duration) -> BedFaults {
        BedFaults::new(&self.state.faults, call_bound)
    }

    /// Allows so many writes a second among those whose bodies contain this text, and throttles the
    /// others as AWS does. A second's worth can come at once.
    pub fn limit_writes(&self, text: &str, per_second: f64) {
        self.state.buckets.add(text, per_second);
    }

    /// Has a policy demand tags with these keys of every create whose body contains this text, and
    /// of every parameter that is overwritten: calls without them are refused with
    /// `AccessDeniedException`.
    pub fn require_tags(&self, text: &str, keys: &[&str]) {
        self.state.rules.require_tags(text, keys);
    }

    /// Sets the default tier of the account for puts whose bodies contain this text. Without it a
    /// put that names no tier is refused.
    pub fn set_default_tier(&self, text: &str, tier: &str) {
        self.state.rules.set_default_tier(text, tier);
    }

    /// The next `times` calls of this operation (as `GetParameter`) whose bodies contain this text
    /// are answered like this and reach nobody.
    pub fn answer(&self, operation: &str, text: &str, times: u32, status: u16, body: impl Into<String>) {
        self.state.faults.script(operation, text, times, status, body.into());
    }
}

/// A configuration for an endpoint on the loopback interface that reads nothing from the environment.
pub fn sdk_config(url: &str) -> SdkConfig {
    let credentials = Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "test bed");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .endpoint_url(url)
        // A client that knows no HTTP_PROXY, not even for this address.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        .build()
}

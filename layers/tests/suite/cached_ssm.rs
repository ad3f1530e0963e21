//! The conformance suite over the cache over Parameter Store.

mod over_ssm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::BoxError;
use keystead_layers::Cached;

fn main() -> Result<ExitCode, BoxError> {
    over_ssm::suite("cached ssm", None, |beneath| {
        Ok(Arc::new(Cached::builder(beneath.keys).ttl(Duration::from_millis(300)).build()?))
    })
}

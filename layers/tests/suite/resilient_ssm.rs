//! The conformance suite over time limits and retries over Parameter Store.

mod over_ssm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::BoxError;
use keystead_layers::Resilient;

fn main() -> Result<ExitCode, BoxError> {
    over_ssm::suite("resilient ssm", Some(Duration::from_secs(8)), |beneath| {
        let resilient = Resilient::builder(beneath.keys).attempt_timeout(Duration::from_secs(2));
        Ok(Arc::new(resilient.deadline(Duration::from_secs(5)).build()?))
    })
}

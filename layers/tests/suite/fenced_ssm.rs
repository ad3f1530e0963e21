//! The conformance suite over the fence over Parameter Store.

mod over_ssm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::{BoxError, Durability};
use keystead_layers::Fenced;

fn main() -> Result<ExitCode, BoxError> {
    over_ssm::suite("fenced ssm", Some(Duration::from_secs(10)), |beneath| {
        let fence = Fenced::builder(beneath.keys, beneath.tombstones);
        Ok(Arc::new(fence.accept_tombstone_durability(Durability::Host).build()?))
    })
}

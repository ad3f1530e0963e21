//! The conformance suite over a whole stack over Parameter Store.

mod over_ssm;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::{BoxError, Durability};
use keystead_layers::Stack;

fn main() -> Result<ExitCode, BoxError> {
    // The stack retries, so the engine's faults would not show.
    over_ssm::suite("stack ssm", None, |beneath| {
        let stack = Stack::builder(beneath.keys).tombstones(beneath.tombstones).cache_ttl(Duration::from_millis(100));
        Ok(Arc::new(stack.accept_tombstone_durability(Durability::Host).read_rate(1e6).write_rate(1e6).build()?))
    })
}

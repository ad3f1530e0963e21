//! The conformance suite over a whole stack around a store that fails now and then.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::ErrorKind;
use keystead_layers::{Faulty, Stack};

fn main() -> ExitCode {
    over_memory::suite("stack", |beneath| {
        let unsteady =
            Faulty::builder(beneath.keys).seed(7).failure_rate(0.02).kinds([ErrorKind::Throttled]).build()?;
        let stack = Stack::builder(unsteady).tombstones(beneath.tombstones).cache_ttl(Duration::from_millis(100));
        Ok(Arc::new(stack.read_rate(1e6).write_rate(1e6).concurrency(16).build()?))
    })
}

//! The conformance suite over all layers at once, in the order that their documentation advises, and a store that fails now and then.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_core::ErrorKind;
use keystead_layers::{Cached, Faulty, Fenced, Limit, Limited, Observed, Resilient};

fn main() -> ExitCode {
    over_memory::suite("stack", |beneath| {
        let unsteady =
            Faulty::builder(beneath.keys).seed(7).failure_rate(0.02).kinds([ErrorKind::Throttled]).build()?;
        let limit = Limit::builder().concurrency(16).rate(1e6).build()?;
        let resilient = Resilient::builder(Limited::new(unsteady, limit)).max_attempts(10);
        let resilient = resilient.pauses(Duration::from_millis(1), Duration::from_millis(5)).build()?;
        let cached = Cached::builder(resilient).ttl(Duration::from_millis(100)).build()?;
        Ok(Arc::new(Observed::new(Fenced::builder(cached, beneath.tombstones).build()?)))
    })
}

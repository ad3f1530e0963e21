//! The conformance suite over the cache. Each client has its own cache.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use keystead_layers::Cached;

fn main() -> ExitCode {
    over_memory::suite("cached", |beneath| {
        let cached =
            Cached::builder(beneath.keys).ttl(Duration::from_millis(100)).negative_ttl(Duration::from_millis(50));
        Ok(Arc::new(cached.build()?))
    })
}

//! The conformance suite over limits that are hardly ever reached.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;

use keystead_layers::{Limit, Limited};

fn main() -> ExitCode {
    over_memory::suite("limited", |beneath| {
        let limit = Limit::builder().concurrency(4).rate(1e6).batch_size(3).build()?;
        Ok(Arc::new(Limited::new(beneath.keys, limit)))
    })
}

//! The conformance suite over time limits and retries.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;

use keystead_layers::Resilient;

fn main() -> ExitCode {
    over_memory::suite("resilient", |beneath| Ok(Arc::new(Resilient::builder(beneath.keys).build()?)))
}

//! The conformance suite over the observer.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;

use keystead_layers::Observed;

fn main() -> ExitCode {
    over_memory::suite("observed", |beneath| Ok(Arc::new(Observed::new(beneath.keys))))
}

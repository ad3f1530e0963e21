//! The conformance suite over the fault layer without any faults.

mod over_memory;

use std::process::ExitCode;
use std::sync::Arc;

use keystead_layers::Faulty;

fn main() -> ExitCode {
    over_memory::suite("faulty", |beneath| Ok(Arc::new(Faulty::builder(beneath.keys).build()?)))
}

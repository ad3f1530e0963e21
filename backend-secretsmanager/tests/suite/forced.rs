//! The conformance suite over Secrets Manager with forced deletes.

mod harness;

use std::process::ExitCode;

use harness::Secrets;
use keystead_core::BoxError;

fn main() -> Result<ExitCode, BoxError> {
    Ok(keystead_conformance::main(Secrets::new(None)?))
}

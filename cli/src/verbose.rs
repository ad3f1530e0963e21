//! [`listen`]: the lines that `--verbose` writes about calls to AWS.

use std::io;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

/// Writes the events about attempts of calls to AWS to standard error, a line each. They hold no id,
/// no name and no key.
pub(crate) fn listen() {
    let lines = fmt::layer().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
    let attempts = Targets::new().with_target("keystead_aws", LevelFilter::DEBUG);
    // Nothing else in this program listens.
    let _ = registry().with(lines).with(attempts).try_init();
}

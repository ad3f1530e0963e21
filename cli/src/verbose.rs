//! `--verbose`: what is being done, and what AWS is asked.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use keystead::KeyStore;
use tokio::time::timeout;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{fmt, registry};

use crate::output;

/// The time that AWS has to say which account this is; nothing depends on the answer.
const IDENTIFY: Duration = Duration::from_secs(5);

/// True if the steps are told.
static TELLS_STEPS: AtomicBool = AtomicBool::new(false);

/// Has the steps told if `--verbose` was given, and the attempts of calls to AWS, too, if it was given twice.
pub(crate) fn listen(times: u8) {
    TELLS_STEPS.store(times >= 1, Ordering::Relaxed);
    if times >= 2 {
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
        // These events hold no id, no name and no key.
        let attempts = Targets::new().with_target("keystead_aws", LevelFilter::DEBUG);
        // Nothing else in this program listens.
        let _ = registry().with(lines).with(attempts).try_init();
    }
}

/// Tells what is done next. The text holds no id and no key.
pub(crate) fn step(text: impl AsRef<str>) {
    if TELLS_STEPS.load(Ordering::Relaxed) {
        output::note(format!("keystead: {}", text.as_ref()));
    }
}

/// Tells which store is open: where it is, and in AWS in which region and account, which takes a
/// call if it is not known.
pub(crate) async fn tell_store(store: &dyn KeyStore) {
    if !TELLS_STEPS.load(Ordering::Relaxed) {
        return;
    }
    if !store.info().identity().is_fully_known() {
        step("asking AWS for the account");
        match timeout(IDENTIFY, store.identify()).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => step(format!("the account is not known: {e}")),
            Err(_) => step("the account is not known: AWS did not answer in time"),
        }
    }
    step(format!("opened {}", store.info()));
}

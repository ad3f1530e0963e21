//! `--verbose`: reports the steps of a command and the attempts of calls to AWS.

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

/// The longest wait for AWS to tell the account. Nothing depends on the answer.
const IDENTIFY: Duration = Duration::from_secs(5);

/// True if steps are reported.
static TELLS_STEPS: AtomicBool = AtomicBool::new(false);

/// Starts to report steps if `--verbose` was given, and also attempts of calls to AWS if it was
/// given twice.
pub(crate) fn listen(times: u8) {
    TELLS_STEPS.store(times >= 1, Ordering::Relaxed);
    if times >= 2 {
        let lines = fmt::layer().with_writer(io::stderr).with_ansi(false).log_internal_errors(false);
        // These events contain no id, no name and no key.
        let attempts = Targets::new().with_target("keystead_aws", LevelFilter::DEBUG);
        // Nothing else in this program sets a subscriber.
        let _ = registry().with(lines).with(attempts).try_init();
    }
}

/// Reports the next step. The text must not contain an id or a key.
pub(crate) fn step(text: impl AsRef<str>) {
    if TELLS_STEPS.load(Ordering::Relaxed) {
        output::note(format!("keystead: {}", text.as_ref()));
    }
}

/// Reports which store is open and where; for AWS, with the region and the account, for which AWS
/// is asked if it is not known.
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

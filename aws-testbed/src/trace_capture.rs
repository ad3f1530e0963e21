//! [`TraceCapture`]: the tracing output of a piece of work.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tracing::instrument::{Instrument, WithSubscriber};

/// All captured events, one per line. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct TraceCapture(Arc<Mutex<Vec<u8>>>);

impl TraceCapture {
    /// Runs the work in a span called `caller`, under a subscriber of its own that captures every
    /// level.
    pub async fn during<F: Future>(&self, work: F) -> F::Output {
        let writer = self.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
        let subscriber = subscriber.with_writer(move || writer.clone()).finish();
        // The span is created inside, so that this subscriber captures it.
        async { work.instrument(tracing::info_span!("caller")).await }.with_subscriber(subscriber).await
    }

    /// Returns what has been captured so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Returns the lines about the attempts of calls to AWS.
    pub fn attempts(&self) -> Vec<String> {
        self.text().lines().filter(|line| line.contains(" keystead_aws: ")).map(str::to_owned).collect()
    }
}

impl io::Write for TraceCapture {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! [`Log`]: the requests that have reached the proxy.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::Value;

/// A request that reached the proxy. Each attempt of the SDK is a request of its own.
#[derive(Clone, Debug)]
pub struct LoggedCall {
    /// The operation, such as `PutParameter`.
    pub operation: String,
    /// The body as it was sent. It contains values, which are test keys only.
    pub body: Value,
    /// The body as text, for requests of the query protocol.
    pub text: String,
    /// The time at which the request reached the proxy.
    pub begun: Instant,
}

#[derive(Debug, Default)]
pub(crate) struct Log(Mutex<Vec<(String, LoggedCall)>>);

impl Log {
    pub(crate) fn add(&self, text: &str, operation: &str, body: &Value) {
        let call = LoggedCall {
            operation: operation.to_owned(),
            body: body.clone(),
            text: text.to_owned(),
            begun: Instant::now(),
        };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((text.to_owned(), call));
    }

    pub(crate) fn calls(&self, text: &str) -> Vec<LoggedCall> {
        let calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(body, _)| body.contains(text)).map(|(_, call)| call.clone()).collect()
    }
}

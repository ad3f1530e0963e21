//! [`Buckets`]: quotas of writes per second.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use keystead_core::Operation;

use crate::request::AwsRequest;

/// The quotas of the namespaces that have one.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<Vec<Bucket>>);

/// A token bucket. Each write takes one token, and `per_second` tokens are added each second.
#[derive(Debug)]
struct Bucket {
    text: String,
    per_second: f64,
    tokens: f64,
    filled: Instant,
}

impl Buckets {
    pub(crate) fn add(&self, text: &str, per_second: f64) {
        let bucket = Bucket { text: text.to_owned(), per_second, tokens: per_second, filled: Instant::now() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bucket);
    }

    /// Reports whether this request is a write that exceeds its quota.
    pub(crate) fn refuses(&self, call: &AwsRequest) -> bool {
        let is_write = matches!(call.operation(), Some(Operation::Put | Operation::Create | Operation::Delete));
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bucket = buckets.iter_mut().find(|bucket| is_write && call.text.contains(&bucket.text));
        bucket.is_some_and(|bucket| !bucket.take())
    }
}

impl Bucket {
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let refill = now.duration_since(self.filled).as_secs_f64() * self.per_second;
        self.tokens = (self.tokens + refill).min(self.per_second);
        self.filled = now;
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }
}

//! [`AwsCall`]: one call of the SDK, polled quietly, with a record of its attempts.

use std::error::Error as StdError;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::context::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_smithy_runtime_api::client::interceptors::{Intercept, dyn_dispatch_hint};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use keystead_core::ErrorKind;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::connection::never_connected;
use crate::failure::{AwsFailure, Service};
use crate::session::Session;
use crate::trace::Trace;

/// Polls a future of the SDK without a tracing subscriber: at TRACE the SDK writes whole requests, keys included.
pub async fn quietly<F: Future>(future: F) -> F::Output {
    future.with_subscriber(NoSubscriber::default()).await
}

/// One call of the SDK: give `call.attempts()` to its `customize().interceptor(..)`, then the future of `send()` to
/// [`run`](Self::run).
///
/// [`AwsIdentity::call`](crate::AwsIdentity::call) gives one with the credentials of a store.
#[derive(Debug, Default)]
pub struct AwsCall {
    attempts: Attempts,
    session: Option<Session>,
}

impl AwsCall {
    /// Creates a call whose credentials the SDK loads within its attempts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a call whose credentials are loaded before its first attempt.
    pub(crate) fn of(session: Option<Session>) -> Self {
        Self { attempts: Attempts::default(), session }
    }

    /// Returns the record of the call's attempts.
    pub fn attempts(&self) -> Attempts {
        self.attempts.clone()
    }

    /// Makes the call, once there are credentials for it. `own` is the backend's table from codes to
    /// kinds, which is asked before the common one.
    ///
    /// Each attempt ends with an event at level DEBUG and with target `keystead_aws`, for the
    /// subscriber of the thread that polls this first. Its fields are `service`, `operation`,
    /// `attempt`, `duration_ms`, and as far as they are known `status`, `code` and `request_id`; a
    /// failed attempt has a `reason`. No field depends on an id, a name or a value.
    ///
    /// # Errors
    /// The rest of the `SdkError` or the `CredentialsError`, which are dropped.
    pub async fn run<T, E: ProvideErrorMetadata + StdError + Send + Sync + 'static>(
        &self,
        service: Service,
        own: fn(&str) -> Option<ErrorKind>,
        future: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, AwsFailure> {
        if let Some(session) = &self.session {
            session.credentials().await.map_err(|e| {
                let failure = AwsFailure::without_credentials(service, e);
                // This may be another round of a call that was sent before.
                if self.attempts.any_may_have_applied() { failure.partly_applied() } else { failure }
            })?;
        }
        let record = &self.attempts.0;
        record.trace.listen::<E>();
        let _told = TellOfEnd(&record.trace);
        let error = match quietly(future).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let timed_out = matches!(error, SdkError::TimeoutError(_));
        let ambiguous = self.attempts.earlier_attempt_may_have_applied();
        let failure = AwsFailure::of(error, service, own, ambiguous, record.trace.operation().as_deref());
        Err(if self.attempts.was_any_sent() { failure } else { failure.without_an_attempt(timed_out) })
    }
}

/// Tells of an attempt that nobody waits for any longer, when a call is dropped.
struct TellOfEnd<'a>(&'a Trace);

impl Drop for TellOfEnd<'_> {
    fn drop(&mut self) {
        self.0.call_ends();
    }
}

/// Records of each attempt of one call whether it ended with an answer: an attempt that was sent
/// and got none may have taken effect, and what the next one is told may be the work of the first.
#[derive(Clone, Debug, Default)]
pub struct Attempts(Arc<Record>);

#[derive(Debug, Default)]
struct Record {
    sent: AtomicBool,
    any_sent: AtomicBool,
    last_is_unknown: AtomicBool,
    earlier_is_unknown: AtomicBool,
    trace: Trace,
}

impl Attempts {
    /// Reports whether an attempt before the last one may have taken effect.
    pub fn earlier_attempt_may_have_applied(&self) -> bool {
        self.0.earlier_is_unknown.load(Ordering::SeqCst)
    }

    /// Reports whether any attempt so far may have taken effect.
    fn any_may_have_applied(&self) -> bool {
        self.earlier_attempt_may_have_applied() || self.0.last_is_unknown.load(Ordering::SeqCst)
    }

    /// Reports whether any attempt was sent, or was about to be.
    fn was_any_sent(&self) -> bool {
        self.0.any_sent.load(Ordering::SeqCst)
    }
}

#[dyn_dispatch_hint]
impl Intercept for Attempts {
    fn name(&self) -> &'static str {
        "KeysteadAttempts"
    }

    fn read_before_attempt(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.trace.attempt_begins(config);
        if self.0.last_is_unknown.swap(false, Ordering::SeqCst) {
            self.0.earlier_is_unknown.store(true, Ordering::SeqCst);
        }
        self.0.sent.store(false, Ordering::SeqCst);
        Ok(())
    }

    fn read_before_transmit(
        &self,
        _: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.sent.store(true, Ordering::SeqCst);
        self.0.any_sent.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.trace.attempt_ends(context);
        let (succeeded, never_sent) = match context.output_or_error() {
            Some(Ok(_)) => (true, false),
            Some(Err(e)) => (false, e.as_connector_error().is_some_and(|e| never_connected(e))),
            None => (false, false),
        };
        // A refusal (4xx) is an answer; a failure of the service's own (5xx) says nothing about what it did before.
        let refused = context.response().is_some_and(|response| response.status().is_client_error());
        let unknown = self.0.sent.load(Ordering::SeqCst) && !succeeded && !refused && !never_sent;
        self.0.last_is_unknown.store(unknown, Ordering::SeqCst);
        Ok(())
    }
}

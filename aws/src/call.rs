//! [`AwsCall`]: one call of the SDK, without a tracing subscriber and with a record of its
//! attempts.

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

/// Polls a future of the SDK without a tracing subscriber, because at level TRACE the SDK writes
/// whole requests, including keys.
pub async fn quietly<F: Future>(future: F) -> F::Output {
    future.with_subscriber(NoSubscriber::default()).await
}

/// One call of the SDK. Pass [`attempts`](Self::attempts) to the request's
/// `customize().interceptor(..)`, then pass the future of `send()` to [`run`](Self::run).
///
/// [`AwsIdentity::call`](crate::AwsIdentity::call) creates one with the credentials of a store.
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

    /// Makes the call, after its credentials are loaded. `own` is the backend's table from error
    /// codes to kinds, which is consulted before the common one.
    ///
    /// Each attempt emits an event at its end, at level DEBUG and with the target `keystead_aws`,
    /// to the subscriber of the thread that first polls this future. Its fields are `service`,
    /// `operation`, `attempt` and `duration_ms`; `status`, `code` and `request_id` if they are
    /// known; and `reason` if the attempt failed. No field depends on an id, a name or a value.
    ///
    /// # Errors
    /// The part of the `SdkError` or the `CredentialsError` that may be kept. The rest is dropped.
    pub async fn run<T, E: ProvideErrorMetadata + StdError + Send + Sync + 'static>(
        &self,
        service: Service,
        own: fn(&str) -> Option<ErrorKind>,
        future: impl Future<Output = Result<T, SdkError<E, HttpResponse>>>,
    ) -> Result<T, AwsFailure> {
        if let Some(session) = &self.session {
            session.credentials().await.map_err(|e| {
                let failure = AwsFailure::without_credentials(service, e);
                // A throttled write runs several times under one call, so an earlier run may have
                // been sent.
                if self.attempts.any_may_have_applied() { failure.partly_applied() } else { failure }
            })?;
        }
        let record = &self.attempts.0;
        record.trace.listen::<E>();
        let _reported = ReportDrop(&record.trace);
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

/// Reports an attempt as dropped if the call is dropped while the attempt is in progress.
struct ReportDrop<'a>(&'a Trace);

impl Drop for ReportDrop<'_> {
    fn drop(&mut self) {
        self.0.call_ends();
    }
}

/// The record of the attempts of one call.
///
/// It tells which attempts were sent and got no answer. Such an attempt may have been applied, and
/// the answer to the next one may be a consequence of it.
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
    /// Reports whether an attempt before the last one may have been applied.
    pub fn earlier_attempt_may_have_applied(&self) -> bool {
        self.0.earlier_is_unknown.load(Ordering::SeqCst)
    }

    /// Reports whether any attempt so far may have been applied.
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
        // A refusal (4xx) says that nothing was applied. An error of the service (5xx) does not say
        // what it did before it failed.
        let refused = context.response().is_some_and(|response| response.status().is_client_error());
        let unknown = self.0.sent.load(Ordering::SeqCst) && !succeeded && !refused && !never_sent;
        self.0.last_is_unknown.store(unknown, Ordering::SeqCst);
        Ok(())
    }
}

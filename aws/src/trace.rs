//! [`Trace`]: emits an event for each attempt of a call to the caller's subscriber.

use std::error::Error as StdError;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use aws_smithy_runtime_api::client::interceptors::context::{Error as OperationError, FinalizerInterceptorContextRef};
use aws_smithy_runtime_api::client::orchestrator::{Metadata, OrchestratorError};
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use tracing::Dispatch;
use tracing::dispatcher::{get_default, with_default};

use crate::connection::never_connected;
use crate::failure::{looks_like_a_code, looks_like_a_request_id};

/// The trace of one call: an event at the end of each attempt, at level DEBUG and with the target
/// `keystead_aws`.
///
/// The SDK's futures run without a subscriber, so the caller's subscriber is remembered before they
/// start. The events are emitted while the call is in progress, so that a call that hangs shows its
/// attempts, and on the caller's thread, so that they are in the caller's span.
#[derive(Debug, Default)]
pub(crate) struct Trace(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    listener: Option<Listener>,
    operation: Option<Metadata>,
    attempts: u32,
    /// The start of the attempt that is in progress.
    begun: Option<Instant>,
}

/// The caller's subscriber, and the function that reads the code from a failed attempt of this
/// operation.
#[derive(Debug)]
struct Listener {
    dispatch: Dispatch,
    code: fn(&OperationError) -> Option<&str>,
}

/// The publishable facts about one attempt.
#[derive(Debug, Default)]
struct Attempt<'a> {
    status: Option<u16>,
    code: Option<&'a str>,
    request_id: Option<&'a str>,
    reason: Option<&'static str>,
}

impl Trace {
    /// Remembers the current thread's subscriber, for a call that fails with errors of type `E`.
    pub(crate) fn listen<E: ProvideErrorMetadata + StdError + Send + Sync + 'static>(&self) {
        self.state().listener = Some(Listener { dispatch: get_default(Dispatch::clone), code: code_of::<E> });
    }

    /// Records the start of an attempt.
    pub(crate) fn attempt_begins(&self, config: &ConfigBag) {
        let mut state = self.state();
        state.operation = config.load::<Metadata>().cloned();
        state.attempts += 1;
        state.begun = Some(Instant::now());
    }

    /// Emits the event of the attempt that has ended.
    pub(crate) fn attempt_ends(&self, context: &FinalizerInterceptorContextRef<'_>) {
        let mut state = self.state();
        let error = context.output_or_error().and_then(Result::err);
        let response = context.response();
        let code = state.listener.as_ref().map(|listener| listener.code);
        let code = error.and_then(OrchestratorError::as_operation_error).and_then(|error| code?(error));
        let attempt = Attempt {
            status: response.map(|response| response.status().as_u16()),
            code: code.filter(|code| looks_like_a_code(code)),
            request_id: response.and_then(RequestId::request_id).filter(|id| looks_like_a_request_id(id)),
            reason: error.map(reason),
        };
        state.emit(&attempt);
    }

    /// Emits the event of an attempt that is in progress when the call is dropped.
    pub(crate) fn call_ends(&self) {
        self.state().emit(&Attempt { reason: Some("the call was dropped"), ..Attempt::default() });
    }

    /// Returns the name of the operation, as soon as there was an attempt.
    pub(crate) fn operation(&self) -> Option<String> {
        self.state().operation.as_ref().map(|operation| operation.name().to_owned())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn emit(&mut self, attempt: &Attempt<'_>) {
        let (Some(begun), Some(listener)) = (self.begun.take(), &self.listener) else { return };
        let operation = self.operation.as_ref();
        with_default(&listener.dispatch, || {
            tracing::debug!(
                target: "keystead_aws",
                service = operation.map(Metadata::service),
                operation = operation.map(Metadata::name),
                attempt = self.attempts,
                status = attempt.status,
                code = attempt.code,
                request_id = attempt.request_id,
                reason = attempt.reason,
                duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
                "attempt",
            );
        });
    }
}

fn code_of<E: ProvideErrorMetadata + StdError + Send + Sync + 'static>(error: &OperationError) -> Option<&str> {
    error.downcast_ref::<E>().and_then(ProvideErrorMetadata::code)
}

/// Returns the reason why an attempt failed, in words of our own.
fn reason(error: &OrchestratorError<OperationError>) -> &'static str {
    match error.as_connector_error() {
        _ if error.is_timeout_error() => "no answer in time",
        Some(e) if e.is_timeout() => "no answer in time",
        Some(e) if never_connected(e) => "no connection",
        Some(_) => "the connection ended",
        None if error.is_operation_error() => "refused",
        None if error.is_response_error() => "the answer cannot be read",
        None => "not sent",
    }
}

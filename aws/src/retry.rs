//! [`RetryRules`]: a backend's additions to the SDK's rules for retries.

use std::fmt;

use aws_smithy_runtime_api::client::interceptors::context::{Error as OperationError, InterceptorContext};
use aws_smithy_runtime_api::client::orchestrator::OrchestratorError;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};

/// A backend's rule for an error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeRule {
    /// Do what the SDK does.
    AsTheSdkDoes,
    /// Try again, with the pauses of a throttled call.
    Retry,
    /// Give up at once.
    GiveUp,
}

/// A retry classifier that runs after the SDK's own.
pub struct RetryRules(fn(&OperationError) -> CodeRule);

impl RetryRules {
    /// Creates rules from a function that downcasts the errors of the backend's operations.
    pub fn new(rule: fn(&OperationError) -> CodeRule) -> Self {
        Self(rule)
    }
}

impl fmt::Debug for RetryRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RetryRules")
    }
}

impl ClassifyRetry for RetryRules {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let error = context.output_or_error().and_then(Result::err).and_then(OrchestratorError::as_operation_error);
        match error.map_or(CodeRule::AsTheSdkDoes, self.0) {
            CodeRule::AsTheSdkDoes => RetryAction::NoActionIndicated,
            CodeRule::Retry => RetryAction::throttling_error(),
            CodeRule::GiveUp => RetryAction::RetryForbidden,
        }
    }

    fn name(&self) -> &'static str {
        "KeysteadRetryRules"
    }
}

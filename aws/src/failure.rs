//! [`AwsFailure`]: the part of an `SdkError` that may be kept.

use std::error::Error as StdError;
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use keystead_core::{Effect, Error, ErrorDetails, ErrorKind, ErrorType, Operation};

use crate::connection::{diagnosis, ended_early, find, never_connected};
use crate::credentials::CredentialsFailure;
use crate::{codes, message};

/// The pause to ask for after a throttled call if the service names none. Quotas are counted per
/// second.
const THROTTLED_PAUSE: Duration = Duration::from_secs(1);

/// The names of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// The store's scheme, for errors.
    pub scheme: &'static str,
    /// The service's name for people, such as "Parameter Store".
    pub name: &'static str,
    /// The service's name in the error map of the Clojure library secret-storage.aws-ssm-ps, such
    /// as "AWSSimpleSystemsManagement".
    pub error_name: &'static str,
}

/// A failed call of the SDK, reduced to strings and numbers of our own. [`during`](Self::during)
/// makes an error of it, once it is known which operation it ends.
#[derive(Clone, Debug)]
pub struct AwsFailure {
    service: Service,
    kind: ErrorKind,
    /// The effect of the last attempt.
    effect: Effect,
    /// True if an attempt before the last one may have been applied.
    ambiguous: bool,
    retry_after: Option<Duration>,
    details: Option<ErrorDetails>,
    /// True if nothing was sent, because there were no credentials.
    lacks_credentials: bool,
    cause: Cause,
}

/// The text that says what failed, why, and what to do. It is the source of the caller's error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct Cause(String);

impl AwsFailure {
    /// Keeps what may be kept of an error, and drops the rest. `called` is AWS's name of the
    /// operation, such as `GetParameter`.
    pub(crate) fn of<E: ProvideErrorMetadata + StdError + 'static>(
        error: SdkError<E, HttpResponse>,
        service: Service,
        own: fn(&str) -> Option<ErrorKind>,
        ambiguous: bool,
        called: Option<&str>,
    ) -> Self {
        match &error {
            SdkError::ServiceError(e) => {
                let text = error.message().filter(|_| codes::message_is_kept(error.code(), own, called));
                Self::answered(e.raw(), error.code(), text, service, own, ambiguous, error.request_id())
            }
            SdkError::ResponseError(e) => {
                let failure = Self::answered(e.raw(), None, None, service, own, ambiguous, error.request_id());
                match error.source().is_some_and(ended_early) {
                    true => failure.cut_short(),
                    false => failure,
                }
            }
            SdkError::TimeoutError(_) => {
                Self::unanswered(service, ErrorKind::Timeout, Effect::Unknown, ambiguous, "did not answer in time")
            }
            SdkError::DispatchFailure(e) => match e.as_connector_error() {
                Some(e) => Self::unsent(service, e, e.is_timeout(), ambiguous),
                None => {
                    Self::unanswered(service, ErrorKind::Unavailable, Effect::Unknown, ambiguous, "was not reached")
                }
            },
            SdkError::ConstructionFailure(_) => match error.source() {
                Some(e) => Self::unsent(service, e, false, ambiguous),
                None => Self::unanswered(service, ErrorKind::Other, Effect::NotApplied, ambiguous, "was not asked"),
            },
            _ => Self::unanswered(service, ErrorKind::Other, Effect::Unknown, ambiguous, "failed in an unknown way"),
        }
    }

    fn answered(
        response: &HttpResponse,
        code: Option<&str>,
        text: Option<&str>,
        service: Service,
        own: fn(&str) -> Option<ErrorKind>,
        ambiguous: bool,
        request_id: Option<&str>,
    ) -> Self {
        let status = response.status();
        let known = code.and_then(|code| own(code).or_else(|| codes::common(code)));
        let kind = known.unwrap_or_else(|| match status.as_u16() {
            200..=299 => ErrorKind::Corrupt,
            429 => ErrorKind::Throttled,
            500..=599 => ErrorKind::Unavailable,
            _ => ErrorKind::Other,
        });
        let code = code.filter(|code| known.is_some() || looks_like_a_code(code));
        let request_id = request_id.filter(|id| looks_like_a_request_id(id));
        let details = ErrorDetails {
            error_code: code.map(str::to_owned),
            error_type: error_type(status.as_u16()),
            status_code: Some(status.as_u16()),
            request_id: request_id.map(str::to_owned),
            service_name: Some(service.error_name.to_owned()),
            message: text.map(|text| message::redacted(text, &[])),
        };
        let what = match code {
            Some(code) => format!("{} answered {code}", service.name),
            None if status.is_success() => format!("{} gave an answer that cannot be read", service.name),
            None => format!("{} answered without a code", service.name),
        };
        Self {
            service,
            kind,
            effect: if status.is_client_error() { Effect::NotApplied } else { Effect::Unknown },
            ambiguous,
            retry_after: retry_after(response),
            cause: Cause(format!("{what}{}: {}", which_answer(&details), advice(kind))),
            details: Some(details),
            lacks_credentials: false,
        }
    }

    /// Returns the failure of a request that was not sent, or not completely.
    fn unsent(service: Service, error: &(dyn StdError + 'static), timed_out: bool, ambiguous: bool) -> Self {
        if let Some(error) = find::<CredentialsError>(error) {
            let failure = Self::without_credentials(service, CredentialsFailure::of(error));
            return Self { ambiguous, ..failure };
        }
        let effect = if never_connected(error) { Effect::NotApplied } else { Effect::Unknown };
        let (kind, what) = match timed_out {
            true => (ErrorKind::Timeout, "did not answer in time"),
            false => (ErrorKind::Unavailable, "could not be reached, or ended the connection"),
        };
        let failure = Self::unanswered(service, kind, effect, ambiguous, what);
        match diagnosis(error) {
            Some((what, advice)) => Self { cause: Cause(format!("{} {what}: {advice}", service.name)), ..failure },
            None => failure,
        }
    }

    /// Returns the failure of a call for which there were no credentials.
    pub(crate) fn without_credentials(service: Service, failure: CredentialsFailure) -> Self {
        Self {
            service,
            kind: failure.kind,
            effect: Effect::NotApplied,
            ambiguous: false,
            retry_after: None,
            details: failure.details.map(|details| *details),
            lacks_credentials: true,
            cause: Cause(failure.text),
        }
    }

    /// Returns the failure of a call that ended before any attempt was sent. If it timed out,
    /// loading the credentials took too long, because nothing else takes time before an attempt.
    pub(crate) fn without_an_attempt(mut self, timed_out: bool) -> Self {
        self.effect = Effect::NotApplied;
        if timed_out {
            let text = "was not called, because AWS credentials were not loaded in time: check what provides them, or \
                        allow more time";
            self.cause = Cause(format!("{} {text}", self.service.name));
        }
        self
    }

    /// Returns the failure of a call whose answer ended before it was complete.
    fn cut_short(mut self) -> Self {
        self.kind = ErrorKind::Unavailable;
        let advice = advice(self.kind);
        self.cause = Cause(format!("the answer of {} ended before it was complete: {advice}", self.service.name));
        self
    }

    fn unanswered(service: Service, kind: ErrorKind, effect: Effect, ambiguous: bool, what: &str) -> Self {
        let cause = Cause(format!("{} {what}: {}", service.name, advice(kind)));
        Self { service, kind, effect, ambiguous, retry_after: None, details: None, lacks_credentials: false, cause }
    }

    /// Returns the failure of a write that was not sent, because its turn would come too late.
    pub(crate) fn held_back(service: Service) -> Self {
        let what = "has throttled writes of this process, and other writes are waiting";
        Self::unanswered(service, ErrorKind::Throttled, Effect::NotApplied, false, what)
    }

    /// Returns the failure of a write that got no answer before its time limit.
    pub(crate) fn out_of_time(service: Service, ambiguous: bool) -> Self {
        Self::unanswered(service, ErrorKind::Timeout, Effect::Unknown, ambiguous, "did not answer in time")
    }

    /// Returns the kind of the failure.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Reports whether nothing was sent, because there were no credentials.
    pub fn lacks_credentials(&self) -> bool {
        self.lacks_credentials
    }

    /// Returns the service's error code, if it gave one.
    pub fn code(&self) -> Option<&str> {
        self.details.as_ref()?.error_code.as_deref()
    }

    /// Reports whether an attempt before the last one may have been applied. The last answer may
    /// then be a consequence of that attempt.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// Reports whether the write may have been applied, by this attempt or an earlier one.
    pub fn may_have_applied(&self) -> bool {
        self.ambiguous || self.effect == Effect::Unknown
    }

    /// Returns the same failure with another kind and advice, for a backend that has found out what
    /// the error code means in this case.
    pub fn with_kind(mut self, kind: ErrorKind, advice: &str) -> Self {
        self.kind = kind;
        self.cause = Cause(match (&self.details, self.code()) {
            (Some(details), Some(code)) => {
                format!("{} answered {code}{}: {advice}", self.service.name, which_answer(details))
            }
            _ => advice.to_owned(),
        });
        self
    }

    /// Returns the pause after which it makes sense to try again, if the service or the backend
    /// names one.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Returns this failure in place of `refusal`, for a call that was made to find out why another
    /// call was refused, and failed itself. The result says of the refused call whether it may have
    /// been applied; everything else is this failure's.
    pub fn in_place_of(mut self, refusal: &Self) -> Self {
        self.effect = refusal.effect;
        self.ambiguous = refusal.ambiguous;
        self
    }

    /// Sets the pause after which it makes sense to try again.
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Returns the same failure, marked as one of a write that another call may already have
    /// applied in part.
    pub fn partly_applied(mut self) -> Self {
        self.ambiguous = true;
        self
    }

    /// Returns the same failure for a caller that has found out that no earlier attempt was
    /// applied. It is no longer ambiguous.
    pub fn settled(mut self) -> Self {
        self.ambiguous = false;
        self
    }

    /// Returns the error to give to the caller. The `sensitive` texts, such as the id and the name
    /// that contains it, are removed from AWS's message.
    pub fn during(self, operation: Operation, sensitive: &[&str]) -> Error {
        let is_write = !matches!(operation, Operation::Get | Operation::List | Operation::Check | Operation::Open);
        let effect = if is_write && self.may_have_applied() { Effect::Unknown } else { Effect::NotApplied };
        let mut error =
            Error::new(self.kind, operation, self.service.scheme).with_effect(effect).with_source(self.cause);
        let usual_pause = (self.kind == ErrorKind::Throttled).then_some(THROTTLED_PAUSE);
        if let Some(pause) = self.retry_after.or(usual_pause) {
            error = error.with_retry_after(pause);
        }
        match self.details {
            Some(mut details) => {
                details.message = details.message.map(|text| message::redacted(&text, sensitive));
                error.with_details(details)
            }
            None => error,
        }
    }
}

/// Returns the pause that the service asks for: in AWS's header in milliseconds, or in the standard
/// header in seconds (RFC 9110, section 10.2.3).
fn retry_after(response: &HttpResponse) -> Option<Duration> {
    let number = |name: &str| response.headers().get(name)?.trim().parse::<u32>().ok().map(u64::from);
    number("x-amz-retry-after").map(Duration::from_millis).or_else(|| number("retry-after").map(Duration::from_secs))
}

/// Returns the status and the request id in parentheses, as far as they are known.
fn which_answer(details: &ErrorDetails) -> String {
    let status = details.status_code.map(|status| format!("HTTP {status}"));
    let request = details.request_id.as_ref().map(|id| format!("request {id}"));
    match (status, request) {
        (Some(status), Some(request)) => format!(" ({status}, {request})"),
        (Some(only), None) | (None, Some(only)) => format!(" ({only})"),
        (None, None) => String::new(),
    }
}

/// Returns which side caused an answer with this status.
pub(crate) fn error_type(status: u16) -> Option<ErrorType> {
    match status {
        400..=499 => Some(ErrorType::Client),
        500..=599 => Some(ErrorType::Service),
        _ => None,
    }
}

pub(crate) fn looks_like_a_code(code: &str) -> bool {
    code.len() <= 64
        && code.starts_with(|c: char| c.is_ascii_uppercase())
        && code.bytes().all(|b| b.is_ascii_alphabetic())
}

pub(crate) fn looks_like_a_request_id(id: &str) -> bool {
    id.len() <= 64 && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::NotFound => "there is no such key",
        ErrorKind::AlreadyExists => "a key already exists for this id: read it",
        ErrorKind::PendingDeletion => "the key is scheduled for deletion: restore it, or wait until it is gone",
        ErrorKind::PermissionDenied => "allow this identity the action, on the resource and on the KMS key",
        ErrorKind::Unauthenticated => "renew the credentials of this process, and check its clock",
        ErrorKind::KeyUnavailable => "enable the KMS key, or name one that exists in this region and may be used",
        ErrorKind::QuotaExceeded => "raise the quota, or use a tier or a backend that holds more",
        ErrorKind::Conflict => "another write to the same key is in progress: try again",
        ErrorKind::Throttled => "there are too many calls: slow down, or raise the quota",
        ErrorKind::Unavailable => "try again; if this persists, check the network and the service's health page",
        ErrorKind::Timeout => "try again; if this persists, check the network, or allow more time",
        ErrorKind::Config => "the request was refused as invalid: check the store's configuration",
        ErrorKind::Corrupt => "nothing is known about the key: try again, and check the proxies between here and AWS",
        _ => "look the code up in the service's API reference",
    }
}

//! [`CredentialsFailure`]: the part of a `CredentialsError` that may be kept.
//!
//! The texts below a `CredentialsError` can quote anything: the standard error of a process, the
//! path of a file, a URL, the answer of a service. They are therefore compared with the SDK's fixed
//! texts and dropped. The parts that are kept are a sentence of our own, the names of the provider
//! and the profile, and the code, status and request id of an AWS service.

use std::error::Error as StdError;
use std::time::Duration;

use aws_config::imds::client::error::{ImdsError, TokenError};
use aws_config::meta::ProviderChainError;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sts::operation::assume_role::AssumeRoleError;
use aws_sdk_sts::operation::assume_role_with_web_identity::AssumeRoleWithWebIdentityError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::request_id::RequestId;
use keystead_core::{ErrorDetails, ErrorKind};

use crate::connection::{diagnosis, levels};
use crate::failure::{error_type, looks_like_a_code, looks_like_a_request_id};
use crate::{codes, texts};

/// A call of an AWS service that provides credentials.
struct CredentialsCall {
    /// The call's name for people.
    name: &'static str,
    /// The service's name in error details.
    service: &'static str,
    /// The remedy if the call is refused.
    advice: &'static str,
}

const ASSUME_ROLE: CredentialsCall = CredentialsCall {
    name: "AssumeRole of AWS STS",
    service: "AWSSecurityTokenService",
    advice: "allow this identity to assume the role, and name this identity in the role's trust policy",
};

const ASSUME_ROLE_WITH_WEB_IDENTITY: CredentialsCall = CredentialsCall {
    name: "AssumeRoleWithWebIdentity of AWS STS",
    service: "AWSSecurityTokenService",
    advice: "check the token that AWS_WEB_IDENTITY_TOKEN_FILE names, and the role's trust policy",
};

/// A failure to load credentials, in words of our own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct CredentialsFailure {
    pub(crate) kind: ErrorKind,
    pub(crate) details: Option<Box<ErrorDetails>>,
    pub(crate) text: String,
    /// True if the SDK told the reason with an earlier failure, and does not repeat it.
    pub(crate) was_told_before: bool,
}

impl CredentialsFailure {
    /// Keeps what may be kept of an error.
    pub(crate) fn of(error: &CredentialsError) -> Self {
        if let Some(own) = levels(error).find_map(|cause| cause.downcast_ref::<Self>()) {
            return own.clone();
        }
        // Providers wrap each other's errors. The innermost one has the reason.
        let error = levels(error).filter_map(|cause| cause.downcast_ref::<CredentialsError>()).last().unwrap_or(error);
        levels(error).skip(1).find_map(Self::of_cause).unwrap_or_else(|| Self::of_variant(error))
    }

    /// Returns the failure of a provider that did not answer within this time.
    pub(crate) fn timed_out(timeout: Duration) -> Self {
        let text = format!(
            "no AWS credentials were provided within {timeout:?}: try again; if this persists, check the network and \
             what provides the credentials, or set a longer credentials_timeout"
        );
        Self::new(ErrorKind::Timeout, text)
    }

    /// Returns the failure of a load that ended together with its runtime.
    pub(crate) fn interrupted() -> Self {
        Self::new(ErrorKind::Unavailable, "loading the AWS credentials was interrupted: try again")
    }

    fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, details: None, text: text.into(), was_told_before: false }
    }

    /// Returns the failure of an error of which only the variant is known.
    fn of_variant(error: &CredentialsError) -> Self {
        match error {
            CredentialsError::CredentialsNotLoaded(_) => Self::new(
                ErrorKind::Unauthenticated,
                "no AWS credentials were found: give this process some (environment, profile or role)",
            ),
            CredentialsError::ProviderTimedOut(e) => Self::timed_out(e.timeout_duration()),
            CredentialsError::InvalidConfiguration(_) => Self::new(
                ErrorKind::Config,
                "the provider of AWS credentials is configured wrongly: check the environment and the profile",
            ),
            CredentialsError::ProviderError(_) => Self::new(
                ErrorKind::Unauthenticated,
                "the provider of AWS credentials failed: check the environment and the profile",
            ),
            _ => Self::new(
                ErrorKind::Unauthenticated,
                "the provider of AWS credentials failed for an unknown reason: find it with the AWS CLI \
                 (aws sts get-caller-identity)",
            ),
        }
    }

    /// Returns the failure for a cause of an error, if the cause is a known one.
    fn of_cause(cause: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(chain) = cause.downcast_ref::<ProviderChainError<CredentialsError>>() {
            return Some(Self::of_chain(chain));
        }
        if let Some(status) = metadata_status(cause) {
            return Some(Self::of_status("the instance metadata service", status));
        }
        if let Some(error) = cause.downcast_ref::<ConnectorError>() {
            return Some(Self::of_connection(error));
        }
        Self::of_answer::<AssumeRoleError>(cause, &ASSUME_ROLE)
            .or_else(|| Self::of_answer::<AssumeRoleWithWebIdentityError>(cause, &ASSUME_ROLE_WITH_WEB_IDENTITY))
            .or_else(|| of_sso(cause))
            .or_else(|| Self::of_text(&cause.to_string()))
    }

    /// Returns the failure for a refusal by an AWS service.
    fn of_answer<E>(cause: &(dyn StdError + 'static), call: &CredentialsCall) -> Option<Self>
    where
        E: ProvideErrorMetadata + StdError + 'static,
    {
        let error: &SdkError<E, HttpResponse> = cause.downcast_ref()?;
        let SdkError::ServiceError(answer) = error else { return None };
        let status = answer.raw().status().as_u16();
        let code = error.code().filter(|code| looks_like_a_code(code));
        let kind = match code.and_then(kind_of_code) {
            // The store's call lacks credentials then, whichever service refused them.
            Some(ErrorKind::PermissionDenied) => ErrorKind::Unauthenticated,
            Some(kind) => kind,
            None => kind_of_status(status),
        };
        let advice = match kind {
            ErrorKind::Unauthenticated => call.advice,
            ErrorKind::Config => "correct the role and its settings",
            _ => "try again; if this persists, check the service's health page",
        };
        let request_id = error.request_id().filter(|id| looks_like_a_request_id(id));
        let request = request_id.map_or_else(String::new, |id| format!(", request {id}"));
        let code_or_none = code.unwrap_or("no code");
        let name = call.name;
        let text = format!("no AWS credentials: {name} answered {code_or_none} (HTTP {status}{request}): {advice}");
        let details = ErrorDetails {
            error_code: code.map(str::to_owned),
            error_type: error_type(status),
            status_code: Some(status),
            request_id: request_id.map(str::to_owned),
            service_name: Some(call.service.to_owned()),
            message: None,
        };
        Some(Self { details: Some(Box::new(details)), ..Self::new(kind, text) })
    }

    /// Returns the failure for the status of an endpoint without an AWS protocol.
    fn of_status(who: &str, status: u16) -> Self {
        let kind = kind_of_status(status);
        let advice = match kind {
            ErrorKind::Unauthenticated => "check the role that is attached here, and the token that is sent",
            _ => "try again; if this persists, check its log",
        };
        Self::new(kind, format!("no AWS credentials: {who} answered HTTP {status}: {advice}"))
    }

    /// Returns the failure of a connection to a service that provides credentials.
    fn of_connection(error: &ConnectorError) -> Self {
        let kind = if error.is_timeout() { ErrorKind::Timeout } else { ErrorKind::Unavailable };
        let (what, advice) =
            diagnosis(error).unwrap_or(("could not be reached", "try again; if this persists, check the network"));
        Self::new(kind, format!("no AWS credentials: the service that provides them {what}: {advice}"))
    }

    /// Returns the failure of a chain of providers, with the reason of each.
    fn of_chain(chain: &ProviderChainError<CredentialsError>) -> Self {
        let mut tried = Vec::new();
        let mut advice = "give this process some (environment, profile or role)";
        for attempt in chain.attempts() {
            let reason = levels(attempt.error()).skip(1).find_map(|cause| texts::reason(&cause.to_string()));
            if reason.as_ref().is_some_and(|reason| reason.is_about_a_profile) {
                advice = "correct AWS_PROFILE, or the profile";
            }
            let name = if texts::is_plain_name(attempt.name()) { attempt.name() } else { "a provider" };
            tried.push(format!("{name}: {}", reason.map_or_else(|| "none".to_owned(), |reason| reason.text)));
        }
        let text = format!("no AWS credentials were found ({}): {advice}", tried.join("; "));
        Self::new(ErrorKind::Unauthenticated, text)
    }

    /// Returns the failure for a fixed text of the SDK.
    fn of_text(text: &str) -> Option<Self> {
        if text == texts::TOLD_BEFORE {
            let text = "the AWS profile cannot be used: correct it, and start this process again";
            return Some(Self { was_told_before: true, ..Self::new(ErrorKind::Config, text) });
        }
        if let Some(status) = texts::status_of_the_container(text) {
            return Some(Self::of_status("the container's credentials endpoint", status));
        }
        if let Some(status) = texts::exit_status(text) {
            let what = format!("no AWS credentials: credential_process ended with exit status {status}");
            return Some(Self::new(ErrorKind::Unauthenticated, format!("{what}: run its command by hand")));
        }
        if let Some(feature) = texts::missing_feature(text) {
            let what = format!(
                "the AWS profile needs the Cargo feature {feature} of keystead, which this build does not have"
            );
            return Some(Self::new(ErrorKind::Config, format!("{what}: enable it, or use another profile")));
        }
        let (kind, sentence) = texts::known(text)?;
        Some(Self::new(kind, sentence))
    }
}

/// Returns the status that the instance metadata service answered.
fn metadata_status(cause: &(dyn StdError + 'static)) -> Option<u16> {
    if let Some(ImdsError::ErrorResponse(answer)) = cause.downcast_ref() {
        return Some(answer.response().status().as_u16());
    }
    match cause.downcast_ref::<SdkError<TokenError, HttpResponse>>()? {
        SdkError::ServiceError(answer) => Some(answer.raw().status().as_u16()),
        _ => None,
    }
}

/// Returns the failure for a refusal by AWS IAM Identity Center.
#[cfg(feature = "sso")]
fn of_sso(cause: &(dyn StdError + 'static)) -> Option<CredentialsFailure> {
    use aws_sdk_sso::operation::get_role_credentials::GetRoleCredentialsError;

    const GET_ROLE_CREDENTIALS: CredentialsCall = CredentialsCall {
        name: "GetRoleCredentials of AWS IAM Identity Center",
        service: "AWSSSOPortalService",
        advice: "run aws sso login, and check sso_account_id and sso_role_name of the profile",
    };
    CredentialsFailure::of_answer::<GetRoleCredentialsError>(cause, &GET_ROLE_CREDENTIALS)
}

#[cfg(not(feature = "sso"))]
fn of_sso(_: &(dyn StdError + 'static)) -> Option<CredentialsFailure> {
    None
}

fn kind_of_code(code: &str) -> Option<ErrorKind> {
    match code {
        // STS could not reach the identity provider, and asks the caller to try again.
        "IDPCommunicationError" | "IDPCommunicationErrorException" => Some(ErrorKind::Unavailable),
        _ => codes::common(code),
    }
}

fn kind_of_status(status: u16) -> ErrorKind {
    match status {
        429 => ErrorKind::Throttled,
        500..=599 => ErrorKind::Unavailable,
        _ => ErrorKind::Unauthenticated,
    }
}

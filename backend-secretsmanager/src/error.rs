//! The table from Secrets Manager's error codes to kinds of errors, and the errors about damaged
//! answers.

use aws_sdk_secretsmanager::error::ProvideErrorMetadata;
use aws_sdk_secretsmanager::operation::create_secret::CreateSecretError;
use aws_sdk_secretsmanager::operation::delete_secret::DeleteSecretError;
use aws_sdk_secretsmanager::operation::put_secret_value::PutSecretValueError;
use aws_sdk_secretsmanager::operation::update_secret::UpdateSecretError;
use keystead_aws::{CodeRule, RetryRules, Service, is_throttling};
use keystead_core::{Error, ErrorKind, Operation};

pub(crate) const SCHEME: &str = "secretsmanager";

pub(crate) const SERVICE: Service =
    Service { scheme: SCHEME, name: "Secrets Manager", error_name: "AWSSecretsManager" };

/// The code for a secret that is scheduled for deletion, managed by another service, or in another
/// state in which a call is refused. [`refine_error`](crate::description::refine_error) finds out
/// which.
pub(crate) const INVALID_REQUEST: &str = "InvalidRequestException";

/// The code for invalid parameters, including some that are invalid only for a secret with replicas
/// or for a replica.
pub(crate) const INVALID_PARAMETER: &str = "InvalidParameterException";

/// Returns the kind of a code that is Secrets Manager's own.
pub(crate) fn kind(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "ResourceNotFoundException" => ErrorKind::NotFound,
        "ResourceExistsException" => ErrorKind::AlreadyExists,
        "DecryptionFailure" | "EncryptionFailure" => ErrorKind::KeyUnavailable,
        "LimitExceededException" => ErrorKind::QuotaExceeded,
        INVALID_REQUEST
        | "InvalidNextTokenException"
        | "MalformedPolicyDocumentException"
        | "PreconditionNotMetException"
        | "PublicPolicyException" => ErrorKind::Config,
        _ => return None,
    })
}

/// Does not retry when a hard quota is reached, although the SDK takes its code for throttling.
/// Throttled writes are left to [`WritePace`](keystead_aws::WritePace).
pub(crate) fn retry_rules() -> RetryRules {
    RetryRules::new(|error| {
        let created = error.downcast_ref::<CreateSecretError>().and_then(|error| error.code());
        let put = error.downcast_ref::<PutSecretValueError>().and_then(|error| error.code());
        let deleted = error.downcast_ref::<DeleteSecretError>().and_then(|error| error.code());
        let updated = error.downcast_ref::<UpdateSecretError>().and_then(|error| error.code());
        match created.or(put).or(deleted).or(updated) {
            Some("LimitExceededException") => CodeRule::GiveUp,
            Some(code) if is_throttling(code) => CodeRule::GiveUp,
            _ => CodeRule::AsTheSdkDoes,
        }
    })
}

/// Returns the error for a secret that is not a key of ours. `request_id` is the request id of the
/// answer.
pub(crate) fn corrupt(text: &'static str, request_id: Option<&str>) -> Error {
    let advice = "look at the secret; only a put or a delete of this key changes it";
    SERVICE.corrupt(format!("{text}: {advice}"), request_id)
}

/// Returns the error for a secret that a batch lists as missing.
pub(crate) fn missing_in_batch(request_id: Option<&str>) -> Error {
    SERVICE.missing_in_batch(Operation::Get, "ResourceNotFoundException", request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_secrets_manager_has_its_kind() {
        for (code, expected) in [
            ("ResourceNotFoundException", ErrorKind::NotFound),
            ("ResourceExistsException", ErrorKind::AlreadyExists),
            ("InvalidRequestException", ErrorKind::Config),
            ("DecryptionFailure", ErrorKind::KeyUnavailable),
            ("EncryptionFailure", ErrorKind::KeyUnavailable),
            ("LimitExceededException", ErrorKind::QuotaExceeded),
            ("InvalidNextTokenException", ErrorKind::Config),
            ("MalformedPolicyDocumentException", ErrorKind::Config),
            ("PreconditionNotMetException", ErrorKind::Config),
            ("PublicPolicyException", ErrorKind::Config),
        ] {
            assert_eq!(kind(code), Some(expected), "{code}");
        }
        assert_eq!(kind("ThrottlingException"), None);
    }
}

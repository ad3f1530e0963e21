//! The table from Parameter Store's error codes to kinds of errors, and the errors about damaged
//! answers.

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::operation::delete_parameter::DeleteParameterError;
use aws_sdk_ssm::operation::delete_parameters::DeleteParametersError;
use aws_sdk_ssm::operation::put_parameter::PutParameterError;
use keystead_aws::{AwsFailure, CodeRule, RetryRules, Service, is_throttling};
use keystead_core::{Error, ErrorDetails, ErrorKind, Operation};

pub(crate) const SCHEME: &str = "ssm";

pub(crate) const SERVICE: Service =
    Service { scheme: SCHEME, name: "Parameter Store", error_name: "AWSSimpleSystemsManagement" };

/// The code for a put that would make Parameter Store drop a version with a label (`PutParameter`,
/// Errors). Raising a quota does not help.
const MAX_VERSIONS: &str = "ParameterMaxVersionLimitExceeded";

const MOVE_LABEL: &str = "no version can be added to the parameter, because the oldest of its 100 versions has a \
                          label: move the label to a newer version, or remove the label";

/// Returns the kind of a code that is Parameter Store's own.
pub(crate) fn kind(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "ParameterNotFound" | "ParameterVersionNotFound" => ErrorKind::NotFound,
        "ParameterAlreadyExists" => ErrorKind::AlreadyExists,
        // This code also means that the KMS key is disabled or pending deletion.
        "InvalidKeyId" => ErrorKind::KeyUnavailable,
        "ParameterLimitExceeded" | MAX_VERSIONS => ErrorKind::QuotaExceeded,
        "TooManyUpdates" => ErrorKind::Conflict,
        "HierarchyLevelLimitExceededException"
        | "HierarchyTypeMismatchException"
        | "IncompatiblePolicyException"
        | "InvalidAllowedPatternException"
        | "InvalidFilterKey"
        | "InvalidFilterOption"
        | "InvalidFilterValue"
        | "InvalidNextToken"
        | "InvalidPolicyAttributeException"
        | "InvalidPolicyTypeException"
        | "ParameterPatternMismatchException"
        | "PoliciesLimitExceededException"
        | "UnsupportedParameterType" => ErrorKind::Config,
        _ => return None,
    })
}

/// Retries rapid or concurrent updates of one parameter, which are refused for a moment only, but
/// which the SDK takes for final. Throttled writes are left to
/// [`WritePace`](keystead_aws::WritePace).
pub(crate) fn retry_rules() -> RetryRules {
    RetryRules::new(|error| {
        let put = error.downcast_ref::<PutParameterError>().and_then(|error| error.code());
        let deleted = error.downcast_ref::<DeleteParameterError>().and_then(|error| error.code());
        let many_deleted = error.downcast_ref::<DeleteParametersError>().and_then(|error| error.code());
        match put.or(deleted).or(many_deleted) {
            Some("TooManyUpdates") => CodeRule::Retry,
            Some(code) if is_throttling(code) => CodeRule::GiveUp,
            _ => CodeRule::AsTheSdkDoes,
        }
    })
}

/// Returns the refusal of a put with advice for its code, if the advice for its kind would be
/// wrong.
pub(crate) fn advised(refusal: AwsFailure) -> AwsFailure {
    match refusal.code() {
        Some(MAX_VERSIONS) => refusal.with_kind(ErrorKind::QuotaExceeded, MOVE_LABEL),
        _ => refusal,
    }
}

/// Returns the error for a parameter that is not a key of ours. `request_id` is the request id of
/// the answer.
pub(crate) fn corrupt(text: &'static str, request_id: Option<&str>) -> Error {
    let advice = "look at the parameter; only a put or a delete of this key changes it";
    SERVICE.corrupt(format!("{text}: {advice}"), request_id)
}

/// Returns the error for a parameter without a value, with the code of the Clojure library.
pub(crate) fn no_value(request_id: Option<&str>) -> Error {
    let code = Some("CryptKeyNotFound".to_owned());
    let details = ErrorDetails { error_code: code, ..SERVICE.details_of_answer(request_id) };
    corrupt("the answer contains no value", request_id).with_details(details)
}

/// Returns the error for a name that a batch lists as missing.
pub(crate) fn missing_in_batch(operation: Operation, request_id: Option<&str>) -> Error {
    SERVICE.missing_in_batch(operation, "ParameterNotFound", request_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_parameter_store_has_its_kind() {
        for (code, expected) in [
            ("ParameterNotFound", ErrorKind::NotFound),
            ("ParameterVersionNotFound", ErrorKind::NotFound),
            ("ParameterAlreadyExists", ErrorKind::AlreadyExists),
            ("InvalidKeyId", ErrorKind::KeyUnavailable),
            ("ParameterLimitExceeded", ErrorKind::QuotaExceeded),
            ("ParameterMaxVersionLimitExceeded", ErrorKind::QuotaExceeded),
            ("TooManyUpdates", ErrorKind::Conflict),
            ("HierarchyLevelLimitExceededException", ErrorKind::Config),
            ("HierarchyTypeMismatchException", ErrorKind::Config),
            ("IncompatiblePolicyException", ErrorKind::Config),
            ("InvalidAllowedPatternException", ErrorKind::Config),
            ("InvalidFilterKey", ErrorKind::Config),
            ("InvalidFilterOption", ErrorKind::Config),
            ("InvalidFilterValue", ErrorKind::Config),
            ("InvalidNextToken", ErrorKind::Config),
            ("InvalidPolicyAttributeException", ErrorKind::Config),
            ("InvalidPolicyTypeException", ErrorKind::Config),
            ("ParameterPatternMismatchException", ErrorKind::Config),
            ("PoliciesLimitExceededException", ErrorKind::Config),
            ("UnsupportedParameterType", ErrorKind::Config),
        ] {
            assert_eq!(kind(code), Some(expected), "{code}");
        }
        assert_eq!(kind("ThrottlingException"), None);
    }
}

//! The table from Parameter Store's codes to what callers get, and from what is wrong with an answer.

use aws_sdk_ssm::error::ProvideErrorMetadata;
use aws_sdk_ssm::operation::delete_parameter::DeleteParameterError;
use aws_sdk_ssm::operation::delete_parameters::DeleteParametersError;
use aws_sdk_ssm::operation::put_parameter::PutParameterError;
use keystead_aws::{CodeRule, RetryRules, Service, is_throttling};
use keystead_core::{Error, ErrorDetails, ErrorKind, ErrorType, Operation};

pub(crate) const SCHEME: &str = "ssm";

pub(crate) const SERVICE: Service =
    Service { scheme: SCHEME, name: "Parameter Store", error_name: "AWSSimpleSystemsManagement" };

/// Kinds of the codes that are Parameter Store's own.
pub(crate) fn kind(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "ParameterNotFound" | "ParameterVersionNotFound" => ErrorKind::NotFound,
        "ParameterAlreadyExists" => ErrorKind::AlreadyExists,
        // Also of a key that is disabled or pending deletion.
        "InvalidKeyId" => ErrorKind::KeyUnavailable,
        "ParameterLimitExceeded" | "ParameterMaxVersionLimitExceeded" => ErrorKind::QuotaExceeded,
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

/// Rapid or concurrent updates of one parameter are refused for a moment, which the SDK takes for
/// final. Writes that are throttled are left to [`WritePace`](keystead_aws::WritePace).
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

/// What stands in our place is no key of ours.
pub(crate) fn corrupt(text: &'static str) -> Error {
    let advice = "look at the parameter; it is not changed unless this key is put or deleted";
    Error::new(ErrorKind::Corrupt, Operation::Get, SCHEME).with_source(format!("{text}: {advice}"))
}

/// A parameter without a value, in the origin's word.
pub(crate) fn no_value() -> Error {
    let details = ErrorDetails {
        error_code: Some("CryptKeyNotFound".to_owned()),
        service_name: Some(SERVICE.error_name.to_owned()),
        ..ErrorDetails::default()
    };
    corrupt("the answer holds no value").with_details(details)
}

/// A name among those that a batch did not find.
pub(crate) fn missing_in_batch(operation: Operation, request_id: Option<&str>) -> Error {
    let details = ErrorDetails {
        error_code: Some("ParameterNotFound".to_owned()),
        error_type: Some(ErrorType::Client),
        request_id: request_id.map(str::to_owned),
        service_name: Some(SERVICE.error_name.to_owned()),
        ..ErrorDetails::default()
    };
    Error::new(ErrorKind::NotFound, operation, SCHEME)
        .with_details(details)
        .with_source("Parameter Store names it among the parameters that do not exist")
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

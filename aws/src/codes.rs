//! The table from the error codes that all AWS services share to kinds of errors.

use keystead_core::ErrorKind;

/// Returns the kind of an error code that any service may answer.
pub(crate) fn common(code: &str) -> Option<ErrorKind> {
    Some(match code {
        "BandwidthLimitExceeded"
        | "EC2ThrottledException"
        | "PriorRequestNotComplete"
        | "ProvisionedThroughputExceededException"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException"
        | "TransactionInProgressException" => ErrorKind::Throttled,

        "AccessDenied" | "AccessDeniedException" | "NotAuthorized" | "OptInRequired" | "UnauthorizedOperation" => {
            ErrorKind::PermissionDenied
        }

        "AuthFailure"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "InvalidToken"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "TokenRefreshRequired"
        | "UnrecognizedClientException" => ErrorKind::Unauthenticated,

        "InternalError"
        | "InternalFailure"
        | "InternalServerError"
        | "InternalServerException"
        | "InternalServiceError"
        | "InternalServiceErrorException"
        | "RequestTimeout"
        | "RequestTimeoutException"
        | "ServiceUnavailable"
        | "ServiceUnavailableException" => ErrorKind::Unavailable,

        "InvalidAction"
        | "InvalidParameterCombination"
        | "InvalidParameterException"
        | "InvalidParameterValue"
        | "MalformedQueryString"
        | "MissingParameter"
        | "SerializationException"
        | "UnknownOperationException"
        | "ValidationError"
        | "ValidationException" => ErrorKind::Config,
        _ => return None,
    })
}

/// Reports whether an error code says that there are too many calls.
pub fn is_throttling(code: &str) -> bool {
    common(code) == Some(ErrorKind::Throttled)
}

/// Reports whether the message of an error cannot contain a value: because a call of the operation
/// `called` sends none, or because AWS quotes nothing in a message with this code.
pub(crate) fn message_is_kept(code: Option<&str>, own: fn(&str) -> Option<ErrorKind>, called: Option<&str>) -> bool {
    let Some(code) = code else { return false };
    let is_known = own(code).or_else(|| common(code)).is_some();
    called.is_some_and(carries_no_value) || is_known && !may_quote_a_value(code)
}

/// Reports whether a call of this operation sends names, tokens and numbers only.
fn carries_no_value(operation: &str) -> bool {
    ["BatchGet", "Delete", "Describe", "Get", "List"].iter().any(|verb| operation.starts_with(verb))
}

/// Reports whether AWS may quote what was sent, including a value, in a message with this code.
fn may_quote_a_value(code: &str) -> bool {
    common(code) == Some(ErrorKind::Config) || code.starts_with("Invalid") && code.ends_with("Exception")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_common_code_has_its_kind() {
        for (kind, codes) in [
            (
                ErrorKind::Throttled,
                &[
                    "BandwidthLimitExceeded",
                    "EC2ThrottledException",
                    "PriorRequestNotComplete",
                    "ProvisionedThroughputExceededException",
                    "RequestLimitExceeded",
                    "RequestThrottled",
                    "RequestThrottledException",
                    "SlowDown",
                    "ThrottledException",
                    "Throttling",
                    "ThrottlingException",
                    "TooManyRequestsException",
                    "TransactionInProgressException",
                ][..],
            ),
            (
                ErrorKind::PermissionDenied,
                &["AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired", "UnauthorizedOperation"],
            ),
            (
                ErrorKind::Unauthenticated,
                &[
                    "AuthFailure",
                    "ExpiredToken",
                    "ExpiredTokenException",
                    "IncompleteSignature",
                    "IncompleteSignatureException",
                    "InvalidAccessKeyId",
                    "InvalidClientTokenId",
                    "InvalidSignatureException",
                    "InvalidToken",
                    "MissingAuthenticationToken",
                    "MissingAuthenticationTokenException",
                    "RequestExpired",
                    "RequestTimeTooSkewed",
                    "SignatureDoesNotMatch",
                    "TokenRefreshRequired",
                    "UnrecognizedClientException",
                ],
            ),
            (
                ErrorKind::Unavailable,
                &[
                    "InternalError",
                    "InternalFailure",
                    "InternalServerError",
                    "InternalServerException",
                    "InternalServiceError",
                    "InternalServiceErrorException",
                    "RequestTimeout",
                    "RequestTimeoutException",
                    "ServiceUnavailable",
                    "ServiceUnavailableException",
                ],
            ),
            (
                ErrorKind::Config,
                &[
                    "InvalidAction",
                    "InvalidParameterCombination",
                    "InvalidParameterException",
                    "InvalidParameterValue",
                    "MalformedQueryString",
                    "MissingParameter",
                    "SerializationException",
                    "UnknownOperationException",
                    "ValidationError",
                    "ValidationException",
                ],
            ),
        ] {
            for code in codes {
                assert_eq!(common(code), Some(kind), "{code}");
            }
        }
        assert_eq!(common("ParameterNotFound"), None);
    }

    #[test]
    fn messages_to_calls_that_carry_a_value_are_kept_only_where_none_is_quoted() {
        let kept = |code, called| message_is_kept(Some(code), |_| None, Some(called));
        for called in ["GetParameter", "GetParameters", "BatchGetSecretValue", "DeleteSecret", "ListSecrets"] {
            assert!(kept("ValidationException", called) && kept("NewException", called), "{called}");
        }
        for called in ["PutParameter", "PutSecretValue", "CreateSecret", "UpdateSecret"] {
            assert!(kept("AccessDeniedException", called), "{called}");
            assert!(!kept("ValidationException", called) && !kept("InvalidRequestException", called), "{called}");
            assert!(!kept("NewException", called), "{called}");
        }
        assert!(!message_is_kept(Some("ValidationException"), |_| None, None));
        assert!(!message_is_kept(None, |_| None, Some("GetParameter")));
    }
}

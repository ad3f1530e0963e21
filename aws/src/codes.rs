//! The table from the codes that all AWS services share to kinds of errors.

use keystead_core::ErrorKind;

/// The kind of a code that any service may answer.
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

/// Reports whether this code says that there are too many calls.
pub fn is_throttling(code: &str) -> bool {
    common(code) == Some(ErrorKind::Throttled)
}

/// Whether AWS quotes what was sent, a value perhaps, in the message of this code.
pub(crate) fn may_quote_a_value(code: &str) -> bool {
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
}

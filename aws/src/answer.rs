//! Errors about an answer that is not itself an error.

use keystead_core::{BoxError, Error, ErrorDetails, ErrorKind, ErrorType, Operation};

use crate::failure::{Service, looks_like_a_request_id};

/// The status of such an answer.
const OK: u16 = 200;

impl Service {
    /// Returns the details of an error about the contents of an answer with status 200.
    /// `request_id` is the request id of that answer.
    pub fn details_of_answer(self, request_id: Option<&str>) -> ErrorDetails {
        ErrorDetails {
            status_code: Some(OK),
            request_id: request_id.filter(|id| looks_like_a_request_id(id)).map(str::to_owned),
            service_name: Some(self.error_name.to_owned()),
            ..ErrorDetails::default()
        }
    }

    /// Returns the error of a read that found something other than one of our keys.
    pub fn corrupt(self, cause: impl Into<BoxError>, request_id: Option<&str>) -> Error {
        Error::new(ErrorKind::Corrupt, Operation::Get, self.scheme)
            .with_details(self.details_of_answer(request_id))
            .with_source(cause)
    }

    /// Returns the error for a key that the answer of a batch lists as missing. `code` is the code
    /// that the service gives when a call for this key alone finds nothing.
    pub fn missing_in_batch(self, operation: Operation, code: &str, request_id: Option<&str>) -> Error {
        let details = ErrorDetails {
            error_code: Some(code.to_owned()),
            error_type: Some(ErrorType::Client),
            ..self.details_of_answer(request_id)
        };
        Error::new(ErrorKind::NotFound, operation, self.scheme)
            .with_details(details)
            .with_source(format!("{} lists this key among those that do not exist", self.name))
    }
}

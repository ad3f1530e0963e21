//! The details of an error that is about an answer, though the answer itself is no error.

use keystead_core::{ErrorDetails, ErrorType};

use crate::failure::{Service, looks_like_a_request_id};

/// The status of the answers that are no errors.
const OK: u16 = 200;

impl Service {
    /// Returns the details of an error about what an answer with status 200 holds, or does not hold.
    /// `request_id` is that of the answer, as the SDK's trait `RequestId` tells it.
    pub fn details_of_answer(self, request_id: Option<&str>) -> ErrorDetails {
        ErrorDetails {
            status_code: Some(OK),
            request_id: request_id.filter(|id| looks_like_a_request_id(id)).map(str::to_owned),
            service_name: Some(self.error_name.to_owned()),
            ..ErrorDetails::default()
        }
    }

    /// Returns the details of one outcome of a batch that an answer with status 200 gives with this
    /// code.
    pub fn details_of_outcome(self, code: &str, request_id: Option<&str>) -> ErrorDetails {
        ErrorDetails {
            error_code: Some(code.to_owned()),
            error_type: Some(ErrorType::Client),
            ..self.details_of_answer(request_id)
        }
    }
}

//! [`ApiError`]: the failures of a request, and the HTTP answers to them.

use std::error::Error as StdError;
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use axum::Json;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use keystead::{Error, ErrorKind};
use serde_json::json;

/// The pause that a client is asked to make if the store names none.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// The reason why a request failed.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// One of the two stores failed or refused the call.
    Store(Error),
    /// The user has a key, but no profile.
    NoProfile,
    /// The user was erased while the request was under way.
    ErasedMeanwhile,
    /// The stored profile does not decrypt, or the key has the wrong length.
    Cipher,
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

impl From<Unspecified> for ApiError {
    fn from(_: Unspecified) -> Self {
        Self::Cipher
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self {
            Self::Store(error) => store_error(&error),
            Self::NoProfile => answer(StatusCode::NOT_FOUND, "not found"),
            Self::ErasedMeanwhile => answer(StatusCode::GONE, "erased"),
            Self::Cipher => {
                tracing::error!("a profile or its key is damaged, or was written by another program");
                answer(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
            }
        }
    }
}

/// The answer to a failed call of a store. It names the kind of the failure only if the client can
/// do something about it.
fn store_error(error: &Error) -> Response {
    use ErrorKind::{Conflict, Erased, NotFound, Throttled, Timeout, Unavailable};
    match error.kind() {
        Erased => answer(StatusCode::GONE, "erased"),
        NotFound => answer(StatusCode::NOT_FOUND, "not found"),
        Throttled | Unavailable | Timeout => retry_later(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error),
        Conflict => retry_later(StatusCode::CONFLICT, "conflict", error),
        _ => {
            // No error of keystead contains an id, a key or a URL, so all of it can be logged.
            tracing::error!("{}", describe(error));
            answer(StatusCode::INTERNAL_SERVER_ERROR, "internal error")
        }
    }
}

fn retry_later(status: StatusCode, text: &str, error: &Error) -> Response {
    let pause = error.retry_after().unwrap_or(DEFAULT_PAUSE);
    // Rounded up, so that no client comes back too early.
    let seconds = pause.as_secs() + u64::from(pause.subsec_nanos() > 0);
    ([(RETRY_AFTER, seconds.to_string())], answer(status, text)).into_response()
}

fn answer(status: StatusCode, text: &str) -> Response {
    (status, Json(json!({ "error": text }))).into_response()
}

/// Returns an error with all its causes, in one line for the operator.
pub fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(", because {error}"));
        cause = error.source();
    }
    text
}

//! [`Answer`]: answers like AWS's, and the ways in which they can fail to arrive.

use std::convert::Infallible;
use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use hyper::{HeaderMap, Response, StatusCode};
use serde_json::json;

pub(crate) type Body = BoxBody<Bytes, io::Error>;

/// The message of Secrets Manager for a secret that does not exist.
pub(crate) const NO_SECRET: &str = "Secrets Manager can't find the specified secret.";

/// The message of Secrets Manager for a secret without a current version.
pub(crate) const NO_SECRET_VALUE: &str =
    "Secrets Manager can't find the specified secret value for staging label: AWSCURRENT";

/// The message of Secrets Manager for the name of a secret that is scheduled for deletion.
pub(crate) const NAME_IS_SCHEDULED: &str =
    "You can't create this secret because a secret with this name is already scheduled for deletion.";

/// The pause between two bytes of a slow answer.
const SLOW: Duration = Duration::from_millis(10);

/// A complete answer that has not been sent yet.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        let status = StatusCode::from_u16(status).expect("the test gives a valid status");
        Self { status, headers: HeaderMap::new(), body: body.into() }
    }

    /// Creates an error of the JSON protocol.
    pub(crate) fn error(status: u16, code: &str, message: Option<&str>) -> Self {
        let body = match message {
            Some(message) => json!({"__type": code, "message": message}),
            // AWS gives no message for a missing parameter.
            None => json!({"__type": code}),
        };
        Self::new(status, body.to_string())
    }

    /// Creates the refusal of a request that exceeds a quota.
    pub(crate) fn throttled() -> Self {
        Self::error(400, "ThrottlingException", Some("Rate exceeded"))
    }

    pub(crate) fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value.parse().expect("the test bed's headers are valid"));
        self
    }

    /// Returns the code of an error in the JSON protocol.
    pub(crate) fn code(&self) -> Option<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
        let code = body.get("__type")?.as_str()?;
        Some(code.rsplit('#').next().unwrap_or(code).to_owned())
    }

    fn builder(&self) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert("content-type", "application/x-amz-json-1.1".parse().expect("it is valid"));
        headers.extend(self.headers.clone());
        if !headers.contains_key("x-amzn-requestid") {
            let id = "00000000-0000-4000-8000-000000000000";
            headers.insert("x-amzn-requestid", id.parse().expect("it is valid"));
        }
        response
    }

    fn announcing_its_length(&self) -> Response<()> {
        let mut response = self.builder();
        response.headers_mut().insert("content-length", self.body.len().into());
        response
    }

    pub(crate) fn whole(self) -> Response<Body> {
        let response = self.builder();
        let body = Full::new(self.body).map_err(|never: Infallible| match never {}).boxed();
        response.map(|()| body)
    }

    /// Sends half of the body and then ends the connection. The pause in between lets the half be
    /// sent; without it, the connection would end before the status.
    pub(crate) fn truncated(self) -> Response<Body> {
        let half = self.body.slice(..self.body.len() / 2);
        let end = stream::once(Box::pin(async {
            tokio::time::sleep(SLOW).await;
            Err(io::Error::other("cut off"))
        }));
        let body = BodyExt::boxed(StreamBody::new(stream::iter([Ok(Frame::data(half))]).chain(end)));
        self.announcing_its_length().map(|()| body)
    }

    /// Sends the body one byte at a time.
    pub(crate) fn slow(self) -> Response<Body> {
        let response = self.announcing_its_length();
        let bytes = stream::iter(self.body.to_vec()).then(|byte| async move {
            tokio::time::sleep(SLOW).await;
            Ok(Frame::data(Bytes::copy_from_slice(&[byte])))
        });
        response.map(|()| BodyExt::boxed(StreamBody::new(Box::pin(bytes).map(|frame| frame))))
    }
}

//! Calls to the emulator that bypass the proxy, for what our stores would not do.

use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use keystead_core::BoxError;
use serde_json::Value;

/// Makes one call, such as `AmazonSSM.PutParameter`. The emulator does not check the signature.
pub(crate) async fn ask(authority: &str, target: &str, body: &Value) -> Result<Value, BoxError> {
    let service = if target.starts_with("AmazonSSM") { "ssm" } else { "secretsmanager" };
    let scope = format!("AKIDTEST/20260101/us-east-1/{service}/aws4_request");
    let request = Request::post(format!("http://{authority}/"))
        .header("x-amz-target", target)
        .header("content-type", "application/x-amz-json-1.1")
        .header("authorization", format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=none"))
        .body(Full::new(Bytes::from(body.to_string())))?;
    let client = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    match status.is_success() {
        true => Ok(serde_json::from_slice(&body)?),
        false => Err(format!("the emulator refused {target}: {status}").into()),
    }
}

//! The proxy in front of the emulator.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use keystead_conformance::Fault;
use keystead_core::BoxError;
use serde_json::Value;

use crate::answer::{Answer, Body, NAME_IS_SCHEDULED, NO_SECRET, NO_SECRET_VALUE};
use crate::bucket::Buckets;
use crate::fault::{self, Script, ScriptedOutcome};
use crate::log::Log;
use crate::replica::Replica;
use crate::request::AwsRequest;
use crate::rules::Rules;
use crate::strict;

/// The state that the proxy shares with the tests.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) log: Log,
    pub(crate) faults: Script,
    pub(crate) buckets: Buckets,
    pub(crate) replica: Replica,
    pub(crate) rules: Rules,
}

/// Starts the proxy on a thread with a runtime of its own, so that it outlives the runtimes of
/// tests. Returns its port.
pub(crate) fn start(emulator: String, state: Arc<State>) -> Result<u16, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    std::thread::Builder::new().name("aws-testbed-proxy".to_owned()).spawn(move || {
        runtime.block_on(async {
            let proxy = Arc::new(Proxy { emulator, state, client: Client::builder(TokioExecutor::new()).build_http() });
            let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is a good one");
            loop {
                // A connection that ends while it is being accepted is of no interest.
                let Ok((stream, _)) = listener.accept().await else { continue };
                tokio::spawn(serve(stream, proxy.clone()));
            }
        });
    })?;
    Ok(port)
}

async fn serve(stream: tokio::net::TcpStream, proxy: Arc<Proxy>) {
    let service = service_fn(move |request| {
        let proxy = proxy.clone();
        async move { proxy.answer(request).await }
    });
    // Some tests end connections early on purpose.
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
}

struct Proxy {
    emulator: String,
    state: Arc<State>,
    client: Client<HttpConnector, Full<Bytes>>,
}

impl Proxy {
    /// Answers a request. An error ends the connection without an answer.
    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Body>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        let call = AwsRequest::new(&parts.headers, &body);
        self.state.log.add(&call.text, &call.name, &call.body);
        let fault = match self.state.faults.outcome_of(&call, &self.state.replica) {
            Some(ScriptedOutcome::Answer(answer)) => return Ok(answer.whole()),
            Some(ScriptedOutcome::Fault(fault)) => Some(fault),
            None => None,
        };
        match &fault {
            Some(Fault::ResetBeforeSend) => return Err(io::Error::other("reset before the request was looked at")),
            Some(Fault::Silent) => return std::future::pending().await,
            Some(fault) => {
                if let Some(answer) = fault::refusal(fault, &call) {
                    return Ok(answer.whole());
                }
            }
            None => {}
        }
        if self.state.buckets.refuses(&call) {
            return Ok(Answer::throttled().whole());
        }
        let rules = &self.state.rules;
        let answer = match strict::refusal(&call, rules).or_else(|| rules.refusal(&call)) {
            Some(refusal) => refusal,
            // The emulator would write to a secret that is scheduled for deletion. AWS refuses
            // that.
            None if call.name == "PutSecretValue" && self.is_scheduled(&parts.headers, &call).await? => {
                let text = "You can't perform this operation on the secret because it was marked for deletion.";
                Answer::error(400, "InvalidRequestException", Some(text))
            }
            None => {
                let answer = self.corrected(&parts.headers, &call, self.forwarded(&parts.headers, body).await?).await?;
                self.state.replica.remember(&call, &answer);
                rules.remember(&call, &answer);
                answer
            }
        };
        match fault {
            None => Ok(answer.whole()),
            Some(Fault::ResetAfterApply) => Err(io::Error::other("reset after the request took effect")),
            Some(Fault::Truncated) => Ok(answer.truncated()),
            Some(Fault::SlowBody) => Ok(answer.slow()),
            Some(Fault::Garbage) => {
                // The kind of answer that a proxy or a captive portal might give. It quotes the
                // value.
                let text = format!("<html>{}</html>", String::from_utf8_lossy(&answer.body));
                Ok(Answer::new(200, text).whole())
            }
            Some(other) => Err(io::Error::other(format!("the test bed has no fault {other:?}"))),
        }
    }

    async fn forwarded(&self, headers: &HeaderMap, body: Bytes) -> Result<Answer, io::Error> {
        let uri: Uri = format!("http://{}/", self.emulator).parse().map_err(io::Error::other)?;
        let mut request = Request::post(uri).body(Full::new(body)).map_err(io::Error::other)?;
        for name in ["authorization", "content-type", "x-amz-date", "x-amz-target"] {
            if let Some(value) = headers.get(name) {
                request.headers_mut().insert(name, value.clone());
            }
        }
        let response = self.client.request(request).await.map_err(io::Error::other)?;
        let status = response.status();
        let mut headers = HeaderMap::new();
        // The answer is JSON unless the emulator says that it is XML.
        if let Some(kind) = response.headers().get("content-type").filter(|kind| *kind == "text/xml") {
            headers.insert("content-type", kind.clone());
        }
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Answer { status, headers, body })
    }

    /// Returns the emulator's answer, corrected where it is known to differ from AWS's.
    async fn corrected(&self, headers: &HeaderMap, call: &AwsRequest, answer: Answer) -> Result<Answer, io::Error> {
        if answer.status.is_success() && call.name == "ListSecretVersionIds" {
            return self.with_kms_keys(headers, call, answer).await;
        }
        if answer.status.is_success() {
            return Ok(answer);
        }
        let code = answer.code().unwrap_or_default();
        match (call.name.as_str(), code.as_str()) {
            (_, "ParameterNotFound") => Ok(Answer::error(400, &code, None)),
            // The emulator answers with the status 404.
            (_, "ResourceNotFoundException") => {
                let is_there = String::from_utf8_lossy(&answer.body).contains("value for");
                let text = if is_there { NO_SECRET_VALUE } else { NO_SECRET };
                Ok(Answer::error(400, &code, Some(text)))
            }
            // The emulator says that the secret exists. AWS says that it is scheduled for deletion.
            ("CreateSecret", "ResourceExistsException") if self.is_scheduled(headers, call).await? => {
                Ok(Answer::error(400, "InvalidRequestException", Some(NAME_IS_SCHEDULED)))
            }
            _ => Ok(answer),
        }
    }

    /// Adds the KMS key of each version to a list of versions, because the emulator omits it. It is
    /// the secret's own KMS key, as if AWS had been allowed to encrypt all versions under it.
    async fn with_kms_keys(&self, headers: &HeaderMap, call: &AwsRequest, answer: Answer) -> Result<Answer, io::Error> {
        let key = self.described(headers, call).await?["KmsKeyId"].clone();
        let key = if key.is_null() { "DefaultEncryptionKey".into() } else { key };
        let mut body: Value = serde_json::from_slice(&answer.body).map_err(io::Error::other)?;
        for version in body["Versions"].as_array_mut().into_iter().flatten() {
            version["KmsKeyIds"] = serde_json::json!([key]);
        }
        Ok(Answer { body: body.to_string().into(), ..answer })
    }

    async fn is_scheduled(&self, headers: &HeaderMap, call: &AwsRequest) -> Result<bool, io::Error> {
        Ok(!self.described(headers, call).await?["DeletedDate"].is_null())
    }

    /// Returns the description of the secret that a request is about.
    async fn described(&self, headers: &HeaderMap, call: &AwsRequest) -> Result<Value, io::Error> {
        let mut headers = headers.clone();
        headers.insert("x-amz-target", "secretsmanager.DescribeSecret".parse().map_err(io::Error::other)?);
        let body = serde_json::json!({"SecretId": call.first_name()}).to_string();
        let described = self.forwarded(&headers, body.into()).await?;
        Ok(serde_json::from_slice(&described.body).unwrap_or(Value::Null))
    }
}

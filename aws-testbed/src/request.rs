//! [`AwsRequest`]: a request to an AWS service, as far as the test bed parses it.

use hyper::HeaderMap;
use keystead_core::Operation;
use serde_json::Value;

/// A parsed request to an AWS service.
#[derive(Debug)]
pub(crate) struct AwsRequest {
    /// The service, such as `ssm` or `secretsmanager`.
    pub(crate) service: String,
    /// The operation, such as `GetParameter`.
    pub(crate) name: String,
    pub(crate) body: Value,
    pub(crate) text: String,
}

impl AwsRequest {
    pub(crate) fn new(headers: &HeaderMap, body: &[u8]) -> Self {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok()).unwrap_or_default();
        let (service, name) = target.split_once('.').unwrap_or_else(|| query(body));
        let service = match service {
            "AmazonSSM" => "ssm",
            other => other,
        };
        let body_value = serde_json::from_slice(body).unwrap_or(Value::Null);
        let text = String::from_utf8_lossy(body).into_owned();
        Self { service: service.to_owned(), name: name.to_owned(), body: body_value, text }
    }

    /// Returns the store's operation, if the request alone tells it. `None` for a read that a store
    /// makes before it deletes.
    pub(crate) fn operation(&self) -> Option<Operation> {
        Some(match self.name.as_str() {
            "GetParameter" | "GetParameters" | "GetSecretValue" | "BatchGetSecretValue" => Operation::Get,
            "PutParameter" if self.body["Overwrite"] == true => Operation::Put,
            "PutParameter" | "CreateSecret" => Operation::Create,
            "PutSecretValue" => Operation::Put,
            "DeleteParameter" | "DeleteParameters" | "DeleteSecret" => Operation::Delete,
            "GetParametersByPath" | "DescribeParameters" | "ListSecrets" => Operation::List,
            _ => return None,
        })
    }

    /// Returns the first name in the request.
    pub(crate) fn first_name(&self) -> &str {
        let name = ["Name", "SecretId", "Path"].into_iter().find_map(|key| self.body[key].as_str());
        let first = ["Names", "SecretIdList"].into_iter().find_map(|key| self.body[key][0].as_str());
        name.or(first).unwrap_or_default()
    }
}

/// Returns the service and the operation of a request in the query protocol, which only AWS STS
/// uses here.
fn query(body: &[u8]) -> (&str, &str) {
    let text = std::str::from_utf8(body).unwrap_or_default();
    let action = text.split('&').find_map(|pair| pair.strip_prefix("Action="));
    action.map_or(("", ""), |action| ("sts", action))
}

//! [`Replica`]: the answers of a replica that lags.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::answer::{Answer, NO_SECRET};
use crate::request::AwsRequest;

/// The time for which the replica does not see a write. It is shorter than the visibility bound
/// that the harnesses declare.
const LAG: Duration = Duration::from_millis(150);

/// The last write of each name, by service and name.
#[derive(Debug, Default)]
pub(crate) struct Replica(Mutex<HashMap<(String, String), LastWrite>>);

#[derive(Debug)]
struct LastWrite {
    at: Instant,
    before: Option<Entry>,
    now: Option<Entry>,
}

/// The contents of an entry after a write.
#[derive(Clone, Debug)]
struct Entry {
    value: Value,
    /// The id of the version: the request token, if there was one.
    version: Value,
}

/// The state of a name before the last write.
enum Previous {
    Entry(Entry),
    Absent,
}

impl Replica {
    /// Records the writes of a request that got this answer.
    pub(crate) fn remember(&self, call: &AwsRequest, answer: &Answer) {
        if !answer.status.is_success() {
            return;
        }
        let body = &call.body;
        match call.name.as_str() {
            "PutParameter" => self.write(call, call.first_name(), Some(Entry::new(&body["Value"], &Value::Null))),
            "CreateSecret" | "PutSecretValue" => {
                let entry = Entry::new(&body["SecretBinary"], &body["ClientRequestToken"]);
                self.write(call, call.first_name(), Some(entry));
            }
            "DeleteParameter" | "DeleteSecret" => self.write(call, call.first_name(), None),
            "DeleteParameters" => {
                let answer: Value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
                texts(&answer["DeletedParameters"]).for_each(|name| self.write(call, name, None));
            }
            _ => {}
        }
    }

    fn write(&self, call: &AwsRequest, name: &str, entry: Option<Entry>) {
        let mut writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (call.service.clone(), name.to_owned());
        let before = writes.remove(&key).and_then(|last| last.now);
        writes.insert(key, LastWrite { at: Instant::now(), before, now: entry });
    }

    /// Returns the answer of a replica that has not seen the last write. A read returns what was
    /// there before; a delete finds nothing and does nothing. Returns `None` if the request is
    /// neither a read nor a delete, or if the lag of one of its names is over.
    pub(crate) fn answer(&self, call: &AwsRequest) -> Option<Answer> {
        let name = call.first_name();
        let no_secret = || Answer::error(400, "ResourceNotFoundException", Some(NO_SECRET));
        match call.name.as_str() {
            "GetParameter" => Some(match self.before(call, name)? {
                Previous::Entry(entry) => success(&json!({"Parameter": entry.parameter(name)})),
                Previous::Absent => Answer::error(400, "ParameterNotFound", None),
            }),
            "GetParameters" => {
                let mut parameters = Vec::new();
                let mut missing = Vec::new();
                for name in texts(&call.body["Names"]) {
                    match self.before(call, name)? {
                        Previous::Entry(entry) => parameters.push(entry.parameter(name)),
                        Previous::Absent => missing.push(name),
                    }
                }
                Some(success(&json!({"Parameters": parameters, "InvalidParameters": missing})))
            }
            "DeleteParameter" => {
                self.before(call, name)?;
                Some(Answer::error(400, "ParameterNotFound", None))
            }
            "DeleteParameters" => {
                let names: Vec<&str> = texts(&call.body["Names"]).collect();
                names.iter().try_for_each(|name| self.before(call, name).map(drop))?;
                Some(success(&json!({"DeletedParameters": [], "InvalidParameters": names})))
            }
            "GetSecretValue" => Some(match self.before(call, name)? {
                Previous::Entry(entry) => success(&entry.secret(name)),
                Previous::Absent => no_secret(),
            }),
            "BatchGetSecretValue" => {
                let mut secrets = Vec::new();
                let mut missing = Vec::new();
                for name in texts(&call.body["SecretIdList"]) {
                    match self.before(call, name)? {
                        Previous::Entry(entry) => secrets.push(entry.secret(name)),
                        Previous::Absent => missing.push(json!({
                            "SecretId": name, "ErrorCode": "ResourceNotFoundException", "Message": NO_SECRET
                        })),
                    }
                }
                Some(success(&json!({"SecretValues": secrets, "Errors": missing})))
            }
            "DescribeSecret" => Some(match self.before(call, name)? {
                Previous::Entry(entry) => success(&entry.description(name)),
                Previous::Absent => no_secret(),
            }),
            "DeleteSecret" => {
                self.before(call, name)?;
                Some(no_secret())
            }
            _ => None,
        }
    }

    /// Returns the state before the last write, if the lag is not over.
    fn before(&self, call: &AwsRequest, name: &str) -> Option<Previous> {
        let writes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = writes.get(&(call.service.clone(), name.to_owned()))?;
        (last.at.elapsed() < LAG).then(|| last.before.clone().map_or(Previous::Absent, Previous::Entry))
    }
}

impl Entry {
    fn new(value: &Value, version: &Value) -> Self {
        Self { value: value.clone(), version: version.clone() }
    }

    fn parameter(&self, name: &str) -> Value {
        json!({"Name": name, "Type": "SecureString", "Value": self.value, "Version": 1})
    }

    fn secret(&self, name: &str) -> Value {
        json!({"Name": name, "SecretBinary": self.value, "VersionId": self.version})
    }

    fn description(&self, name: &str) -> Value {
        let version = self.version.as_str().unwrap_or("unknown");
        json!({"Name": name, "VersionIdsToStages": {version: ["AWSCURRENT"]}})
    }
}

fn success(body: &Value) -> Answer {
    Answer::new(200, body.to_string())
}

fn texts(names: &Value) -> impl Iterator<Item = &str> {
    names.as_array().into_iter().flatten().filter_map(Value::as_str)
}

//! Faults on demand, by namespace and operation.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use keystead_conformance::{Fault, Faults, Namespace};
use keystead_core::{BoxError, Operation};

use crate::answer::{Answer, NAME_IS_SCHEDULED};
use crate::replica::Replica;
use crate::request::AwsRequest;

/// The scripted faults and answers, each with the requests that it affects.
#[derive(Debug, Default)]
pub(crate) struct Script(Mutex<Vec<Entry>>);

#[derive(Debug)]
struct Entry {
    text: String,
    scripted: Scripted,
    left: u32,
}

#[derive(Debug)]
enum Scripted {
    Fault(Option<Operation>, Fault),
    Answer(String, Answer),
}

/// The scripted outcome of a request.
#[derive(Debug)]
pub(crate) enum ScriptedOutcome {
    Fault(Fault),
    Answer(Answer),
}

impl Script {
    /// Returns the scripted outcome of this request, if there is one, and uses it up once.
    pub(crate) fn outcome_of(&self, call: &AwsRequest, replica: &Replica) -> Option<ScriptedOutcome> {
        let stale = replica.answer(call);
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let applies = |entry: &&mut Entry| {
            let named = match &entry.scripted {
                Scripted::Fault(operation, fault) => {
                    let is_possible = match fault {
                        Fault::Stale => stale.is_some(),
                        Fault::NameHeld => call.name == "CreateSecret",
                        _ => true,
                    };
                    is_possible && operation.is_none_or(|operation| call.operation() == Some(operation))
                }
                Scripted::Answer(name, _) => *name == call.name,
            };
            entry.left > 0 && named && call.text.contains(&entry.text)
        };
        let entry = entries.iter_mut().find(applies)?;
        entry.left -= 1;
        Some(match &entry.scripted {
            Scripted::Fault(_, Fault::Stale) => ScriptedOutcome::Answer(stale?),
            Scripted::Fault(_, Fault::NameHeld) => ScriptedOutcome::Answer(name_held(entry.left)),
            Scripted::Fault(_, fault) => ScriptedOutcome::Fault(fault.clone()),
            Scripted::Answer(_, answer) => ScriptedOutcome::Answer(answer.clone()),
        })
    }

    pub(crate) fn script(&self, operation: &str, text: &str, times: u32, status: u16, body: String) {
        let scripted = Scripted::Answer(operation.to_owned(), Answer::new(status, body));
        self.add(Entry { text: text.to_owned(), scripted, left: times });
    }

    fn add(&self, entry: Entry) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    fn clear(&self, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|entry| entry.text != text);
    }
}

/// Returns the refusal for a fault, in AWS's words as far as they are known, with the resource's
/// ARN if AWS quotes it.
pub(crate) fn refusal(fault: &Fault, call: &AwsRequest) -> Option<Answer> {
    let resource = format!("arn:aws:{}:us-east-1:123456789012:parameter{}", call.service, call.first_name());
    Some(match fault {
        Fault::Throttled { retry_after } => {
            let answer = Answer::throttled();
            match retry_after {
                Some(pause) => answer.with_header("retry-after", &pause.as_secs().to_string()),
                None => answer,
            }
        }
        Fault::Denied => {
            let message = format!(
                "User: arn:aws:iam::123456789012:user/test is not authorized to perform: {}:{} on resource: {resource} \
                 because no identity-based policy allows the action",
                call.service, call.name
            );
            Answer::error(400, "AccessDeniedException", Some(&message))
        }
        Fault::ExpiredCredentials => {
            Answer::error(400, "ExpiredTokenException", Some("The security token included in the request is expired"))
        }
        Fault::KeyUnavailable => {
            let code = match (call.service.as_str(), call.operation()) {
                ("ssm", _) => "InvalidKeyId",
                (_, Some(Operation::Get)) => "DecryptionFailure",
                _ => "EncryptionFailure",
            };
            Answer::error(400, code, Some(&format!("the key for {resource} is disabled")))
        }
        Fault::Refused => {
            let code = if call.service == "ssm" { "ValidationException" } else { "InvalidRequestException" };
            Answer::error(400, code, Some(&format!("You can't delete {resource}: it is managed by another service.")))
        }
        Fault::ServerError => Answer::error(500, "InternalServerError", Some(&format!("failed on {resource}"))),
        _ => return None,
    })
}

/// Returns one of the two ways in which Secrets Manager is known to refuse a name that it is
/// releasing, in turn.
fn name_held(turn: u32) -> Answer {
    match turn % 2 {
        0 => {
            Answer::error(400, "ResourceExistsException", Some("A resource with the ID you requested already exists."))
        }
        _ => Answer::error(400, "InvalidRequestException", Some(NAME_IS_SCHEDULED)),
    }
}

/// The test bed's faults, for a harness of the conformance suite.
#[derive(Debug)]
pub struct BedFaults {
    script: &'static Script,
    call_bound: Duration,
    holds_names: bool,
}

impl BedFaults {
    pub(crate) fn new(script: &'static Script, call_bound: Duration) -> Self {
        Self { script, call_bound, holds_names: false }
    }

    /// Adds [`Fault::NameHeld`], which only Secrets Manager has.
    #[must_use]
    pub fn with_held_names(mut self) -> Self {
        self.holds_names = true;
        self
    }
}

#[async_trait]
impl Faults for BedFaults {
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError> {
        if fault == Fault::NameHeld && !self.holds_names {
            return Ok(false);
        }
        self.script.add(Entry { text: ns.to_string(), scripted: Scripted::Fault(op, fault), left: requests });
        Ok(true)
    }

    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.script.clear(ns.as_str());
        Ok(())
    }

    fn call_bound(&self) -> Duration {
        self.call_bound
    }
}

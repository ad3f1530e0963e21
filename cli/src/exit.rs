//! [`Code`] and [`CommandError`]: the end of a run, for scripts and for people.

use std::error::Error as StdError;
use std::io::{self, Write};
use std::process::ExitCode;

use keystead::{BoxError, Effect, Error, ErrorKind, Operation};
use serde_json::{Value, json};

/// The exit codes, which README.md describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Code {
    Done = 0,
    Other = 1,
    Usage = 2,
    NotFound = 3,
    Refused = 4,
    Denied = 5,
    Unavailable = 6,
    Damaged = 7,
    NotVerified = 8,
    Recoverable = 9,
    ReceiptNotKept = 10,
    /// Something that the command wrote for itself could not be deleted again.
    LeftBehind = 11,
    Interrupted = 130,
    BrokenPipe = 141,
}

impl From<Code> for ExitCode {
    fn from(code: Code) -> Self {
        Self::from(code as u8)
    }
}

impl From<ErrorKind> for Code {
    fn from(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::AlreadyExists | ErrorKind::Erased | ErrorKind::PendingDeletion | ErrorKind::Conflict => {
                Self::Refused
            }
            ErrorKind::InvalidId | ErrorKind::InvalidKey | ErrorKind::Unsupported | ErrorKind::Config => Self::Usage,
            ErrorKind::PermissionDenied | ErrorKind::Unauthenticated | ErrorKind::KeyUnavailable => Self::Denied,
            ErrorKind::Throttled | ErrorKind::Unavailable | ErrorKind::Timeout => Self::Unavailable,
            ErrorKind::Corrupt => Self::Damaged,
            _ => Self::Other,
        }
    }
}

/// The error that ends a command. Its texts contain no key, no id and no URL.
#[derive(Debug)]
pub(crate) struct CommandError {
    code: Code,
    what: String,
    cause: Option<BoxError>,
    /// The error of the store, if a store caused this one.
    store: Option<Error>,
    /// The command's own advice, which follows the advice for the store's error.
    advice: Option<String>,
}

/// The result of a command: an exit code that is an answer, or an error.
pub(crate) type Outcome<T = Code> = Result<T, CommandError>;

impl CommandError {
    pub(crate) fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: None, store: None, advice: None }
    }

    /// Creates an error for a wrong command, configuration or input.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self::new(Code::Usage, what)
    }

    /// Creates an error for something that the tool refuses to do.
    pub(crate) fn refused(what: impl Into<String>) -> Self {
        Self::new(Code::Refused, what)
    }

    /// Creates an error that has no exit code of its own.
    pub(crate) fn other(what: impl Into<String>) -> Self {
        Self::new(Code::Other, what)
    }

    /// Adds the cause.
    pub(crate) fn because(mut self, cause: impl Into<BoxError>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// Adds advice on what to do.
    pub(crate) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }

    /// Creates the error for a failed write to standard output. It is not shown if the reader of a
    /// pipe has gone, as after `| head`.
    pub(crate) fn stdout(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Code::BrokenPipe, ""),
            _ => Self::other("cannot write to standard output").because(e),
        }
    }

    /// Replaces the store's name of an operation on keys by the name of the command that was typed.
    /// Otherwise a failed `put` would be called `create`, which is another command.
    pub(crate) fn of_command(mut self, command: &str) -> Self {
        let Some(error) = &self.store else { return self };
        let operation = error.operation();
        let is_on_keys = matches!(
            operation,
            Operation::Get
                | Operation::Put
                | Operation::Create
                | Operation::Delete
                | Operation::Erase
                | Operation::List
        );
        if is_on_keys && let Some(rest) = self.what.strip_prefix(&operation.to_string()) {
            self.what = format!("{command}{rest}");
        }
        self
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// Writes the error to standard error and returns the exit code.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.code != Code::BrokenPipe {
            let text = if json { format!("{}\n", json!({ "error": self.to_json() })) } else { self.to_text() };
            // If standard error cannot be written, there is still the exit code.
            let _ = io::stderr().write_all(text.as_bytes());
        }
        self.code.into()
    }

    fn to_text(&self) -> String {
        format!("error: {}\n", self.lines().join("\n  "))
    }

    /// Returns what failed, why, and what to do, one line each.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.what.clone()];
        let causes = self.causes();
        for cause in &causes {
            lines.push(format!("because {cause}"));
        }
        let details = self.store.as_ref().and_then(Error::details);
        if let Some(message) = details.and_then(|details| details.message.as_deref()) {
            lines.push(format!("AWS says: {}", printable(message)));
        }
        if let Some(request) = details.and_then(|details| details.request_id.as_deref())
            && !causes.iter().any(|cause| cause.contains(request))
        {
            lines.push(format!("AWS request id: {request}"));
        }
        lines.extend(self.all_advice());
        lines
    }

    /// Returns the value of `error` in JSON, which README.md describes.
    pub(crate) fn to_json(&self) -> Value {
        let store = self.store.as_ref();
        json!({
            "exit_code": self.code as u8,
            "message": self.what,
            "causes": self.causes(),
            "advice": self.all_advice(),
            "kind": store.map(|e| name_of(e.kind())),
            "operation": store.map(|e| e.operation().to_string()),
            "store": store.map(Error::store),
            "retryable": store.is_some_and(|e| e.is_retryable() && !needs_attention(e)),
            "retry_after_seconds": store.and_then(Error::retry_after).map(|pause| pause.as_secs_f64()),
            "may_have_been_applied": store.is_some_and(|e| e.effect() == Effect::Unknown),
            "aws": store.and_then(Error::details),
        })
    }

    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next = match (&self.store, &self.cause) {
            (Some(e), _) => e.source(),
            (None, Some(cause)) => Some(&**cause as &(dyn StdError + 'static)),
            (None, None) => None,
        };
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    fn all_advice(&self) -> Vec<String> {
        self.advice().into_iter().map(str::to_owned).chain(self.advice.clone()).collect()
    }

    /// Returns advice on the store's error, unless the error itself contains it.
    fn advice(&self) -> Vec<&'static str> {
        let Some(error) = &self.store else { return Vec::new() };
        if needs_attention(error) {
            return Vec::new();
        }
        let by_kind = match error.kind() {
            ErrorKind::NotFound => {
                Some("there is no key with this id: check its spelling; ids are compared byte by byte")
            }
            ErrorKind::AlreadyExists if error.operation() == Operation::Create => {
                Some("a key with this id exists and was left unchanged: read it with get")
            }
            ErrorKind::Erased => Some("if the user is to get a new key, run allow first"),
            ErrorKind::PendingDeletion => Some(
                "the key is scheduled for deletion: wait until it is deleted. AWS's own tools can restore it, which \
                 undoes the deletion: do that only if the user was not meant to be erased",
            ),
            _ => None,
        };
        let unknown = match error.operation() {
            Operation::Erase | Operation::Delete => "the key may have been deleted nevertheless: run erase again",
            _ => "the write may have been applied nevertheless: check with exists, then repeat the command",
        };
        by_kind.into_iter().chain((error.effect() == Effect::Unknown).then_some(unknown)).collect()
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> Self {
        Self { code: error.kind().into(), what: error.to_string(), cause: None, store: Some(error), advice: None }
    }
}

/// Returns the name of an error kind in JSON.
fn name_of(kind: ErrorKind) -> String {
    kind.to_string().replace(' ', "_")
}

/// Reports whether a person must look at the key before anything is repeated. Only `reencrypt`
/// reports such errors, and only for AWS stores.
fn needs_attention(error: &Error) -> bool {
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    return keystead::reencrypt::NeedsAttention::is_source_of(error);
    #[cfg(not(any(feature = "ssm", feature = "secretsmanager")))]
    {
        let _ = error;
        false
    }
}

/// Replaces the control characters in a message from AWS, which could move the cursor of a
/// terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::error::Error as StdError;

    use keystead::ErrorDetails;

    use super::*;

    #[test]
    fn each_kind_has_the_code_of_who_must_act() {
        let code = |kind| Code::from(kind) as u8;
        assert_eq!([ErrorKind::Config, ErrorKind::Unsupported, ErrorKind::InvalidId].map(code), [2; 3]);
        assert_eq!(code(ErrorKind::NotFound), 3);
        assert_eq!([ErrorKind::AlreadyExists, ErrorKind::Erased, ErrorKind::Conflict].map(code), [4; 3]);
        assert_eq!(
            [ErrorKind::PermissionDenied, ErrorKind::Unauthenticated, ErrorKind::KeyUnavailable].map(code),
            [5; 3]
        );
        assert_eq!([ErrorKind::Throttled, ErrorKind::Unavailable, ErrorKind::Timeout].map(code), [6; 3]);
        assert_eq!(code(ErrorKind::Corrupt), 7);
        assert_eq!([ErrorKind::QuotaExceeded, ErrorKind::Other].map(code), [1; 2]);
    }

    #[test]
    fn the_text_says_what_failed_why_and_what_to_do_and_names_the_request() {
        let details = ErrorDetails {
            request_id: Some("r-1".to_owned()),
            message: Some("not\u{1b}[2Jyours".to_owned()),
            ..ErrorDetails::default()
        };
        let cause: Box<dyn StdError + Send + Sync> = "slow: come back".into();
        let error = Error::new(ErrorKind::Timeout, Operation::Put, "ssm").with_source(cause).with_details(details);
        let failure = CommandError::from(error);
        assert_eq!(
            failure.to_text(),
            "error: put on ssm failed: timed out\n  because slow: come back\n  AWS says: not [2Jyours\n  AWS request \
             id: r-1\n  the write may have been applied nevertheless: check with exists, then repeat the command\n"
        );
        assert_eq!(failure.to_json()["kind"], "timed_out");
        assert_eq!(failure.to_json()["aws"]["request-id"], "r-1");
    }
}

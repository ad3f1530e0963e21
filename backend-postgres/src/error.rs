//! The errors of PostgreSQL, as errors of a store.

use deadpool_postgres::{PoolError, TimeoutType};
use keystead_core::{Effect, Error, ErrorDetails, ErrorKind, Operation};
use tokio_postgres::error::{DbError, Severity, SqlState};

pub(crate) const SCHEME: &str = "postgres";

/// The operation of an error before the sealed store replaces it.
const OPERATION: Operation = Operation::Check;

/// The kind of a statement, which decides what is known of its effect if its answer is lost.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Statement {
    Read,
    Write,
}

impl Statement {
    fn effect_if_lost(self) -> Effect {
        match self {
            Self::Read => Effect::NotApplied,
            Self::Write => Effect::Unknown,
        }
    }
}

pub(crate) fn error(kind: ErrorKind, text: &'static str) -> Error {
    Error::new(kind, OPERATION, SCHEME).with_source(text)
}

/// Returns the error for a write in a session in which nothing may be written.
pub(crate) fn not_durable() -> Error {
    error(
        ErrorKind::Config,
        "no keys may be written in this session: the server is a standby, or synchronous_commit is off (or weaker than \
         on, if replication was declared), or the default transaction isolation is not read committed: connect to the \
         primary, and set synchronous_commit and the default isolation for this role",
    )
}

/// Returns the error for a server whose answers may be old.
pub(crate) fn standby() -> Error {
    error(ErrorKind::Config, "the server is a standby, whose answers may be old: connect to the primary")
}

/// Returns the error for a call that took too long.
pub(crate) fn timeout(statement: Statement) -> Error {
    error(ErrorKind::Timeout, "PostgreSQL did not answer in time").with_effect(statement.effect_if_lost())
}

/// Returns the error for a column whose type or length is not that of the store's tables.
pub(crate) fn foreign_row() -> Error {
    error(ErrorKind::Corrupt, "a row of the store's tables does not have the form that keystead writes")
}

/// Returns the error for a connection that could not be obtained. Nothing was sent.
pub(crate) fn no_connection(e: PoolError) -> Error {
    match e {
        PoolError::Timeout(TimeoutType::Wait) => error(
            ErrorKind::Timeout,
            "all connections of the pool were in use for the whole time: allow more, or call less often",
        ),
        PoolError::Timeout(_) => error(ErrorKind::Timeout, "PostgreSQL did not accept a connection in time"),
        PoolError::Backend(e) => of_statement(&e, Statement::Read),
        PoolError::Closed => error(ErrorKind::Other, "the pool is closed"),
        PoolError::NoRuntimeSpecified | PoolError::PostCreateHook(_) => {
            error(ErrorKind::Config, "the pool cannot make connections")
        }
    }
}

/// The error of a statement that was sent.
pub(crate) fn of_statement(e: &tokio_postgres::Error, statement: Statement) -> Error {
    let Some(db) = e.as_db_error() else {
        let text = if e.is_closed() {
            "the connection to PostgreSQL was closed"
        } else {
            "the connection to PostgreSQL failed: see whether the host, the port, TLS and the credentials are right"
        };
        // An answer that cannot be read says nothing about what was done, either.
        return error(ErrorKind::Unavailable, text).with_effect(statement.effect_if_lost());
    };
    let kind = kind_of(db.code());
    let effect = if may_have_committed(db) { statement.effect_if_lost() } else { Effect::NotApplied };
    let details = ErrorDetails {
        error_code: Some(db.code().code().to_owned()),
        service_name: Some("PostgreSQL".to_owned()),
        message: is_about_the_server(db.code()).then(|| db.message().to_owned()),
        ..ErrorDetails::default()
    };
    Error::new(kind, OPERATION, SCHEME).with_source(advice(kind)).with_details(details).with_effect(effect)
}

/// Reports whether the statement may have been committed despite the error: the session ended, or a
/// proxy reports that it did.
fn may_have_committed(db: &DbError) -> bool {
    let is_fatal = !matches!(db.parsed_severity(), Some(Severity::Error));
    let code = db.code().code();
    is_fatal || code == "40003" || ["08", "57P", "58", "XX"].iter().any(|class| code.starts_with(class))
}

/// Returns the kind of error for a SQLSTATE
/// (<https://www.postgresql.org/docs/current/errcodes-appendix.html>), by who must act.
fn kind_of(code: &SqlState) -> ErrorKind {
    if *code == SqlState::INSUFFICIENT_PRIVILEGE {
        return ErrorKind::PermissionDenied;
    }
    if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
        return ErrorKind::Config;
    }
    if *code == SqlState::DISK_FULL {
        return ErrorKind::QuotaExceeded;
    }
    if *code == SqlState::TOO_MANY_CONNECTIONS {
        return ErrorKind::Throttled;
    }
    if *code == SqlState::QUERY_CANCELED || *code == SqlState::LOCK_NOT_AVAILABLE {
        return ErrorKind::Timeout;
    }
    match code.code().get(..2).unwrap_or_default() {
        // Connections, resources, an operator's intervention, the system.
        "08" | "53" | "57" | "58" => ErrorKind::Unavailable,
        "28" => ErrorKind::Unauthenticated,
        // Serialization failures and deadlocks.
        "40" => ErrorKind::Conflict,
        // A database, a schema, a table or a column that is not there.
        "3D" | "3F" | "42" => ErrorKind::Config,
        "XX" => ErrorKind::Corrupt,
        _ => ErrorKind::Other,
    }
}

/// Reports whether messages of this class are only about the server. Those of other classes may
/// show values.
fn is_about_the_server(code: &SqlState) -> bool {
    matches!(code.code().get(..2), Some("08" | "28" | "3D" | "3F" | "42" | "53" | "57"))
}

fn advice(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::PermissionDenied => {
            "the role may not do this: grant it USAGE on the schema and SELECT, INSERT, UPDATE, DELETE on its tables"
        }
        ErrorKind::Unauthenticated => "PostgreSQL refused the credentials: see the role, its password and pg_hba.conf",
        ErrorKind::Config => "the store's tables are not there or the session is read-only: see the error code",
        ErrorKind::QuotaExceeded => "the disk of the server is full: make room",
        ErrorKind::Throttled => "the server accepts no more connections: try again, or use fewer",
        ErrorKind::Timeout => "the server ended the statement: see its timeouts, and what holds its locks",
        ErrorKind::Conflict => "the statement conflicted with another one: try again",
        ErrorKind::Corrupt => "PostgreSQL reports an internal error or damage: see its log",
        _ => "PostgreSQL could not do it: see the error code and its log",
    }
}

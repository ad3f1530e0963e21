//! [`PostgresConfig`]: the server, the schema and the limits of a store.

use std::fmt;
use std::time::Duration;

use keystead_core::Durability;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};

/// The longest name of a schema, in bytes (PostgreSQL's NAMEDATALEN, less one).
const MAX_SCHEMA_LEN: usize = 63;

/// The settings of a [`PostgresStore`](crate::PostgresStore).
///
/// `Debug` shows the schema and the limits, never the URL.
#[derive(Clone)]
pub struct PostgresConfig {
    pub(crate) server: tokio_postgres::Config,
    pub(crate) schema: String,
    pub(crate) call_timeout: Duration,
    pub(crate) max_connections: usize,
    pub(crate) durability: Durability,
}

/// The largest number of connections of one store.
const MAX_CONNECTIONS: usize = 10_000;

/// The longest time limit of a call.
const MAX_CALL_TIMEOUT: Duration = Duration::from_secs(3600);

impl PostgresConfig {
    /// Creates the settings from a connection URL or a key-value string, in the syntax of libpq
    /// (<https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>), for example
    /// `postgres://keystead@db.example/app`.
    ///
    /// TLS is required unless every host is a Unix socket or a loopback address, or the URL says
    /// `sslmode=disable`. Certificates are checked against the system's roots. If the text names
    /// several hosts, the one that accepts writes is used.
    ///
    /// # Errors
    /// [`InvalidPostgresConfig`] if the text is not such a string, or names no host or no database.
    pub fn new(url: &str) -> Result<Self, InvalidPostgresConfig> {
        let mut server: tokio_postgres::Config = url.parse().map_err(|_| InvalidPostgresConfig::Url)?;
        if server.get_hosts().is_empty() {
            return Err(InvalidPostgresConfig::NoHost);
        }
        if server.get_dbname().is_none() {
            return Err(InvalidPostgresConfig::NoDatabase);
        }
        if server.get_ssl_mode() == SslMode::Prefer {
            let is_local = server.get_hosts().iter().all(is_local)
                && server.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
            server.ssl_mode(if is_local { SslMode::Disable } else { SslMode::Require });
        }
        if server.get_application_name().is_none() {
            server.application_name("keystead");
        }
        if server.get_hosts().len() > 1 {
            // Of several hosts one is the primary.
            server.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Ok(Self {
            server,
            schema: "keystead".to_owned(),
            call_timeout: Duration::from_secs(5),
            max_connections: 16,
            durability: Durability::Host,
        })
    }

    /// Sets the schema of the store's tables. Default: `keystead`. Two stores in one database need
    /// two schemas.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = name.into();
        self
    }

    /// Sets the password, which replaces one in the URL.
    pub fn password(mut self, password: impl AsRef<[u8]>) -> Self {
        self.server.password(password);
        self
    }

    /// Sets the time within which each call to the database must end, including the wait for a
    /// connection. Default: 5 seconds.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// Sets the largest number of connections. Default: 16.
    pub fn max_connections(mut self, count: usize) -> Self {
        self.max_connections = count;
        self
    }

    /// Declares that a commit waits for a replica, because the server's
    /// `synchronous_standby_names` is set: the store then reports
    /// [`Durability::Replicated`] instead of `Host`. If that setting is empty, opening the store
    /// fails.
    pub fn replicated(mut self) -> Self {
        self.durability = Durability::Replicated;
        self
    }

    pub(crate) fn check(&self) -> Result<(), InvalidPostgresConfig> {
        let is_name =
            !self.schema.is_empty() && self.schema.len() <= MAX_SCHEMA_LEN && !self.schema.contains(char::is_control);
        if !is_name {
            return Err(InvalidPostgresConfig::Schema);
        }
        if !(1..=MAX_CONNECTIONS).contains(&self.max_connections) {
            return Err(InvalidPostgresConfig::NoConnections);
        }
        if self.call_timeout.is_zero() || self.call_timeout > MAX_CALL_TIMEOUT {
            return Err(InvalidPostgresConfig::NoTime);
        }
        Ok(())
    }

    /// Returns the hosts and the database, for people.
    pub(crate) fn location(&self) -> String {
        let ports = self.server.get_ports();
        let host = |(index, host): (usize, &Host)| {
            let name = match host {
                Host::Tcp(name) => name.clone(),
                #[cfg(unix)]
                Host::Unix(path) => path.display().to_string(),
            };
            let port = ports.get(index).or_else(|| ports.first()).copied().unwrap_or(5432);
            format!("{name}:{port}")
        };
        let hosts: Vec<String> = self.server.get_hosts().iter().enumerate().map(host).collect();
        let database = self.server.get_dbname().unwrap_or_default();
        format!("{}/{database}, schema {}", hosts.join(","), self.schema)
    }
}

fn is_local(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    }
}

impl fmt::Debug for PostgresConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { schema, call_timeout, max_connections, durability, .. } = self;
        f.debug_struct("PostgresConfig")
            .field("schema", schema)
            .field("call_timeout", call_timeout)
            .field("max_connections", max_connections)
            .field("durability", durability)
            .finish_non_exhaustive()
    }
}

/// The reason why a [`PostgresConfig`] was refused. It never quotes the URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPostgresConfig {
    /// The text is not a connection URL or a key-value string.
    #[error("this is not a PostgreSQL connection URL: give one such as postgres://USER@HOST/DATABASE")]
    Url,
    /// The URL names no host.
    #[error("the URL names no host: give one such as postgres://USER@HOST/DATABASE")]
    NoHost,
    /// The URL names no database.
    #[error("the URL names no database: give one such as postgres://USER@HOST/DATABASE")]
    NoDatabase,
    /// The schema's name is empty, contains a control character or has more than 63 bytes.
    #[error("the schema's name must have 1 to 63 bytes, and no control characters")]
    Schema,
    /// The number of connections is zero or larger than 10,000.
    #[error("the store needs at least one connection, and at most 10000")]
    NoConnections,
    /// The timeout is zero or longer than an hour.
    #[error("the timeout of a call must be longer than zero, and at most an hour")]
    NoTime,
}

//! The pool of connections.

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use keystead_core::{Error, ErrorKind, Result};
use rustls::{ClientConfig, RootCertStore};
use tokio::time::{Instant, timeout_at};
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::config::PostgresConfig;
use crate::error::{self, Statement};

/// The connections of a table, and the time that a call may take.
#[derive(Clone)]
pub(crate) struct Connections {
    pool: Pool,
    call_timeout: Duration,
}

impl Connections {
    /// Makes the pool; no connection is opened yet.
    pub(crate) fn new(config: &PostgresConfig) -> Result<Self> {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let server = config.server.clone();
        let manager = match server.get_ssl_mode() {
            SslMode::Disable => Manager::from_config(server, NoTls, recycling),
            _ => Manager::from_config(server, MakeRustlsConnect::new(tls()?), recycling),
        };
        let timeouts = Timeouts {
            wait: Some(config.call_timeout),
            create: Some(config.call_timeout),
            recycle: Some(config.call_timeout),
        };
        let pool = Pool::builder(manager)
            .max_size(config.max_connections)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|_| error::error(ErrorKind::Config, "the pool cannot be built"))?;
        Ok(Self { pool, call_timeout: config.call_timeout })
    }

    /// Uses a pool that the program made itself.
    pub(crate) fn of_pool(pool: Pool, call_timeout: Duration) -> Self {
        Self { pool, call_timeout }
    }

    /// Runs one prepared statement and returns its rows.
    pub(crate) async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        statement: Statement,
    ) -> Result<Vec<Row>> {
        let deadline = Instant::now() + self.call_timeout;
        let connection = self.connection(deadline).await?;
        // A statement that could not be prepared was not run.
        let prepared = match timeout_at(deadline, connection.prepare_cached(sql)).await {
            Ok(Ok(prepared)) => prepared,
            Ok(Err(e)) => return Err(self.dropped(connection, error::of_statement(&e, Statement::Read))),
            Err(_) => return Err(self.dropped(connection, error::timeout(Statement::Read))),
        };
        match timeout_at(deadline, connection.query(&prepared, parameters)).await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(e)) => Err(self.dropped(connection, error::of_statement(&e, statement))),
            Err(_) => Err(self.dropped(connection, error::timeout(statement))),
        }
    }

    /// Runs statements that have no parameters.
    pub(crate) async fn execute(&self, sql: &str) -> Result<()> {
        let deadline = Instant::now() + self.call_timeout;
        let connection = self.connection(deadline).await?;
        match timeout_at(deadline, connection.batch_execute(sql)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.dropped(connection, error::of_statement(&e, Statement::Write))),
            Err(_) => Err(self.dropped(connection, error::timeout(Statement::Write))),
        }
    }

    async fn connection(&self, deadline: Instant) -> Result<Object> {
        match timeout_at(deadline, self.pool.get()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(e)) => Err(error::no_connection(e)),
            Err(_) => Err(error::timeout(Statement::Read)),
        }
    }

    /// Drops a connection on which a call has failed, because its answer may still arrive, and
    /// returns the error.
    fn dropped(&self, connection: Object, error: Error) -> Error {
        drop(Object::take(connection));
        error
    }
}

/// TLS with the system's root certificates.
fn tls() -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read is not trusted.
    for certificate in rustls_native_certs::load_native_certs().certs {
        let _ = roots.add(certificate);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| error::error(ErrorKind::Config, "this build of TLS has no safe protocol version"))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

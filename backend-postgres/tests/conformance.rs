//! The conformance suite over a PostgreSQL server, with a proxy in front of it that breaks calls.

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use keystead_conformance::{Fault, Faults, Harness, Namespace, async_trait};
use keystead_core::{BoxError, KeyStore, Operation};
use keystead_postgres::{PostgresConfig, PostgresStore, RootSecret};
use keystead_postgres_testbed::{Break, Cluster, Proxy, url};

/// The time after which a store gives a call up.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// One server for all cases. A namespace is a schema and a proxy, and a second client is another
/// pool.
#[derive(Default)]
struct Postgres {
    cluster: OnceLock<Result<Cluster, String>>,
    proxies: Mutex<HashMap<Namespace, Arc<Proxy>>>,
}

impl Postgres {
    fn cluster(&self) -> Result<&Cluster, BoxError> {
        let started = self.cluster.get_or_init(|| Cluster::start().map_err(|e| e.to_string()));
        started.as_ref().map_err(|e| e.as_str().into())
    }

    fn proxies(&self) -> MutexGuard<'_, HashMap<Namespace, Arc<Proxy>>> {
        self.proxies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn proxy(&self, ns: &Namespace) -> Result<Arc<Proxy>, BoxError> {
        let mut proxies = self.proxies();
        if let Some(proxy) = proxies.get(ns) {
            return Ok(proxy.clone());
        }
        let server = self.cluster()?.socket();
        let proxy = Arc::new(Proxy::start(server, &server.join(ns.as_str()))?);
        proxies.insert(ns.clone(), proxy.clone());
        Ok(proxy)
    }

    async fn connect(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let config = PostgresConfig::new(&url(self.proxy(ns)?.socket(), "postgres"))?
            .schema(ns.as_str())
            .call_timeout(CALL_TIMEOUT)
            .max_connections(8);
        let store = PostgresStore::builder(config)
            .root_secret(RootSecret::from_bytes([7; 32]))
            // A short lease, so that the keyring is read again within a case.
            .lease(Duration::from_millis(100))
            .create_if_missing(true)
            .connect()
            .await?;
        Ok(Arc::new(store))
    }
}

#[async_trait]
impl Harness for Postgres {
    fn name(&self) -> &str {
        "postgres"
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.connect(ns).await
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.connect(ns).await
    }

    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.proxies().remove(ns);
        Ok(())
    }

    async fn plant_foreign(&self, ns: &Namespace) -> Result<bool, BoxError> {
        let (client, connection) =
            tokio_postgres::connect(&self.cluster()?.url("postgres"), tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        let rows = format!(
            r"INSERT INTO {ns}.record VALUES ('\x', '\x00'), ('\x0102', '\x00'), (decode(repeat('ff', 33), 'hex'), '\x00')",
            ns = ns.as_str()
        );
        client.batch_execute(&rows).await?;
        Ok(true)
    }

    fn faults(&self) -> Option<&dyn Faults> {
        Some(self)
    }
}

#[async_trait]
impl Faults for Postgres {
    async fn inject(
        &self,
        ns: &Namespace,
        op: Option<Operation>,
        fault: Fault,
        requests: u32,
    ) -> Result<bool, BoxError> {
        let how = match fault {
            // PostgreSQL never says when to come back.
            Fault::Throttled { retry_after: None } => Break::Refuse("53300"),
            Fault::Denied => Break::Refuse("42501"),
            Fault::ExpiredCredentials => Break::Refuse("28P01"),
            Fault::ServerError => Break::Refuse("58030"),
            Fault::Garbage => Break::Garbage,
            Fault::Truncated => Break::Truncate,
            Fault::ResetBeforeSend => Break::ResetBefore,
            Fault::ResetAfterApply => Break::ResetAfter,
            Fault::Silent => Break::Silence,
            Fault::SlowBody => Break::Slow,
            _ => return Ok(false),
        };
        self.proxy(ns)?.inject(op.map(|op| op.to_string()), how, requests);
        Ok(true)
    }

    async fn clear(&self, ns: &Namespace) -> Result<(), BoxError> {
        self.proxy(ns)?.clear();
        Ok(())
    }

    fn call_bound(&self) -> Duration {
        CALL_TIMEOUT * 3
    }
}

fn main() -> ExitCode {
    keystead_conformance::main(Postgres::default())
}

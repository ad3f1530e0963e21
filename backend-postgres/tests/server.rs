//! Settings of a server that lose keys, rotations beside open transactions, and roles that may not.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::sync::OnceLock;
use std::time::Duration;

use keystead_core::{Durability, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Result, SecretKey};
use keystead_postgres::{CREATE_SQL, PostgresConfig, PostgresStore, RootSecret};
use keystead_postgres_testbed::{Cluster, url};
use tokio_postgres::{Client, NoTls};

/// One server for all tests. It ends with the process, because it reads from it.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| Cluster::start().unwrap())
}

fn root() -> RootSecret {
    RootSecret::from_bytes([7; 32])
}

fn id(name: &str) -> KeyId {
    KeyId::new(name).unwrap()
}

fn key(byte: u8) -> SecretKey {
    SecretKey::new([byte; 32]).unwrap()
}

fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// A schema of its own.
struct Fixture {
    schema: &'static str,
}

impl Fixture {
    fn config(&self) -> PostgresConfig {
        PostgresConfig::new(&cluster().url("postgres")).unwrap().schema(self.schema)
    }

    fn config_of(&self, role: &str) -> PostgresConfig {
        let url = url(cluster().socket(), "postgres").replace("user=keystead", &format!("user={role}"));
        PostgresConfig::new(&url).unwrap().schema(self.schema)
    }

    async fn create(&self) -> PostgresStore {
        let builder = PostgresStore::builder(self.config()).root_secret(root()).lease(Duration::from_millis(50));
        builder.create_if_missing(true).connect().await.unwrap()
    }

    async fn open(&self, config: PostgresConfig) -> Result<PostgresStore> {
        PostgresStore::builder(config).root_secret(root()).connect().await
    }

    /// A client beside the store, as a superuser.
    async fn client(&self) -> Client {
        let (client, connection) = tokio_postgres::connect(&cluster().url("postgres"), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Makes a role that may use the store, with some settings of its own.
    async fn role(&self, name: &str, grants: &str, settings: &str) {
        let schema = self.schema;
        let sql = format!(
            "CREATE ROLE {name} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {name}; \
             GRANT {grants} ON ALL TABLES IN SCHEMA {schema} TO {name}; {settings}"
        );
        self.client().await.batch_execute(&sql).await.unwrap();
    }
}

const ALL: &str = "SELECT, INSERT, UPDATE, DELETE";

#[tokio::test]
async fn nothing_is_written_where_a_commit_does_not_wait_for_the_disk() {
    let fixture = Fixture { schema: "not_durable" };
    fixture.create().await.put_key(&id("alice"), &key(1)).await.unwrap();
    let settings = [
        ("careless", "ALTER ROLE careless SET synchronous_commit = off"),
        ("strict", "ALTER ROLE strict SET default_transaction_isolation = 'serializable'"),
    ];
    for (role, setting) in settings {
        fixture.role(role, ALL, setting).await;
        let store = fixture.open(fixture.config_of(role)).await.unwrap();
        for refused in [
            store.put_key(&id("alice"), &key(2)).await,
            store.create_key(&id("bob"), &key(2)).await,
            store.delete_key(&id("alice")).await.map(drop),
            store.rotate(None, |_| {}).await,
        ] {
            let refused = refused.unwrap_err();
            assert_eq!((refused.kind(), refused.effect()), (ErrorKind::Config, Effect::NotApplied), "{role}");
        }
        assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
        assert_eq!(kind(store.get_key(&id("bob")).await), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn a_role_that_may_only_read_is_denied_and_says_so() {
    let fixture = Fixture { schema: "only_reads" };
    fixture.create().await.put_key(&id("alice"), &key(1)).await.unwrap();
    fixture.role("reader", "SELECT", "").await;
    let store = fixture.open(fixture.config_of("reader")).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    let denied = store.put_key(&id("bob"), &key(2)).await.unwrap_err();
    assert_eq!((denied.kind(), denied.effect()), (ErrorKind::PermissionDenied, Effect::NotApplied));
    assert_eq!(denied.details().unwrap().error_code.as_deref(), Some("42501"));
    assert_eq!(kind(store.delete_key(&id("alice")).await), ErrorKind::PermissionDenied);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_a_configuration_error() {
    let fixture = Fixture { schema: "nowhere" };
    assert_eq!(kind(fixture.open(fixture.config()).await), ErrorKind::Config);
    let elsewhere = PostgresConfig::new(&cluster().url("no_such_database")).unwrap();
    assert_eq!(kind(fixture.open(elsewhere).await), ErrorKind::Config);
    let no_server = PostgresConfig::new("host=/nonexistent user=keystead dbname=postgres").unwrap();
    assert_eq!(kind(fixture.open(no_server).await), ErrorKind::Unavailable);
    let declared = fixture.config().replicated();
    assert_eq!(kind(fixture.open(declared).await), ErrorKind::Config);
    let no_root = PostgresStore::builder(fixture.config()).connect().await;
    assert_eq!(kind(no_root), ErrorKind::Config);
}

#[tokio::test]
async fn tables_that_an_operator_made_are_used() {
    let client = Fixture { schema: "keystead" }.client().await;
    client.batch_execute("CREATE DATABASE by_hand").await.unwrap();
    let (client, connection) = tokio_postgres::connect(&cluster().url("by_hand"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(CREATE_SQL).await.unwrap();
    let sql = "CREATE ROLE service LOGIN; GRANT USAGE ON SCHEMA keystead TO service; \
               GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA keystead TO service";
    client.batch_execute(sql).await.unwrap();
    let url = cluster().url("by_hand").replace("user=keystead", "user=service");
    let config = PostgresConfig::new(&url).unwrap();
    let missing = PostgresStore::builder(config.clone()).root_secret(root()).connect().await;
    assert_eq!(kind(missing), ErrorKind::Config);
    // The service creates the store, but may not create tables.
    let store = PostgresStore::builder(config).root_secret(root()).create_if_missing(true).connect().await.unwrap();
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    assert_eq!(store.capabilities().durability, Durability::Host);
}

#[tokio::test]
async fn a_rotation_waits_for_a_transaction_that_has_written_an_old_record() {
    let fixture = Fixture { schema: "open_transaction" };
    let store = fixture.create().await;
    store.put_key(&id("alice"), &key(1)).await.unwrap();
    let row = store.row_key(&id("alice"));
    let client = fixture.client().await;
    let take = "DELETE FROM open_transaction.record WHERE row_key = $1 RETURNING record";
    let record: Vec<u8> = client.query_one(take, &[&row.as_bytes().as_slice()]).await.unwrap().get(0);
    client.batch_execute("BEGIN").await.unwrap();
    let put_back = "INSERT INTO open_transaction.record VALUES ($1, $2)";
    client.execute(put_back, &[&row.as_bytes().as_slice(), &record]).await.unwrap();

    let rotating = store.clone();
    let rotation = tokio::spawn(async move { rotating.rotate(None, |_| {}).await });
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!rotation.is_finished(), "the transaction may still put a record of the old epoch there");
    client.batch_execute("COMMIT").await.unwrap();
    rotation.await.unwrap().unwrap();
    assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    let report = store.verify(|_| {}).await.unwrap();
    assert!(report.is_intact() && report.intact == 1 && !report.in_rotation);
}

#[tokio::test]
async fn hosts_that_start_at_once_create_one_store() {
    let fixture = Fixture { schema: "at_once" };
    let open = || {
        let builder = PostgresStore::builder(fixture.config()).root_secret(root());
        tokio::spawn(builder.create_if_missing(true).connect())
    };
    let opening: Vec<_> = (0..8).map(|_| open()).collect();
    let mut stores = Vec::new();
    for store in opening {
        stores.push(store.await.unwrap().unwrap());
    }
    stores[0].put_key(&id("alice"), &key(1)).await.unwrap();
    for store in &stores {
        assert_eq!(store.get_key(&id("alice")).await.unwrap(), key(1));
    }
}

#[tokio::test]
async fn settings_without_sense_are_refused() {
    let config = || Fixture { schema: "x" }.config();
    for config in [
        config().max_connections(usize::MAX),
        config().call_timeout(Duration::MAX),
        config().schema("line\nbreak"),
        config().schema(""),
    ] {
        assert_eq!(kind(PostgresStore::builder(config).root_secret(root()).connect().await), ErrorKind::Config);
    }
}

#[tokio::test]
async fn two_hosts_follow_each_other() {
    let fixture = Fixture { schema: "two_hosts" };
    let first = fixture.create().await;
    let second = fixture.open(fixture.config()).await.unwrap();
    let ids: Vec<KeyId> = (0..1_500).map(|number| id(&format!("user{number}"))).collect();
    let keys: Vec<(KeyId, SecretKey)> = ids.iter().map(|id| (id.clone(), key(id.as_str().len() as u8))).collect();
    assert!(first.create_keys(&keys).await.iter().all(Result::is_ok));
    second.rotate(None, |_| {}).await.unwrap();
    let read = first.get_keys(&ids).await;
    assert!(read.iter().zip(&keys).all(|(read, (_, key))| read.as_ref().is_ok_and(|read| read == key)));
    assert!(second.delete_keys(&ids).await.iter().all(Result::is_ok));
    assert!(first.get_keys(&ids).await.into_iter().all(|read| kind(read) == ErrorKind::NotFound));
}

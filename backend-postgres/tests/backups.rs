//! Erasure beyond backups: what a restored backup, a standby, the write-ahead log and the files of the
//! database give away.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keystead_core::{ErrorKind, KeyId, KeyStore, Result, SecretKey};
use keystead_layers::Stack;
use keystead_postgres::{PostgresConfig, PostgresStore, RootSecret};
use keystead_postgres_testbed::{Cluster, url};
use keystead_sealing::{KEYRING_LEN, Keyring, RowKey};
use memchr::memmem;

const USERS: usize = 2_000;
const ERASED: usize = 200;

/// The number of erased users whose rows are looked for in all files.
const SEARCHED: usize = 20;

fn id(number: usize) -> KeyId {
    KeyId::new(format!("user{number}@example.com")).unwrap()
}

fn key(number: usize) -> SecretKey {
    SecretKey::new(vec![u8::try_from(number % 251).unwrap(); 32]).unwrap()
}

fn root(byte: u8) -> RootSecret {
    RootSecret::from_bytes([byte; 32])
}

async fn open(socket: &Path, root: RootSecret) -> Result<PostgresStore> {
    let config = PostgresConfig::new(&url(socket, "postgres")).unwrap();
    let lease = std::time::Duration::from_millis(50);
    PostgresStore::builder(config).root_secret(root).lease(lease).create_if_missing(true).connect().await
}

fn stack(keys: PostgresStore, tombstones: &PostgresStore) -> Stack {
    Stack::builder(keys).tombstones(Arc::new(tombstones.clone())).build().unwrap()
}

/// The number of users whose key is read as it was written, and of those who are erased or have none.
async fn count(store: &dyn KeyStore) -> (usize, usize) {
    let ids: Vec<KeyId> = (0..USERS).map(id).collect();
    let mut counts = (0, 0);
    for (number, outcome) in store.get_keys(&ids).await.into_iter().enumerate() {
        match outcome {
            Ok(found) => {
                assert_eq!(found, key(number));
                counts.0 += 1;
            }
            Err(e) => {
                assert!(matches!(e.kind(), ErrorKind::Erased | ErrorKind::NotFound), "{e:?}");
                counts.1 += 1;
            }
        }
    }
    counts
}

/// All files beneath these directories.
fn files(directories: &[PathBuf]) -> Vec<Vec<u8>> {
    let mut files = Vec::new();
    let mut pending = directories.to_vec();
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let entry = entry.unwrap();
            // A server that runs removes files meanwhile.
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => pending.push(entry.path()),
                Ok(kind) if kind.is_file() => files.extend(fs::read(entry.path()).ok()),
                _ => {}
            }
        }
    }
    files
}

/// The number of keys that can be read from these files with this keyring, of the records that stand
/// after one of these row keys.
fn recoverable(files: &[Vec<u8>], keyring: &Keyring, rows: &[RowKey]) -> usize {
    let is_found = |row: &RowKey| {
        let finder = memmem::Finder::new(row.as_bytes().as_slice());
        files
            .iter()
            .any(|file| finder.find_iter(file).any(|at| opens_after(file, at + row.as_bytes().len(), keyring, row)))
    };
    rows.iter().filter(|row| is_found(row)).count()
}

/// A record follows its row key after the length that PostgreSQL puts before it.
fn opens_after(file: &[u8], start: usize, keyring: &Keyring, row: &RowKey) -> bool {
    (start..start + 16).any(|at| file.get(at..at + 256).is_some_and(|record| keyring.open(row, record).is_ok()))
}

async fn keyring(socket: &Path, root: &RootSecret) -> Keyring {
    let (client, connection) = tokio_postgres::connect(&url(socket, "postgres"), tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let row = client.query_one("SELECT bytes FROM keystead.keyring", &[]).await.unwrap();
    let bytes: Vec<u8> = row.get(0);
    Keyring::open_with(root, &bytes[..KEYRING_LEN]).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erased_users_stay_erased_in_restored_backups_and_beyond_them() {
    let cluster = Cluster::start().unwrap();
    let apart = Cluster::start().unwrap();
    let keys = open(cluster.socket(), root(1)).await.unwrap();
    let tombstones = open(apart.socket(), root(9)).await.unwrap();
    let all: Vec<(KeyId, SecretKey)> = (0..USERS).map(|number| (id(number), key(number))).collect();
    assert!(keys.create_keys(&all).await.iter().all(Result::is_ok));
    let standby = cluster.standby("standby").unwrap();
    let yesterday = cluster.backup("yesterday").unwrap();

    // A standby takes no reads: its answers may be old.
    assert_eq!(open(&standby, root(1)).await.unwrap_err().kind(), ErrorKind::Config);

    let service = stack(keys.clone(), &tombstones);
    for number in 0..ERASED {
        let receipt = service.erase(&id(number)).await.unwrap();
        assert!(receipt.verified);
    }
    assert_eq!(count(&service).await, (USERS - ERASED, ERASED));

    // What a thief with the old root secret still reads, which shows that the search finds what is there.
    let old = keyring(cluster.socket(), &root(1)).await;
    let rows: Vec<RowKey> = (0..SEARCHED).map(|number| keys.row_key(&id(number))).collect();
    let main = cluster.checkpoint().unwrap();
    assert_eq!(recoverable(&files(std::slice::from_ref(&yesterday)), &old, &rows), SEARCHED);
    assert!(
        recoverable(&files(std::slice::from_ref(&main)), &old, &rows) > 0,
        "PostgreSQL keeps dead rows or their log"
    );

    // (A) Yesterday's backup is restored while the old root secret exists: it brings everybody back,
    // the fence lets nobody see them, and reconcile erases them again.
    let restored = cluster.start_backup("yesterday").unwrap();
    let restored = open(&restored, root(1)).await.unwrap();
    assert_eq!(count(&restored).await, (USERS, 0));
    let service_of_backup = stack(restored.clone(), &tombstones);
    // A read through the fence also deletes what it refuses.
    assert_eq!(service_of_backup.get_key(&id(0)).await.unwrap_err().kind(), ErrorKind::Erased);
    let report = service_of_backup.reconcile(|outcome| drop(outcome.unwrap())).await.unwrap();
    assert_eq!((report.listed, report.erased, report.failed), (USERS as u64 - 1, ERASED as u64 - 1, 0));
    assert_eq!(count(&restored).await, (USERS - ERASED, ERASED));
    assert_eq!(count(&service_of_backup).await, (USERS - ERASED, ERASED));

    // (B) A new root secret, a new backup, and the end of the old root secret.
    keys.rotate(root(2), |_| {}).await.unwrap();
    let today = cluster.backup("today").unwrap();
    let new_root = root(2);
    assert_eq!(
        open(restored_socket(&yesterday).as_path(), root(2)).await.unwrap_err().kind(),
        ErrorKind::KeyUnavailable
    );
    let today_socket = cluster.start_backup("today").unwrap();
    let of_today = open(&today_socket, root(2)).await.unwrap();
    assert_eq!(count(&of_today).await, (USERS - ERASED, ERASED));

    // With every secret that still exists, no erased key can be read from any file.
    let new = keyring(cluster.socket(), &new_root).await;
    let standby_files = yesterday.parent().unwrap().join("standby");
    let everything = files(&[cluster.checkpoint().unwrap(), standby_files, yesterday, today]);
    assert_eq!(recoverable(&everything, &new, &rows), 0);
    let kept: Vec<RowKey> = (ERASED..ERASED + SEARCHED).map(|number| keys.row_key(&id(number))).collect();
    assert_eq!(recoverable(&everything, &new, &kept), SEARCHED, "the search finds what is there");
}

/// The directory of the socket of a server over this copy.
fn restored_socket(data: &Path) -> PathBuf {
    let name = data.file_name().unwrap().to_str().unwrap();
    data.parent().unwrap().join(format!("socket-{name}"))
}

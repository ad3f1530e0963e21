//! Opening PostgreSQL stores by URL.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as _;
use std::fs;

use keystead::{Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, open};
use keystead_postgres_testbed::Cluster;

fn root_file() -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("root.hex");
    fs::write(&path, "07".repeat(32)).unwrap();
    #[cfg(unix)]
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let text = path.to_str().unwrap().to_owned();
    (directory, text)
}

async fn refused(url: &str) -> Error {
    match open(url).await {
        Ok(store) => panic!("{store:?} was opened"),
        Err(e) => e,
    }
}

#[tokio::test]
async fn a_url_opens_and_creates_a_store() {
    let cluster = Cluster::start().unwrap();
    let (_directory, root) = root_file();
    let socket = cluster.socket().to_str().unwrap();
    let url = format!("postgres:///postgres?user=keystead&host={socket}&schema=by%2durl&root_secret_file={root}");
    assert_eq!(refused(&url).await.kind(), ErrorKind::Config);
    let id = KeyId::new("alice@example.com").unwrap();
    let key = open(&format!("{url}&create=true")).await.unwrap().get_or_create_key(&id).await.unwrap();
    let store = open(&url).await.unwrap();
    assert_eq!(store.get_key(&id).await.unwrap(), key);
    let shown = format!("{} {store:?}", store.info());
    assert!(shown.contains("schema by-url") && !shown.contains("alice"), "{shown}");
}

#[tokio::test]
async fn a_url_that_is_wrong_is_refused_without_being_quoted() {
    let (_directory, root) = root_file();
    let root = format!("root_secret_file={root}");
    for (url, says) in [
        ("postgres://db.example/app".to_owned(), "no root secret"),
        (format!("postgres://canary:pw@db.example/app?{root}"), "user info"),
        (format!("postgres:app?{root}"), "no host"),
        (format!("postgres:///app?{root}"), "names no host"),
        (format!("postgres://db.example?{root}"), "names no database"),
        (format!("postgres://db.example/app?{root}&password=canary"), "must not stand in a URL"),
        (format!("postgres://db.example/app?{root}&canary=1"), "unknown parameter"),
        (format!("postgres://db.example/app?{root}&create=maybe"), "neither true nor false"),
        (format!("postgres://db.example/app?{root}&max_connections=many"), "not a whole number"),
        (format!("postgres://db.example/app?{root}&max_connections=0"), "at least one connection"),
        (format!("postgres://db.example/app?{root}&password_file=/nonexistent"), "password_file"),
        (format!("postgres://db.example/app?{root}&passphrase_env=X"), "given twice"),
    ] {
        let refused = refused(&url).await;
        assert_eq!(refused.kind(), ErrorKind::Config, "{url}");
        let text = format!("{refused}: {}", refused.source().unwrap());
        assert!(text.contains(says) && !text.contains("canary"), "{url}: {text}");
    }
}

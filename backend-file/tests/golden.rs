//! Files of every format there was, kept for ever: each opens with all its keys.
//!
//! `NAME.db` is a store, `NAME.keys` has a line for each record: id and key in hexadecimal, sorted.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{BoxError, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootProvider, RootSecret};

/// Gives the same 32 bytes for the one reference that it makes.
#[derive(Debug)]
struct Vault;

impl RootProvider for Vault {
    fn create(&self) -> Result<(SecretKey, Vec<u8>), BoxError> {
        Ok((SecretKey::new([9; 32])?, b"vault/key/1".to_vec()))
    }

    fn recover(&self, reference: &[u8]) -> Result<SecretKey, BoxError> {
        assert_eq!(reference, b"vault/key/1");
        Ok(SecretKey::new([9; 32])?)
    }
}

/// The formats that there were.
const FORMATS: [&str; 2] = ["v1", "v2"];

/// The stores of each format, and what opens them. `rotating` has two epochs, and records in each.
fn stores() -> [(&'static str, RootSecret); 4] {
    [
        ("bytes", RootSecret::from_bytes([7; 32])),
        ("passphrase", RootSecret::passphrase("correct horse \u{e9}")),
        ("provider", RootSecret::provider(Arc::new(Vault))),
        ("rotating", RootSecret::from_bytes([8; 32])),
    ]
}

fn golden(format: &str, name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format).join(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn lines(store: &FileStore) -> String {
    let ids: Vec<KeyId> = block_on(store.list_keys().map(Result::unwrap).collect());
    let line = |id: &KeyId| {
        let key = block_on(store.get_key(id)).unwrap();
        format!("{} {}\n", hex(id.as_str().as_bytes()), hex(key.expose_secret()))
    };
    let mut lines: Vec<String> = ids.iter().map(line).collect();
    lines.sort();
    lines.concat()
}

#[test]
fn every_store_of_every_format_opens_with_all_its_keys_and_goes_on_working() {
    for (format, (name, root)) in FORMATS.into_iter().flat_map(|format| stores().map(|store| (format, store))) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        fs::copy(golden(format, name).with_extension("db"), &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let store = block_on(FileStore::open(&path, root.clone())).unwrap();
        let expected = fs::read_to_string(golden(format, name).with_extension("keys")).unwrap();
        assert_eq!(lines(&store), expected, "{format} {name}");
        let report = block_on(store.verify(|_| {})).unwrap();
        assert!(report.is_intact(), "{name}");
        assert_eq!(report.in_rotation, name == "rotating");

        block_on(store.rotate(root, |_| {})).unwrap();
        assert!(!block_on(store.verify(|_| {})).unwrap().in_rotation);
        assert_eq!(lines(&store), expected, "{format} {name}");
    }
}

#[test]
#[ignore = "writes the files that are kept for ever; those that exist are left alone"]
fn write_missing_files_of_the_latest_format() {
    let golden = |name| golden("v2", name);
    fs::create_dir_all(golden("")).unwrap();
    for (name, root) in stores() {
        let path = golden(name).with_extension("db");
        let rotating = name == "rotating";
        if path.exists() {
            continue;
        }
        let first_root = if rotating { RootSecret::from_bytes([1; 32]) } else { root.clone() };
        let store = block_on(FileStore::create(&path, first_root)).unwrap();
        fill(&store);
        if rotating {
            for number in 0..1_400 {
                block_on(store.get_or_create_key(&KeyId::new(format!("user-{number}")).unwrap())).unwrap();
            }
            begin_and_drop(&store, root.clone());
        }
        fs::write(golden(name).with_extension("keys"), lines(&store)).unwrap();
        block_on(store.close()).unwrap();
        fs::remove_file(golden(name).with_extension("db.lock")).unwrap();
        fs::remove_file(golden(name).with_extension("db.id")).unwrap();
    }
}

/// Ids of all scripts and keys of all sizes.
fn fill(store: &FileStore) {
    let ids = ["alice@example.com", "67e55044-10b1-426f-9247-bb680e5fe0c8", "\u{1F511} a/b", " ", &"x".repeat(127)];
    for (number, len) in [1, 32, 52, 179, 180, 256, 1024, 3072].into_iter().enumerate() {
        for id in ids {
            let id = KeyId::new(format!("{id}{number}")).unwrap();
            let key = SecretKey::generate(len).unwrap();
            block_on(store.put_key(&id, &key)).unwrap();
        }
    }
}

/// Begins a rotation and drops it after its first page of several.
fn begin_and_drop(store: &FileStore, root: RootSecret) {
    let told = AtomicBool::new(false);
    let mut rotation = pin!(store.rotate(root, |_| told.store(true, Ordering::Relaxed)));
    while !told.load(Ordering::Relaxed) {
        assert!(rotation.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        std::thread::yield_now();
    }
}

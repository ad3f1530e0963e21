//! `reader.py`, which was written from the two FORMAT.md alone by somebody who had not seen the
//! code, reads what we write.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures_executor::block_on;
use keystead_core::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};

/// The interpreter that `scripts/test.sh` sets up, or the one that `KEYSTEAD_PYTHON` names.
fn python() -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    let python = std::env::var_os("KEYSTEAD_PYTHON").map_or(venv, PathBuf::from);
    assert!(
        python.exists(),
        "there is no Python with the package `cryptography`: run scripts/test.sh once, or run \
         `python3 -m venv target/venv && target/venv/bin/pip install -r scripts/requirements.txt`"
    );
    python
}

fn read(path: &Path, option: &str, secret: &Path) -> Result<Vec<String>, String> {
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader.py");
    let output = Command::new(python()).arg(reader).arg(path).arg(option).arg(secret).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    Ok(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Fills a store and gives the lines that the reader should print.
fn fill(store: &FileStore) -> Vec<String> {
    let ids = ["alice@example.com", "67e55044-10b1-426f-9247-bb680e5fe0c8", "\u{1F511} a/b", " ", &"x".repeat(128)];
    let mut lines = Vec::new();
    for (number, len) in [1, 32, 52, 179, 180, 256, 1024, 3072].into_iter().enumerate() {
        let id = KeyId::new(format!("{}{number}", &ids[number % 4])).unwrap();
        let key = SecretKey::generate(len).unwrap();
        block_on(store.put_key(&id, &SecretKey::generate(3072 / len).unwrap())).unwrap();
        block_on(store.put_key(&id, &key)).unwrap();
        lines.push(format!("{} {}", hex(id.as_str().as_bytes()), hex(key.expose_secret())));
    }
    let longest = KeyId::new(ids[4]).unwrap();
    let deleted = KeyId::new("deleted").unwrap();
    let key = block_on(store.get_or_create_key(&longest)).unwrap();
    lines.push(format!("{} {}", hex(longest.as_str().as_bytes()), hex(key.expose_secret())));
    block_on(store.get_or_create_key(&deleted)).unwrap();
    block_on(store.delete_key(&deleted)).unwrap();
    lines.sort();
    lines
}

#[test]
fn it_reads_every_record_of_a_store_with_a_root_secret_of_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let secret = directory.path().join("root");
    let root = RootSecret::generate();
    fs::write(&secret, root.to_hex().unwrap().as_bytes()).unwrap();
    let store = block_on(FileStore::create(&path, root)).unwrap();
    let lines = fill(&store);
    // While the store is in use, and after it was closed.
    assert_eq!(read(&path, "--root-hex-file", &secret).unwrap(), lines);
    block_on(store.close()).unwrap();
    assert_eq!(read(&path, "--root-hex-file", &secret).unwrap(), lines);
    fs::write(&secret, "00".repeat(32)).unwrap();
    assert!(read(&path, "--root-hex-file", &secret).unwrap_err().contains("another root secret"));
}

#[test]
fn it_reads_every_record_of_a_store_with_a_passphrase() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let secret = directory.path().join("phrase");
    fs::write(&secret, "correct horse \u{e9}").unwrap();
    let store = block_on(FileStore::create(&path, RootSecret::passphrase("correct horse \u{e9}"))).unwrap();
    let lines = fill(&store);
    block_on(store.close()).unwrap();
    assert_eq!(read(&path, "--passphrase-file", &secret).unwrap(), lines);
}

#[test]
fn it_reads_every_record_of_the_files_that_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys.db");
    let secret = directory.path().join("secret");
    let stores = [
        ("bytes", "--root-hex-file", "07".repeat(32)),
        ("passphrase", "--passphrase-file", "correct horse \u{e9}".to_owned()),
        ("rotating", "--root-hex-file", "08".repeat(32)),
    ];
    for format in ["v1", "v2"] {
        for (name, option, contents) in &stores {
            let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format).join(name);
            fs::copy(golden.with_extension("db"), &path).unwrap();
            fs::write(&secret, contents).unwrap();
            let expected = fs::read_to_string(golden.with_extension("keys")).unwrap();
            let mut lines = read(&path, option, &secret).unwrap();
            lines.sort();
            assert_eq!(lines, expected.lines().collect::<Vec<_>>(), "{format} {name}");
        }
    }
}

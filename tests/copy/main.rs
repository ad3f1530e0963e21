//! Copies between stores, and what can go wrong under way.
#![cfg(all(feature = "layers", feature = "memory"))]
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]

#[cfg(all(feature = "ssm", feature = "secretsmanager", feature = "file"))]
mod aws;
mod comparing;
mod deleting;
mod entries;
mod eventual;
mod identities;
mod journal;
#[cfg(feature = "file")]
mod kills;
mod losses;
#[cfg(target_os = "linux")]
mod memory;
mod options;
mod policies;
mod rechecking;
mod rigged;
mod throttled;

use std::path::PathBuf;

use futures_util::TryStreamExt;
use keystead::copy::{CopyOptions, CopyReport, copy_keys};
use keystead::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use tempfile::TempDir;

fn id(number: usize) -> KeyId {
    KeyId::new(format!("user-{number}@example.com")).unwrap()
}

/// Returns a key that depends on the number and the generation. The lengths vary.
fn key(number: usize, generation: u8) -> SecretKey {
    let len = [32, 1, 16, 3072, 33][number % 5];
    SecretKey::new((0..len).map(|at| (number * 31 + at) as u8 ^ generation).collect::<Vec<u8>>()).unwrap()
}

async fn fill(store: &dyn KeyStore, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        store.put_key(&id(number), &key(number, 0)).await.unwrap();
    }
}

async fn ids(store: &dyn KeyStore) -> Vec<KeyId> {
    let mut ids: Vec<KeyId> = store.list_keys().try_collect().await.unwrap();
    ids.sort();
    ids
}

/// The target has the source's keys, each once, and no others.
async fn assert_equal(source: &dyn KeyStore, target: &dyn KeyStore) {
    let ids = ids(source).await;
    assert!(ids == self::ids(target).await, "the listings differ");
    for id in &ids {
        assert!(source.get_key(id).await.unwrap() == target.get_key(id).await.unwrap(), "a key differs");
    }
}

/// Copies, and sees that the report adds up.
async fn copy(source: &dyn KeyStore, target: &dyn KeyStore, options: CopyOptions) -> CopyReport {
    let report = copy_keys(source, target, options).await.unwrap();
    let settled = report.done_before
        + report.copied
        + report.already_there
        + report.overwritten
        + report.skipped
        + report.vanished
        + report.conflicts.total
        + report.unreadable.total
        + report.failed.total;
    assert_eq!(report.listed, settled, "{report:?}");
    report
}

/// A path for a journal, and the directory that it is in.
fn journal() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.journal");
    (directory, path)
}

fn with_journal(path: &PathBuf) -> CopyOptions {
    CopyOptions::default().journal(path)
}

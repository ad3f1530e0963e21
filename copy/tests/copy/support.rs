//! Helpers of these tests and of the facade's test of copies between AWS stores.

use std::future::poll_fn;
use std::path::Path;
use std::task::Poll;

use futures_util::TryStreamExt;
use keystead_copy::{CopyOptions, CopyReport, copy_keys};
use keystead_core::{KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret};

pub(crate) fn id(number: usize) -> KeyId {
    KeyId::new(format!("user-{number}@example.com")).unwrap()
}

/// Returns a key that depends on the number and the generation, of varying length.
pub(crate) fn key(number: usize, generation: u8) -> SecretKey {
    let len = [32, 1, 16, 3072, 33][number % 5];
    SecretKey::new((0..len).map(|at| (number * 31 + at) as u8 ^ generation).collect::<Vec<u8>>()).unwrap()
}

pub(crate) async fn fill(store: &dyn KeyStore, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        store.put_key(&id(number), &key(number, 0)).await.unwrap();
    }
}

pub(crate) async fn ids(store: &dyn KeyStore) -> Vec<KeyId> {
    let mut ids: Vec<KeyId> = store.list_keys().try_collect().await.unwrap();
    ids.sort();
    ids
}

/// Asserts that the target has exactly the source's keys, each listed once.
pub(crate) async fn assert_equal(source: &dyn KeyStore, target: &dyn KeyStore) {
    let ids = ids(source).await;
    assert!(ids == self::ids(target).await, "the listings differ");
    for id in &ids {
        assert!(source.get_key(id).await.unwrap() == target.get_key(id).await.unwrap(), "a key differs");
    }
}

/// Copies, and asserts that the numbers of the report add up.
pub(crate) async fn copy(source: &dyn KeyStore, target: &dyn KeyStore, options: CopyOptions) -> CopyReport {
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

/// Polls a future this many times, and drops it if it is not ready then.
pub(crate) async fn dropped_after<F: Future>(polls: usize, future: F) -> Option<F::Output> {
    let mut future = Box::pin(future);
    let mut left = polls;
    poll_fn(move |context| match left.checked_sub(1) {
        None => Poll::Ready(None),
        Some(less) => {
            left = less;
            future.as_mut().poll(context).map(Some)
        }
    })
    .await
}

/// Copies with this journal and drops each run after up to `most_polls` polls, more with each run,
/// until one ends. Returns the number of dropped runs, and the report.
pub(crate) async fn copy_with_drops(
    source: &dyn KeyStore,
    target: &dyn KeyStore,
    journal: &Path,
    random: &mut fastrand::Rng,
    most_polls: usize,
) -> (usize, CopyReport) {
    let mut drops = 0;
    loop {
        let options = CopyOptions::default().journal(journal);
        // Each run gets longer, so that one ends.
        let polls = random.usize(1..=most_polls) + drops * most_polls / 8;
        match dropped_after(polls, copy_keys(source, target, options)).await {
            None => drops += 1,
            Some(report) => return (drops, report.unwrap()),
        }
    }
}

pub(crate) async fn file_store(path: &Path) -> FileStore {
    FileStore::open_or_create(path, RootSecret::from_bytes([7; 32])).await.unwrap()
}

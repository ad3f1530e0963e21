//! Comparisons of two stores.

use std::time::Duration;

use keystead_copy::{CopyOptions, compare};
use keystead_core::{ErrorKind, KeyStoreExt, Operation};
use keystead_memory::MemoryStore;

use crate::rigged::{Fate, Rigged};
use crate::{copy, fill, id, key};

#[tokio::test]
async fn what_was_copied_is_equal() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..250).await;
    copy(&source, &target, CopyOptions::default()).await;
    let mut told = 0;
    let comparison = compare(&source, &target, |progress| told = progress.done).await.unwrap();
    assert!(comparison.is_equal());
    assert_eq!((comparison.equal, told), (250, 250));
}

#[tokio::test]
async fn every_difference_is_told() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..120).await;
    fill(&memory, (0..118).chain(200..203)).await;
    memory.put_key(&id(5), &key(5, 1)).await.unwrap();
    let target = Rigged::ruled(&memory, |event| {
        (event.operation == Operation::Get && event.id == Some(&id(9))).then_some(Fate::Fail(ErrorKind::Corrupt))
    });
    let comparison = compare(&source, &target, |_| {}).await.unwrap();
    assert!(!comparison.is_equal());
    assert_eq!(comparison.equal, 116);
    assert_eq!(comparison.different.first, [id(5)]);
    assert_eq!((comparison.missing.total, comparison.extra.total), (2, 3));
    assert_eq!(comparison.unreadable.first[0].id, id(9));
}

#[tokio::test(start_paused = true)]
async fn what_is_not_visible_yet_is_no_difference() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..5).await;
    fill(&memory, 0..4).await;
    let target = Rigged::new(&memory).lagging(Duration::from_secs(5));
    target.create_key(&id(4), &key(4, 0)).await.unwrap();
    assert!(compare(&source, &target, |_| {}).await.unwrap().is_equal());
}

#[tokio::test]
async fn a_store_that_cannot_list_is_refused() {
    let memory = MemoryStore::new();
    let listless = Rigged::new(&MemoryStore::new()).listless();
    assert_eq!(compare(&memory, &listless, |_| {}).await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(compare(&listless, &memory, |_| {}).await.unwrap_err().kind(), ErrorKind::Unsupported);
}

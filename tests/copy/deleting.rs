//! The pass that deletes at the source.

use futures_executor::block_on;
use keystead::copy::{ConflictPolicy, CopyOptions, copy_keys};
use keystead::memory::MemoryStore;
use keystead::{ErrorKind, KeyStoreExt, Operation};

use crate::rigged::{Fate, Rigged};
use crate::{copy, fill, id, ids, key, with_journal};

fn moving() -> CopyOptions {
    CopyOptions::default().delete_source(true)
}

#[tokio::test]
async fn a_complete_copy_is_deleted_at_the_source_if_asked_for() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    fill(&source, 0..250).await;
    let report = copy(&source, &target, moving()).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.deleted_at_source), (250, 250));
    assert_eq!((ids(&source).await.len(), ids(&target).await.len()), (0, 250));
}

#[tokio::test]
async fn an_incomplete_copy_deletes_nothing() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    fill(&source, 0..10).await;
    target.put_key(&id(3), &key(3, 1)).await.unwrap();
    let report = copy(&source, &target, moving()).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, ids(&source).await.len()), (false, 0, 10));
}

#[tokio::test]
async fn what_the_policy_skips_stays_at_the_source() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    fill(&source, 0..10).await;
    target.put_key(&id(3), &key(3, 1)).await.unwrap();
    let report = copy(&source, &target, moving().on_conflict(ConflictPolicy::Skip)).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, report.left_at_source.total), (true, 9, 0));
    assert_eq!(ids(&source).await, [id(3)]);
}

#[tokio::test]
async fn what_came_or_changed_since_it_was_copied_stays_at_the_source() {
    let (memory, target) = (MemoryStore::new(), MemoryStore::new());
    fill(&memory, 0..10).await;
    let changed = memory.clone();
    let source = Rigged::ruled(&memory, move |event| {
        // The listings of the copy, of its final pass, and of the deletion.
        if event.operation == Operation::List && event.earlier == 2 {
            block_on(changed.put_key(&id(3), &key(3, 1))).unwrap();
            block_on(fill(&changed, 10..11));
        }
        None
    });
    let report = copy(&source, &target, moving()).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, report.left_at_source.total), (false, 9, 2));
    let mut left = [id(3), id(10)];
    left.sort();
    assert_eq!(ids(&memory).await, left);
}

#[tokio::test]
async fn a_deletion_that_fails_is_reported_and_done_by_the_next_run() {
    let (memory, target) = (MemoryStore::new(), MemoryStore::new());
    let (_directory, path) = crate::journal();
    fill(&memory, 0..10).await;
    let source = Rigged::ruled(&memory, |event| {
        let fails = event.operation == Operation::Delete && event.id == Some(&id(3));
        fails.then_some(Fate::Fail(ErrorKind::PermissionDenied))
    });
    let report = copy_keys(&source, &target, with_journal(&path).delete_source(true)).await.unwrap();
    assert_eq!((report.is_complete(), report.deleted_at_source, report.failed.total), (false, 9, 1));
    let report = copy(&Rigged::new(&memory), &target, with_journal(&path).delete_source(true)).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, report.removed_at_target.total), (true, 1, 0));
    assert_eq!((ids(&memory).await.len(), ids(&target).await.len()), (0, 10));
}

#[tokio::test]
async fn one_store_under_two_names_is_never_emptied() {
    let store = MemoryStore::new();
    fill(&store, 0..10).await;
    let (_directory, path) = crate::journal();
    for options in [moving(), with_journal(&path).delete_source(true), with_journal(&path).delete_source(true)] {
        let error = copy_keys(&store, &store.clone(), options).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Copy));
        assert_eq!(ids(&store).await.len(), 10);
    }
}

#[tokio::test]
async fn two_stores_that_are_equal_already_are_told_from_one() {
    let (source, target) = (MemoryStore::new(), MemoryStore::new());
    fill(&source, 0..10).await;
    fill(&target, 0..10).await;
    let report = copy(&source, &target, moving()).await;
    assert_eq!((report.is_complete(), report.already_there, report.deleted_at_source), (true, 10, 10));
    assert_eq!((ids(&source).await.len(), ids(&target).await.len()), (0, 10));
}

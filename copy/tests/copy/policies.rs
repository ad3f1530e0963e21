//! Tests of the treatment of keys that exist at the target already.

use keystead_copy::{ConflictPolicy, CopyOptions, copy_keys};
use keystead_core::{KeyId, KeyStore, KeyStoreExt, Operation};
use keystead_memory::MemoryStore;

use crate::rigged::Rigged;
use crate::{assert_equal, copy, fill, id, key};

/// Returns a source with ten keys, and a target that has three of them and a different key for two.
async fn stores() -> (MemoryStore, MemoryStore) {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..10).await;
    fill(&target, 0..3).await;
    for number in 3..5 {
        target.put_key(&id(number), &key(number, 1)).await.unwrap();
    }
    (source, target)
}

#[tokio::test]
async fn an_empty_target_gets_every_key_once() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..250).await;
    let watched = Rigged::new(&target);
    let report = copy(&source, &watched, CopyOptions::default()).await;
    assert!(report.is_complete());
    assert_eq!((report.listed, report.copied), (250, 250));
    assert_eq!((watched.calls(Operation::Create).len(), watched.calls(Operation::Get).len()), (250, 3));
    assert!(watched.calls(Operation::Put).is_empty() && watched.calls(Operation::Delete).is_empty());
    assert_equal(&source, &target).await;
}

#[tokio::test]
async fn an_empty_source_is_copied_completely() {
    let report = copy(&MemoryStore::new(), &MemoryStore::new(), CopyOptions::default()).await;
    assert!(report.is_complete() && report.listed == 0);
}

#[tokio::test]
async fn a_different_key_is_reported_and_left_unless_more_is_asked_for() {
    let (source, target) = stores().await;
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(!report.is_complete());
    assert_eq!((report.copied, report.already_there, report.conflicts.total), (5, 3, 2));
    let mut conflicts = report.conflicts.first;
    conflicts.sort();
    assert_eq!(conflicts, [id(3), id(4)]);
    assert_eq!(target.get_key(&id(3)).await.unwrap(), key(3, 1));
}

#[tokio::test]
async fn a_different_key_is_skipped_if_asked_for() {
    let (source, target) = stores().await;
    let report = copy(&source, &target, CopyOptions::default().on_conflict(ConflictPolicy::Skip)).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.already_there, report.skipped), (5, 3, 2));
    assert_eq!(target.get_key(&id(3)).await.unwrap(), key(3, 1));
}

#[tokio::test]
async fn a_different_key_is_overwritten_if_asked_for() {
    let (source, target) = stores().await;
    let watched = Rigged::new(&target);
    let report = copy(&source, &watched, CopyOptions::default().on_conflict(ConflictPolicy::Overwrite)).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.already_there, report.overwritten), (5, 3, 2));
    assert_eq!(watched.calls(Operation::Put).len(), 2);
    assert_equal(&source, &target).await;
}

#[tokio::test]
async fn a_dry_run_writes_nothing_and_says_what_would_happen() {
    for (policy, expected) in
        [(ConflictPolicy::Report, (2, 0, 0)), (ConflictPolicy::Skip, (0, 2, 0)), (ConflictPolicy::Overwrite, (0, 0, 2))]
    {
        let (source, target) = stores().await;
        let watched = Rigged::new(&target);
        let (directory, path) = crate::journal();
        let options = crate::with_journal(&path).on_conflict(policy).dry_run(true).delete_source(true);
        let report = copy(&source, &watched, options).await;
        assert!(report.dry_run && !report.is_complete());
        assert_eq!((report.copied, report.already_there), (5, 3));
        assert_eq!((report.conflicts.total, report.skipped, report.overwritten), expected);
        assert!(watched.all_calls().iter().all(|call| matches!(call.operation, Operation::Get | Operation::List)));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert_eq!(crate::ids(&source).await.len(), 10);
    }
}

#[tokio::test]
async fn a_dry_run_leaves_a_journal_as_it_is_and_knows_what_is_done() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..10).await;
    copy(&source, &target, crate::with_journal(&path)).await;
    fill(&source, 10..13).await;
    let before = std::fs::read(&path).unwrap();
    let report = copy(&source, &target, crate::with_journal(&path).dry_run(true)).await;
    assert_eq!((report.was_complete, report.done_before, report.copied), (true, 10, 3));
    assert_eq!(std::fs::read(&path).unwrap(), before);
}

/// Under a different fence key, no fence would find its tombstones again.
#[tokio::test]
async fn two_stores_of_tombstones_are_never_merged() {
    for policy in [ConflictPolicy::Skip, ConflictPolicy::Overwrite] {
        let here = MemoryStore::new();
        let there = MemoryStore::new();
        let fence_key = KeyId::new("fence-key").unwrap();
        let kept = there.get_or_create_key(&fence_key).await.unwrap();
        here.get_or_create_key(&fence_key).await.unwrap();
        let report = copy_keys(&here, &there, CopyOptions::default().on_conflict(policy)).await.unwrap();
        assert!(report.conflicts.total == 1 && !report.is_complete(), "{report:?}");
        assert_eq!(there.get_key(&fence_key).await.unwrap(), kept);
    }
}

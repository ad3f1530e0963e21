//! Entries that cannot be read or written.

use keystead_copy::{CopyOptions, copy_keys};
use keystead_core::{ErrorKind, KeyStoreExt, Operation};
use keystead_memory::MemoryStore;

use crate::rigged::{Fate, Rigged};
use crate::{assert_equal, copy, fill, id, key};

#[tokio::test]
async fn an_unreadable_entry_is_skipped_and_reported_at_the_end() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..150).await;
    let source = Rigged::ruled(&memory, |event| {
        let is_bad = event.operation == Operation::Get && [Some(&id(7)), Some(&id(140))].contains(&event.id);
        is_bad.then_some(Fate::Fail(ErrorKind::Corrupt))
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(!report.is_complete());
    assert_eq!((report.copied, report.unreadable.total), (148, 2));
    assert!(report.unreadable.first.iter().all(|failure| failure.kind() == ErrorKind::Corrupt));
    assert!(target.find_key(&id(7)).await.unwrap().is_none());
}

#[tokio::test]
async fn an_entry_whose_id_cannot_be_read_is_counted() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..5).await;
    let source =
        Rigged::ruled(&memory, |event| (event.operation == Operation::List).then_some(Fate::Fail(ErrorKind::Corrupt)));
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(!report.is_complete());
    assert_eq!((report.copied, report.unlisted), (5, 1));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_is_reported_and_done_by_the_next_run() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..50).await;
    let target = Rigged::ruled(&memory, |event| match (event.operation, event.id) {
        (Operation::Create, Some(which)) if *which == id(5) => Some(Fate::Fail(ErrorKind::PermissionDenied)),
        (Operation::Create, Some(which)) if *which == id(6) => Some(Fate::Fail(ErrorKind::Throttled)),
        _ => None,
    });
    let report = copy(&source, &target, crate::with_journal(&path)).await;
    assert!(!report.is_complete());
    assert_eq!((report.copied, report.failed.total), (48, 2));
    let report = copy(&source, &Rigged::new(&memory), crate::with_journal(&path)).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.done_before, report.already_there), (2, 48, 0));
    assert_equal(&source, &memory).await;
}

#[tokio::test]
async fn a_write_without_an_answer_is_settled_by_reading_back() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..20).await;
    memory.put_key(&id(9), &key(9, 1)).await.unwrap();
    let target = Rigged::ruled(&memory, |event| match (event.operation, event.id) {
        (Operation::Create, Some(which)) if *which == id(7) => Some(Fate::HappenAndFail(ErrorKind::Timeout)),
        (Operation::Create, Some(which)) if *which == id(8) => Some(Fate::Lose(ErrorKind::Timeout)),
        _ => None,
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.copied, report.failed.total, report.conflicts.total), (18, 1, 1));
    assert_eq!((&report.failed.first[0].id, report.failed.first[0].kind()), (&id(8), ErrorKind::Timeout));
    assert_eq!(memory.find_key(&id(7)).await.unwrap(), Some(key(7, 0)));
}

#[tokio::test]
async fn a_store_that_refuses_everything_ends_the_run() {
    for (operation, kind) in [
        (Operation::Get, ErrorKind::Unauthenticated),
        (Operation::Get, ErrorKind::Unavailable),
        (Operation::List, ErrorKind::PermissionDenied),
        (Operation::Create, ErrorKind::PermissionDenied),
        (Operation::Create, ErrorKind::QuotaExceeded),
    ] {
        let source = MemoryStore::new();
        let target = MemoryStore::new();
        fill(&source, 0..150).await;
        let refuse = move |event: &crate::rigged::Event<'_>| (event.operation == operation).then_some(Fate::Fail(kind));
        let (source, target) = match operation {
            Operation::Create => (Rigged::new(&source), Rigged::ruled(&target, refuse)),
            _ => (Rigged::ruled(&source, refuse), Rigged::new(&target)),
        };
        let error = copy_keys(&source, &target, CopyOptions::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, operation));
        let calls = source.calls(Operation::Get).len() + target.calls(Operation::Create).len();
        assert!(calls <= 101, "{calls}");
    }
}

#[tokio::test]
async fn an_entry_that_damage_hides_at_the_target_is_never_overwritten() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..5).await;
    memory.put_key(&id(3), &key(3, 1)).await.unwrap();
    let target = Rigged::ruled(&memory, |event| {
        (event.operation == Operation::Get && event.id == Some(&id(3))).then_some(Fate::Fail(ErrorKind::Corrupt))
    });
    let options = CopyOptions::default().on_conflict(keystead_copy::ConflictPolicy::Overwrite);
    let report = copy(&source, &target, options).await;
    assert_eq!((report.copied, report.failed.total, report.overwritten), (4, 1, 0));
    assert_eq!(memory.find_key(&id(3)).await.unwrap(), Some(key(3, 1)));
}

#[tokio::test]
async fn a_store_that_leaves_out_an_outcome_never_has_its_keys_mixed_up() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..5).await;
    let report = copy(&Rigged::new(&memory).forgetful(), &target, CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.copied, report.unreadable.total), (false, 0, 5));
    assert!(crate::ids(&target).await.is_empty());
    let report = copy(&memory, &Rigged::new(&target).forgetful(), CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.copied, report.failed.total), (false, 0, 5));
}

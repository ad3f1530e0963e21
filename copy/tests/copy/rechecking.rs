//! Tests of resumed copies, which read again the keys that earlier runs have copied.

use keystead_copy::{ConflictPolicy, CopyOptions};
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_memory::MemoryStore;

use crate::rigged::{Fate, Rigged};
use crate::{assert_equal, copy, fill, id, key, with_journal};

/// Returns two stores after a complete copy of 150 keys, and the journal.
async fn copied() -> (MemoryStore, MemoryStore, tempfile::TempDir, std::path::PathBuf) {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (directory, path) = crate::journal();
    fill(&source, 0..150).await;
    assert!(copy(&source, &target, with_journal(&path)).await.is_complete());
    (source, target, directory, path)
}

#[tokio::test]
async fn a_key_that_vanished_at_the_target_between_two_runs_is_copied_again() {
    let (source, target, _directory, path) = copied().await;
    for number in [7, 120] {
        target.delete_key(&id(number)).await.unwrap();
    }
    let report = copy(&source, &target, with_journal(&path)).await;
    assert!(report.is_complete());
    assert_eq!((report.done_before, report.copied), (148, 2));
    assert_equal(&source, &target).await;
    // Not even the end in a journal is trusted.
    target.delete_key(&id(7)).await.unwrap();
    let report = copy(&source, &target, with_journal(&path).recheck(false)).await;
    assert!(!report.is_complete() && report.not_rechecked == 150);
}

#[tokio::test]
async fn a_key_that_changed_between_two_runs_is_a_conflict_like_any_other() {
    for (policy, complete) in
        [(ConflictPolicy::Report, false), (ConflictPolicy::Skip, true), (ConflictPolicy::Overwrite, true)]
    {
        let (source, target, _directory, path) = copied().await;
        target.put_key(&id(7), &key(7, 1)).await.unwrap();
        source.put_key(&id(8), &key(8, 1)).await.unwrap();
        let report = copy(&source, &target, with_journal(&path).on_conflict(policy)).await;
        assert_eq!((report.is_complete(), report.done_before), (complete, 148), "{policy:?}");
        let sentence = report.to_string();
        match policy {
            ConflictPolicy::Report => {
                let mut conflicts = report.conflicts.first;
                conflicts.sort();
                assert_eq!(conflicts, [id(7), id(8)]);
                assert!(sentence.starts_with("NOT complete: 148 keys") && sentence.contains("2 differ and were left"));
            }
            ConflictPolicy::Skip => {
                let expected = "complete: 148 keys were read back at the target; 2 differ and were skipped";
                assert_eq!((report.skipped, sentence.as_str()), (2, expected));
            }
            _ => {
                assert_eq!(report.overwritten, 2);
                assert_equal(&source, &target).await;
            }
        }
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_read_again_is_reported() {
    let (source, memory, _directory, path) = copied().await;
    let target = Rigged::ruled(&memory, |event| {
        let is_bad = event.operation == Operation::Get && event.id == Some(&id(7));
        is_bad.then_some(Fate::Fail(ErrorKind::Corrupt))
    });
    // Another handle of the same data.
    let target = target.known_as(memory.info());
    let report = copy(&source, &target, with_journal(&path)).await;
    assert_eq!((report.is_complete(), report.done_before, report.failed.total), (false, 149, 1));
}

#[tokio::test]
async fn a_dry_run_reads_again_too() {
    let (source, target, _directory, path) = copied().await;
    target.delete_key(&id(7)).await.unwrap();
    let report = copy(&source, &target, with_journal(&path).dry_run(true)).await;
    assert_eq!((report.done_before, report.copied, report.not_rechecked), (149, 1, 0));
    let report = copy(&source, &target, with_journal(&path).dry_run(true).recheck(false)).await;
    assert_eq!((report.done_before, report.copied, report.not_rechecked), (150, 0, 150));
}

#[tokio::test]
async fn the_sentence_names_what_became_of_every_key() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let nothing = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!(nothing.to_string(), "complete: the source lists no key");
    fill(&source, 0..5).await;
    target.put_key(&id(1), &key(1, 1)).await.unwrap();
    let gone = source.clone();
    let rigged = Rigged::ruled(&source, move |event| {
        if event.operation == Operation::List && event.earlier == 1 {
            futures_executor::block_on(gone.delete_key(&id(2))).unwrap();
        }
        None
    });
    let report = copy(&rigged, &target, CopyOptions::default().on_conflict(ConflictPolicy::Skip)).await;
    assert_eq!(
        report.to_string(),
        "complete: 4 keys were read back at the target; 1 differs and was skipped; 1 was deleted at the source \
         meanwhile and removed at the target"
    );
}

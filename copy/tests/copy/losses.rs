//! Tests of keys that the source loses, or that others write at the target, during the copy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_executor::block_on;
use keystead_copy::{CopyOptions, CopyReport, copy_keys};
use keystead_core::{ErrorKind, KeyStore, KeyStoreExt, Operation};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

use crate::rigged::{Event, Fate, Rigged};
use crate::{assert_equal, copy, fill, id, key};

/// Returns a rule that does this when the source is listed for the second time.
fn before_the_final_pass(memory: &MemoryStore, change: impl Fn(&MemoryStore) + Send + Sync + 'static) -> Rigged {
    let changed = memory.clone();
    let done = AtomicUsize::new(0);
    Rigged::ruled(memory, move |event: &Event<'_>| {
        if event.operation == Operation::List && event.earlier > 0 && done.fetch_add(1, Ordering::SeqCst) == 0 {
            change(&changed);
        }
        None
    })
}

fn delete(store: &MemoryStore, number: usize) {
    block_on(store.delete_key(&id(number))).unwrap();
}

#[tokio::test]
async fn what_the_source_loses_is_removed_at_the_target_and_what_comes_is_copied() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..30).await;
    let source = before_the_final_pass(&memory, |memory| {
        delete(memory, 4);
        delete(memory, 5);
        block_on(fill(memory, 30..32));
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.listed), (32, 32));
    let mut removed = report.removed_at_target.first;
    removed.sort();
    assert_eq!(removed, [id(4), id(5)]);
    assert_equal(&memory, &target).await;
}

#[tokio::test]
async fn what_the_run_did_not_write_is_never_removed() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..10).await;
    fill(&target, [4, 77]).await;
    let changed = target.clone();
    let source = before_the_final_pass(&memory, move |memory| {
        (4..6).for_each(|number| delete(memory, number));
        block_on(changed.put_key(&id(5), &key(5, 1))).unwrap();
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete() && report.removed_at_target.is_empty());
    assert_eq!(report.left_at_target.first, [id(5)]);
    assert_eq!(target.get_key(&id(4)).await.unwrap(), key(4, 0));
    assert_eq!(target.get_key(&id(5)).await.unwrap(), key(5, 1));
    assert!(target.find_key(&id(77)).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn a_loss_is_believed_only_after_two_misses_one_bound_apart() {
    for misses in 0..=2 {
        let memory = MemoryStore::new();
        let target = MemoryStore::new();
        fill(&memory, 0..10).await;
        // After its chunk was fetched, id 3 is missing in this many reads and in the second
        // listing.
        let gone = memory.clone();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let source = Rigged::ruled(&memory, move |event| match (event.operation, event.id) {
            (Operation::List, _) if event.earlier == 2 - 1 => {
                delete(&gone, 3);
                None
            }
            (Operation::Get, Some(which)) if *which == id(3) && event.earlier > 0 => {
                block_on(gone.put_key(&id(3), &key(3, 0))).unwrap();
                (counted.fetch_add(1, Ordering::SeqCst) < misses).then_some(Fate::Fail(ErrorKind::NotFound))
            }
            _ => None,
        })
        .lagging(Duration::from_secs(5));
        let begun = Instant::now();
        let report = copy(&source, &target, CopyOptions::default()).await;
        assert!(report.is_complete());
        assert_eq!(report.removed_at_target.total, u64::from(misses == 2), "{misses} misses");
        assert_eq!(target.find_key(&id(3)).await.unwrap().is_some(), misses < 2);
        assert_eq!(asked.load(Ordering::SeqCst), (misses + 1).min(2));
        assert_eq!(begun.elapsed() >= Duration::from_secs(5), misses > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_loss_that_the_source_cannot_confirm_is_left_unsettled() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..10).await;
    let gone = memory.clone();
    let source = Rigged::ruled(&memory, move |event| match (event.operation, event.id) {
        (Operation::List, _) if event.earlier == 1 => {
            delete(&gone, 3);
            None
        }
        (Operation::Get, _) if event.earlier > 0 => Some(Fate::Fail(ErrorKind::Throttled)),
        _ => None,
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.unsettled, report.removed_at_target.total), (false, 1, 0));
    assert!(target.find_key(&id(3)).await.unwrap().is_some());
}

#[tokio::test]
async fn a_target_that_cannot_list_leaves_losses_unsettled() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..10).await;
    let source = before_the_final_pass(&memory, |memory| delete(memory, 3));
    let report = copy(&source, &Rigged::new(&target).listless(), CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.copied, report.unsettled), (false, 10, 1));
}

#[tokio::test]
async fn a_user_who_comes_back_after_a_removal_without_an_answer_is_copied_again() {
    let memory = MemoryStore::new();
    let store = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&memory, 0..10).await;
    let source = before_the_final_pass(&memory, |memory| delete(memory, 3));
    let target = Rigged::ruled(&store, |event| {
        (event.operation == Operation::Delete).then_some(Fate::HappenAndFail(ErrorKind::Timeout))
    });
    let report = copy_keys(&source, &target, crate::with_journal(&path)).await.unwrap();
    assert_eq!((report.is_complete(), report.copied, report.failed.total), (false, 10, 1));
    assert!(store.find_key(&id(3)).await.unwrap().is_none());
    fill(&memory, [3]).await;
    let report = copy(&source, &target, crate::with_journal(&path)).await;
    assert_eq!((report.is_complete(), report.done_before, report.copied), (true, 9, 1));
    assert_equal(&memory, &store).await;
}

/// Copies `keys` keys, of which the source loses `lost` before the second listing.
async fn losing(count: usize, lost: usize, options: CopyOptions) -> (CopyReport, usize) {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..count).await;
    let source = before_the_final_pass(&memory, move |memory| (0..lost).for_each(|number| delete(memory, number)));
    let report = copy(&source, &target, options).await;
    let left = crate::ids(&target).await.len();
    (report, left)
}

#[tokio::test]
async fn more_losses_than_ten_and_one_in_a_hundred_are_removed_only_after_a_confirmation() {
    for (count, lost) in [(10, 5), (20, 10), (300, 10), (1200, 12), (1200, 10)] {
        let (report, left) = losing(count, lost, CopyOptions::default()).await;
        assert!(report.is_complete(), "{lost} of {count}: {report}");
        assert_eq!((report.removed_at_target.total, report.removals_to_confirm), (lost as u64, 0));
        assert_eq!(left, count - lost);
    }
    // With few keys, more than half is suspicious: the source may be an older copy of itself.
    for (count, lost) in [(1, 1), (10, 6), (10, 10), (20, 11), (300, 11), (1200, 13)] {
        let lost_keys = lost as u64;
        for wrong in [None, Some(lost_keys - 1), Some(lost_keys + 1)] {
            let options = CopyOptions::default();
            let options = wrong.map_or(CopyOptions::default(), |number| options.confirm_removals(number));
            let (report, left) = losing(count, lost, options).await;
            assert!(!report.is_complete() && report.removed_at_target.is_empty());
            assert_eq!((report.unsettled, report.removals_to_confirm, left), (lost_keys, lost_keys, count));
            assert!(report.to_string().contains("NOT complete"), "{report}");
        }
        let (report, left) = losing(count, lost, CopyOptions::default().confirm_removals(lost_keys)).await;
        assert!(report.is_complete(), "{report}");
        assert_eq!((report.removed_at_target.total, report.removals_to_confirm, left), (lost_keys, 0, count - lost));
    }
}

#[tokio::test]
async fn a_number_can_be_confirmed_with_the_journal_of_the_run_that_asked_for_it() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&memory, 0..40).await;
    let source = before_the_final_pass(&memory, |memory| (0..15).for_each(|number| delete(memory, number)));
    let report = copy(&source, &target, crate::with_journal(&path)).await;
    assert_eq!((report.is_complete(), report.removals_to_confirm), (false, 15));
    let report = copy(&source, &target, crate::with_journal(&path)).await;
    assert_eq!((report.is_complete(), report.removals_to_confirm), (false, 15));
    let report = copy(&source, &target, crate::with_journal(&path).confirm_removals(15)).await;
    assert_eq!((report.is_complete(), report.removed_at_target.total), (true, 15));
    assert_equal(&memory, &target).await;
}

#[tokio::test]
async fn what_a_complete_copy_left_stays_whatever_the_source_loses_later() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..10).await;
    assert!(copy(&source, &target, crate::with_journal(&path)).await.is_complete());
    (0..9).for_each(|number| delete(&source, number));
    fill(&source, 20..21).await;
    let report = copy(&source, &target, crate::with_journal(&path)).await;
    assert!(report.is_complete() && report.was_complete);
    assert_eq!((report.copied, report.done_before, report.removed_at_target.total), (1, 1, 0));
    assert_eq!(crate::ids(&target).await.len(), 11);
}

#[tokio::test]
async fn what_vanishes_before_it_is_read_is_counted() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..10).await;
    let gone = memory.clone();
    let source = Rigged::ruled(&memory, move |event| {
        if event.operation == Operation::Get && event.id == Some(&id(2)) && event.earlier == 0 {
            delete(&gone, 2);
        }
        None
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.vanished), (9, 1));
    assert_equal(&memory, &target).await;
}

#[tokio::test]
async fn a_key_that_changes_at_the_target_under_the_copy_is_a_conflict() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..10).await;
    let changed = memory.clone();
    let target = Rigged::ruled(&memory, move |event| {
        if event.operation == Operation::Get && event.id == Some(&id(2)) {
            block_on(changed.put_key(&id(2), &key(2, 1))).unwrap();
        }
        None
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.copied), (false, 9));
    assert_eq!(report.conflicts.first, [id(2)]);
    assert_eq!(memory.find_key(&id(2)).await.unwrap(), Some(key(2, 1)));
}

#[tokio::test]
async fn a_key_that_the_target_loses_under_the_copy_is_reported() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..10).await;
    let gone = memory.clone();
    let target = Rigged::ruled(&memory, move |event| {
        if event.operation == Operation::Get && event.id == Some(&id(2)) {
            delete(&gone, 2);
        }
        None
    });
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.is_complete(), report.copied, report.failed.total), (false, 9, 1));
    assert_eq!(report.failed.first[0].kind(), ErrorKind::Conflict);
}

/// Users are erased after a run was killed that had written some of their keys without recording
/// it.
#[tokio::test]
async fn what_the_source_loses_between_two_runs_is_removed_too() {
    let mut removed = 0;
    for polls in 1..40 {
        let memory = MemoryStore::new();
        let target = MemoryStore::new();
        let (_directory, path) = crate::journal();
        fill(&memory, 0..20).await;
        fill(&target, [3]).await;
        let from = Rigged::new(&memory);
        let to = Rigged::new(&target);
        let copied = copy_keys(&from, &to, crate::with_journal(&path));
        if crate::support::dropped_after(polls, copied).await.is_some() {
            assert!(removed > 0, "{polls} polls were enough");
            return;
        }
        (5..12).for_each(|number| delete(&memory, number));
        let report = copy(&from, &to, crate::with_journal(&path)).await;
        assert!(report.is_complete());
        removed += report.removed_at_target.total;
        assert_equal(&memory, &target).await;
    }
    panic!("it did not end");
}

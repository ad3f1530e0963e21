//! Eventually consistent stores.

use std::time::Duration;

use keystead_copy::{ConflictPolicy, CopyOptions};
use keystead_core::{KeyStoreExt, Operation};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

use crate::rigged::Rigged;
use crate::{assert_equal, copy, fill, id, key};

const BOUND: Duration = Duration::from_secs(5);

#[tokio::test(start_paused = true)]
async fn what_is_not_visible_yet_is_read_again_until_the_bound_has_passed() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..150).await;
    let target = Rigged::new(&memory).lagging(BOUND);
    let begun = Instant::now();
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete());
    assert_eq!(report.copied, 150);
    // One bound for each of the two chunks.
    assert!(begun.elapsed() <= 2 * BOUND + Duration::from_millis(100), "{:?}", begun.elapsed());
    assert!(target.calls(Operation::Get).len() <= 2 * 5);
    assert_equal(&source, &memory).await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_not_visible_is_read_again() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..100).await;
    fill(&memory, 1..100).await;
    let target = Rigged::new(&memory).lagging(BOUND);
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.copied, report.already_there), (1, 99));
    let reads: Vec<usize> = target.calls(Operation::Get).iter().map(|call| call.ids).collect();
    assert_eq!((reads[0], reads[1..].iter().max()), (100, Some(&1)), "{reads:?}");
}

#[tokio::test(start_paused = true)]
async fn an_old_value_is_not_taken_for_a_conflict_after_an_overwrite() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..3).await;
    memory.put_key(&id(1), &key(1, 1)).await.unwrap();
    let target = Rigged::new(&memory).lagging(BOUND);
    let report = copy(&source, &target, CopyOptions::default().on_conflict(ConflictPolicy::Overwrite)).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.overwritten), (2, 1));
    assert_equal(&source, &memory).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_source_lists_but_does_not_show_yet_is_copied() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&memory, 0..8).await;
    let source = Rigged::new(&memory).lagging(BOUND);
    for number in 8..10 {
        source.create_key(&id(number), &key(number, 0)).await.unwrap();
    }
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.vanished), (10, 0));
    assert_equal(&memory, &target).await;
}

//! Tests of stores that throttle.

use std::time::Duration;

use keystead_copy::{CopyOptions, copy_keys};
use keystead_core::{ErrorKind, Operation};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

use crate::rigged::{Event, Fate, Rigged};
use crate::{assert_equal, copy, fill};

/// Returns a rule that throttles all calls of an operation except each `all_but`-th one.
fn throttles(operation: Operation, all_but: usize) -> impl Fn(&Event<'_>) -> Option<Fate> {
    move |event| {
        let is_refused = event.operation == operation && !event.earlier.is_multiple_of(all_but);
        is_refused.then_some(Fate::Fail(ErrorKind::Throttled))
    }
}

#[tokio::test(start_paused = true)]
async fn writes_that_are_throttled_are_made_in_the_end() {
    let source = MemoryStore::new();
    let memory = MemoryStore::new();
    fill(&source, 0..200).await;
    let target = Rigged::ruled(&memory, throttles(Operation::Create, 3));
    assert!(copy(&source, &target, CopyOptions::default()).await.is_complete());
    assert_equal(&source, &memory).await;
}

#[tokio::test(start_paused = true)]
async fn reads_and_listings_that_are_throttled_are_made_in_the_end() {
    for operation in [Operation::Get, Operation::List] {
        let memory = MemoryStore::new();
        let target = MemoryStore::new();
        fill(&memory, 0..200).await;
        let source = Rigged::ruled(&memory, move |event| {
            let is_refused = event.operation == operation && event.earlier.is_multiple_of(3);
            is_refused.then_some(Fate::Fail(ErrorKind::Throttled))
        });
        assert!(copy(&source, &target, CopyOptions::default()).await.is_complete(), "{operation}");
        assert_equal(&memory, &target).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_throttles_everything_ends_the_run_after_two_minutes() {
    for operation in [Operation::Create, Operation::List] {
        let memory = MemoryStore::new();
        let begun = Instant::now();
        fill(&memory, 0..20).await;
        let rule = move |event: &Event<'_>| (event.operation == operation).then_some(Fate::Fail(ErrorKind::Throttled));
        let (source, target) = match operation {
            Operation::List => (Rigged::ruled(&memory, rule), Rigged::new(&MemoryStore::new())),
            _ => (Rigged::new(&memory), Rigged::ruled(&MemoryStore::new(), rule)),
        };
        let error = copy_keys(&source, &target, CopyOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Throttled, "{operation}");
        assert!((Duration::from_secs(60)..Duration::from_secs(180)).contains(&begun.elapsed()), "{operation}");
    }
}

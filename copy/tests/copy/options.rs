//! Tests of the options: what is refused, how often stores are called, and what progress is
//! reported.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use keystead_copy::{CopyOptions, CopyPhase, CopyProgress, copy_keys};
use keystead_core::{ErrorKind, KeyId, Operation};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

use crate::rigged::{Call, Event, Fate, Rigged};
use crate::{assert_equal, copy, fill, with_journal};

#[tokio::test]
async fn what_will_not_do_is_refused_before_any_call() {
    let options = || CopyOptions::default();
    let cases = [
        (options().concurrency(0), ErrorKind::Config),
        (options().batch_size(0), ErrorKind::Config),
        (options().rate(0.0), ErrorKind::Config),
        (options().rate(-1.0), ErrorKind::Config),
        (options().rate(f64::NAN), ErrorKind::Config),
        (options().rate(f64::INFINITY), ErrorKind::Config),
        (options().journal("/nowhere/at/all"), ErrorKind::Config),
        (options().journal("/"), ErrorKind::Config),
    ];
    for (options, kind) in cases {
        let source = Rigged::new(&MemoryStore::new());
        let target = Rigged::new(&MemoryStore::new());
        let shown = format!("{options:?}");
        let error = copy_keys(&source, &target, options).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (kind, Operation::Copy), "{shown}");
        assert!(source.all_calls().is_empty() && target.all_calls().is_empty());
    }
}

#[tokio::test]
async fn a_source_that_cannot_list_is_refused() {
    let (_directory, path) = crate::journal();
    let source = Rigged::new(&MemoryStore::new()).listless();
    let error = copy_keys(&source, &MemoryStore::new(), with_journal(&path)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Unsupported, Operation::List));
    assert!(source.all_calls().is_empty() && !path.exists());
}

fn fits(calls: &[Call], rate: f64, burst: usize) -> bool {
    let window = Duration::from_secs(1);
    calls.iter().all(|first| {
        let within = calls.iter().filter(|call| call.at >= first.at && call.at < first.at + window).count();
        within <= rate as usize + burst
    })
}

#[tokio::test(start_paused = true)]
async fn no_more_calls_are_made_in_a_second_than_the_rate_allows() {
    for (batch_size, reads_back) in [(Some(10), 10), (Some(20), 5), (None, 100)] {
        let source = MemoryStore::new();
        let target = MemoryStore::new();
        fill(&source, 0..100).await;
        let from = Rigged::new(&source).batching(10);
        let to = match batch_size {
            Some(ids) => Rigged::new(&target).batching(ids),
            None => Rigged::new(&target),
        };
        let begun = Instant::now();
        let report = copy(&from, &to, CopyOptions::default().rate(10.0)).await;
        assert!(report.is_complete());
        assert!(fits(&from.all_calls(), 10.0, 1) && fits(&to.all_calls(), 10.0, 1));
        assert_eq!((from.calls(Operation::List).len(), from.calls(Operation::Get).len()), (20, 10));
        assert_eq!((to.calls(Operation::Create).len(), to.calls(Operation::Get).len()), (100, reads_back));
        // The calls to one store follow each other; those to the other one fall between or after
        // them.
        let least = (100 + reads_back) as f64 / 10.0;
        let took = begun.elapsed().as_secs_f64();
        assert!((least..least + 4.0).contains(&took), "{took} s");
        assert_equal(&source, &target).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_size_of_batches_can_be_set() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..100).await;
    let from = Rigged::new(&source);
    let to = Rigged::new(&target);
    copy(&from, &to, CopyOptions::default().rate(1000.0).batch_size(25)).await;
    assert_eq!((from.calls(Operation::Get).len(), to.calls(Operation::Get).len()), (4, 4));
}

#[tokio::test]
async fn progress_tells_the_phases_in_their_order() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..250).await;
    let told: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
    let telling = told.clone();
    let options = CopyOptions::default().delete_source(true);
    copy(&source, &target, options.on_progress(move |progress| telling.lock().unwrap().push(progress))).await;
    let told = told.lock().unwrap();
    let of = |phase| told.iter().filter(move |progress| progress.phase == phase);
    assert_eq!(of(CopyPhase::Copying).map(|progress| progress.done).collect::<Vec<_>>(), [100, 200, 250]);
    assert!(of(CopyPhase::Copying).all(|progress| progress.total.is_none()));
    let last = of(CopyPhase::Deleting).next_back().unwrap();
    assert_eq!((last.done, last.total), (250, Some(250)));
}

#[tokio::test(start_paused = true)]
async fn progress_is_told_from_the_first_key_of_a_slow_copy() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..150).await;
    let told: Arc<Mutex<Vec<CopyProgress>>> = Arc::default();
    let telling = told.clone();
    let options = CopyOptions::default().rate(1.0).concurrency(1);
    copy(&source, &target, options.on_progress(move |progress| telling.lock().unwrap().push(progress))).await;
    let told = told.lock().unwrap();
    let copying = told.iter().filter(|progress| progress.phase == CopyPhase::Copying);
    let done: Vec<u64> = copying.map(|progress| progress.done).collect();
    assert!(done.is_sorted() && done.first().is_some_and(|first| *first <= 2), "{done:?}");
    assert!((1..=150).all(|number| done.contains(&number)), "{done:?}");
}

#[tokio::test]
async fn a_callback_that_panics_loses_nothing() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let (_directory, path) = crate::journal();
    fill(&source, 0..250).await;
    let from = source.clone();
    let to = target.clone();
    let options = with_journal(&path);
    let panics = options.on_progress(|progress| assert!(progress.done < 200, "as it is meant to"));
    let copied = tokio::spawn(async move { copy_keys(&from, &to, panics).await }).await;
    assert!(copied.unwrap_err().is_panic());
    let report = copy(&source, &target, with_journal(&path)).await;
    assert!(report.is_complete());
    assert_eq!((report.done_before, report.copied), (200, 50));
    assert_equal(&source, &target).await;
}

#[tokio::test]
async fn a_target_that_creates_many_together_gets_many() {
    let source = MemoryStore::new();
    fill(&source, 0..3_000).await;
    let target = Rigged::new(&MemoryStore::new()).creating_together(1_000);
    fill(&target.memory, [7, 2_500]).await;
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.copied, report.already_there), (2_998, 2));
    assert_equal(&source, &target).await;
    let calls = target.calls(Operation::Create);
    assert_eq!(calls.iter().map(|call| call.ids).sum::<usize>(), 3_000);
    assert_eq!(calls[0].ids, 100, "the first chunk shows how fast the two are");
    assert_eq!(calls.iter().map(|call| call.ids).max(), Some(1_000));
}

#[tokio::test]
async fn keys_that_fail_among_many_are_reported_one_by_one() {
    let source = MemoryStore::new();
    fill(&source, 0..300).await;
    let is_bad = |id: Option<&KeyId>| id.is_some_and(|id| id.as_str().starts_with("user-11"));
    let rule = move |event: &Event<'_>| {
        (event.operation == Operation::Create && is_bad(event.id)).then_some(Fate::Fail(ErrorKind::Corrupt))
    };
    let target = Rigged::ruled(&MemoryStore::new(), rule).creating_together(1_000);
    let report = copy(&source, &target, CopyOptions::default()).await;
    assert_eq!((report.copied, report.failed.total), (289, 11));
    let forgetful = Rigged::new(&MemoryStore::new()).creating_together(1_000).forgetful();
    let report = copy(&source, &forgetful, CopyOptions::default()).await;
    assert_eq!((report.copied, report.failed.total), (0, 300));
}

#[tokio::test(start_paused = true)]
async fn a_rate_counts_each_key_that_is_created() {
    let source = MemoryStore::new();
    fill(&source, 0..200).await;
    let target = Rigged::new(&MemoryStore::new()).creating_together(1_000);
    assert!(copy(&source, &target, CopyOptions::default().rate(50.0)).await.is_complete());
    let calls = target.calls(Operation::Create);
    assert!(calls.len() == 200 && fits(&calls, 50.0, 1), "{} calls", calls.len());
}

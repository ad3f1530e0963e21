//! Tests of the pass that deletes at the source.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_executor::block_on;
use keystead_copy::{ConflictPolicy, CopyOptions, copy_keys};
use keystead_core::{Durability, Effect, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, StoreInfo};
use keystead_memory::MemoryStore;

use crate::rigged::{Event, Fate, Rigged};
use crate::{copy, fill, id, ids, key, with_journal};

fn moving() -> CopyOptions {
    CopyOptions::default().delete_source(true)
}

#[tokio::test]
async fn a_complete_copy_is_deleted_at_the_source_if_asked_for() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..250).await;
    let report = copy(&source, &target, moving()).await;
    assert!(report.is_complete());
    assert_eq!((report.copied, report.deleted_at_source), (250, 250));
    assert_eq!((ids(&source).await.len(), ids(&target).await.len()), (0, 250));
}

#[tokio::test]
async fn an_incomplete_copy_deletes_nothing() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..10).await;
    target.put_key(&id(3), &key(3, 1)).await.unwrap();
    let report = copy(&source, &target, moving()).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, ids(&source).await.len()), (false, 0, 10));
}

#[tokio::test]
async fn what_the_policy_skips_stays_at_the_source() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..10).await;
    target.put_key(&id(3), &key(3, 1)).await.unwrap();
    let report = copy(&source, &target, moving().on_conflict(ConflictPolicy::Skip)).await;
    assert_eq!((report.is_complete(), report.deleted_at_source, report.left_at_source.total), (true, 9, 0));
    assert_eq!(ids(&source).await, [id(3)]);
}

#[tokio::test]
async fn what_came_or_changed_since_it_was_copied_stays_at_the_source() {
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
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
    let memory = MemoryStore::new();
    let target = MemoryStore::new();
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

/// Returns one store under two names that do not show that it is the same: two different paths.
fn two_names(
    store: &MemoryStore,
    rule: impl Fn(&Event<'_>) -> Option<Fate> + Send + Sync + 'static,
) -> (Rigged, Rigged) {
    let named = |rigged: Rigged, path: &str| rigged.known_as(StoreInfo::new("engine", path));
    (named(Rigged::new(store), "/mnt/a"), named(Rigged::ruled(store, rule), "/mnt/b"))
}

#[tokio::test]
async fn one_store_under_two_names_is_never_emptied_even_if_a_create_succeeded() {
    let store = MemoryStore::new();
    fill(&store, 0..10).await;
    let erased = store.clone();
    // An erasure between the read at the source and the create at the target lets the create
    // succeed.
    let (source, target) = two_names(&store, move |event| {
        if event.operation == Operation::Create && event.id == Some(&id(3)) {
            block_on(erased.delete_key(&id(3))).unwrap();
        }
        None
    });
    let (_directory, path) = crate::journal();
    for options in [moving(), with_journal(&path).delete_source(true)] {
        let error = copy_keys(&source, &target, options).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Copy));
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("one store"), "{error:?}");
        assert_eq!(ids(&store).await.len(), 10, "every key is there, and the probe is not");
    }
}

#[tokio::test]
async fn a_probe_that_cannot_be_removed_is_reported() {
    let refuse_deletes =
        |event: &Event<'_>| (event.operation == Operation::Delete).then_some(Fate::Fail(ErrorKind::PermissionDenied));
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..3).await;
    let target = Rigged::ruled(&there, refuse_deletes);
    let report = copy_keys(&memory, &target, moving()).await.unwrap();
    let left = report.probe_left.as_ref().unwrap();
    assert_eq!((left.kind(), report.deleted_at_source), (ErrorKind::PermissionDenied, 3));
    assert!(there.find_key(&left.id).await.unwrap().is_some() && left.id.as_str().starts_with("keystead-copy-"));

    let store = MemoryStore::new();
    fill(&store, 0..3).await;
    let (source, target) = two_names(&store, refuse_deletes);
    let error = copy_keys(&source, &target, moving()).await.unwrap_err();
    let text = std::error::Error::source(&error).unwrap().to_string();
    assert!(error.kind() == ErrorKind::Config && text.contains("one store"), "{text}");
    assert!(text.contains("an id that begins with keystead-copy-: delete it"), "{text}");
    assert!(ids(&store).await.len() == 4 && source.calls(Operation::Delete).is_empty());
}

#[tokio::test]
async fn a_probe_that_a_cut_off_run_left_is_removed_by_the_next_run_of_the_journal() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..3).await;
    let (_directory, path) = crate::journal();
    let fails = Rigged::ruled(&there, |event| {
        (event.operation == Operation::Delete).then_some(Fate::Fail(ErrorKind::Unavailable))
    });
    assert!(copy(&memory, &fails, with_journal(&path).delete_source(true)).await.probe_left.is_some());
    assert_eq!(ids(&there).await.len(), 4);
    let report = copy(&memory, &Rigged::new(&there), with_journal(&path).delete_source(true)).await;
    assert!(report.probe_left.is_none());
    assert_eq!(ids(&there).await.len(), 3);
}

/// In Secrets Manager, the name of a deleted secret cannot be used again for days.
#[tokio::test]
async fn a_probe_whose_deletion_is_pending_does_not_stand_in_the_way_of_the_next_run() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    let (_directory, path) = crate::journal();
    let deleted: Arc<Mutex<HashSet<KeyId>>> = Arc::default();
    let pending = deleted.clone();
    let target = Rigged::ruled(&there, move |event| match (event.operation, event.id) {
        (Operation::Create, Some(id)) if pending.lock().unwrap().contains(id) => {
            Some(Fate::Fail(ErrorKind::PendingDeletion))
        }
        (Operation::Delete, Some(id)) => {
            pending.lock().unwrap().insert(id.clone());
            None
        }
        _ => None,
    });
    for run in 0..10 {
        fill(&memory, [run]).await;
        let report = copy(&memory, &target, with_journal(&path).delete_source(true)).await;
        assert!(report.is_complete() && report.deleted_at_source == 1, "run {run}: {report:?}");
    }
    assert_eq!((ids(&there).await.len(), deleted.lock().unwrap().len()), (10, 10));
}

#[tokio::test]
async fn a_target_that_takes_writes_and_keeps_none_proves_nothing() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..3).await;
    fill(&there, 0..3).await;
    let forgets = there.clone();
    let target = Rigged::ruled(&there, move |event| match (event.operation, event.id) {
        (Operation::Get, Some(which)) if which.as_str().starts_with("keystead-copy-") => {
            let _ = block_on(forgets.delete_key(which));
            None
        }
        _ => None,
    });
    let error = copy_keys(&memory, &target, moving()).await.unwrap_err();
    assert_eq!((error.kind(), ids(&memory).await.len()), (ErrorKind::Conflict, 3));
}

#[tokio::test]
async fn a_move_to_a_less_durable_target_is_refused_before_any_effect() {
    use Durability::{Host, Process, Replicated};
    let cases = [
        (Replicated, Process, None, false),
        (Replicated, Process, Some(Host), false),
        (Host, Process, Some(Replicated), false),
        (Replicated, Host, None, false),
        (Replicated, Host, Some(Replicated), false),
        (Replicated, Host, Some(Host), true),
        (Host, Host, None, true),
        (Process, Process, None, true),
        (Host, Replicated, None, true),
    ];
    for (from, to, accepted, is_allowed) in cases {
        for is_dry_run in [false, true] {
            let memory = MemoryStore::new();
            let there = MemoryStore::new();
            fill(&memory, 0..3).await;
            let (_directory, path) = crate::journal();
            let source = Rigged::new(&memory).durable(from);
            let target = Rigged::new(&there).durable(to);
            let mut options = with_journal(&path).delete_source(true).dry_run(is_dry_run);
            if let Some(durability) = accepted {
                options = options.accept_durability(durability);
            }
            let copied = copy_keys(&source, &target, options).await;
            assert_eq!(copied.is_ok(), is_allowed, "{from:?} to {to:?}, accepted {accepted:?}");
            if let Err(error) = copied {
                assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
                assert!(source.all_calls().is_empty() && target.all_calls().is_empty() && !path.exists());
                let text = std::error::Error::source(&error).unwrap().to_string();
                assert_eq!(text.contains("--accept-durability host"), to == Host, "{text}");
            }
        }
    }
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    let options = moving().accept_durability(Process);
    assert_eq!(copy_keys(&source, &target, options).await.unwrap_err().kind(), ErrorKind::Config);
    // A copy that deletes nothing may have a target of any durability.
    let source = Rigged::new(&source).durable(Replicated);
    assert!(copy(&source, &target, CopyOptions::default()).await.is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_key_that_a_stale_delete_did_not_delete_is_never_counted_as_gone() {
    let bound = Duration::from_secs(5);
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let written = memory.clone();
    // Two keys are written anew, the same ones, just before the deletion pass reads them: until the
    // bound is over, deletes answer as of before.
    let source = Rigged::new(&memory).lagging(bound).deleting_late();
    let writer = source.clone();
    let target = Rigged::ruled(&there, move |event| {
        // The probe is removed: the pass begins.
        if event.operation == Operation::Delete {
            for number in [3, 4] {
                writer.written_by_another(&id(number), &key(number, 0));
            }
        }
        None
    });
    let report = copy(&source, &target, moving()).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.deleted_at_source, report.remaining_at_source), (10, 0));
    assert!(ids(&written).await.is_empty(), "the keys that the deletes did not find are deleted all the same");
    assert!(source.calls(Operation::Delete).len() > 10);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_withstands_every_delete_is_reported_and_left() {
    for bound in [Duration::ZERO, Duration::from_secs(5)] {
        let memory = MemoryStore::new();
        let there = MemoryStore::new();
        fill(&memory, 0..10).await;
        let source = Rigged::ruled(&memory, |event| {
            let stands = event.operation == Operation::Delete && event.id == Some(&id(3));
            stands.then_some(Fate::Fail(ErrorKind::NotFound))
        })
        .lagging(bound);
        let report = copy_keys(&source, &there, moving()).await.unwrap();
        assert_eq!((report.is_complete(), report.deleted_at_source, report.failed.total), (false, 9, 1));
        assert_eq!((&report.failed.first[0].id, report.failed.first[0].kind()), (&id(3), ErrorKind::Conflict));
        assert_eq!((report.remaining_at_source, ids(&memory).await.as_slice()), (1, &[id(3)][..]));
    }
}

#[tokio::test]
async fn a_key_that_comes_back_after_its_deletion_is_not_counted_as_deleted() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let written = memory.clone();
    let source = Rigged::ruled(&memory, move |event| {
        // The listings of the copy, of its final pass, of the deletion, and of what remains.
        if event.operation == Operation::List && event.earlier == 3 {
            block_on(fill(&written, [3, 20]));
        }
        None
    });
    let report = copy_keys(&source, &there, moving()).await.unwrap();
    assert_eq!((report.is_complete(), report.deleted_at_source, report.remaining_at_source), (false, 9, 2));
    assert_eq!((&report.failed.first[0].id, report.left_at_source.first.as_slice()), (&id(3), &[id(20)][..]));
}

#[tokio::test]
async fn two_stores_that_are_equal_already_are_told_from_one() {
    let source = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&source, 0..10).await;
    fill(&target, 0..10).await;
    let report = copy(&source, &target, moving()).await;
    assert_eq!((report.is_complete(), report.already_there, report.deleted_at_source), (true, 10, 10));
    assert_eq!((ids(&source).await.len(), ids(&target).await.len()), (0, 10));
}

//! Tests of the identities of both stores, and of a copy's limits if they are not certain.

use std::fs;

use futures_executor::block_on;
use keystead_copy::{CopyOptions, compare, copy_keys};
use keystead_core::{Effect, ErrorKind, KeyStore, KeyStoreExt, Operation, StoreInfo};
use keystead_memory::MemoryStore;

use crate::rigged::{Event, Rigged};
use crate::{assert_equal, copy, fill, id, ids, with_journal};

/// Returns the description of a Parameter Store in this region and, if it is known, account.
fn ssm(region: &str, account: Option<&str>) -> StoreInfo {
    StoreInfo::new("ssm", "/app/%s").with_partition("aws").with_region(region).with_account(account)
}

fn text_of(error: &keystead_core::Error) -> String {
    std::error::Error::source(error).unwrap().to_string()
}

/// Returns a rule that does this once, when the source is listed for the second time.
fn losing(memory: &MemoryStore, numbers: std::ops::Range<usize>) -> Rigged {
    let gone = memory.clone();
    Rigged::ruled(memory, move |event: &Event<'_>| {
        if event.operation == Operation::List && event.earlier == 1 {
            for number in numbers.clone() {
                let _ = block_on(gone.delete_key(&id(number)));
            }
        }
        None
    })
}

#[tokio::test]
async fn a_store_is_never_copied_to_itself() {
    let store = MemoryStore::new();
    fill(&store, 0..10).await;
    let (_directory, path) = crate::journal();
    for options in [CopyOptions::default(), CopyOptions::default().dry_run(true), with_journal(&path)] {
        let watched = Rigged::new(&store);
        let error = copy_keys(&watched, &watched.clone(), options).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Copy));
        assert_eq!(error.effect(), Effect::NotApplied);
        assert!(watched.all_calls().is_empty() && !path.exists());
    }
    assert_eq!(compare(&store, &store.clone(), |_| {}).await.unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn two_handles_that_learn_that_they_are_one_account_are_refused_before_any_effect() {
    let here = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&here, 0..3).await;
    let source = Rigged::new(&here).known_as(ssm("eu-west-1", None));
    let target = Rigged::new(&there).known_as(ssm("eu-west-1", None));
    for store in [&source, &target] {
        store.identifies(Ok(ssm("eu-west-1", Some("111111111111"))));
    }
    let error = copy_keys(&source, &target, CopyOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
    assert!(target.all_calls().is_empty());
}

/// The journal of a copy to one region proves nothing about another region, which has no keys.
#[tokio::test]
async fn a_journal_never_speaks_for_another_region_or_account() {
    let memory = MemoryStore::new();
    let europe = MemoryStore::new();
    let asia = MemoryStore::new();
    fill(&memory, 0..10).await;
    let (_directory, path) = crate::journal();
    let account = Some("111111111111");
    let source = Rigged::new(&memory);
    let target = Rigged::new(&europe).known_as(ssm("eu-west-1", account));
    assert!(copy(&source, &target, with_journal(&path)).await.is_complete());
    let before = fs::read(&path).unwrap();
    for info in [ssm("ap-south-1", account), ssm("eu-west-1", Some("222222222222")), ssm("ap-south-1", None)] {
        let other = Rigged::new(&asia).known_as(info);
        for options in [with_journal(&path), with_journal(&path).recheck(false), with_journal(&path).dry_run(true)] {
            let watched = Rigged::new(&memory);
            let error = copy_keys(&watched, &other, options).await.unwrap_err();
            assert_eq!((error.kind(), error.effect()), (ErrorKind::Config, Effect::NotApplied));
            let text = text_of(&error);
            assert!(text.contains("its target is ssm:/app/%s") && text.contains("region=eu-west-1"), "{text}");
            assert!(watched.all_calls().is_empty() && other.all_calls().is_empty());
        }
    }
    assert_eq!(fs::read(&path).unwrap(), before);
}

/// A copy that was resumed with the region of another source once emptied the target.
#[tokio::test]
async fn a_source_in_another_region_removes_nothing() {
    let europe = MemoryStore::new();
    let asia = MemoryStore::new();
    let target = MemoryStore::new();
    fill(&europe, 0..10).await;
    let (_directory, path) = crate::journal();
    let first = Rigged::new(&europe).known_as(ssm("eu-west-1", None));
    // The run is cut off before it is complete, so that its keys count as written by the copy.
    fill(&target, [3]).await;
    target.put_key(&id(3), &crate::key(3, 1)).await.unwrap();
    assert!(!copy(&first, &target, with_journal(&path)).await.is_complete());
    let other = Rigged::new(&asia).known_as(ssm("ap-south-1", None));
    let error = copy_keys(&other, &target, with_journal(&path)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert_eq!(ids(&target).await.len(), 10);
}

#[tokio::test]
async fn an_account_that_cannot_be_learned_stops_no_plain_copy() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let source = Rigged::new(&memory).known_as(ssm("eu-west-1", None));
    source.identifies(Err(ErrorKind::PermissionDenied));
    let target = Rigged::new(&there).known_as(ssm("eu-west-1", None));
    target.identifies(Err(ErrorKind::PermissionDenied));
    assert!(copy(&source, &target, CopyOptions::default()).await.is_complete());
    assert_equal(&memory, &there).await;
}

#[tokio::test]
async fn nothing_is_removed_or_deleted_as_long_as_the_two_may_be_one_store() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let source = losing(&memory, 0..3).known_as(ssm("eu-west-1", None));
    source.identifies(Err(ErrorKind::PermissionDenied));
    let target = Rigged::new(&there).known_as(ssm("eu-west-1", Some("111111111111")));
    let report = copy(&source, &target, CopyOptions::default().confirm_removals(3)).await;
    assert_eq!((report.is_complete(), report.unsettled, report.removed_at_target.total), (false, 3, 0));
    let withheld = report.withheld.unwrap();
    assert!(withheld.contains("sts:GetCallerIdentity") && withheld.contains("permission denied"), "{withheld}");
    assert!(target.calls(Operation::Delete).is_empty());

    let source = Rigged::new(&memory).known_as(ssm("eu-west-1", None));
    source.identifies(Err(ErrorKind::PermissionDenied));
    let report = copy(&source, &target, CopyOptions::default().delete_source(true).dry_run(true)).await;
    assert_eq!((report.deleted_at_source, report.withheld.is_some()), (0, true));
    let error = copy_keys(&source, &target, CopyOptions::default().delete_source(true)).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Copy));
    assert!(text_of(&error).contains("sts:GetCallerIdentity"), "{}", text_of(&error));
    assert!(source.calls(Operation::Delete).is_empty());
    assert!(target.calls(Operation::Delete).is_empty(), "not even a probe was made");
}

#[tokio::test]
async fn an_account_that_becomes_known_during_the_run_permits_what_it_proves() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let (_directory, path) = crate::journal();
    // The first `identify` fails on both sides; later calls return the accounts.
    let source = losing(&memory, 0..3).known_as(ssm("eu-west-1", None));
    let target_rule = source.clone();
    let target = Rigged::ruled(&there, move |event: &Event<'_>| {
        if event.operation == Operation::Create {
            target_rule.says(ssm("eu-west-1", Some("111111111111")));
        }
        None
    })
    .known_as(ssm("eu-west-1", Some("222222222222")));
    let report = copy(&source, &target, with_journal(&path).delete_source(true)).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!((report.removed_at_target.total, report.deleted_at_source), (3, 7));
}

#[tokio::test]
async fn a_store_that_turns_into_another_one_under_the_copy_ends_it() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let source = losing(&memory, 0..3).known_as(ssm("eu-west-1", Some("111111111111")));
    let changing = source.clone();
    let target = Rigged::ruled(&there, move |event: &Event<'_>| {
        if event.operation == Operation::Create {
            changing.says(ssm("eu-west-1", Some("333333333333")));
        }
        None
    });
    let error = copy_keys(&source, &target, CopyOptions::default().delete_source(true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(text_of(&error).contains("the source changed during the copy"), "{}", text_of(&error));
    assert!(target.calls(Operation::Delete).is_empty() && source.calls(Operation::Delete).is_empty());
    assert_eq!(ids(&there).await.len(), 10);
}

/// An attribute that was unknown when the journal was created stays unknown in it.
#[tokio::test]
async fn with_a_journal_of_an_unknown_account_nothing_is_removed_or_deleted() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..10).await;
    let (_directory, path) = crate::journal();
    let target = Rigged::new(&there);
    there.put_key(&id(9), &crate::key(9, 1)).await.unwrap();
    let first = Rigged::new(&memory).known_as(ssm("eu-west-1", None));
    assert!(!copy(&first, &target, with_journal(&path)).await.is_complete());
    there.put_key(&id(9), &crate::key(9, 0)).await.unwrap();
    fill(&memory, 10..12).await;
    let header = fs::read(&path).unwrap()[..64].to_vec();

    let complete = Rigged::new(&memory).known_as(ssm("eu-west-1", Some("111111111111")));
    let report = copy(&complete, &target, with_journal(&path).delete_source(true)).await;
    assert_eq!((report.copied, report.done_before, report.deleted_at_source), (3, 9, 0));
    assert!(!report.is_complete() && report.withheld.as_ref().unwrap().contains("start a new journal"), "{report:?}");
    assert!(complete.calls(Operation::Delete).is_empty() && target.calls(Operation::Delete).is_empty());

    for number in 0..3 {
        memory.delete_key(&id(number)).await.unwrap();
    }
    let report = copy(&complete, &target, with_journal(&path)).await;
    assert_eq!((report.unsettled, report.removed_at_target.total), (3, 0));
    assert!(!report.is_complete() && report.withheld.is_some());
    assert_eq!(fs::read(&path).unwrap()[..64], header);
    // A new journal has the identities as they are known now.
    let (_other, anew) = crate::journal();
    let report = copy(&complete, &target, with_journal(&anew).delete_source(true)).await;
    assert_eq!((report.is_complete(), report.deleted_at_source), (true, 9));
}

/// A run whose stores may be different ones must not record for later runs that it wrote there.
#[tokio::test]
async fn what_is_written_under_an_unknown_identity_is_nobodys_to_remove_later() {
    let memory = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&memory, 0..5).await;
    let (_directory, path) = crate::journal();
    let known = Rigged::new(&memory).known_as(ssm("eu-west-1", Some("111111111111")));
    there.put_key(&id(4), &crate::key(4, 1)).await.unwrap();
    assert!(!copy(&known, &there, with_journal(&path)).await.is_complete());
    fill(&memory, 5..8).await;
    let unknown = Rigged::new(&memory).known_as(ssm("eu-west-1", None));
    let report = copy(&unknown, &there, with_journal(&path)).await;
    assert_eq!((report.copied, report.done_before), (3, 4));
    for number in [0, 6] {
        memory.delete_key(&id(number)).await.unwrap();
    }
    let report = copy(&known, &there, with_journal(&path)).await;
    assert_eq!((report.removed_at_target.first.as_slice(), report.withheld), (&[id(0)][..], None));
    assert!(there.find_key(&id(6)).await.unwrap().is_some());
}

/// The two stores are different, because their schemes are, but the source's account is not known.
#[tokio::test]
async fn a_source_that_is_not_fully_known_permits_no_removal_and_no_deletion() {
    let here = MemoryStore::new();
    let there = MemoryStore::new();
    fill(&here, 0..10).await;
    let target = Rigged::new(&there);
    let source = losing(&here, 0..3).known_as(ssm("eu-west-1", None));
    let report = copy_keys(&source, &target, CopyOptions::default()).await.unwrap();
    assert!(report.unsettled == 3 && report.withheld.is_some() && !report.is_complete(), "{report:?}");
    assert_eq!(ids(&there).await.len(), 10);

    let source = Rigged::new(&here).known_as(ssm("eu-west-1", None));
    let error = copy_keys(&source, &target, CopyOptions::default().delete_source(true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(text_of(&error).contains("nothing was deleted"), "{}", text_of(&error));
    assert_eq!(ids(&here).await.len(), 7);
}

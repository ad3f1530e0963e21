//! `Faulty`: scripted and seeded faults.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use futures_executor::block_on;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use keystead_core::Operation::{Check, Create, Delete, Erase, Get, List, Put};
use keystead_core::{Effect, ErrorDetails, ErrorKind, KeyId, KeyStore, KeyStoreExt, Result, SecretKey};
use keystead_layers::{Fault, Faulty, FaultyBuilder};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);

fn builder() -> FaultyBuilder<MemoryStore> {
    Faulty::builder(MemoryStore::new())
}

fn id(id: &str) -> KeyId {
    KeyId::new(id).unwrap()
}

fn key() -> SecretKey {
    SecretKey::generate(32).unwrap()
}

fn kind<T>(outcome: Result<T>) -> Option<ErrorKind> {
    outcome.err().map(|e| e.kind())
}

#[test]
fn scripted_faults_apply_in_order_to_the_calls_of_their_operations() {
    block_on(async {
        let store = builder()
            .fault(Fault::error(ErrorKind::Throttled).on(Get).times(2))
            .fault(Fault::error(ErrorKind::PermissionDenied).on(Put))
            .fault(Fault::error(ErrorKind::Unavailable))
            .build()
            .unwrap();
        let a = id("a");
        let key = key();
        assert_eq!(store.pending(), 4);

        assert_eq!(kind(store.put_key(&a, &key).await), Some(ErrorKind::PermissionDenied));
        assert_eq!(kind(store.get_key(&a).await), Some(ErrorKind::Throttled));
        // This call meets the fault that applies to any operation.
        assert_eq!(kind(store.put_key(&a, &key).await), Some(ErrorKind::Unavailable));
        assert_eq!(kind(store.put_key(&a, &key).await), None);
        assert_eq!(store.pending(), 1);
        assert_eq!(kind(store.get_key(&a).await), Some(ErrorKind::Throttled));
        assert_eq!(store.pending(), 0);
        assert_eq!(store.get_key(&a).await.unwrap(), key);
        assert_eq!((store.calls(Get), store.calls(Put), store.calls(Delete)), (3, 3, 0));
    });
}

#[test]
fn a_failed_write_has_no_effect_whatever_its_kind() {
    block_on(async {
        let kinds = [ErrorKind::Timeout, ErrorKind::Unavailable, ErrorKind::Other, ErrorKind::Throttled];
        for kind in kinds {
            let store = builder().fault(Fault::error(kind).times(5)).build().unwrap();
            let a = id("a");
            let key = key();
            let errors = [
                store.put_key(&a, &key).await.unwrap_err(),
                store.create_key(&a, &key).await.unwrap_err(),
                store.get_or_create(&a, &key).await.unwrap_err(),
                store.delete_key(&a).await.unwrap_err(),
                store.erase_key(&a).await.unwrap_err(),
            ];
            assert_eq!(errors.each_ref().map(|e| e.operation()), [Put, Create, Create, Delete, Erase]);
            assert!(errors.iter().all(|e| e.effect() == Effect::NotApplied && e.store() == "memory"));
            assert!(store.find_key(&a).await.unwrap().is_none());
        }
    });
}

#[test]
fn an_applied_write_takes_effect_and_the_error_says_that_it_is_unknown() {
    block_on(async {
        let store = builder().build().unwrap();
        let a = id("a");
        let key = key();
        let applied = |operation| Fault::error(ErrorKind::Timeout).applied().on(operation);

        store.inject(applied(Create));
        let error = store.get_or_create_key_with(&a, || key.clone()).await.unwrap_err();
        assert_eq!((error.operation(), error.effect()), (Create, Effect::Unknown));
        assert_eq!(store.get_key(&a).await.unwrap(), key);

        store.inject(applied(Delete));
        assert_eq!(store.delete_key(&a).await.unwrap_err().effect(), Effect::Unknown);
        assert!(store.find_key(&a).await.unwrap().is_none());

        // The effect of a read is never unknown.
        store.inject(applied(Get));
        assert_eq!(store.get_key(&a).await.unwrap_err().effect(), Effect::NotApplied);
    });
}

#[test]
fn an_error_has_the_properties_that_the_test_has_set() {
    block_on(async {
        let details = ErrorDetails { error_code: Some("ThrottlingException".into()), ..ErrorDetails::default() };
        let fault = Fault::error(ErrorKind::Throttled).retry_after(SECOND).details(details.clone());
        let store = builder().fault(fault).build().unwrap();
        let error = store.check().await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Throttled, Check));
        assert_eq!((error.retry_after(), error.details()), (Some(SECOND), Some(&details)));
        assert_eq!(error.source().unwrap().to_string(), "this is an injected fault");
    });
}

#[test]
fn each_id_of_a_batch_meets_its_own_fault() {
    block_on(async {
        let store = builder().build().unwrap();
        let a = id("a");
        let b = id("b");
        let c = id("c");
        for id in [&a, &b] {
            store.put_key(id, &key()).await.unwrap();
        }
        let batch = [a.clone(), b.clone(), a.clone(), c.clone()];

        store.inject(Fault::error(ErrorKind::Corrupt).on(Get));
        let outcomes = store.get_keys(&batch).await.into_iter().map(kind);
        let expected = [Some(ErrorKind::Corrupt), None, Some(ErrorKind::Corrupt), Some(ErrorKind::NotFound)];
        assert!(outcomes.eq(expected));
        assert_eq!(store.calls(Get), 3);

        // Without a fault for its operation, the batch is forwarded as a whole and counted as
        // before.
        store.inject(Fault::error(ErrorKind::Corrupt).on(Delete));
        let outcomes = store.get_keys(&batch).await.into_iter().map(kind);
        assert!(outcomes.eq([None, None, None, Some(ErrorKind::NotFound)]));
        assert_eq!((store.calls(Get), store.pending()), (6, 1));

        let outcomes = store.delete_keys(&[b, a]).await.into_iter().map(kind);
        assert!(outcomes.eq([Some(ErrorKind::Corrupt), None]));
        assert_eq!(store.calls(Delete), 2);
    });
}

#[test]
fn a_listing_meets_its_fault_when_it_is_first_polled() {
    block_on(async {
        let store = builder().build().unwrap();
        store.put_key(&id("a"), &key()).await.unwrap();
        drop(store.list_keys());
        assert_eq!(store.calls(List), 0);

        store.inject(Fault::error(ErrorKind::PermissionDenied).on(List));
        let items: Vec<_> = store.list_keys().map(kind).collect().await;
        assert_eq!(items, [Some(ErrorKind::PermissionDenied)]);
        assert_eq!(store.list_keys().try_collect::<Vec<_>>().await.unwrap(), [id("a")]);
        assert_eq!(store.calls(List), 2);
    });
}

#[test]
fn erase_and_get_or_create_are_one_call_each() {
    block_on(async {
        // The calls within the store beneath do not count as gets, puts or deletes of this layer.
        let within = [Get, Put, Delete].map(|operation| Fault::error(ErrorKind::Other).on(operation));
        let store = within.into_iter().fold(builder(), FaultyBuilder::fault).build().unwrap();
        store.get_or_create(&id("a"), &key()).await.unwrap();
        assert!(store.erase_key(&id("a")).await.unwrap().verified);
        assert_eq!((store.calls(Create), store.calls(Erase), store.pending()), (1, 1, 3));
    });
}

#[tokio::test(start_paused = true)]
async fn a_latency_delays_the_real_answer() {
    let store = builder().fault(Fault::latency(3 * SECOND).on(Get)).build().unwrap();
    let a = id("a");
    let key = key();
    store.put_key(&a, &key).await.unwrap();
    let began = Instant::now();
    assert_eq!(store.get_key(&a).await.unwrap(), key);
    assert_eq!(began.elapsed(), 3 * SECOND);
    assert_eq!(store.get_key(&a).await.unwrap(), key);
    assert_eq!(began.elapsed(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn seeded_latencies_stay_between_the_shortest_and_the_longest() {
    let store = builder().latency(SECOND..=2 * SECOND).build().unwrap();
    let mut latencies = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        store.check().await.unwrap();
        latencies.push(began.elapsed());
    }
    // The paused clock advances in whole milliseconds.
    let longest = 2 * SECOND + Duration::from_millis(1);
    assert!(latencies.iter().all(|latency| (SECOND..=longest).contains(latency)));
    assert!(latencies.iter().any(|latency| *latency < SECOND * 5 / 4));
    assert!(latencies.iter().any(|latency| *latency > SECOND * 7 / 4));
}

#[test]
fn a_call_that_hangs_never_ends_and_may_have_been_applied() {
    block_on(async {
        let store = builder().fault(Fault::hang()).build().unwrap();
        let a = id("a");
        let key = key();
        assert!(store.put_key(&a, &key).now_or_never().is_none());
        assert!(store.find_key(&a).await.unwrap().is_none());
        store.inject(Fault::hang().applied());
        assert!(store.put_key(&a, &key).now_or_never().is_none());
        assert_eq!(store.get_key(&a).await.unwrap(), key);
    });
}

/// Returns the outcome of each of 200 creations, and whether its effect is unknown.
fn history(builder: FaultyBuilder<MemoryStore>) -> Vec<(Option<ErrorKind>, bool)> {
    block_on(async {
        let store = builder.build().unwrap();
        let mut history = Vec::new();
        for index in 0..200 {
            let id = id(&format!("user-{index}"));
            let outcome = store.create_key(&id, &key()).await;
            let unknown = outcome.as_ref().is_err_and(|e| e.effect() == Effect::Unknown);
            history.push((kind(outcome), unknown));
        }
        history
    })
}

#[test]
fn the_same_seed_gives_the_same_failures_and_another_seed_others() {
    let seeded = |seed| builder().seed(seed).failure_rate(0.3).applied_rate(0.5);
    assert_eq!(history(seeded(1)), history(seeded(1)));
    assert_ne!(history(seeded(1)), history(seeded(2)));
}

#[test]
fn seeded_failures_have_the_configured_rate_and_kinds() {
    let kinds = [ErrorKind::Conflict, ErrorKind::QuotaExceeded];
    let history = history(builder().failure_rate(0.3).kinds(kinds).applied_rate(0.5));
    let of = |kind| history.iter().filter(|(failure, _)| *failure == Some(kind)).count();
    let failures = history.iter().filter(|(failure, _)| failure.is_some()).count();
    assert!((40..=80).contains(&failures), "{failures} of 200");
    assert_eq!(of(ErrorKind::Conflict) + of(ErrorKind::QuotaExceeded), failures);
    assert!(of(ErrorKind::Conflict) > 10 && of(ErrorKind::QuotaExceeded) > 10);
    let unknown = history.iter().filter(|(_, unknown)| *unknown).count();
    assert!(unknown > failures / 4 && unknown < failures * 3 / 4, "{unknown} of {failures}");
}

#[test]
fn all_calls_fail_at_a_rate_of_one_and_none_after_clear() {
    block_on(async {
        let store = builder().failure_rate(1.0).fault(Fault::error(ErrorKind::Corrupt).times(99)).build().unwrap();
        assert_eq!(kind(store.check().await), Some(ErrorKind::Corrupt));
        store.clear();
        assert_eq!(store.pending(), 0);
        assert_eq!(kind(store.check().await), None);

        let store = builder().failure_rate(1.0).build().unwrap();
        for _ in 0..100 {
            assert!(store.check().await.unwrap_err().is_retryable());
        }
    });
}

#[test]
fn a_test_keeps_a_handle_to_the_store_that_its_code_was_given() {
    block_on(async {
        let faulty = Arc::new(builder().build().unwrap());
        let given: Arc<dyn KeyStore> = faulty.clone();
        faulty.inject(Fault::error(ErrorKind::NotFound).on(Get));
        assert_eq!(kind(given.get_key(&id("a")).await), Some(ErrorKind::NotFound));
        assert_eq!((faulty.calls(Get), faulty.pending()), (1, 0));
    });
}

#[test]
fn invalid_settings_are_refused_with_advice() {
    let wrong = [
        builder().failure_rate(1.1),
        builder().failure_rate(-0.1),
        builder().failure_rate(f64::NAN),
        builder().applied_rate(2.0),
        builder().applied_rate(f64::NAN),
        builder().latency(SECOND..=Duration::ZERO),
        builder().failure_rate(0.5).kinds([]),
    ];
    for settings in wrong {
        let error = settings.clone().build().expect_err(&format!("{settings:?}"));
        assert_eq!((error.kind(), error.store()), (ErrorKind::Config, "memory"));
        assert!(error.source().unwrap().to_string().contains(": "));
    }
    builder().kinds([]).build().unwrap();
}

#[test]
fn its_description_names_the_layer() {
    let store = builder().build().unwrap();
    assert!(store.info().to_string().ends_with(", faulty"), "{}", store.info());
    assert_eq!(store.capabilities(), MemoryStore::new().capabilities());
}

//! Many calls against a Parameter Store that has enough of them.

use std::time::{Duration, Instant};

use keystead_conformance::{Fault, Faults};
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation};

use crate::{Space, id, key};

const CALLERS: usize = 8;
const STORM: Duration = Duration::from_secs(30);

/// What the SDK does of itself with one call.
const ATTEMPTS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn in_a_storm_of_throttling_every_caller_gets_on_and_retries_do_not_multiply() {
    let space = Space::new();
    let faults = space.bed.faults(Duration::from_secs(5));
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS).map(|number| tokio::spawn(calls_until(space.store(), number, begin))).collect();
    while begin.elapsed() < STORM {
        // Of what comes within 100 ms the first twenty are turned away.
        faults.clear(&space.ns).await.unwrap();
        let fault = Fault::Throttled { retry_after: None };
        faults.inject(&space.ns, Some(Operation::Put), fault, 20).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut calls, mut throttled) = (0, 0);
    for caller in callers {
        let (done, refused) = caller.await.unwrap();
        assert!(done > 0, "a caller never got on");
        calls += done + refused;
        throttled += refused;
    }
    assert!(throttled > 0, "there was no storm");
    let requests = space.calls().len();
    assert!(requests <= ATTEMPTS * calls, "{requests} requests for {calls} calls");
}

/// Puts one key over and over; how often that succeeded and how often it was throttled.
async fn calls_until(store: keystead_ssm::SsmStore, number: usize, begin: Instant) -> (usize, usize) {
    let (mut done, mut refused) = (0, 0);
    while begin.elapsed() < STORM {
        match store.put_key(&id(&format!("user-{number}")), &key([1; 32])).await {
            Ok(()) => done += 1,
            Err(e) if e.kind() == ErrorKind::Throttled && e.is_retryable() => refused += 1,
            Err(e) => panic!("{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    (done, refused)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_size_has_a_few_calls_under_way_at_once() {
    let space = Space::new();
    // Every call stays unanswered for half a second.
    let store = space.builder().sdk_attempts(1).attempt_timeout(Duration::from_millis(500)).build().unwrap();
    space.bed.faults(Duration::from_secs(5)).inject(&space.ns, None, Fault::Silent, 1000).await.unwrap();
    let ids: Vec<KeyId> = (0..400).map(|number| id(&format!("user-{number}"))).collect();
    assert!(store.get_keys(&ids).await.iter().all(|answer| answer.is_err()));
    let begun: Vec<Instant> = space.calls().into_iter().map(|call| call.begun).collect();
    assert_eq!(begun.len(), 40);
    // So all that begin within a tenth of a second are under way together.
    let together = |first: &Instant| {
        begun
            .iter()
            .filter(|other| *other >= first && other.duration_since(*first) < Duration::from_millis(100))
            .count()
    };
    assert!(begun.iter().map(together).max().is_some_and(|most| most <= 8));
}

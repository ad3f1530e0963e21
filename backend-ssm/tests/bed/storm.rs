//! More calls than the quota of Parameter Store allows.

use std::time::{Duration, Instant};

use keystead_conformance::{Fault, Faults};
use keystead_core::{ErrorKind, KeyId, KeyStore, KeyStoreExt};

use crate::{Fixture, id, key};

/// The number of callers, which stand for processes that do not know of each other.
const CALLERS: usize = 8;
const STORM: Duration = Duration::from_secs(20);
const WRITES_PER_SECOND: f64 = 20.0;

#[tokio::test(flavor = "multi_thread")]
async fn callers_that_want_more_than_the_quota_get_on_and_most_of_their_requests_count() {
    let fixture = Fixture::new();
    fixture.bed.limit_writes(fixture.ns.as_str(), WRITES_PER_SECOND);
    let begin = Instant::now();
    let callers: Vec<_> =
        (0..CALLERS).map(|number| tokio::spawn(calls_until(fixture.store(), number, begin))).collect();
    let mut done = 0;
    for caller in callers {
        let written = caller.await.unwrap();
        assert!(written > 0, "a caller never got on");
        done += written;
    }
    let requests = fixture.calls().len();
    assert!(requests > done, "there was no storm");
    assert!(requests * 2 <= done * 3, "{requests} requests for {done} writes");
    let least = STORM.as_secs_f64() * WRITES_PER_SECOND / 2.0;
    assert!(done as f64 >= least, "{done} writes of {least}");
}

/// Puts a key repeatedly and returns how many of the puts succeeded.
async fn calls_until(store: keystead_ssm::SsmStore, number: usize, begin: Instant) -> usize {
    let mut done = 0;
    while begin.elapsed() < STORM {
        match store.put_key(&id(&format!("user-{number}")), &key([1; 32])).await {
            Ok(()) => done += 1,
            Err(e) if e.kind() == ErrorKind::Throttled && e.is_retryable() => {}
            Err(e) => panic!("{e:?}"),
        }
    }
    done
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_any_size_has_a_few_calls_under_way_at_once() {
    let fixture = Fixture::new();
    // No call is answered, so each takes half a second.
    let store = fixture.builder().sdk_attempts(1).attempt_timeout(Duration::from_millis(500)).build().unwrap();
    fixture.bed.faults(Duration::from_secs(5)).inject(&fixture.ns, None, Fault::Silent, 1000).await.unwrap();
    let ids: Vec<KeyId> = (0..400).map(|number| id(&format!("user-{number}"))).collect();
    assert!(store.get_keys(&ids).await.iter().all(|answer| answer.is_err()));
    let begun: Vec<Instant> = fixture.calls().into_iter().map(|call| call.begun).collect();
    assert_eq!(begun.len(), 40);
    // All calls that begin within a tenth of a second are therefore in progress together.
    let together = |first: &Instant| {
        begun
            .iter()
            .filter(|other| *other >= first && other.duration_since(*first) < Duration::from_millis(100))
            .count()
    };
    assert!(begun.iter().map(together).max().is_some_and(|most| most <= 8));
}

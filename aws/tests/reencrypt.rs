//! Re-encryption of all keys of a store: its pace, its retries and its report.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use keystead_aws::{NeedsAttention, Reencrypt, ReencryptOptions, Reencryption, reencrypt};
use keystead_core::{
    BoxStream, Capabilities, Deletion, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, PutMode, Result,
    SecretKey, StoreInfo, async_trait,
};
use keystead_memory::MemoryStore;
use tokio::time::Instant;

/// A store of this many keys, none of them done. It gives scripted outcomes first, then `Done`.
#[derive(Debug)]
struct Scripted {
    store: MemoryStore,
    keys: usize,
    listing_error: Option<Error>,
    outcomes: Mutex<VecDeque<Result<Reencryption>>>,
    begun: Mutex<Vec<Instant>>,
}

impl Scripted {
    fn new(keys: usize, outcomes: Vec<Result<Reencryption>>) -> Self {
        let outcomes = Mutex::new(outcomes.into());
        Self { store: MemoryStore::new(), keys, listing_error: None, outcomes, begun: Mutex::default() }
    }

    /// Returns the pauses between the starts of successive calls.
    fn pauses(&self) -> Vec<Duration> {
        self.begun.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
}

#[async_trait]
impl KeyStore for Scripted {
    fn info(&self) -> StoreInfo {
        self.store.info()
    }

    fn capabilities(&self) -> Capabilities {
        self.store.capabilities()
    }

    async fn get_key(&self, id: &KeyId) -> Result<SecretKey> {
        self.store.get_key(id).await
    }

    async fn put_key_with(&self, id: &KeyId, key: &SecretKey, mode: PutMode) -> Result<()> {
        self.store.put_key_with(id, key, mode).await
    }

    async fn delete_key(&self, id: &KeyId) -> Result<Deletion> {
        self.store.delete_key(id).await
    }

    fn list_keys(&self) -> BoxStream<'_, Result<KeyId>> {
        self.store.list_keys()
    }

    async fn check(&self) -> Result<()> {
        self.store.check().await
    }
}

#[async_trait]
impl Reencrypt for Scripted {
    fn needs_exclusive(&self) -> bool {
        false
    }

    fn default_rate(&self) -> f64 {
        2.0
    }

    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>> {
        let listed = (0..self.keys).map(|index| Ok((KeyId::new(format!("user-{index}")).unwrap(), false)));
        stream::iter(listed.chain(self.listing_error.clone().map(Err))).boxed()
    }

    async fn reencrypt_key(&self, _: &KeyId) -> Result<Reencryption> {
        self.begun.lock().unwrap().push(Instant::now());
        self.outcomes.lock().unwrap().pop_front().unwrap_or(Ok(Reencryption::Done))
    }
}

fn throttled() -> Error {
    Error::new(ErrorKind::Throttled, Operation::Put, "test")
}

#[tokio::test(start_paused = true)]
async fn keys_are_spaced_by_the_rate() {
    for (options, pause) in [
        (ReencryptOptions::new(), Duration::from_millis(500)),
        (ReencryptOptions::new().rate(8.0), Duration::from_millis(125)),
    ] {
        let store = Scripted::new(4, Vec::new());
        assert_eq!(reencrypt(&store, options, |_| {}).await.unwrap().reencrypted, 4);
        assert!(store.pauses().iter().all(|between| *between >= pause), "{:?}", store.pauses());
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_key_is_tried_again_after_the_pause_that_is_asked_for() {
    let store = Scripted::new(1, vec![Err(throttled().with_retry_after(Duration::from_secs(7))), Err(throttled())]);
    let report = reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap();
    assert!(report.is_complete() && report.reencrypted == 1, "{report:?}");
    assert!(store.pauses()[0] >= Duration::from_secs(7) && store.pauses()[1] >= Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_throttled_key_is_given_up_in_the_end_and_an_ambiguous_one_at_once() {
    let store = Scripted::new(2, vec![Err(throttled()); 5]);
    let report = reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap();
    assert_eq!((report.failed, report.reencrypted), (1, 1));
    let store = Scripted::new(1, vec![Err(throttled().with_effect(Effect::Unknown))]);
    assert_eq!(reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap().failed, 1);
    assert_eq!(store.begun.lock().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_report_counts_all_failures_and_keeps_the_first_hundred() {
    let denied = Error::new(ErrorKind::PermissionDenied, Operation::Put, "test");
    let store = Scripted::new(150, vec![Err(denied); 120]);
    let mut last = 0;
    let report = reencrypt(&store, ReencryptOptions::new(), |report| last = report.reencrypted + report.failed).await;
    let report = report.unwrap();
    assert_eq!((report.failed, report.failures.len(), report.reencrypted, last), (120, 100, 30, 150));
    assert!(!format!("{report:?}").contains("user-"));
}

#[tokio::test(start_paused = true)]
async fn what_others_have_written_keeps_a_run_from_being_complete() {
    for (outcome, is_complete) in [
        (Reencryption::Done, true),
        (Reencryption::Gone, true),
        (Reencryption::NewerRestored, false),
        (Reencryption::DeletedAgain, false),
    ] {
        let store = Scripted::new(1, vec![Ok(outcome)]);
        let report = reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap();
        assert_eq!(report.is_complete(), is_complete, "{outcome:?}");
    }
}

/// The outcomes before the failure are kept.
#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_in_the_report() {
    let denied = Error::new(ErrorKind::PermissionDenied, Operation::Put, "test");
    let mut store = Scripted::new(3, vec![Ok(Reencryption::NewerRestored), Err(denied), Ok(Reencryption::Done)]);
    store.listing_error = Some(Error::new(ErrorKind::Unavailable, Operation::List, "test"));
    let report = reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap();
    assert_eq!((report.newer_restored.len(), report.failed, report.reencrypted), (1, 1, 1));
    assert_eq!(report.listing_error.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    let mut store = Scripted::new(1, Vec::new());
    store.listing_error = report.listing_error;
    assert!(!reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap().is_complete());
}

#[tokio::test(start_paused = true)]
async fn a_report_keeps_each_failure_that_needs_attention() {
    let denied = Error::new(ErrorKind::PermissionDenied, Operation::Put, "test");
    let mut outcomes = vec![Err(denied.clone()); 100];
    outcomes.push(Err(NeedsAttention::after(denied.clone(), "look")));
    outcomes.push(Err(denied));
    let store = Scripted::new(102, outcomes);
    let report = reencrypt(&store, ReencryptOptions::new(), |_| {}).await.unwrap();
    assert_eq!((report.failed, report.failures.len()), (102, 101));
    assert_eq!(report.needs_attention, [report.failures[100].0.clone()]);
    assert_eq!(report.failures[100].1.effect(), Effect::Unknown);
}

//! [`reencrypt`]: moves the keys of a store to another KMS key or tier.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result, async_trait};
use tokio::time::{Instant, sleep_until};

/// The largest number of ordinary failures in a report.
const KEPT_FAILURES: usize = 100;

/// The number of times that a throttled key is tried.
const ROUNDS: u32 = 5;

/// The pause after a throttled call whose error names none.
const PAUSE: Duration = Duration::from_secs(1);

/// A store whose engine encrypts each key under a KMS key that the configuration names.
#[async_trait]
pub trait Reencrypt: KeyStore {
    /// Reports whether re-encrypting a key can undo a concurrent write or delete of it for a
    /// moment. Nobody else may write to the store then.
    fn needs_exclusive(&self) -> bool;

    /// Returns the number of keys per second that the default quotas allow.
    fn default_rate(&self) -> f64;

    /// Returns the ids of all keys, each with whether its key already has the configured KMS key
    /// and tier.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>>;

    /// Re-encrypts one key under the configured KMS key and in the configured tier, and reads it
    /// back.
    ///
    /// # Errors
    /// Those of a read and of a write of this key, and [`Unsupported`](ErrorKind::Unsupported) if
    /// the store only reads.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption>;
}

/// The outcome of re-encrypting a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reencryption {
    /// The key has the configured KMS key and tier, and was read back.
    Done,
    /// The key was deleted in the meantime, and stays deleted.
    Gone,
    /// Somebody else wrote a newer key in the meantime. It was overwritten for a moment and then
    /// restored, unless it was deleted since. The newer key may have the same value.
    NewerRestored,
    /// Somebody else deleted the key in the meantime. It came back for a moment and was deleted
    /// again. A key that was written between the last read and that delete was deleted, too.
    DeletedAgain,
}

/// The settings of [`reencrypt`].
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct ReencryptOptions {
    exclusive: bool,
    rate: Option<f64>,
}

impl ReencryptOptions {
    /// Returns the default settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asserts that nobody else writes or deletes keys of the store during the run.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Limits the number of keys per second (default: what the default quotas allow).
    pub fn rate(mut self, keys_per_second: f64) -> Self {
        self.rate = Some(keys_per_second);
        self
    }
}

/// The source of an error after which a person must look at the key, because the next run would
/// take it for done.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NeedsAttention {
    text: String,
    #[source]
    cause: Option<Error>,
}

impl NeedsAttention {
    /// Creates the error of a write that was applied, but left something to do, which `text`
    /// describes. The error has the kind and the details of `cause`.
    pub fn after(cause: Error, text: impl Into<String>) -> Error {
        let mut error = Error::new(cause.kind(), Operation::Put, cause.store()).with_effect(Effect::Unknown);
        if let Some(details) = cause.details() {
            error = error.with_details(details.clone());
        }
        error.with_source(Self { text: text.into(), cause: Some(cause) })
    }

    /// Creates the error of a write that was applied while others wrote. `store` is the scheme of
    /// the store.
    pub fn contended(store: &'static str, text: impl Into<String>) -> Error {
        let error = Error::new(ErrorKind::Conflict, Operation::Put, store).with_effect(Effect::Unknown);
        error.with_source(Self { text: text.into(), cause: None })
    }

    /// Reports whether the source of an error is a `NeedsAttention`.
    pub fn is_source_of(error: &Error) -> bool {
        error.source().is_some_and(|source| source.is::<Self>())
    }
}

/// The result of [`reencrypt`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ReencryptReport {
    /// The number of keys that already had the configured KMS key and tier.
    pub current: u64,
    /// The number of keys that were re-encrypted and read back.
    pub reencrypted: u64,
    /// The number of keys that were deleted in the meantime.
    pub gone: u64,
    /// The ids of the keys of which a newer one was overwritten for a moment and then restored.
    pub newer_restored: Vec<KeyId>,
    /// The ids of the keys that came back for a moment after a delete and were deleted again.
    pub deleted_again: Vec<KeyId>,
    /// The number of keys that could not be re-encrypted.
    pub failed: u64,
    /// The first 100 failed keys, and all that need attention, each with its error.
    pub failures: Vec<(KeyId, Error)>,
    /// The ids of the failed keys that a person must look at, because the next run would take them
    /// for done. Each is also in `failures`, where [`NeedsAttention`] is the source of its error.
    pub needs_attention: Vec<KeyId>,
    /// The error that ended the listing before all keys were seen.
    pub listing_error: Option<Error>,
}

impl ReencryptReport {
    /// Reports whether all keys were listed, every key has the configured KMS key and tier, and no
    /// write of anybody else was affected.
    pub fn is_complete(&self) -> bool {
        let is_clean = self.failed == 0 && self.listing_error.is_none();
        is_clean && self.newer_restored.is_empty() && self.deleted_again.is_empty()
    }

    fn add(&mut self, id: KeyId, outcome: Result<Reencryption>) {
        match outcome {
            Ok(Reencryption::Done) => self.reencrypted += 1,
            Ok(Reencryption::Gone) => self.gone += 1,
            Ok(Reencryption::NewerRestored) => self.newer_restored.push(id),
            Ok(Reencryption::DeletedAgain) => self.deleted_again.push(id),
            Err(e) => {
                self.failed += 1;
                let needs_attention = NeedsAttention::is_source_of(&e);
                if needs_attention {
                    self.needs_attention.push(id.clone());
                }
                if needs_attention || self.failures.len() < KEPT_FAILURES {
                    self.failures.push((id, e));
                }
            }
        }
    }
}

impl fmt::Debug for ReencryptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReencryptReport")
            .field("current", &self.current)
            .field("reencrypted", &self.reencrypted)
            .field("gone", &self.gone)
            .field("newer_restored", &self.newer_restored.len())
            .field("deleted_again", &self.deleted_again.len())
            .field("failed", &self.failed)
            .field("failures", &self.failures)
            .field("needs_attention", &self.needs_attention.len())
            .field("listing_error", &self.listing_error)
            .finish()
    }
}

/// Re-encrypts every key of a store under the configured KMS key and in the configured tier, one
/// after the other, and reads each back. `progress` is called after each key.
///
/// The run can be repeated: keys that are already done are only listed. Keys that others create or
/// delete during the listing can be missed, so the proof that all keys are done is a second run
/// that finds nothing to do. If an alias was moved to another KMS key, keys under it still count as
/// done, because the name is the same: configure the new KMS key by its ARN.
///
/// If the store [needs exclusive access](Reencrypt::needs_exclusive), a write or a delete by
/// somebody else can be undone for a moment. The run detects this, repairs it and reports it, but a
/// reader may have seen the wrong state, and two such collisions on one key at the same time may
/// lose a write. Such a store therefore requires [`exclusive`](ReencryptOptions::exclusive). A key
/// that could not be repaired is among those that [need
/// attention](ReencryptReport::needs_attention).
///
/// # Errors
/// The report contains the failures of single keys and of the listing. Before any call:
/// - [`Config`](ErrorKind::Config) if the rate is not above zero.
/// - [`Unsupported`](ErrorKind::Unsupported) if the store needs
///   [`exclusive`](ReencryptOptions::exclusive), which was not called.
pub async fn reencrypt(
    store: &dyn Reencrypt,
    options: ReencryptOptions,
    mut progress: impl FnMut(&ReencryptReport) + Send,
) -> Result<ReencryptReport> {
    let pause = pause(store, options)?;
    let mut report = ReencryptReport::default();
    let mut next = Instant::now();
    let mut ids = store.list_current();
    while let Some(item) = ids.next().await {
        match item {
            Err(e) => {
                report.listing_error = Some(e);
                break;
            }
            Ok((_, true)) => report.current += 1,
            Ok((id, false)) => {
                sleep_until(next).await;
                next = Instant::now() + pause;
                let outcome = unthrottled(store, &id).await;
                report.add(id, outcome);
            }
        }
        progress(&report);
    }
    Ok(report)
}

/// Checks the options and returns the time from the start of one key to the start of the next.
fn pause(store: &dyn Reencrypt, options: ReencryptOptions) -> Result<Duration> {
    let refusal = |kind, text: &'static str| {
        Error::new(kind, Operation::Put, store.info().scheme()).with_effect(Effect::NotApplied).with_source(text)
    };
    if store.needs_exclusive() && !options.exclusive {
        let text = "a key that somebody else writes or deletes during the run could be lost or come back: make sure \
                    that nobody does, and set exclusive";
        return Err(refusal(ErrorKind::Unsupported, text));
    }
    let rate = options.rate.unwrap_or_else(|| store.default_rate());
    let pause = (rate > 0.0).then(|| Duration::try_from_secs_f64(1.0 / rate).ok()).flatten();
    pause.ok_or_else(|| refusal(ErrorKind::Config, "the rate is not above zero: give a number of keys a second"))
}

/// Re-encrypts a key, and tries again after a pause if it was throttled and nothing was applied.
async fn unthrottled(store: &dyn Reencrypt, id: &KeyId) -> Result<Reencryption> {
    let mut round = 1;
    loop {
        match store.reencrypt_key(id).await {
            Err(e) if e.kind() == ErrorKind::Throttled && e.effect() == Effect::NotApplied && round < ROUNDS => {
                tokio::time::sleep(e.retry_after().unwrap_or(round * PAUSE)).await;
                round += 1;
            }
            outcome => return outcome,
        }
    }
}

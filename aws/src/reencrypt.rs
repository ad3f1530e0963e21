//! [`reencrypt`]: moves the keys of a store to another KMS key or tier.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result, async_trait};
use tokio::time::{Instant, sleep_until};

/// The most failures that a report keeps.
const KEPT_FAILURES: usize = 100;

/// The number of times a key is tried while the service asks to slow down.
const ROUNDS: u32 = 5;

/// The pause after a throttled call that names none.
const PAUSE: Duration = Duration::from_secs(1);

/// A store whose engine encrypts each key under a KMS key that the configuration names.
#[async_trait]
pub trait Reencrypt: KeyStore {
    /// Reports whether a concurrent write or delete of the same key can be undone for a moment, so
    /// that nobody else may write meanwhile.
    fn needs_exclusive(&self) -> bool;

    /// Returns the number of keys a second that the default quotas allow.
    fn default_rate(&self) -> f64;

    /// Returns the ids of all keys, each with whether it is as the configuration asks for already.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>>;

    /// Encrypts one key anew, as the configuration asks for, and reads it back.
    ///
    /// # Errors
    /// Those of a read and of a write of this key, and [`Unsupported`](ErrorKind::Unsupported) if
    /// the store only reads.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption>;
}

/// The outcome for a key that was to be encrypted anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reencryption {
    /// It is encrypted as the configuration asks for, and was read back.
    Done,
    /// It was deleted meanwhile, and stays so.
    Gone,
    /// Somebody else wrote a newer key meanwhile, which was overwritten for a moment and stands
    /// again, unless it was deleted since. It may have the same value.
    NewerRestored,
    /// Somebody else deleted it meanwhile. It came back for a moment, and was deleted again. A key
    /// that was written between the last look and that delete was deleted, too.
    DeletedAgain,
}

/// Settings of [`reencrypt`].
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

    /// Asserts that nobody else writes or deletes keys of the store meanwhile.
    pub fn exclusive(mut self) -> Self {
        self.exclusive = true;
        self
    }

    /// Encrypts at most so many keys a second; what the default quotas allow if it is not called.
    pub fn rate(mut self, keys_per_second: f64) -> Self {
        self.rate = Some(keys_per_second);
        self
    }
}

/// The source of an error after which a person must look at the key: another run takes it for
/// current.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub struct NeedsAttention {
    text: String,
    #[source]
    cause: Option<Error>,
}

impl NeedsAttention {
    /// Returns the error of a write that was applied and after which something is left to do, as
    /// `text` says. The error has the kind and the details of `cause`.
    pub fn after(cause: Error, text: impl Into<String>) -> Error {
        let mut error = Error::new(cause.kind(), Operation::Put, cause.store()).with_effect(Effect::Unknown);
        if let Some(details) = cause.details() {
            error = error.with_details(details.clone());
        }
        error.with_source(Self { text: text.into(), cause: Some(cause) })
    }

    /// Returns the error of a write that was applied while others wrote, with the scheme of the
    /// store.
    pub fn contended(store: &'static str, text: impl Into<String>) -> Error {
        let error = Error::new(ErrorKind::Conflict, Operation::Put, store).with_effect(Effect::Unknown);
        error.with_source(Self { text: text.into(), cause: None })
    }

    /// Reports whether this is the source of an error.
    pub fn is_source_of(error: &Error) -> bool {
        error.source().is_some_and(|source| source.is::<Self>())
    }
}

/// The result of [`reencrypt`].
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct ReencryptReport {
    /// The number of keys that were as the configuration asks for already.
    pub current: u64,
    /// The number of keys that were encrypted anew and read back.
    pub reencrypted: u64,
    /// The number of keys that were deleted meanwhile.
    pub gone: u64,
    /// The ids of which a newer key was overwritten for a moment, and stands again.
    pub newer_restored: Vec<KeyId>,
    /// The ids that came back for a moment after a delete, and were deleted again.
    pub deleted_again: Vec<KeyId>,
    /// The number of keys that could not be encrypted anew.
    pub failed: u64,
    /// The first 100 of these, and all that need attention, each with its reason.
    pub failures: Vec<(KeyId, Error)>,
    /// The ids among the failed ones that a person must look at, because another run takes them for
    /// current. Each is in `failures`, where [`NeedsAttention`] is the source of its error.
    pub needs_attention: Vec<KeyId>,
    /// The error that has ended the listing before all keys were seen.
    pub listing_error: Option<Error>,
}

impl ReencryptReport {
    /// Reports whether all keys were listed, every key is as the configuration asks for, and nobody
    /// else has written.
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

/// Encrypts every key of a store under the KMS key, and in the tier, of its configuration, one
/// after the other, and reads each back. `progress` is called after each key.
///
/// It can be repeated: keys that are as the configuration asks for are only listed. Keys that
/// others create or delete while it lists can be missed, so a second run that finds nothing to do
/// is the proof that all are done. An alias that was moved to another KMS key is still the same
/// name, so such keys count as current: configure the new KMS key by its ARN.
///
/// Where [`needs_exclusive`](Reencrypt::needs_exclusive) says so, a write or a delete by somebody
/// else can be undone for a moment. This is noticed, mended and reported, but a reader may have
/// seen it, and two such accidents to one key at once may lose a write. So it needs
/// [`exclusive`](ReencryptOptions::exclusive). Where it cannot be mended, the key is among those
/// that [need attention](ReencryptReport::needs_attention).
///
/// # Errors
/// [`Config`](ErrorKind::Config), before any call, if the rate is not above zero;
/// [`Unsupported`](ErrorKind::Unsupported), likewise, if the store needs
/// [`exclusive`](ReencryptOptions::exclusive) and it was not called. The failures of single keys,
/// and that of the listing, are in the report.
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

/// Checks the options and returns the pause from the beginning of one key to that of the next.
fn pause(store: &dyn Reencrypt, options: ReencryptOptions) -> Result<Duration> {
    let refusal = |kind, text: &'static str| {
        Error::new(kind, Operation::Put, store.info().scheme()).with_effect(Effect::NotApplied).with_source(text)
    };
    if store.needs_exclusive() && !options.exclusive {
        let text = "a key that somebody else writes or deletes meanwhile could be lost or come back: make sure that \
                    nobody does, and say exclusive";
        return Err(refusal(ErrorKind::Unsupported, text));
    }
    let rate = options.rate.unwrap_or_else(|| store.default_rate());
    let pause = (rate > 0.0).then(|| Duration::try_from_secs_f64(1.0 / rate).ok()).flatten();
    pause.ok_or_else(|| refusal(ErrorKind::Config, "the rate is not above zero: give a number of keys a second"))
}

/// Encrypts a key anew, again after a pause where the service asks to slow down and nothing was
/// applied.
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

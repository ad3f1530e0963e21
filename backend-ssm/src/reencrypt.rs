//! [`Reencrypt`] for Parameter Store: puts the same value again under the configured KMS key and in
//! the configured tier.
//!
//! Parameter Store has no conditional write. If somebody else writes or deletes the key between our
//! read and our put, that is detected afterwards, by the version that the put gets and by the value
//! of the version before it, and is repaired then. If it cannot be repaired or checked, the error
//! has [`NeedsAttention`] as its source.

use std::time::Duration;

use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{ParameterMetadata, ParameterTier};
use keystead_aws::{AwsFailure, NeedsAttention, Page, Reencrypt, Reencryption, is_same_kms_key, listing};
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result, async_trait};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::config::SsmConfig;
use crate::describe;
use crate::error::{SCHEME, SERVICE, corrupt, kind};
use crate::legacy;
use crate::put::FIRST_VERSION;
use crate::store::{SsmStore, key_of};

/// The number of keys per second. Each key is one write, and the default quota is 3 writes a
/// second.
const RATE: f64 = 2.0;

/// The number of times that a newer key is restored, in case others keep writing.
const RESTORES: u32 = 3;

/// The largest number of versions before our put that are examined.
const VERSIONS_BACK: usize = 10;

/// The pause between two reads of a version that is not visible yet.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts to restore a newer key.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The number of attempts of a read after our put.
const READ_ATTEMPTS: u32 = 5;

/// The number of attempts to restore a newer key.
const RESTORE_ATTEMPTS: u32 = 5;

const CONTENDED: &str = "others write this key at the same time, so it is unknown which value is to stay: make sure \
                         that nobody writes it, and look at the parameter's history";

const NOT_DELETED_AGAIN: &str = "the key was deleted by somebody else and has come back; it was not deleted again, \
                                 because others write it at the same time: look at the parameter, and delete it if it \
                                 is to stay deleted";

const DELETE_FAILED: &str = "the key was deleted by somebody else and has come back, and could not be deleted again: \
                             look at the parameter, and delete it if it is to stay deleted";

const NOT_READ_BACK: &str = "the key was re-encrypted, but cannot be read back: read it, and look at the parameter's \
                             history";

const NOT_CHECKED: &str = "the key was put under the new KMS key, but it could not be checked whether somebody else \
                           wrote or deleted it at the same time: look at the parameter's history";

/// A version of a parameter.
struct Version {
    value: Zeroizing<String>,
    number: i64,
    made_by: MadeBy,
}

/// The writer of a version.
enum MadeBy {
    /// Somebody else or an earlier run, at this time.
    Others(Option<DateTime>),
    /// A put of this run. If it is ambiguous, attempts whose answers were lost may have made the
    /// versions before.
    Us { is_ambiguous: bool },
}

impl Version {
    /// Reports whether a version that was read is this one, and not one with the same number from
    /// after a delete. Of our own versions no date is known, so for them that cannot be told.
    fn is(&self, read: &Read) -> bool {
        let is_same_date = match self.made_by {
            MadeBy::Others(modified) => modified == read.modified,
            MadeBy::Us { .. } => true,
        };
        is_same_date && self.number == read.number && self.value == read.value
    }
}

/// A version as it was read.
struct Read {
    value: Zeroizing<String>,
    number: i64,
    modified: Option<DateTime>,
}

/// The version that precedes our put.
enum Predecessor {
    /// The version that was read before the put.
    Base,
    /// A version that somebody else has written since, with the same value as our put.
    Equal,
    /// A version that somebody else has written since, with another value.
    Newer(Read),
    /// No version: the parameter was deleted, and our put has created it.
    Nothing,
    /// An unknown one: the parameter was deleted after our put.
    Unknown,
}

#[async_trait]
impl Reencrypt for SsmStore {
    fn needs_exclusive(&self) -> bool {
        true
    }

    fn default_rate(&self) -> f64 {
        RATE
    }

    /// Lists the parameters. It needs `ssm:DescribeParameters`.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>> {
        listing(SERVICE, |token| Box::pin(current_page(self, token)))
    }

    /// Re-encrypts one key. It needs the permissions of a get and of an overwrite, with both KMS
    /// keys, and those of a delete to repair the effect of a concurrent delete.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption> {
        legacy::refuse_write(self, Operation::Put)?;
        Run { store: self, id, name: self.name(id) }.run().await
    }
}

/// Returns the ids on one page of the listing, each with whether its key is done.
async fn current_page(store: &SsmStore, token: Option<String>) -> Result<Page<(KeyId, bool)>> {
    let parameters = describe::page(store, token).await?;
    let config = &store.config;
    Ok(parameters.filter_map(|of| Some((config.names().id(of.name()?)?, is_current(config, &of)))))
}

/// Reports whether a parameter has the configured KMS key and tier.
fn is_current(config: &SsmConfig, parameter: &ParameterMetadata) -> bool {
    let has_key = match (parameter.key_id(), config.kms_key()) {
        (Some(key), Some(configured)) => is_same_kms_key(key, configured, parameter.arn()),
        _ => false,
    };
    has_key
        && match config.parameter_tier() {
            Some(tier @ (ParameterTier::Standard | ParameterTier::Advanced)) => parameter.tier() == Some(&tier),
            // The account's default may result in either tier.
            _ => true,
        }
}

/// The re-encryption of one key.
struct Run<'a> {
    store: &'a SsmStore,
    id: &'a KeyId,
    name: String,
}

impl Run<'_> {
    async fn run(&self) -> Result<Reencryption> {
        let Some(old) = self.visible().await? else { return Ok(Reencryption::Gone) };
        let old = Version { value: old.value, number: old.number, made_by: MadeBy::Others(old.modified) };
        let (number, is_ambiguous) = match self.store.write(&self.name, &old.value, true).await {
            Ok(written) => (written.version, written.is_ambiguous),
            Err(e) if e.may_have_applied() => match self.applied_version(&old.value, &old).await {
                Ok(Some(number)) => (number, true),
                Ok(None) => return Err(self.failed(e)),
                Err(e) => return Err(NeedsAttention::after(e, NOT_CHECKED)),
            },
            Err(e) => return Err(self.failed(e)),
        };
        let ours = Version { value: old.value.clone(), number, made_by: MadeBy::Us { is_ambiguous } };
        self.settle(old, ours).await.map_err(|e| match NeedsAttention::is_source_of(&e) {
            true => e,
            false => NeedsAttention::after(e, NOT_CHECKED),
        })
    }

    /// Finds out whether somebody else has written or deleted the key since `base` was read,
    /// repairs what our put has done to that, and reads the key back.
    async fn settle(&self, mut base: Version, mut ours: Version) -> Result<Reencryption> {
        let mut outcome = Reencryption::Done;
        for _ in 0..=RESTORES {
            match self.predecessor(&base, &ours).await? {
                Predecessor::Base => return self.read_back(&ours, outcome).await,
                Predecessor::Equal => return self.read_back(&ours, Reencryption::NewerRestored).await,
                Predecessor::Unknown => return Ok(gone_after(outcome)),
                Predecessor::Nothing => return self.delete_again(&ours).await,
                Predecessor::Newer(newer) => {
                    let restored = self.restore(newer, &ours).await?;
                    base = std::mem::replace(&mut ours, restored);
                    outcome = Reencryption::NewerRestored;
                }
            }
        }
        Err(contended(CONTENDED))
    }

    /// Returns the version that precedes our put. If the put is ambiguous, skips the versions of
    /// its earlier attempts, whose answers were lost.
    async fn predecessor(&self, base: &Version, ours: &Version) -> Result<Predecessor> {
        let may_hide_attempts = matches!(ours.made_by, MadeBy::Us { is_ambiguous: true });
        for number in (FIRST_VERSION..ours.number).rev().take(VERSIONS_BACK) {
            let Some(version) = self.version(number).await? else { return Ok(Predecessor::Unknown) };
            if base.is(&version) {
                return Ok(Predecessor::Base);
            }
            if version.value != ours.value {
                return Ok(Predecessor::Newer(version));
            }
            if !may_hide_attempts {
                return Ok(Predecessor::Equal);
            }
        }
        if usize::try_from(ours.number).is_ok_and(|number| number > VERSIONS_BACK) {
            return Err(contended(CONTENDED));
        }
        Ok(Predecessor::Nothing)
    }

    /// Restores a newer key that our put has overwritten, and tries again while that is refused for
    /// the moment.
    async fn restore(&self, newer: Read, ours: &Version) -> Result<Version> {
        let mut is_ambiguous = false;
        let mut pause = PAUSE;
        let mut attempt = 1;
        loop {
            let failure = match self.store.write(&self.name, &newer.value, true).await {
                Ok(written) => {
                    let made_by = MadeBy::Us { is_ambiguous: is_ambiguous || written.is_ambiguous };
                    return Ok(Version { value: newer.value, number: written.version, made_by });
                }
                Err(failure) => failure,
            };
            is_ambiguous |= failure.may_have_applied();
            let error = self.failed(failure);
            if attempt == RESTORE_ATTEMPTS || !error.is_retryable() {
                let applied = match is_ambiguous {
                    true => self.applied_version(&newer.value, ours).await,
                    false => Ok(None),
                };
                return match applied {
                    Ok(Some(number)) => {
                        Ok(Version { value: newer.value, number, made_by: MadeBy::Us { is_ambiguous } })
                    }
                    _ => Err(not_put_back(error, newer.number)),
                };
            }
            sleep(error.retry_after().unwrap_or(pause).min(LONGEST_PAUSE)).await;
            pause *= 2;
            attempt += 1;
        }
    }

    /// Returns the number of the version that our put of `value` has made although its answer was
    /// lost, if that version is visible after `before` within the visibility bound.
    async fn applied_version(&self, value: &Zeroizing<String>, before: &Version) -> Result<Option<i64>> {
        let start = Instant::now();
        loop {
            let current = self.read_persistently(&self.name).await?;
            let ours = current.filter(|current| current.value == *value && !before.is(current));
            if ours.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(ours.map(|ours| ours.number));
            }
            self.pause().await;
        }
    }

    /// Deletes a key that our put has brought back after somebody else had deleted it.
    ///
    /// Parameter Store has no conditional delete. If somebody else writes the key between the read
    /// and the delete, that key is deleted, too.
    async fn delete_again(&self, ours: &Version) -> Result<Reencryption> {
        let start = Instant::now();
        loop {
            let current = self.read_persistently(&self.name).await?;
            if current.is_some_and(|current| ours.is(&current)) {
                break;
            }
            if start.elapsed() >= self.store.visibility_bound {
                return Err(contended(NOT_DELETED_AGAIN));
            }
            self.pause().await;
        }
        match self.store.delete_key(self.id).await {
            Ok(_) => Ok(Reencryption::DeletedAgain),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(Reencryption::DeletedAgain),
            Err(e) => Err(NeedsAttention::after(e, DELETE_FAILED)),
        }
    }

    /// Reads the key until our version or a later one is visible, or the visibility bound is over.
    async fn read_back(&self, ours: &Version, outcome: Reencryption) -> Result<Reencryption> {
        let start = Instant::now();
        loop {
            let current = self.read_persistently(&self.name).await?;
            if current.as_ref().is_some_and(|current| current.number > ours.number || ours.is(current)) {
                return Ok(outcome);
            }
            if start.elapsed() >= self.store.visibility_bound {
                return match current {
                    Some(_) => Err(contended(NOT_READ_BACK)),
                    None => Ok(gone_after(outcome)),
                };
            }
            self.pause().await;
        }
    }

    /// Reads the key until it is visible, or the visibility bound is over.
    async fn visible(&self) -> Result<Option<Read>> {
        let start = Instant::now();
        loop {
            let current = self.read(&self.name).await?;
            if current.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(current);
            }
            self.pause().await;
        }
    }

    /// Reads the version with this number until it is visible, or the visibility bound is over.
    async fn version(&self, number: i64) -> Result<Option<Read>> {
        let selector = format!("{}:{number}", self.name);
        let start = Instant::now();
        loop {
            let version = self.read_persistently(&selector).await?;
            if version.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(version);
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        sleep(PAUSE.min(self.store.visibility_bound)).await;
    }

    /// Reads a version after our put, with more attempts than another read makes, because the next
    /// run takes the key for done.
    async fn read_persistently(&self, selector: &str) -> Result<Option<Read>> {
        let mut pause = PAUSE;
        for _ in 1..READ_ATTEMPTS {
            match self.read(selector).await {
                Err(e) if e.is_retryable() => sleep(e.retry_after().unwrap_or(pause)).await,
                read => return read.map_err(|e| e.with_effect(Effect::Unknown)),
            }
            pause *= 2;
        }
        self.read(selector).await.map_err(|e| e.with_effect(Effect::Unknown))
    }

    /// Reads a version; `None` if it does not exist. A parameter that is not a key of ours is
    /// `Corrupt`.
    async fn read(&self, selector: &str) -> Result<Option<Read>> {
        let call = self.store.identity.call();
        let request = self.store.client.get_parameter().name(selector).with_decryption(true);
        let answer = match call.run(SERVICE, kind, request.customize().interceptor(call.attempts()).send()).await {
            Ok(answer) => answer,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.during(Operation::Get, &[self.id.as_str(), &self.name, selector])),
        };
        let value = answer.parameter.as_ref().and_then(|of| of.value.clone()).map(Zeroizing::new);
        let number = answer.parameter.as_ref().map(|of| of.version).filter(|number| *number >= FIRST_VERSION);
        let modified = answer.parameter.as_ref().and_then(|of| of.last_modified_date);
        let request_id = answer.request_id().map(str::to_owned);
        key_of(answer.parameter, request_id.as_deref())?;
        match (value, number) {
            (Some(value), Some(number)) => Ok(Some(Read { value, number, modified })),
            _ => Err(corrupt("the answer contains no version", request_id.as_deref())),
        }
    }

    fn failed(&self, e: AwsFailure) -> Error {
        e.during(Operation::Put, &[self.id.as_str(), &self.name])
    }
}

/// Returns the outcome for a key that somebody else has deleted after our put. An earlier repair is
/// still reported.
fn gone_after(outcome: Reencryption) -> Reencryption {
    if outcome == Reencryption::Done { Reencryption::Gone } else { outcome }
}

/// Returns the error for a key that others write at the same time.
fn contended(text: &'static str) -> Error {
    NeedsAttention::contended(SCHEME, text)
}

/// Returns the error for a newer key that only the history still holds.
fn not_put_back(cause: Error, number: i64) -> Error {
    let text = format!(
        "a newer key was overwritten and not put back: version {number} of the parameter's history holds it; make sure \
         that nobody else writes, read it with aws ssm get-parameter --with-decryption --name NAME:{number}, and put \
         that value back"
    );
    NeedsAttention::after(cause, text)
}

//! [`Reencrypt`] for Parameter Store: the same value, put again under the configured KMS key and
//! tier.
//!
//! Parameter Store has no conditional write. A write or a delete by somebody else between the read
//! and the put is seen afterwards, by the version that the put gets and by the value of the version
//! before it, and is mended then. What cannot be mended or checked is an error with
//! [`NeedsAttention`] as its source.

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

/// The number of keys a second: each is one write, and 3 writes a second is the default quota.
const RATE: f64 = 2.0;

/// The number of times a newer key is put back, should others write at the same time.
const RESTORES: u32 = 3;

/// The number of versions that are looked at beneath our put.
const STEPS: usize = 10;

/// The pause between two reads of what is not visible yet.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between two attempts to put a newer key back.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The number of times a read after our put is tried.
const LOOKS: u32 = 5;

/// The number of times a put of a newer key is tried.
const RESTORE_ATTEMPTS: u32 = 5;

const CONTENDED: &str = "others write this key at the same time, so it cannot be told which value is to \
                         stand: make sure \
                         that nobody does, and look at the parameter's history";

const NOT_DELETED_AGAIN: &str = "the key was deleted by somebody else and has come back: nothing was deleted again, \
                                 because others write it at the same time; look at the parameter, and delete it if it \
                                 is to be gone";

const DELETE_FAILED: &str = "the key was deleted by somebody else and has come back, and could not be deleted again: \
                             look at the parameter, and delete it if it is to be gone";

const NOT_READ_BACK: &str = "the key was encrypted anew, but cannot be read back: read it, and look at the parameter's \
                             history";

const NOT_CHECKED: &str = "the key was put under the new KMS key, but it could not be checked whether somebody else \
                           wrote or deleted it meanwhile: look at the parameter's history";

/// A version of a parameter.
struct Version {
    value: Zeroizing<String>,
    number: i64,
    made_by: MadeBy,
}

/// The maker of a version.
enum MadeBy {
    /// Somebody else, or a run before, at this time.
    Others(Option<DateTime>),
    /// A put of this run. If it is ambiguous, lost attempts of it may have made versions beneath.
    Us { is_ambiguous: bool },
}

impl Version {
    /// Reports whether a version that was read is this one, and not one of the same number after a
    /// delete. That cannot be told of our own versions, of which no date is known.
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

/// The version that our put has followed.
enum Beneath {
    /// The one that it was meant to follow.
    Base,
    /// One with the value of our put that somebody else has written since.
    Equal,
    /// One with another value that somebody else has written since.
    Newer(Read),
    /// None: the parameter was deleted, and our put has created it.
    Nothing,
    /// It cannot be known: the parameter was deleted after our put.
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

    /// Needs `ssm:DescribeParameters`.
    fn list_current(&self) -> BoxStream<'_, Result<(KeyId, bool)>> {
        listing(SERVICE, |token| Box::pin(current_page(self, token)))
    }

    /// Needs the rights of a get and of an overwrite, with both KMS keys, and those of a delete to
    /// mend what a concurrent delete leads to.
    async fn reencrypt_key(&self, id: &KeyId) -> Result<Reencryption> {
        legacy::refuse_write(self, Operation::Put)?;
        Run { store: self, id, name: self.name(id) }.run().await
    }
}

/// Returns the ids on one page of the listing, each with whether it is current.
async fn current_page(store: &SsmStore, token: Option<String>) -> Result<Page<(KeyId, bool)>> {
    let parameters = describe::page(store, token).await?;
    let config = &store.config;
    Ok(parameters.filter_map(|of| Some((config.names().id(of.name()?)?, is_current(config, &of)))))
}

/// Reports whether a parameter is under the KMS key and in the tier of this configuration.
fn is_current(config: &SsmConfig, parameter: &ParameterMetadata) -> bool {
    let has_key = match (parameter.key_id(), config.kms_key()) {
        (Some(key), Some(configured)) => is_same_kms_key(key, configured, parameter.arn()),
        _ => false,
    };
    has_key
        && match config.parameter_tier() {
            Some(tier @ (ParameterTier::Standard | ParameterTier::Advanced)) => parameter.tier() == Some(&tier),
            // Either tier may be what the account gives.
            _ => true,
        }
}

/// One key that is encrypted anew.
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

    /// Finds out whether somebody else has written or deleted the key since `base` was read, mends
    /// what our put has done to that, and reads back.
    async fn settle(&self, mut base: Version, mut ours: Version) -> Result<Reencryption> {
        let mut outcome = Reencryption::Done;
        for _ in 0..=RESTORES {
            match self.beneath(&base, &ours).await? {
                Beneath::Base => return self.read_back(&ours, outcome).await,
                Beneath::Equal => return self.read_back(&ours, Reencryption::NewerRestored).await,
                Beneath::Unknown => return Ok(gone_after(outcome)),
                Beneath::Nothing => return self.delete_again(&ours).await,
                Beneath::Newer(newer) => {
                    let restored = self.restore(newer, &ours).await?;
                    base = std::mem::replace(&mut ours, restored);
                    outcome = Reencryption::NewerRestored;
                }
            }
        }
        Err(contended(CONTENDED))
    }

    /// Goes back from our put to the version that it was meant to follow, past earlier attempts of
    /// the same put whose answers were lost, if there can be any.
    async fn beneath(&self, base: &Version, ours: &Version) -> Result<Beneath> {
        let may_hide_attempts = matches!(ours.made_by, MadeBy::Us { is_ambiguous: true });
        for number in (FIRST_VERSION..ours.number).rev().take(STEPS) {
            let Some(version) = self.version(number).await? else { return Ok(Beneath::Unknown) };
            if base.is(&version) {
                return Ok(Beneath::Base);
            }
            if version.value != ours.value {
                return Ok(Beneath::Newer(version));
            }
            if !may_hide_attempts {
                return Ok(Beneath::Equal);
            }
        }
        if usize::try_from(ours.number).is_ok_and(|number| number > STEPS) {
            return Err(contended(CONTENDED));
        }
        Ok(Beneath::Nothing)
    }

    /// Puts a newer key that our put has overwritten back, again while that is refused for now.
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

    /// Returns the version of our put of `value` whose answer was lost, if it is seen within the
    /// visibility bound that it was applied after `before`.
    async fn applied_version(&self, value: &Zeroizing<String>, before: &Version) -> Result<Option<i64>> {
        let start = Instant::now();
        loop {
            let current = self.look(&self.name).await?;
            let ours = current.filter(|current| current.value == *value && !before.is(current));
            if ours.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(ours.map(|ours| ours.number));
            }
            self.pause().await;
        }
    }

    /// Deletes a key that our put has brought back after somebody else had deleted it.
    ///
    /// Parameter Store has no conditional delete, so a key that somebody else writes between the
    /// read and the delete is deleted, too.
    async fn delete_again(&self, ours: &Version) -> Result<Reencryption> {
        let start = Instant::now();
        loop {
            let current = self.look(&self.name).await?;
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

    /// Reads the key, until our version or a later one is visible or the visibility bound is over.
    async fn read_back(&self, ours: &Version, outcome: Reencryption) -> Result<Reencryption> {
        let start = Instant::now();
        loop {
            let current = self.look(&self.name).await?;
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

    /// Reads the key, until it is visible or the visibility bound is over.
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

    /// Reads the version of this number, until it is visible or the visibility bound is over.
    async fn version(&self, number: i64) -> Result<Option<Read>> {
        let selector = format!("{}:{number}", self.name);
        let start = Instant::now();
        loop {
            let version = self.look(&selector).await?;
            if version.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(version);
            }
            self.pause().await;
        }
    }

    async fn pause(&self) {
        sleep(PAUSE.min(self.store.visibility_bound)).await;
    }

    /// Reads a version after our put. It is worth more tries than another read: the next run takes
    /// the key for done.
    async fn look(&self, selector: &str) -> Result<Option<Read>> {
        let mut pause = PAUSE;
        for _ in 1..LOOKS {
            match self.read(selector).await {
                Err(e) if e.is_retryable() => sleep(e.retry_after().unwrap_or(pause)).await,
                read => return read.map_err(|e| e.with_effect(Effect::Unknown)),
            }
            pause *= 2;
        }
        self.read(selector).await.map_err(|e| e.with_effect(Effect::Unknown))
    }

    /// Reads a version; `None` if there is no such one. What is not a key of ours is `Corrupt`.
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
            _ => Err(corrupt("the answer holds no version", request_id.as_deref())),
        }
    }

    fn failed(&self, e: AwsFailure) -> Error {
        e.during(Operation::Put, &[self.id.as_str(), &self.name])
    }
}

/// Returns the outcome of a key that somebody else has deleted after our put. What was mended before
/// is still reported.
fn gone_after(outcome: Reencryption) -> Reencryption {
    if outcome == Reencryption::Done { Reencryption::Gone } else { outcome }
}

/// Returns the error of a key that others write meanwhile.
fn contended(text: &'static str) -> Error {
    NeedsAttention::contended(SCHEME, text)
}

/// Returns the error of a newer key that is only in the history.
fn not_put_back(cause: Error, number: i64) -> Error {
    let text = format!(
        "a newer key was overwritten and not put back: version {number} of the parameter's history holds it; make sure \
         that nobody else writes, read it with aws ssm get-parameter --with-decryption --name NAME:{number}, and put \
         that value back"
    );
    NeedsAttention::after(cause, text)
}

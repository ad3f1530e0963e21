//! [`Reencrypt`] for Parameter Store: the same value, put again under the configured KMS key and
//! tier.
//!
//! Parameter Store has no conditional write. A write or a delete by somebody else between the read
//! and the put is seen afterwards, by the version that the put gets and by the value of the version
//! before it, and is mended then.

use std::time::Duration;

use aws_sdk_ssm::operation::RequestId;
use aws_sdk_ssm::primitives::DateTime;
use aws_sdk_ssm::types::{ParameterMetadata, ParameterTier};
use keystead_aws::{Failure, Page, Reencrypt, Reencryption, is_same_kms_key, listing};
use keystead_core::{BoxStream, Effect, Error, ErrorKind, KeyId, KeyStore, Operation, Result, async_trait};
use tokio::time::{Instant, sleep};
use zeroize::Zeroizing;

use crate::config::SsmConfig;
use crate::describe;
use crate::error::{SCHEME, SERVICE, corrupt, kind};
use crate::legacy;
use crate::store::{SsmStore, key_of};

/// The number of keys a second: each is one write, and 3 writes a second is the default quota.
const RATE: f64 = 2.0;

/// The version of a parameter that was just created (`PutParameter`, `Version`).
const FIRST_VERSION: i64 = 1;

/// The number of times a newer key is put back, should others write at the same time.
const RESTORES: u32 = 3;

/// The number of versions that are looked at beneath our put.
const STEPS: usize = 10;

/// The pause between two reads of what is not visible yet.
const PAUSE: Duration = Duration::from_millis(100);

/// The number of times a read after our put is tried.
const LOOKS: u32 = 5;

const CONTENDED: &str = "others write this key at the same time: make sure that nobody does, look at the parameter's \
                         history, and run this again";

const NOT_READ_BACK: &str = "the key was encrypted anew, but cannot be read back yet: run this again";

/// A version of a parameter.
struct Version {
    value: Zeroizing<String>,
    number: i64,
    /// `None` if our own put has made it.
    modified: Option<DateTime>,
}

impl Version {
    /// Reports whether a version that was read is this one, and not one of the same number after a
    /// delete.
    fn is(&self, read: &Self) -> bool {
        let is_same = match self.modified {
            Some(_) => (self.number, self.modified) == (read.number, read.modified),
            None => true,
        };
        is_same && self.value == read.value
    }
}

/// The version that our put has followed.
enum Beneath {
    /// The one that it was meant to follow.
    Base,
    /// One that somebody else has written since.
    Newer(Version),
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
        let Some(old) = self.read(&self.name).await? else { return Ok(Reencryption::Gone) };
        let written = match self.store.write(&self.name, &old.value, true).await {
            Ok(number) => number,
            Err(e) if e.may_have_landed() => self.landed(&old).await?.ok_or_else(|| self.failed(e))?,
            Err(e) => return Err(self.failed(e)),
        };
        self.settle(old, written).await
    }

    /// Finds out whether somebody else has written or deleted the key since `old` was read, mends
    /// what our put has done to that, and reads back.
    async fn settle(&self, old: Version, written: i64) -> Result<Reencryption> {
        let mut ours = Version { value: old.value.clone(), number: written, modified: None };
        let mut base = old;
        let mut outcome = Reencryption::Done;
        for _ in 0..=RESTORES {
            match self.beneath(&base, &ours).await? {
                Beneath::Base => return self.read_back(&ours).await.map(|()| outcome),
                Beneath::Unknown => return Ok(Reencryption::Gone),
                Beneath::Nothing => return self.delete_again(&ours).await,
                Beneath::Newer(newer) => {
                    let number = self.store.write(&self.name, &newer.value, true).await;
                    let number = number.map_err(|e| self.failed(e.partly_applied()))?;
                    base = std::mem::replace(&mut ours, Version { value: newer.value, number, modified: None });
                    outcome = Reencryption::NewerRestored;
                }
            }
        }
        Err(self.doubtful(CONTENDED))
    }

    /// Goes back from our put to the version that it was meant to follow, past earlier attempts of
    /// the same put whose answers were lost.
    async fn beneath(&self, base: &Version, ours: &Version) -> Result<Beneath> {
        for number in (FIRST_VERSION..ours.number).rev().take(STEPS) {
            let Some(version) = self.version(number).await? else { return Ok(Beneath::Unknown) };
            if base.is(&version) {
                return Ok(Beneath::Base);
            }
            if version.value != ours.value {
                return Ok(Beneath::Newer(version));
            }
        }
        if usize::try_from(ours.number).is_ok_and(|number| number > STEPS) {
            return Err(self.doubtful(CONTENDED));
        }
        Ok(Beneath::Nothing)
    }

    /// Returns the version of our put whose answer was lost, if it shows that it was applied.
    async fn landed(&self, old: &Version) -> Result<Option<i64>> {
        let current = self.look(&self.name).await?;
        let is_new = |current: &Version| (current.number, current.modified) != (old.number, old.modified);
        Ok(current.filter(|current| *current.value == *old.value && is_new(current)).map(|of| of.number))
    }

    /// Deletes a key that our put has brought back after somebody else had deleted it.
    async fn delete_again(&self, ours: &Version) -> Result<Reencryption> {
        match self.current_at_least(ours.number).await? {
            Some(current) if current.number > ours.number => Err(self.doubtful(CONTENDED)),
            // Absent or not visible yet: nobody but us has written it.
            _ => match self.store.delete_key(self.id).await {
                Ok(_) => Ok(Reencryption::DeletedAgain),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(Reencryption::DeletedAgain),
                Err(e) => Err(e.with_operation(Operation::Put).with_effect(Effect::Unknown)),
            },
        }
    }

    async fn read_back(&self, ours: &Version) -> Result<()> {
        match self.current_at_least(ours.number).await? {
            Some(current) if current.number > ours.number || *current.value == *ours.value => Ok(()),
            // It was deleted after our put.
            None => Ok(()),
            Some(_) => Err(self.doubtful(NOT_READ_BACK)),
        }
    }

    /// Reads the key, until its version is visible or the visibility bound is over.
    async fn current_at_least(&self, number: i64) -> Result<Option<Version>> {
        let start = Instant::now();
        loop {
            let current = self.look(&self.name).await?;
            let is_visible = current.as_ref().is_some_and(|current| current.number >= number);
            if is_visible || start.elapsed() >= self.store.visibility_bound {
                return Ok(current);
            }
            sleep(PAUSE.min(self.store.visibility_bound)).await;
        }
    }

    /// Reads the version of this number, until it is visible or the visibility bound is over.
    async fn version(&self, number: i64) -> Result<Option<Version>> {
        let selector = format!("{}:{number}", self.name);
        let start = Instant::now();
        loop {
            let version = self.look(&selector).await?;
            if version.is_some() || start.elapsed() >= self.store.visibility_bound {
                return Ok(version);
            }
            sleep(PAUSE.min(self.store.visibility_bound)).await;
        }
    }

    /// Reads a version after our put. It is worth more tries than another read: the next run takes
    /// the key for done.
    async fn look(&self, selector: &str) -> Result<Option<Version>> {
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
    async fn read(&self, selector: &str) -> Result<Option<Version>> {
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
            (Some(value), Some(number)) => Ok(Some(Version { value, number, modified })),
            _ => Err(corrupt("the answer holds no version", request_id.as_deref())),
        }
    }

    fn failed(&self, e: Failure) -> Error {
        e.during(Operation::Put, &[self.id.as_str(), &self.name])
    }

    fn doubtful(&self, text: &'static str) -> Error {
        Error::new(ErrorKind::Conflict, Operation::Put, SCHEME).with_effect(Effect::Unknown).with_source(text)
    }
}

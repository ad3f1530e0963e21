//! [`compare`]: a comparison of all keys of two stores.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{Error, ErrorKind, KeyId, KeyStore, Operation, Result, SecretKey};
use tokio::time::sleep;

use crate::digest::{Digest, Digester, random_digest_key};
use crate::endpoint::Endpoint;
use crate::failure::is_store_wide;
use crate::identity::Learned;
use crate::options::{CopyPhase, CopyProgress};
use crate::report::{Bounded, KeyFailure};
use crate::run::CHUNK;

/// The result of [`compare`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// The number of ids that have the same key on both sides.
    pub equal: u64,
    /// The ids that have a different key at the target.
    pub different: Bounded<KeyId>,
    /// The ids that have a key only at the source.
    pub missing: Bounded<KeyId>,
    /// The ids that have a key only at the target.
    pub extra: Bounded<KeyId>,
    /// The ids whose key could not be read on one side.
    pub unreadable: Bounded<KeyFailure>,
    /// The number of entries of either store that are so damaged that their ids are not known.
    pub unlisted: u64,
}

impl Comparison {
    /// Reports whether both stores have the same keys for the same ids and every key could be read.
    pub fn is_equal(&self) -> bool {
        let others = self.different.total + self.missing.total + self.extra.total;
        others + self.unreadable.total + self.unlisted == 0
    }
}

/// Compares all keys of two stores, and changes nothing.
///
/// Two keys are compared in constant time. Keys that are not equal are read again on both sides
/// after the visibility bound. The comparison takes about 25 bytes of memory for each id, calls
/// `on_progress` after each chunk of up to 100 ids, and needs a Tokio runtime with time
/// (`enable_time`).
///
/// # Errors
/// - [`Config`](ErrorKind::Config) if the two are the same store, which would always equal itself.
/// - [`Unsupported`](ErrorKind::Unsupported) if one of the stores cannot list its keys.
/// - The errors of listing.
/// - The first error that concerns a whole store: it throttles, is full or unreachable, does not
///   answer in time, or does not accept the credentials.
///
/// Every other failure is in the [`Comparison`].
pub async fn compare(
    source: &dyn KeyStore,
    target: &dyn KeyStore,
    on_progress: impl FnMut(CopyProgress) + Send,
) -> Result<Comparison> {
    for store in [source, target] {
        if store.capabilities().listing.is_none() {
            let e = Error::new(ErrorKind::Unsupported, Operation::List, store.info().scheme());
            return Err(e.with_source("the store cannot list its keys; compare one by one the keys whose ids you know"));
        }
    }
    let source = Endpoint::unlimited(source);
    let target = Endpoint::unlimited(target);
    Learned::from(&source, &target).await.refuse_one_store()?;
    let bound = source.bound().max(target.bound());
    let digester = Digester::new(&random_digest_key());
    let found = Comparison::default();
    let mut comparing =
        Comparing { source, target, bound, digester, met: BTreeSet::new(), done: 0, on_progress, found };
    let source = comparing.source.clone();
    let target = comparing.target.clone();
    comparing.compare_listed(&source).await?;
    // The first pass has handled all ids that the source lists, so this one skips them.
    comparing.compare_listed(&target).await?;
    Ok(comparing.found)
}

/// A comparison in progress.
struct Comparing<'a, F> {
    source: Endpoint<'a>,
    target: Endpoint<'a>,
    bound: Duration,
    digester: Digester,
    met: BTreeSet<Digest>,
    done: u64,
    on_progress: F,
    found: Comparison,
}

impl<F: FnMut(CopyProgress) + Send> Comparing<'_, F> {
    /// Lists one store and compares its ids, except those that were met before.
    async fn compare_listed(&mut self, endpoint: &Endpoint<'_>) -> Result<()> {
        let mut ids = endpoint.list();
        let mut chunk = Vec::with_capacity(CHUNK);
        loop {
            let next = ids.next().await;
            let is_last = next.is_none();
            match next {
                Some(Ok(id)) if self.met.insert(self.digester.id(&id)) => chunk.push(id),
                Some(Ok(_)) | None => {}
                Some(Err(e)) if e.kind() == ErrorKind::Corrupt => self.found.unlisted += 1,
                Some(Err(e)) => return Err(e),
            }
            if is_last || chunk.len() == CHUNK {
                self.done += chunk.len() as u64;
                let unequal = self.compare_chunk(std::mem::take(&mut chunk), self.bound.is_zero()).await?;
                if !unequal.is_empty() {
                    sleep(self.bound).await;
                    self.compare_chunk(unequal, true).await?;
                }
                (self.on_progress)(CopyProgress { phase: CopyPhase::Comparing, done: self.done, total: None });
                tokio::task::yield_now().await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads the keys on both sides and counts them. Unless this `is_final`, ids with unequal keys
    /// are not counted but returned.
    async fn compare_chunk(&mut self, ids: Vec<KeyId>, is_final: bool) -> Result<Vec<KeyId>> {
        let here = self.source.read(&ids).await;
        let there = self.target.read(&ids).await;
        let mut unequal = Vec::new();
        for ((id, here), there) in ids.into_iter().zip(here).zip(there) {
            match (present(here), present(there)) {
                (Ok(Some(here)), Ok(Some(there))) if here == there => self.found.equal += 1,
                (Err(e), _) | (_, Err(e)) if is_store_wide(e.kind()) => return Err(e),
                _ if !is_final => unequal.push(id),
                (Err(e), _) | (_, Err(e)) => self.found.unreadable.push(KeyFailure::new(id, e)),
                (Ok(Some(_)), Ok(Some(_))) => self.found.different.push(id),
                (Ok(Some(_)), Ok(None)) => self.found.missing.push(id),
                (Ok(None), Ok(Some(_))) => self.found.extra.push(id),
                // Deleted since it was listed.
                (Ok(None), Ok(None)) => {}
            }
        }
        Ok(unequal)
    }
}

/// Returns the key, or `None` if there is none.
fn present(key: Result<SecretKey>) -> Result<Option<SecretKey>> {
    match key {
        Ok(key) => Ok(Some(key)),
        // Behind a fence, an erased user has no key, even if a restore has brought one back.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Erased) => Ok(None),
        Err(e) => Err(e),
    }
}

//! [`compare`]: whether two stores have the same keys.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;

use super::digest::{Digest, Digester, random_digest_key};
use super::endpoint::Endpoint;
use super::identity::Learned;
use super::options::{CopyPhase, CopyProgress};
use super::report::{Bounded, KeyFailure};
use super::{CHUNK, is_the_stores_fault};
use crate::{Error, ErrorKind, KeyId, KeyStore, Operation, Result, SecretKey};

/// The result of [`compare`].
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// The number of ids that have the same key on both sides.
    pub equal: u64,
    /// The ids that have another key at the target.
    pub different: Bounded<KeyId>,
    /// The ids that have a key at the source only.
    pub missing: Bounded<KeyId>,
    /// The ids that have a key at the target only.
    pub extra: Bounded<KeyId>,
    /// The ids whose key one side could not give.
    pub unreadable: Bounded<KeyFailure>,
    /// The number of entries that either store listed as damaged, so that not even their ids are
    /// known.
    pub unlisted: u64,
}

impl Comparison {
    /// Reports whether both stores have the same keys for the same ids and every key could be read.
    pub fn is_equal(&self) -> bool {
        let others = self.different.total + self.missing.total + self.extra.total;
        others + self.unreadable.total + self.unlisted == 0
    }
}

/// Compares all keys of two stores in constant time each, and changes nothing. What is not equal is
/// read again on both sides once the visibility bound has passed. Takes about 25 bytes of memory
/// for each id. Calls `on_progress` after each chunk of up to 100 ids.
///
/// It needs a Tokio runtime with time (`enable_time`).
///
/// # Errors
/// [`Config`](ErrorKind::Config) if the two are one store, which would equal itself whatever it
/// contains; [`Unsupported`](ErrorKind::Unsupported) if one of the two cannot list; those of
/// listing; the first with which a store throttles, is out of reach or does not know the caller.
/// Everything else is in the [`Comparison`].
pub async fn compare(
    source: &dyn KeyStore,
    target: &dyn KeyStore,
    on_progress: impl FnMut(CopyProgress) + Send,
) -> Result<Comparison> {
    for store in [source, target] {
        if store.capabilities().listing.is_none() {
            let e = Error::new(ErrorKind::Unsupported, Operation::List, store.info().scheme());
            return Err(e.with_source("the store cannot list its keys: compare those whose ids you know one by one"));
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
    comparing.all_of(&source).await?;
    // Only what the source has not listed is left to look at.
    comparing.all_of(&target).await?;
    Ok(comparing.found)
}

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
    async fn all_of(&mut self, endpoint: &Endpoint<'_>) -> Result<()> {
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
                let unequal = self.look_at(std::mem::take(&mut chunk), self.bound.is_zero()).await?;
                if !unequal.is_empty() {
                    sleep(self.bound).await;
                    self.look_at(unequal, true).await?;
                }
                (self.on_progress)(CopyProgress { phase: CopyPhase::Comparing, done: self.done, total: None });
                tokio::task::yield_now().await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Reads both sides; gives back what is not equal, unless that is final.
    async fn look_at(&mut self, ids: Vec<KeyId>, is_final: bool) -> Result<Vec<KeyId>> {
        let here = self.source.read(&ids).await;
        let there = self.target.read(&ids).await;
        let mut unequal = Vec::new();
        for ((id, here), there) in ids.into_iter().zip(here).zip(there) {
            match (there_is(here), there_is(there)) {
                (Ok(Some(here)), Ok(Some(there))) if here == there => self.found.equal += 1,
                (Err(e), _) | (_, Err(e)) if is_the_stores_fault(e.kind()) => return Err(e),
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

fn there_is(key: Result<SecretKey>) -> Result<Option<SecretKey>> {
    match key {
        Ok(key) => Ok(Some(key)),
        // A fence says of an erased user that there is no key, whatever may have come back.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Erased) => Ok(None),
        Err(e) => Err(e),
    }
}

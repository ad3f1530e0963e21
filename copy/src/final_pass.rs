//! The pass that removes at the target the keys that the copy wrote there and that the source has
//! lost since.

use std::time::Duration;

use futures_util::StreamExt;
use keystead_core::{ErrorKind, KeyId, Result};
use tokio::time::sleep;

use crate::digest::Digest;
use crate::identity::Doubt;
use crate::options::CopyPhase;
use crate::report::KeyFailure;
use crate::run::{CHUNK, Run};

/// The number of losses that need no confirmation, if they are at most half of the copied keys.
const FEW: u64 = 10;

/// The inverse of the share of the copied keys that may be lost without a confirmation: 1 %.
const ONE_IN: u64 = 100;

impl Run<'_> {
    /// Removes at the target the keys that the source has lost: they are missing in its listing,
    /// and two reads, one visibility bound apart, did not find them.
    ///
    /// Nothing is removed if the identities of the stores are in doubt. Nothing is removed either
    /// if so many keys are missing that the source is probably the wrong store, unless the caller
    /// has confirmed this exact number.
    ///
    /// The ids are not kept in memory, so the target is listed to find them.
    pub(crate) async fn settle_losses(&mut self) -> Result<()> {
        let missing = self.ledger.missing();
        if missing == 0 {
            return Ok(());
        }
        if let Some(Doubt::OneStore(text) | Doubt::Journal(text)) = self.doubt().await? {
            self.report.unsettled += missing;
            self.report.withheld = Some(text);
            return Ok(());
        }
        if self.needs_confirmation(missing) && self.confirmed_removals != Some(missing) {
            self.report.unsettled += missing;
            self.report.removals_to_confirm = missing;
            return Ok(());
        }
        let Some(listing_bound) = self.target.listing_bound() else {
            self.report.unsettled += missing;
            return Ok(());
        };
        // The second listing finds keys that were written so recently that the first one did not
        // show them yet.
        for wait in [Duration::ZERO, listing_bound] {
            if self.ledger.missing() > 0 {
                sleep(wait).await;
                self.settle_listed_losses().await?;
            }
        }
        // Ids that are still missing now are not at the target either.
        self.ledger.forget_missing()
    }

    /// Reports whether so many keys are missing that the source is probably an older copy of
    /// itself, or empty by mistake. With few keys, more than half of them is as suspicious as 1 %
    /// of many.
    fn needs_confirmation(&self, missing: u64) -> bool {
        let written = self.ledger.written_by_us();
        missing > FEW.max(written / ONE_IN) || missing > written / 2
    }

    /// Lists the target once, and removes the keys that the source has lost.
    async fn settle_listed_losses(&mut self) -> Result<()> {
        let target = self.target.clone();
        let mut ids = target.list();
        let mut lost = Vec::new();
        let mut done = 0;
        loop {
            let next = ids.next().await;
            let is_last = next.is_none();
            match next {
                Some(Ok(id)) => {
                    done += 1;
                    if self.ledger.is_missing(&id) {
                        lost.push(id);
                    }
                }
                // The copy has written no entry whose id cannot be read.
                Some(Err(e)) if e.kind() == ErrorKind::Corrupt => {}
                Some(Err(e)) => return Err(e),
                None => {}
            }
            if is_last || lost.len() == CHUNK {
                self.remove_lost(std::mem::take(&mut lost)).await?;
                self.tell(CopyPhase::Removing, done, None).await;
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Removes these keys at the target if the source does not find them twice and the target still
    /// has the keys that the copy wrote.
    async fn remove_lost(&mut self, ids: Vec<KeyId>) -> Result<()> {
        let ids = self.not_found(ids).await;
        if ids.is_empty() {
            return Ok(());
        }
        sleep(self.source.bound()).await;
        let ids = self.not_found(ids).await;
        self.refuse_changed_stores()?;
        let ours = self.still_ours(ids).await;
        for (id, key_digest) in &ours {
            self.ledger.removing(self.ledger.digest(id), *key_digest);
        }
        self.ledger.sync()?;
        let ids: Vec<KeyId> = ours.into_iter().map(|(id, _)| id).collect();
        let deletions = self.target.delete_seen(&ids).await;
        for (id, deletion) in ids.into_iter().zip(deletions) {
            let digest = self.ledger.digest(&id);
            match deletion {
                Ok(()) => {
                    self.ledger.removed(digest);
                    self.report.removed_at_target.push(id);
                }
                Err(e) => {
                    self.ledger.not_missing(&digest);
                    self.report.failed.push(KeyFailure::new(id, e));
                }
            }
        }
        self.ledger.sync()
    }

    /// Returns the ids whose keys the source does not find. That its listing lacks them proves
    /// nothing.
    async fn not_found(&mut self, ids: Vec<KeyId>) -> Vec<KeyId> {
        let keys = self.source.read(&ids).await;
        let mut missing = Vec::new();
        for (id, key) in ids.into_iter().zip(keys) {
            match key {
                // A fence answers this for an erased user.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Erased) => missing.push(id),
                Ok(_) => self.ledger.not_missing(&self.ledger.digest(&id)),
                Err(_) => {
                    self.ledger.not_missing(&self.ledger.digest(&id));
                    self.report.unsettled += 1;
                }
            }
        }
        missing
    }

    /// Returns the ids whose key at the target is the one that the copy wrote.
    async fn still_ours(&mut self, ids: Vec<KeyId>) -> Vec<(KeyId, Digest)> {
        let keys = self.target.read(&ids).await;
        let mut ours = Vec::new();
        for (id, key) in ids.into_iter().zip(keys) {
            let digest = self.ledger.digest(&id);
            match key.map(|key| self.ledger.key_digest(&digest, &key)) {
                Ok(key_digest) if self.ledger.is_ours(&digest, &key_digest) => ours.push((id, key_digest)),
                Ok(_) => {
                    self.ledger.removed(digest);
                    self.report.left_at_target.push(id);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => self.ledger.removed(digest),
                Err(e) => {
                    self.ledger.not_missing(&digest);
                    self.report.failed.push(KeyFailure::new(id, e));
                }
            }
        }
        ours
    }
}

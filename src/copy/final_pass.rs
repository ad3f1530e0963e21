//! The last pass of a copy: it removes from the target the keys that the copy wrote there and the
//! source has lost since.

use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::sleep;

use super::digest::Digest;
use super::identity::Doubt;
use super::options::CopyPhase;
use super::report::KeyFailure;
use super::{CHUNK, Run};
use crate::{ErrorKind, KeyId, Result};

/// Up to so many losses are believed, if they are at most half of what was copied.
const FEW: u64 = 10;

/// The share of the copied keys that may be lost without a confirmation: one in so many.
const ONE_IN: u64 = 100;

impl Run<'_> {
    /// Removes at the target what the source has lost: missing in the listing, and not found twice,
    /// one visibility bound apart.
    ///
    /// Nothing is removed if the stores may be others than they seem, or if so many are missing
    /// that the source is more likely to be the wrong one, unless the caller has confirmed the very
    /// number.
    ///
    /// The ids themselves are not kept in memory, so the target is listed for them.
    pub(super) async fn settle_losses(&mut self) -> Result<()> {
        let missing = self.ledger.missing();
        if missing == 0 {
            return Ok(());
        }
        if let Some(Doubt::OneStore(text) | Doubt::Journal(text)) = self.doubt().await? {
            self.report.unsettled += missing;
            self.report.withheld = Some(text);
            return Ok(());
        }
        if self.is_hard_to_believe(missing) && self.confirmed_removals != Some(missing) {
            self.report.unsettled += missing;
            self.report.removals_to_confirm = missing;
            return Ok(());
        }
        let Some(listing_bound) = self.target.listing_bound() else {
            self.report.unsettled += missing;
            return Ok(());
        };
        // The second time for what we wrote so lately that the target's listing does not show it
        // yet.
        for wait in [Duration::ZERO, listing_bound] {
            if self.ledger.missing() > 0 {
                sleep(wait).await;
                self.settle_listed_losses().await?;
            }
        }
        // The target does not have the others either.
        self.ledger.forget_missing()
    }

    /// Reports whether so many are missing that the source is more likely to be an older copy of
    /// itself, or empty by mistake. Of a few keys, more than half is as suspicious as 1 % of many.
    fn is_hard_to_believe(&self, missing: u64) -> bool {
        let written = self.ledger.written_by_us();
        missing > FEW.max(written / ONE_IN) || missing > written / 2
    }

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
                // An entry without a readable id is none that we wrote.
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

    /// Those that the source does not find. A missing entry in its listing alone proves nothing.
    async fn not_found(&mut self, ids: Vec<KeyId>) -> Vec<KeyId> {
        let keys = self.source.read(&ids).await;
        let mut missing = Vec::new();
        for (id, key) in ids.into_iter().zip(keys) {
            match key {
                // A fence says of an erased user that the key is gone for good.
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

    /// Those that have the very key at the target that we wrote.
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

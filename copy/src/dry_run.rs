//! The dry run: finds out by reading alone what a copy would do.

use keystead_core::{ErrorKind, KeyId, Result};

use crate::failure::is_store_wide;
use crate::identity::Doubt;
use crate::options::{ConflictPolicy, CopyPhase};
use crate::report::KeyFailure;
use crate::run::{CHUNK, Listed, Run};

impl Run<'_> {
    /// Fills the report with what a copy would do.
    pub(crate) async fn plan(&mut self, is_to_delete: bool) -> Result<()> {
        let source = self.source.clone();
        let mut ids = source.list();
        self.begin_pass(CopyPhase::Copying);
        while let Some(chunk) = self.next_chunk(&source, &mut ids, CHUNK).await? {
            let len = chunk.len() as u64;
            self.plan_chunk(chunk).await?;
            self.done += len;
            self.tell_pass().await;
        }
        if is_to_delete && self.report.has_nothing_open() {
            match self.doubt().await? {
                Some(Doubt::OneStore(text) | Doubt::Journal(text)) => self.report.withheld = Some(text),
                None => self.report.deleted_at_source = self.report.at_target(),
            }
        }
        Ok(())
    }

    async fn plan_chunk(&mut self, listed: Vec<Listed>) -> Result<()> {
        let ids: Vec<KeyId> = listed.iter().map(|listed| listed.id.clone()).collect();
        let here = self.source.read(&ids).await;
        let there = self.target.read(&ids).await;
        for ((Listed { id, is_recheck }, here), there) in listed.into_iter().zip(here).zip(there) {
            match (here, there) {
                (Err(e), _) if is_store_wide(e.kind()) => return Err(e),
                (_, Err(e)) if is_store_wide(e.kind()) => return Err(e),
                (Err(e), _) if e.kind() == ErrorKind::NotFound => self.report.vanished += 1,
                (Err(e), _) => self.report.unreadable.push(KeyFailure::new(id, e)),
                (Ok(_), Err(e)) if e.kind() == ErrorKind::NotFound => self.report.copied += 1,
                (Ok(_), Err(e)) => self.report.failed.push(KeyFailure::new(id, e)),
                (Ok(here), Ok(there)) if here == there && is_recheck => self.report.done_before += 1,
                (Ok(here), Ok(there)) if here == there => self.report.already_there += 1,
                (Ok(_), Ok(_)) => match self.on_conflict {
                    ConflictPolicy::Report => self.report.conflicts.push(id),
                    ConflictPolicy::Skip => self.report.skipped += 1,
                    ConflictPolicy::Overwrite => self.report.overwritten += 1,
                },
            }
        }
        Ok(())
    }
}

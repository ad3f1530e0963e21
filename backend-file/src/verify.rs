//! [`FileStore::verify`]: reads every record and says which ones are damaged.

use std::future::poll_fn;
use std::task::Poll;

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::RowKey;

use crate::error::Failure;
use crate::store::{FileStore, Progress};
use crate::writer::Write;

/// What [`FileStore::verify`] has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// How many records are whole: each opens, and is that of the id inside.
    pub intact: u64,
    /// The rows of the damaged ones. [`FileStore::row_key`] tells whether one is that of an id you know.
    pub damaged: Vec<RowKey>,
    /// How many stretches of the database cannot be read; what they hold cannot be counted. Their keys read as
    /// [`Corrupt`](ErrorKind::Corrupt).
    pub unreadable: u64,
    /// Whether a rotation was begun and has not ended, here or in another process.
    pub in_rotation: bool,
}

impl VerifyReport {
    /// Nothing is damaged.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty() && self.unreadable == 0
    }
}

impl FileStore {
    /// Reads and opens every record, page by page, while the store is in use, and changes nothing. `progress` is called
    /// after each page of some hundred records. Runs on the calling task, some microseconds a record, and lets others run
    /// between two pages.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if the keyring is damaged; damaged records are in the report.
    /// [`KeyUnavailable`](ErrorKind::KeyUnavailable) if another process has given the store a new root secret;
    /// [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was removed or replaced;
    /// [`Timeout`](ErrorKind::Timeout) if a foreign program keeps the file locked; [`Other`](ErrorKind::Other) if the
    /// store is closed.
    pub async fn verify(&self, progress: impl FnMut(Progress) + Send) -> Result<VerifyReport> {
        self.read_all(progress).await.map_err(|failure| failure.during(Operation::Verify))
    }

    /// Deletes those of these rows whose records are damaged, as [`verify`](Self::verify) has told them, for ever; how many
    /// there were. For what cannot be restored from a backup and no id leads to any more: a record that an id leads to can
    /// be deleted or replaced by that.
    ///
    /// # Errors
    /// As [`delete_key`](keystead_core::KeyStore::delete_key) of this store, but for a missing record. Rows that come later
    /// are then not looked at.
    pub async fn delete_damaged(&self, rows: &[RowKey]) -> Result<u64> {
        let mut deleted = 0;
        for row in rows {
            let written = self.write(Write::DeleteDamaged(*row)).await;
            deleted += u64::from(written.map_err(|failure| failure.during(Operation::Delete))?.existed);
        }
        Ok(deleted)
    }

    async fn read_all(&self, mut progress: impl FnMut(Progress) + Send) -> Result<VerifyReport, Failure> {
        let shared = &self.shared;
        shared.check()?;
        // Where the count meets damage, the progress has no end to tell.
        let total = match shared.count() {
            Err(failure) if failure.kind() == ErrorKind::Corrupt => 0,
            count => count?,
        };
        let mut report = VerifyReport { intact: 0, damaged: Vec::new(), unreadable: 0, in_rotation: false };
        let (mut done, mut next) = (0, Some(Vec::new()));
        while let Some(after) = next {
            let page = shared.page(&after)?;
            for (row, found) in page.records {
                done += 1;
                match shared.id_of(&row, found) {
                    Ok(Some(_)) => report.intact += 1,
                    // Deleted meanwhile.
                    Ok(None) => {}
                    Err(failure) if failure.kind() == ErrorKind::Corrupt => report.damaged.push(row),
                    Err(failure) => return Err(failure),
                }
            }
            report.damaged.dedup();
            report.unreadable += u64::from(page.damage.is_some());
            progress(Progress::new(done, total));
            next = page.next;
            yield_now().await;
        }
        shared.check()?;
        report.in_rotation = shared.access().keyring.has_old_epochs();
        Ok(report)
    }
}

/// Lets other tasks of this thread run.
async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

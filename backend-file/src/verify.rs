//! [`FileStore::verify`]: reads every record and tells which ones are damaged or missing.

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::RowKey;

use crate::cells::Cursor;
use crate::error::FileError;
use crate::store::{FileStore, Progress, off_thread, yield_now};
use crate::transaction::Write;

/// The result of [`FileStore::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The number of whole records: each opens, and is that of the id inside.
    pub intact: u64,
    /// The rows of the damaged records. [`FileStore::row_key`] gives the row of an id that you know.
    /// Of records that are missing, or may be, only the first 8 bytes are known; the others are 0 or
    /// 255. One such row stands for all that are missing in its place.
    pub damaged: Vec<RowKey>,
    /// The number of stretches that cannot be read. The records in them cannot be counted; their
    /// keys read as [`Corrupt`](ErrorKind::Corrupt).
    pub unreadable: u64,
    /// The number of faults in the structure of the database's pages, up to 100, as SQLite's
    /// `quick_check` finds them.
    /// If there are any, this process creates no new key from then on, because it might be lost.
    pub structural_faults: u64,
    /// True if a rotation was begun and has not ended, here or in another process.
    pub in_rotation: bool,
}

impl VerifyReport {
    /// Reports whether nothing is damaged or missing.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty() && self.unreadable == 0 && self.structural_faults == 0
    }
}

impl FileStore {
    /// Reads and opens every record, page by page, while the store is in use, and changes nothing.
    /// Then checks the structure of the database's pages.
    ///
    /// `progress` is called after each page of some hundred records. Runs on the calling task, some
    /// microseconds a record, and lets others run between two pages; the check of the structure,
    /// half a second for a million records, runs on a thread of its own. Run it every day or week:
    /// damage that no get has met is found here first.
    ///
    /// # Errors
    /// [`Corrupt`](ErrorKind::Corrupt) if the keyring is damaged; damaged records are in the
    /// report. [`KeyUnavailable`](ErrorKind::KeyUnavailable) if another process has given the store
    /// a new root secret; [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was
    /// removed or replaced; [`Timeout`](ErrorKind::Timeout) if a foreign program keeps the file
    /// locked; [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn verify(&self, progress: impl FnMut(Progress) + Send) -> Result<VerifyReport> {
        self.read_all(progress).await.map_err(|failure| failure.during(Operation::Verify))
    }

    /// Deletes those of these rows whose records are damaged, as [`verify`](Self::verify) has told
    /// them, for ever, and returns how many there were. Records that are missing are given up:
    /// their keys read as [`NotFound`](ErrorKind::NotFound) from then on. Use it for what cannot be
    /// restored from a backup and no id leads to: a record that an id leads to can be deleted or
    /// replaced by that.
    ///
    /// # Errors
    /// As [`delete_key`](keystead_core::KeyStore::delete_key) of this store, but for a missing
    /// record. Rows that come later are then not looked at.
    pub async fn delete_damaged(&self, rows: &[RowKey]) -> Result<u64> {
        let mut deleted = 0;
        for row in rows {
            let written = self.write(Write::DeleteDamaged(*row)).await;
            deleted += u64::from(written.map_err(|failure| failure.during(Operation::Delete))?.existed);
        }
        Ok(deleted)
    }

    /// Checks the structure of the database's pages with SQLite's `quick_check`, and returns the number
    /// of faults that it finds, up to 100. It takes half a second for a million records, on a thread of
    /// its own, and reads no record: [`verify`](Self::verify) does both.
    ///
    /// If there are faults, this process creates no new key from then on, because it might be lost.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was removed or replaced;
    /// [`Timeout`](ErrorKind::Timeout) if a foreign program keeps the file locked;
    /// [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn check_structure(&self) -> Result<u64> {
        let checker = self.shared.clone();
        let faults = off_thread(move || checker.count_structural_faults()).await;
        faults.map_err(|failure| failure.during(Operation::Verify))
    }

    async fn read_all(&self, mut progress: impl FnMut(Progress) + Send) -> Result<VerifyReport, FileError> {
        let shared = &self.shared;
        shared.check().await?;
        let counter = shared.clone();
        // Where the count meets damage, the progress has no end to tell.
        let total = match off_thread(move || counter.count()).await {
            Err(failure) if failure.kind() == ErrorKind::Corrupt => 0,
            count => count?,
        };
        let mut report = VerifyReport::default();
        let mut done = 0;
        let mut next = Some(Cursor::Start);
        while let Some(cursor) = next {
            let page = shared.page(&cursor)?;
            for (row, found) in page.records {
                done += 1;
                match shared.id_of(&row, found).await {
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
        let checker = shared.clone();
        report.structural_faults = off_thread(move || checker.count_structural_faults()).await?;
        shared.check().await?;
        report.in_rotation = shared.access.held().keyring.has_old_epochs();
        Ok(report)
    }
}

//! [`FileStore::verify`]: reads every record and reports the damaged and missing ones.

use keystead_core::{ErrorKind, Operation, Result};
use keystead_sealing::RowKey;

use crate::cells::Cursor;
use crate::error::FileError;
use crate::store::{FileStore, Progress};
use crate::threads::{off_thread, yield_now};
use crate::transaction::Write;

/// The result of [`FileStore::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The number of intact records. Each of them opens and belongs to the id inside it.
    pub intact: u64,
    /// The row keys of the damaged records. [`FileStore::row_key`] returns the row key of an id
    /// that you know.
    ///
    /// A row key also stands for all records that are missing, or may be missing, at one place.
    /// Then only its first 8 bytes are known, and the others are all 0 or all 255.
    pub damaged: Vec<RowKey>,
    /// The number of stretches of the file that cannot be read. The records in them cannot be
    /// counted, and reading their keys fails with [`Corrupt`](ErrorKind::Corrupt).
    pub unreadable: u64,
    /// The number of faults that SQLite's `quick_check` finds in the structure of the database's
    /// pages, up to 100.
    ///
    /// If there are any, this process creates no more keys, because a new key might be lost.
    pub structural_faults: u64,
    /// True if a rotation has begun and not ended, in this or another process.
    pub in_rotation: bool,
}

impl VerifyReport {
    /// Reports whether nothing is damaged or missing.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty() && self.unreadable == 0 && self.structural_faults == 0
    }
}

impl FileStore {
    /// Reads and opens every record and then checks the structure of the database's pages. Changes
    /// nothing, and can run while the store is in use.
    ///
    /// Run it every day or every week, to find damage before a read does. It takes a few
    /// microseconds per record on the calling task, which lets other tasks run after each page of a
    /// few hundred records. The check of the structure takes about half a second for a million
    /// records, on a separate thread. `progress` is called after each page.
    ///
    /// # Errors
    /// Damaged records are in the report and are not errors.
    /// - [`Corrupt`](ErrorKind::Corrupt) if the keyring is damaged.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if another process has given the store a new
    ///   root secret.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was removed or
    ///   replaced.
    /// - [`Timeout`](ErrorKind::Timeout) if another program keeps the file locked.
    /// - [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn verify(&self, progress: impl FnMut(Progress) + Send) -> Result<VerifyReport> {
        self.read_all(progress).await.map_err(|failure| failure.during(Operation::Verify))
    }

    /// Permanently deletes the records of these rows, as reported by [`verify`](Self::verify), and
    /// returns how many it has deleted. A row whose record is intact is left alone.
    ///
    /// A row that stands for missing records is given up: reading those keys returns
    /// [`NotFound`](ErrorKind::NotFound) from then on. Use this method for damage that cannot be
    /// restored from a backup and whose ids you do not know. If you know the id, delete or
    /// overwrite its key instead.
    ///
    /// # Errors
    /// Those of [`delete_key`](keystead_core::KeyStore::delete_key) of this store, except
    /// [`NotFound`](ErrorKind::NotFound). The rows after the failed one are not processed.
    pub async fn delete_damaged(&self, rows: &[RowKey]) -> Result<u64> {
        let mut deleted = 0;
        for row in rows {
            let written = self.write(Write::DeleteDamaged(*row)).await;
            deleted += u64::from(written.map_err(|failure| failure.during(Operation::Delete))?.existed);
        }
        Ok(deleted)
    }

    /// Checks the structure of the database's pages with SQLite's `quick_check` and returns the
    /// number of faults, up to 100.
    ///
    /// Unlike [`verify`](Self::verify), it does not open the records. It takes about half a second
    /// for a million records, on a separate thread. If there are faults, this process creates no
    /// more keys, because a new key might be lost.
    ///
    /// # Errors
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was removed or
    ///   replaced.
    /// - [`Timeout`](ErrorKind::Timeout) if another program keeps the file locked.
    /// - [`Other`](ErrorKind::Other) if the store is closed.
    pub async fn check_structure(&self) -> Result<u64> {
        let checker = self.shared.clone();
        let faults = off_thread(move || checker.count_structural_faults()).await;
        faults.map_err(|failure| failure.during(Operation::Verify))
    }

    async fn read_all(&self, mut progress: impl FnMut(Progress) + Send) -> Result<VerifyReport, FileError> {
        let shared = &self.shared;
        shared.check().await?;
        let counter = shared.clone();
        // If the count fails because of damage, the progress has no total.
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
                    // The record was deleted meanwhile.
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

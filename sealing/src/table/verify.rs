//! [`SealedStore::verify`]: reads every record and reports the damaged ones.

use keystead_core::{Operation, Result};

use super::store::Pages;
use super::{RecordTable, SealedStore};
use crate::row_key::RowKey;

/// The result of [`SealedStore::verify`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The number of intact records: each opens, and is in the row of the id that it contains.
    pub intact: u64,
    /// The rows of the damaged records. [`SealedStore::row_key`] gives the row of an id that you
    /// know.
    pub damaged: Vec<RowKey>,
    /// True if a rotation was begun and has not ended, here or in another process.
    pub in_rotation: bool,
}

impl VerifyReport {
    /// Reports whether no record is damaged. A record that is missing leaves no trace in a table, so
    /// this does not say that none was lost.
    pub fn is_intact(&self) -> bool {
        self.damaged.is_empty()
    }
}

/// The progress of [`SealedStore::verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyProgress {
    /// The number of records that were looked at.
    pub done: u64,
}

impl<T: RecordTable> SealedStore<T> {
    /// Reads and opens every record, page by page, while the store is in use, and changes nothing.
    /// `progress` is called after each record.
    ///
    /// # Errors
    /// [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) if another process has given
    /// the store a new root secret; [`Corrupt`](keystead_core::ErrorKind::Corrupt) if the keyring
    /// is damaged; and any error that the table reports. A damaged record is not an error; it is in
    /// the report.
    pub async fn verify(&self, mut progress: impl FnMut(VerifyProgress) + Send) -> Result<VerifyReport> {
        let verified = async {
            let mut report = VerifyReport::default();
            let mut pages = Pages::new();
            while let Some((row, record)) = pages.next_row(&self.inner.table).await? {
                match self.open_row(&row, record).await? {
                    Some(Ok(_)) => report.intact += 1,
                    Some(Err(_)) => report.damaged.push(row),
                    // It was deleted since the page was read.
                    None => {}
                }
                progress(VerifyProgress { done: report.intact + report.damaged.len() as u64 });
            }
            report.in_rotation = self.inner.access.refresh(&self.inner.table).await?.keyring.has_old_epochs();
            Ok(report)
        };
        verified.await.map_err(|failure| self.error(failure, Operation::Verify))
    }
}

//! [`FileStore::rotate`]: gives a store a new root secret and a new epoch while it is in use.
//!
//! An epoch is the time between two rotations. Each has a record key of its own.
//!
//! The first transaction adds an epoch to the keyring and seals the keyring under the new root
//! secret. From then on, every writer seals in that epoch. The following transactions reseal the
//! records, one page each. When no record of an earlier epoch is left, the last transaction removes
//! the keys of earlier epochs. A rotation that is interrupted between two transactions can be
//! resumed there.

#[cfg(doc)]
use keystead_core::ErrorKind;
use keystead_core::{Operation, Result};
use keystead_sealing::RootSecret;

use crate::cells::Cursor;
use crate::error::FileError;
use crate::request::Request;
use crate::reseal::{Care, Counts, Ended, Epoch, NewEpoch, Prepared, Resealed, Step};
use crate::store::{FileStore, Progress};
use crate::threads::off_thread;

/// The number of times that all records are searched for those of an earlier epoch. After the first
/// pass there are none, unless a program that does not follow FORMAT.md writes them.
const MAX_PASSES: usize = 3;

impl FileStore {
    /// Gives the store a new root secret, of any kind, and reseals all records, while all processes
    /// continue to read and write.
    ///
    /// The old root secret then no longer opens the store. **A copy that was made earlier opens
    /// with the old root secret and with nothing else**: destroy that root secret, and the keys in
    /// such copies are gone.
    ///
    /// The new root secret is in force as soon as the rotation begins, so save it before you call
    /// this method. All handles in this process switch to it by themselves. Other processes get
    /// [`KeyUnavailable`](ErrorKind::KeyUnavailable) and must open the store again with it.
    /// `progress` is called after each page of a few hundred records.
    ///
    /// If a rotation is interrupted by an error, a crash or a dropped future, open the store with
    /// the new root secret and rotate to that same root secret again: this resumes the rotation.
    /// With a different root secret, a further rotation begins.
    ///
    /// After the call has returned, the store's files contain no byte of the old keyring or of
    /// records sealed under it, unless a reader holds the log; [`scrub`](Self::scrub) reports
    /// whether they are clean.
    ///
    /// # Errors
    /// Before the new root secret is in force, with nothing changed:
    /// - [`Config`](ErrorKind::Config) if the passphrase is empty.
    /// - [`KeyUnavailable`](ErrorKind::KeyUnavailable) if a provider fails, or if another process
    ///   has given the store a new root secret.
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if 15 rotations have begun and not ended.
    ///
    /// After that, with [`Effect::Unknown`](keystead_core::Effect::Unknown):
    /// - [`Corrupt`](ErrorKind::Corrupt) if records are damaged. All others are resealed, and the
    ///   old record keys are kept.
    /// - [`Conflict`](ErrorKind::Conflict) if another program keeps writing records of an earlier
    ///   epoch.
    ///
    /// At any time, as for every write:
    /// - [`QuotaExceeded`](ErrorKind::QuotaExceeded) if the disk is full.
    /// - [`Unavailable`](ErrorKind::Unavailable) if the disk fails or the file was replaced.
    /// - [`Timeout`](ErrorKind::Timeout) if another program keeps the file locked.
    /// - [`Conflict`](ErrorKind::Conflict) if another rotation has begun.
    pub async fn rotate(&self, new_root: RootSecret, progress: impl FnMut(Progress) + Send) -> Result<()> {
        let rotated = async {
            let epoch = self.begin_epoch(new_root).await?;
            self.end_epochs(epoch, progress).await
        };
        rotated.await.map_err(|failure: FileError| failure.during(Operation::Rotate))
    }

    /// Reports whether a rotation has begun and not ended, in this or another process.
    ///
    /// # Errors
    /// [`KeyUnavailable`](ErrorKind::KeyUnavailable) if another process has given the store a new
    /// root secret; otherwise the errors of a read.
    pub async fn is_in_rotation(&self) -> Result<bool> {
        let shared = self.shared.clone();
        let held = off_thread(move || shared.catch_up().map(|(_, held)| held.keyring.has_old_epochs())).await;
        held.map_err(|failure: FileError| failure.during(Operation::Rotate))
    }

    async fn begin_epoch(&self, new_root: RootSecret) -> Result<Epoch, FileError> {
        loop {
            let shared = self.shared.clone();
            let root = new_root.clone();
            // A passphrase or a provider can take a long time, and other writers must not wait for
            // it.
            let new = match off_thread(move || NewEpoch::prepare(&shared, root)).await? {
                Prepared::Begun(epoch) => return Ok(epoch),
                Prepared::New(new) => new,
            };
            let epoch = new.epoch();
            if self.ask(|reply| Request::Rotate(Step::Begin(new, reply))).await? {
                return Ok(epoch);
            }
        }
    }

    async fn end_epochs(&self, epoch: Epoch, mut progress: impl FnMut(Progress) + Send) -> Result<(), FileError> {
        let counter = self.shared.clone();
        // If the count fails, because of damage for example, the progress has no total.
        let total = off_thread(move || counter.count()).await.unwrap_or(0);
        let checker = self.shared.clone();
        let faults = off_thread(move || checker.count_structural_faults()).await;
        let care = if faults.map_err(FileError::in_rotation)? == 0 { Care::None } else { Care::ReadBack };
        for _ in 0..MAX_PASSES {
            let counts = self.reseal_all(epoch, care, |done| progress(Progress::new(done, total))).await?;
            let ended = self.ask(|reply| Request::Rotate(Step::End(epoch, reply))).await;
            match ended.map_err(FileError::in_rotation)? {
                Ended::Done => return self.ask(Request::Scrub).await.map(drop).map_err(FileError::in_rotation),
                Ended::Superseded => return Err(FileError::rotated_by_another()),
                Ended::OldRecordsRemain if counts.damaged + counts.unreadable > 0 => {
                    return Err(FileError::damage_keeps_old_epochs(counts.damaged, counts.unreadable).in_rotation());
                }
                Ended::OldRecordsRemain => {}
            }
        }
        Err(FileError::old_epochs_return().in_rotation())
    }

    /// Reseals all records that are not of this epoch, page by page. After each page, `progress` is
    /// called with the number of records that have been processed.
    async fn reseal_all(
        &self,
        epoch: Epoch,
        care: Care,
        mut progress: impl FnMut(u64) + Send,
    ) -> Result<Counts, FileError> {
        let mut total = Counts::default();
        let mut cursor = Cursor::Start;
        loop {
            let resealed = self.ask(|reply| Request::Rotate(Step::Reseal(epoch, cursor, care, reply))).await;
            match resealed.map_err(FileError::in_rotation)? {
                Resealed::Superseded => return Err(FileError::rotated_by_another()),
                Resealed::Page { counts, next } => {
                    total += counts;
                    progress(total.records);
                    match next {
                        Some(next) => cursor = next,
                        None => return Ok(total),
                    }
                }
            }
        }
    }
}

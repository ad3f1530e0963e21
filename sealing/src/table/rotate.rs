//! [`SealedStore::rotate`] and [`SealedStore::rewrap`]: new keys, and a new root secret.
//!
//! No lock is taken in the table. Three things keep a record from being sealed under a key that is
//! about to be destroyed: the lease (a handle that has not read the keyring for that long seals
//! nothing), the table's own condition on writes (`oldest_writable_epoch`), and the wait for writes
//! that were sent before that condition changed.

use std::sync::Arc;

use keystead_core::{Effect, Error, ErrorKind, Operation, Result};

use super::access::Held;
use super::error::Failure;
use super::store::{Inner, Pages};
use super::threads::off_thread;
use super::{RecordTable, SealedStore};
use crate::keyring::Keyring;
use crate::record::RecordError;
use crate::root::{RootKey, RootSecret};
use crate::row_key::RowKey;

/// The largest number of passes over the table. Since no record of an old epoch can be written any
/// longer, the second pass finds none.
const MAX_PASSES: u32 = 16;

/// The progress of [`SealedStore::rotate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RotateProgress {
    /// The number of the pass over the table, beginning with 1. The last pass changes nothing.
    pub pass: u32,
    /// The number of records that this pass has looked at.
    pub done: u64,
}

/// The counts of the records that one pass over the table changed or found damaged.
#[derive(Default)]
struct Pass {
    /// Sealed again, or changed by somebody else at that moment.
    moved: u64,
    damaged: u64,
}

impl<T: RecordTable> SealedStore<T> {
    /// Seals every record under a new key while the store is in use, and then destroys the old key.
    ///
    /// If `new_root` is a root secret, the new keyring is sealed under it in the last step: until
    /// then the store opens with its present root secret, afterwards with the new one only. With
    /// `None` the root secret stays the same. `progress` is called after each record. The call
    /// waits for one lease ([`SealedOptions::lease`](super::SealedOptions::lease)) and for the
    /// table's [late writes](RecordTable::late_write_bound).
    ///
    /// If a rotation is interrupted by an error, a crash or a dropped future, rotate again: this
    /// resumes the rotation. Of two rotations at once, one fails with `Conflict`.
    ///
    /// **Keep both root secrets** until the call has returned `Ok`, or until the store was opened with
    /// one of them: after an error, either may be in force.
    ///
    /// **If the old root secret has leaked**, rotate twice: to a new root secret, and then with `None`.
    /// During the first rotation the new key is sealed under the old root secret, and a copy of the
    /// table from that time reveals that key.
    ///
    /// **Backups** of the table from before the rotation still open with the root secret of their
    /// time. Erased keys in them are out of reach only when that root secret is destroyed.
    ///
    /// # Errors
    /// - [`Config`](ErrorKind::Config) for an empty passphrase, and
    ///   [`KeyUnavailable`](ErrorKind::KeyUnavailable) if a provider gives no root secret or another
    ///   process has given the store a new one: nothing was changed.
    /// - [`Conflict`](ErrorKind::Conflict) if another rotation is under way.
    /// - [`Corrupt`](ErrorKind::Corrupt) with [`Effect::Unknown`] if records are damaged. The others
    ///   are sealed again, and the new root secret is in force; the old key is kept, in case a
    ///   damaged record can be repaired. Restore the records or give them up with
    ///   [`delete_damaged`](Self::delete_damaged), and rotate again.
    /// - [`Timeout`](ErrorKind::Timeout) if earlier writes do not end, and any other error that the
    ///   table reports.
    pub async fn rotate(
        &self,
        new_root: impl Into<Option<RootSecret>> + Send,
        mut progress: impl FnMut(RotateProgress) + Send,
    ) -> Result<()> {
        let new_root = new_root.into();
        let mut has_begun = false;
        let rotated = self.run_rotation(new_root, &mut has_begun, &mut progress).await;
        rotated.map_err(|failure| {
            let error = self.error(failure, Operation::Rotate);
            if has_begun { error.with_effect(Effect::Unknown) } else { error }
        })
    }

    /// Seals the keyring under another root secret, and leaves all records as they are.
    ///
    /// This is quick, and right if the root secret only moves to another place. It does not help if
    /// the old root secret has leaked: whoever has that and an old copy of the keyring has the keys
    /// of all records. In that case, call [`rotate`](Self::rotate) twice.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) for an empty passphrase,
    /// [`KeyUnavailable`](ErrorKind::KeyUnavailable) if a provider gives no root secret or another
    /// process has given the store a new one, [`Conflict`](ErrorKind::Conflict) if another process
    /// changes the keyring at the same time, and what the table reports.
    pub async fn rewrap(&self, new_root: RootSecret) -> Result<()> {
        let rewrapped = async {
            let root_key = new_key(&new_root).await?;
            let held = self.inner.access.refresh(&self.inner.table).await?;
            let keyring = held.keyring.next_generation();
            let oldest = held.item.oldest_writable_epoch;
            self.publish(&held, keyring, (new_root, root_key), oldest).await.map(drop)
        };
        rewrapped.await.map_err(|failure| self.error(failure, Operation::Rotate))
    }

    /// Deletes the damaged records among `rows`, which [`verify`](Self::verify) has reported, and
    /// returns how many were deleted. Their keys read as `NotFound` from then on. Use it for a
    /// record that cannot be restored from a backup and whose id nobody knows; if the id is known,
    /// delete or replace its key. A record of an epoch that the keyring does not hold is left in
    /// place: the keyring may be older than the record, as after a partial restore.
    ///
    /// # Errors
    /// What the table reports. The rows after the one that failed were not looked at.
    pub async fn delete_damaged(&self, rows: &[RowKey]) -> Result<u64> {
        let deleted = async {
            let mut deleted = 0;
            for row in rows {
                let Some(record) = self.read_rows(&[*row]).await?.pop().flatten() else { continue };
                // A record of an unknown epoch may open with a later keyring, which a backup may have.
                let opened = self.open_row(row, record.clone()).await?;
                let is_damaged = matches!(opened, Some(Err(Failure::RecordDamaged)));
                if is_damaged && self.inner.table.delete_if(row, &record).await? {
                    deleted += 1;
                }
            }
            Ok(deleted)
        };
        deleted.await.map_err(|failure| self.error(failure, Operation::Delete))
    }

    async fn run_rotation(
        &self,
        new_root: Option<RootSecret>,
        has_begun: &mut bool,
        progress: &mut (impl FnMut(RotateProgress) + Send),
    ) -> Result<(), Failure> {
        let Inner { table, access, rotating } = &*self.inner;
        let _rotating = rotating.try_lock().ok_or(Failure::KeyringContended)?;
        // A root secret that cannot be used is refused before anything is changed.
        let new_root = match new_root {
            Some(root) => {
                let root_key = new_key(&root).await?;
                Some((root, root_key))
            }
            None => None,
        };
        let held = access.refresh(table).await?;
        let held = if held.keyring.has_old_epochs() { held } else { self.begin_epoch(&held).await? };
        *has_begun = true;
        // Nothing more is sealed in the old epoch: after one lease, no handle that keeps to the
        // lease does so, and then the table refuses such a record from anybody.
        access.timer().sleep(held.lease + held.lease / 16).await;
        let held = self.close_old_epochs(&held).await?;
        access.timer().sleep(table.late_write_bound()).await;
        table.wait_for_late_writes().await?;
        let damaged = self.seal_again(&held, progress).await?;
        let root = new_root.unwrap_or_else(|| (held.root.clone(), held.root_key.clone()));
        let (epoch, _) = held.keyring.current_epoch();
        if damaged == 0 {
            return self.publish(&held, held.keyring.without_old_epochs(), root, epoch).await.map(drop);
        }
        self.publish(&held, held.keyring.next_generation(), root, epoch).await?;
        let text = format!(
            "{damaged} records cannot be opened, so the old key was kept; the others are sealed under the new one, and \
             the new root secret is in force: verify names the rows; restore them (or a later keyring), or give them \
             up, and rotate again"
        );
        let error = Error::new(ErrorKind::Corrupt, Operation::Rotate, self.scheme());
        Err(error.with_effect(Effect::Unknown).with_source(text).into())
    }

    /// Adds an epoch to the keyring.
    async fn begin_epoch(&self, held: &Held) -> Result<Arc<Held>, Failure> {
        // A keyring has room for 16 epochs, and this one has a single one.
        let keyring = held.keyring.next_epoch_apart().ok_or(Failure::KeyringDamaged)?;
        let root = (held.root.clone(), held.root_key.clone());
        self.publish(held, keyring, root, held.item.oldest_writable_epoch).await
    }

    /// Makes the table refuse records of all epochs but the current one.
    async fn close_old_epochs(&self, held: &Held) -> Result<Arc<Held>, Failure> {
        let root = (held.root.clone(), held.root_key.clone());
        let (epoch, _) = held.keyring.current_epoch();
        self.publish(held, held.keyring.next_generation(), root, epoch).await
    }

    /// Replaces the keyring that is held with another one, in the table and in this handle.
    async fn publish(
        &self,
        held: &Held,
        keyring: Keyring,
        (root, root_key): (RootSecret, RootKey),
        oldest_writable_epoch: u32,
    ) -> Result<Arc<Held>, Failure> {
        let Inner { table, access, .. } = &*self.inner;
        let item = held.item_of(&keyring, &root_key, oldest_writable_epoch);
        // No other task of this process reads the new keyring before this handle has adopted it: if
        // it is sealed under a new root secret, the others could not open it.
        let _guard = access.pause_refreshing().await;
        let confirmed = access.timer().now();
        let is_published = match table.replace_keyring(&held.item, &item).await {
            Ok(is_published) => is_published,
            // The answer was lost. No other keyring has the same bytes.
            Err(e) if e.effect() == Effect::Unknown => match table.keyring().await {
                Ok(Some(found)) if found == item => true,
                _ => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        };
        if !is_published {
            return Err(Failure::KeyringContended);
        }
        Ok(access.take_up(Held { root, root_key, keyring, item, lease: held.lease, confirmed }))
    }

    /// Seals every record of an old epoch again, until a whole pass finds none. Returns the number of
    /// damaged records, which no key opens.
    async fn seal_again(
        &self,
        held: &Held,
        progress: &mut (impl FnMut(RotateProgress) + Send),
    ) -> Result<u64, Failure> {
        for pass in 1..=MAX_PASSES {
            let Pass { moved, damaged } = self.pass(held, pass, progress).await?;
            if moved == 0 {
                return Ok(damaged);
            }
        }
        Err(Failure::KeyringContended)
    }

    async fn pass(
        &self,
        held: &Held,
        number: u32,
        progress: &mut (impl FnMut(RotateProgress) + Send),
    ) -> Result<Pass, Failure> {
        let table = &self.inner.table;
        let mut pass = Pass::default();
        let mut pages = Pages::new();
        let mut done = 0;
        while let Some((row, record)) = pages.next_row(table).await? {
            match held.keyring.open(&row, &record) {
                Ok(_) if record.starts_with(&held.keyring.current_prefix()) => {}
                Ok((id, key)) => {
                    let sealed = held.keyring.seal(&id, &key);
                    table.replace_if(&row, &record, &sealed.bytes).await?;
                    // If it was not replaced, somebody changed it; the next pass looks at it again.
                    pass.moved += 1;
                }
                // Another rotation has ended this one and begun a further one.
                Err(RecordError::UnknownEpoch) if self.has_moved_on(held).await? => {
                    return Err(Failure::KeyringContended);
                }
                Err(_) => pass.damaged += 1,
            }
            done += 1;
            progress(RotateProgress { pass: number, done });
        }
        Ok(pass)
    }

    /// Reports whether the table holds another keyring than this one.
    async fn has_moved_on(&self, held: &Held) -> Result<bool, Failure> {
        let item = self.inner.table.keyring().await?;
        Ok(item.is_none_or(|item| item != held.item))
    }
}

/// The key of a root secret for a keyring that is about to be sealed.
async fn new_key(root: &RootSecret) -> Result<RootKey, Failure> {
    let root = root.clone();
    off_thread(move || root.new_key()).await
}

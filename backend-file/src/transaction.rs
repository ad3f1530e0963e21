//! [`Transaction`]: commits the writes of one batch together or, if one of them fails, each by
//! itself.

use keystead_core::{ErrorKind, KeyId, PutMode, SecretKey};
use keystead_sealing::{Keyring, RowKey, SealedRecord};

use crate::cells::{Found, Place};
use crate::database::{Database, Durability, Ending};
use crate::error::{FileError, Result};
use crate::reader::Shared;

/// A change to one record.
pub(crate) enum Write {
    Put(Box<Put>),
    Delete(RowKey),
    /// Deletes the record only if it does not open.
    DeleteDamaged(RowKey),
}

/// A key to store, with the record that its caller has sealed already.
pub(crate) struct Put {
    pub(crate) id: KeyId,
    pub(crate) key: SecretKey,
    pub(crate) mode: PutMode,
    pub(crate) record: SealedRecord,
    /// The generation of the keyring that sealed the record.
    pub(crate) generation: u64,
}

/// Returns the moment at which the transaction of these writes must be on the disk.
///
/// Other processes see a commit before it is durable. They may see early that a key is gone. They
/// must not see a new key early, because a caller would encrypt data under a key that a crash can
/// still take away. So only a transaction without puts may wait for the checkpoint.
pub(crate) fn durability_of(writes: &[Write]) -> Durability {
    let has_puts = writes.iter().any(|write| matches!(write, Write::Put(_)));
    if writes.is_empty() || has_puts { Durability::AtCommit } else { Durability::ByCheckpoint }
}

/// The outcome of a transaction.
pub(crate) enum Transacted<T> {
    Done(T),
    /// Nothing was written, because another process has changed the keyring to this sealed one, and
    /// opening it takes a long time.
    Behind(Vec<u8>),
}

/// A transaction of the writer. Its caller holds the lock that the writers of all processes share.
pub(crate) struct Transaction<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) database: &'a Database,
}

impl Transaction<'_> {
    /// Commits all writes at once. If one of them fails for a reason of its own, commits each by
    /// itself, so that the others succeed.
    ///
    /// Returns for each write whether there was a record before.
    pub(crate) fn run(&self, writes: &[Write], durability: Durability) -> Result<Transacted<Vec<Result<bool>>>> {
        match self.commit(writes, durability) {
            Ok(Transacted::Done(existed)) => Ok(Transacted::Done(existed.into_iter().map(Ok).collect())),
            Ok(Transacted::Behind(sealed)) => Ok(Transacted::Behind(sealed)),
            Err(failure) if failure.may_be_one_writes_own() => {
                let alone = |write| match self.commit(std::slice::from_ref(write), durability)? {
                    Transacted::Done(existed) => Ok(existed.contains(&true)),
                    // The lock has been held since the first attempt, so no process has rotated the
                    // store: the file was replaced.
                    Transacted::Behind(_) => Err(FileError::put_back()),
                };
                Ok(Transacted::Done(writes.iter().map(alone).collect()))
            }
            Err(failure) => Err(failure),
        }
    }

    fn commit(&self, writes: &[Write], durability: Durability) -> Result<Transacted<Vec<bool>>> {
        if writes.is_empty() {
            return Ok(Transacted::Done(Vec::new()));
        }
        self.database.durable_transaction(durability, || {
            let sealed = self.database.keyring()?;
            let Some(held) = self.shared.access.current(&sealed)? else {
                return Ok(Ending::RollBack(Transacted::Behind(sealed)));
            };
            let existed = writes.iter().map(|write| self.apply(&held.keyring, write)).collect::<Result<_>>()?;
            Ok(Ending::Commit(Transacted::Done(existed)))
        })
    }

    /// Applies one write inside the transaction and returns whether there was a record before.
    fn apply(&self, keyring: &Keyring, write: &Write) -> Result<bool> {
        match write {
            Write::Put(put) => self.put(keyring, put),
            Write::Delete(row) => self.database.delete_record(row),
            Write::DeleteDamaged(row) => {
                if self.is_damaged(keyring, row)? {
                    self.database.delete_damaged_record(row)
                } else {
                    Ok(false)
                }
            }
        }
    }

    fn put(&self, keyring: &Keyring, put: &Put) -> Result<bool> {
        let place = self.database.place(&put.record.row)?;
        let existed = matches!(place, Place::Occupied { .. });
        if existed && put.mode == PutMode::Create {
            return Ok(true);
        }
        let sealed_again;
        let record = if put.generation == keyring.generation() {
            &put.record
        } else {
            // The keyring was changed after the caller sealed the record: a record of a removed
            // epoch could not be opened.
            sealed_again = keyring.seal(&put.id, &put.key);
            &sealed_again
        };
        match place {
            Place::Vacant { previous, next } => {
                self.shared.may_create()?;
                self.database.insert_record(&record.row, &record.bytes, &previous, next)?;
            }
            Place::Occupied { next, parts } => {
                let next = next.ok_or_else(FileError::lost_cells)?;
                self.database.replace_record(&record.row, &record.bytes, parts, next)?;
            }
        }
        Ok(existed)
    }

    fn is_damaged(&self, keyring: &Keyring, row: &RowKey) -> Result<bool> {
        match self.database.record(row) {
            Ok(Found::Record(sealed)) => Ok(keyring.open(row, &sealed).is_err()),
            Ok(Found::Nothing) => Ok(false),
            Ok(Found::Damaged) => Ok(true),
            // The record is missing or may be missing: the chain does not prove that there is none.
            Err(failure) if failure.kind() == ErrorKind::Corrupt => Ok(true),
            Err(failure) => Err(failure),
        }
    }
}

//! [`Transaction`]: the writes of one batch, committed together or, where one of them cannot be,
//! each by itself.

use keystead_core::{ErrorKind, KeyId, PutMode, SecretKey};
use keystead_sealing::{Keyring, RowKey, SealedRecord};

use crate::cells::{Found, Place};
use crate::database::Database;
use crate::error::{FileError, Result};
use crate::reader::Shared;

pub(crate) enum Write {
    Put(Box<Put>),
    Delete(RowKey),
    /// Deletes the record only if it does not open.
    DeleteDamaged(RowKey),
}

/// A key that its caller has sealed already, under the keyring of this generation.
pub(crate) struct Put {
    pub(crate) id: KeyId,
    pub(crate) key: SecretKey,
    pub(crate) mode: PutMode,
    pub(crate) record: SealedRecord,
    pub(crate) generation: u64,
}

/// The moment at which a transaction becomes durable.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    AtOnce,
    /// The checkpoint that follows waits for the disk anyway.
    ByCheckpoint,
}

impl Durability {
    /// Other processes see a commit that is not durable yet. That a key is gone they may see early;
    /// a new key is never shown before it is on the disk, because somebody would encrypt data under
    /// it.
    pub(crate) fn of(writes: &[Write]) -> Self {
        let deletes_only = !writes.is_empty() && !writes.iter().any(|write| matches!(write, Write::Put(_)));
        if deletes_only { Self::ByCheckpoint } else { Self::AtOnce }
    }
}

/// The outcome of a transaction.
pub(crate) enum Transacted<T> {
    Done(T),
    /// The store has this keyring now, which takes its time to open. Nothing was written.
    Behind(Vec<u8>),
}

/// A transaction of the writer, under the lock of all processes.
pub(crate) struct Transaction<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) database: &'a Database,
}

impl Transaction<'_> {
    /// Commits all writes at once; if one of them cannot be, each by itself, so that it spoils no
    /// neighbor.
    pub(crate) fn run(&self, writes: &[Write], durability: Durability) -> Result<Transacted<Vec<Result<bool>>>> {
        match self.commit(writes, durability) {
            Ok(Transacted::Done(existed)) => Ok(Transacted::Done(existed.into_iter().map(Ok).collect())),
            Ok(Transacted::Behind(sealed)) => Ok(Transacted::Behind(sealed)),
            Err(failure) if failure.may_be_one_writes_own() => {
                let alone = |write| match self.commit(std::slice::from_ref(write), durability)? {
                    Transacted::Done(existed) => Ok(existed.contains(&true)),
                    // The lock is held since the first attempt, so nobody has rotated.
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
        let mut behind = None;
        let write = || {
            let sealed = self.database.keyring()?;
            match self.shared.access.current(&sealed)? {
                Some(held) => writes.iter().map(|write| self.apply(&held.keyring, write)).collect(),
                None => {
                    behind = Some(sealed);
                    // Undoes the transaction, which has written nothing.
                    Err(FileError::superseded())
                }
            }
        };
        let committed = match durability {
            Durability::AtOnce => self.database.transaction(write),
            Durability::ByCheckpoint => self.database.transaction_not_yet_durable(write),
        };
        match behind {
            Some(sealed) => Ok(Transacted::Behind(sealed)),
            None => committed.map(Transacted::Done),
        }
    }

    /// Applies one write inside the transaction and returns whether there was a record before.
    fn apply(&self, keyring: &Keyring, write: &Write) -> Result<bool> {
        let put = match write {
            Write::Delete(row) => return self.database.delete_record(row),
            Write::DeleteDamaged(row) => {
                let is_damaged = match self.database.record(row) {
                    Ok(Found::Record(sealed)) => keyring.open(row, &sealed).is_err(),
                    Ok(Found::Nothing) => false,
                    Ok(Found::Damaged) => true,
                    // Missing, and named by the chain.
                    Err(failure) if failure.kind() == ErrorKind::Corrupt => true,
                    Err(failure) => return Err(failure),
                };
                return if is_damaged { self.database.delete_damaged_record(row) } else { Ok(false) };
            }
            Write::Put(put) => put,
        };
        let place = self.database.place(&put.record.row)?;
        let existed = matches!(place, Place::Occupied { .. });
        if existed && put.mode == PutMode::Create {
            return Ok(true);
        }
        let sealed_again;
        let record = if put.generation == keyring.generation() {
            &put.record
        } else {
            // The keyring was changed after the caller sealed: a retired epoch's record could not
            // be opened.
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
}

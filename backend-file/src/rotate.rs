//! [`FileStore::rotate`]: a new root secret and a new epoch, while the store is in use.
//!
//! The keyring gets an epoch more and is sealed under the new root secret; from then on every writer seals in that epoch.
//! The records are sealed again page by page. When none is left of an earlier epoch, the keys of those are dropped. Each
//! step is a transaction, so a rotation that is cut off goes on where it was.

use std::sync::Arc;

use keystead_core::{Operation, Result};
use keystead_sealing::{Keyring, KeyringError, RootSecret, RowKey};

use crate::database::{Database, Found};
use crate::error::Failure;
use crate::reader::{Access, Shared};
use crate::store::{FileStore, Progress, off_thread};
use crate::writer::{Reply, Request};

/// How often all records are looked through for an earlier epoch: after the first pass there is none, unless a program
/// that does not keep to FORMAT.md writes them.
const MAX_PASSES: usize = 3;

impl FileStore {
    /// Gives the store a new root secret, of any kind, and seals all records anew, while all processes go on reading and
    /// writing. The earlier root secret then opens nothing of the store. **A copy from before opens with the earlier root
    /// secret and with nothing else**: destroy that root secret, and the keys in such copies are gone.
    ///
    /// The new root secret opens the store from the first moment, so keep it before you call this. Handles of this store
    /// change over by themselves; other processes get [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) and
    /// must open the store again with it. `progress` is called after each page of some hundred records, with how many
    /// records were looked at.
    ///
    /// If it is cut off, by an error, a crash or a dropped future, open the store with the new root secret and rotate to
    /// that again: it goes on where it was. With a root secret other than the present one a further rotation begins.
    ///
    /// When it has returned, no byte of the earlier keyring and of records sealed under it is in the store's files,
    /// unless a reader holds the log; [`scrub`](Self::scrub) tells.
    ///
    /// # Errors
    /// Before the new root secret is in force, with nothing changed: [`Config`](keystead_core::ErrorKind::Config) for an
    /// empty passphrase, [`KeyUnavailable`](keystead_core::ErrorKind::KeyUnavailable) if a provider gives no root secret or
    /// another process has given the store a new one, [`QuotaExceeded`](keystead_core::ErrorKind::QuotaExceeded) if 15
    /// rotations were begun and not ended. After that, with [`Effect::Unknown`](keystead_core::Effect::Unknown):
    /// [`Corrupt`](keystead_core::ErrorKind::Corrupt) if records are damaged (the others are sealed anew, the earlier
    /// keys are kept). Besides, as any write: [`QuotaExceeded`](keystead_core::ErrorKind::QuotaExceeded) if the disk is
    /// full, [`Unavailable`](keystead_core::ErrorKind::Unavailable) if it fails or the file was replaced,
    /// [`Timeout`](keystead_core::ErrorKind::Timeout) if a foreign program keeps the file locked.
    pub async fn rotate(&self, new_root: RootSecret, progress: impl FnMut(Progress) + Send) -> Result<()> {
        let rotated = async {
            self.begin_epoch(new_root).await?;
            self.end_epochs(progress).await.map_err(Failure::in_rotation)
        };
        rotated.await.map_err(|failure: Failure| failure.during(Operation::Rotate))
    }

    async fn begin_epoch(&self, new_root: RootSecret) -> Result<(), Failure> {
        loop {
            let (shared, root) = (self.shared.clone(), new_root.clone());
            // A passphrase or a provider takes its time, which no other writer is to wait for.
            let Some(epoch) = off_thread(move || NewEpoch::prepare(&shared, root)).await? else { return Ok(()) };
            if self.ask(|reply| Request::Rotate(Step::Begin(Box::new(epoch), reply))).await? {
                return Ok(());
            }
        }
    }

    async fn end_epochs(&self, mut progress: impl FnMut(Progress) + Send) -> Result<(), Failure> {
        let total = self.shared.count()?;
        for _ in 0..MAX_PASSES {
            let (mut done, mut damaged, mut next) = (0, 0, Some(Vec::new()));
            while let Some(after) = next {
                let page = self.ask(|reply| Request::Rotate(Step::Reseal(after, reply))).await?;
                (done, damaged, next) = (done + page.records, damaged + page.damaged, page.next);
                progress(Progress::new(done, total));
            }
            if self.ask(|reply| Request::Rotate(Step::End(reply))).await? {
                return self.ask(Request::Scrub).await.map(drop);
            }
            if damaged > 0 {
                return Err(Failure::damage_keeps_old_epochs(damaged));
            }
        }
        Err(Failure::old_epochs_return())
    }
}

/// A keyring with one epoch more, sealed under the new root secret and ready to be written.
pub(crate) struct NewEpoch {
    follows: u64,
    sealed: Vec<u8>,
    access: Access,
}

impl NewEpoch {
    /// `None` if a rotation to this root secret was begun and has only to be ended.
    fn prepare(shared: &Shared, root: RootSecret) -> Result<Option<Self>, Failure> {
        let (held, sealed) = shared.with_reader(|database| {
            let read = || database.keyring().map(|sealed| (sealed.clone(), sealed));
            shared.follow(read)
        })?;
        if held.keyring.has_old_epochs() {
            match Keyring::open_with(&root, &sealed) {
                Ok(_) => return Ok(None),
                Err(KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. }) => {}
                Err(e) => return Err(e.into()),
            }
        }
        let keyring = held.keyring.next_epoch().ok_or_else(Failure::no_epoch_left)?;
        let root_key = root.new_key()?;
        let sealed = keyring.seal_under(&root_key);
        Ok(Some(Self { follows: held.keyring.generation(), sealed, access: Access { root, root_key, keyring } }))
    }
}

/// What a page of records came to.
pub(crate) struct Resealed {
    records: u64,
    damaged: u64,
    next: Option<Vec<u8>>,
}

/// A part of a rotation that is one transaction of the writer's.
pub(crate) enum Step {
    /// Puts the new keyring in place; false if another process has changed it since it was prepared.
    Begin(Box<NewEpoch>, Reply<bool>),
    /// Seals the records after this part again, as far as a page goes.
    Reseal(Vec<u8>, Reply<Resealed>),
    /// Drops the keys of earlier epochs; false if a record still needs one.
    End(Reply<bool>),
}

impl Step {
    pub(crate) fn run(self, shared: &Shared, database: &Database) {
        // Whoever has stopped waiting wants no further step, and needs no answer.
        match self {
            Self::Begin(epoch, reply) if !reply.is_canceled() => drop(reply.send(begin(shared, database, *epoch))),
            Self::Reseal(after, reply) if !reply.is_canceled() => drop(reply.send(reseal(shared, database, &after))),
            Self::End(reply) if !reply.is_canceled() => drop(reply.send(end(shared, database))),
            _ => {}
        }
    }

    pub(crate) fn refuse(self, failure: Failure) {
        match self {
            Self::Begin(_, reply) | Self::End(reply) => drop(reply.send(Err(failure))),
            Self::Reseal(_, reply) => drop(reply.send(Err(failure))),
        }
    }
}

fn begin(shared: &Shared, database: &Database, epoch: NewEpoch) -> Result<bool, Failure> {
    let begun = in_transaction(shared, database, |held| {
        let follows = held.keyring.generation() == epoch.follows;
        if follows {
            database.write_keyring(&epoch.sealed)?;
        }
        Ok(follows)
    })?;
    if begun {
        shared.take_up(epoch.access);
    }
    Ok(begun)
}

fn reseal(shared: &Shared, database: &Database, after: &[u8]) -> Result<Resealed, Failure> {
    in_transaction(shared, database, |held| {
        let page = database.page(after)?;
        if let Some(failure) = page.damage {
            return Err(failure);
        }
        let mut resealed = Resealed { records: 0, damaged: 0, next: page.next };
        for (row, found) in page.records {
            resealed.records += 1;
            resealed.damaged += u64::from(!reseal_record(database, &held.keyring, &row, found)?);
        }
        Ok(resealed)
    })
}

/// False if the record is damaged, which is left as it is.
fn reseal_record(database: &Database, keyring: &Keyring, row: &RowKey, found: Found) -> Result<bool, Failure> {
    let Found::Record(sealed) = found else { return Ok(false) };
    if sealed.starts_with(&keyring.current_prefix()) {
        return Ok(true);
    }
    let Ok((id, key)) = keyring.open(row, &sealed) else { return Ok(false) };
    database.replace_record(row, &keyring.seal(&id, &key).bytes)?;
    Ok(true)
}

fn end(shared: &Shared, database: &Database) -> Result<bool, Failure> {
    let ended = in_transaction(shared, database, |held| {
        if !held.keyring.has_old_epochs() {
            return Ok(Some(None));
        }
        if database.has_record_without(&held.keyring.current_prefix())? {
            return Ok(None);
        }
        let keyring = held.keyring.without_old_epochs();
        database.write_keyring(&keyring.seal_under(&held.root_key))?;
        Ok(Some(Some(Access { root: held.root.clone(), root_key: held.root_key.clone(), keyring })))
    })?;
    if let Some(Some(access)) = ended {
        shared.take_up(access);
        return Ok(true);
    }
    Ok(ended.is_some())
}

fn in_transaction<T>(
    shared: &Shared,
    database: &Database,
    work: impl FnOnce(&Arc<Access>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    shared.is_in_place()?;
    database.transaction(|| work(&shared.refresh(&database.keyring()?)?))
}

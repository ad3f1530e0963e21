//! [`Access`]: the keyring that a handle holds, and its lease: the time for which the handle may
//! seal before it must read the keyring again.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use futures_util::lock::{Mutex, MutexGuard};

use super::error::Failure;
use super::item::{KeyringItem, StoreId};
use super::threads::off_thread;
use super::{RecordTable, Timer};
use crate::error::KeyringError;
use crate::keyring::Keyring;
use crate::root::{RootKey, RootSecret};

/// A keyring of the table, opened.
pub(super) struct Held {
    pub(super) root: RootSecret,
    pub(super) root_key: RootKey,
    pub(super) keyring: Keyring,
    pub(super) item: KeyringItem,
    pub(super) lease: Duration,
    /// The moment before the read that last found this keyring in the table.
    pub(super) confirmed: Duration,
}

impl Held {
    /// Opens a keyring that was read from the table after the moment `confirmed`.
    pub(super) async fn open(
        root: RootSecret,
        known: Option<RootKey>,
        item: KeyringItem,
        confirmed: Duration,
    ) -> Result<Self, Failure> {
        let (sealed, lease) = item.parts().ok_or(Failure::KeyringDamaged)?;
        let (keyring, root_key) = match known {
            Some(known) if Keyring::is_sealed_under(sealed, &known) => {
                Keyring::open_keeping_key(&root, Some(&known), sealed)?
            }
            _ => {
                let sealed = sealed.to_vec();
                let root = root.clone();
                off_thread(move || Keyring::open_keeping_key(&root, None, &sealed)).await?
            }
        };
        // The table decides by the unencrypted epoch, so that must be the one in the keyring.
        if item.current_epoch != keyring.current_epoch().0 {
            return Err(Failure::KeyringDamaged);
        }
        Ok(Self { root, root_key, keyring, item, lease, confirmed })
    }

    /// Returns the item of a later keyring, sealed under this root key.
    pub(super) fn item_of(&self, keyring: &Keyring, root_key: &RootKey, oldest_writable_epoch: u32) -> KeyringItem {
        let (epoch, _) = keyring.current_epoch();
        KeyringItem::of(&keyring.seal_under(root_key), self.lease, oldest_writable_epoch, epoch)
    }

    pub(super) fn store_id(&self) -> StoreId {
        StoreId::of(&self.keyring).expect("the id of a store has 16 bytes")
    }
}

pub(super) struct Access {
    held: RwLock<Arc<Held>>,
    /// Held by the one task that reads the keyring. If that task is dropped, the next one does it.
    refreshing: Mutex<()>,
    timer: Arc<dyn Timer>,
}

impl Access {
    pub(super) fn new(held: Held, timer: Arc<dyn Timer>) -> Self {
        Self { held: RwLock::new(Arc::new(held)), refreshing: Mutex::new(()), timer }
    }

    pub(super) fn timer(&self) -> &dyn Timer {
        &*self.timer
    }

    pub(super) fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a keyring under which records may be sealed, because it was found in the table
    /// within the lease.
    ///
    /// In the second half of the lease, one of the callers reads the keyring again, and the others
    /// do not wait.
    pub(super) async fn for_writing(&self, table: &dyn RecordTable) -> Result<Arc<Held>, Failure> {
        let held = self.held();
        let age = self.age(&held);
        if age < held.lease / 2 {
            return Ok(held);
        }
        if age < held.lease {
            if let Some(guard) = self.refreshing.try_lock() {
                // If it fails, the lease still holds; the next caller tries again.
                if let Ok(refreshed) = self.refresh_alone(table, &guard).await {
                    return Ok(refreshed);
                }
            }
            // The attempt took some time, so the age is checked again.
            let held = self.held();
            if self.age(&held) < held.lease {
                return Ok(held);
            }
        }
        let guard = self.refreshing.lock().await;
        // Another task may have read the keyring meanwhile.
        let held = self.held();
        if self.age(&held) < held.lease / 2 { Ok(held) } else { self.refresh_alone(table, &guard).await }
    }

    /// Reads the keyring from the table, unless another task has found a later one than `seen`
    /// meanwhile.
    pub(super) async fn refresh_after(&self, table: &dyn RecordTable, seen: &Held) -> Result<Arc<Held>, Failure> {
        let guard = self.refreshing.lock().await;
        let held = self.held();
        if held.item.generation > seen.item.generation {
            return Ok(held);
        }
        self.refresh_alone(table, &guard).await
    }

    /// Reads the keyring from the table.
    pub(super) async fn refresh(&self, table: &dyn RecordTable) -> Result<Arc<Held>, Failure> {
        let guard = self.refreshing.lock().await;
        self.refresh_alone(table, &guard).await
    }

    /// Keeps all tasks of this process from reading the keyring, until the guard is dropped.
    pub(super) async fn pause_refreshing(&self) -> MutexGuard<'_, ()> {
        self.refreshing.lock().await
    }

    /// Adopts a keyring that this handle has just put into the table or read from it, unless the
    /// handle already holds a later one. Returns the keyring that it then holds.
    pub(super) fn take_up(&self, new: Held) -> Arc<Held> {
        let new = Arc::new(new);
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        // A refresh may have found a still later one.
        if new.item.generation >= held.item.generation {
            *held = new;
        }
        held.clone()
    }

    fn age(&self, held: &Held) -> Duration {
        self.timer.now().saturating_sub(held.confirmed)
    }

    async fn refresh_alone(&self, table: &dyn RecordTable, _guard: &MutexGuard<'_, ()>) -> Result<Arc<Held>, Failure> {
        let before = self.timer.now();
        let item = table.keyring().await?.ok_or(Failure::KeyringLost)?;
        let held = self.held();
        if item.generation < held.item.generation {
            return Err(Failure::KeyringWentBack);
        }
        let opened = Held::open(held.root.clone(), Some(held.root_key.clone()), item, before).await;
        let new = opened.map_err(|failure| match failure {
            Failure::Keyring(KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. }) => Failure::RootReplaced,
            failure => failure,
        })?;
        if new.store_id() != held.store_id() {
            return Err(Failure::OtherStore);
        }
        Ok(self.take_up(new))
    }
}

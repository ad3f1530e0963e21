//! [`AccessState`]: the keyring that this process holds. It follows the changes that other
//! processes make to the store's keyring.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, WeakShared};
use keystead_sealing::{Keyring, KeyringError, RootKey, RootSecret};

use crate::error::{FileError, Result};
use crate::threads::off_thread;

/// The time after a failure of a provider during which it is not asked again.
const FAILURE_LIMIT: Duration = Duration::from_secs(1);

/// The keys that open the store's records, as this process knows them.
pub(crate) struct Held {
    pub(crate) root: RootSecret,
    pub(crate) root_key: RootKey,
    pub(crate) keyring: Keyring,
}

impl Held {
    /// Opens a sealed keyring. Blocks while a passphrase is stretched or a provider is asked.
    pub(crate) fn open(root: RootSecret, sealed: &[u8]) -> Result<Self, KeyringError> {
        let (keyring, root_key) = Keyring::open_keeping_key(&root, None, sealed)?;
        Ok(Self { root, root_key, keyring })
    }

    /// Returns the store's id in lower-case hexadecimal.
    pub(crate) fn store_id(&self) -> String {
        self.keyring.store_id().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The keys of a store, shared by all its handles in this process.
pub(crate) struct AccessState {
    held: RwLock<Arc<Held>>,
    /// The keyring that this process is about to write: its sealed bytes, and its keys.
    announced: Mutex<Option<(Vec<u8>, Arc<Held>)>>,
    /// The last failure to open a changed keyring. The thread that opens one holds this mutex.
    opening: Mutex<Option<RecentFailure>>,
    catching_up: Mutex<Option<CatchingUp>>,
}

/// A failure to open the keyring of a generation.
struct RecentFailure {
    generation: Option<u64>,
    failure: FileError,
    /// The time until which opening is not tried again; `None` for always, because the root secret
    /// of this process is no longer the store's.
    until: Option<Instant>,
}

/// The opening of a changed keyring that callers wait for.
struct CatchingUp {
    generation: Option<u64>,
    /// Weak, so that the outcome is forgotten with the last caller that waits for it.
    future: WeakShared<BoxFuture<'static, Result<()>>>,
}

impl AccessState {
    pub(crate) fn new(held: Held) -> Self {
        Self {
            held: RwLock::new(Arc::new(held)),
            announced: Mutex::default(),
            opening: Mutex::default(),
            catching_up: Mutex::default(),
        }
    }

    pub(crate) fn held(&self) -> Arc<Held> {
        self.held.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Announces a keyring to the readers of this process before it is written. A reader that finds
    /// it in the store can then use it at once.
    pub(crate) fn announce(&self, sealed: Vec<u8>, held: Held) {
        *lock(&self.announced) = Some((sealed, Arc::new(held)));
    }

    /// Ends an announcement, if there is one. If the keyring was written, this process uses it from
    /// now on.
    pub(crate) fn end_announcement(&self, was_written: bool) {
        let announced = lock(&self.announced).take();
        if let Some((_, held)) = announced.filter(|_| was_written) {
            self.replace_held(held);
        }
    }

    /// Replaces the held keyring by one that is in the store, unless the held one is newer. Returns
    /// the one that is held then.
    fn replace_held(&self, new: Arc<Held>) -> Arc<Held> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if new.keyring.generation() > held.keyring.generation() {
            *held = new;
        }
        held.clone()
    }

    /// Returns the keys of the store's keyring if this process holds them or can open the keyring
    /// at once.
    ///
    /// Returns `None` if opening the keyring could take long, or if it is older than the held one.
    /// The caller then runs [`catch_up`](Self::catch_up) and reads the store again.
    pub(crate) fn current(&self, sealed: &[u8]) -> Result<Option<Arc<Held>>> {
        let held = self.held();
        let generation = Keyring::generation_of(sealed);
        if generation == Some(held.keyring.generation()) {
            return Ok(Some(held));
        }
        if generation.is_some_and(|generation| generation < held.keyring.generation()) {
            // Since the keyring was read, this process has rotated the store; or an older copy of
            // the store was put back.
            return Ok(None);
        }
        let announced =
            lock(&self.announced).as_ref().filter(|(bytes, _)| bytes == sealed).map(|(_, held)| held.clone());
        if let Some(announced) = announced {
            return Ok(Some(self.replace_held(announced)));
        }
        if Keyring::is_sealed_under(sealed, &held.root_key) { self.catch_up(sealed).map(Some) } else { Ok(None) }
    }

    /// Opens the store's sealed keyring if it is newer than the held one.
    ///
    /// Blocks while a passphrase is stretched or a provider is asked. So it must not run on an
    /// executor's thread, or while this process holds a lock that other processes wait for.
    pub(crate) fn catch_up(&self, sealed: &[u8]) -> Result<Arc<Held>> {
        // Only one thread opens a keyring at a time, because stretching a passphrase also takes
        // much memory.
        let mut recent = lock(&self.opening);
        let held = self.held();
        let generation = Keyring::generation_of(sealed);
        if generation.is_some_and(|generation| generation <= held.keyring.generation()) {
            return Ok(held);
        }
        if let Some(recent) = recent.as_ref()
            && recent.generation == generation
            && recent.until.is_none_or(|until| Instant::now() < until)
        {
            return Err(recent.failure.clone());
        }
        let open = || Keyring::open_keeping_key(&held.root, Some(&held.root_key), sealed);
        // A provider is the caller's code. If it panics, it must not end the writer thread.
        let Ok(opened) = panic::catch_unwind(AssertUnwindSafe(open)) else {
            return Err(FileError::provider_panicked());
        };
        match opened {
            Ok((keyring, root_key)) => {
                let new = Held { root: held.root.clone(), root_key, keyring };
                Ok(self.replace_held(Arc::new(new)))
            }
            Err(KeyringError::WrongRoot | KeyringError::OtherKindOfRoot { .. }) => {
                *recent = Some(RecentFailure { generation, failure: FileError::superseded(), until: None });
                Err(FileError::superseded())
            }
            Err(e) => {
                let failure = FileError::from(e);
                let until = Some(Instant::now() + FAILURE_LIMIT);
                *recent = Some(RecentFailure { generation, failure: failure.clone(), until });
                Err(failure)
            }
        }
    }

    /// Like [`catch_up`](Self::catch_up), on a separate thread. All callers that wait for the same
    /// keyring share one thread.
    pub(crate) async fn catch_up_off_thread(self: &Arc<Self>, sealed: Vec<u8>) -> Result<()> {
        let generation = Keyring::generation_of(&sealed);
        let future = {
            let mut catching_up = lock(&self.catching_up);
            let running = catching_up.as_ref().filter(|running| running.generation == generation);
            match running.and_then(|running| running.future.upgrade()) {
                Some(future) => future,
                None => {
                    let access = self.clone();
                    let future = off_thread(move || access.catch_up(&sealed).map(drop)).boxed().shared();
                    *catching_up = future.downgrade().map(|future| CatchingUp { generation, future });
                    future
                }
            }
        };
        future.await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

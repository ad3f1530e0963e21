//! [`AccessState`]: the keyring that this process holds, and following the changes that other
//! processes make to it.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt, WeakShared};
use keystead_sealing::{Keyring, KeyringError, RootKey, RootSecret};

use crate::error::{FileError, Result};
use crate::reader::Shared;
use crate::store::off_thread;

/// The time for which a provider is not asked again after it has failed.
const FAILURE_LIMIT: Duration = Duration::from_secs(1);

/// The keys that open the store's records, as this process knows them.
pub(crate) struct Held {
    pub(crate) root: RootSecret,
    pub(crate) root_key: RootKey,
    pub(crate) keyring: Keyring,
}

impl Held {
    /// Opens a sealed keyring. With a passphrase or a provider it takes its time.
    pub(crate) fn open(root: RootSecret, sealed: &[u8]) -> Result<Self, KeyringError> {
        let (keyring, root_key) = Keyring::open_keeping_key(&root, None, sealed)?;
        Ok(Self { root, root_key, keyring })
    }

    pub(crate) fn store_id(&self) -> String {
        self.keyring.store_id().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

pub(crate) struct AccessState {
    held: RwLock<Arc<Held>>,
    /// The keyring that this process is about to write, sealed and open.
    announced: Mutex<Option<(Vec<u8>, Arc<Held>)>>,
    /// Held by the one thread that opens a changed keyring.
    opening: Mutex<Option<RecentFailure>>,
    catching_up: Mutex<Option<CatchingUp>>,
}

/// The failure to open the keyring of this generation.
struct RecentFailure {
    generation: Option<u64>,
    failure: FileError,
    /// `None` if it will never open: our root secret is not the store's.
    until: Option<Instant>,
}

struct CatchingUp {
    generation: Option<u64>,
    // Ends with the last who waits, so that nobody gets an outcome of long ago.
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

    /// Tells the readers of this process about a keyring before it is written, so that none of them
    /// takes it for a stranger's.
    pub(crate) fn announce(&self, sealed: Vec<u8>, held: Held) {
        *lock(&self.announced) = Some((sealed, Arc::new(held)));
    }

    /// Ends an announcement, and takes the keyring up if it was written.
    pub(crate) fn end_announcement(&self, was_written: bool) {
        let announced = lock(&self.announced).take();
        if let Some((_, held)) = announced.filter(|_| was_written) {
            self.take_up(held);
        }
    }

    /// Takes up a keyring that is in the store now, unless a newer one was taken up meanwhile.
    fn take_up(&self, new: Arc<Held>) -> Arc<Held> {
        let mut held = self.held.write().unwrap_or_else(PoisonError::into_inner);
        if new.keyring.generation() > held.keyring.generation() {
            *held = new;
        }
        held.clone()
    }

    /// The opened keyring of the store, if that is the one we hold or can be opened at once. `None`
    /// if a passphrase or a provider would take its time, or if the keyring is older than ours: the
    /// caller runs [`catch_up`](Self::catch_up) and reads again.
    pub(crate) fn current(&self, sealed: &[u8]) -> Result<Option<Arc<Held>>> {
        let held = self.held();
        let generation = Keyring::generation_of(sealed);
        if generation == Some(held.keyring.generation()) {
            return Ok(Some(held));
        }
        if generation.is_some_and(|generation| generation < held.keyring.generation()) {
            // This process has rotated since that was read, or an older copy was put back.
            return Ok(None);
        }
        let announced =
            lock(&self.announced).as_ref().filter(|(bytes, _)| bytes == sealed).map(|(_, held)| held.clone());
        if let Some(announced) = announced {
            return Ok(Some(self.take_up(announced)));
        }
        if Keyring::is_sealed_under(sealed, &held.root_key) { self.catch_up(sealed).map(Some) } else { Ok(None) }
    }

    /// Opens the store's sealed keyring if it is not the one we hold. May block for as long as a
    /// passphrase or a provider takes, so it must run neither on an executor nor under a lock of
    /// other processes.
    pub(crate) fn catch_up(&self, sealed: &[u8]) -> Result<Arc<Held>> {
        // One at a time: a passphrase takes memory, too.
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
        // A provider is the caller's code, and the writer thread may be the one that runs it.
        let Ok(opened) = panic::catch_unwind(AssertUnwindSafe(open)) else {
            return Err(FileError::provider_panicked());
        };
        match opened {
            Ok((keyring, root_key)) => {
                let new = Held { root: held.root.clone(), root_key, keyring };
                Ok(self.take_up(Arc::new(new)))
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

    /// The same off the executor. All who wait for one keyring share one thread.
    pub(crate) async fn catch_up_off_thread(shared: &Arc<Shared>, sealed: Vec<u8>) -> Result<()> {
        let generation = Keyring::generation_of(&sealed);
        let future = {
            let mut catching_up = lock(&shared.access.catching_up);
            let running = catching_up.as_ref().filter(|running| running.generation == generation);
            match running.and_then(|running| running.future.upgrade()) {
                Some(future) => future,
                None => {
                    let opener = shared.clone();
                    let future = off_thread(move || opener.access.catch_up(&sealed).map(drop)).boxed().shared();
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

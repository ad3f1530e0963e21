//! Threads for work that must not run on an executor, such as Argon2.

use std::io;
use std::thread::Builder;

use futures_channel::oneshot;

use super::error::Failure;
use crate::error::KeyringError;

/// Starts a thread that nobody waits for.
pub(super) fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    Builder::new().name("keystead-sealing".to_owned()).spawn(work).map(drop)
}

/// Runs work that takes a long time with a passphrase or a provider, on a thread of its own.
pub(super) async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, KeyringError> + Send + 'static,
) -> Result<T, Failure> {
    let (reply, answer) = oneshot::channel();
    spawn(move || drop(reply.send(work()))).map_err(Failure::NoThread)?;
    // The thread ends without an answer only if a provider panics.
    Ok(answer.await.map_err(|_| Failure::ProviderPanicked)??)
}

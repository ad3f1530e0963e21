//! The threads of a store, and how asynchronous calls leave the executor's threads to others.

use std::future::poll_fn;
use std::task::Poll;
use std::thread::Builder;

use keystead_core::ErrorKind;

use crate::error::{FileError, Result};
use crate::reply::Reply;

/// Starts a thread that nobody joins.
pub(crate) fn spawn(work: impl FnOnce() + Send + 'static) -> Result<()> {
    let started = Builder::new().name("keystead-file".to_owned()).spawn(work);
    let failure = |e| FileError::new(ErrorKind::Unavailable, format!("cannot start a thread for the store: {e}"));
    started.map(drop).map_err(failure)
}

/// Runs slow or blocking work on a new thread, so that it does not block the executor.
pub(crate) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (reply, answer) = Reply::channel();
    spawn(move || reply.send(work()))?;
    answer.await.map_err(|_| FileError::writer_is_gone())?
}

/// Lets the other tasks of the executor's thread run.
pub(crate) async fn yield_now() {
    let mut yielded = false;
    poll_fn(|context| {
        if yielded {
            return Poll::Ready(());
        }
        yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

//! [`Reply`]: the channel through which the writer thread answers a request.

use futures_channel::oneshot;

use crate::error::{FileError, Result};

/// The end of a channel through which the writer answers one request.
pub(crate) struct Reply<T>(oneshot::Sender<Result<T>>);

/// The end of the channel at which the caller waits. It yields an error if the writer drops the
/// request without an answer.
pub(crate) type Answer<T> = oneshot::Receiver<Result<T>>;

impl<T> Reply<T> {
    pub(crate) fn channel() -> (Self, Answer<T>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// Sends the answer, unless the caller has stopped waiting.
    pub(crate) fn send(self, answer: Result<T>) {
        // The answer comes back if nobody waits for it.
        let _ = self.0.send(answer);
    }

    pub(crate) fn refuse(self, failure: &FileError) {
        self.send(Err(failure.clone()));
    }

    /// Reports whether the caller has stopped waiting.
    pub(crate) fn is_canceled(&self) -> bool {
        self.0.is_canceled()
    }
}

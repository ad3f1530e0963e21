//! [`Request`]: what a handle asks of the writer thread.

use futures_channel::oneshot;

use crate::error::{FileError, Result};
use crate::load::Chunk;
use crate::rotate::Step;
use crate::transaction::Write;

/// A request of a handle to the writer, with the channel for the answer.
pub(crate) enum Request {
    Write(Write, Reply<Written>),
    /// Answers with true if the log is empty afterwards.
    Scrub(Reply<bool>),
    Load(Chunk, Reply<Vec<usize>>),
    Rotate(Step),
    Close(Reply<()>),
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T>>;

impl Request {
    /// Answers with a failure.
    pub(crate) fn refuse(self, failure: &FileError) {
        // A caller that has stopped waiting needs no answer.
        match self {
            Self::Write(_, reply) => drop(reply.send(Err(failure.clone()))),
            Self::Scrub(reply) => drop(reply.send(Err(failure.clone()))),
            Self::Load(_, reply) => drop(reply.send(Err(failure.clone()))),
            Self::Rotate(step) => step.refuse(failure.clone()),
            Self::Close(reply) => drop(reply.send(Err(failure.clone()))),
        }
    }
}

/// The outcome of a committed write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// True if there was a record before.
    pub(crate) existed: bool,
    /// True if no byte of a dead record is left in the store's files.
    pub(crate) clean: bool,
}

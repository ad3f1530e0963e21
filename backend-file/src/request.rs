//! [`Request`]: the work that a handle gives to the writer thread.

use crate::chunk::Chunk;
use crate::error::FileError;
use crate::reply::Reply;
use crate::reseal::Step;
use crate::transaction::Write;

/// A request of a handle to the writer thread, with the channel for its answer.
pub(crate) enum Request {
    Write(Write, Reply<Written>),
    /// Empties the log. The answer is true if the log is empty afterwards.
    Scrub(Reply<bool>),
    /// Creates the keys of a chunk. The answer is the indices of the keys whose ids have a key
    /// already.
    Load(Chunk, Reply<Vec<usize>>),
    Rotate(Step),
    Close(Reply<()>),
}

impl Request {
    /// Answers with a failure.
    pub(crate) fn refuse(self, failure: &FileError) {
        match self {
            Self::Write(_, reply) => reply.refuse(failure),
            Self::Scrub(reply) => reply.refuse(failure),
            Self::Load(_, reply) => reply.refuse(failure),
            Self::Rotate(step) => step.refuse(failure),
            Self::Close(reply) => reply.refuse(failure),
        }
    }
}

/// The outcome of a committed write.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Written {
    /// True if there was a record before.
    pub(crate) existed: bool,
    /// True if the store's files contain no byte of a deleted or replaced record.
    pub(crate) clean: bool,
}

//! [`Capabilities`]: what a store promises.

use std::time::Duration;

/// The guarantees of a stack of store and layers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The failures that an acknowledged write survives.
    pub durability: Durability,
    /// The time after which a write is visible to every handle.
    pub consistency: Consistency,
    /// The usual finality of a deletion. A single [`Deletion`](crate::Deletion) may be weaker and
    /// then says so.
    pub deletion: DeletionGrade,
    /// The time after which a write is visible in the listing, or `None` if the store cannot list.
    pub listing: Option<Consistency>,
    /// True if an erased id stays erased: reads and writes of it fail with
    /// [`Erased`](crate::ErrorKind::Erased).
    pub fenced: bool,
    /// True if reads may be answered from a process's memory, up to the bound of
    /// [`consistency`](Self::consistency). Layers that rely on reading the store itself refuse to
    /// be put around such a store.
    pub cached: bool,
    /// The number of ids that one call to the engine handles; `None` if it is not known. A batch of
    /// more ids takes several calls, which need not end together.
    pub batch_size: Option<usize>,
    /// The number of ids that one call to the engine deletes, where it differs from
    /// [`batch_size`](Self::batch_size).
    pub delete_batch_size: Option<usize>,
    /// The number of keys that [`create_keys`](crate::KeyStore::create_keys) should be given at
    /// once to be fastest; `None` if it takes a call to the engine for each key.
    pub create_batch_size: Option<usize>,
    /// The number of ids that one call to the engine lists; `None` if it is not known.
    pub list_page_size: Option<usize>,
}

impl Capabilities {
    /// Creates capabilities with these promises, without a fence and without a cache; the batch
    /// size is not known.
    pub fn new(
        durability: Durability,
        consistency: Consistency,
        deletion: DeletionGrade,
        listing: Option<Consistency>,
    ) -> Self {
        Self {
            durability,
            consistency,
            deletion,
            listing,
            fenced: false,
            cached: false,
            batch_size: None,
            delete_batch_size: None,
            create_batch_size: None,
            list_page_size: None,
        }
    }

    /// The same, and what is erased stays erased.
    pub fn with_fence(mut self) -> Self {
        self.fenced = true;
        self
    }

    /// Says that reads may be answered from a process's memory.
    pub fn with_cache(mut self) -> Self {
        self.cached = true;
        self
    }

    /// Sets the number of ids that one call to the engine handles.
    pub fn with_batch_size(mut self, ids: usize) -> Self {
        self.batch_size = Some(ids);
        self
    }

    /// Sets the number of ids that one call to the engine deletes.
    pub fn with_delete_batch_size(mut self, ids: usize) -> Self {
        self.delete_batch_size = Some(ids);
        self
    }

    /// Sets the number of keys that should be created at once.
    pub fn with_create_batch_size(mut self, keys: usize) -> Self {
        self.create_batch_size = Some(keys);
        self
    }

    /// Sets the number of ids that one call to the engine lists.
    pub fn with_list_page_size(mut self, ids: usize) -> Self {
        self.list_page_size = Some(ids);
        self
    }

    /// Says that each key is created by a call of its own.
    pub fn without_create_batch_size(mut self) -> Self {
        self.create_batch_size = None;
        self
    }
}

/// The failures that an acknowledged write survives, ordered from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Durability {
    /// Nothing: it ends with the process.
    Process,
    /// The end of the process and of the machine's power, not the loss of its disk.
    Host,
    /// The loss of a machine.
    Replicated,
}

/// The time at which an acknowledged write becomes visible to reads that begin after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// At once, to every handle.
    Strong,
    /// After a while.
    Eventual {
        /// The visibility bound: the longest that takes.
        within: Duration,
    },
}

impl Consistency {
    /// The visibility bound: zero for [`Consistency::Strong`].
    pub fn bound(&self) -> Duration {
        match self {
            Self::Strong => Duration::ZERO,
            Self::Eventual { within } => *within,
        }
    }
}

/// The usual [`Finality`](crate::Finality) of a store's deletions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeletionGrade {
    /// The bytes are beyond the engine's own recovery when the call returns.
    Immediate,
    /// They will be, without anybody's help.
    Eventual {
        /// The longest that takes, or `None` where no bound is known.
        within: Option<Duration>,
    },
    /// An operator can bring the key back for a while.
    Recoverable {
        /// The length of that time.
        window: Duration,
    },
}

//! [`Capabilities`]: the guarantees of a store.

use std::time::Duration;

/// The guarantees of a store together with the layers around it.
///
/// [`KeyStore::capabilities`](crate::KeyStore::capabilities) returns them, and the conformance
/// suite checks a store against them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Capabilities {
    /// The failures that an acknowledged write survives.
    pub durability: Durability,
    /// The time after which a write is visible to every handle.
    pub consistency: Consistency,
    /// The usual finality of a deletion. If a single deletion is weaker, its
    /// [`Deletion`](crate::Deletion) says so.
    pub deletion: DeletionGrade,
    /// The time after which a write is visible in the listing, or `None` if the store cannot list.
    pub listing: Option<Consistency>,
    /// True if an erased id stays erased: reading or writing its key fails with
    /// [`Erased`](crate::ErrorKind::Erased).
    pub fenced: bool,
    /// True if reads may be answered from a cache in this process, which may lag behind the store
    /// by up to the bound of [`consistency`](Self::consistency). A layer whose reads must
    /// reach the store refuses to wrap a cached one.
    pub cached: bool,
    /// The number of ids that one call to the engine handles, or `None` if that is not known. A
    /// larger batch takes several calls, some of which may fail while others succeed.
    pub batch_size: Option<usize>,
    /// The number of ids that one call to the engine deletes, if it differs from
    /// [`batch_size`](Self::batch_size).
    pub delete_batch_size: Option<usize>,
    /// The number of keys per call at which [`create_keys`](crate::KeyStore::create_keys) is
    /// fastest, or `None` if each key takes a separate call to the engine.
    pub create_batch_size: Option<usize>,
    /// The number of ids that one call to the engine lists; `None` if it is not known.
    pub list_page_size: Option<usize>,
}

impl Capabilities {
    /// Creates capabilities with these guarantees, no fence, no cache, and unknown batch sizes.
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

    /// Declares that an erased id stays erased ([`fenced`](Self::fenced)).
    pub fn with_fence(mut self) -> Self {
        self.fenced = true;
        self
    }

    /// Declares that reads may be answered from a cache ([`cached`](Self::cached)).
    pub fn with_cache(mut self) -> Self {
        self.cached = true;
        self
    }

    /// Sets the number of ids that one call to the engine handles
    /// ([`batch_size`](Self::batch_size)).
    pub fn with_batch_size(mut self, ids: usize) -> Self {
        self.batch_size = Some(ids);
        self
    }

    /// Sets the number of ids that one call to the engine deletes
    /// ([`delete_batch_size`](Self::delete_batch_size)).
    pub fn with_delete_batch_size(mut self, ids: usize) -> Self {
        self.delete_batch_size = Some(ids);
        self
    }

    /// Sets the number of keys that are best created at once
    /// ([`create_batch_size`](Self::create_batch_size)).
    pub fn with_create_batch_size(mut self, keys: usize) -> Self {
        self.create_batch_size = Some(keys);
        self
    }

    /// Sets the number of ids that one call to the engine lists.
    pub fn with_list_page_size(mut self, ids: usize) -> Self {
        self.list_page_size = Some(ids);
        self
    }

    /// Declares that each key is created by a separate call to the engine.
    pub fn without_create_batch_size(mut self) -> Self {
        self.create_batch_size = None;
        self
    }
}

/// The failures that an acknowledged write survives.
///
/// The variants are ordered from the weakest guarantee to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Durability {
    /// None: a write is lost when the process ends.
    Process,
    /// A crash of the process and a power failure, but not the loss of the disk.
    Host,
    /// The loss of a machine.
    Replicated,
}

/// The time after which every new read sees an acknowledged write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Consistency {
    /// Zero: the write is visible at once, to every handle.
    Strong,
    /// At most `within`.
    Eventual {
        /// The visibility bound: the longest time until every handle sees the write.
        within: Duration,
    },
}

impl Consistency {
    /// Returns the visibility bound, which is zero for [`Consistency::Strong`].
    pub fn bound(&self) -> Duration {
        match self {
            Self::Strong => Duration::ZERO,
            Self::Eventual { within } => *within,
        }
    }
}

/// The usual [`Finality`](crate::Finality) of a store's deletions.
///
/// The grade describes every deletion in the store, so it contains durations. A `Finality`
/// describes one deletion, so it can contain a point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeletionGrade {
    /// By the time the call returns, the engine can no longer recover the key.
    Immediate,
    /// The engine will lose the key some time after the call, without further action.
    Eventual {
        /// The longest time until then, or `None` if no bound is known.
        within: Option<Duration>,
    },
    /// An operator can restore the key for some time.
    Recoverable {
        /// The length of that time.
        window: Duration,
    },
}

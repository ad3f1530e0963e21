//! [`Case`]: one promise with a permanent id, and the list of all of them.

use std::fmt;
use std::sync::LazyLock;

use futures_util::future::BoxFuture;
use keystead_core::{Capabilities, Consistency, DeletionGrade};

use crate::cases::all;
use crate::context::{Context, Outcome};

/// One promise of the contract and the test that holds a store to it.
pub struct Case {
    pub(crate) id: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) body: fn(Context) -> BoxFuture<'static, Outcome>,
}

impl Case {
    /// The permanent dotted id.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Returns the sentence that states the store's promise.
    pub fn sentence(&self) -> &'static str {
        self.sentence
    }

    /// Returns the properties that a store must have for this case to apply.
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Returns the reason why the case does not apply to a store with these capabilities, or `None`
    /// if it applies. `faults` tells whether the harness can make the engine fail.
    pub(crate) fn excluded_by(&self, capabilities: &Capabilities, faults: bool) -> Option<&'static str> {
        self.needs.iter().find(|need| !need.met_by(capabilities, faults)).map(Need::reason)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("id", &self.id).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// A property that a store, or its harness, must have for a case to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// It can list.
    Listing,
    /// It cannot list.
    NoListing,
    /// Its reads may lag.
    Eventual,
    /// Its listing may lag.
    EventualListing,
    /// Its deletions can be undone for a while.
    Recoverable,
    /// It has a fence: an erased id stays erased.
    Fence,
    /// Its harness can plant an entry that is no key.
    ForeignEntries,
    /// Its harness can make an entry that has no value.
    EntriesWithoutValue,
    /// Its harness can make the engine fail.
    Faults,
}

impl Need {
    fn met_by(&self, capabilities: &Capabilities, faults: bool) -> bool {
        match self {
            Self::Listing => capabilities.listing.is_some(),
            Self::NoListing => capabilities.listing.is_none(),
            Self::Eventual => matches!(capabilities.consistency, Consistency::Eventual { .. }),
            Self::EventualListing => matches!(capabilities.listing, Some(Consistency::Eventual { .. })),
            Self::Recoverable => matches!(capabilities.deletion, DeletionGrade::Recoverable { .. }),
            Self::Fence => capabilities.fenced,
            // Only the harness can tell, when it is asked to.
            Self::ForeignEntries | Self::EntriesWithoutValue => true,
            Self::Faults => faults,
        }
    }

    /// Returns the reason why a store that does not meet the need is excused.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Listing => "the store cannot list (Capabilities::listing is None)",
            Self::NoListing => "the store can list (Capabilities::listing is Some)",
            Self::Eventual => "no read lags (Capabilities::consistency is Strong)",
            Self::EventualListing => "no listing lags (Capabilities::listing is not Some(Eventual))",
            Self::Recoverable => "no deletion can be undone (Capabilities::deletion is not Recoverable)",
            Self::Fence => "an erased id may have a new key (Capabilities::fenced is false)",
            Self::ForeignEntries => "the harness cannot plant an entry that is no key (plant_foreign gave false)",
            Self::EntriesWithoutValue => {
                "the harness cannot make an entry without a value (plant_without_value gave false)"
            }
            Self::Faults => "the harness cannot make the engine fail (Harness::faults gives None)",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listing => "a store that can list",
            Self::NoListing => "a store that cannot list",
            Self::Eventual => "a store whose reads may lag",
            Self::EventualListing => "a store whose listing may lag",
            Self::Recoverable => "a store whose deletions can be undone",
            Self::Fence => "a store in which the erased stay erased",
            Self::ForeignEntries => "a harness that can plant a foreign entry",
            Self::EntriesWithoutValue => "a harness that can make an entry without a value",
            Self::Faults => "a harness that can make the engine fail",
        })
    }
}

/// All cases, by subject.
pub fn cases() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| all().into_iter().flatten().collect());
    &ALL
}

/// Lists the cases of a file: id, sentence, what it needs, and the function that is the test.
macro_rules! case_list {
    ($($id:literal: $sentence:literal $(, needs $need:ident)* => $body:ident;)+) => {
        pub(super) fn case_list() -> Vec<$crate::case::Case> {
            vec![$($crate::case::Case {
                id: $id,
                sentence: $sentence,
                needs: &[$($crate::case::Need::$need),*],
                body: |context| Box::pin($body(context)),
            }),+]
        }
    };
}
pub(crate) use case_list;

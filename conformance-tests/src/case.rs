//! [`Case`], a promise with a permanent id, and the list of all cases.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use futures_util::future::BoxFuture;
use keystead_core::{Capabilities, Consistency, DeletionGrade};

use crate::cases::all;
use crate::context::{Context, Outcome};

/// A promise of the contract, with the test that checks whether a store keeps it.
pub struct Case {
    pub(crate) id: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) needs: &'static [Need],
    pub(crate) body: fn(Context) -> BoxFuture<'static, Outcome>,
}

impl Case {
    /// Returns the permanent dotted id.
    pub fn id(&self) -> &'static str {
        self.id
    }

    /// Returns the sentence that states the store's promise.
    pub fn sentence(&self) -> &'static str {
        self.sentence
    }

    /// Returns the properties that a store and its harness must have for this case to apply.
    pub fn needs(&self) -> &'static [Need] {
        self.needs
    }

    /// Returns the reason why the case does not apply to a store with these capabilities, or `None`
    /// if it applies. `lacking` lists what the harness cannot do.
    pub fn excluded_by(&self, capabilities: &Capabilities, lacking: &[Need]) -> Option<&'static str> {
        self.needs.iter().find_map(|need| match lacking.contains(need) {
            true => Some(need.reason()),
            false => need.unmet_by(capabilities),
        })
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("id", &self.id).field("needs", &self.needs).finish_non_exhaustive()
    }
}

/// The longest bound of a listing that the suite waits for.
const LONGEST_LISTING_BOUND: Duration = Duration::from_secs(60);

/// A property that a store or its harness must have for a case to apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// The store can list its ids.
    Listing,
    /// The store cannot list its ids.
    NoListing,
    /// The store's reads may lag behind its writes.
    Eventual,
    /// The store's listing may lag behind its writes, for at most a minute.
    EventualListing,
    /// A deletion in the store can be undone for some time.
    Recoverable,
    /// The store has a fence: an erased id stays erased.
    Fence,
    /// The harness can store an entry that is not a key.
    ForeignEntries,
    /// The harness can make an entry that has no value.
    EntriesWithoutValue,
    /// The harness can make the engine fail.
    Faults,
    /// The harness can make the engine hold back the name of a deleted entry.
    HeldNames,
}

impl Need {
    /// Returns the reason why a store with these capabilities does not meet the need, or `None` if
    /// it does or if only the harness can tell.
    fn unmet_by(self, capabilities: &Capabilities) -> Option<&'static str> {
        let is_met = match self {
            Self::Listing => capabilities.listing.is_some(),
            Self::NoListing => capabilities.listing.is_none(),
            Self::Eventual => matches!(capabilities.consistency, Consistency::Eventual { .. }),
            Self::EventualListing => match capabilities.listing {
                Some(Consistency::Eventual { within }) if within > LONGEST_LISTING_BOUND => {
                    return Some("the listing may lag for more than a minute, which the suite does not wait for");
                }
                listing => matches!(listing, Some(Consistency::Eventual { .. })),
            },
            Self::Recoverable => matches!(capabilities.deletion, DeletionGrade::Recoverable { .. }),
            Self::Fence => capabilities.fenced,
            Self::ForeignEntries | Self::EntriesWithoutValue | Self::Faults | Self::HeldNames => true,
        };
        (!is_met).then(|| self.reason())
    }

    /// Returns the reason why a case with an unmet need is ignored.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Listing => "the store cannot list (Capabilities::listing is None)",
            Self::NoListing => "the store can list (Capabilities::listing is Some)",
            Self::Eventual => "no read lags (Capabilities::consistency is Strong)",
            Self::EventualListing => "no listing lags (Capabilities::listing is not Some(Eventual))",
            Self::Recoverable => "no deletion can be undone (Capabilities::deletion is not Recoverable)",
            Self::Fence => "an erased id may have a new key (Capabilities::fenced is false)",
            Self::ForeignEntries => "the harness cannot store an entry that is not a key (plant_foreign gave false)",
            Self::EntriesWithoutValue => {
                "the harness cannot make an entry without a value (plant_without_value gave false)"
            }
            Self::Faults => "the harness cannot make the engine fail (Harness::faults gives None)",
            Self::HeldNames => "the engine holds back no name of a deleted entry (inject of NameHeld gave false)",
        }
    }
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listing => "a store that can list",
            Self::NoListing => "a store that cannot list",
            Self::Eventual => "a store whose reads may lag",
            Self::EventualListing => "a store whose listing may lag, for at most a minute",
            Self::Recoverable => "a store whose deletions can be undone",
            Self::Fence => "a store with a fence",
            Self::ForeignEntries => "a harness that can store a foreign entry",
            Self::EntriesWithoutValue => "a harness that can make an entry without a value",
            Self::Faults => "a harness that can make the engine fail",
            Self::HeldNames => "an engine that holds back deleted names",
        })
    }
}

/// Returns all cases, grouped by subject.
pub fn cases() -> &'static [Case] {
    static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| all().into_iter().flatten().collect());
    &ALL
}

/// Lists the cases of a file: the id, the sentence, the needs, and the function that is the test.
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

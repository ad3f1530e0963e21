//! [`ErasureReceipt`]: the proof of an erasure.

use std::time::SystemTime;

use keystead_core::{Finality, StoreIdentity};

/// The proof of an erasure: where it was made, when, and how final it was.
///
/// It contains no id. [`Fenced::is_about`] tells whether it is about a certain user, and
/// [`Fenced::check_receipt`] compares it with the stores.
///
/// With the feature `serde` it serializes as a map with these fields: `store` (the text of the
/// identity), `tombstone`, `erased_at` and `finished_at` (seconds since 1970-01-01 UTC), `existed`,
/// `verified`, and `finality` (`immediate`, `eventual` or `recoverable`). `eventual` can have the
/// field `within` (seconds), and `recoverable` has `recoverable_until` (seconds since 1970-01-01
/// UTC). Both are rounded up.
///
/// [`Fenced::is_about`]: crate::Fenced::is_about
/// [`Fenced::check_receipt`]: crate::Fenced::check_receipt
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(into = "shape::Receipt", try_from = "shape::Receipt")
)]
#[non_exhaustive]
pub struct ErasureReceipt {
    /// The identity of the store that held the key, as far as it was known.
    pub store: StoreIdentity,
    /// The user's pseudonym: a keyed hash of the id, in 64 hexadecimal digits.
    pub tombstone: String,
    /// The moment at which the user was first erased since a new key was last allowed.
    pub erased_at: SystemTime,
    /// The moment at which this erasure ended.
    pub finished_at: SystemTime,
    /// True if there was a key: see [`Erasure::existed`](keystead_core::Erasure::existed).
    pub existed: bool,
    /// The moment from which the engine can no longer recover the stored bytes.
    pub finality: Finality,
    /// True if a read that began one visibility bound after the last delete found no key.
    pub verified: bool,
}

#[cfg(feature = "serde")]
mod shape {
    use std::time::{Duration, SystemTime};

    use keystead_core::{Finality, StoreIdentity};
    use serde::{Deserialize, Serialize};

    use super::ErasureReceipt;

    /// The serialized form of a receipt.
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct Receipt {
        store: StoreIdentity,
        tombstone: String,
        erased_at: u64,
        finished_at: u64,
        existed: bool,
        verified: bool,
        finality: Grade,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        recoverable_until: Option<u64>,
    }

    #[derive(Clone, Copy, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Grade {
        Immediate,
        Eventual,
        Recoverable,
    }

    impl From<ErasureReceipt> for Receipt {
        fn from(receipt: ErasureReceipt) -> Self {
            let (finality, within, recoverable_until) = match receipt.finality {
                Finality::Immediate => (Grade::Immediate, None, None),
                // Rounded up, so that no earlier end is promised.
                Finality::Eventual { within } => (Grade::Eventual, within.map(seconds_up), None),
                Finality::RecoverableUntil(until) => {
                    let since = until.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                    (Grade::Recoverable, None, Some(seconds_up(since)))
                }
                // A kind of finality that this version does not know: the weakest one is written.
                _ => (Grade::Eventual, None, None),
            };
            Self {
                store: receipt.store,
                tombstone: receipt.tombstone,
                erased_at: unix_seconds(receipt.erased_at),
                finished_at: unix_seconds(receipt.finished_at),
                existed: receipt.existed,
                verified: receipt.verified,
                finality,
                within,
                recoverable_until,
            }
        }
    }

    /// Returns the seconds since 1970-01-01 UTC, or zero for an earlier moment.
    fn unix_seconds(time: SystemTime) -> u64 {
        time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// Returns the seconds of a duration, rounded up.
    fn seconds_up(time: Duration) -> u64 {
        time.as_secs().saturating_add(u64::from(time.subsec_nanos() > 0))
    }

    impl TryFrom<Receipt> for ErasureReceipt {
        type Error = &'static str;

        fn try_from(receipt: Receipt) -> Result<Self, &'static str> {
            let time = |seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds));
            let time = |seconds| time(seconds).ok_or("a time is out of range");
            let finality = match (receipt.finality, receipt.recoverable_until) {
                (Grade::Immediate, None) => Finality::Immediate,
                (Grade::Eventual, None) => Finality::Eventual { within: receipt.within.map(Duration::from_secs) },
                (Grade::Recoverable, Some(until)) => Finality::RecoverableUntil(time(until)?),
                _ => return Err("recoverable_until must be present if finality is recoverable, and absent otherwise"),
            };
            Ok(Self {
                store: receipt.store,
                tombstone: receipt.tombstone,
                erased_at: time(receipt.erased_at)?,
                finished_at: time(receipt.finished_at)?,
                existed: receipt.existed,
                finality,
                verified: receipt.verified,
            })
        }
    }
}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use std::time::Duration;

    use keystead_core::StoreInfo;

    use super::*;

    fn receipt(finality: Finality) -> ErasureReceipt {
        let time = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        ErasureReceipt {
            store: StoreInfo::new("memory", "").with_store_id("1").identity().clone(),
            tombstone: "ab".repeat(32),
            erased_at: time(1),
            finished_at: time(2),
            existed: true,
            finality,
            verified: true,
        }
    }

    #[test]
    fn a_receipt_has_the_documented_shape() {
        let json = serde_json::to_string(&receipt(Finality::Immediate)).unwrap();
        let tombstone = "ab".repeat(32);
        let expected = [
            r#"{"store":"memory:; store=1","tombstone":""#,
            &tombstone,
            r#"","erased_at":1,"finished_at":2,"existed":true,"verified":true,"finality":"immediate"}"#,
        ]
        .concat();
        assert_eq!(json, expected);
    }

    #[test]
    fn a_receipt_can_be_read_back() {
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs(3);
        let within = Some(Duration::from_secs(4));
        for finality in [
            Finality::Immediate,
            Finality::Eventual { within: None },
            Finality::Eventual { within },
            Finality::RecoverableUntil(until),
        ] {
            let json = serde_json::to_string(&receipt(finality)).unwrap();
            assert_eq!(serde_json::from_str::<ErasureReceipt>(&json).unwrap(), receipt(finality));
        }
    }

    #[test]
    fn the_time_until_an_eventual_deletion_is_rounded_up() {
        let within = Some(Duration::from_millis(900));
        let json = serde_json::to_string(&receipt(Finality::Eventual { within })).unwrap();
        assert!(json.contains(r#""within":1"#), "{json}");
    }

    #[test]
    fn a_receipt_that_contradicts_itself_is_refused() {
        let json = serde_json::to_string(&receipt(Finality::Immediate)).unwrap();
        assert!(serde_json::from_str::<ErasureReceipt>(&json.replace("immediate", "recoverable")).is_err());
    }
}

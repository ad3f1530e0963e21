//! [`Identities`]: which two stores a copy is between, and what the knowledge of them permits.

use futures_util::future;

use super::endpoint::Endpoint;
use super::refusal;
use crate::{Error, ErrorKind, IdentityMatch, Result, StoreIdentity};

/// The identities of both stores of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identities {
    pub(super) source: StoreIdentity,
    pub(super) target: StoreIdentity,
}

/// The identities as the stores tell them now, and why no more is known of them.
#[derive(Clone, Debug)]
pub(super) struct Learned {
    pub(super) identities: Identities,
    source_failure: Option<Error>,
    target_failure: Option<Error>,
}

/// A reason that forbids to remove or delete anything, in words.
#[derive(Clone, Debug)]
pub(super) enum Doubt {
    /// It is not known which stores source and target are, or whether they are two.
    OneStore(String),
    /// It is not known whether the journal is of these two stores.
    Journal(String),
}

impl Learned {
    /// Asks both stores. A failure is kept for messages, because a copy that removes nothing needs
    /// no identity.
    pub(super) async fn from(source: &Endpoint<'_>, target: &Endpoint<'_>) -> Self {
        let (source, target) = future::join(source.identify(), target.identify()).await;
        let (source, source_failure) = source;
        let (target, target_failure) = target;
        Self { identities: Identities { source, target }, source_failure, target_failure }
    }

    /// Refuses one store as both source and target.
    pub(super) fn refuse_one_store(&self) -> Result<()> {
        let Identities { source, target } = &self.identities;
        match source.compare(target) {
            IdentityMatch::Same => {
                let text = format!("source and target are one store ({source}): name two different ones");
                Err(refusal(ErrorKind::Config, text))
            }
            _ => Ok(()),
        }
    }

    /// Returns why these may not be two known stores, or not those of the journal.
    pub(super) fn doubt(&self, journal: Option<&Identities>) -> Option<Doubt> {
        let Identities { source, target } = &self.identities;
        if source.compare(target) != IdentityMatch::Different {
            let text = format!("it is not known whether source and target are two stores: {}", self.what_is_unknown());
            return Some(Doubt::OneStore(text));
        }
        // An identity that is not even the same as itself is not known.
        if self.identities.compare(&self.identities) != IdentityMatch::Same {
            let text = format!("it is not known which stores source and target are: {}", self.what_is_unknown());
            return Some(Doubt::OneStore(text));
        }
        let journal = journal?;
        if journal.compare(&self.identities) != IdentityMatch::Same {
            let text = format!(
                "it is not known whether the journal is of these two stores: {}; or start a new journal, with which what \
                 is at the target is compared again",
                self.what_is_unknown()
            );
            return Some(Doubt::Journal(text));
        }
        None
    }

    fn what_is_unknown(&self) -> String {
        let sides = [
            ("source", &self.identities.source, &self.source_failure),
            ("target", &self.identities.target, &self.target_failure),
        ];
        let mut unknown = Vec::new();
        for (name, identity, failure) in sides {
            if !identity.is_fully_known() {
                let why = failure.as_ref().map(|e| format!(" ({e})")).unwrap_or_default();
                unknown.push(format!("the account of the {name} is not known{why}, allow sts:GetCallerIdentity"));
            }
        }
        match unknown.is_empty() {
            true => "their identities leave it open, as with a store that is a restored copy, that is reached through \
                     another endpoint, or whose account was not known when the journal was begun"
                .to_owned(),
            false => unknown.join("; "),
        }
    }
}

impl Identities {
    /// Compares both stores with those of another pair: the answer is as bad as that for the worse
    /// of the two.
    pub(super) fn compare(&self, other: &Self) -> IdentityMatch {
        match (self.source.compare(&other.source), self.target.compare(&other.target)) {
            (IdentityMatch::Different, _) | (_, IdentityMatch::Different) => IdentityMatch::Different,
            (IdentityMatch::Same, IdentityMatch::Same) => IdentityMatch::Same,
            _ => IdentityMatch::Unknown,
        }
    }

    /// Refuses to go on if one of the stores is another one now.
    pub(super) fn refuse_others(&self, now: &Self) -> Result<()> {
        for (name, then, now) in [("source", &self.source, &now.source), ("target", &self.target, &now.target)] {
            if then.compare(now) == IdentityMatch::Different {
                let text = format!(
                    "the {name} changed under the copy from {then} to {now}: see to it that the credentials stay those of \
                     one account, and run again"
                );
                return Err(refusal(ErrorKind::Config, text));
            }
        }
        Ok(())
    }
}

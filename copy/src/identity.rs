//! [`Identities`]: the identities of the two stores of a copy, and what they permit.

use futures_util::future;
use keystead_core::{Error, ErrorKind, IdentityMatch, Result, StoreIdentity};

use crate::endpoint::Endpoint;
use crate::failure::refusal;

/// The identities of both stores of a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identities {
    pub(crate) source: StoreIdentity,
    pub(crate) target: StoreIdentity,
}

/// The identities that the stores report now, and the errors that keep them from being known in
/// full.
#[derive(Clone, Debug)]
pub(crate) struct Learned {
    pub(crate) identities: Identities,
    source_failure: Option<Error>,
    target_failure: Option<Error>,
}

/// A reason not to remove or delete any key, as text for the report.
#[derive(Clone, Debug)]
pub(crate) enum Doubt {
    /// It is not known which stores source and target are, or whether they are different.
    OneStore(String),
    /// It is not known whether the journal belongs to these two stores.
    Journal(String),
}

impl Learned {
    /// Asks both stores for their identities. A failure is only kept for messages, because a copy
    /// that removes nothing needs no identity.
    pub(crate) async fn from(source: &Endpoint<'_>, target: &Endpoint<'_>) -> Self {
        let (source, target) = future::join(source.identify(), target.identify()).await;
        let (source, source_failure) = source;
        let (target, target_failure) = target;
        Self { identities: Identities { source, target }, source_failure, target_failure }
    }

    /// Returns an error if source and target are the same store.
    pub(crate) fn refuse_one_store(&self) -> Result<()> {
        let Identities { source, target } = &self.identities;
        match source.compare(target) {
            IdentityMatch::Same => {
                let text = format!("source and target are one store ({source}); name two different ones");
                Err(refusal(ErrorKind::Config, text))
            }
            _ => Ok(()),
        }
    }

    /// Returns the doubt whether these are two known stores, and those of the journal.
    pub(crate) fn doubt(&self, journal: Option<&Identities>) -> Option<Doubt> {
        let Identities { source, target } = &self.identities;
        if source.compare(target) != IdentityMatch::Different {
            let text = format!("it is not known whether source and target are two stores: {}", self.what_is_unknown());
            return Some(Doubt::OneStore(text));
        }
        // An identity that does not compare as the same as itself is not known.
        if self.identities.compare(&self.identities) != IdentityMatch::Same {
            let text = format!("it is not known which stores source and target are: {}", self.what_is_unknown());
            return Some(Doubt::OneStore(text));
        }
        let journal = journal?;
        if journal.compare(&self.identities) != IdentityMatch::Same {
            let text = format!(
                "it is not known whether the journal belongs to these two stores: {}; or start a new journal, \
                 with which the keys at the target are compared again",
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
                unknown.push(format!("the account of the {name} is not known{why}; allow sts:GetCallerIdentity"));
            }
        }
        match unknown.is_empty() {
            true => "their identities do not tell, for example because a store is a restored copy, is reached \
                     through another endpoint, or had an unknown account when the journal was created"
                .to_owned(),
            false => unknown.join("; "),
        }
    }
}

impl Identities {
    /// Compares both stores with those of another pair, and returns the worse of the two answers.
    pub(crate) fn compare(&self, other: &Self) -> IdentityMatch {
        match (self.source.compare(&other.source), self.target.compare(&other.target)) {
            (IdentityMatch::Different, _) | (_, IdentityMatch::Different) => IdentityMatch::Different,
            (IdentityMatch::Same, IdentityMatch::Same) => IdentityMatch::Same,
            _ => IdentityMatch::Unknown,
        }
    }

    /// Returns an error if one of the stores is now a different one.
    pub(crate) fn refuse_others(&self, now: &Self) -> Result<()> {
        for (name, then, now) in [("source", &self.source, &now.source), ("target", &self.target, &now.target)] {
            if then.compare(now) == IdentityMatch::Different {
                let text = format!(
                    "the {name} changed during the copy from {then} to {now}; make sure that the credentials \
                     stay those of one account, and run again"
                );
                return Err(refusal(ErrorKind::Config, text));
            }
        }
        Ok(())
    }
}

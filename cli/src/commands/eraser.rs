//! [`Eraser`]: erases users, behind a fence if there are tombstones.

use keystead::layers::ErasureReceipt;
use keystead::{Error, Finality, KeyId, KeyStore};
use serde_json::{Value, json};

use crate::exit::Outcome;
use crate::output::{finality_json, finality_text};
use crate::session::Session;
use crate::stores::{self, Fence, Guarded};

/// The store in which users are erased.
pub(crate) struct Eraser {
    store: Guarded,
    shown: String,
    scheme: &'static str,
}

/// The result of one erasure.
#[derive(Debug)]
pub(crate) struct Erased {
    pub(crate) existed: bool,
    pub(crate) verified: bool,
    pub(crate) finality: Finality,
    /// The proof, if there are tombstones.
    pub(crate) receipt: Option<ErasureReceipt>,
}

impl Eraser {
    pub(crate) async fn open(session: &Session) -> Outcome<Self> {
        let store = stores::open(session).await?;
        let shown = store.described().await;
        let scheme = store.scheme();
        Ok(Self { store, shown, scheme })
    }

    pub(crate) fn fence(&self) -> Option<&Fence> {
        match &self.store {
            Guarded::Fenced(fence) => Some(fence),
            Guarded::Bare(_) => None,
        }
    }

    /// Returns the name and place of the store in words.
    pub(crate) fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    pub(crate) async fn erase(&self, id: &KeyId) -> Result<Erased, Error> {
        match &self.store {
            Guarded::Bare(store) => {
                let erasure = store.erase_key(id).await?;
                Ok(Erased {
                    existed: erasure.existed,
                    verified: erasure.verified,
                    finality: erasure.finality,
                    receipt: None,
                })
            }
            Guarded::Fenced(fence) => {
                let receipt = fence.erase(id).await?;
                Ok(Erased {
                    existed: receipt.existed,
                    verified: receipt.verified,
                    finality: receipt.finality,
                    receipt: Some(receipt),
                })
            }
        }
    }
}

impl Erased {
    pub(crate) fn text(&self) -> String {
        let what = if self.existed { "erased" } else { "there was no key" };
        let proof = if self.verified { "verified: a read finds nothing" } else { "not verified by a read" };
        format!("{what}; {proof}; {}", finality_text(self.finality))
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "existed": self.existed,
            "verified": self.verified,
            "finality": finality_json(self.finality),
            "receipt": self.receipt,
        })
    }
}

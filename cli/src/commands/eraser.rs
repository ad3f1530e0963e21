//! [`Eraser`]: erases users, behind a fence if there are tombstones.

use std::sync::Arc;

use keystead::layers::ErasureReceipt;
use keystead::{Error, Finality, KeyId, KeyStore};
use serde_json::{Value, json};

use crate::args::FenceArgs;
use crate::exit::Outcome;
use crate::output::{finality_json, finality_text};
use crate::session::Session;
use crate::stores::{self, Fence};

/// Returns the fence around the store that was asked for, if tombstones are named.
pub(crate) async fn fence(session: &Session, store: Arc<dyn KeyStore>, args: &FenceArgs) -> Outcome<Option<Fence>> {
    match &args.tombstones {
        Some(tombstones) => stores::fence(session, store, tombstones, args.accept_tombstone_durability).await.map(Some),
        None => Ok(None),
    }
}

/// The store that was asked for, to erase in.
#[derive(Debug)]
pub(crate) struct Eraser {
    store: Arc<dyn KeyStore>,
    fence: Option<Fence>,
}

/// An erasure.
#[derive(Debug)]
pub(crate) struct Erased {
    pub(crate) existed: bool,
    pub(crate) verified: bool,
    pub(crate) finality: Finality,
    /// The proof, if there are tombstones.
    pub(crate) receipt: Option<ErasureReceipt>,
}

impl Eraser {
    pub(crate) async fn open(session: &Session, args: &FenceArgs) -> Outcome<Self> {
        let store = stores::open(session).await?;
        let fence = fence(session, store.clone(), args).await?;
        Ok(Self { store, fence })
    }

    pub(crate) fn fence(&self) -> Option<&Fence> {
        self.fence.as_ref()
    }

    /// The store for people.
    pub(crate) fn shown(&self) -> String {
        self.store.info().to_string()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        self.store.info().scheme()
    }

    pub(crate) async fn erase(&self, id: &KeyId) -> Result<Erased, Error> {
        let Some(fence) = &self.fence else {
            let erasure = self.store.erase_key(id).await?;
            return Ok(Erased {
                existed: erasure.existed,
                verified: erasure.verified,
                finality: erasure.finality,
                receipt: None,
            });
        };
        let receipt = fence.erase(id).await?;
        Ok(Erased {
            existed: receipt.existed,
            verified: receipt.verified,
            finality: receipt.finality,
            receipt: Some(receipt),
        })
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

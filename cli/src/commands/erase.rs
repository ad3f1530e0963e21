//! `erase`: deletes a user's key and proves that it is gone.

use clap::Args;
use keystead::layers::ErasureReceipt;
use keystead::{Erasure, KeyStore};
use serde_json::json;

use crate::args::{FenceArgs, IdArgs};
use crate::exit::{Code, Failure, Outcome};
use crate::output::{finality_json, finality_text, utc};
use crate::session::Session;
use crate::{stores, terminal};

#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Does not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    fence: FenceArgs,
}

pub(crate) async fn run(session: &Session, args: EraseArgs) -> Outcome {
    let id = args.id.read().await?;
    let store = stores::open(session).await?;
    if !args.yes {
        confirm(&store.info().to_string()).await?;
    }
    let (erasure, receipt) = match &args.fence.tombstones {
        None => (store.erase_key(&id).await?, None),
        Some(tombstones) => {
            let accepted = args.fence.accept_tombstone_durability;
            let receipt = stores::fence(session, store, tombstones, accepted).await?.erase(&id).await?;
            (Erasure::new(receipt.existed, receipt.finality, receipt.verified), Some(receipt))
        }
    };
    let Erasure { existed, finality, verified, .. } = erasure;
    let value = json!({
        "existed": existed,
        "verified": verified,
        "finality": finality_json(finality),
        "receipt": receipt,
    });
    session.output.result(text(&erasure, receipt.as_ref()), value)?;
    Ok(Code::Done)
}

async fn confirm(store: &str) -> Outcome<()> {
    let question = format!("erase this user's key from {store}, for ever? type yes: ");
    match terminal::confirms(question).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::refused("nothing was erased: the answer was not yes")),
        None => Err(Failure::refused("nothing was erased: there is no terminal to ask on, say --yes")),
    }
}

fn text(erasure: &Erasure, receipt: Option<&ErasureReceipt>) -> String {
    let Erasure { existed, finality, verified, .. } = *erasure;
    let what = if existed { "erased" } else { "there was no key" };
    let proof = if verified { "verified: a read finds nothing" } else { "not verified by a read" };
    let mut text = format!("{what}; {proof}; {}", finality_text(finality));
    if let Some(ErasureReceipt { store, tombstone, erased_at, finished_at, .. }) = receipt {
        text.push_str(&format!("\nstore      {store}\ntombstone  {tombstone}\n"));
        text.push_str(&format!("erased     {}\nfinished   {}", utc(*erased_at), utc(*finished_at)));
    }
    text
}

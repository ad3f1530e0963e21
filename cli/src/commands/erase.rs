//! `erase`: deletes a user's key and proves that it is gone.

use clap::Args;
use keystead::layers::ErasureReceipt;
use keystead::{Erasure, KeyStore};
use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, Outcome};
use crate::output::{finality_json, finality_text, utc};
use crate::session::Session;
use crate::stores::{self, Guarded};
use crate::terminal;

#[derive(Args, Debug)]
pub(crate) struct EraseArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Does not ask
    #[arg(long)]
    yes: bool,
}

pub(crate) async fn run(session: &Session, args: EraseArgs) -> Outcome {
    let id = args.id.read().await?;
    let guarded = stores::open(session).await?;
    if !args.yes {
        let question = format!("erase this user's key from {}, for ever?", guarded.described().await);
        terminal::confirm(&question, "nothing was erased").await?;
    }
    let (erasure, receipt) = match guarded {
        Guarded::Bare(store) => (store.erase_key(&id).await?, None),
        Guarded::Fenced(fence) => {
            let receipt = fence.erase(&id).await?;
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

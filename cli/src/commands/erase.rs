//! `erase`: deletes a user's key and proves that it is gone.

use clap::Args;
use keystead::{Erasure, KeyStore};
use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, Failure, Outcome};
use crate::output::{finality_json, finality_text};
use crate::session::Session;
use crate::{stores, terminal};

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
    let store = stores::open(session).await?;
    if !args.yes {
        confirm(&store.info().to_string()).await?;
    }
    let erasure = store.erase_key(&id).await?;
    let Erasure { existed, finality, verified, .. } = erasure;
    let value = json!({ "existed": existed, "verified": verified, "finality": finality_json(finality) });
    session.output.result(text(&erasure), value)?;
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

fn text(erasure: &Erasure) -> String {
    let Erasure { existed, finality, verified, .. } = *erasure;
    let what = if existed { "erased" } else { "there was no key" };
    let proof = if verified { "verified: a read finds nothing" } else { "not verified by a read" };
    format!("{what}; {proof}; {}", finality_text(finality))
}

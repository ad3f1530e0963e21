//! `delete`.

use clap::Args;
use keystead::KeyStore;
use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, Outcome};
use crate::finality::RecoverableArgs;
use crate::output::{finality_json, finality_text};
use crate::session::Session;
use crate::stores::{self, Guarded};
use crate::{output, terminal};

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Does not ask for confirmation
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    recoverable: RecoverableArgs,
}

pub(crate) async fn run(session: &Session, args: DeleteArgs) -> Outcome {
    let id = args.id.read().await?;
    let guarded = stores::open(session).await?;
    let is_fenced = matches!(guarded, Guarded::Fenced(_));
    let store = guarded.into_store();
    if !args.yes {
        let question = format!("permanently delete this user's key from {}?", stores::described(&*store).await);
        terminal::confirm(&question, "nothing was deleted").await?;
    }
    let finality = store.delete_key(&id).await?.finality;
    let text = format!("deleted: {}", finality_text(finality));
    if is_fenced {
        output::note("no tombstone was written, so this user can get a new key: use erase to keep a user erased");
    }
    session.output.result(text, json!({ "deleted": true, "finality": finality_json(finality) }))?;
    let code = args.recoverable.code(finality);
    if code == Code::Recoverable && !session.output.json {
        output::note("an operator can still bring the key back: give --accept-recoverable if that is intended");
    }
    Ok(code)
}

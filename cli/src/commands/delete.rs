//! `delete`.

use clap::Args;
use keystead::KeyStore;
use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, Outcome};
use crate::finality::RecoverableArgs;
use crate::output::{self, finality_json, finality_text};
use crate::session::Session;
use crate::stores;

#[derive(Args, Debug)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    id: IdArgs,
    #[command(flatten)]
    recoverable: RecoverableArgs,
}

pub(crate) async fn run(session: &Session, args: DeleteArgs) -> Outcome {
    let id = args.id.read().await?;
    let finality = stores::open(session).await?.delete_key(&id).await?.finality;
    let text = format!("deleted: {}", finality_text(finality));
    session.output.result(text, json!({ "deleted": true, "finality": finality_json(finality) }))?;
    let code = args.recoverable.code(finality);
    if code == Code::Recoverable && !session.output.json {
        output::note("an operator can still bring the key back: say --accept-recoverable if that is meant");
    }
    Ok(code)
}

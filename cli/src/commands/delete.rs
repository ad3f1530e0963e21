//! `delete`.

use keystead::KeyStore;
use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, Outcome};
use crate::output::{finality_json, finality_text};
use crate::session::Session;
use crate::stores;

pub(crate) async fn run(session: &Session, id: IdArgs) -> Outcome {
    let id = id.read().await?;
    let finality = stores::open(session).await?.delete_key(&id).await?.finality;
    let text = format!("deleted: {}", finality_text(finality));
    session.output.result(text, json!({ "deleted": true, "finality": finality_json(finality) }))?;
    Ok(Code::Done)
}

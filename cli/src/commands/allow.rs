//! `allow`: lets an erased user get a new key.

use serde_json::json;

use crate::args::IdArgs;
use crate::exit::{Code, CommandError, Outcome};
use crate::output::utc;
use crate::session::Session;
use crate::stores::{self, Guarded};

pub(crate) async fn run(session: &Session, id: IdArgs) -> Outcome {
    let id = id.read().await?;
    let fence = match stores::open(session).await? {
        Guarded::Fenced(fence) => fence,
        Guarded::Bare(_) => return Err(stores::no_tombstones()),
    };
    let erased_at = fence.erased_at(&id).await?;
    fence.allow_new_key(&id).await.map_err(|e| {
        let pause = e.retry_after();
        let failure = CommandError::from(e);
        match pause {
            // Rounded up, because the wait must be over.
            Some(pause) => failure.advise(format!("try again in {} s", pause.as_secs() + 1)),
            None => failure,
        }
    })?;
    let text = match erased_at {
        Some(at) => format!("allowed: this user, who was erased at {}, can get a new key", utc(at)),
        None => "this user is not erased and can get a key".to_owned(),
    };
    session.output.result(text, json!({ "allowed": true, "was_erased": erased_at.is_some() }))?;
    Ok(Code::Done)
}

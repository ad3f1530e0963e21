//! `scrub`: what is left of deleted keys is taken out of a file store now.

use serde_json::json;

use crate::exit::{Code, Outcome};
use crate::session::Session;
use crate::{output, stores};

pub(crate) async fn run(session: &Session) -> Outcome {
    let clean = stores::open_file(session, &stores::asked(session)?.writable()?).await?.scrub().await?;
    let text = if clean { "clean: nothing is left of deleted and overwritten keys" } else { "not clean yet" };
    session.output.result(text, json!({ "clean": clean }))?;
    if clean {
        return Ok(Code::Done);
    }
    output::note("a reader holds the store's log, or the disk refused: end the reader and scrub again");
    Ok(Code::Unavailable)
}

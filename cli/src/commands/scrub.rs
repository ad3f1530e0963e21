//! `scrub`: removes the remains of deleted keys from a file store.

use serde_json::json;

use crate::exit::{Code, Outcome};
use crate::session::Session;
use crate::{output, stores};

pub(crate) async fn run(session: &Session) -> Outcome {
    let clean = stores::open_file(session, &stores::asked(session)?.writable()?).await?.scrub().await?;
    let text = if clean { "clean: nothing remains of deleted and overwritten keys" } else { "not clean yet" };
    session.output.result(text, json!({ "clean": clean }))?;
    if clean {
        return Ok(Code::Done);
    }
    output::note("a reader still uses the store's log, or the disk failed: end the reader and run scrub again");
    Ok(Code::Unavailable)
}

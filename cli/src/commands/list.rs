//! `list` and `count`.

use std::io::{self, Write};

use futures_util::StreamExt;
use keystead::{ErrorKind, KeyId, KeyStore};
use serde_json::json;

use crate::exit::{Code, Failure, Outcome};
use crate::session::Session;
use crate::{output, stores};

pub(crate) async fn list(session: &Session) -> Outcome {
    let json = session.output.json;
    let damaged = each(session, |id| {
        let line = if json { json!({ "id": id.as_str() }).to_string() } else { id.as_str().to_owned() };
        writeln!(io::stdout(), "{line}").map_err(Failure::stdout)
    })
    .await?;
    Ok(code(damaged))
}

pub(crate) async fn count(session: &Session) -> Outcome {
    let mut count = 0_u64;
    let damaged = each(session, |_| {
        count += 1;
        Ok(())
    })
    .await?;
    session.output.result(count.to_string(), json!({ "count": count, "damaged": damaged }))?;
    Ok(code(damaged))
}

/// Goes through all ids; how many entries are damaged, which are told and left out.
async fn each(session: &Session, mut visit: impl FnMut(&KeyId) -> Outcome<()> + Send) -> Outcome<u64> {
    let store = stores::open_to_read(session).await?;
    let (mut ids, mut damaged) = (store.list_keys(), 0);
    while let Some(item) = ids.next().await {
        match item {
            Ok(id) => visit(&id)?,
            Err(e) if e.kind() == ErrorKind::Corrupt => damaged += 1,
            Err(e) => return Err(e.into()),
        }
    }
    if damaged > 0 {
        let entries = if damaged == 1 { "1 entry is".to_owned() } else { format!("{damaged} entries are") };
        output::note(format!("{entries} damaged, or no key of ours, and left out: see verify on a file store"));
    }
    Ok(damaged)
}

fn code(damaged: u64) -> Code {
    if damaged == 0 { Code::Done } else { Code::Damaged }
}

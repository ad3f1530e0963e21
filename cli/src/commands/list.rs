//! `list` and `count`: list and count the ids.

use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU64;

use clap::Args;
use futures_util::StreamExt;
use keystead::{ErrorKind, KeyId, KeyStore};
use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::{output, shown, stores, verbose};

/// The largest number of ids that are written together. Fewer are written when the store pauses.
const BLOCK: usize = 1_000;

#[derive(Args, Debug)]
pub(crate) struct ListArgs {
    /// Lists only the ids that begin with this text
    #[arg(long, value_name = "TEXT")]
    prefix: Option<String>,
    /// Lists at most this many ids
    #[arg(long, value_name = "NUMBER")]
    limit: Option<NonZeroU64>,
}

pub(crate) async fn list(session: &Session, args: ListArgs) -> Outcome {
    let store = stores::open_to_read(session).await?;
    verbose::step("listing the ids");
    let mut lines = Lines::new(session, args);
    let mut damaged = 0;
    let mut blocks = store.list_keys().ready_chunks(BLOCK);
    while let Some(block) = blocks.next().await {
        let mut ended = None;
        for item in block {
            match item {
                Ok(id) => lines.add(&id),
                Err(e) if e.kind() == ErrorKind::Corrupt => damaged += 1,
                Err(e) => {
                    ended = Some(e);
                    break;
                }
            }
        }
        lines.write()?;
        if let Some(e) = ended {
            return Err(e.into());
        }
        if lines.left == Some(0) {
            break;
        }
    }
    note_damaged(damaged);
    Ok(code(damaged))
}

pub(crate) async fn count(session: &Session) -> Outcome {
    let store = stores::open_to_read(session).await?;
    verbose::step("listing the ids, to count them");
    let mut count = 0_u64;
    let mut damaged = 0;
    let mut ids = store.list_keys();
    while let Some(item) = ids.next().await {
        match item {
            Ok(_) => count += 1,
            Err(e) if e.kind() == ErrorKind::Corrupt => damaged += 1,
            Err(e) => return Err(e.into()),
        }
    }
    note_damaged(damaged);
    session.output.result(count.to_string(), json!({ "count": count, "damaged": damaged }))?;
    Ok(code(damaged))
}

/// The lines of a listing that are not yet written.
struct Lines {
    json: bool,
    on_terminal: bool,
    prefix: String,
    /// The number of ids that may still be listed; `None` if there is no limit.
    left: Option<u64>,
    text: String,
}

impl Lines {
    fn new(session: &Session, ListArgs { prefix, limit }: ListArgs) -> Self {
        Self {
            json: session.output.json,
            on_terminal: io::stdout().is_terminal(),
            prefix: prefix.unwrap_or_default(),
            left: limit.map(NonZeroU64::get),
            text: String::new(),
        }
    }

    fn add(&mut self, id: &KeyId) {
        if self.left == Some(0) || !id.as_str().starts_with(&self.prefix) {
            return;
        }
        self.left = self.left.map(|left| left - 1);
        let json;
        let line = if self.json {
            json = json!({ "id": id.as_str() }).to_string();
            &json
        } else {
            id.as_str()
        };
        if self.on_terminal {
            self.text.push_str(&shown::on_terminal(line));
        } else {
            self.text.push_str(line);
        }
        self.text.push('\n');
    }

    fn write(&mut self) -> Outcome<()> {
        // Standard output writes text that ends with a line break at once, in one call.
        io::stdout().write_all(self.text.as_bytes()).map_err(CommandError::stdout)?;
        self.text.clear();
        Ok(())
    }
}

fn note_damaged(damaged: u64) {
    if damaged > 0 {
        let entries = if damaged == 1 { "1 entry is".to_owned() } else { format!("{damaged} entries are") };
        output::note(format!("{entries} damaged or not a keystead key, and left out: on a file store, run verify"));
    }
}

fn code(damaged: u64) -> Code {
    if damaged == 0 { Code::Done } else { Code::Damaged }
}

//! `get` and `exists`: read a key, and report whether there is one.

use std::path::PathBuf;

use clap::Args;
use keystead::{ErrorKind, KeyStore, KeyStoreExt};
use serde_json::json;

use crate::args::IdArgs;
use crate::encoding::Format;
use crate::exit::{Code, Outcome};
use crate::session::Session;
use crate::{stores, verbose};

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    id: IdArgs,
    /// The format in which the key is written
    #[arg(long, value_enum, default_value_t = Format::Hex)]
    format: Format,
    /// Writes the key to this new file, which only its owner can read, instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Writes raw bytes even to a terminal
    #[arg(long)]
    force: bool,
}

pub(crate) async fn run(session: &Session, args: GetArgs) -> Outcome {
    let id = args.id.read().await?;
    let store = stores::open_to_read(session).await?;
    verbose::step("reading the key");
    let key = store.get_key(&id).await?;
    session.output.key(&key, args.format, args.out.as_deref(), args.force)?;
    Ok(Code::Done)
}

pub(crate) async fn exists(session: &Session, id: IdArgs) -> Outcome {
    let id = id.read().await?;
    let store = stores::open_to_read(session).await?;
    verbose::step("reading the key");
    let found = store.find_key(&id).await;
    let is_erased = matches!(&found, Err(e) if e.kind() == ErrorKind::Erased);
    let exists = !is_erased && found?.is_some();
    let value = json!({ "exists": exists, "erased": is_erased });
    session.output.result(if exists { "yes" } else { "no" }, value)?;
    Ok(if exists { Code::Done } else { Code::NotFound })
}

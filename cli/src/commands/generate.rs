//! `generate`: generates a random key.

use std::path::PathBuf;

use clap::Args;
use keystead::{KeyStoreExt, SecretKey};
use serde_json::json;

use crate::args::IdArgs;
use crate::encoding::Format;
use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::stores;

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    /// Stores the key under this id without showing it, unless the user already has a key; - reads
    /// the id from standard input
    #[arg(value_name = "ID", conflicts_with_all = ["id_file", "format", "out", "force"])]
    id: Option<String>,
    /// Reads the id from this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["format", "out", "force"])]
    id_file: Option<PathBuf>,
    /// The length of the key
    #[arg(long, value_name = "BYTES", default_value_t = 32)]
    length: usize,
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

impl GenerateArgs {
    /// Reports whether the key is stored.
    pub(super) fn has_id(&self) -> bool {
        self.id.is_some() || self.id_file.is_some()
    }
}

pub(crate) async fn run(session: &Session, args: GenerateArgs) -> Outcome {
    let key =
        SecretKey::generate(args.length).map_err(|e| CommandError::usage("this length is not valid").because(e))?;
    if !args.has_id() {
        if session.global.tombstones.is_some() {
            return Err(CommandError::usage("--tombstones needs an id: give the id of the user who gets the key"));
        }
        session.output.key(&key, args.format, args.out.as_deref(), args.force)?;
        return Ok(Code::Done);
    }
    let id = IdArgs { id: args.id, id_file: args.id_file }.read().await?;
    stores::open(session).await?.into_store().create_key(&id, &key).await?;
    session.output.result("created", json!({ "created": true }))?;
    Ok(Code::Done)
}

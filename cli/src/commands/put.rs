//! `put` and `create`.

use std::path::PathBuf;

use clap::Args;
use keystead::{KeyStore, PutMode};
use serde_json::json;

use crate::args::{FenceArgs, IdArgs};
use crate::encoding::Format;
use crate::exit::{Code, Failure, Outcome};
use crate::session::Session;
use crate::{input, stores};

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Reads the key from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// How the key is written there
    #[arg(long, value_enum, default_value_t = Format::Hex)]
    format: Format,
    #[command(flatten)]
    fence: FenceArgs,
}

pub(crate) async fn run(session: &Session, args: PutArgs, mode: PutMode) -> Outcome {
    if args.id.is_on_stdin() && args.key_file.is_none() {
        return Err(Failure::usage("both the id and the key are to come from standard input: give --key-file FILE"));
    }
    let id = args.id.read().await?;
    let key = input::key(args.key_file.as_deref(), args.format).await?;
    stores::open_fenced(session, &args.fence).await?.put_key_with(&id, &key, mode).await?;
    match mode {
        PutMode::Create => session.output.result("created", json!({ "created": true }))?,
        _ => session.output.result("stored", json!({ "stored": true }))?,
    }
    Ok(Code::Done)
}

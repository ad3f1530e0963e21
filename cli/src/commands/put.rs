//! `put` and `create`: store a key.

use std::path::PathBuf;

use clap::Args;
use keystead::{ErrorKind, KeyStore, KeyStoreExt, PutMode};
use serde_json::json;

use crate::args::IdArgs;
use crate::encoding::Format;
use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::{input, stores};

#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    #[command(flatten)]
    id: IdArgs,
    /// Reads the key from this file instead of standard input
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The format of the key that is read
    #[arg(long, value_enum, default_value_t = Format::Hex)]
    format: Format,
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    #[command(flatten)]
    key: CreateArgs,
    /// Replaces a different key of this user; everything that is encrypted under the old key is
    /// lost
    #[arg(long)]
    overwrite: bool,
}

/// Stores a key. Succeeds if the same key is stored already.
pub(crate) async fn put(session: &Session, args: PutArgs) -> Outcome {
    let PutArgs { key: args, overwrite } = args;
    args.check()?;
    let id = args.id.read().await?;
    let key = input::key(args.key_file.as_deref(), args.format).await?;
    let store = stores::open(session).await?.into_store();
    let (text, is_new) = match overwrite {
        true => {
            store.put_key_with(&id, &key, PutMode::Overwrite).await?;
            ("stored", true)
        }
        false => match store.create_key(&id, &key).await {
            Ok(()) => ("stored", true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => match store.get_key(&id).await {
                Ok(standing) if standing == key => ("the same key is already stored", false),
                _ => return Err(e.into()),
            },
            Err(e) => return Err(e.into()),
        },
    };
    session.output.result(text, json!({ "stored": true, "unchanged": !is_new }))?;
    Ok(Code::Done)
}

/// Stores a key, unless the user has any key.
pub(crate) async fn create(session: &Session, args: CreateArgs) -> Outcome {
    args.check()?;
    let id = args.id.read().await?;
    let key = input::key(args.key_file.as_deref(), args.format).await?;
    stores::open(session).await?.into_store().create_key(&id, &key).await?;
    session.output.result("created", json!({ "created": true }))?;
    Ok(Code::Done)
}

impl CreateArgs {
    fn check(&self) -> Outcome<()> {
        if self.id.is_on_stdin() && self.key_file.is_none() {
            return Err(CommandError::usage(
                "the id and the key cannot both be read from standard input: give --key-file FILE",
            ));
        }
        Ok(())
    }
}

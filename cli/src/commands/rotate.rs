//! `rotate`: gives a file store a new root secret.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use keystead::file::{FileUrl, RootSecret};
use keystead::{Effect, KeyStore};
use serde_json::json;

use crate::commands::init;
use crate::exit::{Code, CommandError, Outcome};
use crate::progress::Meter;
use crate::session::Session;
use crate::{input, output, stores, terminal};

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct RotateArgs {
    /// Generates the new root secret and writes it to this new file first
    #[arg(long, value_name = "FILE")]
    new_root_secret_file: Option<PathBuf>,
    /// Asks for a new passphrase on the terminal, twice
    #[arg(long)]
    new_passphrase: bool,
    /// Reads the new passphrase from this file
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Completes a rotation that was interrupted; --store must name the new root secret
    #[arg(long)]
    resume: bool,
}

pub(crate) async fn run(session: &Session, args: RotateArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    let root = stores::root_secret(&asked, &url).await?;
    let store = url.open_with(root.clone()).await?;
    session.close_later(&store);
    if args.resume && !store.is_in_rotation().await? {
        return Err(CommandError::refused(format!(
            "no rotation of {} was interrupted, so there is none to resume: the store opens with the given root secret",
            store.info()
        )));
    }
    let new_root = match (&args.new_root_secret_file, &args.new_passphrase_file) {
        (Some(file), _) => {
            let root = RootSecret::generate();
            init::write(&root, file)?;
            init::warn_of_shared_directory(url.path(), file);
            root
        }
        (None, Some(file)) => input::passphrase(file, "--new-passphrase-file").await?,
        (None, None) if args.new_passphrase => {
            RootSecret::passphrase(terminal::new_passphrase(url.path()).await?.as_str())
        }
        (None, None) => root.clone(),
    };
    let mut meter = Meter::new(session);
    if let Err(e) = store.rotate(new_root, |progress| meter.tell("records", progress.done, Some(progress.total))).await
    {
        if let (Some(file), Effect::NotApplied) = (&args.new_root_secret_file, e.effect()) {
            // This command created the file, and nothing is encrypted under the secret.
            let _ = fs::remove_file(file);
        }
        return Err(e.into());
    }
    drop(meter);
    let clean = store.scrub().await?;
    let file = args.new_root_secret_file.as_ref().map(|file| file.display().to_string());
    let shown = store.info().to_string();
    let value = json!({ "store": shown, "root_secret_file": file, "clean": clean });
    session.output.result(format!("rotated: {shown} opens with the new root secret only"), value)?;
    if !clean {
        output::note("a reader still keeps remains of the old records: run scrub when it has ended");
    }
    // When a rotation was resumed, the given secret is the new one.
    if !args.resume && opens_with(&url, root).await {
        output::note(
            "warning: the new root secret is the same as the old one, so everyone who knows it can still open this \
             store",
        );
        return Ok(Code::Done);
    }
    output::note("next steps:");
    output::note(
        "  1. name the new root secret wherever the store is named: in URLs, variables and the configuration file",
    );
    output::note("  2. make running processes open the store again: until then, they are refused");
    output::note("  3. make a new backup: older backups open only with the old root secret");
    output::note("  4. then destroy the old root secret: nothing else opens the copies that were made before");
    Ok(Code::Done)
}

/// Reports whether the store opens with this root secret.
async fn opens_with(url: &FileUrl, root: RootSecret) -> bool {
    match url.open_with(root).await {
        Ok(store) => {
            drop(store.close().await);
            true
        }
        Err(_) => false,
    }
}

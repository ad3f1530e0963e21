//! `init`: creates a file store.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use keystead::file::{FileUrl, RootSecret};
use keystead::{Effect, ErrorKind, KeyStore};
use serde_json::json;

use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::stores::{self, Asked};
use crate::{files, output, terminal};

#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    /// Uses the existing root secret in the file of the URL's root_secret_file, instead of creating
    /// a new one there
    #[arg(long)]
    existing_root_secret: bool,
}

pub(crate) async fn run(session: &Session, args: InitArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    if fs::metadata(url.path()).is_ok_and(|file| file.len() > 0) {
        return Err(store_exists(url.path()));
    }
    // If a passphrase is given as well, this is refused below.
    let makes_one = !args.existing_root_secret && asked.passphrase_file().is_none();
    let made = url.root_secret_file().filter(|_| makes_one);
    let root = match made {
        Some(file) => {
            let root = RootSecret::generate();
            // Written before anything depends on it.
            if fs::symlink_metadata(file).is_ok() {
                return Err(secret_exists(file));
            }
            write(&root, file)?;
            root
        }
        None => given(&asked, &url).await?,
    };
    let store = match url.options().create(url.path(), root).await {
        Ok(store) => store,
        Err(e) => {
            if let (Some(file), Effect::NotApplied) = (made, e.effect()) {
                // This command created the file, and nothing is encrypted under the secret.
                let _ = fs::remove_file(file);
            }
            return Err(match e.kind() {
                ErrorKind::AlreadyExists => store_exists(url.path()),
                _ => e.into(),
            });
        }
    };
    session.close_later(&store);
    let store = store.info().to_string();
    let file = made.map(|file| file.display().to_string());
    session.output.result(format!("created {store}"), json!({ "store": store, "root_secret_file": file }))?;
    if let Some(file) = file {
        output::note(format!(
            "its root secret is in {file}: keep a copy elsewhere; if the secret is lost, so are all keys"
        ));
    }
    if let Some(file) = asked.secret_file()? {
        warn_of_shared_directory(url.path(), &file);
    }
    Ok(Code::Done)
}

/// Writes a new root secret to a new file.
pub(crate) fn write(root: &RootSecret, file: &Path) -> Outcome<()> {
    let digits = root.to_hex().ok_or_else(|| CommandError::other("a generated root secret has no digits"))?;
    files::create_private(file, digits.as_bytes())
}

/// Warns if a store and the file with its secret are in the same directory, because a copy of the
/// directory then gives access to the keys.
pub(crate) fn warn_of_shared_directory(store: &Path, secret: &Path) {
    if directory(store).is_some_and(|shared| directory(secret) == Some(shared)) {
        output::note(format!(
            "warning: the store and its secret are in the same directory, so a copy of the directory contains both: \
             move {} to another directory",
            secret.display()
        ));
    }
}

/// Returns the directory of a file, with all links resolved; `None` if it cannot be found.
fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::canonicalize(parent).ok()
}

/// Returns the root secret that exists already, or a new passphrase from the terminal.
async fn given(asked: &Asked, url: &FileUrl) -> Outcome<RootSecret> {
    if asked.passphrase_file().is_none() && !url.names_root_secret() {
        return Ok(RootSecret::passphrase(terminal::new_passphrase(url.path()).await?.as_str()));
    }
    stores::root_secret(asked, url).await
}

fn store_exists(store: &Path) -> CommandError {
    CommandError::refused(format!("the file {} already exists and was left unchanged", store.display())).advise(
        "if it is a store, check with doctor whether it opens with its root secret; for a new store, give another path",
    )
}

fn secret_exists(file: &Path) -> CommandError {
    let what = format!("nothing was created: the file {} already exists and was left unchanged", file.display());
    CommandError::refused(what).advise(
        "to create the store with the root secret in it, give --existing-root-secret; otherwise name another file",
    )
}

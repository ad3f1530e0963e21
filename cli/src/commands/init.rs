//! `init`: a new file store.

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
    /// Uses the root secret that stands in the file of the URL's root_secret_file, instead of making a new one there
    #[arg(long)]
    existing_root_secret: bool,
}

pub(crate) async fn run(session: &Session, args: InitArgs) -> Outcome {
    let asked = stores::asked(session)?.writable()?;
    let url = asked.file_url()?;
    if fs::metadata(url.path()).is_ok_and(|file| file.len() > 0) {
        return Err(stands_already(url.path()));
    }
    // With a passphrase besides, it is given twice, which is refused below.
    let makes_one = !args.existing_root_secret && asked.passphrase_file().is_none();
    let made = url.root_secret_file().filter(|_| makes_one);
    let root = match made {
        Some(file) => {
            let root = RootSecret::generate();
            // Kept before anything depends on it.
            if fs::symlink_metadata(file).is_ok() {
                return Err(secret_stands_already(file));
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
                // Made by this very command, and nothing was encrypted under it.
                let _ = fs::remove_file(file);
            }
            return Err(match e.kind() {
                ErrorKind::AlreadyExists => stands_already(url.path()),
                _ => e.into(),
            });
        }
    };
    session.close_later(&store);
    let store = store.info().to_string();
    let file = made.map(|file| file.display().to_string());
    session.output.result(format!("created {store}"), json!({ "store": store, "root_secret_file": file }))?;
    if let Some(file) = file {
        output::note(format!("its root secret is in {file}: keep it elsewhere, too; if it is lost, all keys are"));
    }
    if let Some(file) = asked.secret_file()? {
        warn_of_shared_directory(url.path(), &file);
    }
    Ok(Code::Done)
}

/// Writes a new root secret into a new file.
pub(crate) fn write(root: &RootSecret, file: &Path) -> Outcome<()> {
    let digits = root.to_hex().ok_or_else(|| CommandError::other("a generated root secret has no digits"))?;
    files::create_private(file, digits.as_bytes())
}

/// Warns if a store and the file with its secret are in one directory, because a copy of the directory
/// is then as good as the keys.
pub(crate) fn warn_of_shared_directory(store: &Path, secret: &Path) {
    if directory(store).is_some_and(|shared| directory(secret) == Some(shared)) {
        output::note(format!(
            "warning: the store and its secret are in the same directory, so whoever copies it has both: move {} to \
             another one",
            secret.display()
        ));
    }
}

/// The directory of a file, without links; `None` if it cannot be found.
fn directory(file: &Path) -> Option<PathBuf> {
    let parent = file.parent()?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    fs::canonicalize(parent).ok()
}

/// The root secret that stands somewhere already, or a passphrase that is typed now.
async fn given(asked: &Asked, url: &FileUrl) -> Outcome<RootSecret> {
    if asked.passphrase_file().is_none() && !url.names_root_secret() {
        return Ok(RootSecret::passphrase(terminal::new_passphrase(url.path()).await?.as_str()));
    }
    stores::root_secret(asked, url).await
}

fn stands_already(store: &Path) -> CommandError {
    CommandError::refused(format!("there is a file {} already, and it was left alone", store.display())).advise(
        "if it is a store, open it with its root secret: doctor says whether it opens; for another store give another path",
    )
}

fn secret_stands_already(file: &Path) -> CommandError {
    let what = format!("there is a file {} already, and it was left alone: nothing was created", file.display());
    CommandError::refused(what)
        .advise("to make the store with the root secret in it, say --existing-root-secret; otherwise name another file")
}

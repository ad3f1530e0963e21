//! [`Scratch`]: the place where a run of the suite writes, and how it is deleted again.

use std::collections::HashMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use keystead::file::{FileStore, FileUrl, RootSecret};
use keystead::memory::MemoryStore;
use keystead::{BoxError, KeyStore};
use keystead_conformance::{Harness, Namespace};

use super::account::Account;
use crate::exit::{CommandError, Outcome};
use crate::session::Session;
use crate::stores;

/// The beginning of the name of a run's directory, beside a file store.
const DIRECTORY: &str = "keystead-conformance-";

/// The name of a run: everything that it writes is under this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Run(String);

impl Run {
    fn random() -> Self {
        Self(Namespace::random().to_string())
    }

    /// Parses a name. Accepts only names that a run has shown, because everything under the name is
    /// deleted.
    pub(super) fn parse(name: &str) -> Outcome<Self> {
        let is_name =
            |rest: &str| rest.len() == 14 && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        match name.strip_prefix("ks").filter(|rest| is_name(rest)) {
            Some(_) => Ok(Self(name.to_owned())),
            None => Err(CommandError::usage(
                "this is not a namespace of the suite: give the name that the run showed, ks and 14 lower-case letters \
                 and digits",
            )),
        }
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The place where a run of the suite writes.
pub(super) enum Scratch {
    Memory(Mutex<HashMap<Namespace, MemoryStore>>),
    File { run: Run, directory: PathBuf, root: RootSecret },
    Aws { run: Run, account: Arc<Account> },
}

impl Scratch {
    /// Creates the place for a run, and cleans it up at the end of the program.
    pub(super) async fn create(session: &Session, url: &str) -> Outcome<Self> {
        let run = Run::random();
        if stores::is_file(url) {
            let directory = directory_beside(&FileUrl::parse(url)?, &run);
            make_directory(&directory)?;
            session.remove_later(directory.clone());
            return Ok(Self::File { run, directory, root: RootSecret::generate() });
        }
        // Checks the URL; neither of these stores makes a call when it is opened.
        keystead::open(url).await?;
        if is_memory(url) {
            return Ok(Self::Memory(Mutex::default()));
        }
        let account = Arc::new(Account::new(url, &run));
        let emptied = account.clone();
        session.clean_up_later(async move { emptied.empty_opened().await }, account.cut_off());
        Ok(Self::Aws { run, account })
    }

    /// Returns the name of the kind of store.
    pub(super) fn store_name(&self) -> &str {
        match self {
            Self::Memory(_) => "memory",
            Self::File { .. } => "file",
            Self::Aws { account, .. } => account.scheme(),
        }
    }

    pub(super) fn place(&self) -> String {
        match self {
            Self::Memory(_) => "the process's memory".to_owned(),
            Self::File { directory, .. } => directory.display().to_string(),
            Self::Aws { account, .. } => account.path().to_owned(),
        }
    }

    /// Returns the run, if what it writes outlives a killed program.
    pub(super) fn run_that_lasts(&self) -> Option<&Run> {
        match self {
            Self::Memory(_) => None,
            Self::File { run, .. } | Self::Aws { run, .. } => Some(run),
        }
    }
}

#[async_trait]
impl Harness for Scratch {
    fn name(&self) -> &str {
        self.store_name()
    }

    async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(match self {
            Self::Memory(stores) => Arc::new(memory(stores, ns)),
            Self::File { directory, root, .. } => {
                Arc::new(FileStore::create(database(directory, ns), root.clone()).await?)
            }
            Self::Aws { account, .. } => account.open(ns).await?,
        })
    }

    async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        Ok(match self {
            Self::Memory(stores) => Arc::new(memory(stores, ns)),
            Self::File { directory, root, .. } => {
                Arc::new(FileStore::open(database(directory, ns), root.clone()).await?)
            }
            Self::Aws { account, .. } => account.reopen(ns).await?,
        })
    }

    /// Deletes the keys that a case left in an AWS account, where they cost money. Other places are
    /// removed at the end of the run.
    async fn close(&self, ns: &Namespace) -> Result<(), BoxError> {
        if let Self::Aws { account, .. } = self {
            account.close(ns).await;
        }
        Ok(())
    }
}

fn memory(stores: &Mutex<HashMap<Namespace, MemoryStore>>, ns: &Namespace) -> MemoryStore {
    stores.lock().unwrap_or_else(PoisonError::into_inner).entry(ns.clone()).or_default().clone()
}

fn database(directory: &Path, ns: &Namespace) -> PathBuf {
    directory.join(ns.as_str()).join("keys.db")
}

fn is_memory(url: &str) -> bool {
    stores::scheme(url).eq_ignore_ascii_case("memory")
}

/// Returns the directory of a run, which is on the same disk as the store.
fn directory_beside(url: &FileUrl, run: &Run) -> PathBuf {
    url.path().parent().unwrap_or(url.path()).join(format!("{DIRECTORY}{run}"))
}

fn make_directory(directory: &Path) -> Outcome<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(|e| CommandError::other("cannot create a directory for the suite beside the store").because(e))
}

/// Deletes what a run that has ended left behind. Returns the number of keys (in AWS) or of stores
/// (beside a file store). Calls `tell` with the progress.
pub(super) async fn clean_up(url: &str, run: &Run, tell: impl FnMut(u64, u64) + Send) -> Outcome<u64> {
    if stores::is_file(url) {
        return remove_directory(&directory_beside(&FileUrl::parse(url)?, run));
    }
    keystead::open(url).await?;
    if is_memory(url) {
        return Err(CommandError::usage("a run against memory: leaves nothing behind: give the store of the run"));
    }
    Account::new(url, run).empty_all(tell).await
}

/// Removes the directory of a run. Returns the number of stores that were in it.
fn remove_directory(directory: &Path) -> Outcome<u64> {
    let shown = directory.display();
    let stores = match stores_in(directory) {
        Ok(Some(stores)) => stores,
        Ok(None) => {
            return Err(CommandError::refused(format!(
                "{shown} contains files that the suite did not write, and was left unchanged: inspect it"
            )));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(e) => return Err(CommandError::other(format!("cannot read the directory {shown}")).because(e)),
    };
    fs::remove_dir_all(directory)
        .map_err(|e| CommandError::other(format!("cannot remove the directory {shown}")).because(e))?;
    Ok(stores)
}

/// Returns the number of stores in the directory of a run; `None` if it is not such a directory, or
/// contains anything else.
fn stores_in(directory: &Path) -> io::Result<Option<u64>> {
    if !fs::symlink_metadata(directory)?.is_dir() {
        return Ok(None);
    }
    let mut stores = 0;
    for store in fs::read_dir(directory)? {
        let store = store?;
        let is_namespace = store.file_name().to_str().is_some_and(|name| Run::parse(name).is_ok());
        if !is_namespace || !store.file_type()?.is_dir() {
            return Ok(None);
        }
        for file in fs::read_dir(store.path())? {
            if !file?.file_name().to_string_lossy().starts_with("keys.db") {
                return Ok(None);
            }
        }
        stores += 1;
    }
    Ok(Some(stores))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_a_name_that_is_read_back_and_nothing_else_is_one() {
        let run = Run::random();
        assert_eq!(Run::parse(&run.to_string()).unwrap(), run);
        for name in
            ["", "ks", "..", "ks../../../../../", "ks0123456789abc", "ks0123456789abcde", "KS0123456789abcd", "*"]
        {
            assert!(Run::parse(name).is_err(), "{name}");
        }
    }
}

//! [`Account`]: the names that a run of the suite uses in an AWS account, and the keys under them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use keystead::{BoxError, Error, ErrorKind, KeyId, KeyStore};
use keystead_conformance::Namespace;
use tokio::time::sleep;

use super::scratch::Run;
use crate::exit::{Code, CommandError, Outcome};
use crate::{output, stores};

/// The path that contains the paths of all runs.
const PARENT: &str = "/keystead-conformance";

/// The largest number of namespaces that a run opens. Namespaces are numbered, so that everything
/// that a run may have left can be found by the name of the run alone.
const MOST_NAMESPACES: usize = 200;

/// The number of times that a namespace is listed and emptied until the listing is empty. The last
/// writes may be listed late.
const ROUNDS: u32 = 6;
const PAUSE: Duration = Duration::from_secs(1);

/// The names that a run uses in an account: `/keystead-conformance/RUN/NUMBER/%s`.
pub(super) struct Account {
    scheme: String,
    path: String,
    parameters: String,
    run: Run,
    opened: Mutex<Opened>,
}

/// The namespaces that the run has opened.
#[derive(Default)]
struct Opened {
    numbers: HashMap<Namespace, usize>,
    /// The numbers of the namespaces that may still contain keys.
    full: BTreeSet<usize>,
}

/// The result of listing a namespace once and deleting the listed keys.
#[derive(Default)]
struct Emptied {
    listed: u64,
    deleted: u64,
    failure: Option<Error>,
}

impl Account {
    pub(super) fn new(url: &str, run: &Run) -> Self {
        Self {
            scheme: stores::scheme(url).to_ascii_lowercase(),
            path: format!("{PARENT}/{run}"),
            parameters: url.split_once('?').map_or("", |(_, parameters)| parameters).to_owned(),
            run: run.clone(),
            opened: Mutex::default(),
        }
    }

    pub(super) fn scheme(&self) -> &str {
        &self.scheme
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) async fn open(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        let number = self.opened().number(ns)?;
        Ok(self.store(number).await?)
    }

    /// Opens a namespace again.
    pub(super) async fn reopen(&self, ns: &Namespace) -> Result<Arc<dyn KeyStore>, BoxError> {
        self.open(ns).await
    }

    /// Empties a namespace when its case has ended. Keys that remain are deleted at the end of the
    /// run.
    pub(super) async fn close(&self, ns: &Namespace) {
        let Some(number) = self.opened().numbers.get(ns).copied() else { return };
        if let Ok(Emptied { failure: None, .. }) = self.empty_once(number).await {
            self.opened().full.remove(&number);
        }
    }

    /// Empties the namespaces that may still contain keys.
    pub(super) async fn empty_opened(&self) -> Outcome<()> {
        let full = self.opened().full.clone();
        if full.is_empty() {
            return Ok(());
        }
        output::note(format!("deleting what the suite left in {}", self.path));
        // Gives writes that were under way when the run was interrupted time to take effect.
        sleep(PAUSE).await;
        let mut first_failure = None;
        for number in full {
            match self.empty(number).await {
                Ok(_) => {}
                Err(e) => {
                    first_failure.get_or_insert(e);
                }
            }
        }
        first_failure.map_or(Ok(()), |e| Err(self.left_behind().because(e)))
    }

    /// Empties all namespaces that the run may have opened. Returns the number of deleted keys.
    pub(super) async fn empty_all(&self, mut tell: impl FnMut(u64, u64)) -> Outcome<u64> {
        let mut deleted = 0;
        for number in 0..MOST_NAMESPACES {
            deleted += self.empty(number).await.map_err(|e| self.left_behind().because(e))?;
            tell(number as u64 + 1, MOST_NAMESPACES as u64);
        }
        Ok(deleted)
    }

    /// Returns the error of a clean-up that was not completed.
    pub(super) fn cut_off(&self) -> CommandError {
        self.left_behind().because("the clean-up took too long, or was interrupted")
    }

    fn left_behind(&self) -> CommandError {
        let Self { run, path, .. } = self;
        CommandError::new(
            Code::LeftBehind,
            format!(
                "cannot delete what the suite wrote in {path}: run keystead conformance --clean-up {run} with the same \
                 store"
            ),
        )
    }

    async fn store(&self, number: usize) -> Result<Arc<dyn KeyStore>, Error> {
        let Self { scheme, path, parameters, .. } = self;
        keystead::open(&format!("{scheme}://{path}/{number}/%s?{parameters}")).await
    }

    /// Deletes the keys in a namespace until none is listed. Returns the number of deleted keys.
    async fn empty(&self, number: usize) -> Result<u64, Error> {
        let mut deleted = 0;
        let mut failure = None;
        for round in 0..ROUNDS {
            if round > 0 {
                sleep(PAUSE).await;
            }
            let emptied = self.empty_once(number).await?;
            deleted += emptied.deleted;
            failure = emptied.failure;
            if emptied.listed == 0 || failure.as_ref().is_some_and(|e| !e.is_retryable()) {
                break;
            }
        }
        failure.map_or(Ok(deleted), Err)
    }

    async fn empty_once(&self, number: usize) -> Result<Emptied, Error> {
        let store = self.store(number).await?;
        let mut emptied = Emptied::default();
        let mut ids: Vec<KeyId> = Vec::new();
        let mut listed = store.list_keys();
        while let Some(item) = listed.next().await {
            emptied.listed += 1;
            match item {
                Ok(id) => ids.push(id),
                Err(e) if e.kind() == ErrorKind::Corrupt => emptied.failure = Some(e),
                Err(e) => return Err(e),
            }
        }
        for deletion in store.delete_keys(&ids).await {
            match deletion {
                Ok(_) => emptied.deleted += 1,
                // A listing that lags shows keys that are already deleted.
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => {}
                Err(e) => emptied.failure = Some(e),
            }
        }
        Ok(emptied)
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Opened {
    /// Returns the number of a namespace, which may contain keys from now on.
    fn number(&mut self, ns: &Namespace) -> Result<usize, BoxError> {
        let next = self.numbers.len();
        let number = *self.numbers.entry(ns.clone()).or_insert(next);
        if number >= MOST_NAMESPACES {
            return Err(format!("the suite opens more than {MOST_NAMESPACES} namespaces: report that as a bug").into());
        }
        self.full.insert(number);
        Ok(number)
    }
}

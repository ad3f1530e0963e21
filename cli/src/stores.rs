//! From what was given as the store to an open one.

use std::env::VarError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use keystead::file::{FileStore, FileUrl, RootSecret};
use keystead::layers::{Fenced, ReadOnly};
use keystead::{Consistency, Durability, KeyStore};

use crate::args::DurabilityArg;
use crate::config::{self, Entry, Said};
use crate::exit::{CommandError, Outcome};
use crate::session::Session;
use crate::{input, store_path, terminal, verbose};

/// A store behind a fence.
pub(crate) type Fence = Fenced<Arc<dyn KeyStore>, Arc<dyn KeyStore>>;

/// A store that was asked for, and what holds for it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) url: String,
    passphrase_file: Option<PathBuf>,
    /// The option or the file that names it, or could.
    passphrase_by: &'static str,
    tombstones: Option<Tombstones>,
    is_read_only: bool,
    /// Whether the configuration file names it as the store of another one's tombstones.
    pub(crate) keeps_tombstones: bool,
}

/// The store that keeps the tombstones, as it was named.
#[derive(Clone, Debug)]
pub(crate) struct Tombstones {
    store: String,
    accepted: Option<DurabilityArg>,
}

/// A store that was opened as the configuration asks.
pub(crate) enum Guarded {
    Bare(Arc<dyn KeyStore>),
    Fenced(Box<Fence>),
}

impl Guarded {
    /// The store in words: where it is, as far as it can be found out.
    pub(crate) async fn described(&self) -> String {
        match self {
            Self::Bare(store) => described(&**store).await,
            Self::Fenced(fence) => described(&**fence).await,
        }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Bare(store) => store.info().scheme(),
            Self::Fenced(fence) => fence.info().scheme(),
        }
    }

    pub(crate) fn into_store(self) -> Arc<dyn KeyStore> {
        match self {
            Self::Bare(store) => store,
            Self::Fenced(fence) => Arc::new(*fence),
        }
    }
}

impl Asked {
    pub(crate) fn is_file(&self) -> bool {
        is_file(&self.url)
    }

    /// Takes the passphrase of a second store from this file, or from that of --passphrase-file if nothing else is named.
    pub(crate) fn with_passphrase(
        mut self,
        session: &Session,
        option: &'static str,
        file: Option<&Path>,
    ) -> Outcome<Self> {
        if !self.is_file() {
            return match file {
                Some(_) => Err(CommandError::usage(format!("only a file store has a passphrase: leave out {option}"))),
                None => Ok(self),
            };
        }
        if let Some(file) = file {
            self.passphrase_file = Some(file.to_owned());
            self.passphrase_by = option;
        } else if self.passphrase_file.is_none() && !self.file_url()?.names_root_secret() {
            self.passphrase_file = session.global.passphrase_file.clone();
            self.passphrase_by = if self.passphrase_file.is_some() { "--passphrase-file" } else { option };
        }
        Ok(self)
    }

    /// Refuses a command that would change a store which is to be read only.
    pub(crate) fn writable(self) -> Outcome<Self> {
        if self.is_read_only {
            return Err(CommandError::refused(
                "the configuration file says read_only of this store: nothing was done; change it there if it is to be written",
            ));
        }
        Ok(self)
    }

    /// Refuses a command that would write keys or take away tombstones.
    pub(crate) fn keeps_keys(self) -> Outcome<Self> {
        if self.keeps_tombstones {
            return Err(CommandError::refused(
                "the configuration file names this store as one of tombstones, without which erased users come back: nothing \
                 was done; give the store of the keys",
            ));
        }
        Ok(self)
    }

    /// The URL of this store, which is one in a file.
    pub(crate) fn file_url(&self) -> Outcome<FileUrl> {
        if !self.is_file() {
            return Err(CommandError::usage("only a file store can do that: give the URL of one, file:///PATH"));
        }
        Ok(FileUrl::parse(&self.url)?)
    }

    /// The file that holds the root secret or the passphrase of this store, if a file does.
    pub(crate) fn secret_file(&self) -> Outcome<Option<PathBuf>> {
        if !self.is_file() {
            return Ok(None);
        }
        let url = FileUrl::parse(&self.url)?;
        Ok(url.secret_file().or(self.passphrase_file.as_deref()).map(Path::to_owned))
    }

    /// The file of the passphrase that was named beside the URL.
    pub(crate) fn passphrase_file(&self) -> Option<&Path> {
        self.passphrase_file.as_deref()
    }

    pub(crate) fn tombstones(&self) -> Option<&Tombstones> {
        self.tombstones.as_ref()
    }
}

/// The store that was asked for with `--store`.
pub(crate) fn asked(session: &Session) -> Outcome<Asked> {
    let missing = || CommandError::usage("no store is given: give --store URL or --store NAME, or set KEYSTEAD_STORE");
    let store = session.global.store.as_deref().filter(|store| !store.is_empty()).ok_or_else(missing)?;
    let mut asked = resolve(session, store)?;
    if let Some(file) = &session.global.passphrase_file {
        asked.passphrase_file = Some(file.clone());
        asked.passphrase_by = "--passphrase-file";
    }
    for (name, value) in [("region", &session.global.region), ("profile", &session.global.profile)] {
        if let Some(value) = value {
            asked.url = with_parameter(asked.url, name, value)?;
        }
    }
    Ok(asked)
}

/// The store that a text is the URL or the name of, and what the configuration file, the options and the environment say.
pub(crate) fn resolve(session: &Session, store: &str) -> Outcome<Asked> {
    let global = &session.global;
    // A name has no colon, a URL has one behind its scheme.
    let Said { entry, keeps_tombstones } = match store.contains(':') {
        true => match store_path::refusal(store) {
            Some(refusal) => return Err(refusal),
            None => config::of_url(store, global.config.as_deref())?,
        },
        false => config::named(store, global.config.as_deref(), || store_path::refusal(store))?,
    };
    let (url, passphrase_file, is_read_only) = match &entry {
        Some(entry) => (entry.url.clone(), entry.passphrase_file.clone(), entry.read_only),
        None => (store.to_owned(), None, false),
    };
    let passphrase_by = if passphrase_file.is_some() { "the configuration file" } else { "--passphrase-file" };
    let tombstones = tombstones(session, entry.as_ref())?;
    Ok(Asked { url, passphrase_file, passphrase_by, tombstones, is_read_only, keeps_tombstones })
}

/// The tombstones of a store. The configuration file's can be gone around, but not replaced.
fn tombstones(session: &Session, entry: Option<&Entry>) -> Outcome<Option<Tombstones>> {
    let global = &session.global;
    let configured = entry.and_then(|entry| entry.tombstones.as_deref());
    if global.no_tombstones {
        return Ok(None);
    }
    if let (Some(configured), Some(given)) = (configured, &global.tombstones)
        && configured != given
    {
        return Err(CommandError::usage(
            "the configuration file names other tombstones for this store: leave out --tombstones, or change the file",
        ));
    }
    let default = match std::env::var("KEYSTEAD_TOMBSTONES") {
        Ok(store) => Some(store).filter(|store| !store.is_empty()),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            return Err(CommandError::usage("the variable KEYSTEAD_TOMBSTONES is not UTF-8"));
        }
    };
    let store = configured.map(str::to_owned).or_else(|| global.tombstones.clone()).or(default);
    if store.is_none() && global.accept_tombstone_durability.is_some() {
        return Err(CommandError::usage("--accept-tombstone-durability goes with tombstones: give --tombstones, too"));
    }
    let accepted = global.accept_tombstone_durability.or(entry.and_then(|entry| entry.accept_tombstone_durability));
    Ok(store.map(|store| Tombstones { store, accepted }))
}

/// A URL with one parameter more, for AWS.
fn with_parameter(url: String, name: &str, value: &str) -> Outcome<String> {
    if !matches!(scheme(&url).to_ascii_lowercase().as_str(), "ssm" | "secretsmanager") {
        return Err(CommandError::usage(format!("--{name} is for stores in AWS: leave it out")));
    }
    if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(CommandError::usage(format!(
            "this {name} has characters that --{name} does not take: set it in the URL"
        )));
    }
    let (_, parameters) = url.split_once('?').unwrap_or_default();
    if parameters.split('&').any(|parameter| parameter.split('=').next() == Some(name)) {
        return Err(CommandError::usage(format!("the {name} is given twice: by the URL and by --{name}")));
    }
    let separator = if url.contains('?') { '&' } else { '?' };
    Ok(format!("{url}{separator}{name}={value}"))
}

pub(crate) fn is_file(url: &str) -> bool {
    scheme(url).eq_ignore_ascii_case("file")
}

pub(crate) fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// Opens the store that was asked for, for a command that writes or deletes. It must outlive the
/// command.
pub(crate) async fn open(session: &Session) -> Outcome<Guarded> {
    open_to_write(session, asked(session)?).await
}

/// Opens the store that was asked for, for a command that only reads.
pub(crate) async fn open_to_read(session: &Session) -> Outcome<Arc<dyn KeyStore>> {
    open_asked_to_read(session, &asked(session)?).await
}

/// Opens this store to write, unless it ends with the command: keys that are put there are lost,
/// and a key that is not found there is not erased.
pub(crate) async fn open_to_write(session: &Session, asked: Asked) -> Outcome<Guarded> {
    let asked = asked.writable()?.keeps_keys()?;
    let store = lasting(open_bare(session, &asked).await?, &asked)?;
    guard(session, store, &asked).await
}

fn lasting(store: Arc<dyn KeyStore>, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if store.capabilities().durability == Durability::Process {
        let scheme = scheme(&asked.url).to_ascii_lowercase();
        return Err(CommandError::usage(format!("{scheme}: is gone when this command ends: give a store that lasts")));
    }
    Ok(store)
}

/// Opens this store to read, whether or not it lasts.
pub(crate) async fn open_asked_to_read(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if asked.is_read_only {
        must_exist(asked)?;
    }
    // Beneath the fence, too, which would delete what has come back of an erased user.
    let store: Arc<dyn KeyStore> = Arc::new(ReadOnly::new(open_bare(session, asked).await?));
    Ok(Arc::new(ReadOnly::new(guard(session, store, asked).await?.into_store())))
}

/// Opens the store that was asked for behind its fence, for a command that reads both.
pub(crate) async fn open_fence_to_read(session: &Session) -> Outcome<Fence> {
    let asked = asked(session)?;
    let store: Arc<dyn KeyStore> = Arc::new(ReadOnly::new(open_bare(session, &asked).await?));
    match guard(session, store, &asked).await? {
        Guarded::Fenced(fence) => Ok(*fence),
        Guarded::Bare(_) => Err(no_tombstones()),
    }
}

/// Opens this store to read, unless it ends with the command: nothing can be in it.
pub(crate) async fn open_lasting_to_read(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    lasting(open_asked_to_read(session, asked).await?, asked)
}

/// Opens this store without a fence, as `doctor` looks at it.
pub(crate) async fn open_bare(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if asked.is_file() {
        return Ok(Arc::new(open_file(session, asked).await?));
    }
    verbose::step(format!("opening a store in {}", scheme(&asked.url).to_ascii_lowercase()));
    let store = keystead::open(&asked.url).await?;
    verbose::tell_store(&*store).await;
    Ok(store)
}

/// Refuses a file store that is missing, even if its URL says that it is to be created.
fn must_exist(asked: &Asked) -> Outcome<()> {
    match asked.is_file() {
        true if !asked.file_url()?.path().exists() => Err(CommandError::usage(format!(
            "there is no store at {}, and this command creates none: give the path of one, or create it with init",
            asked.file_url()?.path().display()
        ))),
        _ => Ok(()),
    }
}

/// The store in words: where it is, as far as it can be found out.
pub(crate) async fn described(store: &dyn KeyStore) -> String {
    // An account that cannot be asked for is left out.
    drop(store.identify().await);
    store.info().to_string()
}

/// Nothing can be done without tombstones.
pub(crate) fn no_tombstones() -> CommandError {
    CommandError::usage(
        "no tombstones are given: give --tombstones URL or NAME, or name them in the configuration file",
    )
}

/// A fence around the store, if it has tombstones.
async fn guard(session: &Session, store: Arc<dyn KeyStore>, asked: &Asked) -> Outcome<Guarded> {
    let Some(tombstones) = &asked.tombstones else { return Ok(Guarded::Bare(store)) };
    let opened = open_tombstones(session, tombstones).await?;
    Ok(Guarded::Fenced(Box::new(fence(store, opened, tombstones)?)))
}

/// Opens a store of tombstones.
pub(crate) async fn open_tombstones(session: &Session, named: &Tombstones) -> Outcome<Arc<dyn KeyStore>> {
    let mut asked = resolve(session, &named.store)?;
    if asked.passphrase_file.is_none() {
        asked.passphrase_by = "in the configuration file passphrase_file =";
    }
    if asked.is_read_only {
        return Err(CommandError::refused(
            "the configuration file says read_only of the store of the tombstones: a fence has to write there",
        ));
    }
    must_exist(&asked)?;
    let store = open_bare(session, &asked).await?;
    if store.capabilities().consistency != Consistency::Strong {
        return Err(CommandError::usage(
            "the store of the tombstones is not strongly consistent: use one that is, such as a file store",
        ));
    }
    if store.capabilities().durability == Durability::Process {
        return Err(CommandError::usage("the tombstones would end with this command: give a store that lasts"));
    }
    Ok(store)
}

/// A fence around the store, with the tombstones in the other one.
pub(crate) fn fence(store: Arc<dyn KeyStore>, tombstones: Arc<dyn KeyStore>, named: &Tombstones) -> Outcome<Fence> {
    let durability = tombstones.capabilities().durability;
    if named.accepted.is_none() && durability < store.capabilities().durability {
        return Err(CommandError::usage(
            "the tombstones are less durable than the keys: if they are lost, erased users can be created again; give a \
             more durable store, or accept that with --accept-tombstone-durability host",
        ));
    }
    let mut builder = Fenced::builder(store, tombstones);
    if let Some(accepted) = named.accepted {
        builder = builder.accept_tombstone_durability(accepted.into());
    }
    Ok(builder.build()?)
}

/// Opens a file store, for what only such a store can do.
pub(crate) async fn open_file(session: &Session, asked: &Asked) -> Outcome<FileStore> {
    let url = asked.file_url()?;
    let root = root_secret(asked, &url).await?;
    verbose::step(format!("opening the file store {}", url.path().display()));
    let store = url.open_with(root).await?;
    session.close_later(&store);
    verbose::tell_store(&store).await;
    Ok(store)
}

/// The root secret that the URL, the options or the configuration file name, else a passphrase from the terminal.
pub(crate) async fn root_secret(asked: &Asked, url: &FileUrl) -> Outcome<RootSecret> {
    match (&asked.passphrase_file, url.names_root_secret()) {
        (Some(_), true) => Err(CommandError::usage(format!(
            "the root secret is given twice: by the URL and by {}",
            asked.passphrase_by
        ))),
        (None, true) => {
            if let Some(file) = url.secret_file() {
                verbose::step(format!("reading the secret of the store from {}", file.display()));
            }
            let url = url.clone();
            Ok(input::waiting(move || url.root_secret()).await??)
        }
        (Some(file), false) => input::passphrase(file, asked.passphrase_by).await,
        (None, false) => {
            let prompt = format!("passphrase of {}: ", url.path().display());
            Ok(RootSecret::passphrase(terminal::passphrase(&prompt, asked.passphrase_by).await?.as_str()))
        }
    }
}

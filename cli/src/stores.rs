//! Opens the stores that the command line, the environment and the configuration file name.

use std::env::VarError;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::StreamExt;
use keystead::file::{FileStore, FileUrl, RootSecret};
use keystead::layers::{Fenced, ReadOnly, is_fence_key};
use keystead::{Consistency, Durability, KeyStore};

use crate::args::DurabilityArg;
use crate::config::{self, Entry, StoreSettings};
use crate::exit::{CommandError, Outcome};
use crate::session::Session;
use crate::{input, store_path, terminal, verbose};

/// A store behind a fence.
pub(crate) type Fence = Fenced<Arc<dyn KeyStore>, Arc<dyn KeyStore>>;

/// A store that was asked for, with its settings.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) url: String,
    passphrase_file: Option<PathBuf>,
    /// The option or the file that names the passphrase file, or could name it.
    passphrase_by: &'static str,
    tombstones: Option<Tombstones>,
    is_read_only: bool,
    /// True if the configuration file names it as the store of another store's tombstones.
    pub(crate) keeps_tombstones: bool,
}

/// The store that keeps the tombstones, as it was named.
#[derive(Clone, Debug)]
pub(crate) struct Tombstones {
    store: String,
    accepted: Option<DurabilityArg>,
}

/// An open store, behind a fence if it has tombstones.
pub(crate) enum Guarded {
    Bare(Arc<dyn KeyStore>),
    Fenced(Box<Fence>),
}

impl Guarded {
    /// Returns the name and place of the store in words, as far as they can be found out.
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

    /// Sets the passphrase file of a second store: this one, or that of `--passphrase-file` if
    /// nothing else is named.
    pub(crate) fn with_passphrase(
        mut self,
        session: &Session,
        option: &'static str,
        file: Option<&Path>,
    ) -> Outcome<Self> {
        if !self.is_file() {
            return match file {
                Some(_) => Err(CommandError::usage(format!("{option} applies only to file stores: leave it out"))),
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

    /// Refuses a command that would change a store with the setting `read_only`.
    pub(crate) fn writable(self) -> Outcome<Self> {
        if self.is_read_only {
            return Err(CommandError::refused(
                "nothing was done: the configuration file makes this store read_only; remove that setting to change \
                 the store",
            ));
        }
        Ok(self)
    }

    /// Refuses a command that would write keys to a store of tombstones, or delete tombstones.
    pub(crate) fn keeps_keys(self) -> Outcome<Self> {
        if self.keeps_tombstones {
            return Err(CommandError::refused(
                "nothing was done: the configuration file names this store as one of tombstones, and without them \
                 erased users could come back; give the store of the keys",
            ));
        }
        Ok(self)
    }

    /// Returns the parsed URL of this file store; refuses any other store.
    pub(crate) fn file_url(&self) -> Outcome<FileUrl> {
        if !self.is_file() {
            return Err(CommandError::usage(
                "this command works only on file stores: give the URL of one, file:///PATH",
            ));
        }
        Ok(FileUrl::parse(&self.url)?)
    }

    /// Returns the file that contains the root secret or the passphrase of this store, if there is
    /// one.
    pub(crate) fn secret_file(&self) -> Outcome<Option<PathBuf>> {
        if !self.is_file() {
            return Ok(None);
        }
        let url = FileUrl::parse(&self.url)?;
        Ok(url.secret_file().or(self.passphrase_file.as_deref()).map(Path::to_owned))
    }

    /// Returns the passphrase file that was named in addition to the URL.
    pub(crate) fn passphrase_file(&self) -> Option<&Path> {
        self.passphrase_file.as_deref()
    }

    pub(crate) fn tombstones(&self) -> Option<&Tombstones> {
        self.tombstones.as_ref()
    }
}

/// Returns the store that was asked for with `--store`.
pub(crate) fn asked(session: &Session) -> Outcome<Asked> {
    let missing = || {
        CommandError::usage("no store is given: give --store URL or --store NAME, or set the variable KEYSTEAD_STORE")
    };
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

/// Returns the store with this URL or name, with its settings from the configuration file, the
/// options and the environment.
pub(crate) fn resolve(session: &Session, store: &str) -> Outcome<Asked> {
    let global = &session.global;
    // A name has no colon; a URL has one after its scheme.
    let StoreSettings { entry, keeps_tombstones } = match store.contains(':') {
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

/// Returns the tombstones of a store. Those in the configuration file can be ignored, but not
/// replaced.
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
        return Err(CommandError::usage("--accept-tombstone-durability needs tombstones: give --tombstones, too"));
    }
    let accepted = global.accept_tombstone_durability.or(entry.and_then(|entry| entry.accept_tombstone_durability));
    Ok(store.map(|store| Tombstones { store, accepted }))
}

/// Adds a parameter to the URL of an AWS store.
fn with_parameter(url: String, name: &str, value: &str) -> Outcome<String> {
    if !matches!(scheme(&url).to_ascii_lowercase().as_str(), "ssm" | "secretsmanager") {
        return Err(CommandError::usage(format!("--{name} applies only to stores in AWS: leave it out")));
    }
    if !value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
        return Err(CommandError::usage(format!(
            "this {name} has characters that --{name} does not accept: set it in the URL"
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

/// Opens the store that was asked for, for a command that writes or deletes. Refuses a store that
/// ends with the command.
pub(crate) async fn open(session: &Session) -> Outcome<Guarded> {
    open_to_write(session, asked(session)?).await
}

/// Opens the store that was asked for, for a command that only reads.
pub(crate) async fn open_to_read(session: &Session) -> Outcome<Arc<dyn KeyStore>> {
    open_asked_to_read(session, &asked(session)?).await
}

/// Opens this store to write. Refuses a store that ends with the command: keys that are put there
/// are lost, and a key that is not found there is not erased.
pub(crate) async fn open_to_write(session: &Session, asked: Asked) -> Outcome<Guarded> {
    let asked = asked.writable()?.keeps_keys()?;
    let store = lasting(open_bare(session, &asked).await?, &asked)?;
    guard(session, store, &asked).await
}

fn lasting(store: Arc<dyn KeyStore>, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if store.capabilities().durability == Durability::Process {
        let scheme = scheme(&asked.url).to_ascii_lowercase();
        return Err(CommandError::usage(format!(
            "a store with the URL {scheme}: ends with this command: give a store that lasts"
        )));
    }
    Ok(store)
}

/// Opens this store to read, even if it ends with the command.
pub(crate) async fn open_asked_to_read(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if asked.is_read_only {
        must_exist(asked)?;
    }
    // Read-only beneath the fence, too, which otherwise deletes keys of erased users that came
    // back.
    let store: Arc<dyn KeyStore> = Arc::new(ReadOnly::new(open_bare(session, asked).await?));
    Ok(Arc::new(ReadOnly::new(guard(session, store, asked).await?.into_store())))
}

/// Opens the store that was asked for behind its fence, for a command that reads the keys and the
/// tombstones.
pub(crate) async fn open_fence_to_read(session: &Session) -> Outcome<Fence> {
    let asked = asked(session)?;
    let store: Arc<dyn KeyStore> = Arc::new(ReadOnly::new(open_bare(session, &asked).await?));
    match guard(session, store, &asked).await? {
        Guarded::Fenced(fence) => Ok(*fence),
        Guarded::Bare(_) => Err(no_tombstones()),
    }
}

/// Opens this store to read. Refuses a store that ends with the command, which can only be empty.
pub(crate) async fn open_lasting_to_read(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    lasting(open_asked_to_read(session, asked).await?, asked)
}

/// Opens this store without a fence.
pub(crate) async fn open_bare(session: &Session, asked: &Asked) -> Outcome<Arc<dyn KeyStore>> {
    if asked.is_file() {
        return Ok(Arc::new(open_file(session, asked).await?));
    }
    verbose::step(format!("opening a store in {}", scheme(&asked.url).to_ascii_lowercase()));
    let store = keystead::open(&asked.url).await?;
    verbose::tell_store(&*store).await;
    Ok(store)
}

/// Refuses a file store that does not exist, even if its URL allows creating it.
fn must_exist(asked: &Asked) -> Outcome<()> {
    match asked.is_file() {
        true if !asked.file_url()?.path().exists() => Err(CommandError::usage(format!(
            "there is no store at {}, and this command does not create one: correct the path, or create the store with \
             init",
            asked.file_url()?.path().display()
        ))),
        _ => Ok(()),
    }
}

/// Returns the name and place of a store in words, as far as they can be found out.
pub(crate) async fn described(store: &dyn KeyStore) -> String {
    // If AWS does not tell the account, it is left out.
    drop(store.identify().await);
    store.info().to_string()
}

/// Returns the error of a command that needs tombstones.
pub(crate) fn no_tombstones() -> CommandError {
    CommandError::usage(
        "no tombstones are given: give --tombstones URL or NAME, or name them in the configuration file",
    )
}

/// Puts a fence around the store, if it has tombstones.
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
            "the configuration file makes the store of the tombstones read_only, but an erasure must write there: \
             remove that setting",
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

/// Refuses a store of tombstones that no fence has used yet: it cannot tell who was erased since a
/// backup. `nothing` says what was not done.
pub(crate) async fn must_hold_tombstones(store: &dyn KeyStore, nothing: &str) -> Outcome<()> {
    let mut ids = store.list_keys();
    while let Some(id) = ids.next().await {
        if is_fence_key(&id?) {
            return Ok(());
        }
    }
    Err(CommandError::refused(format!(
        "{nothing}: {} holds no tombstones, so it cannot tell who was erased since the backup",
        store.info()
    ))
    .advise("give the store that has the tombstones; if nobody was ever erased, say --no-tombstones"))
}

/// Puts a fence around the store, with the tombstones in the other store.
pub(crate) fn fence(store: Arc<dyn KeyStore>, tombstones: Arc<dyn KeyStore>, named: &Tombstones) -> Outcome<Fence> {
    let durability = tombstones.capabilities().durability;
    if named.accepted.is_none() && durability < store.capabilities().durability {
        return Err(CommandError::usage(
            "the tombstones are less durable than the keys: if they are lost, erased users can get keys again; give a \
             more durable store, or accept that with --accept-tombstone-durability host",
        ));
    }
    let mut builder = Fenced::builder(store, tombstones);
    if let Some(accepted) = named.accepted {
        builder = builder.accept_tombstone_durability(accepted.into());
    }
    Ok(builder.build()?)
}

/// Opens a file store, for a command that works only on file stores.
pub(crate) async fn open_file(session: &Session, asked: &Asked) -> Outcome<FileStore> {
    let url = asked.file_url()?;
    let root = root_secret(asked, &url).await?;
    verbose::step(format!("opening the file store {}", url.path().display()));
    let store = url.open_with(root).await?;
    session.close_later(&store);
    verbose::tell_store(&store).await;
    Ok(store)
}

/// Returns the root secret that the URL, the options or the configuration file name; asks for a
/// passphrase on the terminal if none of them does.
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

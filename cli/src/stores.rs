//! From what was given as the store to an open one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use keystead::file::{FileStore, FileUrl, RootSecret};
use keystead::layers::Fenced;
use keystead::{Durability, KeyStore};

use crate::args::{DurabilityArg, FenceArgs};
use crate::exit::{Failure, Outcome};
use crate::session::Session;
use crate::{config, input, store_path, terminal, verbose};

/// A store behind a fence.
pub(crate) type Fence = Fenced<Arc<dyn KeyStore>, Arc<dyn KeyStore>>;

/// The URL of the store that was asked for.
pub(crate) fn url(session: &Session) -> Outcome<String> {
    let missing = || Failure::usage("no store is given: give --store URL or --store NAME, or set KEYSTEAD_STORE");
    resolve(session, session.global.store.as_deref().filter(|store| !store.is_empty()).ok_or_else(missing)?)
}

/// The URL that a text is or names.
pub(crate) fn resolve(session: &Session, store: &str) -> Outcome<String> {
    // A name has no colon, a URL has one behind its scheme.
    if store.contains(':') {
        return store_path::refusal(store).map_or_else(|| Ok(store.to_owned()), Err);
    }
    let found = config::url_of(store, session.global.config.as_deref());
    found.map_err(|e| store_path::refusal(store).unwrap_or(e))
}

pub(crate) fn is_file(url: &str) -> bool {
    scheme(url).eq_ignore_ascii_case("file")
}

pub(crate) fn scheme(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// Opens the store that was asked for, for a command that writes or deletes. It must outlive the
/// command.
pub(crate) async fn open(session: &Session) -> Outcome<Arc<dyn KeyStore>> {
    open_lasting(session, &url(session)?).await
}

/// Opens the store that was asked for, for a command that only reads.
pub(crate) async fn open_to_read(session: &Session) -> Outcome<Arc<dyn KeyStore>> {
    open_url(session, &url(session)?).await
}

/// Opens the store of this URL, unless it ends with the command: keys that are put there are lost,
/// and a key that is not found there is not erased.
pub(crate) async fn open_lasting(session: &Session, url: &str) -> Outcome<Arc<dyn KeyStore>> {
    lasting(open_url(session, url).await?)
}

/// Returns the store, unless it ends with the command.
pub(crate) fn lasting(store: Arc<dyn KeyStore>) -> Outcome<Arc<dyn KeyStore>> {
    if store.capabilities().durability == Durability::Process {
        let scheme = store.info().scheme();
        return Err(Failure::usage(format!("{scheme}: is gone when this command ends: give a store that lasts")));
    }
    Ok(store)
}

/// Opens the store of this URL, whether or not it lasts.
pub(crate) async fn open_url(session: &Session, url: &str) -> Outcome<Arc<dyn KeyStore>> {
    if is_file(url) {
        return Ok(Arc::new(open_file_url(session, &FileUrl::parse(url)?).await?));
    }
    verbose::step(format!("opening a store in {}", scheme(url).to_ascii_lowercase()));
    let store = keystead::open(url).await?;
    verbose::tell_store(&*store).await;
    Ok(store)
}

/// The passphrase of a second store: the option that names its file, and the file if the option was given.
#[derive(Clone, Copy)]
pub(crate) struct SecondPassphrase<'a> {
    pub(crate) option: &'static str,
    pub(crate) file: Option<&'a Path>,
}

/// Opens a second store, which may have another passphrase than the first one.
pub(crate) async fn open_second(
    session: &Session,
    store: &str,
    passphrase: SecondPassphrase<'_>,
) -> Outcome<Arc<dyn KeyStore>> {
    let url = resolve(session, store)?;
    let SecondPassphrase { option, file } = passphrase;
    if !is_file(&url) {
        if file.is_some() {
            return Err(Failure::usage(format!("only a file store has a passphrase: leave out {option}")));
        }
        return open_url(session, &url).await;
    }
    let url = FileUrl::parse(&url)?;
    let root = match (file, &session.global.passphrase_file) {
        (Some(file), _) => root_secret_by(&url, Some(file), option).await?,
        (None, Some(file)) if !url.names_root_secret() => input::passphrase(file, "--passphrase-file").await?,
        (None, _) => root_secret_by(&url, None, option).await?,
    };
    Ok(Arc::new(open_file_with(session, &url, root).await?))
}

/// A fence around the store, with the tombstones in the store of this URL or name.
pub(crate) async fn fence(
    session: &Session,
    store: Arc<dyn KeyStore>,
    tombstones: &str,
    accepted: Option<DurabilityArg>,
) -> Outcome<Fence> {
    let tombstones = open_url(session, &resolve(session, tombstones)?).await?;
    if tombstones.capabilities().durability == Durability::Process {
        return Err(Failure::usage("the tombstones would end with this command: give a store that lasts"));
    }
    let durability = tombstones.capabilities().durability;
    if accepted.is_none() && durability < store.capabilities().durability {
        return Err(Failure::usage(
            "the tombstones are less durable than the keys: if they are lost, erased users can be created again; give a \
             more durable store, or accept that with --accept-tombstone-durability host",
        ));
    }
    let mut builder = Fenced::builder(store, tombstones);
    if let Some(accepted) = accepted {
        builder = builder.accept_tombstone_durability(accepted.into());
    }
    Ok(builder.build()?)
}

/// Opens the store that was asked for, behind a fence if tombstones are named.
pub(crate) async fn open_fenced(session: &Session, args: &FenceArgs) -> Outcome<Arc<dyn KeyStore>> {
    let store = open(session).await?;
    match &args.tombstones {
        Some(tombstones) => Ok(Arc::new(fence(session, store, tombstones, args.accept_tombstone_durability).await?)),
        None => Ok(store),
    }
}

/// The file store that was asked for, for what only such a store can do.
pub(crate) async fn open_file(session: &Session) -> Outcome<FileStore> {
    open_file_url(session, &file_url(session)?).await
}

/// The URL of the file store that was asked for.
pub(crate) fn file_url(session: &Session) -> Outcome<FileUrl> {
    let url = url(session)?;
    if !is_file(&url) {
        return Err(Failure::usage("only a file store can do that: give the URL of one, file:///PATH"));
    }
    Ok(FileUrl::parse(&url)?)
}

/// The root secret that the URL or the options name, else a passphrase from the terminal.
pub(crate) async fn root_secret(session: &Session, url: &FileUrl) -> Outcome<RootSecret> {
    root_secret_by(url, session.global.passphrase_file.as_deref(), "--passphrase-file").await
}

/// The root secret that the URL or this option names, else a passphrase from the terminal.
async fn root_secret_by(url: &FileUrl, file: Option<&Path>, option: &'static str) -> Outcome<RootSecret> {
    match (file, url.names_root_secret()) {
        (Some(_), true) => Err(Failure::usage(format!("the root secret is given twice: by the URL and by {option}"))),
        (None, true) => {
            if let Some(file) = url.secret_file() {
                verbose::step(format!("reading the secret of the store from {}", file.display()));
            }
            let url = url.clone();
            Ok(input::waiting(move || url.root_secret()).await??)
        }
        (Some(file), false) => input::passphrase(file, option).await,
        (None, false) => {
            let prompt = format!("passphrase of {}: ", url.path().display());
            Ok(RootSecret::passphrase(terminal::passphrase(&prompt, option).await?.as_str()))
        }
    }
}

/// Returns the file that holds the root secret or the passphrase of the store of this URL, if a file does.
pub(crate) fn secret_file(session: &Session, url: &str) -> Outcome<Option<PathBuf>> {
    if !is_file(url) {
        return Ok(None);
    }
    let url = FileUrl::parse(url)?;
    Ok(url.secret_file().or(session.global.passphrase_file.as_deref()).map(Path::to_owned))
}

async fn open_file_url(session: &Session, url: &FileUrl) -> Outcome<FileStore> {
    let root = root_secret(session, url).await?;
    open_file_with(session, url, root).await
}

async fn open_file_with(session: &Session, url: &FileUrl, root: RootSecret) -> Outcome<FileStore> {
    verbose::step(format!("opening the file store {}", url.path().display()));
    let store = url.open_with(root).await?;
    session.close_later(&store);
    verbose::tell_store(&store).await;
    Ok(store)
}

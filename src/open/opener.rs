//! [`Opener`]: the URL schemes that can be opened, those of other crates included.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use super::{BUILT_IN, ParsedUrl, refusal, unknown_scheme, url};
use crate::{KeyStore, Result};

type OpenFn = dyn Fn(String) -> Pin<Box<dyn Future<Output = Result<Arc<dyn KeyStore>>> + Send>> + Send + Sync;

/// The opener that [`open`](crate::open) uses, once one is installed.
static INSTALLED: OnceLock<Opener> = OnceLock::new();

/// A set of URL schemes, and the functions that open their stores.
///
/// A new opener knows the schemes of this build, as [`open`](crate::open) does. A program that has
/// a store of another crate, or its own, adds a scheme for it. The `main` function of a program can
/// then [`install`](Self::install) the opener: from then on [`open`](crate::open) knows its
/// schemes, too, and so does every library that opens stores by URL.
///
/// An opener is a value, and installing it is a separate step that happens once, so that the
/// meaning of a URL depends neither on the order in which libraries are initialized nor on the
/// tests that run in the same process. Libraries should take an `Opener` or a URL, and leave the
/// installing to the program.
///
#[cfg_attr(feature = "memory", doc = "```")]
#[cfg_attr(not(feature = "memory"), doc = "```ignore")]
/// use std::sync::Arc;
///
/// use keystead::memory::MemoryStore;
/// use keystead::{KeyStore, Opener, Result};
///
/// /// Connects to the store that a `redis:` URL names. This one stands in for yours.
/// async fn connect(url: String) -> Result<Arc<dyn KeyStore>> {
///     assert_eq!(url, "redis://localhost/0");
///     Ok(Arc::new(MemoryStore::new()))
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<()> {
/// Opener::new().with_scheme("redis", connect)?.install()?;
///
/// let store = keystead::open("redis://localhost/0").await?;
/// store.check().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Opener {
    schemes: BTreeMap<String, Arc<OpenFn>>,
}

impl Opener {
    /// Creates an opener that knows the schemes of this build.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a scheme, and the function that opens a store from a URL with this scheme.
    ///
    /// The function gets the URL as it was given; nothing but the scheme has been checked. Its
    /// errors should be of kind [`Config`](crate::ErrorKind::Config) for a URL that it refuses, and
    /// must not quote the URL, which may contain a secret by mistake.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if the scheme is not a valid one (a letter, then
    /// letters, digits, `+`, `-` and `.`: RFC 3986, section 3.1), is one of keystead's own, whether
    /// or not this build has its store, or was added before.
    pub fn with_scheme<F, Fut>(mut self, scheme: &str, open: F) -> Result<Self>
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Arc<dyn KeyStore>>> + Send + 'static,
    {
        if !url::is_scheme(scheme) {
            let text = "this is not a URL scheme; give a letter, followed by letters, digits, +, - or .";
            return Err(refusal("keystead", text));
        }
        let scheme = scheme.to_ascii_lowercase();
        if BUILT_IN.iter().any(|(name, _)| *name == scheme) {
            let text = format!("the scheme {scheme} belongs to keystead and cannot be replaced; give another one");
            return Err(refusal("keystead", text));
        }
        if self.schemes.contains_key(&scheme) {
            let text = format!("the scheme {scheme} was added twice; add each scheme once");
            return Err(refusal("keystead", text));
        }
        self.schemes.insert(scheme, Arc::new(move |url| Box::pin(open(url))));
        Ok(self)
    }

    /// Opens the store that a URL names, as [`open`](crate::open) does, with the schemes of this
    /// opener.
    ///
    /// # Errors
    /// Those of [`open`](crate::open), and those of the function that was added for the scheme.
    pub async fn open(&self, url: &str) -> Result<Arc<dyn KeyStore>> {
        let scheme = url::scheme(url).map_err(|text| refusal("keystead", text))?;
        if let Some(open) = self.schemes.get(&scheme) {
            return open(url.to_owned()).await;
        }
        match ParsedUrl::parse(url)? {
            Some(parsed) => parsed.open().await,
            None => {
                let added = self.schemes.keys().map(String::as_str);
                Err(refusal("keystead", unknown_scheme(&scheme, added)))
            }
        }
    }

    /// Makes [`open`](crate::open) use this opener, for the rest of the process.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if an opener has been installed before.
    pub fn install(self) -> Result<()> {
        let text = "an opener is installed already; install one, with all schemes, in the main function";
        INSTALLED.set(self).map_err(|_| refusal("keystead", text))
    }

    /// Opens a URL with the installed opener, or with a new one if none is installed.
    pub(super) async fn open_installed(url: &str) -> Result<Arc<dyn KeyStore>> {
        match INSTALLED.get() {
            Some(opener) => opener.open(url).await,
            None => Self::new().open(url).await,
        }
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("schemes", &self.schemes.keys()).finish()
    }
}

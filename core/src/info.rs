//! [`StoreInfo`]: the human-readable description of a store.

use std::fmt;
use std::sync::Arc;

use crate::identity::{Attribute, StoreIdentity};

/// The human-readable description of a store: its scheme, its location and its
/// [`identity`](Self::identity).
///
/// It never contains a credential or the id of a user. To find out whether two handles reach the
/// same data, compare their identities, not their descriptions.
///
/// ```
/// let info = keystead_core::StoreInfo::new("file", "/var/lib/app/keys.db");
/// assert_eq!(info.to_string(), "file:/var/lib/app/keys.db");
///
/// let info = info.with_store_id("6f2a").with_note("read-only");
/// assert_eq!(info.to_string(), "file:/var/lib/app/keys.db (store 6f2a), read-only");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreInfo {
    scheme: &'static str,
    /// Shared, because a store keeps its description and returns clones of it.
    identity: Arc<StoreIdentity>,
    notes: String,
}

impl StoreInfo {
    /// Creates the description of a store. `Display` leaves out an empty location.
    pub fn new(scheme: &'static str, location: impl Into<String>) -> Self {
        Self { scheme, identity: Arc::new(StoreIdentity::new(scheme, location.into())), notes: String::new() }
    }

    /// Sets the random id that is part of the store's format.
    pub fn with_store_id(self, store_id: impl Into<String>) -> Self {
        self.with(Attribute::StoreId, Some(store_id.into()))
    }

    /// Sets the cloud's partition, such as `aws` or `aws-cn`.
    pub fn with_partition(self, partition: impl Into<String>) -> Self {
        self.with(Attribute::Partition, Some(partition.into()))
    }

    /// Sets the cloud's region.
    pub fn with_region(self, region: impl Into<String>) -> Self {
        self.with(Attribute::Region, Some(region.into()))
    }

    /// Sets the endpoint, if it is not the service's default. Only the scheme, host and port of the
    /// URL are kept.
    pub fn with_endpoint(self, url: impl AsRef<str>) -> Self {
        self.with(Attribute::Endpoint, Some(origin_of(url.as_ref())))
    }

    /// Sets the cloud account, or `None` if the store has one but does not know it yet.
    pub fn with_account(self, account: Option<impl Into<String>>) -> Self {
        self.with(Attribute::Account, account.map(Into::into))
    }

    /// Adds a note on what a layer does to the store. The identity does not change.
    pub fn with_note(mut self, note: impl AsRef<str>) -> Self {
        self.notes.push_str(", ");
        self.notes.push_str(note.as_ref());
        self
    }

    fn with(mut self, attribute: Attribute, value: Option<String>) -> Self {
        Arc::make_mut(&mut self.identity).set(attribute, value);
        self
    }

    /// Returns the scheme of the store's URL, such as `memory`, `file` or `ssm`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Returns the location of the store: a path, or a template for the names of its entries.
    pub fn location(&self) -> &str {
        self.identity.location()
    }

    /// Returns the identity of the data, as far as it is known.
    /// [`KeyStore::identify`](crate::KeyStore::identify) asks the engine for the rest.
    pub fn identity(&self) -> &StoreIdentity {
        &self.identity
    }
}

impl fmt::Display for StoreInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.scheme)?;
        if !self.location().is_empty() {
            write!(f, ":{}", self.location())?;
        }
        let attributes = self.identity.attributes_text();
        if !attributes.is_empty() {
            write!(f, " ({attributes})")?;
        }
        f.write_str(&self.notes)
    }
}

/// Returns the scheme, host and port of a URL in lower case (RFC 6454). The rest is dropped because
/// a path or user info may contain a secret.
fn origin_of(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}://{host}").to_ascii_lowercase()
}

//! [`StoreIdentity`]: the identity of the data behind a store.

use std::fmt;
use std::str::FromStr;

/// The identity of the data behind a store.
///
/// It does not depend on the handle through which the data is reached. It consists of the scheme,
/// the location and further attributes: partition, region, endpoint and account for a store in a
/// cloud, and a random store id if the store's format contains one. An attribute can be unknown at
/// first, so compare identities with [`compare`](Self::compare) and not with `==`.
///
/// `Display` writes the identity on one line, and `FromStr` reads that line. The journals of copies
/// and the receipts of erasures store it in this form, and with the feature `serde` it serializes
/// as the same text. It contains no user id and no credential.
///
/// ```
/// use keystead_core::{IdentityMatch, StoreIdentity, StoreInfo};
///
/// let europe = StoreInfo::new("ssm", "/app/%s").with_region("eu-west-1").with_account(Some("123456789012"));
/// let asia = StoreInfo::new("ssm", "/app/%s").with_region("ap-south-1").with_account(Some("123456789012"));
/// assert_eq!(europe.identity().compare(asia.identity()), IdentityMatch::Different);
///
/// let text = europe.identity().to_string();
/// assert_eq!(text, "ssm:/app/%s; region=eu-west-1; account=123456789012");
/// assert_eq!(&text.parse::<StoreIdentity>()?, europe.identity());
/// # Ok::<(), keystead_core::InvalidStoreIdentity>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreIdentity {
    scheme: String,
    location: String,
    /// Sorted by attribute, each at most once. `None` means that the store has this attribute but
    /// does not know its value yet.
    attributes: Vec<(Attribute, Option<String>)>,
}

/// The result of comparing two store identities.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IdentityMatch {
    /// Both handles reach the same data.
    Same,
    /// The handles reach different data.
    Different,
    /// Not enough is known to decide. Treat this as neither of the other two; in particular, do not
    /// delete anything because of it.
    Unknown,
}

/// An attribute that identifies data, besides the scheme and the location.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Attribute {
    Partition,
    Region,
    Endpoint,
    Account,
    StoreId,
}

impl Attribute {
    const ALL: [Self; 5] = [Self::Partition, Self::Region, Self::Endpoint, Self::Account, Self::StoreId];

    fn name(self) -> &'static str {
        match self {
            Self::Partition => "partition",
            Self::Region => "region",
            Self::Endpoint => "endpoint",
            Self::Account => "account",
            Self::StoreId => "store",
        }
    }

    /// Reports whether two different values prove that the data is different. Two endpoints prove
    /// nothing, because one service can be reached through several.
    fn tells_apart(self) -> bool {
        self != Self::Endpoint
    }
}

impl StoreIdentity {
    pub(crate) fn new(scheme: &str, location: String) -> Self {
        Self { scheme: scheme.to_owned(), location, attributes: Vec::new() }
    }

    pub(crate) fn set(&mut self, attribute: Attribute, value: Option<String>) {
        match self.attributes.binary_search_by_key(&attribute, |(attribute, _)| *attribute) {
            Ok(at) => self.attributes[at].1 = value,
            Err(at) => self.attributes.insert(at, (attribute, value)),
        }
    }

    /// Returns the scheme of the store's URL, such as `file` or `ssm`.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Returns the location of the store: a path, or a template for the names of its entries.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// Returns the cloud's partition, such as `aws`, if it is known.
    pub fn partition(&self) -> Option<&str> {
        self.known(Attribute::Partition)
    }

    /// Returns the cloud's region, if it is known.
    pub fn region(&self) -> Option<&str> {
        self.known(Attribute::Region)
    }

    /// Returns the scheme, host and port of the endpoint, if one is set.
    pub fn endpoint(&self) -> Option<&str> {
        self.known(Attribute::Endpoint)
    }

    /// Returns the cloud account, if a call has revealed it.
    pub fn account(&self) -> Option<&str> {
        self.known(Attribute::Account)
    }

    /// Returns the random id that is part of the store's own format, if it has one. Copies of a
    /// store have the same id.
    pub fn store_id(&self) -> Option<&str> {
        self.known(Attribute::StoreId)
    }

    /// Reports whether all attributes of this store have known values.
    pub fn is_fully_known(&self) -> bool {
        self.attributes.iter().all(|(_, value)| value.is_some())
    }

    /// Compares two identities and tells whether they stand for the same data.
    ///
    /// The answer is [`Different`](IdentityMatch::Different) if the schemes differ, if an attribute
    /// other than the endpoint is known for both and differs, or if the locations differ and the
    /// store ids are not the same.
    ///
    /// Otherwise it is [`Unknown`](IdentityMatch::Unknown) in these cases:
    /// - One store has an attribute that is not known yet, or that the other store does not have.
    /// - The endpoints differ. One service can be reached through several.
    /// - There is neither a location nor a store id.
    /// - The locations differ although the store ids are the same. One store is then a copy of the
    ///   other, or one store has two names.
    pub fn compare(&self, other: &Self) -> IdentityMatch {
        let mut is_certain = true;
        for attribute in Attribute::ALL {
            match (self.known(attribute), other.known(attribute)) {
                (Some(one), Some(two)) if one != two && attribute.tells_apart() => return IdentityMatch::Different,
                (one, two) => is_certain &= one == two && self.is_settled(attribute) && other.is_settled(attribute),
            }
        }
        if self.scheme != other.scheme {
            return IdentityMatch::Different;
        }
        let shares_store_id = self.store_id().is_some() && self.store_id() == other.store_id();
        match self.location == other.location {
            false if shares_store_id => IdentityMatch::Unknown,
            false => IdentityMatch::Different,
            true if self.location.is_empty() && !shares_store_id => IdentityMatch::Unknown,
            true if is_certain => IdentityMatch::Same,
            true => IdentityMatch::Unknown,
        }
    }

    fn known(&self, attribute: Attribute) -> Option<&str> {
        self.value(attribute)?.as_deref()
    }

    /// Reports whether the attribute is settled: its value is known, or the store does not have it.
    fn is_settled(&self, attribute: Attribute) -> bool {
        self.value(attribute).is_none_or(Option::is_some)
    }

    fn value(&self, attribute: Attribute) -> Option<&Option<String>> {
        self.attributes.iter().find(|(candidate, _)| *candidate == attribute).map(|(_, value)| value)
    }

    /// Returns the known attributes as human-readable text.
    pub(crate) fn attributes_text(&self) -> String {
        let known = self.attributes.iter().filter_map(|(attribute, value)| Some((attribute, value.as_ref()?)));
        // The usual partition is left out, because the region implies it.
        let shown = known.filter(|(attribute, value)| **attribute != Attribute::Partition || *value != "aws");
        let texts: Vec<String> = shown.map(|(attribute, value)| format!("{} {value}", attribute.name())).collect();
        texts.join(", ")
    }
}

impl fmt::Display for StoreIdentity {
    /// Writes `scheme:location`, then `; name=value` for each attribute, with an empty value if it
    /// is not known yet. Semicolons, backslashes and control characters are written as `\` followed
    /// by six hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.scheme, escaped(&self.location))?;
        for (attribute, value) in &self.attributes {
            write!(f, "; {}={}", attribute.name(), escaped(value.as_deref().unwrap_or_default()))?;
        }
        Ok(())
    }
}

impl FromStr for StoreIdentity {
    type Err = InvalidStoreIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidStoreIdentity> {
        let mut parts = text.split("; ");
        let (scheme, location) = parts.next().and_then(|part| part.split_once(':')).ok_or(InvalidStoreIdentity)?;
        let mut identity = Self::new(scheme, unescaped(location)?);
        for part in parts {
            let (name, value) = part.split_once('=').ok_or(InvalidStoreIdentity)?;
            let attribute = Attribute::ALL.into_iter().find(|attribute| attribute.name() == name);
            let attribute = attribute.filter(|attribute| identity.value(*attribute).is_none());
            let value = Some(unescaped(value)?).filter(|value| !value.is_empty());
            identity.set(attribute.ok_or(InvalidStoreIdentity)?, value);
        }
        Ok(identity)
    }
}

/// The error for a string that is not a valid [`StoreIdentity`], or was written by a later version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("this is not the identity of a store, or it was written by a later version")]
#[non_exhaustive]
pub struct InvalidStoreIdentity;

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ';' || c == '\\' || c.is_control() {
            escaped.push_str(&format!("\\{:06x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn unescaped(text: &str) -> Result<String, InvalidStoreIdentity> {
    let mut parts = text.split('\\');
    let mut unescaped = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(6).ok_or(InvalidStoreIdentity)?;
        let code = u32::from_str_radix(digits, 16).map_err(|_| InvalidStoreIdentity)?;
        unescaped.push(char::from_u32(code).ok_or(InvalidStoreIdentity)?);
        unescaped.push_str(rest);
    }
    Ok(unescaped)
}

#[cfg(feature = "serde")]
impl serde::Serialize for StoreIdentity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for StoreIdentity {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use IdentityMatch::{Different, Same, Unknown};

    use super::*;
    use crate::StoreInfo;

    fn ssm() -> StoreInfo {
        StoreInfo::new("ssm", "/app/%s").with_partition("aws").with_region("eu-west-1")
    }

    fn file(path: &str, store: &str) -> StoreInfo {
        StoreInfo::new("file", path).with_store_id(store)
    }

    fn compare(one: &StoreInfo, two: &StoreInfo) -> IdentityMatch {
        let answer = one.identity().compare(two.identity());
        assert_eq!(answer, two.identity().compare(one.identity()), "the result depends on the order");
        answer
    }

    #[test]
    fn stores_in_a_cloud_are_told_apart_by_their_known_attributes() {
        let alice = ssm().with_account(Some("1"));
        let bob = ssm().with_account(Some("2"));
        let unknown = ssm().with_account(None::<String>);
        assert_eq!(compare(&alice, &alice), Same);
        assert_eq!(compare(&alice, &bob), Different);
        assert_eq!(compare(&alice, &unknown), Unknown);
        assert_eq!(compare(&unknown, &unknown), Unknown);
        assert_eq!(compare(&alice, &alice.clone().with_region("ap-south-1")), Different);
        assert_eq!(compare(&unknown, &unknown.clone().with_region("ap-south-1")), Different);
        assert_eq!(compare(&alice, &alice.clone().with_endpoint("https://one.example")), Unknown);
        assert_eq!(compare(&bob, &alice.clone().with_endpoint("https://one.example")), Different);
        let other_path = StoreInfo::new("ssm", "/other/%s").with_partition("aws").with_region("eu-west-1");
        assert_eq!(compare(&unknown, &other_path.with_account(None::<String>)), Different);
    }

    #[test]
    fn a_copy_of_a_store_is_neither_the_same_nor_provably_different() {
        assert_eq!(compare(&file("/a", "1"), &file("/a", "1")), Same);
        assert_eq!(compare(&file("/a", "1"), &file("/a", "2")), Different);
        assert_eq!(compare(&file("/a", "1"), &file("/b", "2")), Different);
        assert_eq!(compare(&file("/a", "1"), &file("/b", "1")), Unknown);
        assert_eq!(compare(&file("/a", "1"), &StoreInfo::new("file", "/a")), Unknown);
    }

    #[test]
    fn a_location_alone_identifies_a_store_but_an_empty_one_does_not() {
        let one = StoreInfo::new("x", "/a");
        let two = StoreInfo::new("x", "/b");
        assert_eq!((compare(&one, &one), compare(&one, &two)), (Same, Different));
        let nowhere = StoreInfo::new("x", "");
        assert_eq!(compare(&nowhere, &nowhere), Unknown);
        assert_eq!(compare(&StoreInfo::new("y", "/a"), &one), Different);
    }

    #[test]
    fn a_layer_does_not_change_the_identity() {
        assert_eq!(compare(&file("/a", "1"), &file("/a", "1").with_note("cached for 5s")), Same);
    }

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let awkward = StoreInfo::new("file", "/a; region=x\\y\n%s").with_store_id("1");
        for info in [ssm().with_account(None::<String>), ssm().with_endpoint("http://h:1"), awkward] {
            let text = info.identity().to_string();
            assert_eq!(text.lines().count(), 1, "{text}");
            assert_eq!(&text.parse::<StoreIdentity>().unwrap(), info.identity(), "{text}");
        }
    }

    #[test]
    fn a_text_that_is_not_an_identity_is_refused() {
        for text in ["", "ssm", "ssm:/a; color=red", "ssm:/a; region=x; region=y", "x:\\00", "x:\\ffffff", "x:/a; y"] {
            assert_eq!(text.parse::<StoreIdentity>(), Err(InvalidStoreIdentity), "{text}");
        }
    }

    #[test]
    fn an_endpoint_is_kept_without_credentials_path_and_query() {
        for url in ["HTTPS://me:secret@Host.Example:8443/path?token=x", "https://host.example:8443#x"] {
            let info = StoreInfo::new("x", "/a").with_endpoint(url);
            assert_eq!(info.identity().endpoint(), Some("https://host.example:8443"));
        }
    }

    #[cfg(feature = "serde")]
    #[test]
    fn an_identity_serializes_as_its_text() {
        let identity = ssm().identity().clone();
        let json = serde_json::to_string(&identity).unwrap();
        assert_eq!(json, format!("\"{identity}\""));
        assert_eq!(serde_json::from_str::<StoreIdentity>(&json).unwrap(), identity);
    }
}

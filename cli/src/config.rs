//! The configuration file: the names of stores and the policy of each. It contains no secrets.
//! Messages never quote it, because a secret may be in it by mistake.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use keystead::file::FileUrl;
use percent_encoding::percent_decode_str;
use serde::Deserialize;

use crate::args::DurabilityArg;
use crate::exit::{CommandError, Outcome};

const SHAPE: &str = "it may contain only tables [stores.NAME] with url, tombstones, accept_tombstone_durability, \
                     read_only and passphrase_file";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    stores: BTreeMap<String, Entry>,
}

/// A store in the configuration file.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    pub(crate) url: String,
    /// The URL or the name of the store that keeps its tombstones.
    pub(crate) tombstones: Option<String>,
    pub(crate) accept_tombstone_durability: Option<DurabilityArg>,
    #[serde(default)]
    pub(crate) read_only: bool,
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// The settings of one store in the configuration file.
#[derive(Debug, Default)]
pub(crate) struct StoreSettings {
    pub(crate) entry: Option<Entry>,
    /// True if the file names it as the store of another store's tombstones.
    pub(crate) keeps_tombstones: bool,
}

/// Looks up the store with this name. If there is none, `otherwise` may return a better error.
pub(crate) fn named(
    name: &str,
    asked_for: Option<&Path>,
    otherwise: impl FnOnce() -> Option<CommandError>,
) -> Outcome<StoreSettings> {
    let path = asked_for.map_or_else(default_path, |path| Ok(path.to_owned()))?;
    let shown = path.display();
    let text = match read(&path) {
        Ok(text) => text,
        Err(e) => {
            let is_missing = e.kind() == io::ErrorKind::NotFound;
            let what = format!("cannot read the configuration file {shown}, in which stores are looked up by name");
            let failure = CommandError::usage(what).because(e).advise("create the file, or give the URL of the store");
            return Err(if is_missing { otherwise().unwrap_or(failure) } else { failure });
        }
    };
    let stores = parse(&text, &path)?;
    let Some(entry) = stores.get(name) else {
        let names: Vec<&str> = stores.keys().map(String::as_str).collect();
        let known = names.join(", ");
        let (why, advice) = match names.is_empty() {
            true => ("it contains no stores".to_owned(), "add the store there, or give a URL"),
            false => (format!("its stores are {known}"), "give one of these, or a URL"),
        };
        return Err(otherwise().unwrap_or_else(|| {
            CommandError::usage(format!("the configuration file {shown} has no store with this name"))
                .because(why)
                .advise(advice)
        }));
    };
    let place = Place::of(&entry.url);
    // Names of one store may differ in `read_only`, but not in the tombstones.
    let tombstones = |entry: &Entry| Entry { read_only: false, ..entry.policy() };
    agree(&stores, &place, tombstones, &path)?;
    Ok(StoreSettings { keeps_tombstones: keeps_tombstones(&stores, &place), entry: Some(entry.clone()) })
}

/// Looks up the store with this URL, in whatever spelling: a policy applies to a store, not to its
/// name.
pub(crate) fn of_url(url: &str, asked_for: Option<&Path>) -> Outcome<StoreSettings> {
    let path = match asked_for {
        Some(path) => path.to_owned(),
        None => match default_path() {
            Ok(path) => path,
            Err(_) => return Ok(StoreSettings::default()),
        },
    };
    let text = match read(&path) {
        Ok(text) => text,
        // There is no such file, not even a dangling link.
        Err(_)
            if asked_for.is_none()
                && fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) =>
        {
            return Ok(StoreSettings::default());
        }
        Err(e) => {
            let what = format!("cannot read the configuration file {}, so nothing was done", path.display());
            return Err(CommandError::usage(what)
                .because(e)
                .advise("make the file readable: it may contain settings of this store"));
        }
    };
    let stores = parse(&text, &path)?;
    let place = Place::of(url);
    let policy = agree(&stores, &place, Entry::policy, &path)?;
    // The passphrase belongs to exactly this URL: another spelling may name a root secret itself.
    let passphrase_file =
        stores.values().find(|entry| entry.url == url).and_then(|entry| entry.passphrase_file.clone());
    let entry = policy.map(|policy| Entry { url: url.to_owned(), passphrase_file, ..policy });
    Ok(StoreSettings { keeps_tombstones: keeps_tombstones(&stores, &place), entry })
}

/// Returns the settings that all entries for this place agree on; `None` if there is no such entry.
fn agree(
    stores: &BTreeMap<String, Entry>,
    place: &Place,
    says: impl Fn(&Entry) -> Entry,
    path: &Path,
) -> Outcome<Option<Entry>> {
    let here: Vec<(&String, Entry)> = stores
        .iter()
        .filter(|(_, entry)| Place::of(&entry.url) == *place)
        .map(|(name, entry)| (name, says(entry)))
        .collect();
    let Some((_, first)) = here.first() else { return Ok(None) };
    if here.iter().all(|(_, other)| other == first) {
        return Ok(Some(first.clone()));
    }
    let names: Vec<&str> = here.iter().map(|(name, _)| name.as_str()).collect();
    let what = format!("the configuration file {} has contradictory settings for one store", path.display());
    let why = format!("{} are names of the same store", names.join(", "));
    Err(CommandError::usage(what)
        .because(why)
        .advise("give them the same tombstones in the file, and give one of the names to the command"))
}

fn keeps_tombstones(stores: &BTreeMap<String, Entry>, place: &Place) -> bool {
    let named = stores.values().filter_map(|entry| entry.tombstones.as_deref());
    let mut urls = named.map(|named| stores.get(named).map_or(named, |entry| entry.url.as_str()));
    urls.any(|url| Place::of(url) == *place)
}

impl Entry {
    /// Returns the settings without those that belong to one URL only.
    fn policy(&self) -> Self {
        Self { url: String::new(), passphrase_file: None, ..self.clone() }
    }
}

/// The place of a store, independent of the spelling of its URL.
#[derive(PartialEq, Eq)]
struct Place {
    scheme: String,
    path: PathBuf,
}

impl Place {
    fn of(url: &str) -> Self {
        let (place, _) = url.split_once('?').unwrap_or((url, ""));
        let (scheme, path) = place.split_once(':').unwrap_or(("", place));
        let scheme = scheme.to_ascii_lowercase();
        if let Ok(url) = FileUrl::parse(url) {
            return Self { scheme, path: resolved(url.path()) };
        }
        let path = percent_decode_str(path).decode_utf8_lossy();
        Self { scheme, path: Path::new("/").join(path.trim_start_matches('/')) }
    }
}

/// Resolves the links in the part of a path that exists.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(resolved) = fs::canonicalize(path) {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Returns `~/.config/keystead/config.toml`, or the path that the system uses instead.
fn default_path() -> Outcome<PathBuf> {
    let directories = choose_base_strategy().map_err(|e| {
        CommandError::usage("cannot find the directory of the configuration file")
            .because(e)
            .advise("give the file with --config FILE")
    })?;
    Ok(directories.config_dir().join("keystead").join("config.toml"))
}

fn parse(text: &str, path: &Path) -> Outcome<BTreeMap<String, Entry>> {
    let shown = path.display();
    let stores = stores_in(text).map_err(|line| {
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        CommandError::usage(format!("the configuration file {shown} is not valid{place}")).because(SHAPE)
    })?;
    let relative = |entry: &Entry| entry.passphrase_file.as_ref().is_some_and(|file| file.is_relative());
    if let Some((name, _)) = stores.iter().find(|(_, entry)| relative(entry)) {
        let what =
            format!("the configuration file {shown} is not valid: the passphrase_file of {name} is a relative path");
        return Err(CommandError::usage(what)
            .because("commands can be run in any directory")
            .advise("write an absolute path"));
    }
    Ok(stores)
}

/// Reads the file. Refuses one that everybody can write to, because it decides which tombstones
/// apply.
fn read(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&file.metadata()?.permissions()) & 0o002 != 0 {
        let why = format!("everybody can write to it: run chmod o-w {}", path.display());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Parses the stores, or returns the number of the line that is not valid.
fn stores_in(text: &str) -> Result<BTreeMap<String, Entry>, Option<usize>> {
    let config = toml::from_str::<Config>(text);
    let line = |start: usize| 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
    config.map(|config| config.stores).map_err(|e| e.span().map(|span| line(span.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_have_names() {
        let stores = stores_in("[stores.live]\nurl = \"memory:\"\n[stores.old]\nurl = \"x:\"\n").unwrap();
        assert_eq!(stores.keys().collect::<Vec<_>>(), ["live", "old"]);
        assert!(stores_in("").unwrap().is_empty());
    }

    #[test]
    fn what_has_no_place_there_is_told_by_its_line() {
        for (text, line) in [
            ("[stores.a]\nurl = \"memory:\"\npassphrase = \"hunter2\"\n", 3),
            ("# a\nroot_secret = \"hunter2\"\n", 2),
            ("[stores]\na = \"hunter2\"\n", 2),
            ("[stores.a\n", 1),
        ] {
            assert_eq!(stores_in(text).map(drop), Err(Some(line)), "{text}");
        }
    }
}

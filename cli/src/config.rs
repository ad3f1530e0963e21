//! The configuration file: names of stores, and what holds for each. It holds no secret, and is never quoted, since one may stand there by mistake.

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

const SHAPE: &str = "it takes nothing but [stores.NAME] with url, tombstones, accept_tombstone_durability, read_only and \
                     passphrase_file";

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
    /// The URL or name of the store that keeps its tombstones.
    pub(crate) tombstones: Option<String>,
    pub(crate) accept_tombstone_durability: Option<DurabilityArg>,
    #[serde(default)]
    pub(crate) read_only: bool,
    pub(crate) passphrase_file: Option<PathBuf>,
}

/// What the configuration file says of a store that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) entry: Option<Entry>,
    /// Whether it is the store of another one's tombstones.
    pub(crate) keeps_tombstones: bool,
}

/// Looks up the store of this name. If there is none, `otherwise` may know a better answer.
pub(crate) fn named(
    name: &str,
    asked_for: Option<&Path>,
    otherwise: impl FnOnce() -> Option<CommandError>,
) -> Outcome<Said> {
    let path = asked_for.map_or_else(default_path, |path| Ok(path.to_owned()))?;
    let shown = path.display();
    let text = match read(&path) {
        Ok(text) => text,
        Err(e) => {
            let what = format!("reading the configuration file {shown} failed, where stores are looked up by name");
            let failure = CommandError::usage(what).because(format!("{e}: write the file, or give the store's URL"));
            let is_missing = e.kind() == io::ErrorKind::NotFound;
            return Err(if is_missing { otherwise().unwrap_or(failure) } else { failure });
        }
    };
    let stores = parse(&text, &path)?;
    let Some(entry) = stores.get(name) else {
        let names: Vec<&str> = stores.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(otherwise().unwrap_or_else(|| {
            CommandError::usage(format!("the configuration file {shown} has no store of this name"))
                .because(format!("it has {known}: give one of these, or a URL"))
        }));
    };
    let place = Place::of(&entry.url);
    // Whether it is only read may differ from name to name, whom it forgets may not.
    let tombstones = |entry: &Entry| Entry { read_only: false, ..entry.policy() };
    agree(&stores, &place, tombstones, &path)?;
    Ok(Said { keeps_tombstones: keeps_tombstones(&stores, &place), entry: Some(entry.clone()) })
}

/// Looks up the store of this URL, however it is spelled: a policy holds for the store and not for its name.
pub(crate) fn of_url(url: &str, asked_for: Option<&Path>) -> Outcome<Said> {
    let path = match asked_for {
        Some(path) => path.to_owned(),
        None => match default_path() {
            Ok(path) => path,
            Err(_) => return Ok(Said::default()),
        },
    };
    let text = match read(&path) {
        Ok(text) => text,
        // Not even a link to nowhere.
        Err(_)
            if asked_for.is_none()
                && fs::symlink_metadata(&path).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) =>
        {
            return Ok(Said::default());
        }
        Err(e) => {
            let what = format!("reading the configuration file {} failed", path.display());
            return Err(
                CommandError::usage(what).because(format!("{e}: it may say more of this store, so nothing was done"))
            );
        }
    };
    let stores = parse(&text, &path)?;
    let place = Place::of(url);
    let policy = agree(&stores, &place, Entry::policy, &path)?;
    // The passphrase goes with that very URL: another one may name a root secret itself.
    let passphrase_file =
        stores.values().find(|entry| entry.url == url).and_then(|entry| entry.passphrase_file.clone());
    let entry = policy.map(|policy| Entry { url: url.to_owned(), passphrase_file, ..policy });
    Ok(Said { keeps_tombstones: keeps_tombstones(&stores, &place), entry })
}

/// Returns what all stores of the file at this place say; `None` if there is none.
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
    let what = format!("the configuration file {} says different things of one store", path.display());
    let why = format!(
        "the names of that store are {}: give them the same tombstones there, and one of the names here",
        names.join(", ")
    );
    Err(CommandError::usage(what).because(why))
}

fn keeps_tombstones(stores: &BTreeMap<String, Entry>, place: &Place) -> bool {
    let named = stores.values().filter_map(|entry| entry.tombstones.as_deref());
    let mut urls = named.map(|named| stores.get(named).map_or(named, |entry| entry.url.as_str()));
    urls.any(|url| Place::of(url) == *place)
}

impl Entry {
    /// Without what belongs to the URL only.
    fn policy(&self) -> Self {
        Self { url: String::new(), passphrase_file: None, ..self.clone() }
    }
}

/// The place of a store, in one spelling of the many that a URL can have.
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

/// The path without links, as far as it stands already.
fn resolved(path: &Path) -> PathBuf {
    if let Ok(resolved) = fs::canonicalize(path) {
        return resolved;
    }
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => path.to_owned(),
    }
}

/// `~/.config/keystead/config.toml` or what the system has instead.
fn default_path() -> Outcome<PathBuf> {
    let directories = choose_base_strategy().map_err(|e| {
        CommandError::usage("the directory of the configuration file is not known: give --config FILE").because(e)
    })?;
    Ok(directories.config_dir().join("keystead").join("config.toml"))
}

fn parse(text: &str, path: &Path) -> Outcome<BTreeMap<String, Entry>> {
    let shown = path.display();
    let stores = stores_in(text).map_err(|line| {
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        CommandError::usage(format!("the configuration file {shown} will not do{place}")).because(SHAPE)
    })?;
    let relative = |entry: &Entry| entry.passphrase_file.as_ref().is_some_and(|file| file.is_relative());
    if let Some((name, _)) = stores.iter().find(|(_, entry)| relative(entry)) {
        let what =
            format!("the configuration file {shown} will not do: the passphrase_file of {name} is no absolute path");
        return Err(CommandError::usage(what).because("commands run in any directory: write the path from / on"));
    }
    Ok(stores)
}

/// Reads the file, unless others can write to it: it decides which tombstones hold.
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

/// The stores, or the number of the line that will not do.
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

//! The configuration file: names of stores, and what holds for each. It holds no secret, and is never quoted, since one may stand there by mistake.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::Deserialize;

use crate::args::DurabilityArg;
use crate::exit::{Failure, Outcome};

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

/// Returns the store of this name, from the file that was asked for or the user's own.
pub(crate) fn named(name: &str, asked_for: Option<&Path>) -> Outcome<Entry> {
    let path = asked_for.map_or_else(default_path, |path| Ok(path.to_owned()))?;
    let shown = path.display();
    let text = read(&path).map_err(|e| {
        let what = format!("reading the configuration file {shown} failed, where stores are looked up by name");
        Failure::usage(what).because(format!("{e}: write the file, or give the store's URL"))
    })?;
    let mut stores = parse(&text, &path)?;
    stores.remove(name).ok_or_else(|| {
        let names: Vec<&str> = stores.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::usage(format!("the configuration file {shown} has no store of this name"))
            .because(format!("it has {known}: give one of these, or a URL"))
    })
}

/// Returns what the configuration file says of the store of this URL: a policy holds however the store is named. `None` if
/// the file, or the store in it, is missing.
pub(crate) fn of_url(url: &str, asked_for: Option<&Path>) -> Outcome<Option<Entry>> {
    let path = match asked_for {
        Some(path) => path.to_owned(),
        None => match default_path() {
            Ok(path) => path,
            Err(_) => return Ok(None),
        },
    };
    let text = match read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound && asked_for.is_none() => return Ok(None),
        Err(e) => {
            let what = format!("reading the configuration file {} failed", path.display());
            return Err(
                Failure::usage(what).because(format!("{e}: it may say more of this store, so nothing was done"))
            );
        }
    };
    let stores = parse(&text, &path)?;
    if let Some(entry) = stores.values().find(|entry| entry.url == url) {
        return Ok(Some(entry.clone()));
    }
    // The passphrase goes with that very URL: another one may name a root secret itself.
    let policy = |entry: &Entry| Entry { url: url.to_owned(), passphrase_file: None, ..entry.clone() };
    let mut same_place = stores.iter().filter(|(_, entry)| place(&entry.url) == place(url));
    let Some((name, entry)) = same_place.next() else { return Ok(None) };
    let entry = policy(entry);
    let others: Vec<&str> =
        same_place.filter(|(_, other)| policy(other) != entry).map(|(name, _)| name.as_str()).collect();
    if others.is_empty() {
        return Ok(Some(entry));
    }
    let names = format!("{name}, {}", others.join(", "));
    let what = format!("the configuration file {} says different things of stores at this place", path.display());
    Err(Failure::usage(what).because(format!("they are {names}: give one of these names instead of the URL")))
}

/// The scheme and the path of a URL, which can be written with or without two slashes.
fn place(url: &str) -> (String, &str) {
    let (place, _) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, path) = place.split_once(':').unwrap_or(("", place));
    (scheme.to_ascii_lowercase(), path.strip_prefix("//").unwrap_or(path))
}

/// `~/.config/keystead/config.toml` or what the system has instead.
fn default_path() -> Outcome<PathBuf> {
    let directories = choose_base_strategy().map_err(|e| {
        Failure::usage("the directory of the configuration file is not known: give --config FILE").because(e)
    })?;
    Ok(directories.config_dir().join("keystead").join("config.toml"))
}

fn parse(text: &str, path: &Path) -> Outcome<BTreeMap<String, Entry>> {
    let shown = path.display();
    let stores = stores_in(text).map_err(|line| {
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        Failure::usage(format!("the configuration file {shown} will not do{place}")).because(SHAPE)
    })?;
    let relative = |entry: &Entry| entry.passphrase_file.as_ref().is_some_and(|file| file.is_relative());
    if let Some((name, _)) = stores.iter().find(|(_, entry)| relative(entry)) {
        let what =
            format!("the configuration file {shown} will not do: the passphrase_file of {name} is no absolute path");
        return Err(Failure::usage(what).because("commands run in any directory: write the path from / on"));
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

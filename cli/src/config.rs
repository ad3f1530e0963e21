//! The configuration file: names of stores. It holds no secret, and is never quoted, since one may stand there by mistake.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy, choose_base_strategy};
use serde::Deserialize;

use crate::exit::{Failure, Outcome};

const SHAPE: &str = "it takes nothing but [stores.NAME] with url = \"...\"";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    stores: BTreeMap<String, Store>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Store {
    url: String,
}

/// The URL of the store of this name, by the file that was asked for or the user's own.
pub(crate) fn url_of(name: &str, asked_for: Option<&Path>) -> Outcome<String> {
    let path = asked_for.map_or_else(default_path, |path| Ok(path.to_owned()))?;
    let shown = path.display();
    let text = fs::read_to_string(&path).map_err(|e| {
        let what = format!("reading the configuration file {shown} failed, where stores are looked up by name");
        Failure::usage(what).because(format!("{e}: write the file, or give the store's URL"))
    })?;
    let mut stores = parse(&text).map_err(|line| {
        let place = line.map_or_else(String::new, |line| format!(", line {line}"));
        Failure::usage(format!("the configuration file {shown} will not do{place}")).because(SHAPE)
    })?;
    stores.remove(name).map(|store| store.url).ok_or_else(|| {
        let names: Vec<&str> = stores.keys().map(String::as_str).collect();
        let known = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        Failure::usage(format!("the configuration file {shown} has no store of this name"))
            .because(format!("it has {known}: give one of these, or a URL"))
    })
}

/// `~/.config/keystead/config.toml` or what the system has instead.
fn default_path() -> Outcome<PathBuf> {
    let directories = choose_base_strategy().map_err(|e| {
        Failure::usage("the directory of the configuration file is not known: give --config FILE").because(e)
    })?;
    Ok(directories.config_dir().join("keystead").join("config.toml"))
}

/// The stores, or the number of the line that will not do.
fn parse(text: &str) -> Result<BTreeMap<String, Store>, Option<usize>> {
    let config = toml::from_str::<Config>(text);
    let line = |start: usize| 1 + text.bytes().take(start).filter(|byte| *byte == b'\n').count();
    config.map(|config| config.stores).map_err(|e| e.span().map(|span| line(span.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_have_names() {
        let stores = parse("[stores.live]\nurl = \"memory:\"\n[stores.old]\nurl = \"x:\"\n").unwrap();
        assert_eq!(stores.keys().collect::<Vec<_>>(), ["live", "old"]);
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn what_has_no_place_there_is_told_by_its_line() {
        for (text, line) in [
            ("[stores.a]\nurl = \"memory:\"\npassphrase = \"hunter2\"\n", 3),
            ("# a\nroot_secret = \"hunter2\"\n", 2),
            ("[stores]\na = \"hunter2\"\n", 2),
            ("[stores.a\n", 1),
        ] {
            assert_eq!(parse(text).map(drop), Err(Some(line)), "{text}");
        }
    }
}

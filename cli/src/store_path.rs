//! [`refusal`]: the error for a path that is given instead of the URL or the name of a store.

use std::path::{Path, PathBuf};

use crate::exit::CommandError;

/// Returns the error for a text that is a path, with the URL that was probably meant; `None` if the
/// text is not a path.
pub(crate) fn refusal(store: &str) -> Option<CommandError> {
    let path = without_tilde(store);
    let is_path = if store.contains(':') {
        begins_with_drive(store)
    } else {
        store.contains(['/', '\\']) || is_database(store) || path.is_file()
    };
    if !is_path {
        return None;
    }
    // The text is repeated only if it is certainly a path: it may be a secret, given by mistake.
    let is_here = begins_with_drive(store) == cfg!(windows) && is_beyond_doubt(store, &path);
    let url = std::path::absolute(&path).ok().filter(|_| is_here).and_then(|path| url_of(&path));
    let url = url.as_deref().unwrap_or("file:///ABSOLUTE/PATH");
    Some(CommandError::usage(format!(
        "a path is given instead of the URL or the name of a store: give '{url}?root_secret_file=FILE', or '{url}' if \
         the store opens with a passphrase"
    )))
}

/// Replaces a leading `~` that the shell has not replaced by the home directory.
fn without_tilde(store: &str) -> PathBuf {
    match (store.strip_prefix("~/"), etcetera::home_dir()) {
        (Some(rest), Ok(home)) => home.join(rest),
        _ => PathBuf::from(store),
    }
}

/// Reports whether a text begins with a Windows drive, which no URL of a store does.
fn begins_with_drive(store: &str) -> bool {
    matches!(store.as_bytes(), [letter, b':', b'/' | b'\\', ..] if letter.is_ascii_alphabetic())
}

fn is_database(store: &str) -> bool {
    store.ends_with(".db")
}

/// Reports whether a text is certainly a path: it names a database, something that exists, or
/// something in a directory that exists.
fn is_beyond_doubt(store: &str, path: &Path) -> bool {
    let in_a_directory = || {
        let parent = path.parent().filter(|parent| parent.parent().is_some());
        parent.is_some_and(Path::is_dir)
    };
    is_database(store) || path.exists() || in_a_directory()
}

/// Returns the URL of the file store at an absolute path; `None` if the path is not UTF-8.
fn url_of(path: &Path) -> Option<String> {
    let path = path.to_str()?;
    let path = if cfg!(windows) { path.replace('\\', "/") } else { path.to_owned() };
    // A Windows path begins with its drive, which would be read as a host after two slashes.
    let slashes = if path.starts_with('/') { "//" } else { "" };
    Some(format!("file:{slashes}{}", percent_encoded(&path)))
}

/// Encodes a path for a URL that the shell reads in single quotes.
fn percent_encoded(path: &str) -> String {
    let mut encoded = String::with_capacity(path.len());
    for c in path.chars() {
        if c.is_alphanumeric() || "/_.-~:".contains(c) {
            encoded.push(c);
        } else {
            let mut bytes = [0; 4];
            encoded.extend(c.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_is_told_from_a_scheme() {
        assert!(begins_with_drive(r"C:\keys\keys.db") && begins_with_drive("c:/keys.db"));
        for store in ["ssm:///app/%s", "file:/x", "memory:", "c:", "live", ":/", "1:/x"] {
            assert!(!begins_with_drive(store), "{store}");
        }
    }

    #[test]
    fn a_path_is_written_as_the_parser_of_urls_reads_it() {
        let path = "/a b/100%/q?x#y/l'œuvre.db";
        let url = url_of(Path::new(path)).unwrap();
        assert_eq!(url, "file:///a%20b/100%25/q%3Fx%23y/l%27œuvre.db");
        assert_eq!(keystead::file::FileUrl::parse(&url).unwrap().path(), Path::new(path));
    }
}

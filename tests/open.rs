//! Tests of opening stores by URL.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::error::Error as StdError;
use std::sync::Arc;

use futures_executor::block_on;
use keystead::{Error, ErrorKind, KeyStore, Operation, Result};

fn open(url: &str) -> Result<Arc<dyn KeyStore>> {
    block_on(keystead::open(url))
}

/// Returns the refusal of a URL, as a person reads it.
fn refusal(url: &str) -> String {
    let error: Error = open(url).expect_err("it must be refused");
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Config, Operation::Open), "{error:?}");
    let text = format!("{error}: {}", error.source().unwrap());
    assert!(!format!("{text} {error:?}").contains("hunter2"), "{text}");
    text
}

#[test]
fn an_unknown_scheme_is_told_with_the_features_there_are() {
    for url in ["redis://hunter2", "hunter2", "", "://", "dynamodb:///app/%s"] {
        let text = refusal(url);
        assert!(text.contains("scheme"), "{text}");
    }
}

#[cfg(not(any(feature = "memory", feature = "file", feature = "ssm", feature = "secretsmanager")))]
#[test]
fn without_a_backend_the_error_names_the_features() {
    for (url, feature) in [("memory:", "enable the feature `memory`"), ("file:///keys.db", "enable the feature `file`")]
    {
        let text = refusal(url);
        assert!(text.contains("has no backend") && text.contains(feature), "{text}");
    }
    assert!(refusal("redis:").contains("memory, file, postgres, ssm, secretsmanager"));
}

#[cfg(feature = "memory")]
mod memory {
    use keystead::{KeyId, KeyStoreExt};

    use super::*;

    #[test]
    fn each_opening_is_a_store_of_its_own() {
        let id = KeyId::new("alice").unwrap();
        let store = open("memory:").unwrap();
        block_on(store.get_or_create_key(&id)).unwrap();
        assert!(block_on(open("memory:").unwrap().find_key(&id)).unwrap().is_none());
    }

    #[test]
    fn it_takes_nothing_else() {
        for url in
            ["memory:x", "memory://", "memory:///", "memory:///x", "memory:?password=hunter2", "memory://hunter2"]
        {
            refusal(url);
        }
    }
}

#[cfg(feature = "file")]
mod file {
    use std::fs;
    use std::path::Path;

    use keystead::file::{FileUrl, RootSecret};
    use keystead::{KeyId, KeyStoreExt};

    use super::*;

    /// Writes a file that only its owner may read.
    fn write_secret(path: &Path, contents: impl AsRef<[u8]>) {
        fs::write(path, contents).unwrap();
        #[cfg(unix)]
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }

    #[test]
    fn a_store_is_created_if_asked_for_and_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a b.db");
        let secret = directory.path().join("root");
        let phrase = directory.path().join("phrase");
        write_secret(&secret, format!("{}\n", "5a".repeat(32)));
        write_secret(&phrase, "correct horse\n");
        let path = path.display().to_string().replace(' ', "%20");
        let secret = secret.display();
        let url = format!("file://{path}?root_secret_file={secret}");
        let id = KeyId::new("alice").unwrap();

        assert!(refusal(&url).contains("there is no store"));
        let store = open(&format!("{url}&create=true")).unwrap();
        let key = block_on(store.get_or_create_key(&id)).unwrap();
        assert_eq!(block_on(open(&url).unwrap().get_key(&id)).unwrap(), key);
        assert_eq!(
            open(&format!("file://{path}?passphrase_file={}", phrase.display())).unwrap_err().kind(),
            ErrorKind::KeyUnavailable
        );
    }

    #[test]
    fn a_file_url_is_taken_apart_for_who_has_the_root_secret_from_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let secret = directory.path().join("root");
        let bare = FileUrl::parse(&format!("file://{}?create=true", path.display())).unwrap();
        assert_eq!((bare.path(), bare.names_root_secret(), bare.root_secret_file()), (path.as_path(), false, None));
        assert_eq!(bare.root_secret().unwrap_err().kind(), ErrorKind::Config);
        assert!(!format!("{bare:?}").contains("keys.db"));
        let root = RootSecret::generate();
        block_on(async { bare.open_with(root.clone()).await.unwrap().close().await.unwrap() });

        let url = format!("file://{}?root_secret_file={}", path.display(), secret.display());
        let named = FileUrl::parse(&url).unwrap();
        assert_eq!((named.names_root_secret(), named.root_secret_file()), (true, Some(secret.as_path())));
        assert_eq!(named.root_secret().unwrap_err().kind(), ErrorKind::Config);
        write_secret(&secret, root.to_hex().unwrap().as_bytes());
        block_on(named.open_with(named.root_secret().unwrap())).unwrap();

        for url in ["memory:", "keys.db", "file:keys.db", "file:///keys.db?passphrase=hunter2"] {
            let error = FileUrl::parse(url).unwrap_err();
            assert_eq!((error.kind(), error.store()), (ErrorKind::Config, "file"), "{url}");
        }
    }

    #[test]
    fn a_passphrase_file_may_end_with_a_line_break() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let phrase = directory.path().join("phrase");
        let url = format!("file://{}?create=true&passphrase_file={}", path.display(), phrase.display());
        for text in ["correct horse", "correct horse\n", "correct horse\r\n"] {
            write_secret(&phrase, text);
            block_on(open(&url).unwrap().check()).unwrap();
        }
    }

    #[test]
    fn what_a_file_url_must_not_say_is_refused() {
        let source = "root_secret_file=/nowhere";
        for (url, reason) in [
            (format!("file:keys.db?{source}"), "absolute path"),
            (format!("file://host/keys.db?{source}"), "has a host"),
            (format!("file://user:hunter2@host/keys.db?{source}"), "user info"),
            (format!("file:///keys.db?{source}#hunter2"), "fragment"),
            ("file:///keys.db".to_owned(), "no root secret is given"),
            ("file:///keys.db?create=true".to_owned(), "no root secret is given"),
            (format!("file:///keys.db?{source}&passphrase_env=X"), "given twice"),
            (format!("file:///keys.db?{source}&{source}"), "given twice"),
            (format!("file:///keys.db?{source}&create=yes"), "create is neither true nor false"),
            (format!("file:///keys.db?{source}&group_access=hunter2"), "group_access is neither true nor false"),
            (format!("file:///keys.db?{source}&hunter2=1"), "unknown parameter"),
            ("file:///keys.db?hunter2".to_owned(), "has no value"),
            ("file:///keys.db?passphrase=hunter2".to_owned(), "must not stand in a URL"),
            ("file:///keys.db?root_secret=hunter2".to_owned(), "must not stand in a URL"),
            (format!("file:///keys%00.db?{source}"), "zero byte"),
            (format!("file:///keys%zz.db?{source}"), "two hexadecimal digits"),
            (format!("FILE:///keys.db?{source}"), "cannot be read"),
            (format!("file:///keys.db?{source}"), "cannot be read"),
            ("file:///keys.db?root_secret_env=KEYSTEAD_NOT_SET".to_owned(), "is not set"),
        ] {
            let text = refusal(&url);
            assert!(text.contains(reason), "{text}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn group_access_lets_the_group_use_the_files() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.db");
        let secret = directory.path().join("root");
        fs::write(&secret, "5a".repeat(32)).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let url = format!("file://{}?root_secret_file={}", path.display(), secret.display());
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;

        let close = |url: &str| {
            let url = FileUrl::parse(url).unwrap();
            block_on(async { url.open_with(url.root_secret().unwrap()).await.unwrap().close().await.unwrap() });
        };
        close(&format!("{url}&create=true&group_access=true"));
        assert_eq!(mode(), 0o660);
        close(&format!("{url}&group_access=true"));
        for alone in [url.clone(), format!("{url}&group_access=false")] {
            let text = refusal(&alone);
            assert!(text.contains("others may read or write"), "{text}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        let text = refusal(&format!("{url}&group_access=true"));
        assert!(text.contains("others may read or write") && text.contains("chmod o-rwx"), "{text}");
    }

    #[test]
    fn a_file_without_a_root_secret_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let secret = directory.path().join("root");
        let url = format!(
            "file://{}?create=true&root_secret_file={}",
            directory.path().join("keys.db").display(),
            secret.display()
        );
        for (contents, reason) in
            [("hunter2".to_owned(), "neither 32 raw bytes"), ("x".repeat(5000), "more than 4096 bytes")]
        {
            write_secret(&secret, contents);
            let text = refusal(&url);
            assert!(text.contains(reason), "{text}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}

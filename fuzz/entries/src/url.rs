//! URLs of stores: parsing one touches neither disk nor network, and no error quotes one.

use std::error::Error as StdError;

use keystead::fuzzing::check_url;

use crate::Seeds;

/// A word that no error contains unless it quotes the URL.
const CANARY: &str = "hunter2";

/// Parses a URL, then the same URL with a word inserted that no error may quote. The first byte of
/// the URL decides where the word is inserted.
pub fn url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let at = usize::from(input.first().copied().unwrap_or_default()).min(text.len());
    let at = (0..=at).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
    let (before, after) = text.split_at(at);
    let with_canary = [before, CANARY, after].concat();
    for url in [text.as_ref(), with_canary.as_str()] {
        match check_url(url) {
            Ok(path) => path.into_iter().for_each(|path| assert_path_comes_back(path.as_os_str().as_encoded_bytes())),
            Err(error) if url.contains(CANARY) => assert_no_quote(&error),
            Err(_) => {}
        }
    }
}

/// Checks that a path with every byte percent-encoded is the same path.
fn assert_path_comes_back(path: &[u8]) {
    let encoded: String = path.iter().map(|byte| format!("%{byte:02X}")).collect();
    let again = check_url(&format!("file:{encoded}?root_secret_env=X")).ok().flatten();
    assert!(again.is_some_and(|again| again.as_os_str().as_encoded_bytes() == path));
}

fn assert_no_quote(error: &keystead::Error) {
    let mut text = format!("{error} {error:?}");
    let mut cause = error.source();
    while let Some(e) = cause {
        text.push_str(&format!(" {e} {e:?}"));
        cause = e.source();
    }
    assert!(!text.contains(CANARY), "an error quotes its URL");
}

pub(crate) fn seeds() -> Seeds {
    let seed = |name, url: &str| (name, url.as_bytes().to_vec());
    vec![
        seed("memory", "memory:"),
        seed("file", "file:///var/lib/app/keys.db?root_secret_file=/run/secrets/root&create=true"),
        seed("file_group", "file:///data/keys.db?root_secret_env=ROOT&group_access=true"),
        seed("file_encoded", "FILE:/a%20b/%C3%A9.db?passphrase_env=PHRASE"),
        seed("ssm", "ssm:///app/user-keys/%s?kms_key=alias/app&region=eu-central-1&tier=advanced"),
        seed("secretsmanager", "secretsmanager:///app/%25s?kms_key=alias/app&recovery_window_days=7"),
        seed("user_info", "file://user:password@host/keys.db#fragment"),
    ]
}

//! [`RootSource`]: the parameter of a URL that names a root secret.

use std::ffi::{OsStr, OsString};
#[cfg(feature = "file")]
use std::path::Path;

use keystead_sealing::RootSecret;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::secret_file::SecretFile;
use crate::BoxError;

/// The parameters that name a root secret, for people.
pub(super) const SOURCES: &str = "root_secret_file, root_secret_env, passphrase_file or passphrase_env";

/// The parameter that names a root secret, and its value.
#[derive(Clone)]
pub(super) struct RootSource {
    parameter: String,
    value: OsString,
}

impl RootSource {
    pub(super) fn is_parameter(name: &str) -> bool {
        matches!(name, "root_secret_file" | "root_secret_env" | "passphrase_file" | "passphrase_env")
    }

    /// Takes a parameter, of which a URL may have one.
    pub(super) fn set(source: &mut Option<Self>, name: &str, value: &str) -> Result<(), BoxError> {
        let new = Self { parameter: name.to_owned(), value: decoded(value)? };
        match source.replace(new) {
            None => Ok(()),
            Some(_) => Err(format!("the root secret is given twice; give one of {SOURCES}").into()),
        }
    }

    pub(super) fn required(source: Option<&Self>) -> Result<&Self, BoxError> {
        source.ok_or_else(|| format!("no root secret is given; give one of {SOURCES}").into())
    }

    /// Returns the file in this parameter, if it is the one that the URL has.
    #[cfg(feature = "file")]
    pub(super) fn file(&self, parameter: &str) -> Option<&Path> {
        (self.parameter == parameter).then_some(Path::new(&self.value))
    }

    /// Reads the root secret. A file is checked as [`SecretFile`] describes.
    pub(super) fn read(&self) -> Result<RootSecret, BoxError> {
        let Self { parameter, value } = self;
        let is_passphrase = parameter.starts_with("passphrase");
        if parameter.ends_with("_env") {
            let contents = variable(parameter, value)?;
            let parse = if is_passphrase { RootSecret::parse_passphrase } else { RootSecret::parse };
            return parse(&contents).map_err(|e| format!("{parameter}: {e}").into());
        }
        let read = if is_passphrase { SecretFile::read_passphrase } else { SecretFile::read_root_secret };
        SecretFile::open(value).and_then(read).map_err(|e| format!("{parameter}: {e}").into())
    }
}

/// Reports whether a parameter of this name would contain a secret itself.
pub(super) fn is_secret(name: &str) -> bool {
    matches!(name, "root_secret" | "passphrase" | "password" | "secret" | "key")
}

pub(super) fn secret_in_url() -> String {
    format!("a secret must not stand in a URL, because URLs are logged and listed; give {SOURCES}")
}

/// Returns the value of a parameter that is true or false.
pub(super) fn boolean(name: &str, value: &str) -> Result<bool, BoxError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("the parameter {name} is neither true nor false; give one of these").into()),
    }
}

/// Decodes a part of a URL into the system's own string type.
pub(super) fn decoded(text: &str) -> Result<OsString, BoxError> {
    let is_hex = |index: usize| text.as_bytes().get(index).is_some_and(u8::is_ascii_hexdigit);
    if text.match_indices('%').any(|(index, _)| !is_hex(index + 1) || !is_hex(index + 2)) {
        return Err("a % is not followed by two hexadecimal digits; write % itself as %25".into());
    }
    let bytes: Vec<u8> = percent_decode_str(text).collect();
    if bytes.contains(&0) {
        return Err("a path or name contains a zero byte; remove %00".into());
    }
    #[cfg(unix)]
    return Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes));
    #[cfg(not(unix))]
    return Ok(String::from_utf8(bytes).map_err(|_| "a path or name is not UTF-8; correct the %XX in it")?.into());
}

/// Returns the contents of the variable that a parameter names.
pub(super) fn variable(parameter: &str, name: &OsStr) -> Result<Zeroizing<Vec<u8>>, BoxError> {
    let value = std::env::var_os(name);
    let value = value.ok_or_else(|| format!("the variable that {parameter} names is not set; set it"))?;
    Ok(Zeroizing::new(value.into_encoded_bytes()))
}

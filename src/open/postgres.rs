//! [`PostgresUrl`]: the contents of a `postgres:` URL.

use std::fmt;
use std::time::Duration;

use keystead_postgres::{PostgresConfig, PostgresStore};
use zeroize::Zeroizing;

use super::root_source::{RootSource, SOURCES, boolean, decoded, is_secret, secret_in_url, variable};
use super::secret_file::SecretFile;
use super::{refusal, url};
use crate::{BoxError, Result};

const SCHEME: &str = "postgres";

/// The checked contents of a `postgres:` URL. No secret has been read and nothing has been opened
/// yet.
///
/// It is for programs that need more than the [`KeyStore`](crate::KeyStore) that
/// [`open`](crate::open) returns: that call `rotate` or `verify`. `Debug` does not show the server.
#[derive(Clone)]
pub struct PostgresUrl {
    config: PostgresConfig,
    create: bool,
    root: RootSource,
    password: Option<Password>,
}

/// The parameter that names a password, and its value.
#[derive(Clone)]
enum Password {
    File(std::ffi::OsString),
    Variable(std::ffi::OsString),
}

impl PostgresUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) if it is not a `postgres:` URL or is refused. No error
    /// quotes the URL.
    pub fn parse(url: &str) -> Result<Self> {
        match url::scheme(url) {
            Ok(scheme) if scheme == SCHEME => {}
            Ok(_) => return Err(refusal(SCHEME, "the URL does not name a PostgreSQL store; write postgres://HOST/DB")),
            Err(text) => return Err(refusal(SCHEME, text)),
        }
        let (host, parts) = url::UrlParts::parse_with_host(url).map_err(|text| refusal(SCHEME, text))?;
        Self::from_parts(host, parts).map_err(|e| refusal(SCHEME, e))
    }

    fn from_parts(host: &str, url: url::UrlParts<'_>) -> Result<Self, BoxError> {
        let mut root = None;
        let mut password = None;
        let mut create = false;
        let mut schema = None;
        let mut timeout = None;
        let mut connections = None;
        let mut is_replicated = false;
        // What libpq knows, too.
        let mut server = Vec::new();
        for (name, value) in url.parameters {
            match name {
                _ if RootSource::is_parameter(name) => RootSource::set(&mut root, name, value)?,
                "password_file" if password.is_none() => password = Some(Password::File(decoded(value)?)),
                "password_env" if password.is_none() => password = Some(Password::Variable(decoded(value)?)),
                "password_file" | "password_env" => {
                    return Err("the password is given twice; give password_file or password_env".into());
                }
                "create" => create = boolean(name, value)?,
                "replicated" => is_replicated = boolean(name, value)?,
                "schema" => schema = Some(text(value)?),
                "call_timeout" => timeout = Some(Duration::from_secs(number(name, value)?)),
                "max_connections" => connections = Some(number(name, value)?),
                "user" | "host" | "sslmode" | "target_session_attrs" => server.push(format!("{name}={value}")),
                _ if is_secret(name) => return Err(secret_in_url().into()),
                _ => {
                    return Err(format!(
                        "unknown parameter; a postgres URL takes user, password_file, password_env, host (the directory \
                         of a Unix socket), sslmode, target_session_attrs, schema, create, replicated, call_timeout, \
                         max_connections and one of {SOURCES}"
                    )
                    .into());
                }
            }
        }
        let root = RootSource::required(root.as_ref())?.clone();
        let mut config = PostgresConfig::new(&format!("postgres://{host}{}?{}", url.path, server.join("&")))?;
        if let Some(schema) = schema {
            config = config.schema(schema);
        }
        if let Some(timeout) = timeout {
            config = config.call_timeout(timeout);
        }
        if let Some(connections) = connections {
            config = config.max_connections(usize::try_from(connections)?);
        }
        if is_replicated {
            config = config.replicated();
        }
        Ok(Self { config, create, root, password })
    }

    /// Reads the secrets that the URL names, connects and opens the store, or creates it if it does
    /// not exist and the URL has `create=true`.
    ///
    /// # Errors
    /// - [`Config`](crate::ErrorKind::Config) if a secret cannot be read; the error names the
    ///   parameter.
    /// - Those of [`PostgresBuilder::connect`](keystead_postgres::PostgresBuilder::connect).
    pub async fn open(&self) -> Result<PostgresStore> {
        let root = self.root.read().map_err(|e| refusal(SCHEME, e))?;
        let mut config = self.config.clone();
        if let Some(password) = &self.password {
            config = password.set(config).map_err(|e| refusal(SCHEME, e))?;
        }
        PostgresStore::builder(config).root_secret(root).create_if_missing(self.create).connect().await
    }
}

impl Password {
    /// Reads the password, without the line break at its end, and sets it.
    fn set(&self, config: PostgresConfig) -> Result<PostgresConfig, BoxError> {
        let contents = match self {
            Self::File(path) => {
                let read =
                    SecretFile::open(path).and_then(|file| file.read_with(|bytes| Zeroizing::new(bytes.to_vec())));
                read.map_err(|e| format!("password_file: {e}"))?
            }
            Self::Variable(name) => variable("password_env", name)?,
        };
        let line = contents.strip_suffix(b"\n").unwrap_or(&contents);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            return Err("the password is empty; give another one, or none".into());
        }
        Ok(config.password(line))
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresUrl")
            .field("config", &self.config)
            .field("create", &self.create)
            .finish_non_exhaustive()
    }
}

fn text(value: &str) -> Result<String, BoxError> {
    decoded(value)?.into_string().map_err(|_| "a name is not UTF-8; correct the %XX in it".into())
}

fn number(name: &str, value: &str) -> Result<u64, BoxError> {
    value.parse().map_err(|_| format!("the parameter {name} is not a whole number; give one").into())
}

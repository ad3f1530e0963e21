//! [`open`]: opens the store that a URL names.

#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
mod aws;
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
mod creation;
#[cfg(feature = "file")]
mod file;
mod opener;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(any(feature = "file", feature = "postgres"))]
mod root_source;
#[cfg(feature = "sealing")]
mod secret_file;
mod url;

use std::sync::Arc;

#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub use self::aws::AwsUrl;
#[cfg(feature = "file")]
pub use self::file::FileUrl;
pub use self::opener::Opener;
#[cfg(feature = "postgres")]
pub use self::postgres::PostgresUrl;
#[cfg(feature = "sealing")]
pub use self::secret_file::{SecretFile, SecretFileError};
use crate::{Effect, Error, ErrorKind, KeyStore, Operation, Result};

/// The schemes of keystead's own stores, each with whether this build has the store. A scheme has
/// the name of the feature that adds the store.
const BUILT_IN: &[(&str, bool)] = &[
    ("memory", cfg!(feature = "memory")),
    ("file", cfg!(feature = "file")),
    ("postgres", cfg!(feature = "postgres")),
    ("ssm", cfg!(feature = "ssm")),
    ("secretsmanager", cfg!(feature = "secretsmanager")),
];

/// Opens the store that a URL names.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | a new, empty store in memory |
/// | `file:///PATH?...` | the file store at this absolute path |
/// | `postgres://HOST/DB?...` | the store in this PostgreSQL database |
/// | `ssm:///app/user-keys/%s?kms_key=...` | parameters in Parameter Store; `%s` stands for the user's id |
/// | `secretsmanager:///app/user-keys/%s?kms_key=...` | secrets in Secrets Manager; `%s` stands for the user's id |
///
/// An [`Opener`] adds the schemes of other stores. Characters that a URL must not contain are
/// written as `%XX`.
///
/// # File stores
/// `create=true` creates the store if it does not exist. `group_access=true` lets the group of its
/// files read and write them (see `FileOptions::group_access`). The URL needs exactly one of these
/// parameters:
///
/// | parameter | the root secret |
/// |---|---|
/// | `root_secret_file=FILE` | 32 raw bytes or 64 hexadecimal digits in a file |
/// | `root_secret_env=NAME` | 64 hexadecimal digits in an environment variable |
/// | `passphrase_file=FILE` | a passphrase in a file, without the line break at its end |
/// | `passphrase_env=NAME` | a passphrase in an environment variable |
///
/// Create the file of a secret with mode 0600. Links are followed. A file that others may write is
/// refused; a file that others may read is refused if this user can run `chmod` on it.
///
/// # Stores in PostgreSQL
/// The URL needs one of the four parameters that name a root secret, as a file store. `create=true`
/// creates the tables and the store if they do not exist. These parameters are optional:
///
/// | parameter | value |
/// |---|---|
/// | `schema` | the schema of the tables; `keystead` unless set |
/// | `user` | the role; the user of this process unless set |
/// | `password_file`, `password_env` | the file or the environment variable that contains the password |
/// | `host` | the directory of a Unix socket, in `postgres:///DB?host=...` |
/// | `sslmode`, `target_session_attrs` | as in libpq; TLS is required unless the host is local or `sslmode=disable` is given |
/// | `replicated` | `true` if a commit waits for a replica |
/// | `call_timeout`, `max_connections` | the time limit of a call in whole seconds, and the largest number of connections |
///
/// # Stores in AWS
/// The URL needs `kms_key` (a key id, an ARN or `alias/...`). `ssm:` takes `tier` (`standard`,
/// `advanced`, `intelligent-tiering`, `account-default`), and `secretsmanager:` takes
/// `recovery_window_days` (7 to 30). Region and credentials come from the SDK's default chains
/// (environment, profile, container, instance), unless these parameters set them:
///
/// | parameter | value |
/// |---|---|
/// | `region`, `endpoint_url` | the region and the endpoint of AWS |
/// | `profile` | a profile of the AWS configuration files; credentials come from it alone |
/// | `role_arn`, with `external_id` and `session_name` | a role to assume with the credentials that were found |
/// | `fips`, `dualstack` | `true` or `false`: whether to use AWS's endpoints of that kind |
/// | `sdk_attempts` | the number of attempts of a call; set 1 if a layer retries |
/// | `attempt_timeout`, `operation_timeout` | the time limit of one attempt and of a call, in whole seconds |
///
/// `tag.KEY=VALUE` adds a tag, and `description` a description, to everything that the store
/// creates. `secretsmanager:` takes `replica_region.REGION=KMS_KEY` for each region to which
/// secrets are replicated. `ssm:` takes `legacy=true` for a path that other software uses, which
/// may be flat, as in `ssm:///app-%s?legacy=true`. Such a store is read-only and needs no
/// `kms_key`.
///
/// Opening an AWS store makes no call to AWS; [`check`](KeyStore::check) makes one. These stores
/// need a Tokio runtime.
///
/// # Errors
/// - [`Config`](ErrorKind::Config) if the scheme is unknown (the error names the schemes of this
///   build, and the feature to enable); if a parameter is unknown, repeated or missing; if the URL
///   has user info, a host, a fragment or a secret in it; and if a secret cannot be read. No error
///   quotes the URL, but an error about a profile that does not exist names the profile.
/// - The errors of opening the store itself.
pub async fn open(url: &str) -> Result<Arc<dyn KeyStore>> {
    Opener::open_installed(url).await
}

/// Opens the Parameter Store that a URL names, for programs that need more than the
/// [`KeyStore`] that [`open`](crate::open) returns. The URL is the same.
///
/// # Errors
/// - [`Config`](ErrorKind::Config) if it is not an `ssm:` URL.
/// - The errors of [`open`](crate::open).
#[cfg(feature = "ssm")]
pub async fn open_ssm(url: &str) -> Result<keystead_ssm::SsmStore> {
    AwsUrl::parse(url)?.open_ssm().await
}

/// Opens the store that a URL names for [`reencrypt`](keystead_aws::reencrypt()). The KMS key and
/// the tier in the URL are those that the keys will have.
///
/// # Errors
/// - [`Unsupported`](ErrorKind::Unsupported) if the store is not in AWS.
/// - The errors of [`open`](crate::open).
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub async fn open_to_reencrypt(url: &str) -> Result<Arc<dyn keystead_aws::Reencrypt>> {
    match ParsedUrl::parse(url)? {
        Some(ParsedUrl::Aws(url)) => url.open_to_reencrypt().await,
        #[allow(unreachable_patterns, reason = "a build may have the AWS stores alone")]
        Some(_) => {
            let text = "only the AWS stores have a KMS key; use rotate for a file store";
            Err(Error::new(ErrorKind::Unsupported, Operation::Open, "keystead").with_source(text))
        }
        None => Err(refusal("keystead", unknown_scheme(&url::scheme(url).unwrap_or_default(), []))),
    }
}

/// Checks a URL as [`open`] does, without opening anything, and returns the path if it is the URL
/// of a file store.
///
/// The fuzzer calls it, because it must not open the stores of the URLs that it generates.
///
/// # Errors
/// Those of [`open`], except those of reading a secret and of opening the store.
#[cfg(feature = "fuzzing")]
pub fn check_url(url: &str) -> Result<Option<std::path::PathBuf>> {
    match ParsedUrl::parse(url)? {
        #[cfg(feature = "file")]
        Some(ParsedUrl::File(url)) => Ok(Some(url.path().to_owned())),
        #[allow(unreachable_patterns, reason = "a build may have the file store alone, or no backend")]
        Some(_) => Ok(None),
        None => Err(refusal("keystead", unknown_scheme(&url::scheme(url).unwrap_or_default(), []))),
    }
}

/// A URL of one of keystead's own stores, checked. No secret has been read and nothing has been
/// opened yet.
enum ParsedUrl {
    #[cfg(feature = "memory")]
    Memory,
    #[cfg(feature = "file")]
    File(FileUrl),
    #[cfg(feature = "postgres")]
    Postgres(Box<PostgresUrl>),
    #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
    Aws(AwsUrl),
}

impl ParsedUrl {
    /// Parses a URL. Returns `None` if this build has no store of its own for the scheme.
    fn parse(url: &str) -> Result<Option<Self>> {
        let scheme = url::scheme(url).map_err(|text| refusal("keystead", text))?;
        match scheme.as_str() {
            #[cfg(feature = "memory")]
            "memory" => {
                if url.len() > "memory:".len() {
                    return Err(refusal("memory", "a memory store has neither path nor parameters; write memory:"));
                }
                Ok(Some(Self::Memory))
            }
            #[cfg(feature = "file")]
            "file" => Ok(Some(Self::File(FileUrl::parse(url)?.with_root_secret()?))),
            #[cfg(feature = "postgres")]
            "postgres" => Ok(Some(Self::Postgres(Box::new(PostgresUrl::parse(url)?)))),
            #[cfg(feature = "ssm")]
            "ssm" => Ok(Some(Self::Aws(AwsUrl::parse(url)?))),
            #[cfg(feature = "secretsmanager")]
            "secretsmanager" => Ok(Some(Self::Aws(AwsUrl::parse(url)?))),
            _ => Ok(None),
        }
    }

    async fn open(self) -> Result<Arc<dyn KeyStore>> {
        match self {
            #[cfg(feature = "memory")]
            Self::Memory => Ok(Arc::new(keystead_memory::MemoryStore::new())),
            #[cfg(feature = "file")]
            Self::File(url) => Ok(Arc::new(url.open_with(url.root_secret()?).await?)),
            #[cfg(feature = "postgres")]
            Self::Postgres(url) => Ok(Arc::new(url.open().await?)),
            #[cfg(any(feature = "ssm", feature = "secretsmanager"))]
            Self::Aws(url) => url.open().await,
        }
    }
}

/// Returns the error of a URL or a setting that is refused.
fn refusal(store: &'static str, cause: impl Into<crate::BoxError>) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, store).with_effect(Effect::NotApplied).with_source(cause)
}

/// Returns the text of the error for an unknown scheme. It names the scheme only if it is one of
/// keystead's own, because any other text before a colon may be a secret.
fn unknown_scheme<'a>(scheme: &str, added: impl IntoIterator<Item = &'a str>) -> String {
    let names = |is_compiled: bool| BUILT_IN.iter().filter(move |(_, on)| *on == is_compiled).map(|(name, _)| *name);
    let known: Vec<&str> = names(true).chain(added).collect();
    let missing = names(false).collect::<Vec<_>>().join(", ");
    let opens = match known.is_empty() {
        true => "this build of keystead has no backend".to_owned(),
        false => format!("this build of keystead opens {}", known.join(", ")),
    };
    match BUILT_IN.iter().find(|(name, _)| *name == scheme) {
        Some((name, _)) => format!("{opens}; for {name} URLs enable the feature `{name}` of keystead"),
        None if missing.is_empty() => format!("unknown scheme, {opens}; use one of these"),
        None => format!("unknown scheme, {opens}; enable a feature of keystead for more ({missing})"),
    }
}

//! [`open`]: a store from a URL.

#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
mod aws;
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
mod creation;
#[cfg(feature = "file")]
mod file;
#[cfg(feature = "file")]
mod secret_file;
mod url;

use std::sync::Arc;

#[cfg(feature = "file")]
pub use self::file::FileUrl;
#[cfg(feature = "file")]
pub use self::secret_file::{SecretFile, SecretFileError};
use crate::{Effect, Error, ErrorKind, KeyStore, Operation, Result};

/// Each scheme, and the feature that compiles its backend in.
const BACKENDS: &[(&str, bool)] = &[
    ("memory", cfg!(feature = "memory")),
    ("file", cfg!(feature = "file")),
    ("ssm", cfg!(feature = "ssm")),
    ("secretsmanager", cfg!(feature = "secretsmanager")),
];

/// Opens the store that a URL names.
///
/// | URL | store |
/// |---|---|
/// | `memory:` | a new, empty store in memory |
/// | `file:///PATH?...` | the file store at this absolute path; bytes that a URL may not hold are written as `%XX` |
/// | `ssm:///app/user-keys/%s?kms_key=...` | parameters in Parameter Store, `%s` being where the id goes |
/// | `secretsmanager:///app/user-keys/%s?kms_key=...` | secrets in Secrets Manager, likewise |
///
/// A file store takes `create=true` to be created if there is none, and `group_access=true` to let
/// the group of its files read and write them (see `FileOptions::group_access`). It needs exactly
/// one of these parameters:
///
/// | parameter | the root secret |
/// |---|---|
/// | `root_secret_file=FILE` | 32 raw bytes or 64 hexadecimal digits in a file |
/// | `root_secret_env=NAME` | 64 hexadecimal digits in an environment variable |
/// | `passphrase_file=FILE` | a passphrase in a file, without the line break at its end |
/// | `passphrase_env=NAME` | a passphrase in an environment variable |
///
/// A file with a secret is made with mode 0600. Links are followed. A file that others may write is
/// refused; a file that others may read is refused if this user can run `chmod` on it.
///
/// An AWS store needs `kms_key` (a key id, an ARN or `alias/...`). `ssm:` takes `tier` (`standard`,
/// `advanced`, `intelligent-tiering`, `account-default`), `secretsmanager:` takes
/// `recovery_window_days` (7 to 30). Both take these instead of what the SDK's default chains
/// (environment, profile, container, instance) say:
///
/// | parameter | |
/// |---|---|
/// | `region`, `endpoint_url` | where AWS is |
/// | `profile` | a profile of the AWS configuration files; credentials come from it alone |
/// | `role_arn`, with `external_id` and `session_name` | a role to assume with the credentials that are found |
/// | `fips`, `dualstack` | `true` or `false`: AWS's endpoints of that kind |
/// | `sdk_attempts` | the number of attempts of a call; 1 where a layer retries |
/// | `attempt_timeout`, `operation_timeout` | whole seconds for one attempt and for a call |
///
/// What an AWS store creates gets a tag for each `tag.KEY=VALUE`, and the `description`.
/// `secretsmanager:` takes `replica_region.REGION=KMS_KEY` for each region to which secrets are
/// replicated. `ssm:` takes `legacy=true` for a path of other software, which may be flat, as
/// `ssm:///app-%s?legacy=true`: such a store only reads, and needs no `kms_key`.
///
/// Opening makes no call to AWS: [`check`](KeyStore::check) makes one. These stores need a tokio
/// runtime.
///
/// # Errors
/// [`Config`](ErrorKind::Config) if the URL will not do: an unknown scheme (the error names those
/// of this build, and the feature to enable), an unknown, repeated or missing parameter, user info,
/// a host or a fragment, a secret in the URL itself, or a secret that cannot be read. No error
/// quotes the URL, but one names a profile that does not exist. Beyond that, the errors of the
/// store's own opening.
pub async fn open(url: &str) -> Result<Arc<dyn KeyStore>> {
    Settings::of(url)?.open().await
}

/// Opens the Parameter Store that a URL names, for programs that do more with it than
/// [`open`](crate::open) gives. The URL is the same.
///
/// # Errors
/// [`Config`](ErrorKind::Config) if it is not an `ssm:` URL; else those of [`open`](crate::open).
#[cfg(feature = "ssm")]
pub async fn open_ssm(url: &str) -> Result<keystead_ssm::SsmStore> {
    match Settings::of(url)? {
        Settings::Ssm(config, location) => location.of(keystead_ssm::SsmStore::builder(*config)).connect().await,
        #[allow(unreachable_patterns, reason = "a build may have this store alone")]
        _ => Err(refusal("ssm", "the URL does not name a Parameter Store: write ssm:///PATH?kms_key=...")),
    }
}

/// Opens the store that a URL names, for [`reencrypt`](keystead_aws::reencrypt()): its KMS key and
/// tier are those that the keys are to have.
///
/// # Errors
/// Those of [`open`], and [`Unsupported`](ErrorKind::Unsupported) if the store is not one in AWS.
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
pub async fn open_to_reencrypt(url: &str) -> Result<Arc<dyn keystead_aws::Reencrypt>> {
    match Settings::of(url)? {
        #[cfg(feature = "ssm")]
        Settings::Ssm(config, location) => {
            Ok(Arc::new(location.of(keystead_ssm::SsmStore::builder(*config)).connect().await?))
        }
        #[cfg(feature = "secretsmanager")]
        Settings::SecretsManager(config, location) => {
            let builder = keystead_secretsmanager::SecretsManagerStore::builder(*config);
            Ok(Arc::new(location.of(builder).connect().await?))
        }
        #[allow(unreachable_patterns, reason = "a build may have the AWS stores alone")]
        _ => {
            let text = "only the AWS stores have a KMS key: use rotate for a file store";
            Err(Error::new(ErrorKind::Unsupported, Operation::Open, "keystead").with_source(text))
        }
    }
}

/// Checks a URL as [`open`] does, but opens nothing, and returns the path if it is the URL of a
/// file store.
///
/// The fuzzer calls it, because it must not open the stores of the URLs that it makes up.
///
/// # Errors
/// As [`open`], but for those of reading a secret and of the store's own opening.
#[cfg(feature = "fuzzing")]
pub fn check_url(url: &str) -> Result<Option<std::path::PathBuf>> {
    Ok(match Settings::of(url)? {
        #[cfg(feature = "file")]
        Settings::File(url) => Some(url.path().to_owned()),
        #[allow(unreachable_patterns, reason = "a build may have the file store alone, or no backend")]
        _ => None,
    })
}

/// The checked contents of a URL. No secret has been read and nothing has been opened yet.
enum Settings {
    #[cfg(feature = "memory")]
    Memory,
    #[cfg(feature = "file")]
    File(FileUrl),
    #[cfg(feature = "ssm")]
    Ssm(Box<keystead_ssm::SsmConfig>, aws::Location),
    #[cfg(feature = "secretsmanager")]
    SecretsManager(Box<keystead_secretsmanager::SecretsManagerConfig>, aws::Location),
}

impl Settings {
    fn of(url: &str) -> Result<Self> {
        let scheme = url::scheme(url).map_err(|text| refusal("keystead", text))?;
        match scheme.as_str() {
            #[cfg(feature = "memory")]
            "memory" => {
                if url.len() > "memory:".len() {
                    return Err(refusal("memory", "a memory store has neither path nor parameters: write memory:"));
                }
                Ok(Self::Memory)
            }
            #[cfg(feature = "file")]
            "file" => Ok(Self::File(FileUrl::parse(url)?.with_root_secret()?)),
            #[cfg(feature = "ssm")]
            "ssm" => {
                let url = url::StoreUrl::parse(url).map_err(|text| refusal("ssm", text))?;
                let settings = aws::Settings::of(url, "tier").map_err(|e| refusal("ssm", e))?;
                let config = settings.ssm().map_err(|e| refusal("ssm", e))?;
                Ok(Self::Ssm(Box::new(config), settings.location))
            }
            #[cfg(feature = "secretsmanager")]
            "secretsmanager" => {
                let url = url::StoreUrl::parse(url).map_err(|text| refusal("secretsmanager", text))?;
                let settings =
                    aws::Settings::of(url, "recovery_window_days").map_err(|e| refusal("secretsmanager", e))?;
                let config = settings.secretsmanager().map_err(|e| refusal("secretsmanager", e))?;
                Ok(Self::SecretsManager(Box::new(config), settings.location))
            }
            other => Err(refusal("keystead", unknown_scheme(other))),
        }
    }

    async fn open(self) -> Result<Arc<dyn KeyStore>> {
        match self {
            #[cfg(feature = "memory")]
            Self::Memory => Ok(Arc::new(keystead_memory::MemoryStore::new())),
            #[cfg(feature = "file")]
            Self::File(url) => Ok(Arc::new(url.open_with(url.root_secret()?).await?)),
            #[cfg(feature = "ssm")]
            Self::Ssm(config, location) => {
                Ok(Arc::new(location.of(keystead_ssm::SsmStore::builder(*config)).connect().await?))
            }
            #[cfg(feature = "secretsmanager")]
            Self::SecretsManager(config, location) => {
                let builder = keystead_secretsmanager::SecretsManagerStore::builder(*config);
                Ok(Arc::new(location.of(builder).connect().await?))
            }
        }
    }
}

fn refusal(store: &'static str, cause: impl Into<crate::BoxError>) -> Error {
    Error::new(ErrorKind::Config, Operation::Open, store).with_effect(Effect::NotApplied).with_source(cause)
}

/// Names a scheme only if it is one of ours: what is not may be anything.
fn unknown_scheme(scheme: &str) -> String {
    let names = |compiled: bool| {
        let names: Vec<&str> = BACKENDS.iter().filter(|(_, on)| *on == compiled).map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let here = match names(true).as_str() {
        "" => "this build of keystead has no backend".to_owned(),
        compiled => format!("this build of keystead opens {compiled}"),
    };
    match BACKENDS.iter().find(|(name, _)| *name == scheme) {
        Some((name, _)) => format!("{here}: for {name} URLs enable the feature `{name}` of keystead"),
        None if names(false).is_empty() => format!("unknown scheme, {here}: use one of these"),
        None => format!("unknown scheme, {here}: enable a feature of keystead for more ({})", names(false)),
    }
}

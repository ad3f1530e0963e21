//! `doctor`: reports whether a store works, how full it is, and what it costs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use keystead::file::{FileStore, SecretFile};
use keystead::{
    Capabilities, Consistency, DeletionGrade, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, Operation, Result,
    SecretKey,
};
use serde_json::{Value, json};

use crate::commands::prices::{self, Backend};
use crate::encoding::hex;
use crate::exit::{Code, CommandError, Outcome};
use crate::session::Session;
use crate::stores::{self, Asked, Tombstones};

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Estimates the costs for this number of users [default: the number of keys]
    #[arg(long, value_name = "NUMBER")]
    users: Option<u64>,
    /// Also checks the permissions to write: creates and deletes a key of a random id that nobody
    /// has
    #[arg(long)]
    pub(super) write: bool,
}

/// One check and its error, if it failed.
struct Check {
    name: &'static str,
    means: &'static str,
    failure: Option<CommandError>,
}

/// The file of the store's root secret or passphrase.
struct SecretFileState {
    file: PathBuf,
    /// True if others can read it and this user cannot change that; `None` if the system does not
    /// tell.
    is_readable_by_others: Option<bool>,
}

/// The findings about a store.
struct Diagnosis {
    store: String,
    /// The store that keeps the tombstones; `None` if none is named, or it cannot be opened.
    tombstones: Option<String>,
    /// The KMS key in the URL; `None` outside AWS, and for the key that AWS manages.
    kms_key: Option<String>,
    capabilities: Capabilities,
    /// `None` if the secret is in no file.
    secret_file: Option<SecretFileState>,
    checks: Vec<Check>,
    /// The number of keys, if they can be counted.
    count: Option<u64>,
    backend: Option<Backend>,
    tier: Option<&'static str>,
    users: Option<u64>,
}

pub(crate) async fn run(session: &Session, args: DoctorArgs) -> Outcome {
    let asked = stores::asked(session)?;
    let asked = if args.write { asked.writable()?.keeps_keys()? } else { asked };
    let url = &asked.url;
    let file = if asked.is_file() { Some(stores::open_file(session, &asked).await?) } else { None };
    let store: Arc<dyn KeyStore> = match &file {
        Some(file) => Arc::new(file.clone()),
        None => stores::open_bare(session, &asked).await?,
    };
    let (count, mut checks) = examine(&store, url).await?;
    if let Some(file) = file {
        checks.push(examine_structure(&file).await);
    }
    let tombstones = match asked.tombstones() {
        Some(named) => Some(examine_tombstones(session, store.clone(), named, &mut checks).await),
        None => None,
    };
    if args.write {
        checks.extend(examine_writes(&store).await?);
    }
    let diagnosis = Diagnosis {
        store: stores::described(&*store).await,
        tombstones: tombstones.flatten(),
        kms_key: kms_key(url),
        capabilities: store.capabilities(),
        secret_file: secret_file(&asked)?,
        checks,
        count,
        backend: backend(url),
        tier: tier(url),
        users: args.users.or(count),
    };
    session.output.result(diagnosis.to_text(), diagnosis.to_json())?;
    let failure = diagnosis.checks.iter().find_map(|check| check.failure.as_ref());
    Ok(failure.map_or(Code::Done, CommandError::code))
}

/// Inspects the file of the store's secret. The store is open, so the file was accepted a moment
/// ago.
fn secret_file(asked: &Asked) -> Outcome<Option<SecretFileState>> {
    let Some(file) = asked.secret_file()? else { return Ok(None) };
    let opened = SecretFile::open(&file);
    let opened = opened
        .map_err(|e| CommandError::usage("the file of the secret has changed since the store was opened").because(e))?;
    Ok(Some(SecretFileState { file, is_readable_by_others: opened.is_readable_by_others() }))
}

/// Checks the permissions one by one, and counts the keys if that is possible.
async fn examine(store: &Arc<dyn KeyStore>, url: &str) -> Outcome<(Option<u64>, Vec<Check>)> {
    let reach = Check {
        name: "reach",
        means: "the store answers and accepts the credentials",
        failure: store.check().await.err().map(CommandError::from),
    };
    let read = match store.get_key(&unused_id()?).await {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        answer => answer.err().map(CommandError::from),
    };
    let read = Check { name: "read", means: "a key can be read", failure: read };
    let described = described_count(url).await;
    // One id proves the permission to list; all are needed only for counting.
    let listed = listed_count(store, if described.is_some() { 1 } else { usize::MAX }).await;
    let count = described.or(listed.as_ref().ok().copied());
    let list = Check { name: "list", means: "the ids can be listed", failure: listed.err().map(CommandError::from) };
    Ok((count, vec![reach, read, list]))
}

/// Lists at most `most` ids, and returns their number.
async fn listed_count(store: &Arc<dyn KeyStore>, most: usize) -> Result<u64> {
    let mut count = 0;
    let mut ids = store.list_keys().take(most);
    while let Some(item) = ids.next().await {
        match item {
            // A damaged entry says nothing about permissions, and counts as an entry.
            Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
            _ => count += 1,
        }
    }
    Ok(count)
}

/// Counts the keys without listing them: in Parameter Store, if the caller may describe parameters.
/// This takes a fifth of the calls.
#[cfg(feature = "ssm")]
async fn described_count(url: &str) -> Option<u64> {
    if !stores::scheme(url).eq_ignore_ascii_case("ssm") {
        return None;
    }
    keystead::ssm::open(url).await.ok()?.count_keys().await.ok()
}

/// Returns `None`: no store in this build can count its keys without listing them.
#[cfg(not(feature = "ssm"))]
async fn described_count(_url: &str) -> Option<u64> {
    None
}

/// Checks the store of the tombstones and the fence with it. Returns its name and place in words.
async fn examine_tombstones(
    session: &Session,
    keys: Arc<dyn KeyStore>,
    named: &Tombstones,
    checks: &mut Vec<Check>,
) -> Option<String> {
    let means = "the tombstones can be reached and are suitable for the keys";
    let opened = match stores::open_tombstones(session, named).await {
        Ok(opened) => opened,
        Err(failure) => {
            checks.push(Check { name: "tombstones", means, failure: Some(failure) });
            return None;
        }
    };
    let shown = stores::described(&*opened).await;
    let failure = match stores::fence(keys, opened.clone(), named) {
        Ok(_) => opened.check().await.err().map(CommandError::from),
        Err(failure) => Some(failure),
    };
    checks.push(Check { name: "tombstones", means, failure });
    Some(shown)
}

/// Checks the pages of a file store's database.
async fn examine_structure(store: &FileStore) -> Check {
    let failure = match store.check_structure().await {
        Ok(0) => None,
        Ok(faults) => {
            let cause =
                format!("{faults} faults were found: run verify, and replace the store with a backup with restore");
            Some(CommandError::from(Error::new(ErrorKind::Corrupt, Operation::Verify, "file").with_source(cause)))
        }
        Err(e) => Some(CommandError::from(e)),
    };
    Check { name: "structure", means: "the pages of the file fit together", failure }
}

/// Checks the permissions to write, with a key that is deleted afterwards.
async fn examine_writes(store: &Arc<dyn KeyStore>) -> Outcome<[Check; 2]> {
    let id = unused_id()?;
    let key = random()?;
    let created = store.create_key(&id, &key).await;
    // Not a plain delete, which fails if the key was not created or is not visible yet.
    let deleted = store.erase_key(&id).await.map(drop);
    let check = |name, means, answer: Result<()>| Check { name, means, failure: answer.err().map(CommandError::from) };
    Ok([check("create", "a key can be created", created), check("delete", "a key can be deleted", deleted)])
}

/// Returns an id that nobody has.
fn unused_id() -> Outcome<KeyId> {
    KeyId::new(format!("keystead-doctor-{}", hex(random()?.expose_secret())))
        .map_err(|e| CommandError::other("cannot create a random id").because(e))
}

fn random() -> Outcome<SecretKey> {
    SecretKey::generate(16).map_err(|e| CommandError::other("cannot generate random bytes").because(e))
}

/// Returns the store's entry in the table of prices.
fn backend(url: &str) -> Option<Backend> {
    match (stores::scheme(url).to_ascii_lowercase().as_str(), tier(url)) {
        ("file", _) => Some(prices::FILE),
        ("ssm", Some("standard")) => Some(prices::SSM_STANDARD),
        // Depends on the settings of the account.
        ("ssm", Some("account-default")) => None,
        ("ssm", _) => Some(prices::SSM_ADVANCED),
        ("secretsmanager", _) => Some(prices::SECRETS_MANAGER),
        _ => None,
    }
}

/// Returns the KMS key in the URL of a store in AWS.
#[cfg(any(feature = "ssm", feature = "secretsmanager"))]
fn kms_key(url: &str) -> Option<String> {
    keystead::AwsUrl::parse(url).ok()?.kms_key().map(str::to_owned)
}

/// Returns nothing: this build has no store with a KMS key.
#[cfg(not(any(feature = "ssm", feature = "secretsmanager")))]
fn kms_key(_url: &str) -> Option<String> {
    None
}

/// Returns the tier that the URL of a Parameter Store asks for.
#[cfg(feature = "ssm")]
fn tier(url: &str) -> Option<&'static str> {
    use keystead::ssm::Tier;

    Some(match keystead::AwsUrl::parse(url).ok()?.tier()? {
        Tier::Standard => "standard",
        Tier::Advanced => "advanced",
        Tier::AccountDefault => "account-default",
        _ => "intelligent-tiering",
    })
}

/// Returns nothing: this build has no store with tiers.
#[cfg(not(feature = "ssm"))]
fn tier(_url: &str) -> Option<&'static str> {
    None
}

impl Diagnosis {
    fn to_text(&self) -> String {
        let mut lines = vec![format!("store        {}", self.store)];
        if let Some(kms_key) = &self.kms_key {
            lines.push(format!("KMS key      {kms_key}"));
        }
        if let Some(tombstones) = &self.tombstones {
            lines.push(format!("tombstones   {tombstones}"));
        }
        for (name, shown) in in_words(&self.capabilities) {
            lines.push(format!("{name:<12} {shown}"));
        }
        if let Some(secret) = &self.secret_file {
            lines.push(format!("{:<12} {}", "secret file", secret.to_text()));
        }
        for Check { name, means, failure } in &self.checks {
            match failure {
                None => lines.push(format!("{name:<12} ok: {means}")),
                Some(failure) => {
                    lines.push(format!("{name:<12} FAILED"));
                    lines.extend(failure.lines().iter().map(|line| format!("             {line}")));
                }
            }
        }
        let limit = self.backend.as_ref().and_then(|backend| Some((backend.limit?, backend.name)));
        lines.push(match (self.count, limit) {
            (Some(count), Some((limit, name))) => {
                format!("keys         {count} of the {limit} that fit in an account and region ({name})")
            }
            (Some(count), None) => format!("keys         {count}"),
            (None, _) => "keys         unknown, because they cannot be listed".to_owned(),
        });
        if let Some(users) = self.users {
            let about = format!("{users} users, each read once a day (US dollars, list prices of {})", prices::AS_OF);
            lines.push(format!("monthly cost of {about}:"));
            for backend in prices::ALL {
                let cost = backend.monthly(users).map_or("not possible".to_owned(), |cost| format!("{cost:.2}"));
                lines.push(format!("  {:<22} {cost:>12}", backend.name));
            }
        }
        lines.join("\n")
    }

    fn to_json(&self) -> Value {
        json!({
            "store": self.store,
            "kms_key": self.kms_key,
            "tombstones": self.tombstones,
            "capabilities": BTreeMap::from(in_words(&self.capabilities)),
            "secret_file": self.secret_file.as_ref().map(SecretFileState::to_json),
            "checks": self.checks.iter().map(check_json).collect::<Vec<_>>(),
            "keys": { "count": self.count, "limit": self.backend.as_ref().and_then(|backend| backend.limit) },
            "tier": self.tier,
            "costs": self.users.map(costs_json),
        })
    }
}

impl SecretFileState {
    fn to_text(&self) -> String {
        let shown = self.file.display();
        match self.is_readable_by_others {
            Some(true) => format!("others can read {shown}, and this user cannot change that"),
            Some(false) => format!("only its owner can read {shown}"),
            None => format!("{shown}; this system does not tell who can read it"),
        }
    }

    fn to_json(&self) -> Value {
        json!({ "file": self.file.display().to_string(), "readable_by_others": self.is_readable_by_others })
    }
}

fn check_json(check: &Check) -> Value {
    let error = check.failure.as_ref().map(CommandError::to_json);
    json!({ "check": check.name, "ok": check.failure.is_none(), "error": error })
}

fn costs_json(users: u64) -> Value {
    let backends: Vec<Value> = prices::ALL
        .iter()
        .map(|backend| json!({ "backend": backend.name, "monthly": backend.monthly(users), "limit": backend.limit }))
        .collect();
    json!({ "as_of": prices::AS_OF, "currency": "USD", "users": users, "reads_a_day": 1, "backends": backends })
}

/// Returns the capabilities of a store in words, with their names in JSON.
fn in_words(capabilities: &Capabilities) -> [(&'static str, String); 4] {
    let Capabilities { durability, consistency, deletion, listing, .. } = capabilities;
    let visible = |consistency: &Consistency| match consistency {
        Consistency::Strong => "strong".to_owned(),
        Consistency::Eventual { within } => format!("eventual, within {within:?}"),
        _ => format!("{consistency:?}"),
    };
    let deletion = match deletion {
        DeletionGrade::Immediate => "immediate".to_owned(),
        DeletionGrade::Eventual { within: Some(within) } => format!("eventual, within {within:?}"),
        DeletionGrade::Eventual { within: None } => "eventual".to_owned(),
        DeletionGrade::Recoverable { window } => format!("recoverable for {} days", window.as_secs() / 86_400),
        _ => format!("{deletion:?}"),
    };
    [
        ("durability", format!("{durability:?}").to_ascii_lowercase()),
        ("consistency", visible(consistency)),
        ("deletion", deletion),
        ("listing", listing.as_ref().map_or("none".to_owned(), visible)),
    ]
}

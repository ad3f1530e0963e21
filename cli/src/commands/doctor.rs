//! `doctor`: whether a store works, how full it is, and what it costs.

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
    /// Estimates the costs for so many users, instead of as many as there are keys
    #[arg(long, value_name = "NUMBER")]
    users: Option<u64>,
    /// Looks at the rights to write, too: creates and deletes a key of a random id that nobody has
    #[arg(long)]
    pub(super) write: bool,
}

/// One look, and what kept it from succeeding.
struct Check {
    name: &'static str,
    means: &'static str,
    failure: Option<CommandError>,
}

/// The file of the store's root secret or passphrase.
struct SecretFileState {
    file: PathBuf,
    /// True if others than its owner may read it, which this user cannot change; `None` if the system
    /// cannot tell.
    is_readable_by_others: Option<bool>,
}

/// What there is to tell.
struct Diagnosis {
    store: String,
    /// The store that keeps the tombstones; `None` if none is named, or it cannot be opened.
    tombstones: Option<String>,
    /// As the URL names it; `None` outside AWS, and for AWS's own key.
    kms_key: Option<String>,
    capabilities: Capabilities,
    /// `None` if the secret is in no file.
    secret_file: Option<SecretFileState>,
    checks: Vec<Check>,
    /// How many keys there are, if they can be listed.
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
        kms_key: parameter(url, "kms_key").map(str::to_owned),
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

/// Looks at the file of the store's secret. The store is open, so the file was accepted a moment ago.
fn secret_file(asked: &Asked) -> Outcome<Option<SecretFileState>> {
    let Some(file) = asked.secret_file()? else { return Ok(None) };
    let opened = SecretFile::open(&file);
    let opened = opened
        .map_err(|e| CommandError::usage("the secret's file has changed since the store was opened").because(e))?;
    Ok(Some(SecretFileState { file, is_readable_by_others: opened.is_readable_by_others() }))
}

/// The rights one by one, and how many keys there are, if they can be counted.
async fn examine(store: &Arc<dyn KeyStore>, url: &str) -> Outcome<(Option<u64>, Vec<Check>)> {
    let reach = Check {
        name: "reach",
        means: "the store answers, and knows who asks",
        failure: store.check().await.err().map(CommandError::from),
    };
    let read = match store.get_key(&nobody()?).await {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        answer => answer.err().map(CommandError::from),
    };
    let read = Check { name: "read", means: "a key can be read", failure: read };
    let described = described_count(url).await;
    // The first ids show the right to list; all of them are needed only to count them.
    let listed = listed_count(store, if described.is_some() { 1 } else { usize::MAX }).await;
    let count = described.or(listed.as_ref().ok().copied());
    let list = Check { name: "list", means: "the ids can be listed", failure: listed.err().map(CommandError::from) };
    Ok((count, vec![reach, read, list]))
}

/// Lists ids, at most so many, and returns how many there were.
async fn listed_count(store: &Arc<dyn KeyStore>, most: usize) -> Result<u64> {
    let mut count = 0;
    let mut ids = store.list_keys().take(most);
    while let Some(item) = ids.next().await {
        match item {
            // A damaged entry is no matter of rights, and it takes its place.
            Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
            _ => count += 1,
        }
    }
    Ok(count)
}

/// Counts the keys without a listing: in Parameter Store, where this identity may describe
/// parameters, with a fifth of the calls.
#[cfg(feature = "ssm")]
async fn described_count(url: &str) -> Option<u64> {
    if !stores::scheme(url).eq_ignore_ascii_case("ssm") {
        return None;
    }
    keystead::ssm::open(url).await.ok()?.count_keys().await.ok()
}

/// Counts the keys without a listing, which no store of this build can.
#[cfg(not(feature = "ssm"))]
async fn described_count(_url: &str) -> Option<u64> {
    None
}

/// The store of the tombstones, and the fence that it makes; in words where it is.
async fn examine_tombstones(
    session: &Session,
    keys: Arc<dyn KeyStore>,
    named: &Tombstones,
    checks: &mut Vec<Check>,
) -> Option<String> {
    let means = "the tombstones can be reached, and the keys go with such a store";
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

/// The pages of a file store's database.
async fn examine_structure(store: &FileStore) -> Check {
    let failure = match store.check_structure().await {
        Ok(0) => None,
        Ok(faults) => {
            let cause = format!("{faults} faults were found: see verify, and put a backup in its place with restore");
            Some(CommandError::from(Error::new(ErrorKind::Corrupt, Operation::Verify, "file").with_source(cause)))
        }
        Err(e) => Some(CommandError::from(e)),
    };
    Check { name: "structure", means: "the pages of the file fit together", failure }
}

/// The rights to write, by a key that is gone afterwards.
async fn examine_writes(store: &Arc<dyn KeyStore>) -> Outcome<[Check; 2]> {
    let id = nobody()?;
    let key = random()?;
    let created = store.create_key(&id, &key).await;
    // Not a plain delete: where none was created there is none to delete, and a store may lag.
    let deleted = store.erase_key(&id).await.map(drop);
    let check = |name, means, answer: Result<()>| Check { name, means, failure: answer.err().map(CommandError::from) };
    Ok([check("create", "a key can be created", created), check("delete", "a key can be deleted", deleted)])
}

/// An id that nobody has.
fn nobody() -> Outcome<KeyId> {
    KeyId::new(format!("keystead-doctor-{}", hex(random()?.expose_secret())))
        .map_err(|e| CommandError::other("making a random id failed").because(e))
}

fn random() -> Outcome<SecretKey> {
    SecretKey::generate(16).map_err(|e| CommandError::other("making random bytes failed").because(e))
}

/// What the store is in the table of prices.
fn backend(url: &str) -> Option<Backend> {
    match (stores::scheme(url).to_ascii_lowercase().as_str(), tier(url)) {
        ("file", _) => Some(prices::FILE),
        ("ssm", Some("standard")) => Some(prices::SSM_STANDARD),
        // Only the account knows.
        ("ssm", Some("account-default")) => None,
        ("ssm", _) => Some(prices::SSM_ADVANCED),
        ("secretsmanager", _) => Some(prices::SECRETS_MANAGER),
        _ => None,
    }
}

/// The value of a parameter of the URL, as it is written there.
fn parameter<'a>(url: &'a str, name: &str) -> Option<&'a str> {
    url.split(['?', '&']).find_map(|parameter| parameter.strip_prefix(name)?.strip_prefix('='))
}

/// The tier that the URL asks for; opening has checked it.
fn tier(url: &str) -> Option<&'static str> {
    if !stores::scheme(url).eq_ignore_ascii_case("ssm") {
        return None;
    }
    Some(match parameter(url, "tier").map(str::to_ascii_lowercase).as_deref() {
        None | Some("standard") => "standard",
        Some("advanced") => "advanced",
        Some("account-default") => "account-default",
        Some(_) => "intelligent-tiering",
    })
}

impl Diagnosis {
    fn to_text(&self) -> String {
        let mut lines = vec![format!("store        {}", self.store)];
        if let Some(kms_key) = &self.kms_key {
            lines.push(format!("KMS key      {kms_key}"));
        }
        if let Some(tombstones) = &self.tombstones {
            lines.push(format!("erased users {tombstones}"));
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
                format!("keys         {count} of the {limit} that an account and region takes ({name})")
            }
            (Some(count), None) => format!("keys         {count}"),
            (None, _) => "keys         not known, since they cannot be listed".to_owned(),
        });
        if let Some(users) = self.users {
            let about = format!("{users} users, each read once a day (US dollars, list prices of {})", prices::AS_OF);
            lines.push(format!("cost a month of {about}:"));
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
            Some(true) => format!("others may read {shown}; this user cannot change that"),
            Some(false) => format!("only its owner may read {shown}"),
            None => format!("{shown}; this system does not tell who may read it"),
        }
    }

    fn to_json(&self) -> Value {
        json!({ "file": self.file.display().to_string(), "readable_by_others": self.is_readable_by_others })
    }
}

fn check_json(check: &Check) -> Value {
    json!({ "check": check.name, "ok": check.failure.is_none(), "error": check.failure.as_ref().map(CommandError::to_json) })
}

fn costs_json(users: u64) -> Value {
    let backends: Vec<Value> = prices::ALL
        .iter()
        .map(|backend| json!({ "backend": backend.name, "monthly": backend.monthly(users), "limit": backend.limit }))
        .collect();
    json!({ "as_of": prices::AS_OF, "currency": "USD", "users": users, "reads_a_day": 1, "backends": backends })
}

/// What a store says of itself, by the names in JSON.
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

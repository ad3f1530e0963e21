//! `doctor`: whether a store works, how full it is, and what it costs.

use std::sync::Arc;

use clap::Args;
use futures_util::StreamExt;
use keystead::{Capabilities, Consistency, DeletionGrade, ErrorKind, KeyId, KeyStore, SecretKey};
use serde_json::{Value, json};

use crate::commands::prices::{self, Backend};
use crate::encoding::hex;
use crate::exit::{Code, Failure, Outcome};
use crate::session::Session;
use crate::stores;

#[derive(Args, Debug)]
pub(crate) struct DoctorArgs {
    /// Estimates the costs for so many users, instead of as many as there are keys
    #[arg(long, value_name = "NUMBER")]
    users: Option<u64>,
}

/// One look, and what kept it from succeeding.
struct Check {
    name: &'static str,
    means: &'static str,
    failure: Option<Failure>,
}

pub(crate) async fn run(session: &Session, args: DoctorArgs) -> Outcome {
    let url = stores::url(session)?;
    let store = stores::open_url(session, &url).await?;
    let (count, checks) = examine(&store).await?;
    let backend = backend(&url);
    let users = args.users.or(count);

    let (info, capabilities) = (store.info().to_string(), store.capabilities());
    let value = json!({
        "store": info,
        "capabilities": capabilities_json(&capabilities),
        "checks": checks.iter().map(check_json).collect::<Vec<_>>(),
        "keys": { "count": count, "limit": backend.as_ref().and_then(|backend| backend.limit) },
        "tier": tier(&url),
        "costs": users.map(costs_json),
    });
    session.output.result(text(&info, &capabilities, &checks, count, backend.as_ref(), users), value)?;
    Ok(checks.iter().find_map(|check| check.failure.as_ref()).map_or(Code::Done, Failure::code))
}

/// The rights one by one, and how many keys there are, if they can be listed.
async fn examine(store: &Arc<dyn KeyStore>) -> Outcome<(Option<u64>, Vec<Check>)> {
    let reach = Check {
        name: "reach",
        means: "the store answers, and knows who asks",
        failure: store.check().await.err().map(Failure::from),
    };
    let read = match store.get_key(&nobody()?).await {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        answer => answer.err().map(Failure::from),
    };
    let read = Check { name: "read", means: "a key can be read", failure: read };
    let (mut count, mut failure) = (0, None);
    let mut ids = store.list_keys();
    while let Some(item) = ids.next().await {
        match item {
            Ok(_) => count += 1,
            // A damaged entry is no matter of rights, and it takes its place.
            Err(e) if e.kind() == ErrorKind::Corrupt => count += 1,
            Err(e) => {
                failure = Some(Failure::from(e));
                break;
            }
        }
    }
    let list = Check { name: "list", means: "the ids can be listed", failure };
    let count = list.failure.is_none().then_some(count);
    Ok((count, vec![reach, read, list]))
}

/// An id that nobody has.
fn nobody() -> Outcome<KeyId> {
    let random = SecretKey::generate(16).map_err(|e| Failure::other("making a random id failed").because(e))?;
    KeyId::new(format!("keystead-doctor-{}", hex(random.expose_secret())))
        .map_err(|e| Failure::other("making a random id failed").because(e))
}

/// What the store is in the table of prices.
fn backend(url: &str) -> Option<Backend> {
    match (stores::scheme(url).to_ascii_lowercase().as_str(), tier(url)) {
        ("file", _) => Some(prices::FILE),
        ("ssm", Some("standard")) => Some(prices::SSM_STANDARD),
        ("ssm", _) => Some(prices::SSM_ADVANCED),
        ("secretsmanager", _) => Some(prices::SECRETS_MANAGER),
        _ => None,
    }
}

/// The tier that the URL asks for; opening has checked it.
fn tier(url: &str) -> Option<&'static str> {
    if !stores::scheme(url).eq_ignore_ascii_case("ssm") {
        return None;
    }
    let asked_for = url.split(['?', '&']).find_map(|parameter| parameter.strip_prefix("tier="));
    Some(match asked_for.map(str::to_ascii_lowercase).as_deref() {
        None | Some("standard") => "standard",
        Some("advanced") => "advanced",
        Some(_) => "intelligent-tiering",
    })
}

fn text(
    info: &str,
    capabilities: &Capabilities,
    checks: &[Check],
    count: Option<u64>,
    backend: Option<&Backend>,
    users: Option<u64>,
) -> String {
    let mut lines = vec![format!("store        {info}")];
    let Value::Object(capabilities) = capabilities_json(capabilities) else { return String::new() };
    for name in ["durability", "consistency", "deletion", "listing"] {
        let shown = capabilities.get(name).and_then(Value::as_str).unwrap_or("none");
        lines.push(format!("{name:<12} {shown}"));
    }
    for Check { name, means, failure } in checks {
        lines.push(format!(
            "{name:<12} {}",
            if failure.is_none() { "ok: " } else { "FAILED: not so that " }.to_owned() + means
        ));
        for line in failure.iter().flat_map(|failure| failure.lines()) {
            lines.push(format!("             {line}"));
        }
    }
    let limit = backend.and_then(|backend| Some((backend.limit?, backend.name)));
    lines.push(match (count, limit) {
        (Some(count), Some((limit, name))) => {
            format!("keys         {count} of the {limit} that an account and region takes ({name})")
        }
        (Some(count), None) => format!("keys         {count}"),
        (None, _) => "keys         not known, since they cannot be listed".to_owned(),
    });
    if let Some(users) = users {
        let as_of = prices::AS_OF;
        lines
            .push(format!("cost a month of {users} users, each read once a day (US dollars, list prices of {as_of}):"));
        for backend in prices::ALL {
            let cost = backend.monthly(users).map_or("not possible".to_owned(), |cost| format!("{cost:.2}"));
            lines.push(format!("  {:<22} {cost:>12}", backend.name));
        }
    }
    lines.join("\n")
}

fn check_json(check: &Check) -> Value {
    json!({ "check": check.name, "ok": check.failure.is_none(), "error": check.failure.as_ref().map(Failure::to_json) })
}

fn costs_json(users: u64) -> Value {
    let backends: Vec<Value> = prices::ALL
        .iter()
        .map(|backend| json!({ "backend": backend.name, "monthly": backend.monthly(users), "limit": backend.limit }))
        .collect();
    json!({ "as_of": prices::AS_OF, "currency": "USD", "users": users, "reads_a_day": 1, "backends": backends })
}

fn capabilities_json(capabilities: &Capabilities) -> Value {
    let Capabilities { durability, consistency, deletion, listing, .. } = capabilities;
    let consistency_text = |consistency: &Consistency| match consistency {
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
    json!({
        "durability": format!("{durability:?}").to_ascii_lowercase(),
        "consistency": consistency_text(consistency),
        "deletion": deletion,
        "listing": listing.as_ref().map(consistency_text),
    })
}

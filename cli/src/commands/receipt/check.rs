//! `receipt check`: checks receipts against the stores.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use keystead::layers::{ErasureReceipt, ReceiptCheck, TombstoneMatch};
use keystead::{IdentityMatch, KeyStore};
use serde::Deserialize;
use serde_json::{Deserializer, Value, json};
use tokio::task::block_in_place;

use super::verify::{broken_json, broken_text};
use crate::args::IdArgs;
use crate::exit::{Code, CommandError, Outcome};
use crate::output::utc;
use crate::receipts::{self, Broken, Demands, Position, PublicKey};
use crate::session::Session;
use crate::stores::{self, Fence};

/// The length in bytes of the longest file of receipts that is not a log.
const MAX_FILE_LEN: u64 = 64 * 1024 * 1024;

/// The length in bytes of the longest first line that is read to tell a log from other files.
const MAX_FIRST_LINE_LEN: u64 = 64 * 1024;

#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// A receipt log, or one or more receipts in JSON, as erase prints them with --json
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Checks only the receipts about this user, and fails if there is none; - reads the id from
    /// standard input
    #[arg(value_name = "ID", conflicts_with = "id_file")]
    id: Option<String>,
    /// Reads the id from this file
    #[arg(long, value_name = "FILE")]
    id_file: Option<PathBuf>,
    /// A public key in PEM: each line of the log must be signed by it; if the option is repeated,
    /// by one of the keys
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
}

/// The place of a receipt in its file.
#[derive(Clone, Copy)]
enum Place {
    /// In a log.
    Log(Position),
    /// The number of the JSON value, from 1, in any other file.
    Value(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(Position { entry, .. }) => write!(f, "entry {entry}"),
            Self::Value(number) => write!(f, "receipt {number}"),
        }
    }
}

/// The receipts of a file.
struct Found {
    receipts: Vec<(Place, ErasureReceipt)>,
    /// The first wrong line of a log. The receipts are those before it.
    broken: Option<Broken>,
    /// The number of JSON values without a receipt.
    without: u64,
}

pub(super) async fn run(session: &Session, args: CheckArgs) -> Outcome {
    let mut demands = Demands::default();
    for file in args.public_key {
        demands.public_keys.push(PublicKey::load(file).await?);
    }
    let id = match (args.id, args.id_file) {
        (None, None) => None,
        (id, id_file) => Some(IdArgs { id, id_file }.read().await?),
    };
    let found = block_in_place(|| find(&args.file, &demands))?;
    let fence = stores::open_fence_to_read(session).await?;
    let mut checked = 0;
    let mut proved = 0;
    let mut about_others = 0;
    for (place, receipt) in &found.receipts {
        if let Some(id) = &id
            && !fence.is_about(receipt, id).await?
        {
            about_others += 1;
            continue;
        }
        let check = fence.check_receipt(receipt).await?;
        checked += 1;
        proved += u64::from(check.is_proved());
        session.output.result(text(*place, receipt, &check), to_json(*place, receipt, &check))?;
    }
    let is_proved = proved == checked && checked > 0 && found.broken.is_none();
    let mut lines = summary(&fence, &found, checked, proved, about_others);
    if checked == 0 {
        let nothing =
            if id.is_some() { "none of the receipts is about this user" } else { "there is no receipt in the file" };
        lines.push(format!("  {nothing}"));
    }
    let value = json!({
        "proved_all": is_proved,
        "receipts": checked,
        "proved": proved,
        "about_others": about_others,
        "values_without_receipt": found.without,
        "log": found.broken.as_ref().map(broken_json),
    });
    session.output.result(lines.join("\n"), value)?;
    Ok(match found.broken {
        Some(_) => Code::Damaged,
        None if is_proved => Code::Done,
        None => Code::Other,
    })
}

/// Reads the receipts of a log or of any other file.
fn find(path: &Path, demands: &Demands) -> Outcome<Found> {
    let unreadable = |e| CommandError::usage(format!("cannot read {}", path.display())).because(e);
    let mut reader = BufReader::new(File::open(path).map_err(unreadable)?);
    let mut first = Vec::new();
    (&mut reader).take(MAX_FIRST_LINE_LEN).read_until(b'\n', &mut first).map_err(unreadable)?;
    if receipts::version_of(&first).is_some() {
        let mut receipts = Vec::new();
        let read = receipts::read(path, demands, |position, receipt| receipts.push((Place::Log(position), receipt)))?;
        return Ok(Found { receipts, broken: read.err(), without: 0 });
    }
    if !demands.public_keys.is_empty() {
        return Err(CommandError::usage(
            "only receipt logs are signed, and this file is not one: leave out --public-key",
        ));
    }
    let mut contents = first;
    reader.take(MAX_FILE_LEN).read_to_end(&mut contents).map_err(unreadable)?;
    if contents.len() as u64 > MAX_FILE_LEN {
        return Err(CommandError::usage(format!(
            "{} is longer than 64 MiB, which only a receipt log can be: split the file",
            path.display()
        )));
    }
    let mut found = Found { receipts: Vec::new(), broken: None, without: 0 };
    for (value, number) in Deserializer::from_slice(&contents).into_iter::<Value>().zip(1..) {
        let wrong =
            |why| CommandError::usage(format!("JSON value {number} in {} is not valid", path.display())).because(why);
        let mut value =
            value.map_err(|_| wrong("it is not JSON: give the output of erase --json, or a receipt log"))?;
        // The output of `erase` has the receipt in a field.
        let receipt = match value.get_mut("receipt").map(Value::take) {
            Some(receipt) => receipt,
            None if value.get("tombstone").is_some() => value,
            None => Value::Null,
        };
        if receipt.is_null() {
            found.without += 1;
            continue;
        }
        let receipt = ErasureReceipt::deserialize(receipt);
        let receipt = receipt.map_err(|_| wrong("it is not a receipt, or a later version of keystead wrote it"))?;
        found.receipts.push((Place::Value(number), receipt));
    }
    Ok(found)
}

fn text(place: Place, receipt: &ErasureReceipt, check: &ReceiptCheck) -> String {
    let verdict = if check.is_proved() { "proved" } else { "NOT proved" };
    let store = match check.store {
        IdentityMatch::Same => "of this store",
        IdentityMatch::Different => "of another store",
        _ => "perhaps of another store: too little is known about one of the two",
    };
    let tombstone = match check.tombstone {
        TombstoneMatch::Standing => format!("erased {}", utc(receipt.erased_at)),
        TombstoneMatch::Lifted => format!("erased {}, and later allowed a new key", utc(receipt.erased_at)),
        TombstoneMatch::AnotherTime => "the tombstone has another time".to_owned(),
        _ => "there is no such tombstone".to_owned(),
    };
    format!("{place}: {verdict}: {store}; {tombstone}")
}

fn to_json(place: Place, receipt: &ErasureReceipt, check: &ReceiptCheck) -> Value {
    let (line, entry) = match place {
        Place::Log(Position { entry, line }) => (line, Some(entry)),
        Place::Value(number) => (number, None),
    };
    let store = match check.store {
        IdentityMatch::Same => "same",
        IdentityMatch::Different => "different",
        _ => "unknown",
    };
    let tombstone = match check.tombstone {
        TombstoneMatch::Standing => "standing",
        TombstoneMatch::Lifted => "lifted",
        TombstoneMatch::AnotherTime => "another_time",
        _ => "missing",
    };
    json!({
        "line": line,
        "entry": entry,
        "proved": check.is_proved(),
        "store": store,
        "tombstone_state": tombstone,
        "receipt": receipt,
    })
}

fn summary(fence: &Fence, found: &Found, checked: u64, proved: u64, about_others: u64) -> Vec<String> {
    let mut lines = vec![format!("proved: {proved} of {checked} receipts, by {}", fence.info())];
    if about_others > 0 {
        lines.push(format!("  about other users, not checked: {about_others}"));
    }
    if found.without > 0 {
        lines.push(format!("  JSON values without a receipt: {}", found.without));
    }
    lines.extend(found.broken.as_ref().map(|broken| format!("  {}", broken_text(broken))));
    if checked > 0 {
        lines.push(
            "  a tombstone proves the erasure and its time, but not what the receipt says of verified and finality"
                .to_owned(),
        );
    }
    lines
}

//! `receipt verify`: checks that a receipt log is whole.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::exit::{Code, Outcome};
use crate::receipts::{self, Broken, Demands, Hash, Kept, PublicKey, Summary};
use crate::session::Session;

#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// The receipt log
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The head of the log at an earlier check: the log must still contain that line. Without this
    /// option, lines that were cut off at the end are not noticed
    #[arg(long, value_name = "HASH", requires = "count")]
    head: Option<Hash>,
    /// The count of the log at that check, which is the number of its last entry
    #[arg(long, value_name = "NUMBER", requires = "head")]
    count: Option<u64>,
    /// A public key in PEM, as receipt keygen prints it: each line must be signed by it; if the
    /// option is repeated, by one of the keys
    #[arg(long, value_name = "FILE")]
    public_key: Vec<PathBuf>,
}

pub(super) async fn run(session: &Session, args: VerifyArgs) -> Outcome {
    let kept = args.head.zip(args.count).map(|(head, count)| Kept { count, head });
    let mut demands = Demands { kept, ..Demands::default() };
    for file in args.public_key {
        demands.public_keys.push(PublicKey::load(file).await?);
    }
    match block_in_place(|| receipts::read(&args.file, &demands, |_, _| {}))? {
        Ok(summary) => {
            let mut lines = text(&summary);
            lines.extend(limits(&summary, &demands));
            session.output.result(lines.join("\n"), to_json(&summary, &demands))?;
            Ok(Code::Done)
        }
        Err(broken) => {
            session.output.result(broken_text(&broken), broken_json(&broken))?;
            Ok(Code::Damaged)
        }
    }
}

fn text(summary: &Summary) -> Vec<String> {
    let Summary { count, head, receipts, markers, signed_by } = summary;
    let mut lines = vec![
        "whole: each line follows from the line before".to_owned(),
        format!("receipts  {receipts}"),
        format!("markers   {markers}, one for each writer that was cut off"),
    ];
    if *markers == 0 {
        lines.pop();
    }
    lines.extend(signed_by.iter().map(|public_key| format!("signed    by {public_key}")));
    lines.push(format!("count     {count}"));
    lines.push(format!("head      {head}"));
    lines
}

/// Returns lines that say what was not proved.
fn limits(summary: &Summary, demands: &Demands) -> Vec<String> {
    let mut lines = Vec::new();
    if summary.signed_by.is_empty() {
        lines.push("not signed: the log proves the order of the receipts, not who wrote them;");
        lines.push("  anyone who can write the file can replace all of it");
    } else if demands.public_keys.is_empty() {
        lines.push("signed by keys that only the log itself names: to check whose they are, give --public-key");
        lines.push("  with a file that you got from those who erase");
    }
    if demands.kept.is_none() {
        lines.push("lines that were cut off at the end are not noticed without --head and --count:");
        lines.push("  keep the head and the count, and give them at the next check");
    }
    lines.into_iter().map(str::to_owned).collect()
}

fn to_json(summary: &Summary, demands: &Demands) -> Value {
    let Summary { count, head, receipts, markers, signed_by } = summary;
    json!({
        "whole": true,
        "receipts": receipts,
        "markers": markers,
        "count": count,
        "head": head,
        "signed_by": signed_by.iter().map(PublicKey::to_string).collect::<Vec<_>>(),
        "proves_authorship": !demands.public_keys.is_empty(),
        "proves_no_truncation": demands.kept.is_some(),
    })
}

pub(super) fn broken_text(broken: &Broken) -> String {
    format!("NOT whole: line {} {}", broken.line, broken.why)
}

pub(super) fn broken_json(broken: &Broken) -> Value {
    json!({ "whole": false, "broken_line": broken.line, "why": broken.why })
}

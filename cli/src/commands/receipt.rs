//! `receipt`: generates keys for signing receipts, and checks receipts.

pub(crate) mod check;
pub(crate) mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use self::check::CheckArgs;
use self::verify::VerifyArgs;
use crate::exit::{Code, Outcome};
use crate::output;
use crate::receipts::Signer;
use crate::session::Session;

#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Generates an Ed25519 key: writes the private key, for --signing-key, to a new file of mode
    /// 0600, and the public key, for --public-key, to standard output
    Keygen {
        /// The new file; an existing file is never overwritten
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Checks a receipt log: whether each line follows from the line before, and whether the
    /// signatures are valid
    Verify(VerifyArgs),
    /// Checks receipts against the stores: whether they are from this store, and whether the
    /// tombstones prove them; changes nothing
    Check(CheckArgs),
}

pub(super) async fn run(session: &Session, command: ReceiptCommand) -> Outcome {
    match command {
        ReceiptCommand::Keygen { file } => keygen(session, &file),
        ReceiptCommand::Verify(args) => verify::run(session, args).await,
        ReceiptCommand::Check(args) => check::run(session, args).await,
    }
}

fn keygen(session: &Session, file: &Path) -> Outcome {
    let public_key = Signer::create(file)?.public_key().to_pem();
    let shown = file.display().to_string();
    let value = json!({ "private_key_file": shown, "public_key": public_key });
    session.output.result(public_key.trim_end(), value)?;
    if !session.output.json {
        output::note(format!(
            "the private key is in {shown}: keep it secret, because everyone who has it can sign receipts"
        ));
        output::note("the public key is on standard output: give it to those who check the log");
    }
    Ok(Code::Done)
}

//! The receipt log: a file of receipts in which each line proves the lines before it.
//! receipts/FORMAT.md describes the format.

mod chain;
mod entry;
#[cfg(test)]
mod golden;
mod keys;
mod log;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use clap::Args;
use keystead::layers::ErasureReceipt;
use tokio::task::block_in_place;

pub(crate) use self::chain::{Broken, Demands, Kept, Position, Summary, read};
pub(crate) use self::entry::{Hash, version_of};
pub(crate) use self::keys::{PublicKey, Signer};
use self::log::ReceiptLog;
use crate::exit::{Code, CommandError, Outcome};

/// The options for the receipt log of a command that erases.
#[derive(Args, Clone, Debug)]
pub(crate) struct ReceiptsArgs {
    /// Adds each receipt to this log, which is created if it does not exist; needs tombstones. The
    /// log is opened and checked before anything is erased
    #[arg(long, value_name = "FILE")]
    pub(crate) receipts: Option<PathBuf>,
    /// Signs each new line of the log with the private key in this file; receipt keygen creates one
    #[arg(long, value_name = "FILE", requires = "receipts")]
    pub(crate) signing_key: Option<PathBuf>,
}

impl ReceiptsArgs {
    /// Refuses a log if there are no tombstones, because then there are no receipts.
    pub(crate) fn check(&self, has_tombstones: bool) -> Outcome<()> {
        if self.receipts.is_some() && !has_tombstones {
            return Err(CommandError::usage(
                "without tombstones there are no receipts: name the store of the tombstones, or leave out --receipts",
            ));
        }
        Ok(())
    }

    /// Opens the log, if one is named.
    pub(crate) async fn open(&self) -> Outcome<Option<Keeper>> {
        let Some(path) = &self.receipts else { return Ok(None) };
        let signer = match &self.signing_key {
            Some(path) => Some(Signer::load(path).await?),
            None => None,
        };
        let log = block_in_place(|| ReceiptLog::open(path, signer))?;
        Ok(Some(Keeper(log)))
    }
}

/// An open log for the receipts of this command.
#[derive(Debug)]
pub(crate) struct Keeper(ReceiptLog);

impl Keeper {
    /// Adds a receipt to the log and syncs the log to the disk. Returns the number of the new
    /// entry. Runs to its end even if the command is interrupted.
    ///
    /// # Errors
    /// The user is erased, but the receipt is not in the log. Print it instead.
    pub(crate) fn keep(&mut self, receipt: &ErasureReceipt) -> Result<u64, NotKept> {
        let log = &mut self.0;
        block_in_place(|| log.append(receipt)).map_err(|e| {
            let lines = e.lines();
            let reasons: Vec<&str> = lines.iter().map(|line| line.strip_prefix("because ").unwrap_or(line)).collect();
            NotKept { log: log.path().to_owned(), why: reasons.join(": ") }
        })
    }
}

/// The reason why the receipt of an erased user could not be added to the log.
#[derive(Debug)]
pub(crate) struct NotKept {
    log: PathBuf,
    why: String,
}

impl NotKept {
    /// Returns the failure of the command, with the code [`ReceiptNotKept`](Code::ReceiptNotKept).
    /// `is_printed` tells whether the receipt was written to standard output instead.
    pub(crate) fn into_failure(self, is_printed: bool) -> CommandError {
        let log = self.log.display();
        let (what, advice) = if is_printed {
            (
                format!("the user was erased, but the receipt could not be added to {log}"),
                "the receipt is on standard output: keep it; erasing the user again is safe and gives another receipt",
            )
        } else {
            (
                format!("the user was erased, but the receipt could neither be added to {log} nor be printed"),
                "erase the user again with a log that can be written: this is safe and gives another receipt",
            )
        };
        CommandError::new(Code::ReceiptNotKept, what).because(self.why).advise(advice)
    }
}

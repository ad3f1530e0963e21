//! [`Tally`]: the counts of `erase --ids-file`, and the result that follows from them.

use std::time::SystemTime;

use keystead::Finality;
use serde_json::{Value, json};

use super::super::erase::EraseArgs;
use super::super::eraser::Erased;
use crate::exit::{Code, CommandError};
use crate::finality::FinalityArgs;

/// The counts of users. Each user whose erasure has ended is counted in exactly one of the fields
/// from `erased` to `failed`.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// The number of users in the file.
    total: u64,
    /// The number of lines that repeat the id of an earlier line.
    repeated: u64,
    /// The number of users who were skipped because the log has their receipts.
    erased_before: u64,
    pub(super) begun: u64,
    pub(super) ended: u64,
    erased: u64,
    no_key: u64,
    not_verified: u64,
    recoverable: u64,
    pub(super) failed: u64,
    /// The number of receipts that could not be added to the log.
    pub(super) not_kept: u64,
    /// The number of users, among `erased` and `no_key`, for whom it is not known when the key's
    /// bytes will be beyond recovery.
    unbounded: u64,
    first_failure: Option<Code>,
}

impl Tally {
    pub(super) fn new(total: u64, repeated: u64, to_erase: u64) -> Self {
        Self { total, repeated, erased_before: total - to_erase, ..Self::default() }
    }

    pub(super) fn record(&mut self, erased: &Erased) {
        let count = match FinalityArgs::default().code(erased.verified, erased.finality) {
            Code::NotVerified => &mut self.not_verified,
            Code::Recoverable => &mut self.recoverable,
            _ if erased.existed => &mut self.erased,
            _ => &mut self.no_key,
        };
        *count += 1;
        if erased.finality == (Finality::Eventual { within: None }) {
            self.unbounded += 1;
        }
    }

    pub(super) fn record_failure(&mut self, code: Code) {
        self.failed += 1;
        self.first_failure.get_or_insert(code);
    }

    fn not_begun(&self) -> u64 {
        self.total - self.erased_before - self.begun
    }

    fn is_complete(&self, finality: FinalityArgs) -> bool {
        self.code(finality) == Code::Done && self.not_begun() == 0
    }

    /// Returns the worst of all users' codes: first that of a receipt that was not kept, then of a
    /// failure, of an erasure that is not verified, and of a key that is not beyond recovery.
    pub(super) fn code(&self, finality: FinalityArgs) -> Code {
        let recoverable = finality.code(false, Finality::RecoverableUntil(SystemTime::UNIX_EPOCH));
        let unbounded = finality.code(true, Finality::Eventual { within: None });
        match self.first_failure {
            _ if self.not_kept > 0 => Code::ReceiptNotKept,
            Some(code) => code,
            None if self.not_verified > 0 => Code::NotVerified,
            None if self.recoverable > 0 && recoverable != Code::Done => recoverable,
            None if self.unbounded > 0 => unbounded,
            None => Code::Done,
        }
    }

    /// Returns the failure of a command whose standard output failed after receipts could not be
    /// added to the log.
    pub(super) fn receipts_lost(&self) -> CommandError {
        let what = format!(
            "receipts of erased users could not be added to the log: {}; not all of them could be printed",
            self.not_kept
        );
        CommandError::new(Code::ReceiptNotKept, what).advise(
            "run the same command again with a log that can be written: this is safe and gives each user a receipt",
        )
    }

    pub(super) fn text(&self, finality: FinalityArgs) -> String {
        let verdict = if self.is_complete(finality) { "complete" } else { "NOT complete" };
        let mut lines =
            vec![format!("{verdict}: {} of {} users' keys were erased and verified", self.erased, self.total)];
        for (what, count) in [
            ("there was no key, verified", self.no_key),
            ("erased before, according to the receipts in the log", self.erased_before),
            ("not verified by a read; run erase again", self.not_verified),
            ("an operator can still bring the key back", self.recoverable),
            ("failed; run erase again", self.failed),
            ("not begun", self.not_begun()),
            ("receipts that could not be added to the log", self.not_kept),
            ("lines that repeat the id of an earlier line", self.repeated),
        ] {
            if count > 0 {
                lines.push(format!("  {what}: {count}"));
            }
        }
        lines.join("\n")
    }

    pub(super) fn to_json(&self, finality: FinalityArgs) -> Value {
        json!({
            "complete": self.is_complete(finality),
            "users": self.total,
            "erased": self.erased,
            "no_key": self.no_key,
            "erased_before": self.erased_before,
            "not_verified": self.not_verified,
            "recoverable": self.recoverable,
            "failed": self.failed,
            "not_begun": self.not_begun(),
            "receipts_not_kept": self.not_kept,
            "repeated_lines": self.repeated,
        })
    }

    /// Returns the advice for an interruption at this moment.
    pub(super) fn interrupted(&self, args: &EraseArgs) -> String {
        let under_way = self.begun - self.ended;
        let resume =
            if args.receipts.receipts.is_some() { "; with --resume it skips the users in the log" } else { "" };
        format!(
            "of {} users, {} were finished, {under_way} were under way, whose keys may be erased or not, and {} were \
             not begun; it is safe to run the same command again{resume}",
            self.total,
            self.erased_before + self.ended,
            self.not_begun()
        )
    }
}

//! The exit codes of commands that delete keys, by how final a deletion is, and the places that a
//! deletion does not reach.

use clap::Args;
use keystead::Finality;

use crate::exit::Code;

/// The option to accept that a deleted key can be brought back.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct RecoverableArgs {
    /// Exits with 0 instead of 9 if an operator can still bring the key back during the store's
    /// recovery window
    #[arg(long)]
    accept_recoverable: bool,
}

/// The options for how final an erasure must be.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FinalityArgs {
    #[command(flatten)]
    recoverable: RecoverableArgs,
    /// Exits with 9 also if it is not known when the key's bytes will be beyond recovery
    #[arg(long, conflicts_with = "accept_recoverable")]
    require_final: bool,
}

impl RecoverableArgs {
    /// Returns the exit code of a deletion.
    pub(crate) fn code(self, finality: Finality) -> Code {
        match finality {
            Finality::Immediate | Finality::Eventual { .. } => Code::Done,
            Finality::RecoverableUntil(_) if self.accept_recoverable => Code::Done,
            // A finality that a later version of the library adds is not known to be final.
            _ => Code::Recoverable,
        }
    }
}

impl FinalityArgs {
    /// Returns the exit code of an erasure. A key that can be brought back is not gone, so no read
    /// can verify that it is: `Recoverable` takes precedence over `NotVerified`.
    pub(crate) fn code(self, verified: bool, finality: Finality) -> Code {
        let is_final = self.recoverable.code(finality);
        match finality {
            Finality::Immediate | Finality::Eventual { .. } if !verified => Code::NotVerified,
            Finality::Eventual { within: None } if self.require_final => Code::Recoverable,
            _ => is_final,
        }
    }
}

/// Returns where copies of an erased key may remain that a store of this scheme cannot reach.
pub(crate) fn left_elsewhere(scheme: &str) -> &'static str {
    match scheme {
        "file" => {
            "backups, copies and snapshots of the store's files may still contain the key. They open only with the \
             root secret of their time: run rotate, then destroy the old root secret"
        }
        "ssm" => {
            "CloudTrail's logs keep the parameter's name, which contains the id, but not the key. AWS keeps no \
             version of a deleted parameter; a copy of the store still contains the key"
        }
        "secretsmanager" => {
            "CloudTrail's logs keep the secret's name, which contains the id, but not the key. A promoted replica \
             or a copy of the store still contains the key"
        }
        _ => "backups, copies and logs of the store may still contain the key",
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn the_code_says_how_final_an_erasure_is() {
        let accepting =
            FinalityArgs { recoverable: RecoverableArgs { accept_recoverable: true }, require_final: false };
        let strict = FinalityArgs { require_final: true, ..FinalityArgs::default() };
        let bound = Finality::Eventual { within: Some(Duration::from_secs(1)) };
        let unbound = Finality::Eventual { within: None };
        let recoverable = Finality::RecoverableUntil(SystemTime::now());
        for (finality, verified, codes) in [
            (Finality::Immediate, true, [0, 0, 0]),
            (bound, true, [0, 0, 0]),
            (unbound, true, [0, 0, 9]),
            (recoverable, false, [9, 0, 9]),
            (recoverable, true, [9, 0, 9]),
            (Finality::Immediate, false, [8, 8, 8]),
            (bound, false, [8, 8, 8]),
            (unbound, false, [8, 8, 8]),
        ] {
            let code = |args: FinalityArgs| args.code(verified, finality) as u8;
            assert_eq!([FinalityArgs::default(), accepting, strict].map(code), codes, "{finality:?}, {verified}");
        }
    }
}

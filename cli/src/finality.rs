//! The codes of a command that deletes keys, by how final that is, and what may be left elsewhere.

use clap::Args;
use keystead::Finality;

use crate::exit::Code;

/// Accepts that a key can be brought back.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct RecoverableArgs {
    /// Exits with 0 even if an operator can still bring the key back, for as long as the store's recovery
    /// window lasts, instead of with 9
    #[arg(long)]
    accept_recoverable: bool,
}

/// Says how final an erasure must be.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct FinalityArgs {
    #[command(flatten)]
    recoverable: RecoverableArgs,
    /// Exits with 9 also if no time is known after which the key's bytes are beyond recovery by the store
    #[arg(long, conflicts_with = "accept_recoverable")]
    require_final: bool,
}

impl RecoverableArgs {
    /// The code of a deletion.
    pub(crate) fn code(self, finality: Finality) -> Code {
        match finality {
            Finality::Immediate | Finality::Eventual { .. } => Code::Done,
            Finality::RecoverableUntil(_) if self.accept_recoverable => Code::Done,
            // What a later version of the library knows is not known to be final.
            _ => Code::Recoverable,
        }
    }
}

impl FinalityArgs {
    /// The code of an erasure. A key that can be brought back is not gone, so no read can verify that it
    /// is: this counts before `verified`.
    pub(crate) fn code(self, verified: bool, finality: Finality) -> Code {
        let is_final = self.recoverable.code(finality);
        match finality {
            Finality::Immediate | Finality::Eventual { .. } if !verified => Code::NotVerified,
            Finality::Eventual { within: None } if self.require_final => Code::Recoverable,
            _ => is_final,
        }
    }
}

/// Returns what may be left of an erased key in places that the store of this scheme cannot reach.
pub(crate) fn left_elsewhere(scheme: &str) -> &'static str {
    match scheme {
        "file" => {
            "backups and copies of the store's files, and snapshots below them, may still hold the key. They open \
             with the root secret of their time only: rotate, and destroy the old root secret"
        }
        "ssm" => {
            "CloudTrail's logs keep the parameter's name, and with it the id, but not the key. AWS keeps no version \
             of a deleted parameter; a copy that was made of the store still holds the key"
        }
        "secretsmanager" => {
            "CloudTrail's logs keep the secret's name, and with it the id, but not the key. A replica that was \
             promoted, or a copy that was made of the store, still holds the key"
        }
        _ => "backups, copies and logs of the store may still hold the key",
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

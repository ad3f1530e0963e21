//! `erase --ids-file`: erases many users, several at a time.

mod patience;
mod tally;

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use keystead::layers::{ErasureReceipt, TombstoneMatch};
use keystead::{Error, IdentityMatch, KeyStore};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use self::patience::Patience;
use self::tally::Tally;
use super::erase::{self, EraseArgs};
use super::eraser::{Erased, Eraser};
use crate::exit::{Code, CommandError, Outcome};
use crate::ids_file::{self, User, Users};
use crate::progress::Meter;
use crate::receipts::{self, Demands, Keeper};
use crate::session::Session;
use crate::stores::Fence;
use crate::{output, terminal};

/// The number of erasures that are under way at once. Each waits for the visibility bound of the
/// store, and these waits overlap.
const AT_ONCE: usize = 32;

/// The number of failures that are reported one by one.
const FAILURES_TOLD: u64 = 100;

pub(super) async fn run(session: &Session, args: &EraseArgs, file: &Path) -> Outcome {
    let Users { distinct: users, repeated, blank_at_end } = ids_file::read(file).await?;
    if let Some(line) = blank_at_end {
        output::note(format!("the id on line {line} begins or ends with a blank, which counts as part of the id"));
    }
    let eraser = Arc::new(Eraser::open(session).await?);
    args.receipts.check(eraser.fence().is_some())?;
    let total = users.len() as u64;
    let to_erase = without_erased(&eraser, args, users).await?;
    let tally = Tally::new(total, repeated, to_erase.len() as u64);
    if to_erase.is_empty() {
        session.output.result(tally.text(args.finality), tally.to_json(args.finality))?;
        return Ok(Code::Done);
    }
    if !args.yes {
        let users =
            if to_erase.len() == 1 { "1 user's key".to_owned() } else { format!("{} users' keys", to_erase.len()) };
        let question = format!("permanently erase {users} from {}?", eraser.shown());
        terminal::confirm(&question, "nothing was erased").await?;
    }
    let keeper = args.receipts.open().await?;
    let has_receipts = eraser.fence().is_some();
    let mut run = Run { session, args, keeper, has_receipts, tally, is_stopped: false, broken: None };
    run.erase_all(&eraser, to_erase).await;
    let Run { tally, broken, .. } = run;
    let printed = match broken {
        Some(failure) => Err(failure),
        None => session.output.result(tally.text(args.finality), tally.to_json(args.finality)),
    };
    if printed.is_err() && tally.not_kept > 0 {
        return Err(tally.receipts_lost());
    }
    printed?;
    if !session.output.json {
        erase::note(Code::Done, eraser.scheme());
    }
    Ok(tally.code(args.finality))
}

/// Returns the users who must be erased: with `--resume`, without those who have a receipt in the
/// log.
async fn without_erased(eraser: &Eraser, args: &EraseArgs, users: Vec<User>) -> Outcome<Vec<User>> {
    let (true, Some(path), Some(fence)) = (args.resume, &args.receipts.receipts, eraser.fence()) else {
        return Ok(users);
    };
    if !path.exists() {
        let shown = path.display();
        return Err(CommandError::usage(format!("there is no receipt log {shown} to resume from: leave out --resume")));
    }
    // Asks once for the parts of the store's identity that are not known yet.
    drop(fence.identify().await);
    let identity = fence.info().identity().clone();
    let mut receipts = HashMap::new();
    let read = receipts::read(path, &Demands::default(), |_, receipt: ErasureReceipt| {
        let is_enough = args.finality.code(receipt.verified, receipt.finality) == Code::Done && receipt.verified;
        if is_enough && identity.compare(&receipt.store) == IdentityMatch::Same {
            receipts.insert(receipt.tombstone.clone(), receipt);
        }
    })?;
    read.map_err(|broken| {
        CommandError::new(Code::Damaged, format!("nothing was erased: line {} of the log {}", broken.line, broken.why))
            .advise("keep this log as it is, and name a new file without --resume")
    })?;
    if receipts.is_empty() {
        return Ok(users);
    }
    let receipts = &receipts;
    let looked_up = stream::iter(users).map(async |user| -> Result<Option<User>, Error> {
        let is_erased = match receipts.get(&fence.tombstone_of(&user.id).await?) {
            Some(receipt) => is_still_erased(fence, receipt).await?,
            None => false,
        };
        Ok((!is_erased).then_some(user))
    });
    let left: Vec<Option<User>> = looked_up.buffered(AT_ONCE).try_collect().await?;
    Ok(left.into_iter().flatten().collect())
}

/// Reports whether the user is still erased, without a new key having been allowed since this
/// receipt.
async fn is_still_erased(fence: &Fence, receipt: &ErasureReceipt) -> Result<bool, Error> {
    Ok(fence.check_receipt(receipt).await?.tombstone == TombstoneMatch::Standing)
}

/// The erasures of one command.
struct Run<'s> {
    session: &'s Session,
    args: &'s EraseArgs,
    keeper: Option<Keeper>,
    /// Whether each erasure has a receipt.
    has_receipts: bool,
    tally: Tally,
    /// True if no further erasure may begin, because a result could not be written.
    is_stopped: bool,
    /// The error of standard output, if it could not be written.
    broken: Option<CommandError>,
}

impl Run<'_> {
    async fn erase_all(&mut self, eraser: &Arc<Eraser>, users: Vec<User>) {
        let total = users.len() as u64;
        let mut waiting = VecDeque::from(users);
        let patience = Arc::new(Patience::new());
        let mut under_way = JoinSet::new();
        // Lines of results would break a progress line that is rewritten.
        let mut meter = (!self.writes_each()).then(|| Meter::new(self.session));
        loop {
            while under_way.len() < AT_ONCE
                && !self.is_stopped
                && let Some(user) = waiting.pop_front()
            {
                self.tally.begun += 1;
                self.session.say_if_interrupted(self.tally.interrupted(self.args));
                under_way.spawn(erase_patiently(eraser.clone(), user, patience.clone()));
            }
            let Some(ended) = under_way.join_next().await else { break };
            self.tally.ended += 1;
            match ended {
                Ok((user, Ok(erased))) => self.record(&user, &erased),
                Ok((user, Err(error))) => self.record_failure(&user, error),
                Err(_) => {
                    self.tally.record_failure(Code::Other);
                    output::note("an erasure ended unexpectedly; see above");
                }
            }
            self.session.say_if_interrupted(self.tally.interrupted(self.args));
            if let Some(meter) = &mut meter {
                meter.tell("erasing", self.tally.ended, Some(total));
            }
        }
    }

    /// Reports whether a line is written for each user. Without a log, this is where receipts are
    /// found.
    fn writes_each(&self) -> bool {
        self.session.output.json || (self.has_receipts && self.keeper.is_none())
    }

    fn record(&mut self, user: &User, erased: &Erased) {
        self.tally.record(erased);
        let not_kept = match (&mut self.keeper, &erased.receipt) {
            (Some(keeper), Some(receipt)) => keeper.keep(receipt).err(),
            _ => None,
        };
        if self.writes_each() || not_kept.is_some() {
            let mut value = erased.to_json();
            if let Value::Object(fields) = &mut value {
                fields.insert("line".to_owned(), json!(user.line));
            }
            let tombstone = erased.receipt.as_ref().map(|receipt| format!("; tombstone {}", receipt.tombstone));
            let mut text = format!("line {}: {}{}", user.line, erased.text(), tombstone.unwrap_or_default());
            if not_kept.is_some() {
                text.push_str(&format!("\n{}", json!({ "receipt": erased.receipt })));
            }
            if let Err(failure) = self.session.output.result(text, value) {
                self.stop(failure);
            }
        }
        if let Some(not_kept) = not_kept {
            // No further user is erased without a log.
            self.is_stopped = true;
            self.tally.not_kept += 1;
            self.tell_failure(&format!("line {}", user.line), &not_kept.into_failure(self.broken.is_none()));
        }
    }

    fn record_failure(&mut self, user: &User, error: Error) {
        let failure = CommandError::from(error);
        self.tally.record_failure(failure.code());
        if self.session.output.json {
            let value = json!({ "line": user.line, "error": failure.to_json() });
            if let Err(failure) = self.session.output.text(&value.to_string()) {
                self.stop(failure);
            }
        } else {
            self.tell_failure(&format!("not erased: line {}", user.line), &failure);
        }
    }

    fn tell_failure(&self, what: &str, failure: &CommandError) {
        match (self.tally.failed + self.tally.not_kept).cmp(&(FAILURES_TOLD + 1)) {
            std::cmp::Ordering::Less => output::note(format!("{what}: {}", failure.lines().join("; "))),
            std::cmp::Ordering::Equal => output::note("further failures are only counted"),
            std::cmp::Ordering::Greater => {}
        }
    }

    /// Begins no further erasure. The command ends with this error once those under way have ended.
    fn stop(&mut self, failure: CommandError) {
        self.is_stopped = true;
        self.broken.get_or_insert(failure);
    }
}

async fn erase_patiently(eraser: Arc<Eraser>, user: User, patience: Arc<Patience>) -> (User, Result<Erased, Error>) {
    let ended = patience.repeat(|| eraser.erase(&user.id)).await;
    (user, ended)
}

//! [`Ledger`]: what is known of each id, in memory and, if there is one, in the journal.

use std::collections::BTreeMap;
use std::path::Path;

use super::digest::{Digest, Digester, random_digest_key};
use super::identity::Identities;
use super::journal::{Journal, Record, Step};
use crate::{IdentityMatch, KeyId, Result, SecretKey};

/// About 50 bytes an id: a B-tree is two thirds full on the average, and never grows by doubling.
pub(super) struct Ledger {
    digester: Digester,
    known: BTreeMap<Digest, Entry>,
    journal: Option<Journal>,
    /// The stores in the journal's header, if another run has begun it.
    journal_stores: Option<Identities>,
    /// True if what this run writes may count as written by the copy for later runs too. It may not
    /// if the journal could be of another target.
    is_certain: bool,
    /// True if the journal's last record says that the copy was complete.
    ended: bool,
}

struct Entry {
    state: State,
    /// The present pass has met it in the source's listing, and the source has it.
    seen: bool,
    /// The target may have a key by our hand: the one with the digest that begins like this.
    ours: Option<[u8; 8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is settled yet.
    Open,
    /// The journal says that an earlier run has read the source's key at the target.
    Before,
    /// The same, and this run believes it.
    Believed,
    /// This run has read the source's key at the target.
    AtTarget,
    /// Settled otherwise: a conflict or a failure, which is not tried again in this run.
    Skipped,
    /// Listed by the source, but not found there.
    Vanished,
    /// This run has deleted it at the source.
    Deleted,
    /// It was to be deleted at the source, and was left or could not be deleted; the report has it.
    Left,
}

/// The state of a listed id in the present pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ListedState {
    /// It was listed before in this pass.
    Repeated,
    /// It is to be copied.
    ToDo,
    /// It is to be looked for again: it was listed before, but not found.
    Vanished,
    /// An earlier run has copied it, and this run has not met it yet.
    Before,
    /// This run has dealt with it.
    Done,
}

/// The outcome for an id in the pass that deletes at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DeletionState {
    /// It was deleted.
    Deleted,
    /// It was left or failed, and the report says so.
    Reported,
    /// The pass has not met it.
    New,
}

impl Ledger {
    /// With what the journal knows, if there is one.
    pub(super) fn open(journal: Option<&Path>, identities: &Identities) -> Result<Self> {
        let Some(path) = journal else { return Ok(Self::new(Digester::new(&random_digest_key()))) };
        let (mut journal, earlier) = Journal::open(path, identities)?;
        let mut ledger = Self::new(journal.digester());
        ledger.bind(earlier, identities);
        journal.replay(|record| ledger.take(record))?;
        if journal.deletes_source() {
            ledger.disown();
        }
        ledger.journal = Some(journal);
        Ok(ledger)
    }

    /// The same for a dry run, which writes no journal.
    pub(super) fn look(journal: Option<&Path>, identities: &Identities) -> Result<Self> {
        let mut ledger = Self::new(Digester::new(&random_digest_key()));
        if let Some(path) = journal
            && let Some(look) = Journal::look(path, identities, |record| ledger.take(record))?
        {
            ledger.digester = look.digester;
            ledger.bind(Some(look.identities), identities);
        }
        Ok(ledger)
    }

    fn new(digester: Digester) -> Self {
        let known = BTreeMap::new();
        Self { digester, known, journal: None, journal_stores: None, is_certain: true, ended: false }
    }

    fn bind(&mut self, earlier: Option<Identities>, now: &Identities) {
        self.is_certain = earlier.as_ref().is_none_or(|earlier| earlier.compare(now) == IdentityMatch::Same);
        self.journal_stores = earlier;
    }

    /// The stores in the journal's header, if another run has begun it.
    pub(super) fn journal_stores(&self) -> Option<&Identities> {
        self.journal_stores.as_ref()
    }

    fn take(&mut self, record: Record) {
        self.ended = record.step == Step::Ended;
        let ours = Some(beginning(&record.key));
        let (state, ours) = match record.step {
            Step::Intended => (State::Open, ours),
            Step::Written => (State::Before, ours),
            Step::Found => (State::Before, None),
            Step::Removed => {
                self.known.remove(&record.id);
                return;
            }
            Step::Ended => {
                self.disown();
                return;
            }
        };
        self.known.insert(record.id, Entry { state, seen: false, ours });
    }

    /// Keeps at the target what the source loses after a copy was complete: it was not lost during
    /// the copy. The same is true of what the copy itself deletes then.
    fn disown(&mut self) {
        self.known.values_mut().for_each(|entry| entry.ours = None);
    }

    /// Reports whether the copy was complete when the journal was last written.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(super) fn digester(&self) -> &Digester {
        &self.digester
    }

    pub(super) fn digest(&self, id: &KeyId) -> Digest {
        self.digester.id(id)
    }

    pub(super) fn key_digest(&self, id: &Digest, key: &SecretKey) -> Digest {
        self.digester.key(id, key)
    }

    /// The source is about to be listed.
    pub(super) fn begin_pass(&mut self) {
        self.known.values_mut().for_each(|entry| entry.seen = false);
    }

    /// The source has listed this id.
    pub(super) fn listed_state(&mut self, id: &KeyId) -> ListedState {
        let new = || Entry { state: State::Open, seen: false, ours: None };
        let entry = self.known.entry(self.digester.id(id)).or_insert_with(new);
        if std::mem::replace(&mut entry.seen, true) {
            return ListedState::Repeated;
        }
        match entry.state {
            State::Open => ListedState::ToDo,
            State::Vanished => ListedState::Vanished,
            State::Before => ListedState::Before,
            State::Believed | State::AtTarget | State::Skipped | State::Deleted | State::Left => ListedState::Done,
        }
    }

    /// The source does not find an id that it listed.
    pub(super) fn vanish(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            (entry.state, entry.seen) = (State::Vanished, false);
        }
    }

    /// This run believes the journal that the key is at the target.
    pub(super) fn believe(&mut self, id: &KeyId) {
        self.set(&self.digester.id(id), State::Believed);
    }

    /// This run has read the key at the target, as the journal says.
    pub(super) fn rechecked(&mut self, id: &Digest) {
        self.set(id, State::AtTarget);
    }

    /// The id failed; whether the target has our key may be uncertain.
    pub(super) fn failed(&mut self, id: &Digest) {
        self.set(id, State::Skipped);
    }

    /// The target has a key that is not ours, and keeps it.
    pub(super) fn conflicting(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            (entry.state, entry.ours) = (State::Skipped, None);
        }
    }

    pub(super) fn is_skipped(&self, id: &KeyId) -> bool {
        self.known.get(&self.digest(id)).is_some_and(|entry| entry.state == State::Skipped)
    }

    /// The key was deleted at the source.
    pub(super) fn deleted(&mut self, id: &KeyId) {
        self.set_deletion(id, State::Deleted);
    }

    /// The key was left at the source, or could not be deleted, and that is reported.
    pub(super) fn left(&mut self, id: &KeyId) {
        self.set_deletion(id, State::Left);
    }

    fn set_deletion(&mut self, id: &KeyId, state: State) {
        let new = || Entry { state, seen: true, ours: None };
        self.known.entry(self.digester.id(id)).or_insert_with(new).state = state;
    }

    pub(super) fn deletion_state(&self, id: &KeyId) -> DeletionState {
        match self.known.get(&self.digester.id(id)).map(|entry| entry.state) {
            Some(State::Deleted) => DeletionState::Deleted,
            Some(State::Left | State::Skipped) => DeletionState::Reported,
            _ => DeletionState::New,
        }
    }

    fn set(&mut self, id: &Digest, state: State) {
        if let Some(entry) = self.known.get_mut(id) {
            entry.state = state;
        }
    }

    /// A key is about to be written; whether an earlier run began to write this very one. Takes
    /// effect with [`sync`](Self::sync), before which nothing may be written.
    pub(super) fn intend(&mut self, id: Digest, key: Digest) -> bool {
        let ours = Some(beginning(&key));
        if self.known.get(&id).is_some_and(|entry| entry.ours == ours) {
            return true;
        }
        self.record_if_certain(Step::Intended, id, key);
        if let Some(entry) = self.known.get_mut(&id) {
            entry.ours = ours;
        }
        false
    }

    /// We wrote the key, and have read it back. `was_intended`: [`intend`](Self::intend) said that
    /// an earlier run began to.
    pub(super) fn written(&mut self, id: Digest, key: Digest, was_intended: bool) {
        match (self.is_certain, was_intended) {
            (true, _) => self.record(Step::Written, id, key),
            // Later runs may know that it is there, but not take it for their own.
            (false, false) => self.record(Step::Found, id, key),
            (false, true) => {}
        }
        self.known.insert(id, Entry { state: State::AtTarget, seen: true, ours: Some(beginning(&key)) });
    }

    /// The target had the key already.
    pub(super) fn found(&mut self, id: Digest, key: Digest) {
        self.record(Step::Found, id, key);
        self.known.insert(id, Entry { state: State::AtTarget, seen: true, ours: None });
    }

    /// Returns the number of ids that have a key at the target by our hand and are missing in the
    /// listing of the present pass.
    pub(super) fn missing(&self) -> u64 {
        self.known.values().filter(|entry| entry.is_missing()).count() as u64
    }

    /// Returns the number of ids that have a key at the target that the copy wrote.
    pub(super) fn written_by_us(&self) -> u64 {
        self.known.values().filter(|entry| entry.ours.is_some()).count() as u64
    }

    pub(super) fn is_missing(&self, id: &KeyId) -> bool {
        self.known.get(&self.digester.id(id)).is_some_and(Entry::is_missing)
    }

    /// A missing id is there, or cannot be told from one that is.
    pub(super) fn not_missing(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            entry.seen = true;
        }
    }

    /// Reports whether the key with this digest is what we wrote.
    pub(super) fn is_ours(&self, id: &Digest, key: &Digest) -> bool {
        self.known.get(id).is_some_and(|entry| entry.ours == Some(beginning(key)))
    }

    /// The key that we wrote is about to be removed: from now on it is as uncertain as one that is
    /// about to be written.
    pub(super) fn removing(&mut self, id: Digest, key: Digest) {
        self.record_if_certain(Step::Intended, id, key);
    }

    /// Nothing of ours is left at the target for this id.
    pub(super) fn removed(&mut self, id: Digest) {
        self.record_if_certain(Step::Removed, id, Digest::default());
        self.known.remove(&id);
    }

    /// Nothing of ours is left at the target for those that are still missing.
    pub(super) fn forget_missing(&mut self) -> Result<()> {
        let missing: Vec<Digest> =
            self.known.iter().filter(|(_, entry)| entry.is_missing()).map(|(id, _)| *id).collect();
        missing.into_iter().for_each(|id| self.removed(id));
        self.sync()
    }

    /// The copy is complete.
    pub(super) fn end(&mut self) -> Result<()> {
        if !self.ended && self.is_certain {
            self.record(Step::Ended, Digest::default(), Digest::default());
            self.disown();
            self.ended = true;
        }
        self.sync()
    }

    /// The source's keys are about to be deleted. Were that forgotten, the next run would take them
    /// for lost, and remove the last copies.
    pub(super) fn begin_deletion(&mut self) -> Result<()> {
        self.disown();
        self.journal.as_mut().map_or(Ok(()), Journal::begin_deletion)
    }

    /// Puts on the disk what was recorded.
    pub(super) fn sync(&mut self) -> Result<()> {
        self.journal.as_mut().map_or(Ok(()), Journal::sync)
    }

    fn record_if_certain(&mut self, step: Step, id: Digest, key: Digest) {
        if self.is_certain {
            self.record(step, id, key);
        }
    }

    fn record(&mut self, step: Step, id: Digest, key: Digest) {
        self.ended = false;
        if let Some(journal) = &mut self.journal {
            journal.append(Record { step, id, key });
        }
    }
}

impl Entry {
    fn is_missing(&self) -> bool {
        self.ours.is_some() && !self.seen
    }
}

/// Enough to tell our key from another's, and half the memory.
fn beginning(digest: &Digest) -> [u8; 8] {
    std::array::from_fn(|at| digest[at])
}

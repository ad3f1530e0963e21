//! [`Ledger`]: the state of each id, in memory and in the journal, if there is one.

use std::collections::BTreeMap;
use std::path::Path;

use keystead_core::{IdentityMatch, KeyId, Result, SecretKey};

use crate::digest::{Digest, Digester, random_digest_key};
use crate::identity::Identities;
use crate::journal::{Journal, Record, Step};

/// The state of each id that a copy has met, about 50 bytes an id.
///
/// It is a B-tree because that is two thirds full on average and never grows by doubling.
pub(crate) struct Ledger {
    digester: Digester,
    known: BTreeMap<Digest, Entry>,
    journal: Option<Journal>,
    /// The stores in the journal's header, if another run has begun it.
    journal_stores: Option<Identities>,
    /// True if later runs may consider what this run writes as written by the copy. False if the
    /// journal may belong to another target.
    is_certain: bool,
    /// True if the journal's last record says that the copy was complete.
    ended: bool,
}

struct Entry {
    state: State,
    /// True if the current pass has met it in the source's listing, and the source has it.
    seen: bool,
    /// The first bytes of the digest of the key that the copy may have written at the target.
    ours: Option<[u8; 8]>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The id has no outcome yet.
    Open,
    /// The journal says that an earlier run has read the source's key at the target.
    Before,
    /// The journal says so, and this run does not check it.
    Believed,
    /// This run has read the source's key at the target.
    AtTarget,
    /// A conflict or a failure, which is not tried again in this run.
    Skipped,
    /// Listed by the source, but not found there.
    Vanished,
    /// This run has deleted it at the source.
    Deleted,
    /// It was to be deleted at the source but remains there; the report lists it.
    Left,
}

/// The state of a listed id in the current pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListedState {
    /// This pass has met it before.
    Repeated,
    /// It is to be copied.
    ToDo,
    /// It was listed before but not found, and is to be read again.
    Vanished,
    /// An earlier run has copied it, and this run has not met it yet.
    Before,
    /// This run has finished it.
    Done,
}

/// The outcome for an id in the pass that deletes at the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeletionState {
    /// It was deleted.
    Deleted,
    /// It was left there or could not be deleted, and the report says so.
    Reported,
    /// The pass has not met it.
    New,
}

impl Ledger {
    /// Opens the journal, if one is given, and takes over the state that it records.
    pub(crate) fn open(journal: Option<&Path>, identities: &Identities) -> Result<Self> {
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

    /// Takes over the state of the journal without opening it to write, for a dry run.
    pub(crate) fn look(journal: Option<&Path>, identities: &Identities) -> Result<Self> {
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

    /// Remembers the stores in the journal's header, and whether they are known to be these.
    fn bind(&mut self, earlier: Option<Identities>, now: &Identities) {
        self.is_certain = earlier.as_ref().is_none_or(|earlier| earlier.compare(now) == IdentityMatch::Same);
        self.journal_stores = earlier;
    }

    /// The stores in the journal's header, if another run has begun it.
    pub(crate) fn journal_stores(&self) -> Option<&Identities> {
        self.journal_stores.as_ref()
    }

    /// Applies a record of the journal.
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

    /// Makes the copy keep all keys that it has written at the target. It does so once it is
    /// complete or begins to delete at the source: what the source loses from then on was not lost
    /// during the copy.
    fn disown(&mut self) {
        self.known.values_mut().for_each(|entry| entry.ours = None);
    }

    /// Reports whether the copy was complete when the journal was last written.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    pub(crate) fn digester(&self) -> &Digester {
        &self.digester
    }

    pub(crate) fn digest(&self, id: &KeyId) -> Digest {
        self.digester.id(id)
    }

    pub(crate) fn key_digest(&self, id: &Digest, key: &SecretKey) -> Digest {
        self.digester.key(id, key)
    }

    /// Prepares for a new listing of the source.
    pub(crate) fn begin_pass(&mut self) {
        self.known.values_mut().for_each(|entry| entry.seen = false);
    }

    /// Records that the source has listed this id, and returns the id's state.
    pub(crate) fn listed_state(&mut self, id: &KeyId) -> ListedState {
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

    /// Records that the source does not find an id that it listed.
    pub(crate) fn vanish(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            entry.state = State::Vanished;
            entry.seen = false;
        }
    }

    /// Records that this run relies on the journal for a key at the target.
    pub(crate) fn believe(&mut self, id: &KeyId) {
        self.set(&self.digester.id(id), State::Believed);
    }

    /// Records that this run has read a key at the target that the journal says is there.
    pub(crate) fn rechecked(&mut self, id: &Digest) {
        self.set(id, State::AtTarget);
    }

    /// Records that the id failed. The target may or may not have the copy's key.
    pub(crate) fn failed(&mut self, id: &Digest) {
        self.set(id, State::Skipped);
    }

    /// Records that the target has and keeps a key that the copy did not write.
    pub(crate) fn conflicting(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            entry.state = State::Skipped;
            entry.ours = None;
        }
    }

    /// Reports whether the id ended in a conflict or a failure.
    pub(crate) fn is_skipped(&self, id: &KeyId) -> bool {
        self.known.get(&self.digest(id)).is_some_and(|entry| entry.state == State::Skipped)
    }

    /// Records that the key was deleted at the source.
    pub(crate) fn deleted(&mut self, id: &KeyId) {
        self.set_deletion(id, State::Deleted);
    }

    /// Records that the key remains at the source and that the report says so.
    pub(crate) fn left(&mut self, id: &KeyId) {
        self.set_deletion(id, State::Left);
    }

    fn set_deletion(&mut self, id: &KeyId, state: State) {
        let new = || Entry { state, seen: true, ours: None };
        self.known.entry(self.digester.id(id)).or_insert_with(new).state = state;
    }

    /// Returns the outcome for an id in the pass that deletes at the source.
    pub(crate) fn deletion_state(&self, id: &KeyId) -> DeletionState {
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

    /// Records that a key is about to be written, and returns whether an earlier run began to write
    /// the same key. Nothing may be written before [`sync`](Self::sync).
    pub(crate) fn intend(&mut self, id: Digest, key: Digest) -> bool {
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

    /// Records that this run wrote the key and has read it back. `was_intended` is the answer of
    /// [`intend`](Self::intend).
    pub(crate) fn written(&mut self, id: Digest, key: Digest, was_intended: bool) {
        match (self.is_certain, was_intended) {
            (true, _) => self.record(Step::Written, id, key),
            // Later runs may know that it is there, but must not consider it written by the copy.
            (false, false) => self.record(Step::Found, id, key),
            (false, true) => {}
        }
        self.known.insert(id, Entry { state: State::AtTarget, seen: true, ours: Some(beginning(&key)) });
    }

    /// Records that the target already had the key.
    pub(crate) fn found(&mut self, id: Digest, key: Digest) {
        self.record(Step::Found, id, key);
        self.known.insert(id, Entry { state: State::AtTarget, seen: true, ours: None });
    }

    /// Returns the number of ids whose key the copy wrote at the target and that the listing of the
    /// current pass lacks.
    pub(crate) fn missing(&self) -> u64 {
        self.known.values().filter(|entry| entry.is_missing()).count() as u64
    }

    /// Returns the number of ids whose key the copy wrote at the target.
    pub(crate) fn written_by_us(&self) -> u64 {
        self.known.values().filter(|entry| entry.ours.is_some()).count() as u64
    }

    /// Reports whether the copy wrote the id's key and the listing of the current pass lacks it.
    pub(crate) fn is_missing(&self, id: &KeyId) -> bool {
        self.known.get(&self.digester.id(id)).is_some_and(Entry::is_missing)
    }

    /// Records that a missing id is at the source, or may be.
    pub(crate) fn not_missing(&mut self, id: &Digest) {
        if let Some(entry) = self.known.get_mut(id) {
            entry.seen = true;
        }
    }

    /// Reports whether the key with this digest is the one that the copy wrote.
    pub(crate) fn is_ours(&self, id: &Digest, key: &Digest) -> bool {
        self.known.get(id).is_some_and(|entry| entry.ours == Some(beginning(key)))
    }

    /// Records that the key that the copy wrote is about to be removed. From now on the target may
    /// or may not have it, as with a key that is about to be written.
    pub(crate) fn removing(&mut self, id: Digest, key: Digest) {
        self.record_if_certain(Step::Intended, id, key);
    }

    /// Records that the target no longer has the copy's key for this id.
    pub(crate) fn removed(&mut self, id: Digest) {
        self.record_if_certain(Step::Removed, id, Digest::default());
        self.known.remove(&id);
    }

    /// Records that the target no longer has the copy's keys for the ids that are still missing.
    pub(crate) fn forget_missing(&mut self) -> Result<()> {
        let missing: Vec<Digest> =
            self.known.iter().filter(|(_, entry)| entry.is_missing()).map(|(id, _)| *id).collect();
        missing.into_iter().for_each(|id| self.removed(id));
        self.sync()
    }

    /// Records that the copy is complete.
    pub(crate) fn end(&mut self) -> Result<()> {
        if !self.ended && self.is_certain {
            self.record(Step::Ended, Digest::default(), Digest::default());
            self.disown();
            self.ended = true;
        }
        self.sync()
    }

    /// Records that the source's keys are about to be deleted. Without this record, the next run
    /// would consider them lost and remove their last copies.
    pub(crate) fn begin_deletion(&mut self) -> Result<()> {
        self.disown();
        self.journal.as_mut().map_or(Ok(()), Journal::begin_deletion)
    }

    /// Writes the records to the disk.
    pub(crate) fn sync(&mut self) -> Result<()> {
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

/// Returns the first bytes of a digest, which are enough to tell two keys apart and take half the
/// memory.
fn beginning(digest: &Digest) -> [u8; 8] {
    std::array::from_fn(|index| digest[index])
}

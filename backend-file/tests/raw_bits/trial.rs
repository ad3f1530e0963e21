//! One trial: the operations of a program on a damaged store, and the promises that must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use futures_executor::block_on;
use futures_util::StreamExt;
use keystead_core::{Effect, Error, ErrorKind, KeyId, KeyStore, KeyStoreExt, SecretKey};
use keystead_file::{FileStore, RootSecret, VerifyReport};

use crate::fixture::{Stored, root};
use crate::random::Random;

/// A promise of the store that holds for every kind of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Promise {
    /// Every trial ends in time.
    Ends,
    /// Nothing panics.
    NoPanic,
    /// A key that is returned is the one that was stored last.
    RightKey,
    /// A stored key is not read or deleted as if it were absent.
    NotAbsent,
    /// A stored key is not created again.
    NotCreatedOver,
    /// A listing without an error lists every stored id once.
    ListedWhole,
    /// A store that is verified as intact has every key.
    IntactIsWhole,
    /// `intact` is at most the number of stored keys.
    CountedOnce,
    /// A rotation makes no key unreadable.
    RotateKeepsKeys,
    /// After a rotation that succeeds, `verify` reports all damage that is left.
    RotateTells,
    /// The kind of each error is one that damage may cause.
    ErrorKind,
}

/// The result of a trial.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) opened: bool,
    /// True if the store was opened and verified as intact.
    pub(crate) intact: bool,
    pub(crate) rotated: bool,
    /// True if a write made a key of another id unreadable.
    ///
    /// This breaks no promise. SQLite writes to a page without checking all of it, and it allocates
    /// pages from a free list that may be wrong. Keys that such a write destroys are damaged
    /// afterwards, and the promises hold for them.
    pub(crate) write_lost_keys: bool,
    /// The first breach of each promise.
    pub(crate) broken: BTreeMap<Promise, String>,
}

impl Outcome {
    fn expect(&mut self, promise: Promise, kept: bool, breach: impl FnOnce() -> String) {
        if !kept {
            self.broken.entry(promise).or_insert_with(breach);
        }
    }

    fn expect_kind(&mut self, error: &Error) {
        use ErrorKind::{Config, Corrupt, KeyUnavailable, Unavailable, Unsupported};
        let known = matches!(error.kind(), Corrupt | Config | Unsupported | KeyUnavailable | Unavailable);
        self.expect(Promise::ErrorKind, known, || chain(error));
    }
}

/// Returns the text of all levels of an error.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A trial under way.
pub(crate) struct Trial {
    /// The keys that must not be read as absent.
    expected: BTreeMap<KeyId, SecretKey>,
    /// The keys that may be found or absent, because they were only in a log that is damaged.
    in_damaged_log: BTreeMap<KeyId, SecretKey>,
    /// The ids that have no key.
    absent: BTreeSet<KeyId>,
    /// The ids whose keys the trial has created, which are expected as well.
    created: BTreeSet<KeyId>,
    random: Random,
    /// The current operation, for the report of a trial that does not end.
    step: Arc<Mutex<&'static str>>,
    outcome: Outcome,
}

/// The ids whose keys can be read.
type Readable = BTreeSet<KeyId>;

impl Trial {
    pub(crate) fn new(stored: &Stored, log_is_damaged: bool, random: Random, step: Arc<Mutex<&'static str>>) -> Self {
        let mut expected = stored.in_main.clone();
        let mut in_damaged_log = stored.in_log.clone();
        if !log_is_damaged {
            expected.append(&mut in_damaged_log);
        }
        let absent = stored.deleted.iter().cloned().collect();
        let created = BTreeSet::new();
        Self { expected, in_damaged_log, absent, created, random, step, outcome: Outcome::default() }
    }

    pub(crate) fn run(mut self, path: &Path) -> Outcome {
        self.begin("open");
        let store = match block_on(FileStore::open(path, root())) {
            Ok(store) => store,
            Err(e) => {
                self.outcome.expect_kind(&e);
                return self.outcome;
            }
        };
        self.outcome.opened = true;
        let report = self.verify(&store);
        let readable = self.get_all(&store);
        self.outcome.intact = self.compare(report.as_ref(), &readable);
        self.list(&store, &readable);
        self.create_over(&store, &readable);
        // One creation usually fits into its page. Many allocate pages from the free list.
        let creations = if self.random.once_in(4) { 60 } else { 1 };
        self.create_absent(&store, creations);
        if self.random.once_in(3) {
            let before = self.get_all(&store);
            self.outcome.write_lost_keys |= self.lost(&readable, &before).is_some();
            self.rotate(&store, path, &before);
        } else {
            self.put_over(&store, &readable);
            self.delete(&store, &readable);
            let after = self.get_all(&store);
            self.outcome.write_lost_keys |= self.lost(&readable, &after).is_some();
            self.close(&store);
        }
        self.outcome
    }

    fn begin(&self, step: &'static str) {
        *self.step.lock().unwrap() = step;
    }

    fn verify(&mut self, store: &FileStore) -> Option<VerifyReport> {
        self.begin("verify");
        match block_on(store.verify(|_| {})) {
            Ok(report) => {
                let most = self.expected.len() + self.in_damaged_log.len();
                let counted_once = report.intact <= most as u64;
                self.outcome.expect(Promise::CountedOnce, counted_once, || {
                    format!("{} intact and {} damaged of {most}", report.intact, report.damaged.len())
                });
                Some(report)
            }
            Err(e) => {
                self.outcome.expect_kind(&e);
                None
            }
        }
    }

    /// Gets every id.
    fn get_all(&mut self, store: &FileStore) -> Readable {
        self.begin("get");
        let mut readable = Readable::new();
        for (id, key) in self.expected.iter().chain(&self.in_damaged_log) {
            match block_on(store.get_key(id)) {
                Ok(found) => {
                    self.outcome.expect(Promise::RightKey, found == *key, || format!("get of {}", id.as_str()));
                    readable.insert(id.clone());
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let may_be = self.in_damaged_log.contains_key(id);
                    self.outcome.expect(Promise::NotAbsent, may_be, || format!("get of {}", id.as_str()));
                }
                Err(e) => self.outcome.expect_kind(&e),
            }
        }
        for id in &self.absent {
            match block_on(store.get_key(id)) {
                Ok(_) => self.outcome.expect(Promise::RightKey, false, || format!("{} has a key", id.as_str())),
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                Err(e) => self.outcome.expect_kind(&e),
            }
        }
        readable
    }

    /// Returns one of the keys that could be read before and cannot now.
    fn lost(&self, before: &Readable, after: &Readable) -> Option<String> {
        let still_expected = |id: &&KeyId| self.expected.contains_key(*id) || self.in_damaged_log.contains_key(*id);
        before.difference(after).find(still_expected).map(|id| id.as_str().to_owned())
    }

    /// Compares the report with the keys that get has read. Returns whether the report says intact.
    fn compare(&mut self, report: Option<&VerifyReport>, readable: &Readable) -> bool {
        let Some(report) = report.filter(|report| report.is_intact()) else { return false };
        let lost = self.expected.keys().filter(|id| !readable.contains(*id)).count();
        let whole = lost == 0 && report.intact == readable.len() as u64;
        self.outcome.expect(Promise::IntactIsWhole, whole, || {
            format!("{} are intact, {} can be read", report.intact, readable.len())
        });
        true
    }

    fn list(&mut self, store: &FileStore, readable: &Readable) {
        self.begin("list");
        let most = 4 * self.expected.len();
        let items: Vec<_> = block_on(store.list_keys().take(most).collect());
        self.outcome.expect(Promise::ListedWhole, items.len() < most, || "the listing does not end".to_owned());
        let mut listed = Vec::new();
        let mut errors = 0;
        for item in items {
            match item {
                Ok(id) => listed.push(id),
                Err(e) => {
                    errors += 1;
                    self.outcome.expect_kind(&e);
                }
            }
        }
        let of_log = self.in_damaged_log.keys().filter(|id| readable.contains(*id));
        let mut expected: Vec<KeyId> = self.expected.keys().chain(of_log).cloned().collect();
        expected.sort();
        listed.sort();
        self.outcome.expect(Promise::ListedWhole, errors > 0 || listed == expected, || {
            format!("{} listed without an error, of {}", listed.len(), expected.len())
        });
    }

    /// Chooses ids that were stored before the damage. Prefers those that cannot be read.
    fn choose(&mut self, unreadable: usize, readable: usize, are_readable: &Readable) -> Vec<KeyId> {
        let (mut whole, mut chosen): (Vec<KeyId>, Vec<KeyId>) = self
            .expected
            .keys()
            .filter(|id| !self.created.contains(*id))
            .cloned()
            .partition(|id| are_readable.contains(id));
        while chosen.len() > unreadable {
            chosen.swap_remove(self.random.below(chosen.len()));
        }
        for _ in 0..readable.min(whole.len()) {
            chosen.push(whole.swap_remove(self.random.below(whole.len())));
        }
        chosen
    }

    fn new_key(&mut self) -> SecretKey {
        SecretKey::generate(1 + self.random.below(2000)).unwrap()
    }

    /// Creates stored keys again.
    fn create_over(&mut self, store: &FileStore, readable: &Readable) {
        self.begin("create of a stored id");
        for id in self.choose(4, 2, readable) {
            let other = self.new_key();
            let created_over = if self.random.once_in(2) {
                match block_on(store.create_key(&id, &other)) {
                    Ok(()) => true,
                    Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
                    Err(e) => {
                        self.outcome.expect_kind(&e);
                        false
                    }
                }
            } else {
                match block_on(store.get_or_create(&id, &other)) {
                    Ok(found) if found == other => true,
                    Ok(found) => {
                        let right = found == self.expected[&id];
                        self.outcome.expect(Promise::RightKey, right, || format!("get_or_create of {}", id.as_str()));
                        false
                    }
                    Err(e) => {
                        self.outcome.expect_kind(&e);
                        false
                    }
                }
            };
            self.outcome.expect(Promise::NotCreatedOver, !created_over, || id.as_str().to_owned());
            if created_over {
                // From now on, either of the two keys may be found.
                self.expected.remove(&id);
            }
        }
    }

    fn create_absent(&mut self, store: &FileStore, count: usize) {
        self.begin("create of an absent id");
        let absent: Vec<KeyId> = self.absent.iter().take(count).cloned().collect();
        for id in absent {
            let key = self.new_key();
            self.absent.remove(&id);
            match block_on(store.create_key(&id, &key)) {
                Ok(()) => {
                    self.created.insert(id.clone());
                    self.expected.insert(id, key);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                    self.outcome.expect(Promise::RightKey, false, || format!("{} exists", id.as_str()));
                }
                Err(e) => self.outcome.expect_kind(&e),
            }
        }
    }

    fn put_over(&mut self, store: &FileStore, readable: &Readable) {
        self.begin("put");
        for id in self.choose(1, 2, readable) {
            let key = self.new_key();
            match block_on(store.put_key(&id, &key)) {
                Ok(()) => drop(self.expected.insert(id, key)),
                Err(e) => {
                    self.outcome.expect_kind(&e);
                    if e.effect() == Effect::Unknown {
                        self.expected.remove(&id);
                    }
                }
            }
        }
    }

    fn delete(&mut self, store: &FileStore, readable: &Readable) {
        self.begin("delete");
        for id in self.choose(2, 2, readable) {
            match block_on(store.delete_key(&id)) {
                Ok(_) => {
                    self.expected.remove(&id);
                    self.absent.insert(id);
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.outcome.expect(Promise::NotAbsent, false, || format!("delete of {}", id.as_str()));
                }
                Err(e) => {
                    self.outcome.expect_kind(&e);
                    if e.effect() == Effect::Unknown {
                        self.expected.remove(&id);
                    }
                }
            }
        }
    }

    fn rotate(&mut self, store: &FileStore, path: &Path, before: &Readable) {
        self.begin("rotate");
        let new_root = RootSecret::from_bytes([8; 32]);
        let rotated = block_on(store.rotate(new_root.clone(), |_| {}));
        self.close(store);
        // After an error with an unknown effect, either root secret may open the store.
        let roots = match &rotated {
            Ok(()) => vec![new_root],
            Err(e) if e.effect() == Effect::Unknown => vec![new_root, root()],
            Err(_) => vec![root()],
        };
        if let Err(e) = &rotated {
            self.outcome.expect_kind(e);
        }
        self.begin("open after rotate");
        let mut failure = None;
        let reopened = roots.into_iter().find_map(|root| match block_on(FileStore::open(path, root)) {
            Ok(store) => Some(store),
            Err(e) => {
                failure = Some(chain(&e));
                None
            }
        });
        let rotated = rotated.map_err(|e| chain(&e));
        let Some(store) = reopened else {
            self.outcome.expect(Promise::RotateKeepsKeys, before.is_empty(), || {
                format!("rotate gave {rotated:?}, then open gave {failure:?}")
            });
            return;
        };
        let after = self.get_all(&store);
        let lost = self.lost(before, &after);
        self.outcome
            .expect(Promise::RotateKeepsKeys, lost.is_none(), || format!("rotate gave {rotated:?} and lost {lost:?}"));
        let report = self.verify(&store);
        if rotated.is_ok() {
            self.outcome.rotated = true;
            // Keys that could not be read before must still be reported.
            let unreadable = self.expected.keys().filter(|id| !after.contains(*id)).count();
            let told = report.is_none_or(|report| !report.is_intact());
            self.outcome.expect(Promise::RotateTells, unreadable == 0 || told, || {
                format!("rotate and verify tell no damage, but {unreadable} keys cannot be read")
            });
        }
        self.close(&store);
    }

    fn close(&mut self, store: &FileStore) {
        self.begin("close");
        if let Err(e) = block_on(store.close()) {
            self.outcome.expect_kind(&e);
        }
    }
}

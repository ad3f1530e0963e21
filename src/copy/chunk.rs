//! A chunk of ids: their keys are fetched, written, and read back.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keystead_layers::is_fence_key;
use tokio::time::{Instant, sleep, timeout};

use super::digest::Digest;
use super::options::{ConflictPolicy, CopyProgress};
use super::report::KeyFailure;
use super::{Listed, Run, TELL_PAUSE, is_the_stores_fault, stop_if_all_failed};
use crate::{Effect, Error, ErrorKind, KeyId, Operation, PutMode, Result, SecretKey};

/// A key of the source on its way.
struct Item {
    id: KeyId,
    key: SecretKey,
    digest: Digest,
    key_digest: Digest,
    /// An earlier run began to write this very key.
    was_intended: bool,
    /// An earlier run has copied it, and this run sees whether it is still there.
    is_recheck: bool,
    answer: Answer,
}

/// The items that earlier runs have copied and that are not as they should be at first sight.
struct Rechecked {
    /// They are to be written again.
    missing: Vec<Item>,
    /// They are to be read again.
    uncertain: Vec<Item>,
}

/// What the target said to the write.
enum Answer {
    Created,
    Stands,
    /// Nothing that could be relied on.
    Unsure(Error),
}

/// What reading back says.
enum Verdict {
    Same,
    Different,
    Absent,
    Unread(Error),
}

impl Run<'_> {
    /// Copies the keys of ids that the source listed, and settles what becomes of each.
    pub(super) async fn copy_chunk(&mut self, listed: Vec<Listed>) -> Result<()> {
        let items = self.fetch(listed).await?;
        let (earlier, mut to_write) = items.into_iter().partition(|item| item.is_recheck);
        let Rechecked { missing, uncertain } = self.recheck(earlier).await?;
        to_write.extend(missing);
        self.intend(&mut to_write)?;
        let mut written = self.write(to_write, PutMode::Create).await?;
        written.extend(uncertain);
        let mut different = self.read_back(written, PutMode::Create).await;
        if !different.is_empty() {
            self.intend(&mut different)?;
            let written = self.write(different, PutMode::Overwrite).await?;
            self.read_back(written, PutMode::Overwrite).await;
        }
        self.ledger.sync()
    }

    /// Puts on the disk what is about to be written.
    fn intend(&mut self, items: &mut [Item]) -> Result<()> {
        for item in items {
            item.was_intended |= self.ledger.intend(item.digest, item.key_digest);
        }
        self.ledger.sync()
    }

    /// Reads at the target what earlier runs have copied, and settles what is as it should be.
    async fn recheck(&mut self, items: Vec<Item>) -> Result<Rechecked> {
        let mut rechecked = Rechecked { missing: Vec::new(), uncertain: Vec::new() };
        if items.is_empty() {
            return Ok(rechecked);
        }
        let ids: Vec<KeyId> = items.iter().map(|item| item.id.clone()).collect();
        let keys = self.target.read(&ids).await;
        stop_if_all_failed(&keys, |e| is_the_stores_fault(e.kind()))?;
        for (mut item, key) in items.into_iter().zip(keys) {
            item.answer = Answer::Stands;
            match Verdict::of(&item, key) {
                Verdict::Same => self.settle(item, PutMode::Create),
                Verdict::Absent => rechecked.missing.push(item),
                Verdict::Unread(e) if !e.is_retryable() => self.fail(item, e),
                Verdict::Different | Verdict::Unread(_) => rechecked.uncertain.push(item),
            }
        }
        Ok(rechecked)
    }

    async fn fetch(&mut self, listed: Vec<Listed>) -> Result<Vec<Item>> {
        let ids: Vec<KeyId> = listed.iter().map(|listed| listed.id.clone()).collect();
        let keys = self.source.read_listed(&ids).await;
        stop_if_all_failed(&keys, |e| is_the_stores_fault(e.kind()))?;
        let mut items = Vec::with_capacity(listed.len());
        for (Listed { id, is_recheck }, key) in listed.into_iter().zip(keys) {
            let digest = self.ledger.digest(&id);
            match key {
                Ok(key) => {
                    let key_digest = self.ledger.key_digest(&digest, &key);
                    let answer = Answer::Created;
                    items.push(Item { id, key, digest, key_digest, was_intended: false, is_recheck, answer });
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    self.ledger.vanish(&digest);
                    self.report.vanished += 1;
                }
                Err(e) => {
                    self.ledger.failed(&digest);
                    self.report.unreadable.push(KeyFailure::new(id, e));
                }
            }
        }
        Ok(items)
    }

    /// Gives back those that may stand at the target now, by our hand or another's.
    async fn write(&mut self, items: Vec<Item>, mode: PutMode) -> Result<Vec<Item>> {
        let keys: Vec<_> = items.iter().map(|item| (item.id.clone(), item.key.clone())).collect();
        let answered = AtomicU64::new(0);
        let writing = self.target.write(&keys, mode, &answered);
        let answers = match mode {
            PutMode::Create => {
                let progress = self.progress();
                let tell = || {
                    let done = progress.done + answered.load(Ordering::Relaxed);
                    (self.on_progress)(CopyProgress { done, ..progress });
                };
                telling(writing, tell).await
            }
            // These were counted when they were to be created.
            _ => writing.await,
        };
        let nothing_yet = self.report.at_target() == 0;
        stop_if_all_failed(&answers, |e| is_the_stores_fault(e.kind()) || nothing_yet && is_a_refusal(e.kind()))?;
        let mut written = Vec::with_capacity(items.len());
        for (mut item, answer) in items.into_iter().zip(answers) {
            item.answer = match answer {
                Ok(()) => Answer::Created,
                Err(e) if e.kind() == ErrorKind::AlreadyExists && e.effect() == Effect::NotApplied => Answer::Stands,
                Err(e) if e.effect() == Effect::Unknown => Answer::Unsure(e),
                Err(e) => {
                    self.fail(item, e);
                    continue;
                }
            };
            written.push(item);
        }
        Ok(written)
    }

    /// Reads back and settles; gives back those that the policy wants overwritten.
    ///
    /// Reads again, until the bound has passed, the keys that an eventually consistent target does
    /// not show yet, or shows in an earlier state.
    async fn read_back(&mut self, mut items: Vec<Item>, mode: PutMode) -> Vec<Item> {
        let bound = self.target.bound();
        let written = Instant::now();
        let mut pause = bound / 8;
        let mut different = Vec::new();
        while !items.is_empty() {
            let remaining = bound.saturating_sub(written.elapsed());
            let ids: Vec<KeyId> = items.iter().map(|item| item.id.clone()).collect();
            let keys = self.target.read(&ids).await;
            let mut unsettled = Vec::new();
            for (item, key) in items.into_iter().zip(keys) {
                match Verdict::of(&item, key) {
                    Verdict::Same => self.settle(item, mode),
                    Verdict::Unread(e) if !e.is_retryable() => self.fail(item, e),
                    _ if remaining > Duration::ZERO => unsettled.push(item),
                    Verdict::Different
                        if self.on_conflict == ConflictPolicy::Overwrite
                            && mode == PutMode::Create
                            && !is_fence_key(&item.id) =>
                    {
                        different.push(item);
                    }
                    Verdict::Different => self.keep_both(item),
                    Verdict::Absent => {
                        let e = self.absence(&item.answer);
                        self.fail(item, e);
                    }
                    Verdict::Unread(e) => self.fail(item, e),
                }
            }
            items = unsettled;
            if !items.is_empty() {
                sleep(pause.min(remaining)).await;
                pause *= 2;
            }
        }
        different
    }

    /// The target has the source's key.
    fn settle(&mut self, item: Item, mode: PutMode) {
        let stands = matches!(item.answer, Answer::Stands);
        match mode {
            PutMode::Create if stands && item.is_recheck => {
                self.report.done_before += 1;
                self.ledger.rechecked(&item.digest);
                return;
            }
            PutMode::Create if stands && !item.was_intended => {
                self.report.already_there += 1;
                self.ledger.found(item.digest, item.key_digest);
                return;
            }
            PutMode::Create => self.report.copied += 1,
            _ => self.report.overwritten += 1,
        }
        self.ledger.written(item.digest, item.key_digest, item.was_intended);
    }

    /// The target has another key, and keeps it.
    fn keep_both(&mut self, item: Item) {
        self.ledger.conflicting(&item.digest);
        // Two stores of tombstones with fence keys of their own cannot be merged.
        if is_fence_key(&item.id) {
            self.report.conflicts.push(item.id);
            return;
        }
        match self.on_conflict {
            ConflictPolicy::Skip => self.report.skipped += 1,
            ConflictPolicy::Report | ConflictPolicy::Overwrite => self.report.conflicts.push(item.id),
        }
    }

    fn fail(&mut self, item: Item, e: Error) {
        self.ledger.failed(&item.digest);
        self.report.failed.push(KeyFailure::new(item.id, e));
    }

    /// Why a key is not at the target.
    fn absence(&self, answer: &Answer) -> Error {
        match answer {
            Answer::Unsure(e) => e.clone(),
            Answer::Created | Answer::Stands => Error::new(ErrorKind::Conflict, Operation::Get, self.target.scheme())
                .with_source("the key was deleted at the target while it was copied: run the copy again"),
        }
    }
}

impl Verdict {
    fn of(item: &Item, found: Result<SecretKey>) -> Self {
        match found {
            // Takes the same time wherever they differ.
            Ok(key) if key == item.key => Self::Same,
            Ok(_) => Self::Different,
            Err(e) if e.kind() == ErrorKind::NotFound => Self::Absent,
            Err(e) => Self::Unread(e),
        }
    }
}

/// Does the work, and calls `tell` from time to time until it is done.
async fn telling<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let mut work = pin!(work);
    loop {
        match timeout(TELL_PAUSE, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => tell(),
        }
    }
}

/// Whether the target may refuse every write for this reason, as it does if it is set up wrongly.
fn is_a_refusal(kind: ErrorKind) -> bool {
    use ErrorKind::{Config, KeyUnavailable, PermissionDenied, Unsupported};
    matches!(kind, Config | KeyUnavailable | PermissionDenied | Unsupported)
}

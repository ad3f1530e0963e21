//! The copy of one chunk of ids: their keys are fetched, written and read back.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keystead_core::{Effect, Error, ErrorKind, KeyId, Operation, PutMode, Result, SecretKey};
use keystead_layers::is_fence_key;
use tokio::time::{Instant, sleep, timeout};

use crate::digest::Digest;
use crate::failure::{is_store_wide, stop_if_all_failed};
use crate::options::{ConflictPolicy, CopyProgress};
use crate::report::KeyFailure;
use crate::run::{Listed, Run, TELL_PAUSE};

/// A key of the source that is being copied.
struct Item {
    id: KeyId,
    key: SecretKey,
    digest: Digest,
    key_digest: Digest,
    /// True if an earlier run began to write this same key.
    was_intended: bool,
    /// True if an earlier run has copied it and this run reads it again.
    is_recheck: bool,
    answer: WriteAnswer,
}

/// The items that earlier runs have copied and whose first read did not find them equal.
struct Rechecked {
    /// The items to write again.
    missing: Vec<Item>,
    /// The items to read again.
    uncertain: Vec<Item>,
}

/// The target's answer to a write.
enum WriteAnswer {
    /// The key was written.
    Written,
    /// The target already had a key, or this run has not written one.
    Exists,
    /// The write may or may not have been applied.
    Unknown(Error),
}

/// The result of reading a key back at the target.
enum ReadBack {
    Same,
    Different,
    Absent,
    Unread(Error),
}

impl Run<'_> {
    /// Copies the keys of ids that the source listed, and records the outcome of each.
    pub(crate) async fn copy_chunk(&mut self, listed: Vec<Listed>) -> Result<()> {
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

    /// Records in the journal, on the disk, the keys that are about to be written.
    fn intend(&mut self, items: &mut [Item]) -> Result<()> {
        for item in items {
            item.was_intended |= self.ledger.intend(item.digest, item.key_digest);
        }
        self.ledger.sync()
    }

    /// Reads at the target the keys that earlier runs have copied, and records those that are
    /// equal.
    async fn recheck(&mut self, items: Vec<Item>) -> Result<Rechecked> {
        let mut rechecked = Rechecked { missing: Vec::new(), uncertain: Vec::new() };
        if items.is_empty() {
            return Ok(rechecked);
        }
        let ids: Vec<KeyId> = items.iter().map(|item| item.id.clone()).collect();
        let keys = self.target.read(&ids).await;
        stop_if_all_failed(&keys, |e| is_store_wide(e.kind()))?;
        for (mut item, key) in items.into_iter().zip(keys) {
            item.answer = WriteAnswer::Exists;
            match ReadBack::of(&item, key) {
                ReadBack::Same => self.settle(item, PutMode::Create),
                ReadBack::Absent => rechecked.missing.push(item),
                ReadBack::Unread(e) if !e.is_retryable() => self.fail(item, e),
                ReadBack::Different | ReadBack::Unread(_) => rechecked.uncertain.push(item),
            }
        }
        Ok(rechecked)
    }

    /// Reads the keys at the source.
    async fn fetch(&mut self, listed: Vec<Listed>) -> Result<Vec<Item>> {
        let ids: Vec<KeyId> = listed.iter().map(|listed| listed.id.clone()).collect();
        let keys = self.source.read_listed(&ids).await;
        stop_if_all_failed(&keys, |e| is_store_wide(e.kind()))?;
        let mut items = Vec::with_capacity(listed.len());
        for (Listed { id, is_recheck }, key) in listed.into_iter().zip(keys) {
            let digest = self.ledger.digest(&id);
            match key {
                Ok(key) => {
                    let key_digest = self.ledger.key_digest(&digest, &key);
                    let answer = WriteAnswer::Written;
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

    /// Writes the keys, and returns the items that the target may have now, whoever wrote them.
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
            // The progress has counted these when they were created.
            _ => writing.await,
        };
        let nothing_yet = self.report.at_target() == 0;
        stop_if_all_failed(&answers, |e| is_store_wide(e.kind()) || nothing_yet && is_refusal_of_all(e.kind()))?;
        let mut written = Vec::with_capacity(items.len());
        for (mut item, answer) in items.into_iter().zip(answers) {
            item.answer = match answer {
                Ok(()) => WriteAnswer::Written,
                Err(e) if e.kind() == ErrorKind::AlreadyExists && e.effect() == Effect::NotApplied => {
                    WriteAnswer::Exists
                }
                Err(e) if e.effect() == Effect::Unknown => WriteAnswer::Unknown(e),
                Err(e) => {
                    self.fail(item, e);
                    continue;
                }
            };
            written.push(item);
        }
        Ok(written)
    }

    /// Reads the items back and records their outcomes. Returns the items that the policy wants to
    /// be overwritten.
    ///
    /// Keys that an eventually consistent target does not show yet, or shows in an earlier state,
    /// are read again until its visibility bound has passed.
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
                match ReadBack::of(&item, key) {
                    ReadBack::Same => self.settle(item, mode),
                    ReadBack::Unread(e) if !e.is_retryable() => self.fail(item, e),
                    _ if remaining > Duration::ZERO => unsettled.push(item),
                    ReadBack::Different
                        if self.on_conflict == ConflictPolicy::Overwrite
                            && mode == PutMode::Create
                            && !is_fence_key(&item.id) =>
                    {
                        different.push(item);
                    }
                    ReadBack::Different => self.keep_both(item),
                    ReadBack::Absent => {
                        let e = self.absence(&item.answer);
                        self.fail(item, e);
                    }
                    ReadBack::Unread(e) => self.fail(item, e),
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

    /// Records that the target has the source's key.
    fn settle(&mut self, item: Item, mode: PutMode) {
        let existed = matches!(item.answer, WriteAnswer::Exists);
        match mode {
            PutMode::Create if existed && item.is_recheck => {
                self.report.done_before += 1;
                self.ledger.rechecked(&item.digest);
                return;
            }
            PutMode::Create if existed && !item.was_intended => {
                self.report.already_there += 1;
                self.ledger.found(item.digest, item.key_digest);
                return;
            }
            PutMode::Create => self.report.copied += 1,
            _ => self.report.overwritten += 1,
        }
        self.ledger.written(item.digest, item.key_digest, item.was_intended);
    }

    /// Records that the target has a different key and keeps it.
    fn keep_both(&mut self, item: Item) {
        self.ledger.conflicting(&item.digest);
        // Two tombstone stores whose fences have different keys cannot be merged.
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

    /// Returns the error of a key that is not found at the target.
    fn absence(&self, answer: &WriteAnswer) -> Error {
        match answer {
            WriteAnswer::Unknown(e) => e.clone(),
            WriteAnswer::Written | WriteAnswer::Exists => {
                Error::new(ErrorKind::Conflict, Operation::Get, self.target.scheme())
                    .with_source("the key was deleted at the target while it was copied; run the copy again")
            }
        }
    }
}

impl ReadBack {
    fn of(item: &Item, found: Result<SecretKey>) -> Self {
        match found {
            // The comparison takes constant time.
            Ok(key) if key == item.key => Self::Same,
            Ok(_) => Self::Different,
            Err(e) if e.kind() == ErrorKind::NotFound => Self::Absent,
            Err(e) => Self::Unread(e),
        }
    }
}

/// Awaits the work, and calls `tell` every [`TELL_PAUSE`] until it is done.
async fn telling<T>(work: impl Future<Output = T>, mut tell: impl FnMut()) -> T {
    let mut work = pin!(work);
    loop {
        match timeout(TELL_PAUSE, work.as_mut()).await {
            Ok(done) => return done,
            Err(_) => tell(),
        }
    }
}

/// Reports whether an error of this kind may mean that the target refuses every write because it is
/// not set up correctly.
fn is_refusal_of_all(kind: ErrorKind) -> bool {
    use ErrorKind::{Config, KeyUnavailable, PermissionDenied, Unsupported};
    matches!(kind, Config | KeyUnavailable | PermissionDenied | Unsupported)
}

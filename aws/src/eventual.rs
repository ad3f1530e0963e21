//! `get_or_create` and `erase_key` for stores whose reads lag. They wait for the visibility bound
//! before they report what only later reads can prove.

use std::time::Duration;

use keystead_core::{
    Effect, Erasure, Error, ErrorKind, Finality, KeyId, KeyStore, Operation, PutMode, Result, SecretKey,
};
use tokio::time::{Instant, sleep};

/// The first pause between two attempts. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The number of times that an erasure deletes and then waits for the whole bound. Two are enough
/// after a delete that a stale replica refused; the third is for another writer.
const ERASE_ROUNDS: u32 = 3;

/// The number of times that `get_or_create` tries to create. The second is for a key of another
/// creator that was deleted in the meantime.
const CREATE_ROUNDS: u32 = 2;

/// The pauses between attempts that go on until a bound is over. They double from 50 ms to 1 s, and
/// the last attempt begins when the bound is over.
#[derive(Debug)]
struct Pauses {
    start: Instant,
    bound: Duration,
    next: Duration,
    last_attempt: Duration,
}

impl Pauses {
    fn within(bound: Duration) -> Self {
        Self { start: Instant::now(), bound, next: FIRST_PAUSE, last_attempt: Duration::ZERO }
    }

    /// Sleeps until the next attempt is due. Returns false at once if the last attempt began after
    /// the bound was over.
    async fn pause(&mut self) -> bool {
        if self.last_attempt >= self.bound {
            return false;
        }
        sleep(self.next.min(self.bound.saturating_sub(self.start.elapsed()))).await;
        self.next = (2 * self.next).min(LONGEST_PAUSE);
        self.last_attempt = self.start.elapsed();
        true
    }
}

/// Implements [`KeyStore::get_or_create`] for a store whose reads lag by at most `bound`.
///
/// It waits for the key of another creator that is not visible yet, and for a name that the engine
/// holds back after a delete: it tries again to create until the bound is over, as long as the
/// answer is a [`Conflict`](ErrorKind::Conflict) with a [`retry_after`](Error::retry_after).
///
/// # Errors
/// - [`Conflict`](ErrorKind::Conflict), to be tried again after `recreate_pause`, if a create is
///   refused although no key becomes visible within the bound. It has the details of the last
///   refusal.
/// - The [`Conflict`](ErrorKind::Conflict) of the create, if the name is still held back.
/// - The errors of [`KeyStore::get_key`] and [`KeyStore::put_key_with`].
pub async fn get_or_create(
    store: &dyn KeyStore,
    id: &KeyId,
    candidate: &SecretKey,
    bound: Duration,
    recreate_pause: Duration,
) -> Result<SecretKey> {
    let mut pauses = Pauses::within(bound);
    let mut answered = None;
    for _ in 0..CREATE_ROUNDS {
        let refusal = loop {
            match store.put_key_with(id, candidate, PutMode::Create).await {
                Ok(()) => return Ok(candidate.clone()),
                Err(e) if e.kind() == ErrorKind::AlreadyExists || e.effect() == Effect::Unknown => break e,
                Err(e) if is_name_held(&e) && pauses.pause().await => {}
                Err(e) => return Err(e),
            }
        };
        match visible_within(store, id, bound).await {
            Ok(Some(standing)) => return Ok(standing),
            // No read tells reliably whether our own create was applied.
            _ if refusal.effect() == Effect::Unknown => return Err(refusal),
            Ok(None) => answered = refusal.details().cloned(),
            Err(e) => return Err(e),
        }
    }
    let conflict = Error::new(ErrorKind::Conflict, Operation::Create, store.info().scheme())
        .with_retry_after(recreate_pause)
        .with_source("a key was created or deleted a moment ago and is not readable yet: try again after the pause");
    Err(match answered {
        Some(details) => conflict.with_details(details),
        None => conflict,
    })
}

/// Reports whether a create was refused only for the moment.
fn is_name_held(refusal: &Error) -> bool {
    refusal.kind() == ErrorKind::Conflict && refusal.retry_after().is_some()
}

/// Reads until a key is visible, for at most the bound. The last read begins when the bound is
/// over.
///
/// # Errors
/// Those of [`KeyStore::get_key`], except for [`NotFound`](ErrorKind::NotFound).
pub async fn visible_within(store: &dyn KeyStore, id: &KeyId, bound: Duration) -> Result<Option<SecretKey>> {
    let mut pauses = Pauses::within(bound);
    loop {
        match store.get_key(id).await {
            Ok(key) => return Ok(Some(key)),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            Err(_) if pauses.pause().await => {}
            Err(_) => return Ok(None),
        }
    }
}

/// Implements [`KeyStore::erase_key`] for a store whose reads and deletes may be answered by a
/// replica that lags.
///
/// The read that proves the absence begins one bound after the last delete. If any read sees a key,
/// it is deleted again, because a stale replica may have refused the delete. If the first delete
/// succeeds and nobody writes the key again, the erasure takes one delete and one read.
///
/// # Errors
/// - [`Conflict`](ErrorKind::Conflict) with [`Effect::Unknown`] and a
///   [`retry_after`](Error::retry_after), if the key can still be read one bound after the last of
///   several deletes.
/// - Those of [`KeyStore::get_key`], with [`Effect::Unknown`], if no delete found a key and the
///   read for the proof fails.
/// - Those of [`KeyStore::delete_key`], except for the two that say that the key is already gone.
pub async fn erase_key(store: &dyn KeyStore, id: &KeyId) -> Result<Erasure> {
    let capabilities = store.capabilities();
    let bound = capabilities.consistency.bound();
    let grade = capabilities.deletion;
    let mut existed = false;
    let mut finality = Finality::of_absence(grade);
    let mut unsettled = false;
    let mut is_first = true;
    // A stale answer is possible until the bound is over, and a repeated delete costs little.
    let mut pauses = Pauses::within(bound);
    let mut rounds = 0;
    while rounds < ERASE_ROUNDS {
        let is_deleted = match store.delete_key(id).await {
            Ok(deletion) => {
                existed = true;
                finality = deletion.finality;
                unsettled |= deletion.unsettled;
                true
            }
            // A replica that lags may say so of a key that exists.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => false,
            Err(e) if is_first => return Err(e.with_operation(Operation::Erase)),
            // An earlier delete of this call may have been applied.
            Err(e) => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
        };
        is_first = false;
        let deleted_at = Instant::now();
        if !is_deleted && shows_an_entry(&store.get_key(id).await) {
            existed = true;
            if pauses.pause().await {
                continue;
            }
        }
        sleep(bound.saturating_sub(deleted_at.elapsed())).await;
        match store.get_key(id).await {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Ok(Erasure::new(existed, finality, true).with_unsettled(unsettled));
            }
            Err(e) if e.kind() == ErrorKind::PendingDeletion => {
                return Ok(Erasure::new(true, Finality::of_pending_deletion(grade, e.retry_after()), false));
            }
            read if shows_an_entry(&read) => existed = true,
            // A delete found it, and no read has seen it since.
            Err(_) if is_deleted => return Ok(Erasure::new(existed, finality, false).with_unsettled(unsettled)),
            // No delete found it, which may be the answer of a stale replica.
            Err(e) => return Err(e.with_operation(Operation::Erase).with_effect(Effect::Unknown)),
            Ok(_) => existed = true,
        }
        rounds += 1;
    }
    Err(Error::new(ErrorKind::Conflict, Operation::Erase, store.info().scheme())
        .with_effect(Effect::Unknown)
        .with_retry_after(bound.max(FIRST_PAUSE))
        .with_source(
            "the key can still be read after several deletes: stop the process that writes it, and erase again",
        ))
}

/// Reports whether a read shows an entry: a key, or something that is not one of ours.
fn shows_an_entry(read: &Result<SecretKey>) -> bool {
    read.as_ref().map_or_else(|e| e.kind() == ErrorKind::Corrupt, |_| true)
}

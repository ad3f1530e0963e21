//! What stores do whose reads lag: wait for the visibility bound before they say what they cannot know yet.

use std::time::{Duration, SystemTime};

use keystead_core::{
    Effect, Erasure, Error, ErrorKind, Finality, KeyId, KeyStore, Operation, PutMode, Result, SecretKey,
};
use tokio::time::{Instant, sleep};

/// Between two reads that wait for a key to become visible.
const POLL: Duration = Duration::from_millis(100);

/// The longest that AWS keeps a key which is scheduled for deletion (Secrets Manager and KMS): what is assumed where it does
/// not say how much is left, as a shorter time would promise too much.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);

/// [`KeyStore::get_or_create`] for a store whose reads lag by at most `bound`: a winner that is not visible yet is waited
/// for.
///
/// # Errors
/// [`Conflict`](ErrorKind::Conflict) with `recreate_pause` to wait if a create is refused although no key is visible for the
/// whole bound; else one of [`KeyStore::get_key`] or [`KeyStore::put_key_with`].
pub async fn get_or_create(
    store: &dyn KeyStore,
    id: &KeyId,
    candidate: &SecretKey,
    bound: Duration,
    recreate_pause: Duration,
) -> Result<SecretKey> {
    // The second round is for a winner that was deleted meanwhile.
    for _ in 0..2 {
        let refusal = match store.put_key_with(id, candidate, PutMode::Create).await {
            Ok(()) => return Ok(candidate.clone()),
            Err(e) if e.kind() == ErrorKind::AlreadyExists || e.effect() == Effect::Unknown => e,
            Err(e) => return Err(e),
        };
        match visible_within(store, id, bound).await {
            Ok(Some(standing)) => return Ok(standing),
            // Whether our own create was applied is more than any read says.
            _ if refusal.effect() == Effect::Unknown => return Err(refusal),
            Ok(None) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Error::new(ErrorKind::Conflict, Operation::Create, store.info().scheme())
        .with_retry_after(recreate_pause)
        .with_source("a key was created or deleted a moment ago and cannot be read yet: try again after the pause"))
}

/// Reads until a key is visible, for at most the bound; the last read begins when the bound is over.
///
/// # Errors
/// One of [`KeyStore::get_key`], but for [`NotFound`](ErrorKind::NotFound).
pub async fn visible_within(store: &dyn KeyStore, id: &KeyId, bound: Duration) -> Result<Option<SecretKey>> {
    let start = Instant::now();
    loop {
        let passed = start.elapsed();
        match store.get_key(id).await {
            Ok(key) => return Ok(Some(key)),
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            Err(_) if passed >= bound => return Ok(None),
            Err(_) => sleep(POLL.min(bound.saturating_sub(passed))).await,
        }
    }
}

/// [`KeyStore::erase_key`] for a store whose reads lag by at most `bound`: the read that proves the absence begins one bound
/// after the delete. `absent` is what the deletion of a key that is not there any more has left.
///
/// # Errors
/// One of [`KeyStore::delete_key`], but for the two that say the key is gone already.
pub async fn erase_key(store: &dyn KeyStore, id: &KeyId, bound: Duration, absent: Finality) -> Result<Erasure> {
    let (existed, finality) = match store.delete_key(id).await {
        Ok(deletion) => (true, deletion.finality),
        Err(e) if e.kind() == ErrorKind::NotFound => (false, absent),
        Err(e) if e.kind() == ErrorKind::PendingDeletion => {
            let until = SystemTime::now() + e.retry_after().unwrap_or(LONGEST_WINDOW);
            return Ok(Erasure::new(true, Finality::RecoverableUntil(until), false));
        }
        Err(e) => return Err(e.with_operation(Operation::Erase)),
    };
    sleep(bound).await;
    let verified = matches!(store.get_key(id).await, Err(e) if e.kind() == ErrorKind::NotFound);
    Ok(Erasure::new(existed, finality, verified))
}

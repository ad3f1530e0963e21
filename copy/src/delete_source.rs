//! The pass that deletes at the source the keys that are at the target.

use std::sync::atomic::AtomicU64;

use keystead_core::{Effect, Error, ErrorKind, KeyId, Operation, PutMode, Result, SecretKey};
use tokio::time::sleep;

use crate::digest::{Digester, random_digest_key};
use crate::failure::{chain, is_store_wide, refusal, stop_if_all_failed};
use crate::identity::Doubt;
use crate::ledger::DeletionState;
use crate::options::CopyPhase;
use crate::report::KeyFailure;
use crate::run::Run;

/// The number of probe ids of a journal.
const PROBES: u8 = 8;

impl Run<'_> {
    /// Reads each key on both sides once more, deletes it at the source only if the two are equal,
    /// and counts the keys that remain there.
    pub(crate) async fn delete_source(&mut self) -> Result<()> {
        match self.doubt().await? {
            None => {}
            Some(Doubt::OneStore(text)) => {
                return Err(refusal(ErrorKind::Config, format!("nothing was deleted at the source: {text}")));
            }
            Some(Doubt::Journal(text)) => {
                self.report.withheld = Some(text);
                return Ok(());
            }
        }
        self.prove_two_stores().await?;
        self.ledger.begin_deletion()?;
        let source = self.source.clone();
        let mut ids = source.list();
        let mut done = 0;
        while let Some(chunk) = self.next_ids(&mut ids).await? {
            done += chunk.len() as u64;
            self.delete_chunk(chunk).await?;
            self.tell(CopyPhase::Deleting, done, Some(self.report.listed)).await;
        }
        self.count_remaining().await
    }

    async fn delete_chunk(&mut self, mut ids: Vec<KeyId>) -> Result<()> {
        // A listing may repeat an id, and a read may still show a key that was just deleted.
        ids.retain(|id| self.ledger.deletion_state(id) != DeletionState::Deleted);
        let here = self.source.read(&ids).await;
        let there = self.target.read(&ids).await;
        for keys in [&here, &there] {
            stop_if_all_failed(keys, |e| is_store_wide(e.kind()))?;
        }
        let mut equal = Vec::new();
        for ((id, here), there) in ids.into_iter().zip(here).zip(there) {
            match (here, there) {
                (Ok(here), Ok(there)) if here == there => equal.push(id),
                (Err(e), _) if is_gone(&e) => {}
                // The keys differ, and the policy is to skip them.
                _ if self.ledger.is_skipped(&id) => {}
                (Err(e), _) | (_, Err(e)) if e.kind() != ErrorKind::NotFound => self.fail_deletion(id, e),
                _ => {
                    self.ledger.left(&id);
                    self.report.left_at_source.push(id);
                }
            }
        }
        self.refuse_changed_stores()?;
        let deletions = self.source.delete_seen(&equal).await;
        stop_if_all_failed(&deletions, |e| is_store_wide(e.kind()))?;
        for (id, deletion) in equal.into_iter().zip(deletions) {
            match deletion {
                Ok(()) => {
                    self.ledger.deleted(&id);
                    self.report.deleted_at_source += 1;
                }
                Err(e) => self.fail_deletion(id, e),
            }
        }
        Ok(())
    }

    fn fail_deletion(&mut self, id: KeyId, e: Error) {
        self.ledger.left(&id);
        self.report.failed.push(KeyFailure::new(id, e));
    }

    /// Lists and reads the keys that remain at the source, once the deletions must be visible.
    async fn count_remaining(&mut self) -> Result<()> {
        sleep(self.source.bound().max(self.source.listing_bound().unwrap_or_default())).await;
        let source = self.source.clone();
        let mut ids = source.list();
        while let Some(chunk) = self.next_ids(&mut ids).await? {
            let keys = self.source.read(&chunk).await;
            for (id, key) in chunk.into_iter().zip(keys) {
                if key.as_ref().is_err_and(is_gone) {
                    continue;
                }
                self.report.remaining_at_source += 1;
                match (self.ledger.deletion_state(&id), key) {
                    (DeletionState::Reported, _) => {}
                    (DeletionState::Deleted, _) => {
                        self.report.deleted_at_source -= 1;
                        let e = Error::new(ErrorKind::Conflict, Operation::Delete, self.source.scheme())
                            .with_effect(Effect::Unknown)
                            .with_source(
                                "the key exists again after its deletion; stop the program that writes it, and \
                                 run again",
                            );
                        self.fail_deletion(id, e);
                    }
                    (DeletionState::New, Ok(_)) => {
                        self.ledger.left(&id);
                        self.report.left_at_source.push(id);
                    }
                    (DeletionState::New, Err(e)) => self.fail_deletion(id, e),
                }
            }
        }
        Ok(())
    }

    /// Proves that source and target are different stores: creates a key at the target that the
    /// source must not have.
    ///
    /// Two names of the same store would be equal in everything, and deleting under one name would
    /// delete the only copy. Earlier steps are no such proof: a create may have succeeded because
    /// somebody erased the key between two calls.
    async fn prove_two_stores(&mut self) -> Result<()> {
        let (id, key, created) = self.create_probe().await?;
        let proof = match created {
            Ok(()) => self.look_for_probe(&id, &key).await,
            Err(e) => Err(e),
        };
        let removed = self.target.delete_seen(std::slice::from_ref(&id)).await.pop().unwrap_or(Ok(()));
        match (proof, removed) {
            (Ok(()), Ok(())) => Ok(()),
            (Ok(()), Err(e)) => {
                self.report.probe_left = Some(KeyFailure::new(id, e));
                Ok(())
            }
            (Err(e), Ok(())) => Err(e),
            (Err(proof), Err(e)) => {
                let text = "the key that was created at the target to prove that the two stores are different \
                            may still be there, under an id that begins with keystead-copy-: delete it";
                Err(refusal(proof.kind(), format!("{}; {text} ({e})", chain(&proof))))
            }
        }
    }

    /// Succeeds if the target has the probe and the source does not.
    async fn look_for_probe(&mut self, id: &KeyId, key: &SecretKey) -> Result<()> {
        sleep(self.source.bound().max(self.target.bound())).await;
        // The source is read last, when the target is known to have the probe.
        if !self.is_at_target(id, key).await? {
            let e =
                Error::new(ErrorKind::Conflict, Operation::Get, self.target.scheme()).with_effect(Effect::NotApplied);
            return Err(e.with_source("nothing was deleted: the target does not return a key that was just created"));
        }
        match self.source.read(std::slice::from_ref(id)).await.pop() {
            Some(Err(e)) if e.kind() == ErrorKind::NotFound => Ok(()),
            Some(Err(e)) => Err(e),
            _ => {
                let text = "source and target are one store, in which nothing was deleted; name two different ones";
                Err(refusal(ErrorKind::Config, text))
            }
        }
    }

    /// Reports whether the target has this key for this id.
    async fn is_at_target(&mut self, id: &KeyId, key: &SecretKey) -> Result<bool> {
        match self.target.read(std::slice::from_ref(id)).await.pop() {
            Some(Ok(found)) => Ok(found == *key),
            Some(Err(e)) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Ok(false),
        }
    }

    /// Creates the probe, a key at the target that belongs to no user. The `Result` beside it is an
    /// error if the outcome is unknown, so that the key may exist nevertheless.
    ///
    /// With a journal, the ids of probes are the same in every run. Therefore a run removes the
    /// probe that an earlier run left when it was cut off. An id whose deletion is pending cannot
    /// be used again for days, so the next one is taken.
    async fn create_probe(&mut self) -> Result<(KeyId, SecretKey, Result<()>)> {
        let mut attempt = 0;
        loop {
            let (id, key) = self.probe(attempt);
            let answered = AtomicU64::new(0);
            let created = self.target.write(&[(id.clone(), key.clone())], PutMode::Create, &answered).await.pop();
            let e = match created.unwrap_or(Ok(())) {
                Ok(()) => return Ok((id, key, Ok(()))),
                Err(e) => e,
            };
            let is_taken = e.kind() == ErrorKind::AlreadyExists;
            if is_taken && self.is_at_target(&id, &key).await? {
                return Ok((id, key, Ok(())));
            }
            let is_unusable = is_taken || matches!(e.kind(), ErrorKind::PendingDeletion | ErrorKind::Conflict);
            match e.effect() {
                Effect::Unknown => return Ok((id, key, Err(e))),
                _ if is_unusable && attempt < PROBES => attempt += 1,
                _ => return Err(e),
            }
        }
    }

    /// Returns one of the probes of this journal, or a random one after the last of them.
    fn probe(&self, attempt: u8) -> (KeyId, SecretKey) {
        let random = Digester::new(&random_digest_key());
        let digester = if attempt < PROBES { self.ledger.digester() } else { &random };
        let digits: String = digester.probe_id(attempt).iter().map(|byte| format!("{byte:02x}")).collect();
        let id = KeyId::new(format!("keystead-copy-{digits}")).expect("the id is short and has no control character");
        let key = SecretKey::new(digester.probe_key(attempt)).expect("16 bytes are a valid key length");
        (id, key)
    }
}

/// Reports whether a read failed because the key is deleted.
fn is_gone(e: &Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion)
}

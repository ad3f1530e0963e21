//! The pass that deletes at the source what is at the target.

use tokio::time::sleep;

use super::options::CopyPhase;
use super::report::KeyFailure;
use super::{Run, is_the_stores_fault, refusal, stop_if_all_failed};
use crate::{ErrorKind, KeyId, PutMode, Result, SecretKey};

impl Run<'_> {
    /// Reads both sides of each key once more, and deletes at the source only what is equal.
    pub(super) async fn delete_source(&mut self) -> Result<()> {
        self.prove_two_stores().await?;
        self.ledger.begin_deletion()?;
        let source = self.source.clone();
        let (mut ids, mut done) = (source.list(), 0);
        while let Some(chunk) = self.next_ids(&mut ids).await? {
            done += chunk.len() as u64;
            self.delete_chunk(chunk).await?;
            self.tell(CopyPhase::Deleting, done, Some(self.report.listed)).await;
        }
        Ok(())
    }

    async fn delete_chunk(&mut self, ids: Vec<KeyId>) -> Result<()> {
        let here = self.source.read(&ids).await;
        let there = self.target.read(&ids).await;
        for keys in [&here, &there] {
            stop_if_all_failed(keys, |e| is_the_stores_fault(e.kind()))?;
        }
        let mut equal = Vec::new();
        for ((id, here), there) in ids.into_iter().zip(here).zip(there) {
            match (here, there) {
                (Ok(here), Ok(there)) if here == there => equal.push(id),
                (Err(e), _) if e.kind() == ErrorKind::NotFound => {}
                // The policy has left the two different.
                _ if self.ledger.is_skipped(&id) => {}
                (Err(e), _) | (_, Err(e)) if e.kind() != ErrorKind::NotFound => {
                    self.report.failed.push(KeyFailure::new(id, e));
                }
                _ => self.report.left_at_source.push(id),
            }
        }
        let deletions = self.source.delete(&equal).await;
        stop_if_all_failed(&deletions, |e| is_the_stores_fault(e.kind()))?;
        for (id, deletion) in equal.into_iter().zip(deletions) {
            match deletion {
                Ok(_) => self.report.deleted_at_source += 1,
                Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::PendingDeletion) => {}
                Err(e) => self.report.failed.push(KeyFailure::new(id, e)),
            }
        }
        Ok(())
    }

    /// Two names of one store would be equal in everything, and deleting at one would delete the only copy. A key that was
    /// created at the target although the source had it proves that they are two; else one is created to see.
    async fn prove_two_stores(&mut self) -> Result<()> {
        if self.are_two_stores {
            return Ok(());
        }
        let (probe, key) = probe();
        let ids = [probe];
        let [probe] = &ids;
        self.target.write(&[(probe, &key)], PutMode::Create).await.into_iter().collect::<Result<()>>()?;
        sleep(self.source.bound().max(self.target.bound())).await;
        let at_source = self.source.read(&ids).await.pop();
        let removed = self.target.delete(&ids).await.pop();
        match at_source {
            Some(Err(e)) if e.kind() == ErrorKind::NotFound => {}
            Some(Err(e)) => return Err(e),
            _ => {
                let text = "source and target are one store, in which nothing was deleted: name two different ones";
                return Err(refusal(ErrorKind::Config, text));
            }
        }
        removed.transpose().map(drop)
    }
}

/// A key of nobody.
fn probe() -> (KeyId, SecretKey) {
    let key = SecretKey::generate(16).expect("16 bytes are a valid length of a key");
    let digits: String = key.expose_secret().iter().map(|byte| format!("{byte:02x}")).collect();
    let id = KeyId::new(format!("keystead-copy-{digits}")).expect("it is short, and has no control character");
    (id, key)
}

//! Verified, resumable copy of keys from one store to another.
//!
//! [`copy_keys`] lists the source, reads its keys in batches, creates them at the target, and reads
//! each back to compare it. It never replaces a key at the target and never deletes a key at the
//! source, unless an option says so; it deletes at the source only after every key was verified.
//! With a journal, a run that is killed at any point is continued by the next run. [`compare`]
//! compares two stores and changes nothing.
//!
//! Applications use this crate as `keystead::copy`, with the feature `copy` of the crate
//! `keystead`.
//!
//! ```
//! use keystead_copy::{CopyOptions, copy_keys};
//! use keystead_core::{BoxError, KeyId, KeyStore, KeyStoreExt};
//! use keystead_memory::MemoryStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let source = MemoryStore::new();
//! let target = MemoryStore::new();
//! let alice = KeyId::new("alice")?;
//! let key = source.get_or_create_key(&alice).await?;
//!
//! let report = copy_keys(&source, &target, CopyOptions::default()).await?;
//! assert!(report.is_complete());
//! assert_eq!(report.copied, 1);
//! assert_eq!(target.get_key(&alice).await?, key);
//! # Ok(())
//! # }
//! ```
//!
//! # The steps of a copy
//! 1. It asks both stores for their [identity](keystead_core::KeyStore::identify) and refuses to
//!    copy a store to itself.
//! 2. It lists the source and proceeds in chunks of 100 ids: it reads the keys, writes each with
//!    [`PutMode::Create`](keystead_core::PutMode::Create), and reads them back. For a target with a
//!    larger [`create_batch_size`](keystead_core::Capabilities::create_batch_size), such as a file,
//!    the chunks grow to that size while each takes less than half a second. Keys that an
//!    eventually consistent target does not show yet are read again until its visibility bound has
//!    passed. A key that the target already has is left there: if it is the same key, it is
//!    counted; if it differs, [`ConflictPolicy`] applies.
//! 3. If it read any keys, it lists the source again and copies the keys that were added meanwhile.
//!    If a key that the copy wrote is no longer listed, the source is asked for it twice, one
//!    visibility bound apart. If the source finds it neither time, the user was erased during the
//!    copy, and the key is removed at the target, too. If more than ten keys and more than 1 % of
//!    the copied keys are missing, or more than half of them, nothing is removed until the caller
//!    confirms the exact number ([`CopyOptions::confirm_removals`]).
//! 4. If [`CopyOptions::delete_source`] is set and nothing is left to copy, it creates a temporary
//!    key to prove that the two are different stores. Then it lists the source once more, reads
//!    each key on both sides, deletes it at the source if the two are equal, and counts the keys
//!    that remain there.
//!
//! An entry that cannot be read or written does not stop the copy; the [`CopyReport`] lists it. If
//! a store is unreachable or full, so that no key of a chunk can be read or written, the run ends
//! with that error.
//!
//! **Throttling.** A throttled call is repeated after a pause, as long as some calls succeed. The
//! run ends with [`Throttled`](keystead_core::ErrorKind::Throttled) when no call has succeeded for
//! two minutes.
//!
//! **Other failures** are not retried. Use stores that retry by themselves: the AWS stores do, and
//! `Resilient` adds it to any other. Do not put `Cached` around the target, because what is read
//! back must come from the store itself.
//!
//! **Changes during a copy.** A key that changes at the source after it was copied goes unnoticed,
//! unless the source is to be deleted. Let applications write only to the target, or run
//! [`compare`] afterwards. A key that is deleted at the source during the copy counts as erased.
//! Therefore run only one copy of a pair at a time: to the first copy, the deletions of a second
//! one would look like erasures, and it would remove those keys at the target.
//!
//! # If the identity of a store is not certain
//! A store does not know its account if [`identify`](keystead_core::KeyStore::identify) failed. Its
//! keys are still copied and verified. But as long as the copy cannot tell that the two are
//! different stores, or that the journal belongs to them, it removes nothing at the target and
//! deletes nothing at the source. [`CopyReport::withheld`] then gives the reason and the remedy.
//!
//! # The journal
//! With a journal, a run that was cut off is continued by the next run with the same file. That run
//! reads the keys that earlier runs copied on both sides and compares them again, unless
//! [`CopyOptions::recheck`] is false, because a report calls a copy complete only for the keys that
//! its own run has read.
//!
//! The journal belongs to one source and one target, whose identities are in its header; a run
//! between other stores is refused. It contains no ids and no keys, but keyed hashes of ids, and
//! the key of these hashes. A reader can therefore test whether a guessed id was copied, so the
//! file has mode 0600. It may be deleted once the copy is complete. If it is lost, the next run
//! compares the keys that are at the target, but does not count them as copied by itself, and
//! removes none of them. With the journal of a complete copy, a run copies the keys that were added
//! since. It removes none of the keys that earlier runs wrote at the target, whatever the source
//! has lost since then.
//!
//! [FORMAT.md](https://docs.rs/crate/keystead-copy/latest/source/src/FORMAT.md) describes the bytes
//! of the journal.
//!
//! # Resources
//! Memory stays bounded: about 50 bytes for each id, the keys of one chunk, and the first 1,000
//! entries of each list in the report. A copy needs a Tokio runtime with time (`enable_time`). It
//! writes the journal on the calling task.

mod chunk;
mod compare;
mod delete_source;
mod digest;
mod dry_run;
mod endpoint;
mod failure;
mod final_pass;
mod header;
mod identity;
mod journal;
mod ledger;
mod options;
mod patience;
mod report;
mod run;

pub use crate::compare::{Comparison, compare};
pub use crate::options::{ConflictPolicy, CopyOptions, CopyPhase, CopyProgress};
pub use crate::report::{Bounded, CopyReport, KeyFailure};
pub use crate::run::copy_keys;

/// The example in the README, which is compiled with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

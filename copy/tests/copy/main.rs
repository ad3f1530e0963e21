//! Tests of copies between stores, and of the failures during a copy.
#![allow(clippy::unwrap_used, reason = "test code")]
#![allow(clippy::print_stdout, reason = "what was measured is shown with --nocapture")]

mod comparing;
mod deleting;
mod entries;
mod eventual;
mod identities;
mod journal;
mod kills;
mod losses;
#[cfg(target_os = "linux")]
mod memory;
mod options;
mod policies;
mod rechecking;
mod rigged;
mod support;
mod throttled;

use std::path::PathBuf;

use keystead_copy::CopyOptions;
use tempfile::TempDir;

use crate::support::{assert_equal, copy, fill, id, ids, key};

/// Returns a path for a journal, and the directory that contains it.
fn journal() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("copy.journal");
    (directory, path)
}

fn with_journal(path: &PathBuf) -> CopyOptions {
    CopyOptions::default().journal(path)
}

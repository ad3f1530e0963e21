//! Tests of copies that are dropped or killed and run again.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use keystead_copy::{CopyOptions, CopyReport, copy_keys};
use keystead_core::{KeyStore, Result};
use keystead_memory::MemoryStore;

use crate::rigged::Rigged;
use crate::support::{copy_with_drops, dropped_after, file_store};
use crate::{assert_equal, copy, fill, ids, with_journal};

/// The number of runs that are dropped before their end.
const DROPS: usize = 240;

/// The number of processes that are killed.
const KILLS: usize = 8;

/// The variable with the directory of a child process that copies.
const CHILD: &str = "KEYSTEAD_TEST_COPY_CHILD";

#[tokio::test]
async fn a_copy_that_is_dropped_anywhere_goes_on_where_it_was() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut drops = 0;
    let mut round = 0;
    while drops < DROPS {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let memory = MemoryStore::new();
        let back = MemoryStore::new();
        let count = [3, 40, 130, 230][round % 4];
        fill(&memory, 0..count).await;
        let source = Rigged::new(&memory);
        let target = Rigged::new(&back);
        let file = file_store(&at("keys/keys.db")).await;
        let legs: [(&dyn KeyStore, &dyn KeyStore, _); 2] = [(&source, &file, "there"), (&file, &target, "back")];
        for (from, to, journal) in legs {
            let (dropped, report) = copy_with_drops(from, to, &at(journal), &mut random, 4 + count / 8).await;
            assert!(report.is_complete(), "{report:?}");
            assert_eq!((report.listed, report.already_there, report.removed_at_target.total), (count as u64, 0, 0));
            assert_equal(from, to).await;
            drops += dropped;
        }
        round += 1;
    }
    println!("{drops} runs were dropped in {round} rounds");
}

#[tokio::test]
async fn a_move_that_is_dropped_anywhere_loses_no_key() {
    let mut random = fastrand::Rng::with_seed(2);
    let mut drops = 0;
    while drops < DROPS / 4 {
        let memory = MemoryStore::new();
        let target = MemoryStore::new();
        let all = MemoryStore::new();
        let (_directory, path) = crate::journal();
        fill(&memory, 0..130).await;
        fill(&all, 0..130).await;
        let from = Rigged::new(&memory);
        let to = Rigged::new(&target);
        let mut here = 0;
        let mut moved = None;
        while moved.is_none() {
            let options = with_journal(&path).delete_source(true);
            let polls = random.usize(1..=150) + here * 20;
            moved = dropped_after(polls, copy_keys(&from, &to, options)).await;
            here += usize::from(moved.is_none());
            // Wherever the run was dropped, each key is on at least one side.
            let mut either = ids(&memory).await;
            either.extend(ids(&target).await);
            // If a run is dropped while its probe exists, the probe stays until the next run.
            either.retain(|id| !id.as_str().starts_with("keystead-copy-"));
            either.sort();
            either.dedup();
            assert!(either == ids(&all).await);
        }
        assert!(moved.unwrap().unwrap().is_complete());
        assert!(ids(&memory).await.is_empty());
        assert_equal(&all, &target).await;
        drops += here;
    }
}

#[test]
fn a_process_that_is_killed_leaves_a_copy_that_is_gone_on_with() {
    let name = "kills::a_process_that_is_killed_leaves_a_copy_that_is_gone_on_with";
    if let Ok(directory) = std::env::var(CHILD) {
        copy_files(Path::new(&directory)).unwrap();
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("keys")).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let source = file_store(&directory.path().join("keys/source.db")).await;
        let all = MemoryStore::new();
        fill(&all, 0..2000).await;
        copy(&all, &source, CopyOptions::default().concurrency(256)).await;
        source.close().await.unwrap();
    });
    let mut random = fastrand::Rng::with_seed(3);
    let mut killed = 0;
    for _ in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name])
            .env(CHILD, directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        child.kill().unwrap();
        killed += usize::from(!child.wait().unwrap().success());
    }
    assert!(killed > 0, "all were faster");
    let report = copy_files(directory.path()).unwrap();
    assert!(report.is_complete());
    assert_eq!((report.listed, report.already_there), (2000, 0));
    println!("{killed} were killed; {} of 2000 keys were done by then", report.done_before);
    runtime.block_on(async {
        let source = file_store(&directory.path().join("keys/source.db")).await;
        let target = file_store(&directory.path().join("keys/target.db")).await;
        assert_equal(&source, &target).await;
    });
}

#[tokio::main(flavor = "current_thread")]
async fn copy_files(directory: &Path) -> Result<CopyReport> {
    let source = file_store(&directory.join("keys/source.db")).await;
    let target = file_store(&directory.join("keys/target.db")).await;
    let report = copy_keys(&source, &target, CopyOptions::default().journal(directory.join("journal"))).await;
    source.close().await.unwrap();
    target.close().await.unwrap();
    report
}

//! The cost of the memory store for a unit test: the number of crates, and the seconds of a cold
//! build.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use keystead_benches::measure::{Cost, Samples};
use keystead_benches::table::{Bar, Row, Unit};
use keystead_core::BoxError;

use crate::bench::Bench;

const MOST_CRATES: f64 = 39.0;
const MOST_SECONDS: f64 = 20.0;

pub(crate) fn build(bench: &mut Bench) -> Result<(), BoxError> {
    let tree = ["tree", "--package", "keystead-memory", "--edges", "normal", "--prefix", "none", "--locked"];
    let tree = String::from_utf8(cargo(&bench.directory("cold-tree")?, &tree)?)?;
    let crates: BTreeSet<&str> = tree.lines().map(|line| line.trim_end_matches(" (*)")).collect();
    let crates = Samples::fixed(Cost(crates.len() as f64));

    let mut builds = Vec::new();
    for round in 0..bench.options.size(3, 1) {
        // In an empty target directory nothing is built yet. The sources have been downloaded,
        // because this program was built from them.
        let target = bench.directory(&format!("cold-build-{round}"))?;
        let start = Instant::now();
        cargo(&target, &["build", "--package", "keystead-memory", "--jobs", "2", "--locked", "--offline"])?;
        builds.push(Cost::of(start.elapsed(), 1));
    }
    let seconds = Samples::fixed(Samples::from(builds).median());

    let path = "build: core and memory store from cold, 2 jobs";
    let bar = Bar::AtMost(1.0);
    for (against, unit, ours, limit) in
        [("39 crates", Unit::Count, &crates, MOST_CRATES), ("20 s", Unit::Time, &seconds, MOST_SECONDS * 1e9)]
    {
        bench.row(&Row { path, against, bar, stretch: None, unit, ours, reference: &Samples::fixed(Cost(limit)) });
    }
    Ok(())
}

/// Runs Cargo on our workspace and returns its output.
fn cargo(target: &Path, arguments: &[&str]) -> Result<Vec<u8>, BoxError> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .env("CARGO_TARGET_DIR", target)
        .output()?;
    if !output.status.success() {
        return Err(format!("cargo failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(output.stdout)
}

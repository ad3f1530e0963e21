//! The report for CI: it replaces an older one, and no other file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::exit::{CommandError, Outcome};

/// The beginning of every report of the suite.
const BEGINNING: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"keystead-conformance: ";

/// Refuses a file that no report can be written to, or that would be lost.
pub(super) fn check(file: &Path) -> Outcome<()> {
    let shown = file.display();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let text = format!("there is no directory {} for the report: make it, or give another file", parent.display());
        return Err(CommandError::usage(text));
    }
    match is_report(file) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::refused(format!(
            "{shown} exists, and is not a report of the suite: it was left unchanged, give another file"
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => {
            Err(CommandError::usage(format!("reading {shown} failed, where the report would be written")).because(e))
        }
    }
}

/// Writes the report, unless something else has got in its place since it was checked.
pub(super) fn write(file: &Path, report: &str) -> Outcome<()> {
    check(file)?;
    let shown = file.display();
    fs::write(file, report).map_err(|e| CommandError::other(format!("writing the report to {shown} failed")).because(e))
}

fn is_report(file: &Path) -> io::Result<bool> {
    if !fs::metadata(file)?.is_file() {
        return Ok(false);
    }
    let mut beginning = Vec::with_capacity(BEGINNING.len());
    File::open(file)?.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == BEGINNING)
}

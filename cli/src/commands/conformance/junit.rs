//! The report for CI, which replaces an older report but no other file.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use crate::exit::{CommandError, Outcome};

/// The beginning of each report of the suite.
const BEGINNING: &[u8] = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuite name=\"keystead-conformance: ";

/// Refuses a path where no report can be written, and a file that is not a report.
pub(super) fn check(file: &Path) -> Outcome<()> {
    let shown = file.display();
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        let text =
            format!("there is no directory {} for the report: create it, or name another file", parent.display());
        return Err(CommandError::usage(text));
    }
    match is_report(file) {
        Ok(true) => Ok(()),
        Ok(false) => Err(CommandError::refused(format!(
            "{shown} exists but is not a report of the suite, and was left unchanged: name another file"
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => {
            Err(CommandError::usage(format!("cannot read {shown}, where the report would be written")).because(e))
        }
    }
}

/// Checks the path again, and writes the report.
pub(super) fn write(file: &Path, report: &str) -> Outcome<()> {
    check(file)?;
    let shown = file.display();
    fs::write(file, report).map_err(|e| CommandError::other(format!("cannot write the report to {shown}")).because(e))
}

fn is_report(file: &Path) -> io::Result<bool> {
    if !fs::metadata(file)?.is_file() {
        return Ok(false);
    }
    let mut beginning = Vec::with_capacity(BEGINNING.len());
    File::open(file)?.take(BEGINNING.len() as u64).read_to_end(&mut beginning)?;
    Ok(beginning == BEGINNING)
}

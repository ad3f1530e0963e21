//! Output: results go to standard output, as text or JSON; everything else goes to standard error.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use keystead::{Finality, SecretKey};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::encoding::{Format, MAX_WRITTEN_LEN};
use crate::exit::{CommandError, Outcome};
use crate::files;

/// The form in which results are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Writes one result: the text for people, or the value as JSON on one line.
    pub(crate) fn result(self, text: impl AsRef<str>, value: Value) -> Outcome<()> {
        if self.json { self.text(&value.to_string()) } else { self.text(text.as_ref()) }
    }

    /// Writes a result that is formatted already.
    pub(crate) fn text(self, text: &str) -> Outcome<()> {
        writeln!(io::stdout(), "{text}").map_err(CommandError::stdout)
    }

    /// Writes a key to a new file or to standard output.
    pub(crate) fn key(self, key: &SecretKey, format: Format, file: Option<&Path>, force: bool) -> Outcome<()> {
        let mut written = format.encode(key);
        if let Some(path) = file {
            if format != Format::Raw {
                written.push(b'\n');
            }
            files::create_private(path, &written)?;
            let shown = path.display().to_string();
            return self.result(format!("the key is in {shown}"), json!({ "file": shown }));
        }
        let raw = format == Format::Raw;
        if self.json && raw {
            return Err(CommandError::usage(
                "raw bytes cannot be written as JSON: use --format hex or --format base64",
            ));
        }
        if raw && !force && io::stdout().is_terminal() {
            return Err(CommandError::refused(
                "raw bytes would garble the terminal and remain visible on it: redirect them to a file or a pipe, or \
                 use --force",
            ));
        }
        // Written without a JSON library, which would leave copies of the key in memory.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_WRITTEN_LEN + 64));
        let name = format.name();
        if self.json {
            line.extend_from_slice(format!("{{\"format\":\"{name}\",\"key\":\"").as_bytes());
            line.extend_from_slice(&written);
            line.extend_from_slice(b"\"}\n");
        } else {
            line.extend_from_slice(&written);
            line.extend_from_slice(if raw { b"" } else { b"\n" });
        }
        unbuffered_stdout().and_then(|mut stdout| stdout.write_all(&line)).map_err(CommandError::stdout)
    }
}

/// Returns standard output without the buffer of the standard library, which is never wiped.
fn unbuffered_stdout() -> io::Result<File> {
    #[cfg(unix)]
    return Ok(File::from(std::os::fd::AsFd::as_fd(&io::stdout()).try_clone_to_owned()?));
    #[cfg(windows)]
    return Ok(File::from(std::os::windows::io::AsHandle::as_handle(&io::stdout()).try_clone_to_owned()?));
}

/// Writes a line to standard error, for a person at the terminal or the log of a job.
pub(crate) fn note(text: impl AsRef<str>) {
    // If standard error cannot be written, nobody can be told.
    let _ = writeln!(io::stderr(), "{}", text.as_ref());
}

/// Returns a finality in words.
pub(crate) fn finality_text(finality: Finality) -> String {
    match finality {
        Finality::Immediate => "its bytes are beyond recovery".to_owned(),
        Finality::Eventual { within: None } => "its bytes will be beyond recovery without anybody's help".to_owned(),
        Finality::Eventual { within: Some(within) } => format!("its bytes will be beyond recovery within {within:?}"),
        Finality::RecoverableUntil(until) => {
            format!("an operator can bring it back until {}", utc(until))
        }
        _ => format!("{finality:?}"),
    }
}

/// Returns a finality in JSON, which README.md describes.
pub(crate) fn finality_json(finality: Finality) -> Value {
    match finality {
        Finality::Immediate => json!({ "kind": "immediate" }),
        Finality::Eventual { within } => {
            json!({ "kind": "eventual", "within_seconds": within.map(|within| within.as_secs_f64()) })
        }
        Finality::RecoverableUntil(until) => {
            json!({ "kind": "recoverable", "until_unix_seconds": unix_seconds(until) })
        }
        _ => json!({ "kind": "other" }),
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// Returns a time in UTC, to the second.
pub(crate) fn utc(time: SystemTime) -> String {
    let seconds = unix_seconds(time);
    let day = seconds / 86_400;
    let second_of_day = seconds % 86_400;
    // Counts in years that begin in March, so that a leap day is the last day of its year. The
    // first era of 400 such years began 719,468 days before 1970.
    let era = (day + 719_468) / 146_097;
    let of_era = (day + 719_468) % 146_097;
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day_of_month = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = 400 * era + year_of_era + u64::from(month <= 2);
    let hour = second_of_day / 3_600;
    let minute = second_of_day / 60 % 60;
    let second = second_of_day % 60;
    format!("{year}-{month:02}-{day_of_month:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_told_in_utc() {
        for (seconds, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}

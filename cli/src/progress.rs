//! [`Meter`]: how far a long command is, for who looks on: a line that is written over on a terminal, now and then a line of
//! its own elsewhere.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::session::Session;

/// How often the line on a terminal is written over, and how often a line is added elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// The width of the bar, in characters.
const BAR: u64 = 24;

/// Shows progress on standard error; nothing with `--json`.
#[derive(Debug)]
pub(crate) struct Meter {
    shown: bool,
    terminal: bool,
    phase: String,
    /// When the phase began: with the last word of the phase before.
    start: Instant,
    told: Instant,
    last: Option<Instant>,
    /// Whether a line stands on the terminal that is not ended.
    open: bool,
}

impl Meter {
    pub(crate) fn new(session: &Session) -> Self {
        let terminal = io::stderr().is_terminal();
        let shown = !session.output.json;
        let start = Instant::now();
        Self { shown, terminal, phase: String::new(), start, told: start, last: None, open: false }
    }

    /// Whether somebody looks on at a terminal.
    pub(crate) fn is_watched(&self) -> bool {
        self.shown && self.terminal
    }

    /// So many of `total` are done in this phase.
    pub(crate) fn tell(&mut self, phase: &str, done: u64, total: Option<u64>) {
        if phase != self.phase {
            self.end();
            (self.phase, self.start, self.last) = (phase.to_owned(), self.told, None);
        }
        self.told = Instant::now();
        let is_whole = total == Some(done);
        let pause = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        // Elsewhere the first line comes after the first pause: what is done sooner needs none.
        let since = self.last.or((!self.terminal).then_some(self.start));
        let is_due = since.is_none_or(|last| last.elapsed() >= pause) || self.terminal && is_whole;
        if !self.shown || !is_due {
            return;
        }
        self.last = Some(self.told);
        let line = line(phase, done, total, self.start.elapsed());
        // Where standard error cannot be written there is nobody to tell.
        let _ = match self.terminal {
            true => write!(io::stderr(), "\r{line}\x1b[K"),
            false => writeln!(io::stderr(), "{line}"),
        };
        self.open = self.terminal;
    }

    /// Ends the line that is written over, so that what follows stands below it.
    fn end(&mut self) {
        if std::mem::take(&mut self.open) {
            let _ = writeln!(io::stderr());
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.end();
    }
}

fn line(phase: &str, done: u64, total: Option<u64>, elapsed: Duration) -> String {
    // Numbers of keys are far below those that f64 cannot hold.
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let Some(total) = total else { return format!("{phase}: {done}, {rate:.0}/s") };
    let filled = done.saturating_mul(BAR).checked_div(total).unwrap_or(BAR).min(BAR);
    let bar: String = (0..BAR).map(|place| if place < filled { '#' } else { '.' }).collect();
    let left = match rate > 0.0 {
        true => minutes(total.saturating_sub(done) as f64 / rate),
        false => "?".to_owned(),
    };
    format!("{phase} [{bar}] {done} of {total}, {rate:.0}/s, {left} left")
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_yet() {
        let second = Duration::from_secs(1);
        assert_eq!(line("copying", 50, None, second), "copying: 50, 50/s");
        assert_eq!(
            line("copying", 25, Some(100), second),
            "copying [######..................] 25 of 100, 25/s, 0:03 left"
        );
        assert_eq!(line("copying", 0, Some(0), second), "copying [########################] 0 of 0, 0/s, ? left");
        assert!(line("x", 1, Some(7_200), second).ends_with("1:59:59 left"));
    }
}

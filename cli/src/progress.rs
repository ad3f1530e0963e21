//! [`Meter`]: the progress of a long command. On a terminal it is one line that is rewritten;
//! elsewhere a new line is added from time to time.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::session::Session;

/// The pauses between two updates: of the line on a terminal, and between lines elsewhere.
const ON_TERMINAL: Duration = Duration::from_millis(100);
const ELSEWHERE: Duration = Duration::from_secs(10);

/// The width of the bar, in characters.
const BAR: u64 = 24;

/// The assumed width of a terminal that does not report its width, in columns.
const USUAL_WIDTH: usize = 80;

/// A progress display on standard error. With `--json` it shows nothing.
#[derive(Debug)]
pub(crate) struct Meter {
    shown: bool,
    terminal: bool,
    /// True if the first line is written at once even if there is no terminal.
    at_once: bool,
    phase: String,
    /// The beginning of the phase: the last update of the phase before.
    start: Instant,
    told: Instant,
    last: Option<Instant>,
    /// True if the current line on the terminal is not ended.
    open: bool,
}

impl Meter {
    pub(crate) fn new(session: &Session) -> Self {
        let start = Instant::now();
        Self {
            shown: !session.output.json,
            terminal: io::stderr().is_terminal(),
            at_once: false,
            phase: String::new(),
            start,
            told: start,
            last: None,
            open: false,
        }
    }

    /// Makes the meter write its first line at once, for work that usually takes more than some
    /// seconds.
    pub(crate) fn at_once(mut self) -> Self {
        self.at_once = true;
        self
    }

    /// Reports whether progress is shown on a terminal.
    pub(crate) fn is_watched(&self) -> bool {
        self.shown && self.terminal
    }

    /// Updates the display: this many of `total` are done in this phase.
    pub(crate) fn tell(&mut self, phase: &str, done: u64, total: Option<u64>) {
        if phase != self.phase {
            self.end();
            self.phase = phase.to_owned();
            self.start = self.told;
            self.last = None;
        }
        self.told = Instant::now();
        let is_whole = total == Some(done);
        if !self.shown || !(self.is_due() || self.terminal && is_whole) {
            return;
        }
        self.last = Some(self.told);
        let lines = lines(phase, done, total, self.start.elapsed());
        // If standard error cannot be written, nobody can be told.
        let _ = match self.terminal {
            // The width of the terminal may have changed.
            true => write!(io::stderr(), "\r{}\x1b[K", fitting(&lines, terminal_width())),
            false => writeln!(io::stderr(), "{}", fitting(&lines, usize::MAX)),
        };
        self.open = self.terminal;
    }

    fn is_due(&self) -> bool {
        let pause = if self.terminal { ON_TERMINAL } else { ELSEWHERE };
        match self.last {
            Some(last) => last.elapsed() >= pause,
            None if self.terminal || self.at_once => true,
            // Work that ends sooner needs no line.
            None => self.start.elapsed() >= pause,
        }
    }

    /// Ends the line that is rewritten, so that later output begins on a new line.
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

/// Returns the width of the terminal at standard error, in columns.
fn terminal_width() -> usize {
    #[cfg(unix)]
    let width = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    #[cfg(not(unix))]
    let width = 0;
    if width == 0 { USUAL_WIDTH } else { width }
}

/// Returns the first of these lines that leaves the last column free, because some terminals wrap
/// there. If none does, returns the beginning of the last line.
fn fitting(lines: &[String], width: usize) -> String {
    let room = width - 1;
    let fits = lines.iter().find(|line| line.chars().count() <= room);
    fits.cloned().unwrap_or_else(|| lines.last().into_iter().flat_map(|line| line.chars()).take(room).collect())
}

/// Returns the progress as alternative lines, from the longest to the shortest.
fn lines(phase: &str, done: u64, total: Option<u64>, elapsed: Duration) -> Vec<String> {
    // Numbers of keys are small enough to be exact in f64.
    let rate = done as f64 / elapsed.as_secs_f64().max(0.001);
    let shown_rate = if rate > 0.0 && rate < 10.0 { format!("{rate:.1}/s") } else { format!("{rate:.0}/s") };
    let Some(total) = total else {
        return vec![format!("{phase}: {done}, {shown_rate}"), format!("{phase}: {done}")];
    };
    let filled = done.saturating_mul(BAR).checked_div(total).unwrap_or(BAR).min(BAR);
    let bar: String = (0..BAR).map(|place| if place < filled { '#' } else { '.' }).collect();
    let percent = done.saturating_mul(100).checked_div(total).unwrap_or(100).min(100);
    let left = match rate > 0.0 {
        true => minutes(total.saturating_sub(done) as f64 / rate),
        false => "?".to_owned(),
    };
    vec![
        format!("{phase} [{bar}] {done} of {total}, {shown_rate}, {left} left"),
        format!("{phase} {done} of {total}, {shown_rate}, {left} left"),
        format!("{phase} {done} of {total}, {left} left"),
        format!("{phase} {percent}%, {left} left"),
        format!("{phase} {percent}%"),
    ]
}

fn minutes(seconds: f64) -> String {
    let seconds = seconds.ceil() as u64;
    let hours = seconds / 3_600;
    let minutes = seconds / 60 % 60;
    let seconds = seconds % 60;
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn line(done: u64, total: Option<u64>, width: usize) -> String {
        fitting(&lines("copying", done, total, SECOND), width)
    }

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_yet() {
        assert_eq!(line(50, None, 80), "copying: 50, 50/s");
        assert_eq!(line(25, Some(100), 80), "copying [######..................] 25 of 100, 25/s, 0:03 left");
        assert_eq!(line(0, Some(0), 80), "copying [########################] 0 of 0, 0/s, ? left");
        assert!(line(1, Some(7_200), 80).ends_with("1 of 7200, 1.0/s, 1:59:59 left"));
    }

    #[test]
    fn a_line_is_no_wider_than_the_terminal() {
        assert_eq!(line(43_900, Some(100_000), 60), "copying 43900 of 100000, 43900/s, 0:02 left");
        assert_eq!(line(43_900, Some(100_000), 40), "copying 43900 of 100000, 0:02 left");
        assert_eq!(line(43_900, Some(100_000), 25), "copying 43%, 0:02 left");
        assert_eq!(line(43_900, Some(100_000), 20), "copying 43%");
        assert_eq!(line(43_900, None, 20), "copying: 43900");
        for width in 1..80 {
            for total in [None, Some(100_000)] {
                assert!(line(43_900, total, width).len() < width, "{width}");
            }
        }
    }
}

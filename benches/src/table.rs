//! [`Table`]: one Markdown row for each bar.

use std::fmt::Write as _;

use crate::measure::{Cost, Samples};

/// The condition that our cost and the reference's must meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// Our cost is at most this many times the reference's.
    AtMost(f64),
    /// We are at least this many times as fast as the reference.
    AtLeast(f64),
    /// Nothing: the ratio of the costs is only shown.
    Shown,
}

/// The unit in which a cost is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// The time an operation takes.
    Time,
    /// The number of operations per second.
    Rate,
    /// A number of things: the cost is how many.
    Count,
    /// The cost is a number of bytes.
    Bytes,
    /// The cost is a percentage.
    Percent,
}

/// A bar, and the two costs that it compares.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The operation that is measured, and the store.
    pub path: &'a str,
    /// The reference that it is measured against, in words.
    pub against: &'a str,
    /// The condition that the costs must meet.
    pub bar: Bar,
    /// A better ratio that we aim for. It is shown but not judged.
    pub stretch: Option<f64>,
    /// The unit in which the two costs are shown.
    pub unit: Unit,
    /// The costs of keystead.
    pub ours: &'a Samples,
    /// The costs of the reference.
    pub reference: &'a Samples,
}

/// The rows so far.
#[derive(Debug)]
pub struct Table {
    text: String,
    judged: bool,
    missed: usize,
}

const HEAD: &str = "| path | bar | ours | reference | ratio | |\n|---|---|---|---|---|---|\n";

impl Bar {
    /// Returns the ratio that the bar limits.
    pub fn ratio(self, ours: &Samples, reference: &Samples) -> f64 {
        match self {
            Self::AtMost(_) | Self::Shown => ours.over(reference),
            Self::AtLeast(_) => reference.over(ours),
        }
    }

    /// Reports whether this ratio meets the bar. A ratio that is not a number does not meet a
    /// limit.
    pub fn holds(self, ratio: f64) -> bool {
        match self {
            Self::AtMost(most) => ratio <= most,
            Self::AtLeast(least) => ratio >= least,
            Self::Shown => true,
        }
    }

    fn words(self, against: &str) -> String {
        match self {
            Self::AtMost(most) => format!("at most {most}x of {against}"),
            Self::AtLeast(least) => format!("at least {least}x as fast as {against}"),
            Self::Shown => format!("none, beside {against}"),
        }
    }
}

impl Table {
    /// Creates an empty table. If it is not judged, no bar can be missed.
    pub fn new(judged: bool) -> Self {
        Self { text: HEAD.to_owned(), judged, missed: 0 }
    }

    /// Adds a row and returns its line. Before the first line it returns the table's head, too.
    pub fn add(&mut self, row: &Row<'_>) -> &str {
        let ratio = row.bar.ratio(row.ours, row.reference);
        let verdict = match (self.judged, row.bar) {
            (_, Bar::Shown) => "no bar",
            (false, _) => "not judged",
            (true, bar) if bar.holds(ratio) => "holds",
            (true, _) => "MISSED",
        };
        self.missed += usize::from(verdict == "MISSED");
        let mut bar = row.bar.words(row.against);
        if let Some(stretch) = row.stretch {
            let _ = write!(bar, " (stretch {stretch}x)");
        }
        let [ours, reference] = [row.ours, row.reference].map(|samples| shown(samples.median(), row.unit));
        self.push(&format!("| {} | {bar} | {ours} | {reference} | {ratio:.2}x | {verdict} |\n", row.path))
    }

    /// Adds a row that could not be measured. It counts as missed even if nothing is judged.
    pub fn add_failure(&mut self, path: &str, why: &str) -> &str {
        self.missed += 1;
        self.push(&format!("| {path} | | | | | FAILED: {} |\n", why.replace(['|', '\n'], " ")))
    }

    /// Returns the number of bars that were missed.
    pub fn missed(&self) -> usize {
        self.missed
    }

    /// Returns the whole table in Markdown.
    pub fn text(&self) -> &str {
        &self.text
    }

    fn push(&mut self, line: &str) -> &str {
        let first = self.text.len() == HEAD.len();
        let from = if first { 0 } else { self.text.len() };
        self.text.push_str(line);
        &self.text[from..]
    }
}

fn shown(Cost(cost): Cost, unit: Unit) -> String {
    match unit {
        Unit::Time if cost < 1e3 => format!("{cost:.0} ns"),
        Unit::Time if cost < 1e5 => format!("{:.1} us", cost / 1e3),
        Unit::Time if cost < 1e6 => format!("{:.0} us", cost / 1e3),
        Unit::Time if cost < 1e9 => format!("{:.1} ms", cost / 1e6),
        Unit::Time => format!("{:.1} s", cost / 1e9),
        Unit::Rate if cost < 1e3 => format!("{:.1} M/s", 1e3 / cost),
        Unit::Rate => format!("{:.0}/s", 1e9 / cost),
        Unit::Count => format!("{cost:.0}"),
        Unit::Percent => format!("{cost:.1} %"),
        Unit::Bytes => format!("{:.1} MiB", cost / f64::from(1 << 20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row<'a>(bar: Bar, ours: &'a Samples, reference: &'a Samples) -> Row<'a> {
        Row { path: "get", against: "a map", bar, stretch: Some(2.0), unit: Unit::Time, ours, reference }
    }

    fn fixed(cost: f64) -> Samples {
        Samples::fixed(Cost(cost))
    }

    #[test]
    fn a_row_has_the_bar_both_costs_the_ratio_and_the_verdict() {
        let mut table = Table::new(true);
        table.add(&row(Bar::AtMost(3.0), &fixed(90.0), &fixed(30.0)));
        let line = "| get | at most 3x of a map (stretch 2x) | 90 ns | 30 ns | 3.00x | holds |\n";
        assert_eq!(table.text(), format!("{HEAD}{line}"));
    }

    #[test]
    fn only_the_first_row_is_printed_with_the_head() {
        let mut table = Table::new(true);
        assert!(table.add_failure("a", "b").starts_with("| path"));
        assert!(table.add_failure("c", "d").starts_with("| c"));
    }

    #[test]
    fn at_most_limits_our_cost_and_at_least_our_speed() {
        let ours = fixed(100.0);
        let reference = fixed(800.0);
        assert_eq!(Bar::AtLeast(8.0).ratio(&ours, &reference), 8.0);
        assert_eq!(Bar::AtMost(8.0).ratio(&ours, &reference), 0.125);
        assert!(Bar::AtLeast(8.0).holds(8.0) && !Bar::AtLeast(8.0).holds(7.9));
        assert!(Bar::AtMost(2.0).holds(2.0) && !Bar::AtMost(2.0).holds(2.1));
        assert!(!Bar::AtMost(2.0).holds(f64::NAN) && !Bar::AtLeast(2.0).holds(f64::NAN));
    }

    #[test]
    fn a_missed_bar_is_counted_if_bars_are_judged() {
        for (judged, missed) in [(true, 1), (false, 0)] {
            let mut table = Table::new(judged);
            table.add(&row(Bar::AtLeast(2.0), &fixed(1.0), &fixed(1.0)));
            table.add(&row(Bar::AtLeast(2.0), &fixed(1.0), &fixed(2.0)));
            assert_eq!(table.missed(), missed);
        }
    }

    #[test]
    fn a_row_without_a_bar_is_shown_and_never_missed() {
        let mut table = Table::new(true);
        table.add(&row(Bar::Shown, &fixed(90.0), &fixed(30.0)));
        assert!(table.text().ends_with("| none, beside a map (stretch 2x) | 90 ns | 30 ns | 3.00x | no bar |\n"));
        assert_eq!(table.missed(), 0);
    }

    #[test]
    fn a_row_that_fails_counts_as_missed_in_any_case() {
        let mut table = Table::new(false);
        assert!(table.add_failure("get", "no | disk\nat all").contains("FAILED: no   disk at all |"));
        assert_eq!(table.missed(), 1);
    }

    #[test]
    fn costs_are_shown_with_sensible_units() {
        let time = |cost| shown(Cost(cost), Unit::Time);
        assert_eq!(
            [time(41.4), time(6_900.0), time(140_000.0), time(2.3e6), time(7e9)],
            ["41 ns", "6.9 us", "140 us", "2.3 ms", "7.0 s"]
        );
        assert_eq!(shown(Cost(50.0), Unit::Rate), "20.0 M/s");
        assert_eq!(shown(Cost(250_000.0), Unit::Rate), "4000/s");
        assert_eq!(shown(Cost(12.0), Unit::Count), "12");
        assert_eq!(shown(Cost(49.64), Unit::Percent), "49.6 %");
        assert_eq!(shown(Cost(3.0 * 1024.0 * 1024.0), Unit::Bytes), "3.0 MiB");
    }
}

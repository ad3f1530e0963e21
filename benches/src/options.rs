//! The options of the command line.

use std::path::PathBuf;

use keystead_core::BoxError;

/// The help text of the program.
pub const USAGE: &str = "\
cargo bench -p keystead-benches -- [--quick] [--filter NAME]... [--dir DIR] [--out FILE] [--list]
  --quick        small counts and few rounds: shows that everything works; no bar is judged
  --filter NAME  only the rows whose name contains NAME; may be repeated
  --dir DIR      a directory on the disk to measure (target/tmp)
  --out FILE     the file for the table (target/bench.md)
  --list         print the names of the rows and measure nothing";

/// The options that the command line sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Small counts and few rounds; no bar is judged.
    pub quick: bool,
    /// Print the names of the rows and do nothing.
    pub list: bool,
    /// Measure only the rows whose name contains one of these; all rows if this is empty.
    pub filters: Vec<String>,
    /// The directory under which files are written and measured.
    pub dir: PathBuf,
    /// The file for the table.
    pub out: PathBuf,
}

impl Options {
    /// Reads arguments, without the program's name.
    ///
    /// # Errors
    /// [`USAGE`] if there is an argument that it does not name.
    pub fn parse(mut self, arguments: impl IntoIterator<Item = String>) -> Result<Self, BoxError> {
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value\n{USAGE}"));
            match argument.as_str() {
                // Cargo passes this to every benchmark.
                "--bench" => {}
                "--quick" => self.quick = true,
                "--list" => self.list = true,
                "--filter" => self.filters.push(value()?),
                "--dir" => self.dir = value()?.into(),
                "--out" => self.out = value()?.into(),
                _ => return Err(format!("unknown argument {argument}\n{USAGE}").into()),
            }
        }
        Ok(self)
    }

    /// Reports whether the row of this name is to be measured.
    pub fn wants(&self, row: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| row.contains(filter.as_str()))
    }

    /// Returns the first value in a full run, the second one in a quick run.
    pub fn size<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &str) -> Result<Options, BoxError> {
        let none = Options { quick: false, list: false, filters: vec![], dir: "tmp".into(), out: "bench.md".into() };
        none.parse(arguments.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn all_rows_are_measured_unless_filters_name_some() {
        assert!(parse("--bench").unwrap().wants("memory.get"));
        let some = parse("--filter memory --filter file.get").unwrap();
        assert!(some.wants("memory.get") && some.wants("file.get") && !some.wants("file.put"));
    }

    #[test]
    fn every_option_is_read() {
        let options = parse("--quick --list --dir d --out o").unwrap();
        assert!(options.quick && options.list);
        assert_eq!((options.dir, options.out), ("d".into(), "o".into()));
    }

    #[test]
    fn unknown_arguments_and_missing_values_are_refused() {
        for arguments in ["--fast", "memory", "--filter"] {
            assert!(parse(arguments).unwrap_err().to_string().contains("cargo bench"), "{arguments}");
        }
    }
}

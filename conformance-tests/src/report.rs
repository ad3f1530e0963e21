//! [`Report`], the results of a run.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use crate::case::Case;

/// The results of one run over one store.
#[derive(Debug)]
pub struct Report {
    store: String,
    results: Vec<CaseResult>,
}

#[derive(Clone, Debug)]
pub(crate) struct CaseResult {
    pub(crate) id: &'static str,
    pub(crate) sentence: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) duration: Duration,
}

#[derive(Clone, Debug)]
pub(crate) enum Verdict {
    Passed,
    Failed(String),
    Ignored(String),
}

impl CaseResult {
    pub(crate) fn new(case: &Case, verdict: Verdict, duration: Duration) -> Self {
        Self { id: case.id, sentence: case.sentence, verdict, duration }
    }
}

impl Report {
    pub(crate) fn new(store: &str, results: Vec<CaseResult>) -> Self {
        Self { store: store.to_owned(), results }
    }

    /// Returns the ids of the cases that failed.
    pub fn failed(&self) -> Vec<&str> {
        self.with(|verdict| matches!(verdict, Verdict::Failed(_)).then_some(())).map(|(id, ())| id).collect()
    }

    /// Returns the ids of the cases that passed.
    pub fn passed(&self) -> Vec<&str> {
        self.with(|verdict| matches!(verdict, Verdict::Passed).then_some(())).map(|(id, ())| id).collect()
    }

    /// Returns the ids of the cases that were ignored, each with the reason.
    pub fn ignored(&self) -> Vec<(&str, &str)> {
        self.with(|verdict| if let Verdict::Ignored(reason) = verdict { Some(reason.as_str()) } else { None }).collect()
    }

    /// Returns the ids of the cases that failed, each with the text of the failure.
    pub fn failures(&self) -> Vec<(&str, &str)> {
        self.with(|verdict| if let Verdict::Failed(text) = verdict { Some(text.as_str()) } else { None }).collect()
    }

    fn with<'a, T: 'a>(
        &'a self,
        pick: impl Fn(&'a Verdict) -> Option<T> + 'a,
    ) -> impl Iterator<Item = (&'a str, T)> + 'a {
        self.results.iter().filter_map(move |result| Some((result.id, pick(&result.verdict)?)))
    }

    /// Returns the report in JUnit's XML, which CI systems read.
    pub fn to_junit(&self) -> String {
        let failed = self.failed().len();
        let ignored = self.ignored().len();
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <testsuite name=\"keystead-conformance: {}\" tests=\"{}\" failures=\"{failed}\" skipped=\"{ignored}\">\n",
            escaped(&self.store),
            self.results.len(),
        );
        for CaseResult { id, verdict, duration, .. } in &self.results {
            let seconds = duration.as_secs_f64();
            let inner = match verdict {
                Verdict::Passed => String::new(),
                Verdict::Failed(text) => format!("<failure>{}</failure>", escaped(text)),
                Verdict::Ignored(reason) => format!("<skipped message=\"{}\"/>", escaped(reason)),
            };
            xml.push_str(&format!("  <testcase name=\"{id}\" time=\"{seconds:.3}\">{inner}</testcase>\n"));
        }
        xml.push_str("</testsuite>\n");
        xml
    }

    /// Returns the report as JSON, in the form that this crate's documentation shows.
    pub fn to_json(&self) -> String {
        let cases: Vec<Value> = self.results.iter().map(case_to_json).collect();
        let report = json!({
            "suite": "keystead-conformance",
            "version": env!("CARGO_PKG_VERSION"),
            "store": self.store,
            "passed": self.passed().len(),
            "failed": self.failed().len(),
            "ignored": self.ignored().len(),
            "cases": cases,
        });
        format!("{report:#}\n")
    }
}

fn case_to_json(result: &CaseResult) -> Value {
    let (outcome, detail) = match &result.verdict {
        Verdict::Passed => ("passed", None),
        Verdict::Failed(text) => ("failed", Some(text)),
        Verdict::Ignored(reason) => ("ignored", Some(reason)),
    };
    let milliseconds = u64::try_from(result.duration.as_millis()).unwrap_or(u64::MAX);
    json!({
        "id": result.id,
        "sentence": result.sentence,
        "outcome": outcome,
        "detail": detail,
        "duration_ms": milliseconds,
    })
}

/// Escapes text for XML, in content or an attribute (XML 1.0, section 2.4).
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        c if c.is_control() && c != '\n' => "?".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// Shows a line with the counts, then each failure.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = self.passed().len();
        let failed = self.failed().len();
        let ignored = self.ignored().len();
        writeln!(f, "{}: {passed} passed, {failed} failed, {ignored} ignored", self.store)?;
        for (id, text) in self.failures() {
            writeln!(f, "\n{id}\n{text}")?;
        }
        Ok(())
    }
}

//! What the results mean: the table, and whether the run is good.

use std::fmt::Write as _;

use crate::exclusions::Exclusion;
use crate::run::{Outcome, Outcomes};
use crate::suite::FILES;

/// The most that may be excluded, in per cent of the tests.
pub const MOST_EXCLUDED_PERCENT: f64 = 5.0;

/// The results of one file.
#[derive(Debug, Default)]
pub struct FileResult {
    /// Why there are none.
    pub failure: Option<String>,
    /// Tests that std itself ignores on this system.
    pub ignored: usize,
    /// The tests that ran.
    pub tests: Vec<(String, Outcomes)>,
}

/// What was found out.
#[derive(Debug)]
pub struct Report {
    /// For people: table, exclusions, failures with their output.
    pub text: String,
    /// What is wrong, a line each; empty if the run is good.
    pub faults: Vec<String>,
}

/// Judges `files`, which has an entry for each of the suite's files that were asked for.
pub fn judge(files: &[(usize, FileResult)], modes: &[&'static str], exclusions: &[Exclusion]) -> Report {
    let mut text = String::new();
    let mut faults = Vec::new();
    let mut details = String::new();
    let width = FILES.iter().map(|f| f.path.len()).max().unwrap_or(0);
    let _ = write!(text, "{:width$}  {:>5}  {:>7}  {:>8}", "file", "tests", "ignored", "excluded");
    for mode in modes {
        let _ = write!(text, "  {mode:>9}");
    }
    text.push('\n');

    let mut total = Row::new("total", modes);
    for (index, result) in files {
        let path = FILES[*index].path;
        let row = row(path, result, modes, exclusions, &mut faults, &mut details);
        total.add(&row);
        row.show(&mut text, width);
    }
    total.show(&mut text, width);

    let percent = 100.0 * total.excluded as f64 / total.tests.max(1) as f64;
    let _ = writeln!(
        text,
        "excluded: {} of {} tests, {percent:.1} % (at most {MOST_EXCLUDED_PERCENT} %)",
        total.excluded, total.tests
    );
    for e in exclusions.iter().filter(|e| files.iter().any(|(i, _)| FILES[*i].path == e.file)) {
        let _ = writeln!(text, "  {} :: {}\n    {}: {}", e.file, e.test, e.reason.code(), e.why);
    }
    if percent > MOST_EXCLUDED_PERCENT {
        faults.push(format!("{percent:.1} % of the tests are excluded"));
    }
    if total.tests == 0 {
        faults.push("no test ran".to_owned());
    }
    text.push_str(&details);
    Report { text, faults }
}

struct Row {
    name: String,
    tests: usize,
    ignored: usize,
    excluded: usize,
    passed: Vec<usize>,
}

impl Row {
    fn new(name: &str, modes: &[&str]) -> Row {
        Row { name: name.to_owned(), tests: 0, ignored: 0, excluded: 0, passed: vec![0; modes.len()] }
    }

    fn add(&mut self, other: &Row) {
        self.tests += other.tests;
        self.ignored += other.ignored;
        self.excluded += other.excluded;
        for (sum, n) in self.passed.iter_mut().zip(&other.passed) {
            *sum += n;
        }
    }

    fn show(&self, text: &mut String, width: usize) {
        let _ = write!(text, "{:width$}  {:>5}  {:>7}  {:>8}", self.name, self.tests, self.ignored, self.excluded);
        for n in &self.passed {
            let _ = write!(text, "  {:>9}", format!("{n}/{}", self.tests - self.excluded));
        }
        text.push('\n');
    }
}

fn row(
    path: &str,
    result: &FileResult,
    modes: &[&'static str],
    exclusions: &[Exclusion],
    faults: &mut Vec<String>,
    details: &mut String,
) -> Row {
    let mut row = Row::new(path, modes);
    row.ignored = result.ignored;
    if let Some(why) = &result.failure {
        faults.push(format!("{path}: {why}"));
        return row;
    }
    for (name, outcomes) in &result.tests {
        row.tests += 1;
        if exclusions.iter().any(|e| e.file == path && e.test == *name) {
            row.excluded += 1;
            if outcomes.values().all(|o| *o == Outcome::Passed) {
                faults.push(format!("{path} :: {name} is excluded but passes in every mode"));
            }
            continue;
        }
        for (mode, passed) in modes.iter().zip(&mut row.passed) {
            match outcomes.get(mode) {
                Some(Outcome::Passed) => *passed += 1,
                Some(Outcome::Failed(why)) => {
                    faults.push(format!("{path} :: {name} fails in mode {mode}"));
                    let _ = writeln!(details, "\n---- {path} :: {name}, mode {mode}: {}", why.trim_end());
                }
                None => faults.push(format!("{path} :: {name} did not run in mode {mode}")),
            }
        }
    }
    for e in exclusions.iter().filter(|e| e.file == path) {
        if !result.tests.iter().any(|(name, _)| *name == e.test) {
            faults.push(format!("{path} :: {} is excluded but does not exist", e.test));
        }
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exclusions;

    const MODES: &[&str] = &["plain", "task1"];

    fn outcomes(plain: bool, task: bool) -> Outcomes {
        let of = |good| if good { Outcome::Passed } else { Outcome::Failed("said so".into()) };
        [("plain", of(plain)), ("task1", of(task))].into()
    }

    fn judged(tests: &[(&str, Outcomes)], list: &str) -> Report {
        let tests = tests.iter().map(|(name, o)| ((*name).to_owned(), o.clone())).collect();
        let files = [(0, FileResult { failure: None, ignored: 1, tests })];
        judge(&files, MODES, &exclusions::parse(list).unwrap())
    }

    fn excluded(test: &str, reason: &str) -> String {
        format!("{} :: {test} :: {reason} :: A sentence.", FILES[0].path)
    }

    fn many(n: usize) -> Vec<(&'static str, Outcomes)> {
        vec![("good", outcomes(true, true)); n]
    }

    #[test]
    fn all_good() {
        let report = judged(&many(2), "");
        assert_eq!(report.faults, [""; 0]);
        assert!(report.text.contains("2/2"), "{}", report.text);
    }

    #[test]
    fn a_failure_in_one_mode_is_a_fault_and_its_output_is_shown() {
        let report = judged(&[("bad", outcomes(true, false))], "");
        assert_eq!(report.faults, [format!("{} :: bad fails in mode task1", FILES[0].path)]);
        assert!(report.text.contains("1/1") && report.text.contains("0/1") && report.text.contains("said so"));
    }

    #[test]
    fn an_exclusion_must_be_needed_and_exist() {
        let mut tests = many(60);
        tests.push(("odd", outcomes(false, true)));
        let report = judged(&tests, &excluded("odd", "os-thread"));
        assert_eq!(report.faults, [""; 0]);
        assert!(report.text.contains("1 of 61 tests"), "{}", report.text);
        tests[60].1 = outcomes(true, true);
        assert!(judged(&tests, &excluded("odd", "os-thread")).faults[0].contains("passes in every mode"));
        assert!(judged(&tests, &excluded("gone", "os-thread")).faults[0].contains("does not exist"));
    }

    #[test]
    fn too_many_exclusions_and_no_tests_are_faults() {
        let mut tests = many(10);
        tests.push(("odd", outcomes(false, false)));
        assert_eq!(judged(&tests, &excluded("odd", "os-thread")).faults, ["9.1 % of the tests are excluded"]);
        assert_eq!(judged(&[], "").faults, ["no test ran"]);
    }

    #[test]
    fn a_file_without_a_program_is_a_fault() {
        let files = [(0, FileResult { failure: Some("does not compile".into()), ..FileResult::default() })];
        let report = judge(&files, MODES, &[]);
        assert_eq!(report.faults[0], format!("{}: does not compile", FILES[0].path));
    }
}

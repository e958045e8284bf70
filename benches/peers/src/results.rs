//! Results: what is written, one JSON object a line, what is read back, and what follows from it.
//!
//! A line with `"kind": "session"` says when, where, and with which versions; the runs that follow it belong to it. Ratios are
//! taken within a round, because a machine's speed moves between rounds. Must not know: how anything was run, or what it looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::run::cases::{CASES, Case, Metric, OURS, RUNTIMES};

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Measured(BTreeMap<String, f64>),
    /// The runtime has nothing for this, and why.
    Unsupported(String),
    /// It broke, and what it said.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) case: String,
    pub(crate) runtime: String,
    pub(crate) workers: usize,
    pub(crate) round: usize,
    pub(crate) verdict: Verdict,
    pub(crate) wall: f64,
    pub(crate) foreign: f64,
    pub(crate) stolen: f64,
    pub(crate) disturbed: bool,
}

impl Run {
    pub(crate) fn write(&self) -> Value {
        let mut line = json!({
            "kind": "run", "case": self.case, "runtime": self.runtime, "workers": self.workers, "round": self.round,
            "wall_s": self.wall, "foreign_cpus": self.foreign, "stolen_cpus": self.stolen, "disturbed": self.disturbed,
        });
        match &self.verdict {
            Verdict::Measured(metrics) => line["metrics"] = json!(metrics),
            Verdict::Unsupported(why) => line["unsupported"] = json!(why),
            Verdict::Failed(why) => line["failed"] = json!(why),
        }
        line
    }

    fn read(line: &Value) -> Option<Run> {
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        let count = |name: &str| line[name].as_u64().map(|n| n as usize);
        let verdict = match (&line["metrics"], text("unsupported"), text("failed")) {
            (Value::Object(metrics), _, _) => {
                Verdict::Measured(metrics.iter().map(|(k, v)| Some((k.clone(), v.as_f64()?))).collect::<Option<_>>()?)
            }
            (_, Some(why), _) => Verdict::Unsupported(why),
            (_, _, Some(why)) => Verdict::Failed(why),
            _ => return None,
        };
        Some(Run {
            case: text("case")?,
            runtime: text("runtime")?,
            workers: count("workers")?,
            round: count("round")?,
            verdict,
            wall: line["wall_s"].as_f64()?,
            foreign: line["foreign_cpus"].as_f64()?,
            stolen: line["stolen_cpus"].as_f64()?,
            disturbed: line["disturbed"].as_bool()?,
        })
    }
}

/// Median, least and greatest.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// What one runtime has for one metric.
#[derive(Debug, PartialEq)]
pub(crate) enum Cell {
    Measured(Spread),
    Unsupported,
    Failed,
    /// It never ran.
    Absent,
}

/// Ours in relation to the best of the others.
pub(crate) struct Comparison {
    pub(crate) best: &'static str,
    /// Of each round on its own.
    pub(crate) ratio: Spread,
}

/// One metric of a case, for all runtimes with the same number of workers.
pub(crate) struct Row {
    pub(crate) case: &'static Case,
    pub(crate) metric: &'static Metric,
    /// In the order of `RUNTIMES`.
    pub(crate) cells: Vec<Cell>,
    pub(crate) comparison: Option<Comparison>,
}

impl Row {
    pub(crate) fn cell(&self, runtime: &str) -> &Cell {
        let place = RUNTIMES.iter().position(|(name, _)| *name == runtime);
        place.and_then(|i| self.cells.get(i)).unwrap_or(&Cell::Absent)
    }
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) sessions: Vec<Value>,
    /// With the place of its session.
    pub(crate) runs: Vec<(usize, Run)>,
}

impl Results {
    pub(crate) fn read(files: &[impl AsRef<Path>]) -> Result<Results, String> {
        let mut results = Results::default();
        for file in files {
            let name = file.as_ref().display();
            let text = fs::read_to_string(file).map_err(|e| format!("{name}: {e}"))?;
            for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                let wrong = |what: &str| format!("{name}:{}: {what}", number + 1);
                let value: Value = serde_json::from_str(line).map_err(|e| wrong(&e.to_string()))?;
                if value["kind"] == "session" {
                    results.sessions.push(value);
                    continue;
                }
                let session = results.sessions.len().checked_sub(1).ok_or_else(|| wrong("a run before any session"))?;
                let run = Run::read(&value).ok_or_else(|| wrong("neither a session nor a run"))?;
                results.runs.push((session, run));
            }
        }
        Ok(results)
    }

    /// The runs of a runtime in a case.
    fn of(&self, case: &str, runtime: &str, workers: usize) -> impl Iterator<Item = (usize, &Run)> {
        let wanted = move |run: &Run| run.case == case && run.runtime == runtime && run.workers == workers;
        self.runs.iter().filter(move |(_, run)| wanted(run)).map(|(session, run)| (*session, run))
    }

    /// A metric by round, rounds of several sessions being different ones.
    fn values(&self, case: &str, runtime: &str, workers: usize, metric: &str) -> BTreeMap<(usize, usize), f64> {
        let value = |run: &Run| match &run.verdict {
            Verdict::Measured(metrics) => metrics.get(metric).copied(),
            _ => None,
        };
        self.of(case, runtime, workers).filter_map(|(s, run)| Some(((s, run.round), value(run)?))).collect()
    }

    fn cell(&self, case: &str, runtime: &str, workers: usize, metric: &str) -> Cell {
        if let Some(spread) = Spread::of(self.values(case, runtime, workers, metric).into_values()) {
            return Cell::Measured(spread);
        }
        let verdicts: Vec<_> = self.of(case, runtime, workers).map(|(_, run)| &run.verdict).collect();
        match verdicts.last() {
            None => Cell::Absent,
            Some(Verdict::Unsupported(_)) => Cell::Unsupported,
            Some(_) => Cell::Failed,
        }
    }

    /// The best of the others is the one with the lowest median, the same one in every round: the least value of each round would
    /// be a peer that nobody can choose.
    fn compare(&self, case: &str, workers: usize, metric: &str) -> Option<Comparison> {
        let ours = self.values(case, OURS, workers, metric);
        let peers = RUNTIMES.iter().filter(|(name, _)| *name != OURS).filter_map(|(name, label)| {
            let values = self.values(case, name, workers, metric);
            Some((Spread::of(values.values().copied())?.median, *label, values))
        });
        let (_, best, theirs) = peers.min_by(|a, b| a.0.total_cmp(&b.0))?;
        let ratios = ours.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?));
        Some(Comparison { best, ratio: Spread::of(ratios)? })
    }

    /// Everything that ran, with `workers` workers, in the order of the cases.
    pub(crate) fn rows(&self, workers: usize) -> Vec<Row> {
        let ran: BTreeSet<&str> =
            self.runs.iter().filter(|(_, run)| run.workers == workers).map(|(_, run)| run.case.as_str()).collect();
        let cases = CASES.iter().filter(|case| ran.contains(case.name));
        let row = |case: &'static Case, metric: &'static Metric| Row {
            case,
            metric,
            cells: RUNTIMES.iter().map(|(name, _)| self.cell(case.name, name, workers, metric.name)).collect(),
            comparison: metric.ranked.then(|| self.compare(case.name, workers, metric.name)).flatten(),
        };
        cases.flat_map(|case| case.metrics.iter().map(move |metric| row(case, metric))).collect()
    }

    /// What did not run, each once: runtime, what, and why. Unsupported first.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let label =
            |name: &str| RUNTIMES.iter().find(|(n, _)| *n == name).map_or(name.to_owned(), |(_, l)| (*l).to_owned());
        let mut missing = BTreeSet::new();
        let mut unsupported = BTreeSet::new();
        let mut failed = BTreeSet::new();
        for (name, why) in self.sessions.iter().filter_map(|s| s["skipped"].as_object()).flatten() {
            missing.insert(format!("{}: SKIPPED, {}", label(name), why.as_str().unwrap_or_default()));
        }
        for (_, run) in &self.runs {
            let (runtime, case, workers) = (label(&run.runtime), &run.case, run.workers);
            match &run.verdict {
                Verdict::Measured(_) => {}
                Verdict::Unsupported(why) => drop(unsupported.insert(format!("{runtime}: {why} ({case})"))),
                Verdict::Failed(why) => {
                    let s = if workers == 1 { "" } else { "s" };
                    failed.insert(format!("{runtime}: {case} with {workers} worker{s} failed: {why}"));
                }
            }
        }
        [missing, unsupported, failed].into_iter().flatten().collect()
    }

    /// How many runs were disturbed, of how many, and how many CPUs others used in the middle one.
    pub(crate) fn disturbance(&self) -> (usize, usize, f64) {
        let disturbed = self.runs.iter().filter(|(_, run)| run.disturbed).count();
        let foreign = Spread::of(self.runs.iter().map(|(_, run)| run.foreign + run.stolen));
        (disturbed, self.runs.len(), foreign.map_or(0.0, |spread| spread.median))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{Cell, Results, Run, Spread, Verdict};

    /// A run of the case `yield.2` that took so many nanoseconds.
    pub(crate) fn run(runtime: &str, round: usize, ns: f64) -> (usize, Run) {
        let verdict = Verdict::Measured(BTreeMap::from([("ns_per_yield".to_owned(), ns)]));
        let run = Run {
            case: "yield.2".to_owned(),
            runtime: runtime.to_owned(),
            workers: 1,
            round,
            verdict,
            wall: 1.0,
            foreign: 0.0,
            stolen: 0.0,
            disturbed: false,
        };
        (0, run)
    }

    #[test]
    fn what_was_written_is_read() {
        let (_, measured) = run("coro", 3, 12.5);
        let unsupported = Run { verdict: Verdict::Unsupported("no lock".into()), ..measured.clone() };
        let failed = Run { verdict: Verdict::Failed("it \"broke\"".into()), ..measured.clone() };
        for run in [measured, unsupported, failed] {
            let line = run.write().to_string();
            assert!(!line.contains('\n'));
            assert_eq!(Run::read(&serde_json::from_str(&line).unwrap()), Some(run));
        }
    }

    #[test]
    fn the_ratio_is_that_of_each_round_to_the_peer_with_the_lowest_median() {
        // Between the rounds the machine becomes half as fast. smol has the least value of all, and loses by its median.
        let mut results = Results::default();
        for (round, (coro, tokio, smol)) in
            [(10.0, 20.0, 15.0), (20.0, 40.0, 80.0), (30.0, 40.0, 80.0)].into_iter().enumerate()
        {
            results.runs.extend([run("coro", round, coro), run("tokio", round, tokio), run("smol", round, smol)]);
        }
        let rows = results.rows(1);
        let [row] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        let comparison = row.comparison.as_ref().unwrap();
        assert_eq!(comparison.best, "tokio");
        assert_eq!(comparison.ratio, Spread { median: 0.5, min: 0.5, max: 0.75 });
        assert_eq!(*row.cell("coro"), Cell::Measured(Spread { median: 20.0, min: 10.0, max: 30.0 }));
        assert_eq!(*row.cell("may"), Cell::Absent);
        assert!(results.rows(2).is_empty());
    }

    #[test]
    fn an_even_number_of_values_has_its_median_in_the_middle() {
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn what_has_no_figures_says_why() {
        let mut results = Results::default();
        let (_, mut broken) = run("may", 0, 1.0);
        broken.verdict = Verdict::Failed("no memory (signal: 6)".into());
        let (_, mut without) = run("go", 0, 1.0);
        without.verdict = Verdict::Unsupported("no unbounded channel".into());
        results.sessions.push(serde_json::json!({ "skipped": { "smol": "not installed" } }));
        results.runs.extend([(0, broken), (0, without)]);
        let rows = results.rows(1);
        assert_eq!((rows[0].cell("may"), rows[0].cell("go")), (&Cell::Failed, &Cell::Unsupported));
        assert_eq!(
            results.left_out(),
            [
                "smol: SKIPPED, not installed",
                "Go: no unbounded channel (yield.2)",
                "may: yield.2 with 1 worker failed: no memory (signal: 6)"
            ]
        );
    }
}

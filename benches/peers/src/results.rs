//! Results: what is written, one JSON object a line, what is read back, and what follows from it.
//!
//! A line with `"kind": "session"` says when, where, and with which versions; the runs that follow it belong to it. Ratios are
//! taken within a round, because a machine's speed moves between rounds. Must not know: how anything was run, or what it looks like.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::run::cases::{Against, Better, CASES, Case, Metric, Wanted};
use crate::run::runtimes::{Kind, OURS, RUNTIMES, Runtime, label};
use crate::stats::{Estimate, Spread};

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

/// What one runtime has for one metric.
#[derive(Debug, PartialEq)]
pub(crate) enum Cell {
    Measured(Spread),
    Unsupported,
    Failed,
    /// It never ran.
    Absent,
}

/// Ours in relation to one of the others.
pub(crate) struct Comparison {
    /// Its name.
    pub(crate) with: &'static str,
    /// Of each round on its own.
    pub(crate) ratio: Estimate,
}

/// Whether ours is as it is wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Met {
    Yes,
    No,
    /// The interval holds what is wanted: more rounds would tell.
    Open,
    /// Ours did not run, or not what it is held against.
    NotMeasured,
}

impl Met {
    fn new(found: Option<Estimate>, wanted: f64, better: Better) -> Met {
        match (found, better) {
            (None, _) => Met::NotMeasured,
            (Some(e), Better::More) if e.low >= wanted => Met::Yes,
            (Some(e), Better::More) if e.high < wanted => Met::No,
            (Some(e), Better::Less) if e.high <= wanted => Met::Yes,
            (Some(e), Better::Less) if e.low > wanted => Met::No,
            _ => Met::Open,
        }
    }
}

/// One metric of a case, for all runtimes with the same number of workers.
pub(crate) struct Row {
    pub(crate) case: &'static Case,
    pub(crate) metric: &'static Metric,
    /// In the order of `RUNTIMES`.
    pub(crate) cells: Vec<Cell>,
    pub(crate) comparison: Option<Comparison>,
    pub(crate) wanted: Option<(Wanted, Met)>,
}

impl Row {
    pub(crate) fn cell(&self, runtime: &str) -> &Cell {
        let place = RUNTIMES.iter().position(|r| r.name == runtime);
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

    fn estimate(&self, case: &str, workers: usize, metric: &str) -> Option<Estimate> {
        Estimate::of(self.values(case, OURS, workers, metric).into_values())
    }

    /// The best of the others is the one with the best median, the same one in every round: the best value of each round would
    /// be a peer that nobody can choose.
    fn compare(&self, case: &str, workers: usize, metric: &Metric, against: Against) -> Option<Comparison> {
        let may_be = |runtime: &&Runtime| match against {
            Against::Nobody => false,
            Against::Best => runtime.kind.is_peer(),
            Against::BestShared => runtime.kind == Kind::Shared,
            Against::This(name) => runtime.name == name,
        };
        let medians = RUNTIMES.iter().filter(may_be).filter_map(|runtime| {
            let values = self.values(case, runtime.name, workers, metric.name);
            Some((Spread::of(values.values().copied())?.median, runtime.name, values))
        });
        let (_, with, theirs) = match metric.better {
            Better::More => medians.max_by(|a, b| a.0.total_cmp(&b.0)),
            Better::Less | Better::Neither => medians.min_by(|a, b| a.0.total_cmp(&b.0)),
        }?;
        let ours = self.values(case, OURS, workers, metric.name);
        let ratios = ours.iter().filter_map(|(round, value)| Some(value / theirs.get(round)?));
        Some(Comparison { with, ratio: Estimate::of(ratios)? })
    }

    fn row(&self, case: &'static Case, metric: &'static Metric, workers: usize) -> Row {
        let against = case.against(metric, workers);
        let asked_for = self.compare(case.name, workers, metric, against);
        let wanted = case.wanted(metric, workers);
        let met = match wanted {
            Wanted::Nothing => None,
            Wanted::Times(factor) => Some(Met::new(asked_for.as_ref().map(|c| c.ratio), factor, metric.better)),
            Wanted::Value(value) => {
                Some(Met::new(self.estimate(case.name, workers, metric.name), value, metric.better))
            }
        };
        // If that one is not here, the best of those that are says something, though not whether it is as wanted.
        let others = if against == Against::Nobody { Against::Nobody } else { Against::Best };
        let comparison = asked_for.or_else(|| self.compare(case.name, workers, metric, others));
        Row {
            case,
            metric,
            cells: RUNTIMES.iter().map(|r| self.cell(case.name, r.name, workers, metric.name)).collect(),
            comparison,
            wanted: met.map(|met| (wanted, met)),
        }
    }

    /// Everything that ran, with `workers` workers, in the order of the cases. What no runtime was measured for is left out, unless
    /// nothing else of its case would remain.
    pub(crate) fn rows(&self, workers: usize) -> Vec<Row> {
        let ran: BTreeSet<&str> =
            self.runs.iter().filter(|(_, run)| run.workers == workers).map(|(_, run)| run.case.as_str()).collect();
        let cases = CASES.iter().filter(|case| ran.contains(case.name));
        let rows = cases.flat_map(|case| {
            let all: Vec<Row> = case.metrics.iter().map(|metric| self.row(case, metric, workers)).collect();
            let measured = |row: &Row| row.cells.iter().any(|cell| matches!(cell, Cell::Measured(_)));
            let any = all.iter().any(measured);
            all.into_iter().enumerate().filter(move |(i, row)| measured(row) || (!any && *i == 0)).map(|(_, row)| row)
        });
        rows.collect()
    }

    /// What did not run, each once: runtime, why, and in which cases. Unsupported first.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut missing = BTreeSet::new();
        // By runtime and reason, the cases in the order in which they ran.
        let mut unsupported: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        let mut failed: BTreeMap<(&str, &str), Vec<String>> = BTreeMap::new();
        for session in &self.sessions {
            for (name, why) in session["skipped"].as_object().into_iter().flatten() {
                missing.insert(format!("{}: SKIPPED, {}", label(name), why.as_str().unwrap_or_default()));
            }
            for (what, why) in session["uncounted"].as_object().into_iter().flatten() {
                missing.insert(format!("No {what}: {}", why.as_str().unwrap_or_default()));
            }
        }
        for (_, run) in &self.runs {
            let (runtime, case, workers) = (label(&run.runtime), run.case.as_str(), run.workers);
            match &run.verdict {
                Verdict::Measured(_) => {}
                Verdict::Unsupported(why) => once(unsupported.entry((runtime, why)).or_default(), case),
                Verdict::Failed(why) => {
                    let s = if workers == 1 { "" } else { "s" };
                    once(failed.entry((runtime, why)).or_default(), format!("{case} with {workers} worker{s}"));
                }
            }
        }
        let unsupported =
            unsupported.into_iter().map(|((who, why), cases)| format!("{who}: {why} ({})", cases.join(", ")));
        let failed = failed.into_iter().map(|((who, why), cases)| format!("{who}: {} failed: {why}", cases.join(", ")));
        missing.into_iter().chain(unsupported).chain(failed).collect()
    }

    /// How many runs were disturbed, of how many, and how many CPUs others used in the middle one.
    pub(crate) fn disturbance(&self) -> (usize, usize, f64) {
        let disturbed = self.runs.iter().filter(|(_, run)| run.disturbed).count();
        let foreign = Spread::of(self.runs.iter().map(|(_, run)| run.foreign + run.stolen));
        (disturbed, self.runs.len(), foreign.map_or(0.0, |spread| spread.median))
    }
}

fn once<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{Cell, Met, Results, Run, Verdict};
    use crate::run::cases::{Better, Wanted};
    use crate::stats::{Estimate, Spread};

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
            for (runtime, ns) in [("coro", coro), ("tokio", tokio), ("smol", smol)] {
                let (session, mut run) = run(runtime, round, 0.0);
                run.case = "pingpong.bounded".to_owned();
                run.verdict = Verdict::Measured([("ns_per_round_trip".to_owned(), ns)].into());
                results.runs.push((session, run));
            }
        }
        let rows = results.rows(1);
        let [row] = rows.as_slice() else { panic!("{} rows", rows.len()) };
        let comparison = row.comparison.as_ref().unwrap();
        assert_eq!(comparison.with, "tokio");
        assert_eq!(comparison.ratio, Estimate { median: 0.5, low: 0.5, high: 0.75 });
        assert_eq!(*row.cell("coro"), Cell::Measured(Spread { median: 20.0, min: 10.0, max: 30.0 }));
        assert_eq!(*row.cell("may"), Cell::Absent);
        assert!(results.rows(2).is_empty());
    }

    #[test]
    fn what_is_wanted_is_met_if_the_whole_interval_meets_it() {
        let found = Some(Estimate { median: 0.7, low: 0.6, high: 0.8 });
        let less = [0.59, 0.6, 0.79, 0.8].map(|wanted| Met::new(found, wanted, Better::Less));
        assert_eq!(less, [Met::No, Met::Open, Met::Open, Met::Yes]);
        let more = [0.6, 0.61, 0.8, 0.81].map(|wanted| Met::new(found, wanted, Better::More));
        assert_eq!(more, [Met::Yes, Met::Open, Met::Open, Met::No]);
        assert_eq!(Met::new(None, 1.0, Better::Less), Met::NotMeasured);
    }

    /// Ours is held against the loop, which is no peer; requests are only told; and what nobody counted has no row.
    #[test]
    fn servers_are_held_against_the_bare_loop() {
        let mut results = Results::default();
        for (runtime, cpu) in [("coro", 6.0), ("bare", 5.0), ("tokio", 5.5)] {
            let metrics = [("cpu_us_per_req", cpu), ("p99_us", cpu * 100.0), ("req_per_s", 1e6 / cpu)];
            let (session, mut run) = run(runtime, 0, 0.0);
            run.case = "echo.100".to_owned();
            run.verdict = Verdict::Measured(metrics.map(|(name, value)| (name.to_owned(), value)).into());
            results.runs.push((session, run));
        }
        let rows = results.rows(1);
        let units: Vec<_> = rows.iter().map(|row| row.metric.unit).collect();
        assert_eq!(units, ["µs of CPU", "µs, p99", "requests/s"]);
        assert_eq!(rows[0].comparison.as_ref().unwrap().with, "bare");
        assert_eq!(rows[0].wanted, Some((Wanted::Times(1.02), Met::No)));
        assert!(rows[2].comparison.is_none() && rows[1].wanted.is_none());
    }

    /// A channel that knows one thread is the best of all, and not the best of those that ours can be held against.
    #[test]
    fn what_tasks_share_is_held_against_those_whose_tasks_may_move() {
        let mut results = Results::default();
        for (case, metric) in [("fanin.bounded", "ns_per_msg"), ("pingpong.bounded", "ns_per_round_trip")] {
            for (runtime, ns) in [("coro", 20.0), ("monoio", 10.0), ("go", 25.0)] {
                let (session, mut run) = run(runtime, 0, 0.0);
                run.case = case.to_owned();
                run.verdict = Verdict::Measured([(metric.to_owned(), ns)].into());
                results.runs.push((session, run));
            }
        }
        let with: Vec<_> = results.rows(1).iter().map(|row| row.comparison.as_ref().unwrap().with).collect();
        // In the order of the cases: a ping-pong is held against all.
        assert_eq!(with, ["monoio", "go"]);
    }

    /// glommio is not here: then the best of the others is shown, of which bare is none, and what is wanted stays unanswered. With two
    /// workers nothing is wanted, and the best is shown as well.
    #[test]
    fn without_the_one_that_is_asked_for_ours_is_held_against_the_best() {
        let mut results = Results::default();
        for workers in [1, 2] {
            for (runtime, ns) in [("coro", 10.0), ("bare", 5.0), ("tokio", 40.0), ("may", 20.0)] {
                let (session, mut run) = run(runtime, 0, ns);
                run.workers = workers;
                results.runs.push((session, run));
            }
            let rows = results.rows(workers);
            assert_eq!(rows[0].comparison.as_ref().unwrap().with, "may");
            let wanted = (workers == 1).then_some((Wanted::Times(0.7), Met::NotMeasured));
            assert_eq!(rows[0].wanted, wanted);
        }
    }

    #[test]
    fn what_has_no_figures_says_why() {
        let mut results = Results::default();
        let (_, mut broken) = run("may", 0, 1.0);
        broken.verdict = Verdict::Failed("no memory (signal: 6)".into());
        let (_, mut without) = run("go", 0, 1.0);
        without.verdict = Verdict::Unsupported("no unbounded channel".into());
        results.sessions.push(serde_json::json!({
            "skipped": { "smol": "not installed" }, "uncounted": { "system calls": "perf is not installed" },
        }));
        let mut again = broken.clone();
        again.workers = 2;
        results.runs.extend([(0, broken), (0, without), (0, again)]);
        let rows = results.rows(1);
        assert_eq!((rows[0].cell("may"), rows[0].cell("go")), (&Cell::Failed, &Cell::Unsupported));
        assert_eq!(
            results.left_out(),
            [
                "No system calls: perf is not installed",
                "smol: SKIPPED, not installed",
                "Go: no unbounded channel (yield.2)",
                "may: yield.2 with 1 worker, yield.2 with 2 workers failed: no memory (signal: 6)"
            ]
        );
    }
}

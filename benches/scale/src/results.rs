//! Results: what is written, one JSON object a line, what is read back, and what follows from it.
//!
//! Must not know: how anything was run, or what it looks like.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::cases::{CONNECTIONS, Case, Part, STEP, TASKS, WORKERS};
use crate::tasks::OPERATIONS;

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    Measured(BTreeMap<String, f64>),
    /// This machine does not allow it, and why.
    Unsupported(String),
    /// It broke, and what it said.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Run {
    pub(crate) case: Case,
    pub(crate) round: usize,
    pub(crate) verdict: Verdict,
    pub(crate) wall: f64,
    pub(crate) foreign: f64,
    pub(crate) stolen: f64,
    pub(crate) disturbed: bool,
}

/// To the thousandth.
fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3
}

impl Run {
    pub(crate) fn write(&self) -> Value {
        let mut line = json!({
            "kind": "run", "part": self.case.part.name(), "at": self.case.at, "workers": self.case.workers,
            "round": self.round, "wall_s": rounded(self.wall), "foreign_cpus": rounded(self.foreign),
            "stolen_cpus": rounded(self.stolen), "disturbed": self.disturbed,
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
        let part = Part::ALL.into_iter().find(|part| line["part"] == part.name())?;
        Some(Run {
            case: Case { part, workers: count("workers")?, at: text("at")? },
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

/// What one operation costs, by the number of tasks or connections, in nanoseconds of CPU time.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) workers: usize,
    pub(crate) points: Vec<(usize, Spread)>,
}

/// A tenfold number that costs clearly more for each operation.
#[derive(Debug, PartialEq)]
pub(crate) struct Step {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) factor: f64,
}

impl Curve {
    /// How much more each point costs than the one before it.
    pub(crate) fn steps(&self) -> impl Iterator<Item = Step> {
        self.points.windows(2).map(|pair| {
            let [(from, before), (to, after)] = [pair[0], pair[1]];
            Step { from, to, factor: after.median / before.median }
        })
    }

    pub(crate) fn cliffs(&self) -> Vec<Step> {
        self.steps().filter(|step| step.factor > STEP).collect()
    }
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) sessions: Vec<Value>,
    pub(crate) runs: Vec<Run>,
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
                } else {
                    results.runs.push(Run::read(&value).ok_or_else(|| wrong("neither a session nor a run"))?);
                }
            }
        }
        Ok(results)
    }

    /// A metric of a case, over the rounds.
    pub(crate) fn spread(&self, case: &Case, metric: &str) -> Option<Spread> {
        let value = |run: &Run| match &run.verdict {
            Verdict::Measured(metrics) => metrics.get(metric).copied(),
            _ => None,
        };
        Spread::of(self.runs.iter().filter(|run| run.case == *case).filter_map(value))
    }

    fn curve(&self, part: Part, name: &'static str, what: &'static str, workers: usize) -> Option<Curve> {
        let counts = if part == Part::Echo { CONNECTIONS } else { TASKS };
        let metric = format!("{name}.cpu_ns");
        let point = |n: usize| Some((n, self.spread(&Case { part, workers, at: n.to_string() }, &metric)?));
        let points: Vec<_> = counts.into_iter().filter_map(point).collect();
        (!points.is_empty()).then_some(Curve { name, what, workers, points })
    }

    /// All curves, those of one operation after each other.
    pub(crate) fn curves(&self) -> Vec<Curve> {
        let tasks = OPERATIONS.iter().map(|(name, what)| (Part::Tasks, *name, *what));
        let all = tasks.chain([(Part::Echo, "echo", "TCP echo, 64 bytes")]);
        all.flat_map(|(part, name, what)| WORKERS.map(|workers| self.curve(part, name, what, workers)))
            .flatten()
            .collect()
    }

    /// How many runs were disturbed, of how many, and how many CPUs others used in the middle one.
    pub(crate) fn disturbance(&self) -> (usize, usize, f64) {
        let disturbed = self.runs.iter().filter(|run| run.disturbed).count();
        let foreign = Spread::of(self.runs.iter().map(|run| run.foreign + run.stolen));
        (disturbed, self.runs.len(), foreign.map_or(0.0, |spread| spread.median))
    }

    /// What has no figures, each once, and why.
    pub(crate) fn left_out(&self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for run in &self.runs {
            let (word, why) = match &run.verdict {
                Verdict::Measured(_) => continue,
                Verdict::Unsupported(why) => ("SKIPPED", why),
                Verdict::Failed(why) => ("FAILED", why),
            };
            let case = &run.case;
            let line = format!("{} {}, {} workers: {word}, {why}", case.part.name(), case.at, case.workers);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::{Results, Run, Spread, Step, Verdict};
    use crate::cases::{Case, Part};

    /// A yield with so many tasks that took so many nanoseconds.
    pub(crate) fn run(n: usize, round: usize, ns: f64) -> Run {
        Run {
            case: Case { part: Part::Tasks, workers: 1, at: n.to_string() },
            round,
            verdict: Verdict::Measured(BTreeMap::from([("yield.cpu_ns".to_owned(), ns)])),
            wall: 1.0,
            foreign: 0.0,
            stolen: 0.0,
            disturbed: false,
        }
    }

    #[test]
    fn what_was_written_is_read() {
        let measured = run(100, 3, 12.5);
        let unsupported = Run { verdict: Verdict::Unsupported("no memory".into()), ..measured.clone() };
        let failed = Run { verdict: Verdict::Failed("it \"broke\"".into()), ..measured.clone() };
        for run in [measured, unsupported, failed] {
            let line = run.write().to_string();
            assert!(!line.contains('\n'));
            assert_eq!(Run::read(&serde_json::from_str(&line).unwrap()), Some(run));
        }
    }

    #[test]
    fn a_step_is_that_of_the_medians() {
        let runs = [(100, 10.0), (100, 12.0), (100, 90.0), (1000, 20.0), (1000, 24.0), (1000, 25.0), (10_000, 49.0)];
        let runs = runs.into_iter().enumerate().map(|(round, (n, ns))| run(n, round, ns)).collect();
        let results = Results { runs, ..Results::default() };
        let curves = results.curves();
        let [curve] = curves.as_slice() else { panic!("{} curves", curves.len()) };
        assert_eq!(curve.points[0], (100, Spread { median: 12.0, min: 10.0, max: 90.0 }));
        assert_eq!(curve.steps().next(), Some(Step { from: 100, to: 1000, factor: 2.0 }));
        let cliffs = curve.cliffs();
        assert!(cliffs.len() == 1 && cliffs[0].from == 1000 && cliffs[0].to == 10_000, "{cliffs:?}");
    }

    #[test]
    fn what_has_no_figures_says_why() {
        let mut broken = run(100, 0, 1.0);
        broken.verdict = Verdict::Failed("no memory (signal: 6)".into());
        let results = Results { runs: vec![broken.clone(), broken], ..Results::default() };
        assert!(results.curves().is_empty());
        assert_eq!(results.left_out(), ["tasks 100, 1 workers: FAILED, no memory (signal: 6)"]);
    }
}

//! The results as tables in Markdown, and their place in a page.

use std::fmt::Write;

use serde_json::Value;

use crate::cases::{BURST, CONNECTIONS, Case, Part, STEP, TASKS, grouped};
use crate::fair::{LOADS, SELFISH};
use crate::results::{Curve, Results, Spread, Verdict};

/// What stands between these lines of a page is made here.
const BEGIN: &str = "<!-- benches/scale: begin -->";
const END: &str = "<!-- benches/scale: end -->";

/// Three digits, or all in front of the point, thousands apart.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        v if v < 9.995 => format!("{value:.2}"),
        v if v < 99.95 => format!("{value:.1}"),
        _ => grouped(value.round().max(0.0) as usize),
    }
}

fn spread(s: Spread) -> String {
    if s.min == s.max {
        figure(s.median)
    } else {
        format!("{} [{}..{}]", figure(s.median), figure(s.min), figure(s.max))
    }
}

/// When, where, how often.
pub(crate) fn heads(results: &Results) -> Vec<String> {
    let head = |session: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
        let machine = &session["machine"];
        let date = text(&session["started"]);
        let cpu = text(&machine["cpu"]);
        let short = cpu.split(" Processor").next().unwrap_or(&cpu);
        format!(
            "{}, {} rounds{}: {short}, {} CPUs{}, Linux {}",
            date.get(..10).unwrap_or(&date),
            session["rounds"],
            if session["quick"] == true { " (short runs, worth nothing)" } else { "" },
            machine["cpus"],
            if machine["virtual"] == true { ", virtual" } else { "" },
            text(&machine["kernel"]),
        )
    };
    let mut heads: Vec<String> = results.sessions.iter().map(head).collect();
    heads.dedup();
    heads
}

fn workers(n: usize) -> String {
    if n == 1 { "1 worker".to_owned() } else { format!("{n} workers") }
}

/// Whether there are figures of a part at all.
fn has(results: &Results, part: Part) -> bool {
    results.runs.iter().any(|run| run.case.part == part && matches!(run.verdict, Verdict::Measured(_)))
}

fn curves(page: &mut String, curves: &[&Curve], counts: &[usize], unit: f64) {
    let mut before = "";
    for curve in curves {
        let what = if curve.what == before { "" } else { curve.what };
        before = curve.what;
        let _ = write!(page, "| {what} | {} |", curve.workers);
        for n in counts {
            let point = curve.points.iter().find(|(at, _)| at == n);
            let scaled = |s: &Spread| Spread { median: s.median / unit, min: s.min / unit, max: s.max / unit };
            let _ = write!(page, " {} |", point.map(|(_, s)| spread(scaled(s))).unwrap_or_default());
        }
        let worst = curve.steps().max_by(|a, b| a.factor.total_cmp(&b.factor));
        let _ = writeln!(page, " {} |", worst.map(|step| figure(step.factor)).unwrap_or_default());
    }
}

fn head_of_counts(page: &mut String, title: &str, counts: &[usize]) {
    let _ = write!(page, "\n**{title}**\n\n| | workers |");
    for n in counts {
        let _ = write!(page, " {} |", grouped(*n));
    }
    let _ = writeln!(page, " greatest step |\n|---|---|{}---|", "---|".repeat(counts.len()));
}

/// Of more workers than there are CPUs the kernel's turns are measured as well: those are not told of.
fn cliffs(page: &mut String, curves: &[Curve], cpus: usize) {
    let _ = writeln!(
        page,
        "\nTenfold numbers that cost more than {STEP} times as much for each operation, with a CPU for each worker:\n"
    );
    let mut none = true;
    for curve in curves.iter().filter(|curve| curve.workers <= cpus) {
        for step in curve.cliffs() {
            none = false;
            let (from, to) = (grouped(step.from), grouped(step.to));
            let _ = writeln!(
                page,
                "* {}, {}, from {from} to {to}: {} times",
                curve.what,
                workers(curve.workers),
                figure(step.factor)
            );
        }
    }
    if none {
        page.push_str("* none\n");
    }
}

fn memory(page: &mut String, results: &Results) {
    let _ = writeln!(
        page,
        "\n**After a burst of {} tasks that all existed at once**, MiB of memory and page tables\n\n\
         | | with all of them | above the start, when the last was joined | below 64 MiB above the start, after s | above the start, 10 s later |\n\
         |---|---|---|---|---|",
        grouped(BURST)
    );
    for n in [1, 2] {
        let case = Case { part: Part::Memory, workers: n, at: BURST.to_string() };
        let value = |metric: &str| results.spread(&case, metric).map(spread).unwrap_or_default();
        let [peak, end, after, left] = ["peak_mib", "at_end_mib", "below_after_s", "left_mib"].map(value);
        let _ = writeln!(page, "| {} | {peak} | {end} | {after} | {left} |", workers(n));
    }
}

/// The medians of several metrics, for a table's row.
fn cells(results: &Results, case: &Case, metrics: &[&str]) -> String {
    let cell = |metric: &&str| results.spread(case, metric).map(|s| figure(s.median)).unwrap_or_default();
    metrics.iter().map(cell).collect::<Vec<_>>().join(" | ")
}

fn fairness(page: &mut String, results: &Results) {
    page.push_str(
        "\n**Beside a task that never has to wait**, on one worker: how late a sleep of 1 ms ends, and how long a task that yields waits for its \
         next turn, µs (medians of the rounds; the greatest of all rounds)\n\n\
         | the task | late p50 | p99 | p99.9 | greatest | turn p50 | p99 | p99.9 | greatest |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    for (name, what) in SELFISH {
        let case = Case { part: Part::Fairness, workers: 1, at: name.to_owned() };
        let greatest = |metric: &str| results.spread(&case, metric).map(|s| figure(s.max)).unwrap_or_default();
        let _ = writeln!(
            page,
            "| {what} | {} | {} | {} | {} |",
            cells(results, &case, &["tick.p50_us", "tick.p99_us", "tick.p999_us"]),
            greatest("tick.max_us"),
            cells(results, &case, &["turn.p50_us", "turn.p99_us", "turn.p999_us"]),
            greatest("turn.max_us"),
        );
    }
}

fn lateness(page: &mut String, results: &Results) {
    page.push_str(
        "\n**A hundred sleepers of 1 to 20 ms on workers that are full**, µs late (medians of the rounds; the greatest of all rounds)\n\n\
         | every worker has | workers | p50 | p99 | p99.9 | greatest |\n|---|---|---|---|---|---|\n",
    );
    for (name, what) in LOADS {
        for workers in [1, 2] {
            let case = Case { part: Part::Lateness, workers, at: name.to_owned() };
            let greatest = results.spread(&case, "late.max_us").map(|s| figure(s.max)).unwrap_or_default();
            let cells = cells(results, &case, &["late.p50_us", "late.p99_us", "late.p999_us"]);
            let _ = writeln!(page, "| {what} | {workers} | {cells} | {greatest} |");
        }
    }
}

/// Head, tables, and what is missing in them.
pub(crate) fn markdown(results: &Results) -> String {
    let mut page = String::new();
    for head in heads(results) {
        let _ = writeln!(page, "{head}.");
    }
    let (disturbed, runs, foreign) = results.disturbance();
    let _ = writeln!(
        page,
        "\nMedian [least..greatest] of the rounds; other programs used {foreign:.2} CPUs (median of the runs); {disturbed} of {runs} runs were \
         disturbed."
    );
    let all = results.curves();
    let (echo, tasks): (Vec<&Curve>, Vec<&Curve>) = all.iter().partition(|curve| curve.name == "echo");
    if !tasks.is_empty() {
        head_of_counts(&mut page, "ns of CPU for each operation, by the number of tasks", &TASKS);
        curves(&mut page, &tasks, &TASKS, 1.0);
    }
    if !echo.is_empty() {
        head_of_counts(
            &mut page,
            "µs of the server's CPU for each request, by the number of connections",
            &CONNECTIONS,
        );
        curves(&mut page, &echo, &CONNECTIONS, 1000.0);
    }
    if !all.is_empty() {
        let cpus = results.sessions.iter().filter_map(|session| session["machine"]["cpus"].as_u64()).min();
        cliffs(&mut page, &all, cpus.map_or(usize::MAX, |n| n as usize));
    }
    if has(results, Part::Memory) {
        memory(&mut page, results);
    }
    if has(results, Part::Fairness) {
        fairness(&mut page, results);
    }
    if has(results, Part::Lateness) {
        lateness(&mut page, results);
    }
    let left_out = results.left_out();
    if !left_out.is_empty() {
        page.push('\n');
        for line in left_out {
            let _ = writeln!(page, "* {line}");
        }
    }
    page
}

/// The page with new tables between its two marks.
pub(crate) fn put_into(page: &str, tables: &str) -> Result<String, String> {
    let between = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n{tables}{END}{after}"))
    };
    between().ok_or_else(|| format!("there is no {BEGIN} with an {END} after it"))
}

#[cfg(test)]
mod tests {
    use super::{figure, markdown, put_into};
    use crate::results::Results;
    use crate::results::tests::run;

    #[test]
    fn figures_have_three_digits_and_groups() {
        assert_eq!([1.234, 12.34, 123.4, 12_345.6].map(figure), ["1.23", "12.3", "123", "12,346"]);
    }

    #[test]
    fn the_table_shows_what_was_measured_and_names_what_is_steep() {
        let results =
            Results { runs: vec![run(100, 0, 10.0), run(100, 1, 14.0), run(1000, 0, 48.0)], ..Results::default() };
        assert_eq!(
            markdown(&results),
            "
Median [least..greatest] of the rounds; other programs used 0.00 CPUs (median of the runs); 0 of 3 runs were disturbed.

**ns of CPU for each operation, by the number of tasks**

| | workers | 100 | 1,000 | 10,000 | 100,000 | 1,000,000 | greatest step |
|---|---|---|---|---|---|---|---|
| yield | 1 | 12.0 [10.0..14.0] | 48.0 |  |  |  | 4.00 |

Tenfold numbers that cost more than 2 times as much for each operation, with a CPU for each worker:

* yield, 1 worker, from 100 to 1,000: 4.00 times
"
        );
    }

    #[test]
    fn tables_replace_those_before() {
        let page = "head\n<!-- benches/scale: begin -->\nold\n<!-- benches/scale: end -->\nfoot\n";
        let new = "head\n<!-- benches/scale: begin -->\nnew\n<!-- benches/scale: end -->\nfoot\n";
        assert_eq!(put_into(page, "new\n").as_deref(), Ok(new));
        assert!(put_into("head\nfoot\n", "new\n").is_err());
    }
}

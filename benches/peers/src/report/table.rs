//! The results as tables in Markdown, one for each kind of work, and their place in a page.

use std::fmt::Write;

use super::{disturbance, figure, machine, ratio, versions, wanted};
use crate::results::{Cell, Results, Row};
use crate::run::cases::GROUPS;
use crate::run::runtimes::{Kind, RUNTIMES, Runtime};

/// What stands between these lines of a page is made here.
pub(crate) const BEGIN: &str = "<!-- benches/peers: begin -->";
pub(crate) const END: &str = "<!-- benches/peers: end -->";

/// Head, tables, and what is missing in them.
pub(crate) fn markdown(results: &Results) -> String {
    let mut page = String::new();
    for session in &results.sessions {
        let date = session["started"].as_str().unwrap_or("?");
        let rounds = session["rounds"].as_str().unwrap_or("?");
        let quick = if session["quick"] == true { ", **short runs, worth nothing**" } else { "" };
        let date = date.get(..10).unwrap_or(date);
        let _ = writeln!(page, "{date}, {rounds}{quick}: {}. {}.", machine(session), versions(session));
    }
    let _ = writeln!(page, "\nMedian, and below it least..greatest of the rounds; {}.", disturbance(results));
    for (group, title) in GROUPS {
        for (workers, where_to) in [(1, "one worker, on one CPU"), (2, "two workers")] {
            let rows: Vec<Row> = results.rows(workers).into_iter().filter(|row| row.case.group == group).collect();
            if !rows.is_empty() {
                let _ = write!(page, "\n**{title}, {where_to}**\n\n");
                table(&mut page, &rows);
                notes(&mut page, &rows);
            }
        }
    }
    let left_out = results.left_out();
    if !left_out.is_empty() {
        page.push('\n');
        left_out.iter().for_each(|line| {
            let _ = writeln!(page, "* {line}");
        });
    }
    page
}

/// Those that ran anything of these rows.
fn columns<'a>(rows: &'a [Row]) -> impl Iterator<Item = &'static Runtime> + 'a {
    RUNTIMES.iter().filter(|runtime| rows.iter().any(|row| *row.cell(runtime.name) != Cell::Absent))
}

/// What a column's head refers to, below the table.
fn sign(runtime: &Runtime) -> &'static str {
    match runtime.kind {
        Kind::Ours | Kind::Shared => "",
        Kind::Limit => " ¹",
        Kind::Local => " ²",
        Kind::Web => " ³",
    }
}

fn table(page: &mut String, rows: &[Row]) {
    let _ = write!(page, "| | unit |");
    columns(rows).for_each(|runtime| {
        let _ = write!(page, " {}{} |", runtime.label, sign(runtime));
    });
    let _ = writeln!(page, " coro, in relation | wanted |\n|---|---|{}---|---|", "---|".repeat(columns(rows).count()));
    let mut before = "";
    for row in rows {
        // A case is named in the first of its rows.
        let what = if row.case.name == before { "" } else { row.case.what };
        before = row.case.name;
        let _ = write!(page, "| {what} | {} |", row.metric.unit);
        for runtime in columns(rows) {
            let text = match row.cell(runtime.name) {
                Cell::Measured(s) if s.min == s.max => figure(s.median),
                // Below it and small: there are many columns.
                Cell::Measured(s) => {
                    format!("{}<br><sub>{}..{}</sub>", figure(s.median), figure(s.min), figure(s.max))
                }
                Cell::Unsupported => "–".to_owned(),
                Cell::Failed => "failed".to_owned(),
                Cell::Absent => String::new(),
            };
            let _ = write!(page, " {text} |");
        }
        let held = row.comparison.as_ref().map(|c| ratio(c.ratio, c.with)).unwrap_or_default();
        let _ = writeln!(page, " {held} | {} |", row.wanted.map(|w| wanted(w, row.metric)).unwrap_or_default());
    }
}

fn notes(page: &mut String, rows: &[Row]) {
    if columns(rows).any(|runtime| runtime.kind == Kind::Limit) {
        let _ = writeln!(
            page,
            "\n¹ No runtime. For servers: a loop around `epoll_wait`, `recv` and `send`. For tasks: switches between stacks and a queue, on one \
             thread, with nothing that is atomic, counted or seen into: the floor for tasks with stacks, \
             though not for their timers, which are a plain heap."
        );
    }
    if columns(rows).any(|runtime| runtime.kind == Kind::Local) {
        let _ = writeln!(page, "\n² One thread: tasks, channels and locks there are not `Send`.");
    }
    if columns(rows).any(|runtime| runtime.kind == Kind::Web) {
        let _ = writeln!(page, "\n³ A web server, on tokio (hyper) or may (may_minihttp): HTTP only.");
    }
}

/// The page with a new table between its two marks.
pub(crate) fn put_into(page: &str, table: &str) -> Result<String, String> {
    let between = || {
        let (before, rest) = page.split_once(BEGIN)?;
        let (_, after) = rest.split_once(END)?;
        Some(format!("{before}{BEGIN}\n{table}{END}{after}"))
    };
    between().ok_or_else(|| format!("no lines {BEGIN:?} and {END:?} in it"))
}

#[cfg(test)]
mod tests {
    use super::{markdown, put_into};
    use crate::results::tests::run;
    use crate::results::{Results, Verdict};

    #[test]
    fn a_table_says_who_was_measured_and_who_was_not() {
        let mut results = Results::default();
        results.sessions.push(serde_json::json!({
            "started": "2026-01-02T03:04:05Z", "rounds": "2 rounds", "quick": false, "skipped": { "go": "not installed" },
            "machine": { "cpu": "A CPU", "cpus": 2, "virtual": true, "kernel": "6.1" },
            "versions": { "tokio": "1.50.0", "coro": "abc", "rustc": "rustc 1.95.0" },
        }));
        let (_, mut may) = run("may", 0, 1.0);
        may.verdict = Verdict::Unsupported("no yield".into());
        results.runs.extend([run("coro", 0, 10.0), run("coro", 1, 14.0), run("tokio", 0, 40.0), run("tokio", 1, 40.0)]);
        results.runs.push((0, may));
        assert_eq!(
            markdown(&results),
            "\
2026-01-02, 2 rounds: A CPU, 2 CPUs, virtual, Linux 6.1. coro abc, tokio 1.50.0, rustc 1.95.0.

Median, and below it least..greatest of the rounds; other programs used 0.00 CPUs (median of the runs); 0 of 5 runs were disturbed.

**Tasks: yields and spawns, one worker, on one CPU**

| | unit | coro | tokio | may | coro, in relation | wanted |
|---|---|---|---|---|---|---|
| yield, 2 tasks | ns | 12.0<br><sub>10.0..14.0</sub> | 40.0 | – | 0.30 [0.25..0.35] × tokio | ≤ 0.7 ×: not measured |

* Go: SKIPPED, not installed
* may: no yield (yield.2)
"
        );
    }

    #[test]
    fn a_table_replaces_the_one_before() {
        let page = "head\n<!-- benches/peers: begin -->\nold\n<!-- benches/peers: end -->\nfoot\n";
        let new = "head\n<!-- benches/peers: begin -->\nnew\n<!-- benches/peers: end -->\nfoot\n";
        assert_eq!(put_into(page, "new\n").as_deref(), Ok(new));
        assert!(put_into("head\nfoot\n", "new\n").is_err());
    }
}

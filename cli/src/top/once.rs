//! `coro top --once` and `--json`: what the screen would show, once, for scripts and for who has no terminal.
//!
//! Two looks [`BETWEEN`] apart, so that there are shares of time; what is told is the second.
//!
//! Must not know: the screen.

#![forbid(unsafe_code)]

use std::io::{self, BufWriter, ErrorKind, Write};
use std::time::Duration;

use super::feed::{End, MANY, View, listen, questions};
use super::model::{Look, Looks, Order, Rows, sort, span};
use crate::terminal::plain;
use crate::wire::Session;
use crate::{Failure, Outcome};

/// How long shares of time are measured.
const BETWEEN: Duration = Duration::from_secs(1);

/// Columns that a name may take before what stands behind it moves.
const WIDEST_NAME: usize = 40;

pub(super) fn run(session: Session, json: bool) -> Outcome {
    let program = session.program();
    match told(session, json).map(|lines| write(&program, lines)) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Ok(Err(error)) => Err(Failure::Failed(format!("cannot write the answer ({error})"))),
        Err(why) => Err(Failure::Failed(why)),
    }
}

enum Told {
    Text(Look),
    Json(Vec<String>),
}

fn told(mut session: Session, json: bool) -> Result<Told, String> {
    let mut looks = Looks::default();
    look(&mut session, &mut looks, None)?;
    std::thread::sleep(BETWEEN);
    let mut raw = json.then(Vec::new);
    let seen = look(&mut session, &mut looks, raw.as_mut())?;
    session.close();
    Ok(match raw {
        None => Told::Text(seen),
        Some(raw) => Told::Json(with_shares(raw, &seen)),
    })
}

/// One look; the rows as they came are put into `raw`. Of very many tasks only those that ran, in a second look.
fn look(session: &mut Session, looks: &mut Looks, mut raw: Option<&mut Vec<String>>) -> Result<Look, String> {
    let mut rows = Rows::new();
    let mut ask = |question: &str, rows: &mut Rows| {
        let hear = |line: &str| {
            rows.add(line);
            if let Some(raw) = &mut raw {
                raw.push(line.to_owned());
            }
        };
        match listen(session, question, hear, || true).map_err(|broken| plain(&broken.0))? {
            End::Refused(why) => Err(format!("{why}; without it there is: coro status PID|PATH")),
            End::Whole | End::Dropped => Ok(()),
        }
    };
    ask("status --json", &mut rows)?;
    if rows.tasks() <= MANY {
        ask("tasks --json", &mut rows)?;
    } else if !looks.is_first() {
        let view = View { order: Order::Share, filter: String::new() };
        // Only those that ran.
        for question in questions(&view, BETWEEN).iter().take(1) {
            ask(question, &mut rows)?;
        }
    }
    Ok(looks.finish(rows))
}

/// A head, the figures of `status`, and the tasks by their share, which each has as a member.
fn with_shares(raw: Vec<String>, look: &Look) -> Vec<String> {
    const TASK: &str = "\"task\":{";
    let mut tasks = Vec::new();
    let (mut head, mut status) = (None, Vec::new());
    for line in raw {
        if let Some(task) = line.strip_prefix('{').and_then(|line| line.strip_prefix(TASK)) {
            tasks.push(task.to_owned());
        } else if line.starts_with("{\"share\":{")
            && let Some((_, task)) = line.split_once(TASK)
        {
            tasks.push(task.strip_suffix('}').unwrap_or(task).to_owned());
        } else if line.starts_with("{\"head\":") {
            head = serde_json::from_str::<serde_json::Value>(&line).ok();
        } else if line.starts_with("{\"status\":") {
            status.push(line);
        }
    }
    let share_of = |at: usize| look.tasks.get(at).and_then(|task| task.share).unwrap_or_default();
    let mut order: Vec<usize> = (0..tasks.len().min(look.tasks.len())).collect();
    sort(&mut order, &look.tasks, Order::Share);
    let mut lines = Vec::with_capacity(tasks.len() + status.len() + 1);
    if let Some(mut head) = head {
        head["head"]["answer"] = "top".into();
        head["head"]["rows"] = (order.len() + status.len()).into();
        lines.push(head.to_string());
    }
    lines.extend(status);
    lines.extend(order.into_iter().map(|at| format!("{{{TASK}\"share\":{:.4},{}", share_of(at), tasks[at])));
    lines
}

fn write(program: &str, told: Told) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(64 * 1024, io::stdout().lock());
    match told {
        Told::Json(lines) => {
            for line in lines {
                writeln!(out, "{}", crate::terminal::harmless(&line))?;
            }
        }
        Told::Text(look) => {
            writeln!(out, "{program}  {}", look.text())?;
            for worker in &look.workers {
                let runs = match worker.slice_age {
                    Some(lasts) if worker.current != 0 => format!("  runs #{} for {}", worker.current, span(lasts)),
                    _ => String::new(),
                };
                writeln!(
                    out,
                    "worker {:<3} {:>4.0}%  {} runnable of {}{runs}",
                    worker.place,
                    worker.load * 100.0,
                    worker.runnable,
                    worker.live
                )?;
            }
            table(&look, &mut out)?;
        }
    }
    out.flush()
}

fn table(look: &Look, out: &mut impl Write) -> io::Result<()> {
    let mut order: Vec<usize> = (0..look.tasks.len()).collect();
    sort(&mut order, &look.tasks, Order::Share);
    let widest = look.tasks.iter().map(|task| task.shown_name().chars().count()).max().unwrap_or(0);
    let widest = widest.clamp(4, WIDEST_NAME);
    writeln!(out, "    ID STATE     CPU%   TIME    FOR    AGE  {:widest$}  WAITS FOR", "NAME")?;
    for task in order.into_iter().map(|at| &look.tasks[at]) {
        let line = format!(
            "{:>6} {:<9} {:>4} {:>6} {:>6} {:>6}  {:widest$}  {}",
            task.id,
            task.state.word(),
            task.shown_share(),
            span(task.run_time),
            span(task.since),
            task.age.map_or_else(|| "-".to_owned(), span),
            task.shown_name(),
            task.wait
        );
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

//! What coro itself can be asked in expressions: the read commands, as values.
//!
//! Invariants: nothing here changes anything; durations are seconds, sizes bytes, ids whole numbers; what a thing does not have
//! is an empty text or `()`.
//!
//! Must not know: the engine, who asks.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use crate::commands::{self, Tier, When};
use crate::inspect::condensed::short_file;
use crate::inspect::{self, Distribution, Options, Party, Snapshot, Task, TaskState};
use crate::report::{self, Remembered};
use crate::value::Value;

/// The most tasks that `tasks()` gives.
pub(super) const MOST_TASKS: usize = 100_000;

/// The longest text of a command that `ask` gives, in bytes.
const LONGEST_ANSWER: usize = 1 << 20;

/// How long an answer may come in pieces.
const LONGEST_ASK: Duration = Duration::from_secs(10);

/// One function. `tasks` and `where` are known to the engine, which gives tasks a type of their own.
pub(super) struct Fact {
    pub(super) name: &'static str,
    pub(super) parameters: &'static str,
    pub(super) doc: &'static str,
    pub(super) give: Give,
}

pub(super) enum Give {
    /// Needs no argument.
    Plain(fn() -> Result<Value, String>),
    /// Takes a text.
    Asked(fn(&str) -> Result<Value, String>),
    /// Made by the engine.
    Tasks,
}

/// In the order in which `functions` shows them.
pub(super) static FACTS: &[Fact] = &[
    Fact {
        name: "tasks",
        parameters: "",
        doc: "every task: id, name, class, state, wait, kind, age, run, slices, worker, parent, stack, labels, spawned, …",
        give: Give::Tasks,
    },
    Fact { name: "where", parameters: "id", doc: "one task; () if there is none of that id", give: Give::Tasks },
    plain("workers", "every worker: index, runtime, thread, current, slice_age, load, live, runnable, …", workers),
    plain("stacks", "every stack once: count, frames", stacks),
    plain("objects", "locks, channels and the like: kind, name, site, owner, held_for, waiters, …", objects),
    plain("deadlocks", "tasks that wait for one another: kind, tasks, behind, text", deadlocks),
    plain("sockets", "every socket: fd, kind, local, peer, state, age, idle, bytes_in, bytes_out, site, …", sockets),
    plain("descriptors", "descriptors against the limit: open, limit, sockets", descriptors),
    plain("peers", "the other ends of connections: peer, sockets, waiting, bytes_in, bytes_out", peers),
    plain("events", "who waits for which descriptor: fd, direction, socket, tasks", events),
    plain("classes", "classes of tasks: class, live, ended, slices, run, slice_p99, delay_p99, …", classes),
    plain("panics", "kinds of panics: site, count, first and last (seconds ago), message, stack", || {
        Ok(kinds(report::panics()))
    }),
    plain("stalls", "kinds of slices that were too long, likewise", || Ok(kinds(report::stalls()))),
    plain("memory", "resident, page_tables, stacks_in_use, stacks_committed, …", memory),
    plain("status", "the answer of the command, as text", || ask("status")),
    Fact {
        name: "ask",
        parameters: "command",
        doc: "the answer of any command that only reads, as text: ask(\"tree\")",
        give: Give::Asked(ask),
    },
];

const fn plain(name: &'static str, doc: &'static str, give: fn() -> Result<Value, String>) -> Fact {
    Fact { name, parameters: "", doc, give: Give::Plain(give) }
}

fn int(n: impl TryInto<i64>) -> Value {
    Value::Int(n.try_into().unwrap_or(i64::MAX))
}

fn seconds(d: Duration) -> Value {
    Value::Float(d.as_secs_f64())
}

fn some_seconds(d: Option<Duration>) -> Value {
    d.map_or(Value::Nothing, seconds)
}

fn text(text: impl ToString) -> Value {
    Value::Text(text.to_string())
}

fn some_text(text: Option<impl ToString>) -> Value {
    Value::Text(text.map(|t| t.to_string()).unwrap_or_default())
}

fn ago(then: SystemTime) -> Value {
    seconds(then.elapsed().unwrap_or_default())
}

fn list<T>(all: impl IntoIterator<Item = T>, row: impl FnMut(T) -> Value) -> Result<Value, String> {
    Ok(Value::List(all.into_iter().map(row).collect()))
}

/// Everything about tasks; at most `limit` of them.
pub(super) fn snapshot(limit: usize) -> Snapshot {
    Snapshot::take(&Options { stacks: true, running: true, objects: false, limit })
}

/// A snapshot with that task only, and its stack; what else there is takes too much to be kept for one.
pub(super) fn one_task(id: i64) -> Option<Snapshot> {
    let mut all = snapshot(0);
    let place = all.tasks.iter().position(|task| i64::try_from(task.id) == Ok(id))?;
    let mut task = all.tasks.swap_remove(place);
    let stack = task.stack.filter(|n| *n < all.stacks.len()).map(|n| all.stacks.swap_remove(n));
    task.stack = stack.is_some().then_some(0);
    (all.tasks, all.stacks) = (vec![task], stack.into_iter().collect());
    (all.workers, all.objects, all.edges) = (Vec::new(), Vec::new(), Vec::new());
    Some(all)
}

/// What is known of a task, in the order in which it is shown.
pub(super) const TASK_FIELDS: &[&str] = &[
    "id",
    "name",
    "class",
    "state",
    "age",
    "wait",
    "kind",
    "run",
    "slices",
    "worker",
    "parent",
    "runtime",
    "longest_slice",
    "longest_delay",
    "stack_used",
    "spawned",
    "labels",
    "stack",
];

/// One field of a task, `None` for a name that is none.
pub(super) fn task_field(snapshot: &Snapshot, task: &Task, field: &str) -> Option<Value> {
    Some(match field {
        "id" => int(task.id),
        "name" => some_text(task.name.as_ref()),
        "class" => text(&task.class),
        "state" => text(state(task.state)),
        "age" => seconds(task.age),
        "wait" => some_text(task.wait.as_ref().map(|w| &w.text)),
        "kind" => some_text(task.wait.as_ref().map(|w| w.kind)),
        "run" => seconds(task.run_time),
        "slices" => int(task.slices),
        "worker" => task.worker.map_or(Value::Nothing, int),
        "parent" => int(task.parent),
        "runtime" => int(task.runtime),
        "longest_slice" => seconds(task.longest_slice),
        "longest_delay" => seconds(task.longest_delay),
        "stack_used" => int(task.stack_used),
        "spawned" => some_text(task.spawned_at),
        "labels" => Value::Map(task.labels.iter().map(|(k, v)| (k.clone(), text(v))).collect()),
        "stack" => task.stack.and_then(|n| snapshot.stacks.get(n)).map_or(Value::List(Vec::new()), frames),
        _ => return None,
    })
}

fn state(state: TaskState) -> &'static str {
    match state {
        TaskState::Unstarted => "unstarted",
        TaskState::Runnable => "runnable",
        TaskState::Running { .. } => "running",
        TaskState::Parked => "parked",
    }
}

/// A line for each call, innermost first, those of the runtime left out.
fn frames(stack: &inspect::Stack) -> Value {
    let shown = stack.frames.iter().filter(|f| !f.folded).map(|f| match (&f.file, f.line) {
        (Some(file), Some(line)) => text(format!("{} {}:{line}", f.function, short_file(file))),
        (Some(file), None) => text(format!("{} {}", f.function, short_file(file))),
        _ => text(&f.function),
    });
    Value::List(shown.collect())
}

fn workers() -> Result<Value, String> {
    list(Snapshot::take(&Options { stacks: false, running: false, objects: false, limit: 1 }).workers, |w| {
        Value::map([
            ("index", int(w.index)),
            ("runtime", int(w.runtime)),
            ("thread", int(w.thread)),
            ("current", int(w.current)),
            ("slice_age", some_seconds(w.slice_age)),
            ("asleep", Value::Bool(w.asleep)),
            ("load", Value::Float(w.load.into())),
            ("live", int(w.live)),
            ("runnable", int(w.runnable)),
            ("unstarted", int(w.unstarted)),
            ("slices", int(w.slices)),
            ("busy", seconds(w.busy)),
            ("parks", int(w.parks)),
            ("spawned", int(w.spawned)),
            ("ended", int(w.ended)),
        ])
    })
}

fn stacks() -> Result<Value, String> {
    let mut all = snapshot(0).stacks;
    all.sort_by_key(|stack| std::cmp::Reverse(stack.count));
    list(&all, |stack| Value::map([("count", int(stack.count)), ("frames", frames(stack))]))
}

fn party(of: Option<Party>) -> Value {
    match of {
        None => Value::Nothing,
        Some(Party::Task(id)) => int(id),
        Some(Party::Thread(tid)) => text(format!("thread {tid}")),
    }
}

fn objects() -> Result<Value, String> {
    let wanted = Options { stacks: false, running: false, objects: true, limit: 1 };
    list(Snapshot::take(&wanted).objects, |o| {
        Value::map([
            ("kind", text(o.kind)),
            ("name", some_text(o.name)),
            ("site", text(o.site)),
            ("owner", party(o.owner)),
            ("held_for", some_seconds(o.held_for)),
            ("waiters", int(o.waiters)),
            ("oldest_wait", some_seconds(o.oldest_wait)),
            ("details", text(o.details)),
        ])
    })
}

fn deadlocks() -> Result<Value, String> {
    list(inspect::deadlocks(), |d| {
        let tasks = d.waits.iter().map(|w| int(w.task.id)).collect();
        Value::map([
            ("kind", text(format!("{:?}", d.kind).to_lowercase())),
            ("count", int(d.tasks)),
            ("behind", int(d.behind)),
            ("tasks", Value::List(tasks)),
            ("text", text(&d)),
        ])
    })
}

fn waiting(all: &[inspect::Waiter]) -> Value {
    Value::List(all.iter().map(|w| int(w.task)).collect())
}

fn sockets() -> Result<Value, String> {
    list(inspect::sockets(), |s| {
        Value::map([
            ("fd", int(s.fd)),
            ("kind", text(s.kind.word())),
            ("local", some_text(s.local)),
            ("peer", some_text(s.peer)),
            ("state", some_text(s.state)),
            ("age", seconds(s.age)),
            ("idle", seconds(s.idle)),
            ("bytes_in", int(s.bytes_in)),
            ("bytes_out", int(s.bytes_out)),
            ("accepted", int(s.accepted)),
            ("backlog", s.backlog.map_or(Value::Nothing, |(now, _)| int(now))),
            ("backlog_limit", s.backlog.map_or(Value::Nothing, |(_, most)| int(most))),
            ("opener", int(s.opener)),
            ("site", some_text(s.site)),
            ("tasks", waiting(&s.waiting)),
        ])
    })
}

fn descriptors() -> Result<Value, String> {
    let d = inspect::descriptors();
    Ok(Value::map([
        ("open", int(d.open)),
        ("exact", Value::Bool(d.exact)),
        ("limit", d.limit.map_or(Value::Nothing, int)),
        ("sockets", int(d.sockets)),
    ]))
}

fn peers() -> Result<Value, String> {
    list(inspect::peers(), |p| {
        Value::map([
            ("peer", text(p.peer)),
            ("sockets", int(p.sockets)),
            ("waiting", int(p.waiting)),
            ("oldest_wait", some_seconds(p.oldest_wait)),
            ("bytes_in", int(p.bytes_in)),
            ("bytes_out", int(p.bytes_out)),
        ])
    })
}

fn events() -> Result<Value, String> {
    list(inspect::events(), |e| {
        Value::map([
            ("fd", int(e.fd)),
            ("direction", text(e.direction)),
            ("socket", text(e.socket)),
            ("tasks", waiting(&e.waiting)),
        ])
    })
}

fn classes() -> Result<Value, String> {
    let p99 = |d: &Distribution| seconds(d.quantile(0.99));
    list(inspect::classes(), |c| {
        Value::map([
            ("class", text(&c.class)),
            ("live", int(c.live)),
            ("ended", int(c.ended)),
            ("slices", int(c.slices)),
            ("run", seconds(c.run_time)),
            ("slice_p50", seconds(c.slice_lengths.quantile(0.5))),
            ("slice_p99", p99(&c.slice_lengths)),
            ("slice_longest", seconds(c.slice_lengths.longest())),
            ("delay_p50", seconds(c.wake_delays.quantile(0.5))),
            ("delay_p99", p99(&c.wake_delays)),
            ("delay_longest", seconds(c.wake_delays.longest())),
        ])
    })
}

fn kinds(all: Vec<Remembered>) -> Value {
    let row = |kind: Remembered| {
        Value::map([
            ("site", text(kind.site)),
            ("count", int(kind.count)),
            ("first", ago(kind.first)),
            ("last", ago(kind.last)),
            ("message", text(kind.message)),
            ("stack", text(kind.stack)),
        ])
    };
    Value::List(all.into_iter().map(row).collect())
}

fn memory() -> Result<Value, String> {
    let m = crate::sys::usage::memory();
    let s = inspect::stack_stats().map_err(|e| e.to_string())?;
    Ok(Value::map([
        ("resident", int(m.resident)),
        ("page_tables", m.page_tables.map_or(Value::Nothing, int)),
        ("stacks_in_use", int(s.in_use)),
        ("stacks_committed", int(s.committed)),
        ("stacks_promised", int(s.promised)),
        ("guards", text(s.guards)),
        ("guard_mappings", int(s.guard_mappings)),
    ]))
}

/// The answer of a command that only reads.
fn ask(line: &str) -> Result<Value, String> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let words: Vec<&str> = words.collect();
    let Some(command) = commands::TABLE.iter().find(|c| c.names.contains(&name)) else {
        return Err(format!("ask: no command is called \"{name}\""));
    };
    if command.tier_for(&words) > Tier::Read {
        return Err(format!("ask: {name} does more than read"));
    }
    let mut answer = command.begin(&words, commands::Asking::default())?;
    let (mut all, mut piece) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    loop {
        let more = answer.more(&mut piece);
        all.append(&mut piece);
        if !more {
            break;
        }
        if all.len() > LONGEST_ANSWER {
            return Err(format!("ask: the answer of {name} is longer than {} KiB", LONGEST_ANSWER / 1024));
        }
        if begun.elapsed() > LONGEST_ASK {
            return Err(format!("ask: {name} has no end"));
        }
        if let When::NotBefore(time) = answer.when() {
            std::thread::sleep(time.saturating_duration_since(Instant::now()).min(LONGEST_ASK));
        }
    }
    Ok(Value::Text(String::from_utf8_lossy(&all).trim_end_matches('\n').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_answers_and_has_a_line_of_help() {
        for fact in FACTS {
            assert!(!fact.doc.is_empty() && fact.doc.len() < 120, "{}", fact.name);
            assert!(super::super::OWN_NAMES.contains(&fact.name), "{}", fact.name);
            if let Give::Plain(give) = fact.give {
                let given = give().unwrap_or_else(|e| panic!("{}: {e}", fact.name));
                assert!(!matches!(given, Value::Nothing), "{}", fact.name);
            }
        }
        assert_eq!(super::super::OWN_NAMES.len(), FACTS.len());
    }

    #[test]
    fn a_task_has_all_its_fields() {
        coro_task(|snapshot, task| {
            for field in TASK_FIELDS {
                assert!(task_field(snapshot, task, field).is_some(), "{field}");
            }
            assert!(task_field(snapshot, task, "secret").is_none());
        });
    }

    fn coro_task(look: impl FnOnce(&Snapshot, &Task)) {
        let task = crate::scheduler::spawn_named("facts", crate::scheduler::park);
        let snapshot = loop {
            let s = snapshot(0);
            if s.tasks.iter().any(|t| t.name.as_deref() == Some("facts")) {
                break s;
            }
        };
        look(&snapshot, snapshot.tasks.iter().find(|t| t.name.as_deref() == Some("facts")).expect("the task"));
        task.cancel();
        let _ = task.join();
    }

    #[test]
    fn ask_gives_what_commands_say() {
        assert!(matches!(ask("memory"), Ok(Value::Text(text)) if text.contains("resident")));
        assert_eq!(ask("nonsense 1").unwrap_err(), "ask: no command is called \"nonsense\"");
        assert!(ask("memory x").is_err() && ask("").is_err());
    }
}

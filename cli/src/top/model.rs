//! What `top` knows of a program: rows of `status --json` and `tasks --json`, and what two looks tell that one does
//! not: how much of the time between them each task ran.
//!
//! Unknown rows and members are passed over, so that a newer server can be looked at; those that are missing are zero.
//!
//! Must not know: the screen, the connection.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::Deserialize;

use crate::terminal::plain;

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct Span {
    secs: u64,
    nanos: u32,
}

impl From<Span> for Duration {
    fn from(span: Span) -> Duration {
        Duration::from_secs(span.secs).saturating_add(Duration::from_nanos(span.nanos.into()))
    }
}

/// One row of an answer; every member that is not there is another kind of row.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Row {
    head: Option<Head>,
    task: Option<RawTask>,
    status: Option<RawStatus>,
    share: Option<RawShare>,
    /// Shares follow, if anything ran.
    top: Option<serde::de::IgnoredAny>,
}

/// The figures of `status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawStatus {
    tasks: RawNumbers,
    workers: Vec<RawWorker>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(default)]
struct RawNumbers {
    all: u64,
    running: u64,
    runnable: u64,
    unstarted: u64,
    parked: u64,
}

/// A task that ran between two looks of the server's own.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawShare {
    share: f64,
    task: RawTask,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Head {
    taken_at: Option<At>,
    took: Span,
}

/// A time by the program's clock.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(default)]
struct At {
    secs_since_epoch: u64,
    nanos_since_epoch: u32,
}

impl From<At> for Duration {
    fn from(at: At) -> Duration {
        Span { secs: at.secs_since_epoch, nanos: at.nanos_since_epoch }.into()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawTask {
    id: u64,
    name: Option<String>,
    class: String,
    state: serde_json::Value,
    age: Span,
    worker: Option<u64>,
    wait: Option<RawWait>,
    slices: u64,
    run_time: Span,
    started: Option<Span>,
    longest_slice: Span,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawWait {
    text: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawWorker {
    runtime: u64,
    index: u64,
    current: u64,
    slice_age: Option<Span>,
    asleep: bool,
    runnable: u64,
    live: u64,
    load: f64,
}

/// Rows that fill any screen.
const SCREEN: usize = 100;

/// What a task was doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum State {
    Running,
    Runnable,
    Unstarted,
    Parked,
}

impl State {
    pub(super) const ALL: [State; 4] = [State::Running, State::Runnable, State::Unstarted, State::Parked];

    pub(super) fn word(self) -> &'static str {
        match self {
            State::Running => "running",
            State::Runnable => "runnable",
            State::Unstarted => "unstarted",
            State::Parked => "parked",
        }
    }

    /// `"Parked"`, or `{"Running":{"worker":0}}`.
    fn of(value: &serde_json::Value) -> State {
        let word = value.as_str().or_else(|| value.as_object()?.keys().next().map(String::as_str));
        match word {
            Some("Running") => State::Running,
            Some("Runnable") => State::Runnable,
            Some("Unstarted") => State::Unstarted,
            _ => State::Parked,
        }
    }
}

/// One task as it is shown. Texts are fit for a terminal.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) id: u64,
    /// Its name; without one its class.
    pub(super) name: String,
    /// It has a name of its own.
    pub(super) is_named: bool,
    pub(super) state: State,
    /// How long it has been in that state.
    pub(super) since: Duration,
    pub(super) worker: Option<u64>,
    /// What it waits for.
    pub(super) wait: String,
    pub(super) slices: u64,
    pub(super) run_time: Duration,
    /// Since its first slice, where that is known.
    pub(super) age: Option<Duration>,
    pub(super) longest_slice: Duration,
    /// The share of the time since the look before in which it ran, 0 to 1; nothing at the first look.
    pub(super) share: Option<f64>,
}

#[derive(Debug, Clone)]
pub(super) struct Worker {
    /// `0`, or `1/0` in the second runtime of the process.
    pub(super) place: String,
    pub(super) current: u64,
    pub(super) slice_age: Option<Duration>,
    pub(super) asleep: bool,
    pub(super) runnable: u64,
    pub(super) live: u64,
    pub(super) load: f64,
}

/// What one look found.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    pub(super) tasks: Vec<Task>,
    pub(super) workers: Vec<Worker>,
    /// How many tasks there are, if not all of them are here: by [`State::ALL`].
    pub(super) numbers: Option<[u64; 4]>,
    /// How long the server took.
    pub(super) took: Duration,
}

impl Task {
    /// A name as it is; the class of one without in brackets, without the path of its file.
    pub(super) fn shown_name(&self) -> String {
        match self.is_named {
            true => self.name.clone(),
            false => format!("({})", self.name.rsplit('/').next().unwrap_or_default()),
        }
    }

    /// In at most four columns.
    pub(super) fn shown_share(&self) -> String {
        match self.share {
            None => "-".to_owned(),
            Some(share) if share >= 0.9995 => "100".to_owned(),
            Some(share) => format!("{:.1}", share * 100.0),
        }
    }
}

impl Look {
    /// `505 tasks: 1 running, 0 runnable, 0 unstarted, 504 parked; took 2ms`
    pub(super) fn text(&self) -> String {
        let counts = self.counts();
        let states: Vec<String> = counts.iter().map(|(n, word)| format!("{n} {word}")).collect();
        let part = if self.numbers.is_some() { format!("; {} here", self.tasks.len()) } else { String::new() };
        format!("{}: {}{part}; took {}", self.all(), states.join(", "), span(self.took))
    }

    /// The same, without what is not there.
    pub(super) fn short_text(&self) -> String {
        let counts = self.counts();
        let states = counts.iter().filter(|(n, _)| *n > 0).map(|(n, word)| format!("{n} {word}"));
        format!("{}: {}", self.all(), states.collect::<Vec<_>>().join(", "))
    }

    fn counts(&self) -> [(u64, &'static str); 4] {
        let mut counts = State::ALL.map(|state| (0, state.word()));
        match self.numbers {
            Some(numbers) => counts.iter_mut().zip(numbers).for_each(|((count, _), n)| *count = n),
            None => self.tasks.iter().for_each(|task| counts[task.state as usize].0 += 1),
        }
        counts
    }

    fn all(&self) -> String {
        let n: u64 = self.counts().iter().map(|(n, _)| n).sum();
        format!("{n} {}", if n == 1 { "task" } else { "tasks" })
    }
}

/// Makes a look out of rows, and remembers it for the next.
#[derive(Debug, Default)]
pub(super) struct Looks {
    /// When the tasks were looked at.
    before: Option<(Instant, Option<Duration>)>,
    ran: HashMap<u64, Duration>,
}

/// The rows of one look, as they come.
#[derive(Debug)]
pub(super) struct Rows {
    begun: Instant,
    /// The same by the program's clock: without the way there, and the time until it was our turn.
    taken_at: Option<Duration>,
    numbers: RawNumbers,
    /// The program has told who ran.
    has_shares: bool,
    look: Look,
}

impl Rows {
    pub(super) fn new() -> Rows {
        Rows {
            begun: Instant::now(),
            taken_at: None,
            numbers: RawNumbers::default(),
            has_shares: false,
            look: Look::default(),
        }
    }

    /// A line of JSON.
    pub(super) fn add(&mut self, line: &str) {
        // The longest rows, of which nothing is shown.
        if line.starts_with("{\"stack\":") {
            return;
        }
        // What cannot be read is another kind of row.
        let Ok(row) = serde_json::from_str::<Row>(line) else { return };
        if let Some(head) = row.head {
            self.look.took += Duration::from(head.took);
            self.taken_at = head.taken_at.map(Into::into);
        }
        if let Some(task) = row.task {
            // Some of those that ran come a second time.
            if !self.has_shares || self.look.tasks.iter().all(|known| known.id != task.id) {
                self.look.tasks.push(task.into());
            }
        }
        if let Some(RawShare { share, task }) = row.share {
            self.has_shares = true;
            self.look.tasks.push(Task { share: Some(share.clamp(0.0, 1.0)), ..task.into() });
        }
        self.has_shares |= row.top.is_some();
        if let Some(status) = row.status {
            self.numbers = status.tasks;
            self.look.workers.extend(status.workers.into_iter().map(Worker::from));
        }
    }

    /// How many tasks there are, as the status tells.
    pub(super) fn tasks(&self) -> u64 {
        self.numbers.all
    }

    /// Whether the tasks fill a screen, or are all that fulfil a condition.
    pub(super) fn are_enough(&self) -> bool {
        self.look.tasks.len() >= if self.has_shares { SCREEN } else { 1 }
    }

    /// What is known before there is any task.
    pub(super) fn numbers(&self) -> Look {
        let RawNumbers { running, runnable, unstarted, parked, .. } = self.numbers;
        Look { numbers: Some([running, runnable, unstarted, parked]), ..self.look.clone() }
    }
}

impl Looks {
    pub(super) fn is_first(&self) -> bool {
        self.before.is_none()
    }

    /// The look is whole.
    pub(super) fn finish(&mut self, rows: Rows) -> Look {
        let is_part = (rows.look.tasks.len() as u64) < rows.tasks() / 2;
        let numbers = if is_part { rows.numbers().numbers } else { None };
        let Rows { begun, taken_at, mut look, has_shares, .. } = rows;
        look.numbers = numbers;
        let passed = self.before.map(|(before, at)| match (at, taken_at) {
            (Some(at), Some(now)) if now > at => now - at,
            _ => begun.saturating_duration_since(before),
        });
        for task in look.tasks.iter_mut().filter(|task| task.share.is_none()) {
            let before = self.ran.get(&task.id).copied();
            task.share = match passed.filter(|passed| !passed.is_zero()) {
                _ if has_shares => Some(0.0),
                // It may only not have been among those that were asked for.
                _ if numbers.is_some() && before.is_none() => None,
                None => None,
                Some(passed) => {
                    // One that was not there before has run all it ran since.
                    let ran = task.run_time.saturating_sub(before.unwrap_or_default());
                    Some((ran.as_secs_f64() / passed.as_secs_f64()).min(1.0))
                }
            };
        }
        self.before = Some((begun, taken_at));
        self.ran = look.tasks.iter().map(|task| (task.id, task.run_time)).collect();
        look
    }
}

impl From<RawTask> for Task {
    fn from(raw: RawTask) -> Task {
        let is_named = raw.name.is_some();
        Task {
            id: raw.id,
            name: plain(&raw.name.unwrap_or(raw.class)),
            is_named,
            state: State::of(&raw.state),
            since: raw.age.into(),
            worker: raw.worker,
            wait: plain(&raw.wait.unwrap_or_default().text),
            slices: raw.slices,
            run_time: raw.run_time.into(),
            age: raw.started.map(Into::into),
            longest_slice: raw.longest_slice.into(),
            share: None,
        }
    }
}

impl From<RawWorker> for Worker {
    fn from(raw: RawWorker) -> Worker {
        let place = match raw.runtime {
            0 => raw.index.to_string(),
            runtime => format!("{runtime}/{}", raw.index),
        };
        // The server knows of a slice's share only when it ends.
        let is_busy = raw.slice_age.is_some_and(|age| age.secs > 0);
        Worker {
            place,
            current: raw.current,
            slice_age: raw.slice_age.map(Into::into),
            asleep: raw.asleep,
            runnable: raw.runnable,
            live: raw.live,
            load: if is_busy { 1.0 } else { raw.load.clamp(0.0, 1.0) },
        }
    }
}

/// What the tasks are sorted by, the most first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Share of the time since the look before.
    Share,
    RunTime,
    /// Time in the present state, of those that do not run.
    Wait,
    Age,
    Id,
}

impl Order {
    pub(super) const ALL: [(char, Order, &'static str); 5] = [
        ('c', Order::Share, "CPU"),
        ('r', Order::RunTime, "run time"),
        ('w', Order::Wait, "wait"),
        ('a', Order::Age, "age"),
        ('i', Order::Id, "id"),
    ];

    pub(super) fn word(self) -> &'static str {
        Order::ALL.iter().find(|(_, order, _)| *order == self).map_or("", |(_, _, word)| word)
    }
}

/// Sorts places in `tasks` so that rows stay where they are if nothing tells them apart.
pub(super) fn sort(rows: &mut [usize], tasks: &[Task], order: Order) {
    rows.sort_by(|a, b| {
        let (a, b) = (&tasks[*a], &tasks[*b]);
        let by = match order {
            Order::Share => b
                .share
                .unwrap_or_default()
                .total_cmp(&a.share.unwrap_or_default())
                .then_with(|| b.run_time.cmp(&a.run_time)),
            Order::RunTime => b.run_time.cmp(&a.run_time),
            Order::Wait => {
                let waits = |task: &Task| (task.state != State::Running, task.since);
                waits(b).cmp(&waits(a))
            }
            Order::Age => {
                // It is at least as old as its state.
                let age = |task: &Task| task.age.unwrap_or(task.since);
                age(b).cmp(&age(a))
            }
            Order::Id => std::cmp::Ordering::Equal,
        };
        by.then(a.id.cmp(&b.id))
    });
}

/// `3.2s`, `40ms`, `1h05m`, `3d04h`: at most six columns.
pub(super) fn span(d: Duration) -> String {
    match d.as_secs() {
        0 if d.as_micros() < 1000 => format!("{}us", d.as_micros()),
        0 => format!("{}ms", d.as_millis()),
        1..100 => format!("{:.1}s", d.as_secs_f64()),
        s @ 100..3600 => format!("{}m{:02}s", s / 60, s % 60),
        s @ 3600..86_400 => format!("{}h{:02}m", s / 3600, s / 60 % 60),
        s => format!("{}d{:02}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"task":{"id":17,"name":"db \u001b[2Jwriter","class":"writers","state":"Parked","age":{"secs":3,
        "nanos":200000000},"worker":1,"wait":{"kind":"lock","text":"lock \"pool\""},"slices":4,"run_time":{"secs":1,"nanos":0},
        "started":{"secs":9,"nanos":0},"longest_slice":{"secs":0,"nanos":5},"later":true}}"#;

    #[test]
    fn rows_become_tasks_and_workers_and_what_is_unknown_is_passed_over() {
        let mut rows = Rows::new();
        for line in [
            r#"{"head":{"took":{"secs":0,"nanos":7000000},"process":{}}}"#,
            TASK,
            r#"{"task":{"id":18,"name":null,"class":"a.rs:1","state":{"Running":{"worker":0}},"wait":null,"started":null}}"#,
            r#"{"status":{"tasks":{"all":2,"parked":1},"workers":[{"runtime":1,"index":0,"current":18,
                "slice_age":{"secs":2,"nanos":0},"load":0.5,"runnable":3}]}}"#,
            r#"{"stack":{"frames":[]}}"#,
            "nonsense",
        ] {
            rows.add(line);
        }
        let look = Looks::default().finish(rows);
        let [a, b] = &look.tasks[..] else { panic!("{look:?}") };
        assert_eq!((a.id, a.name.as_str(), a.is_named), (17, "db \\u{1b}[2Jwriter", true));
        assert_eq!((a.state, a.wait.as_str(), span(a.since)), (State::Parked, "lock \"pool\"", "3.2s".into()));
        assert_eq!((b.state, b.name.as_str(), b.is_named, b.share), (State::Running, "a.rs:1", false, None));
        assert_eq!((look.workers[0].place.as_str(), look.workers[0].runnable, look.workers[0].load), ("1/0", 3, 1.0));
        assert_eq!(look.took, Duration::from_millis(7));
    }

    #[test]
    fn of_very_many_only_the_first_are_there_and_all_are_counted() {
        let mut rows = Rows::new();
        rows.add(
            r#"{"status":{"tasks":{"all":100000,"running":1,"runnable":9,"unstarted":0,"parked":99990},"workers":[]}}"#,
        );
        assert_eq!((rows.tasks(), rows.are_enough()), (100_000, false));
        assert!(
            rows.numbers().text().starts_with("100000 tasks: 1 running, 9 runnable, 0 unstarted, 99990 parked; 0 here")
        );
        rows.add(
            &TASK
                .replace("{\"task\"", "{\"share\":{\"ran\":{\"secs\":1,\"nanos\":0},\"share\":0.5,\"task\"")
                .replace("true}}", "true}}}"),
        );
        // The same once more, and one that did not run.
        rows.add(TASK);
        rows.add(&TASK.replace("\"id\":17", "\"id\":18"));
        let look = Looks::default().finish(rows);
        let shares: Vec<_> = look.tasks.iter().map(|task| (task.id, task.share)).collect();
        assert_eq!(shares, [(17, Some(0.5)), (18, Some(0.0))]);
        assert_eq!(look.short_text(), "100000 tasks: 1 running, 9 runnable, 99990 parked");
    }

    #[test]
    fn the_second_look_tells_how_much_a_task_ran() {
        let mut looks = Looks::default();
        let mut rows = Rows::new();
        rows.add(TASK);
        let first = rows.begun;
        assert_eq!(looks.finish(rows).tasks[0].share, None);
        let mut rows = Rows::new();
        rows.add(&TASK.replace("\"run_time\":{\"secs\":1", "\"run_time\":{\"secs\":2"));
        rows.begun = first + Duration::from_secs(4);
        assert_eq!(looks.finish(rows).tasks[0].share, Some(0.25));
        // The program's own clock tells better.
        let mut look_at = |at: u64, ran: u64| {
            let mut rows = Rows::new();
            rows.add(&format!(r#"{{"head":{{"taken_at":{{"secs_since_epoch":{at},"nanos_since_epoch":0}}}}}}"#));
            rows.add(&TASK.replace("\"run_time\":{\"secs\":1", &format!("\"run_time\":{{\"secs\":{ran}")));
            looks.finish(rows).tasks[0].share
        };
        look_at(100, 3);
        assert_eq!(look_at(104, 5), Some(0.5));
    }

    #[test]
    fn each_order_has_its_first() {
        let task = |id: u64, state: State, since: u64, run: u64, age: u64, share: f64| Task {
            id,
            name: String::new(),
            is_named: false,
            state,
            since: Duration::from_secs(since),
            worker: None,
            wait: String::new(),
            slices: 0,
            run_time: Duration::from_secs(run),
            age: Some(Duration::from_secs(age)),
            longest_slice: Duration::ZERO,
            share: Some(share),
        };
        let tasks = [
            task(1, State::Running, 99, 5, 10, 0.1),
            task(2, State::Parked, 50, 9, 20, 0.2),
            task(3, State::Runnable, 60, 1, 5, 0.9),
        ];
        for (order, ids) in [
            (Order::Share, [3, 2, 1]),
            (Order::RunTime, [2, 1, 3]),
            (Order::Wait, [3, 2, 1]),
            (Order::Age, [2, 1, 3]),
            (Order::Id, [1, 2, 3]),
        ] {
            let mut rows = vec![0, 1, 2];
            sort(&mut rows, &tasks, order);
            assert_eq!(rows.iter().map(|row| tasks[*row].id).collect::<Vec<_>>(), ids, "{order:?}");
        }
    }

    #[test]
    fn times_take_at_most_six_columns() {
        for (nanos, text) in [
            (0, "0us"),
            (999_999, "999us"),
            (12_000_000, "12ms"),
            (3_240_000_000, "3.2s"),
            (99_940_000_000, "99.9s"),
            (100_000_000_000, "1m40s"),
            (3_900_000_000_000, "1h05m"),
            (273_600_000_000_000, "3d04h"),
        ] {
            assert_eq!(span(Duration::from_nanos(nanos)), text);
        }
    }
}

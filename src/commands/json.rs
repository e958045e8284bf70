//! Answers for programs: JSON, one object a line.
//!
//! ```text
//! {"head":{"schema_version":1,"answer":"workers","rows":2,"process":{"pid":4711,…}}}
//! {"worker":{"runtime":0,"index":0,…}}
//! ```
//!
//! Every line is an object with one member that says what it is, so that `jq 'select(.task)'` picks; the first is the head.
//! Rows are written when the client has room for them.
//!
//! Must not know: what is in a row.

#![forbid(unsafe_code)]

use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::figures::{Counting, Figures};
use super::tasks::{Row, as_asked, compare, counting};
use super::text::rows;
use super::threads::{Looking, Thread, USUAL};
use super::top::{Watching, span};
use super::{Answer, Begun, Callable, FUNCTIONS, When, no_task, one_id, question};
use crate::blocking::{BlockingJob, BlockingStats, blocking_stats};
use crate::inspect::{
    self, DescriptorUse, Edge, EventReport, Groups, Object, Options, PeerReport, Process, SCHEMA_VERSION, Site,
    SiteSockets, Snapshot, SocketReport, Stack, Task, Values, Worker,
};
use crate::report::{self, Remembered};

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Head(Box<Head>),
    Task(Box<Task>),
    Stack(Stack),
    Worker(Worker),
    Object(Box<Object>),
    Edge(Edge),
    Descriptors(DescriptorUse),
    Site(SiteSockets),
    Socket(Box<SocketReport>),
    Peer(PeerReport),
    Event(EventReport),
    Panic(Remembered),
    Stall(Remembered),
    Group(GroupLine),
    Thread(Thread),
    Pool(Pool),
    Job(Job),
    Status(Box<Figures>),
    Top(TopLine),
    Share(Box<ShareLine>),
    Function(Callable),
}

/// Tasks that have something in common.
#[derive(Serialize)]
struct GroupLine {
    group: Box<str>,
    tasks: u64,
    /// Since the same question was asked last, where that is known.
    change: Option<i64>,
    run_time: Duration,
    oldest: Duration,
    /// Which task that is; 0 if there is none any more.
    oldest_task: u64,
}

impl From<Row> for GroupLine {
    fn from(row: Row) -> GroupLine {
        let Row { key, group, change } = row;
        let (oldest, oldest_task) = group.oldest;
        GroupLine { group: key, tasks: group.count, change, run_time: group.run, oldest, oldest_task }
    }
}

/// What the shares are shares of.
#[derive(Serialize)]
struct TopLine {
    between: Duration,
    /// Tasks that ran, those that are not told of included.
    tasks: u64,
    /// CPU time of the process.
    cpu: Duration,
}

/// One task that ran.
#[derive(Serialize)]
struct ShareLine {
    ran: Duration,
    /// Of the time between the looks.
    share: f64,
    task: Task,
}

#[derive(Serialize)]
struct Pool {
    limit: usize,
    threads: usize,
    idle: usize,
    queued: usize,
    oldest_queued: Option<Duration>,
}

#[derive(Serialize)]
struct Job {
    task: u64,
    age: Duration,
    site: Site,
    /// The call and the path, of a call on a file.
    file: Option<(&'static str, std::sync::Arc<str>)>,
}

#[derive(Serialize)]
struct Head {
    schema_version: u32,
    answer: &'static str,
    /// Lines that follow.
    rows: usize,
    /// How many tasks fulfil the conditions, where fewer may follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    matched: Option<u64>,
    taken_at: SystemTime,
    took: Duration,
    longest_window: Duration,
    window_p9999: Duration,
    process: Process,
}

/// The answer of a command whose row in the table says that it has one.
pub(super) fn begin(name: &'static str, words: &[&str]) -> Begun {
    match name {
        "tasks" => return tasks(words),
        "count" => return count(words),
        "threads" => return threads(words),
        "where" => return one(words),
        "top" => return top(words),
        _ => {}
    }
    let every_one = match words {
        [] => false,
        ["--all"] if matches!(name, "fds" | "objects" | "stacks") => true,
        [other, ..] => return Err(format!("{name} --json knows no \"{other}\"")),
    };
    match name {
        "status" => return Ok(status()),
        "functions" => return Ok(functions()),
        _ => {}
    }
    if let Some(mut lines) = without_tasks(name, every_one) {
        return Ok(later(name, move || Found::Lines(std::mem::take(&mut lines), None)));
    }
    let tasks = matches!(name, "where_all" | "stacks" | "snapshot");
    let wanted = Options {
        stacks: tasks,
        running: tasks,
        objects: matches!(name, "objects" | "snapshot"),
        // Nothing of the tasks is shown otherwise.
        limit: if tasks { 0 } else { 1 },
    };
    let mut s = Snapshot::take(&wanted);
    let mut lines = Vec::new();
    match name {
        "snapshot" => {
            lines.extend(s.workers.drain(..).map(Line::Worker));
            lines.extend(s.stacks.drain(..).map(Line::Stack));
            lines.extend(s.tasks.drain(..).map(|t| Line::Task(Box::new(t))));
            lines.extend(s.objects.drain(..).map(|o| Line::Object(Box::new(o))));
            lines.extend(s.edges.drain(..).map(Line::Edge));
        }
        // A task's stack is the number of one of the stacks, counted from 0.
        "where_all" => {
            lines.extend(s.stacks.drain(..).map(Line::Stack));
            lines.extend(s.tasks.drain(..).map(|t| Line::Task(Box::new(t))));
        }
        "stacks" => {
            s.stacks.sort_by_key(|stack| std::cmp::Reverse(stack.count));
            lines.extend(s.stacks.drain(..).map(Line::Stack));
        }
        "workers" => lines.extend(s.workers.drain(..).map(Line::Worker)),
        "objects" => lines.extend(s.objects.drain(..).map(|o| Line::Object(Box::new(o)))),
        _ => return Err(format!("{name} has no form in JSON; snapshot --json has everything")),
    }
    Ok(written(name, s, lines))
}

/// What is known without a look at the tasks.
fn without_tasks(name: &str, every_one: bool) -> Option<Vec<Line>> {
    Some(match name {
        "fds" => {
            let mut lines = vec![Line::Descriptors(inspect::descriptors())];
            lines.extend(inspect::sockets_by_site().into_iter().map(Line::Site));
            if every_one {
                lines.extend(inspect::sockets().into_iter().map(|s| Line::Socket(Box::new(s))));
            }
            lines
        }
        "peers" => inspect::peers().into_iter().map(Line::Peer).collect(),
        "events" => inspect::events().into_iter().map(Line::Event).collect(),
        "blocking" => blocking(),
        "panics" => report::panics().into_iter().map(Line::Panic).collect(),
        "stalls" => report::stalls().into_iter().map(Line::Stall).collect(),
        _ => return None,
    })
}

fn blocking() -> Vec<Line> {
    let BlockingStats { limit, threads, idle, queued, oldest_queued, running, .. } = blocking_stats();
    let job = |job: BlockingJob| Line::Job(Job { task: job.task, age: job.age, site: job.site.into(), file: job.file });
    let mut lines = vec![Line::Pool(Pool { limit, threads, idle, queued, oldest_queued })];
    lines.extend(running.into_iter().map(job));
    lines
}

/// One task, in the form of `where_all`: its stack, if it has one, is the one stack that comes before it.
fn one(words: &[&str]) -> Begun {
    let id = one_id(words)?;
    let begun = (SystemTime::now(), Instant::now());
    let (task, stack) = inspect::one_as_values(id).ok_or_else(|| no_task(id))?;
    let mut lines: Vec<Line> = stack.into_iter().map(Line::Stack).collect();
    lines.push(Line::Task(Box::new(task)));
    Ok(headed(head("where", begun, lines.len()), lines))
}

/// Tasks of which `top --json` tells.
const MOST_SHARES: usize = 500;

fn top(words: &[&str]) -> Begun {
    let mut watching = Watching::new(words)?;
    Ok(later("top", move || {
        let tops = match watching.more(MOST_SHARES) {
            Ok(when) => return Found::NotYet(when),
            Err(tops) => tops,
        };
        let Some(tops) = tops else { return Found::Lines(Vec::new(), None) };
        let between = tops.between.as_secs_f64().max(1e-9);
        let mut lines = vec![Line::Top(TopLine { between: tops.between, tasks: tops.ran, cpu: tops.cpu })];
        lines.extend(
            tops.values()
                .into_iter()
                .map(|(task, ran)| Line::Share(Box::new(ShareLine { ran, share: ran.as_secs_f64() / between, task }))),
        );
        Found::Lines(lines, None)
    }))
}

fn status() -> Box<dyn Answer> {
    let mut counting = Counting::new();
    later("status", move || match counting.more() {
        None => Found::NotYet(When::Now),
        Some(figures) => Found::Lines(vec![Line::Status(Box::new(figures))], None),
    })
}

fn functions() -> Box<dyn Answer> {
    let all = FUNCTIONS.get().map(|functions| (functions.values)()).unwrap_or_default();
    let lines: Vec<Line> = all.into_iter().map(Line::Function).collect();
    headed(head("functions", (SystemTime::now(), Instant::now()), lines.len()), lines)
}

/// Of an answer for which no task was held.
fn head(answer: &'static str, begun: (SystemTime, Instant), rows: usize) -> Head {
    Head {
        schema_version: SCHEMA_VERSION,
        answer,
        rows,
        matched: None,
        taken_at: begun.0,
        took: begun.1.elapsed(),
        longest_window: Duration::ZERO,
        window_p9999: Duration::ZERO,
        process: inspect::process(),
    }
}

/// What has come of a search.
enum Found {
    NotYet(When),
    /// With how many there are, where these may be fewer.
    Lines(Vec<Line>, Option<u64>),
}

fn tasks(words: &[&str]) -> Begun {
    let question = question::parse(words)?;
    if let Some(by) = question.by {
        let groups = Groups::new(question.clauses, by);
        return Ok(grouped("tasks", groups, question.limit, None));
    }
    let mut values = Values::new(question);
    Ok(later("tasks", move || match values.more() {
        true => Found::NotYet(When::Now),
        false => {
            let matched = values.matched();
            Found::Lines(values.take().into_iter().map(|t| Line::Task(Box::new(t))).collect(), Some(matched))
        }
    }))
}

fn count(words: &[&str]) -> Begun {
    let (by, question) = counting(words)?;
    Ok(grouped("count", Groups::new(question.clauses, by), question.limit, Some(as_asked(words))))
}

/// With a question, compared with the last answer to it.
fn grouped(name: &'static str, mut groups: Groups, limit: Option<usize>, question: Option<String>) -> Box<dyn Answer> {
    later(name, move || {
        if groups.more() {
            return Found::NotYet(When::Now);
        }
        let mut rows: Vec<Row> = groups.take().into_iter().map(Row::from).collect();
        if let Some(question) = &question {
            compare(question, &mut rows);
        }
        rows.truncate(limit.unwrap_or(usize::MAX));
        Found::Lines(rows.into_iter().map(|row| Line::Group(row.into())).collect(), None)
    })
}

fn threads(words: &[&str]) -> Begun {
    let mut looking = Looking::new(span("threads", words, USUAL)?);
    Ok(later("threads", move || match looking.more() {
        Ok(Some(when)) => Found::NotYet(when),
        // Where the system lists none there are none to be told of.
        Ok(None) | Err(_) => {
            Found::Lines(std::mem::take(&mut looking.found).into_iter().map(Line::Thread).collect(), None)
        }
    }))
}

/// An answer whose rows are to be found first, a step at a time.
fn later(name: &'static str, find: impl FnMut() -> Found + 'static) -> Box<dyn Answer> {
    Box::new(Later { name, find, begun: (SystemTime::now(), Instant::now()), when: When::Now, rows: None })
}

struct Later<F> {
    name: &'static str,
    find: F,
    begun: (SystemTime, Instant),
    when: When,
    rows: Option<Box<dyn Answer>>,
}

impl<F: FnMut() -> Found> Answer for Later<F> {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if self.rows.is_none() {
            match (self.find)() {
                Found::NotYet(when) => {
                    self.when = when;
                    return true;
                }
                Found::Lines(lines, matched) => {
                    let head = Head { matched, ..head(self.name, self.begun, lines.len()) };
                    self.when = When::Now;
                    self.rows = Some(headed(head, lines));
                }
            }
        }
        self.rows.as_mut().is_some_and(|rows| rows.more(out))
    }

    fn when(&self) -> When {
        self.when
    }
}

fn written(name: &'static str, s: Snapshot, lines: Vec<Line>) -> Box<dyn Answer> {
    let head = Head {
        schema_version: SCHEMA_VERSION,
        answer: name,
        rows: lines.len(),
        matched: None,
        taken_at: s.taken_at,
        took: s.took,
        longest_window: s.longest_window,
        window_p9999: s.window_p9999,
        process: s.process,
    };
    headed(head, lines)
}

fn headed(head: Head, lines: Vec<Line>) -> Box<dyn Answer> {
    let mut first = String::new();
    write(&Line::Head(Box::new(head)), &mut first);
    rows(&first, lines, write)
}

fn write(line: &Line, out: &mut String) {
    // Nothing that is written here can fail, but for a clock before 1970; the line is then left out.
    if let Ok(text) = serde_json::to_string(line) {
        push_harmless(&text, out);
        out.push('\n');
    }
}

/// Some read JSON on a terminal. What it would obey stands in strings only, where JSON has a spelling of its own for it.
fn push_harmless(json: &str, out: &mut String) {
    use std::fmt::Write as _;
    if json.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return out.push_str(json);
    }
    for c in json.chars() {
        let _ = if inspect::steers(c) { write!(out, "\\u{:04x}", u32::from(c)) } else { out.write_char(c) };
    }
}

#[cfg(test)]
mod tests {
    use super::super::TABLE;

    #[test]
    fn what_a_terminal_obeys_comes_in_another_spelling() {
        let name = "a\x1b[2J\u{9b}2J\u{7f}\u{202e}\u{feff}ü日\n";
        let json = serde_json::to_string(name).expect("JSON");
        let mut out = String::new();
        super::push_harmless(&json, &mut out);
        assert!(!out.contains(crate::inspect::steers), "{out:?}");
        assert!(out.contains("ü日"), "{out}");
        assert_eq!(serde_json::from_str::<String>(&out).expect("JSON"), name);
    }

    fn answer(name: &str, words: &[&str]) -> String {
        let command = TABLE.iter().find(|c| c.names[0] == name).expect("a command");
        let (mut answer, mut out) =
            (command.begin(words, crate::commands::Asking::default()).expect("an answer"), Vec::new());
        while answer.more(&mut out) {}
        String::from_utf8(out).expect("text")
    }

    #[cfg(not(miri))]
    #[test]
    fn an_answer_that_is_cut_says_how_many_there_are() {
        use crate::scheduler::{self, runtime::Runtime};

        let rt = Runtime::builder().workers(1).build().expect("a runtime");
        let three = || (0..3).map(|_| scheduler::spawn_named("cut off", scheduler::park)).collect::<Vec<_>>();
        let tasks = rt.spawn(three).join().expect("no panic");
        let first = tasks.iter().map(|t| t.id()).min().expect("three");
        let text = answer("tasks", &["name=cut off", "sort=id", "limit=1", "--json"]);
        let values: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).expect(l)).collect();
        assert_eq!(
            (values[0]["head"]["rows"].as_u64(), values[0]["head"]["matched"].as_u64()),
            (Some(1), Some(3)),
            "{text}"
        );
        assert_eq!((values.len(), values[1]["task"]["id"].as_u64()), (2, Some(first)), "{text}");
        tasks.into_iter().for_each(|t| {
            let _ = t.task().cancel_now();
            drop(t.join());
        });
    }

    #[test]
    fn each_command_that_promises_json_answers_with_a_head_and_so_many_lines() {
        for command in TABLE.iter().filter(|c| c.arguments.contains("--json")) {
            let name = command.names[0];
            let words = match name {
                // There is no task here.
                "where" => continue,
                "top" => &["10ms", "--json"][..],
                _ => &["--json"],
            };
            let mut answer =
                command.begin(words, crate::commands::Asking::default()).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut out = Vec::new();
            while answer.more(&mut out) {}
            let text = String::from_utf8(out).expect("text");
            let mut values = text.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).expect(l));
            let head = &values.next().expect("a head")["head"];
            assert_eq!((head["schema_version"].as_u64(), head["answer"].as_str()), (Some(1), Some(name)));
            let rest: Vec<_> = values.collect();
            assert_eq!(head["rows"].as_u64(), Some(rest.len() as u64), "{name}");
            assert!(rest.iter().all(|v| v.as_object().is_some_and(|o| o.len() == 1)), "{text}");
        }
    }
}

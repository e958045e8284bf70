//! What can be asked of the process, and the text of the answers.
//!
//! A command is a row of [`TABLE`]: its names, what follows them, its help, and the function that begins an answer or says
//! what is wrong with the question. Answers come in pieces, so that none of them needs memory for its whole and nobody
//! else who asks waits for its end.
//!
//! Invariants: no command changes anything unless it says so by its [`Tier`]; every answer is whole lines in which foreign text is escaped.
//!
//! Must not know: who asks, or over what.

#![forbid(unsafe_code)]

mod act;
#[cfg(feature = "probe")]
mod elsewhere;
#[cfg(feature = "serde")]
mod figures;
#[cfg(feature = "serde")]
mod json;
mod measures;
#[cfg(feature = "probe")]
mod probes;
mod process;
mod question;
pub(crate) mod sessions;
mod status;
mod tables;
mod tasks;
mod text;
mod things;
mod threads;
mod top;
#[cfg(feature = "probe")]
mod trace;

#[cfg(feature = "script")]
pub(crate) use elsewhere::{FIRST_LOOK, next_look};
pub(crate) use status::{dump, status, status_text};
pub(crate) use text::nearest_of;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use text::at_once;

use crate::inspect::{self, Style};

/// Something that expressions can name.
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[cfg_attr(not(feature = "serde"), allow(dead_code, reason = "some of it is for programs only"))]
pub(crate) struct Callable {
    pub(crate) name: String,
    /// As it is written: `set_limit(clients: int)`.
    pub(crate) usage: String,
    /// `function`, or `value`, which is written without parentheses.
    pub(crate) kind: &'static str,
    /// Whose it is: `program` or `coro`.
    pub(crate) of: &'static str,
    /// What a session must be allowed.
    pub(crate) tier: &'static str,
    pub(crate) doc: String,
}

/// What expressions can name, as a text and as values; said by the layer that knows, above this one.
#[cfg_attr(not(feature = "serde"), allow(dead_code, reason = "values are for programs"))]
struct Functions {
    answer: fn() -> Box<dyn Answer>,
    values: fn() -> Vec<Callable>,
}

static FUNCTIONS: OnceLock<Functions> = OnceLock::new();

/// Says how `functions` is answered; the first call counts.
pub(crate) fn functions_with(answer: fn() -> Box<dyn Answer>, values: fn() -> Vec<Callable>) {
    let _ = FUNCTIONS.set(Functions { answer, values });
}

/// When an answer is to be asked for more, apart from the client having room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum When {
    #[default]
    Now,
    /// Not before that time; nobody else who asks is held up meanwhile.
    NotBefore(Instant),
    /// When the client's side has taken all that was said so far.
    AllSent,
}

/// An answer that is made while it is sent.
pub(crate) trait Answer {
    /// Appends some more of the answer to `out`, which comes empty; false when finished. Called until it returns false,
    /// whenever the client has room, and dropped early if the client goes away.
    ///
    /// A call should take at most 50 ms and append at most 64 KiB, of whole lines. Names and other foreign text must be
    /// escaped already.
    fn more(&mut self, out: &mut Vec<u8>) -> bool;

    /// When to call [`more`](Answer::more) again; looked at after each call that returned true.
    fn when(&self) -> When {
        When::Now
    }

    /// Whether what [`more`](Answer::more) has just given says why there is no answer.
    fn is_wrong(&self) -> bool {
        false
    }
}

/// The beginning of an answer, or what is wrong with the question: lines that say what to write instead. Input may be
/// repeated in them as it came.
pub(crate) type Begun = Result<Box<dyn Answer>, String>;

/// Asked before something is done that needs a tier: the tier, the name of what needs it, and the whole of what was typed.
/// Records what changes anything; an error says why it is not to be done.
#[cfg_attr(not(feature = "script"), allow(dead_code, reason = "expressions ask it"))]
pub(crate) type Permit = Arc<dyn Fn(Tier, &str, &str, &str) -> Result<(), String> + Send + Sync>;

/// A line that is no command.
#[cfg_attr(not(feature = "script"), allow(dead_code, reason = "expressions read it"))]
pub(crate) struct Expression<'a> {
    pub(crate) text: &'a str,
    /// The answer is to be lines of JSON.
    pub(crate) json: bool,
    /// Among them what is to be shown comes as text, a line each.
    pub(crate) lines: bool,
    pub(crate) permit: Permit,
    /// How long it may compute and sleep, where that is less than usual.
    pub(crate) limit: Option<Duration>,
    /// What to say if it is no expression either.
    pub(crate) unknown: String,
}

/// Evaluates one session's expressions. Neither function waits.
pub(crate) trait Evaluate {
    /// Whether `text` has to go on in another line: a bracket is open.
    fn is_open(&self, text: &str) -> bool;

    /// Begins the answer.
    fn begin(&mut self, expression: Expression<'_>) -> Begun;

    /// Whole lines that belong to no answer, if there are some: what goes on by itself says them. Foreign text in them is
    /// escaped.
    fn aside(&mut self) -> Option<String> {
        None
    }
}

/// How much a session may do. Each begins with [`Read`](Tier::Read) and is raised by `enable`, up to what its server
/// allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Looks and changes nothing.
    Read,
    /// Also watches the program more closely than it does by itself: what it measures and tells.
    Probe,
    /// Also changes what the program does: ends tasks, gives memory back, ends the process.
    Act,
}

impl Tier {
    /// The tier of that name.
    pub(crate) fn named(name: &str) -> Option<Tier> {
        [Tier::Read, Tier::Probe, Tier::Act].into_iter().find(|tier| tier.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Tier::Read => "read",
            Tier::Probe => "probe",
            Tier::Act => "act",
        }
    }
}

impl std::fmt::Display for Tier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What came after a command's name.
#[derive(Debug)]
pub(crate) struct Asked<'a> {
    /// Without those that every command knows.
    pub(crate) words: &'a [&'a str],
    pub(crate) style: Style,
    #[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "probes ask it"))]
    pub(crate) by: Asking<'a>,
}

/// What the session that asks has of probes.
#[cfg(feature = "probe")]
pub(crate) type Probes<'a> = Option<&'a crate::probe::SessionProbes>;
#[cfg(not(feature = "probe"))]
pub(crate) type Probes<'a> = std::marker::PhantomData<&'a ()>;

/// Who asks, and how it was typed.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "probes ask it"))]
pub(crate) struct Asking<'a> {
    /// What came after the name, with the flags.
    pub(crate) typed: &'a str,
    pub(crate) probes: Probes<'a>,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Command {
    /// The first is the command's own; the others do the same.
    pub(crate) names: &'static [&'static str],
    /// What follows the name, for `help`.
    pub(crate) arguments: &'static str,
    pub(crate) help: &'static str,
    /// What a session must be allowed for these words, which hold no flags. Checked by whoever asks, before `run`.
    pub(crate) tier: fn(&[&str]) -> Tier,
    /// Begins an answer to the words that came after the name.
    pub(crate) run: fn(&Asked<'_>) -> Begun,
}

/// For a command that only looks.
pub(crate) const READ: fn(&[&str]) -> Tier = |_| Tier::Read;

/// What every command knows.
const FLAGS: &[&str] = &["--colour", "--color", "--json"];

impl Command {
    /// What a session must be allowed for the words that came after the name: judged without the flags, as the answer is
    /// begun without them.
    pub(crate) fn tier_for(&self, words: &[&str]) -> Tier {
        let words: Vec<&str> = words.iter().copied().filter(|word| !FLAGS.contains(word)).collect();
        (self.tier)(&words)
    }

    /// Begins an answer to the words that came after the name. Every command knows `--colour`, and `--json` if its row
    /// says so.
    pub(crate) fn begin(&self, words: &[&str], by: Asking<'_>) -> Begun {
        let (flags, words): (Vec<&str>, Vec<&str>) = words.iter().partition(|word| FLAGS.contains(word));
        if flags.contains(&"--json") {
            return self.begin_json(&words);
        }
        let style = if flags.is_empty() { Style::PLAIN } else { Style::COLOURED };
        (self.run)(&Asked { words: &words, style, by })
    }

    /// Whether the row says that there is a form in JSON, and the program has it.
    pub(crate) fn has_json(&self) -> bool {
        cfg!(feature = "serde") && self.arguments.contains("--json")
    }

    fn begin_json(&self, words: &[&str]) -> Begun {
        let name = self.names[0];
        if !self.arguments.contains("--json") {
            return Err(format!("{name} has no form in JSON; snapshot --json has everything"));
        }
        #[cfg(feature = "serde")]
        return json::begin(name, words);
        #[cfg(not(feature = "serde"))]
        {
            let _ = words;
            Err("this program was built without JSON: add the feature \"serde\" to its dependency on coro-rt".into())
        }
    }
}

/// In the order in which `help` shows them.
pub(crate) static TABLE: &[Command] = &[
    Command {
        names: &["status"],
        arguments: "[--json]",
        help: "the whole process on one screen: begin here",
        tier: READ,
        run: |asked| match asked.words {
            [] => Ok(status(asked.style)),
            _ => Err("status takes no argument".into()),
        },
    },
    Command {
        names: &["where_all"],
        arguments: "[--json]",
        help: "every task: its id, name, state, what it waits for and its stack",
        tier: READ,
        run: |asked| match asked.words {
            [] => Ok(Box::new(inspect::Cursor::styled(asked.style))),
            _ => Err("where_all takes no argument; where ID shows one task".into()),
        },
    },
    Command {
        names: &["stacks"],
        arguments: "[--all] [--json]",
        help: "every stack once, with how many tasks have it; --all: with their ids",
        tier: READ,
        run: |asked| flag("stacks", asked, "--all", |all, style| Box::new(inspect::StacksCursor::new(all, style))),
    },
    Command {
        names: &["where", "where_is"],
        arguments: "ID [--json]",
        help: "one task, by its id: where 17 or where #17",
        tier: READ,
        run: |asked| where_is(asked.words),
    },
    Command {
        names: &["tasks"],
        arguments: "[FILTERS] [--json]",
        help: "those that fit: tasks state=parked wait=lock age>5s by=site sort=age limit=20 name~TEXT",
        tier: READ,
        run: tasks::tasks,
    },
    Command {
        names: &["count"],
        arguments: "[by FIELD] [FILTERS] [--json]",
        help: "tasks by class, site, wait, peer, parent, state, worker or name, and the change since last time",
        tier: READ,
        run: tasks::count_by,
    },
    Command {
        names: &["label", "labels"],
        arguments: "ID",
        help: "one task's labels",
        tier: READ,
        run: |asked| tasks::label(asked.words),
    },
    Command {
        names: &["top"],
        arguments: "[SECONDS] [--json]",
        help: "who runs: tasks, classes and workers with most run time in the next second, or so many",
        tier: READ,
        run: |asked| top::top(asked.words),
    },
    Command {
        names: &["tree"],
        arguments: "",
        help: "who spawned whom, tasks of one class together",
        tier: READ,
        run: |asked| match asked.words {
            [] => Ok(Box::new(inspect::TreeCursor::new(asked.style))),
            _ => Err("tree takes no argument".into()),
        },
    },
    Command {
        names: &["deadlocks"],
        arguments: "[--suspected]",
        help: "tasks that wait for one another; --suspected: also where somebody else might help",
        tier: READ,
        run: |asked| flag("deadlocks", asked, "--suspected", |suspected, _| tables::deadlocks(suspected)),
    },
    Command {
        names: &["objects", "locks", "channels"],
        arguments: "[--all] [--json]",
        help: "locks, channels and the like: who holds them, how many wait; --all: each by itself",
        tier: READ,
        run: |asked| flag("objects", asked, "--all", |all, _| things::objects(all)),
    },
    Command {
        names: &["fds", "sockets"],
        arguments: "[--all] [--json]",
        help: "descriptors against the limit, sockets by the place that opened them; --all: each",
        tier: READ,
        run: |asked| flag("fds", asked, "--all", |all, _| things::descriptors(all)),
    },
    Command {
        names: &["peers"],
        arguments: "[--json]",
        help: "the other ends of all connections: how many to each, how many tasks wait, bytes",
        tier: READ,
        run: |asked| bare("peers", asked, things::peers),
    },
    Command {
        names: &["events"],
        arguments: "[--json]",
        help: "the event map: each descriptor that somebody waits for, by direction, with the tasks",
        tier: READ,
        run: |asked| bare("events", asked, things::events),
    },
    Command {
        names: &["panics"],
        arguments: "[--json]",
        help: "the last kinds of panics, caught ones too, by place: how often, when, the message, the stack",
        tier: READ,
        run: |asked| bare("panics", asked, tables::panics),
    },
    Command {
        names: &["stalls"],
        arguments: "[--json]",
        help: "the last kinds of slices that kept a worker for too long, by place",
        tier: READ,
        run: |asked| bare("stalls", asked, tables::stalls),
    },
    Command {
        names: &["workers"],
        arguments: "[--json]",
        help: "every worker: what it runs and for how long, its queues and its load",
        tier: READ,
        run: |asked| bare("workers", asked, tables::workers),
    },
    Command {
        names: &["classes"],
        arguments: "",
        help: "by class of tasks: how long slices are, and how long a woken task waits for its worker",
        tier: READ,
        run: |asked| bare("classes", asked, tables::classes),
    },
    Command {
        names: &["histogram"],
        arguments: "[CLASS]",
        help: "how long slices are and how long woken tasks wait for their worker, drawn",
        tier: READ,
        run: |asked| measures::histogram(asked.words),
    },
    Command {
        names: &["latency"],
        arguments: "[set 50ms|off]",
        help: "from which length on a slice is reported; set changes it",
        tier: measures::latency_tier,
        run: |asked| measures::latency(asked.words),
    },
    Command {
        names: &["threads"],
        arguments: "[SECONDS] [--json]",
        help: "every thread of the process: CPU share, state, system call; which are coro's own",
        tier: READ,
        run: |asked| threads::threads(asked.words),
    },
    Command {
        names: &["blocking"],
        arguments: "[--json]",
        help: "the pool of blocking jobs: its threads, how many jobs wait, each job that runs",
        tier: READ,
        run: |asked| bare("blocking", asked, process::blocking),
    },
    Command {
        names: &["version"],
        arguments: "",
        help: "this crate's version, the program and its build",
        tier: READ,
        run: |asked| bare("version", asked, process::version),
    },
    Command {
        names: &["uptime"],
        arguments: "",
        help: "how long the process has run, and its CPU time",
        tier: READ,
        run: |asked| bare("uptime", asked, process::uptime),
    },
    Command {
        names: &["modules"],
        arguments: "",
        help: "the program and its libraries: addresses, build ids, files",
        tier: READ,
        run: |arguments| bare("modules", arguments, || at_once(inspect::loaded::modules_text())),
    },
    Command {
        names: &["memory"],
        arguments: "[trim]",
        help: "resident memory, stacks in use and how deep they are; trim gives unused stacks back",
        tier: act::memory_tier,
        run: |asked| match asked.words {
            ["trim"] => Ok(act::trim()),
            [] => Ok(tables::memory()),
            [other, ..] => Err(format!("memory knows no \"{other}\", only trim")),
        },
    },
    Command {
        names: &["functions"],
        arguments: "[--json]",
        help: "what expressions can call: the program's own functions and values, and what there is of coro",
        tier: READ,
        run: |asked| {
            bare("functions", asked, || match FUNCTIONS.get() {
                Some(functions) => (functions.answer)(),
                None => at_once("there are no expressions here\n".into()),
            })
        },
    },
    Command {
        names: &["sessions"],
        arguments: "",
        help: "who is connected to this process's backdoors, and what each asked last",
        tier: READ,
        run: |asked| bare("sessions", asked, sessions::sessions),
    },
    Command {
        names: &["snapshot"],
        arguments: "--json",
        help: "everything for programs: tasks, stacks, workers, objects and edges, one JSON object a line",
        tier: READ,
        run: |_| Err("a snapshot is for programs: snapshot --json; people ask where_all, stacks or tree".into()),
    },
    Command {
        names: &["set"],
        arguments: "[NAME VALUE]",
        help: "settings that can be changed while the program runs",
        tier: measures::set_tier,
        run: |asked| measures::set(asked.words),
    },
    #[cfg(feature = "probe")]
    Command {
        names: &["probe"],
        arguments: "list|attach|show|detach …",
        help: "what is watched: probe list, attach PATTERN log, show, apply FILE, release ID, detach ID",
        tier: probes::tier,
        run: probes::probe,
    },
    #[cfg(feature = "probe")]
    Command {
        names: &["trace"],
        arguments: "net|locks|channels|timers|off …",
        help: "calls as they begin and return: trace net peer=ADDRESS bytes, trace locks name=PATTERN waits",
        tier: trace::tier,
        run: trace::trace,
    },
    Command {
        names: &["cancel"],
        arguments: "ID… | --match PATTERN --count N",
        help: "tells tasks to end: by id, or exactly N whose name or class is PATTERN, * for anything",
        tier: |_| Tier::Act,
        run: |asked| act::cancel(asked.words),
    },
    Command {
        names: &["process-exit"],
        arguments: "CODE PID",
        help: "ends the process at once; PID has to be its own",
        tier: |_| Tier::Act,
        run: |asked| act::exit(asked.words),
    },
];

/// For a command that takes no argument.
fn bare(name: &str, asked: &Asked<'_>, answer: fn() -> Box<dyn Answer>) -> Begun {
    match asked.words {
        [] => Ok(answer()),
        _ => Err(format!("{name} takes no argument")),
    }
}

/// For a command that takes one word or none.
fn flag(name: &str, asked: &Asked<'_>, word: &str, answer: fn(bool, Style) -> Box<dyn Answer>) -> Begun {
    match asked.words {
        [] => Ok(answer(false, asked.style)),
        [given] if *given == word => Ok(answer(true, asked.style)),
        [other, ..] => Err(format!("{name} knows no \"{other}\", only {word}")),
    }
}

impl Answer for inspect::Cursor {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        inspect::Cursor::more(self, out)
    }
}

impl Answer for inspect::StacksCursor {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        inspect::StacksCursor::more(self, out)
    }
}

impl Answer for inspect::TreeCursor {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        inspect::TreeCursor::more(self, out)
    }
}

fn where_is(arguments: &[&str]) -> Begun {
    let id = one_id(arguments)?;
    inspect::one(id).map(at_once).ok_or_else(|| no_task(id))
}

/// The id that `where` is asked for.
fn one_id(arguments: &[&str]) -> Result<u64, String> {
    let [argument] = arguments else {
        return Err("where takes one task's id: where 17 or where #17; where_all shows the ids".into());
    };
    question::id(argument)
        .ok_or_else(|| format!("\"{argument}\" is not a task's id: write 17 or #17; where_all shows the ids"))
}

fn no_task(id: u64) -> String {
    format!("no task #{id}: it has ended, or never was; where_all lists those that are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(line: &str) -> Begun {
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        let command = TABLE.iter().find(|c| c.names.contains(&name)).expect("a command");
        command.begin(&words.collect::<Vec<_>>(), Asking::default())
    }

    fn complaint(line: &str) -> String {
        begin(line).err().unwrap_or_else(|| panic!("{line:?} was answered"))
    }

    #[test]
    fn what_is_no_id_is_named() {
        for word in ["+17", "-1", "##1", "0x11", "18446744073709551616", "#"] {
            assert!(
                complaint(&format!("where {word}")).starts_with(&format!("\"{word}\" is not a task's id")),
                "{word}"
            );
        }
        assert!(complaint("where").starts_with("where takes one"));
        assert!(complaint("where 1 2").starts_with("where takes one"));
        assert!(complaint("where 18446744073709551615").starts_with("no task #18446744073709551615: "));
    }

    #[test]
    fn every_command_has_help_and_complains_of_arguments_that_it_does_not_know() {
        let mut names: Vec<&str> = TABLE.iter().flat_map(|c| c.names).copied().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "a name stands twice: {names:?}");
        for command in TABLE {
            assert!(!command.help.is_empty() && command.help.len() < 100, "{command:?}");
            let text = complaint(&format!("{} nonsense", command.names[0]));
            assert!(text.contains(command.names[0]) || text.contains("nonsense"), "{text}");
        }
    }

    #[test]
    fn flags_that_every_command_knows() {
        for line in ["status --colour", "where_all --color", "stacks --colour --all", "stacks --all --colour"] {
            assert!(begin(line).is_ok(), "{line}");
        }
        assert!(complaint("memory --json").starts_with("memory has no form in JSON"));
        assert!(complaint("snapshot").contains("snapshot --json"));
        #[cfg(not(feature = "serde"))]
        assert!(complaint("where_all --json").contains("feature \"serde\""));
    }
}

//! What can be asked of the process, and the text of the answers.
//!
//! A command is a row of [`TABLE`]: its names, what follows them, its help, and the function that begins an answer or says
//! what is wrong with the question. Answers come in pieces, so that none of them needs memory for its whole and nobody
//! else who asks waits for its end.
//!
//! Invariants: no command changes anything; every answer is whole lines in which foreign text is escaped.
//!
//! Must not know: who asks, or over what.

#![forbid(unsafe_code)]

mod status;
mod tables;
mod text;
mod things;

pub(crate) use status::{dump, status};

use text::at_once;

use crate::inspect;

/// An answer that is made while it is sent.
pub(crate) trait Answer {
    /// Appends some more of the answer to `out`, which comes empty; false when finished. Called until it returns false,
    /// whenever the client has room, and dropped early if the client goes away.
    ///
    /// A call should take at most 50 ms and append at most 64 KiB, of whole lines. Names and other foreign text must be
    /// escaped already.
    fn more(&mut self, out: &mut Vec<u8>) -> bool;
}

/// The beginning of an answer, or what is wrong with the question: lines that say what to write instead. Input may be
/// repeated in them as it came.
pub(crate) type Begun = Result<Box<dyn Answer>, String>;

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Command {
    /// The first is the command's own; the others do the same.
    pub(crate) names: &'static [&'static str],
    /// What follows the name, for `help`.
    pub(crate) arguments: &'static str,
    pub(crate) help: &'static str,
    /// Begins an answer to the words that came after the name.
    pub(crate) run: fn(&[&str]) -> Begun,
}

/// In the order in which `help` shows them.
pub(crate) static TABLE: &[Command] = &[
    Command {
        names: &["status"],
        arguments: "",
        help: "the whole process on one screen: begin here",
        run: |arguments| bare("status", arguments, status),
    },
    Command {
        names: &["where_all"],
        arguments: "",
        help: "every task: its id, name, state and stack",
        run: |arguments| match arguments {
            [] => Ok(Box::new(inspect::Cursor::new())),
            _ => Err("where_all takes no argument; where ID shows one task".into()),
        },
    },
    Command {
        names: &["stacks"],
        arguments: "[--all]",
        help: "every stack once, with how many tasks have it; with their ids",
        run: |arguments| match arguments {
            [] => Ok(Box::new(inspect::StacksCursor::new(false, inspect::Style::PLAIN))),
            ["--all"] => Ok(Box::new(inspect::StacksCursor::new(true, inspect::Style::PLAIN))),
            [other, ..] => Err(format!("stacks knows no \"{other}\", only --all")),
        },
    },
    Command {
        names: &["tree"],
        arguments: "",
        help: "who spawned whom, tasks of one class together",
        run: |arguments| match arguments {
            [] => Ok(Box::new(inspect::TreeCursor::new(inspect::Style::PLAIN))),
            _ => Err("tree takes no argument".into()),
        },
    },
    Command {
        names: &["where", "where_is"],
        arguments: "ID",
        help: "one task, by its id: where 17 or where #17",
        run: where_is,
    },
    Command {
        names: &["deadlocks"],
        arguments: "[--suspected]",
        help: "tasks that wait for one another; also those that only seem to",
        run: |arguments| match arguments {
            [] => Ok(tables::deadlocks(false)),
            ["--suspected"] => Ok(tables::deadlocks(true)),
            [other, ..] => Err(format!("deadlocks knows no \"{other}\", only --suspected")),
        },
    },
    Command {
        names: &["objects"],
        arguments: "",
        help: "locks, channels and the like: who holds them and for how long, how many wait",
        run: |arguments| bare("objects", arguments, things::objects),
    },
    Command {
        names: &["fds"],
        arguments: "[--all]",
        help: "descriptors against the limit, sockets by place and by peer; every socket",
        run: |arguments| match arguments {
            [] => Ok(things::descriptors(false)),
            ["--all"] => Ok(things::descriptors(true)),
            [other, ..] => Err(format!("fds knows no \"{other}\", only --all")),
        },
    },
    Command {
        names: &["events"],
        arguments: "",
        help: "the event map: each descriptor that somebody waits for, by direction, with the tasks",
        run: |arguments| bare("events", arguments, things::events),
    },
    Command {
        names: &["panics"],
        arguments: "",
        help: "the last kinds of panics that ended a task, by place: how often, when, the message, the stack",
        run: |arguments| bare("panics", arguments, tables::panics),
    },
    Command {
        names: &["stalls"],
        arguments: "",
        help: "the last kinds of slices that kept a worker for too long, by place",
        run: |arguments| bare("stalls", arguments, tables::stalls),
    },
    Command {
        names: &["workers"],
        arguments: "",
        help: "every worker: what it runs and for how long, its queues and its load",
        run: |arguments| bare("workers", arguments, tables::workers),
    },
    Command {
        names: &["classes"],
        arguments: "",
        help: "by class of tasks: how long slices are, and how long a woken task waits for its worker",
        run: |arguments| bare("classes", arguments, tables::classes),
    },
    Command {
        names: &["memory"],
        arguments: "",
        help: "resident memory, stacks in use and how deep they are",
        run: |arguments| bare("memory", arguments, tables::memory),
    },
];

/// For a command that takes no argument.
fn bare(name: &str, arguments: &[&str], answer: fn() -> Box<dyn Answer>) -> Begun {
    match arguments {
        [] => Ok(answer()),
        _ => Err(format!("{name} takes no argument")),
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
    let [argument] = arguments else {
        return Err("where takes one task's id: where 17 or where #17; where_all shows the ids".into());
    };
    let digits = argument.strip_prefix('#').unwrap_or(argument);
    // `parse` alone would take "+17".
    match digits.parse() {
        Ok(id) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(at_once(inspect::one(id))),
        _ => Err(format!("\"{argument}\" is not a task's id: write 17 or #17; where_all shows the ids")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(line: &str) -> Begun {
        let mut words = line.split(' ');
        let name = words.next().expect("a name");
        let command = TABLE.iter().find(|c| c.names.contains(&name)).expect("a command");
        (command.run)(&words.collect::<Vec<_>>())
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
        assert!(begin("where 18446744073709551615").is_ok());
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
}

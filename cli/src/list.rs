//! `coro list`: the sockets of this user's programs, and what answers there.
//!
//! Must not know: how a program is looked into.

#![forbid(unsafe_code)]

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::target::{self, Target};
use crate::terminal::{Notice, harmless};
use crate::wire::{Said, Session};
use crate::{Failure, Outcome};

pub(crate) const USAGE: &str = "usage: coro list [--json]
The programs of this user that can be looked into: those whose socket lies where coro::backdoor::serve_default() and
CORO_BACKDOOR=1 put it, in $XDG_RUNTIME_DIR/coro or coro-UID in the directory for temporary files. Sockets at other
paths are not found. A dead socket was left by a process that was killed, and can be removed.
  --json   one JSON object a line
Exit code: 0, also if there is none.";

/// All of them are asked at the same time; who says nothing for so long is listed as silent.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is said of a socket that was left behind.
const DEAD: &str = "dead: its process is gone";

/// What was found out about one socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    /// The first word of the socket's file, which is the process's id by default.
    pid: String,
    program: String,
    uptime: String,
    tasks: String,
    /// Why there is no more to say.
    problem: Option<String>,
}

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    let mut json = false;
    while let Some(argument) = arguments.next()? {
        match argument {
            lexopt::Arg::Long("json") => json = true,
            other => return Err(other.unexpected().into()),
        }
    }
    let directories = target::our_directories();
    let mut sockets: Vec<PathBuf> = Vec::new();
    for directory in &directories {
        let files = std::fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
        sockets.extend(files.filter(|path| path.extension().is_some_and(|it| it == "sock") && target::is_socket(path)));
    }
    // Two names may lead to one directory.
    sockets.sort_by_key(|path| (number(path), path.clone()));
    sockets.dedup_by_key(|path| path.canonicalize().unwrap_or_else(|_| path.clone()));
    let found = look(&sockets);
    let mut text = String::new();
    if json {
        for (path, it) in sockets.iter().zip(&found) {
            let row = serde_json::json!({ "socket": path.to_string_lossy(), "pid": it.pid.parse::<u32>().ok(),
                "program": (!it.program.is_empty()).then_some(&it.program), "uptime": (!it.uptime.is_empty()).then_some(&it.uptime),
                "tasks": it.tasks.replace(',', "").parse::<u64>().ok(), "problem": it.problem });
            text += &format!("{row}\n");
        }
    } else {
        text = table(&sockets, &found);
        if sockets.is_empty() {
            let shown: Vec<String> = directories.iter().map(|directory| directory.display().to_string()).collect();
            eprintln!(
                "no program of this user serves a socket in {}; it does so if it calls coro::backdoor::serve_default() or is \
                 started with CORO_BACKDOOR=1",
                shown.join(", ")
            );
        }
    }
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("cannot write the list ({error})")))
        }
        _ => Ok(()),
    }
}

/// The process's id in the socket's name.
fn number(path: &std::path::Path) -> Option<u32> {
    path.file_stem()?.to_str()?.parse().ok()
}

fn look(sockets: &[PathBuf]) -> Vec<Found> {
    let (done, answers) = mpsc::channel();
    for (index, path) in sockets.iter().enumerate() {
        let (path, done) = (path.clone(), done.clone());
        // A process that was stopped with its backlog full keeps a thread in `connect`, until we exit.
        std::thread::spawn(move || drop(done.send((index, ask(&path)))));
    }
    drop(done);
    let silent = |path: &PathBuf| Found {
        pid: number(path).map(|pid| pid.to_string()).unwrap_or_default(),
        program: number(path).and_then(target::program_of).unwrap_or_default(),
        problem: Some("no answer yet: stopped, or busy".into()),
        ..Found::default()
    };
    let mut found: Vec<Found> = sockets.iter().map(silent).collect();
    let deadline = Instant::now() + PATIENCE + Duration::from_millis(500);
    let (mut heard, mut notice) = (0, Notice::default());
    let mut look_up = Instant::now() + Duration::from_secs(1);
    loop {
        let now = Instant::now();
        match answers.recv_timeout(look_up.min(deadline).saturating_duration_since(now)) {
            Ok((index, one)) => {
                found[index] = one;
                heard += 1;
            }
            Err(mpsc::RecvTimeoutError::Timeout) if now < deadline => {
                notice.show(&format!("{} of {} have not answered yet", sockets.len() - heard, sockets.len()));
                look_up = deadline;
            }
            Err(_) => break,
        }
    }
    found
}

fn ask(path: &std::path::Path) -> Found {
    let mut found = Found { pid: number(path).map(|pid| pid.to_string()).unwrap_or_default(), ..Found::default() };
    let mut session = match Session::open_within(&Target::Path(path.to_owned()), PATIENCE) {
        Ok(session) => session,
        Err(why) => {
            let dead = why.contains("nobody serves it");
            found.program = number(path).and_then(target::program_of).filter(|_| !dead).unwrap_or_default();
            found.problem = Some(match why.strip_prefix(&format!("{}: ", path.display())) {
                _ if dead => DEAD.into(),
                Some(rest) => rest.to_owned(),
                None => why,
            });
            return found;
        }
    };
    if let Some((name, rest)) = session.banner.split_once(" pid ") {
        found.program = name.to_owned();
        found.pid = rest.chars().take_while(char::is_ascii_digit).collect();
    }
    let begun = Instant::now();
    let asked = session.ask("status", |said| {
        if let Said::Line(line) = said {
            read_status(line, &mut found);
        }
        begun.elapsed() < PATIENCE
    });
    if let Err(broken) = asked {
        found.problem = Some(broken.0);
    }
    session.close();
    found
}

/// `tasks      505: 505 parked  → where_all` and `workers    2 workers, load 3% 4%; up 12s, CPU 3ms  → workers`.
fn read_status(line: &str, found: &mut Found) {
    if let Some(rest) = line.strip_prefix("tasks ") {
        found.tasks = rest.trim().split([':', ' ']).next().unwrap_or_default().to_owned();
    } else if let Some((_, rest)) = line.strip_prefix("workers ").and_then(|rest| rest.split_once("; up ")) {
        found.uptime = rest.split(',').next().unwrap_or_default().to_owned();
    }
}

fn table(sockets: &[PathBuf], found: &[Found]) -> String {
    if sockets.is_empty() {
        return String::new();
    }
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut rows = vec![["PID", "PROGRAM", "UPTIME", "TASKS", "SOCKET"].map(str::to_owned)];
    let mut all: Vec<(&PathBuf, &Found)> = sockets.iter().zip(found).collect();
    // Those that can be looked into, then those that might be, then the dead.
    all.sort_by_key(|(_, it)| it.problem.as_ref().map_or(0, |why| if why == DEAD { 2 } else { 1 }));
    for (path, it) in all {
        let problem = it.problem.as_ref().map(|why| format!("  {why}")).unwrap_or_default();
        let socket = harmless(&format!("{}{problem}", path.display())).into_owned();
        rows.push([or_dash(&it.pid), or_dash(&it.program), or_dash(&it.uptime), or_dash(&it.tasks), socket]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..4).map(width).collect();
    let mut out = String::new();
    for [pid, program, uptime, tasks, socket] in &rows {
        out += &format!(
            "{pid:>0$}  {program:1$}  {uptime:>2$}  {tasks:>3$}  {socket}\n",
            widths[0], widths[1], widths[2], widths[3]
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_tells_how_many_tasks_and_since_when() {
        let mut found = Found::default();
        for line in [
            "tasks      1,505: 1,505 parked  → where_all",
            "waits      500 recv (up to 3.2s)  → stacks",
            "workers    2 workers, load 3% 4%; up 12s, CPU 3ms  → workers",
        ] {
            read_status(line, &mut found);
        }
        assert_eq!((found.tasks.as_str(), found.uptime.as_str()), ("1,505", "12s"));
    }

    #[test]
    fn the_list_is_a_table() {
        let live = Found {
            pid: "4711".into(),
            program: "demo".into(),
            uptime: "3.2s".into(),
            tasks: "108".into(),
            problem: None,
        };
        let dead = Found { pid: "17".into(), problem: Some(DEAD.into()), ..Found::default() };
        let text = table(&["/run/17.sock".into(), "/run/4711.sock".into()], &[dead, live]);
        let expected = " PID  PROGRAM  UPTIME  TASKS  SOCKET\n4711  demo       3.2s    108  /run/4711.sock\n  17  \
                        -             -      -  /run/17.sock  dead: its process is gone\n";
        assert_eq!(text, expected);
    }
}

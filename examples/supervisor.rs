//! A supervisor: starts programs, starts again those that end, and stops them all in order when it is told to.
//!
//! ```text
//! cargo run --release --example supervisor -- redis-server --port 7001 -- python3 worker.py --queue mail
//! ```
//!
//! Each program has a task, which waits for its end without polling: `where_all` shows `wait child pid 4711 "redis-server"`, or
//! the `sleep` before the next start; `children` at the backdoor has the rest. Standard output and errors are inherited.
//!
//! SIGTERM and SIGINT stop the programs, the last one first: SIGTERM, some time to end in, then SIGKILL, to the process
//! group of the program. Exit code 0 then, 1 if it cannot start, 2 when called wrongly.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use coro::console::Value;
use coro::process::{Child, Command};
use coro::signal::{SIGINT, SIGTERM, Signals};

mod util;

const USAGE: &str = "usage: supervisor [OPTIONS] [--] PROGRAM [ARGUMENTS] [-- PROGRAM [ARGUMENTS]]…
  --grace MS       how long a program may take to end after SIGTERM (default 5000)
  --backoff MS     how long to wait before a program is started again, twice as long each time (default 100)
  --backdoor PATH  the backdoor's socket (default in a private directory)";

/// The longest time before a program is started again.
const LONGEST: Duration = Duration::from_secs(10);
/// Who ran as long is taken for well again: the next start comes soon.
const WELL: Duration = Duration::from_secs(10);

/// Nothing is started any more.
static STOPPING: AtomicBool = AtomicBool::new(false);

struct Program {
    name: String,
    /// With the program itself.
    words: Vec<OsString>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pid: Option<u32>,
    starts: i64,
    /// How it ended last.
    ended: Option<String>,
}

impl Program {
    fn new(words: Vec<OsString>) -> Program {
        let name = Path::new(&words[0]).file_name().unwrap_or(&words[0]).to_string_lossy().into_owned();
        Program { name, words, state: Mutex::default() }
    }

    fn state<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn say(&self, what: &str) {
        coro::print_stderr!("{}: {what}", self.name);
    }

    fn start(&self) -> io::Result<Child> {
        // A group of its own: Ctrl-C at the terminal is for the supervisor, and what a program starts is killed with it.
        let child = Command::new(&self.words[0]).args(&self.words[1..]).process_group(0).spawn()?;
        self.state(|s| (s.pid, s.starts) = (Some(child.id()), s.starts + 1));
        self.say(&format!("started, pid {}", child.id()));
        Ok(child)
    }

    fn has_ended(&self, how: &str) {
        self.state(|s| (s.pid, s.ended) = (None, Some(how.to_owned())));
    }

    /// For the console.
    fn row(&self) -> Value {
        self.state(|s| {
            Value::map([
                ("name", Value::of(&*self.name)),
                ("pid", Value::of(s.pid)),
                ("starts", Value::of(s.starts)),
                ("ended", Value::of(s.ended.clone())),
            ])
        })
    }
}

/// Until this task is cancelled, or the program ends while others are being stopped.
fn supervise(program: &Program, o: &Options) {
    let mut backoff = o.backoff;
    while !STOPPING.load(Ordering::Relaxed) {
        let began = Instant::now();
        let how = match program.start() {
            Ok(mut child) => match child.wait() {
                Ok(status) => status.to_string(),
                // The cancellation, as an error first; every wait outside of the shield unwinds from now on.
                Err(_) if coro::is_cancelled() => return coro::shield(|| stop(program, &mut child, o.grace)),
                Err(e) => return program.say(&format!("cannot be waited for: {e}")),
            },
            Err(_) if coro::is_cancelled() => return,
            Err(e) => format!("cannot be started: {e}"),
        };
        program.has_ended(&how);
        backoff = if began.elapsed() >= WELL { o.backoff } else { backoff };
        program.say(&format!("{how}; again in {backoff:?}"));
        coro::sleep(backoff);
        backoff = (backoff * 2).min(LONGEST);
    }
}

/// Asks the child to end, waits so long, and makes it.
fn stop(program: &Program, child: &mut Child, grace: Duration) {
    send(child, libc::SIGTERM);
    let status = match coro::timeout(grace, || child.wait()) {
        Ok(status) => status,
        // It ended just as the time was up: it is waited for, and its number may be another's.
        Err(e) if matches!(e.value(), Some(Ok(_))) => e.into_value().expect("it is there"),
        Err(_) => {
            program.say("does not end, and is killed");
            send(child, libc::SIGKILL);
            child.wait()
        }
    };
    let how = status.map_or_else(|e| e.to_string(), |s| s.to_string());
    program.has_ended(&how);
    program.say(&format!("stopped: {how}"));
}

/// To the group of a child that nobody has waited for, so that no other process has its number.
fn send(child: &Child, signal: libc::c_int) {
    // SAFETY: a system call on numbers.
    unsafe { libc::kill(-child.id().cast_signed(), signal) };
}

fn run(o: &'static Options) -> io::Result<()> {
    // Before the first child: nothing that is told is missed.
    let mut signals = Signals::new(&[SIGTERM, SIGINT])?;
    let programs: Vec<Arc<Program>> = o.programs.iter().map(|words| Arc::new(Program::new(words.clone()))).collect();
    let shown = programs.clone();
    coro::console::register_value("children", "the programs: pid, how often started, how it ended last", move || {
        Value::List(shown.iter().map(|p| p.row()).collect())
    });
    let backdoor = match &o.backdoor {
        Some(path) => coro::backdoor::serve(path)?,
        None => coro::backdoor::serve_default()?,
    };
    let _ = writeln!(io::stdout(), "backdoor on {}", backdoor.path().display());
    let mut tasks = Vec::new();
    for program in programs {
        let builder = coro::Builder::new().name(&program.name).class("supervisor");
        tasks.push(builder.spawn(move || supervise(&program, o))?);
    }
    let signal = signals.wait();
    STOPPING.store(true, Ordering::Relaxed);
    coro::print_stderr!("{signal}: stopping {} programs", tasks.len());
    while let Some(task) = tasks.pop() {
        task.cancel();
        let _ = task.join();
    }
    Ok(())
}

struct Options {
    programs: Vec<Vec<OsString>>,
    grace: Duration,
    backoff: Duration,
    backdoor: Option<PathBuf>,
}

fn options() -> Result<Option<Options>, String> {
    use lexopt::prelude::{Long, Short, Value};
    let mut parser = lexopt::Parser::from_env();
    let (mut grace, mut backoff, mut backdoor) = (5000, 100, None);
    let mut words = Vec::new();
    while let Some(arg) = parser.next().map_err(|e| e.to_string())? {
        match arg {
            Long("grace") => grace = util::number(&mut parser, "--grace", 0..=3_600_000)?,
            Long("backoff") => backoff = util::number(&mut parser, "--backoff", 1..=10_000)?,
            Long("backdoor") => backdoor = Some(util::path(&mut parser, "--backdoor")?),
            Long("help") | Short('h') => return Ok(None),
            // From here on everything is the programs'.
            Value(first) => {
                words.push(first);
                words.extend(parser.raw_args().map_err(|e| e.to_string())?);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    let programs: Vec<_> = words.split(|w| w == "--").filter(|p| !p.is_empty()).map(<[_]>::to_vec).collect();
    if programs.is_empty() {
        return Err("which PROGRAM?".to_owned());
    }
    let milliseconds = Duration::from_millis;
    Ok(Some(Options { programs, grace: milliseconds(grace), backoff: milliseconds(backoff), backdoor }))
}

fn main() -> ExitCode {
    util::main("supervisor", USAGE, options(), |options| {
        let options: &'static Options = Box::leak(Box::new(options));
        coro::run(|| run(options)).map(|()| ExitCode::SUCCESS)
    })
}

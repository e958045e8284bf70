//! A session at the process's own terminal.
//!
//! The session is one like those of a server, over a pair of sockets, on a console thread of its own that ends with it; `pump`
//! moves bytes between the other end and standard input and output. Its expressions are evaluated in tasks.
//!
//! Invariants: no worker waits for the terminal; SIGINT is ours only while `pump` runs; one session at a time has the
//! terminal.
//!
//! Must not know: what is asked, how it is evaluated.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, ErrorKind, IsTerminal as _, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::console::Console;
use super::rights::Rights;
use super::session::Session;
use super::stream::Stream;
use super::{Commands, Limits, registered};
use crate::blocking;
use crate::commands::sessions::Ticket;
use crate::commands::{Answer, Evaluate, Tier};
use crate::sync::Event;
use crate::sys::threads::Own;
use crate::sys::typed_signal::TypedInterrupts;
use crate::sys::unixsock::{self, Watch};

/// As a terminal in raw mode would send them.
const CTRL_C: u8 = 3;
const CTRL_D: u8 = 4;

/// Told to the console: end.
const STOP: u8 = b's';

/// Input is read only while less than this waits for the session.
const MOST_PENDING: usize = 64 << 10;

/// How long the tasks of a session may take to end after it.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Nobody else waits for a person at the own terminal, who may stop the output, too.
const FOR_EVER: Duration = Duration::from_secs(10 * 365 * 86_400);

/// An interactive session at standard input and output, inside this process: for a subcommand `repl` of a program.
///
/// It has all commands and expressions of a [`backdoor`](crate::backdoor) session with the tier *act*, unrecorded, for the process's own user
/// sits there; and, with the feature `script`, functions that no session from outside has:
///
/// * `connect("127.0.0.1:9000")`, or a unix socket's path: a connection. `send(text)`; `recv()` gives what there is, `recv(n)` at
///   most and `recv_exact(n)` exactly so many bytes, `recv_line()` a line without its end, each `()` at the end of the stream; `close()`; `addr`, `peer`.
///   Bytes that are no UTF-8 are replaced.
/// * `listen("127.0.0.1:0")`: a listener. `accept()` gives a connection; `close()`; `addr`.
/// * `spawn(|| …)`: a task that evaluates the closure, in all views with the line as its name. `join()` waits and gives its value, or its error;
///   `cancel()`; `is_finished()`; `id`. What it prints, and an error that nobody joins for, is shown when it comes.
/// * `sleep(seconds)` and `timeout(seconds, || …)`.
///
/// Expressions and spawned closures are tasks on one worker of the caller's runtime (of the process-wide one on a plain
/// thread, which is started if need be): they wait as tasks do and hold nobody up. Variables stay from line to line, connections and
/// closures among them. A closure has variables in common with the session; while a task waits in a method of such a
/// variable, others that use it get an error, but connections, listeners and tasks can be used by all. A task has at most 262,144 steps between two
/// waits, and values are smaller than at a backdoor (13,107 elements of a list), for they have to fit a task's stack of 64 MiB.
///
/// Ctrl-C (SIGINT, for as long as this runs; the action of before is put back) abandons the expression that goes on, by cancelling its task, or
/// the answer that comes; what was spawned goes on. After the end of the input it ends the session. Ctrl-D, `quit` and the end of the input leave, after the
/// answers to everything that was asked; then what was spawned is cancelled. The input may be a terminal, a pipe or a
/// file; what the program itself read ahead from it is not seen here.
///
/// # Errors
/// [`ResourceBusy`](ErrorKind::ResourceBusy) while another one lasts. Otherwise if there are no descriptors, no thread or no task left, or
/// the terminal cannot be written to; that its reader has gone (a closed pipe) only ends the session.
///
/// # Cancellation
/// Ends the session and unwinds.
///
/// # Examples
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     match std::env::args().nth(1).as_deref() {
///         Some("repl") => coro::run(|| coro::console::repl()),
///         _ => coro::run(|| serve()),
///     }
/// }
/// # fn serve() -> std::io::Result<()> { Ok(()) }
/// ```
/// ```text
/// app[4711] act> let c = connect("127.0.0.1:9000")
/// app[4711] act> c.send("hello\n")
/// app[4711] act> c.recv_line()
/// hello
/// ```
pub fn repl() -> io::Result<()> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    struct Terminal;
    impl Drop for Terminal {
        fn drop(&mut self) {
            TAKEN.store(false, Ordering::SeqCst);
        }
    }
    if TAKEN.swap(true, Ordering::SeqCst) {
        let text = "there is a repl at this process's terminal already; leave it first";
        return Err(io::Error::new(ErrorKind::ResourceBusy, text));
    }
    let terminal = Terminal;
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let served = Served::start(theirs, true)?;
    let _stops = Stops(served.control.clone());
    let interrupts = TypedInterrupts::take()?;
    blocking::blocking(move || {
        let _terminal = terminal;
        let outcome = pump(&ours, interrupts.as_ref());
        drop(interrupts);
        served.end();
        outcome
    })?
}

/// As [`repl`], over a stream in place of the terminal: for a program that edits lines itself. Ctrl-C is the byte 3, Ctrl-D 4.
/// It begins with a line that names the process, and shows nothing more, prompts included, before it is sent a line. `#json` is
/// a form for programs. It returns when the session ends.
///
/// Whoever is at the other end may do everything; a stream to anybody else is what [`backdoor`](crate::backdoor) is for.
///
/// # Errors
/// If there are no descriptors, no thread or no task left.
///
/// # Cancellation
/// Ends the session and unwinds.
pub fn repl_on(stream: UnixStream) -> io::Result<()> {
    let served = Served::start(stream, false)?;
    let _stops = Stops(served.control.clone());
    blocking::blocking(move || served.wait())
}

/// The commands with other words before the first prompt.
fn commands() -> io::Result<&'static Commands> {
    static OWN: OnceLock<Commands> = OnceLock::new();
    let all = registered()?;
    Ok(OWN.get_or_init(|| Commands { welcome: || Box::new(Hint), ..*all }))
}

struct Hint;

impl Answer for Hint {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        #[cfg(feature = "script")]
        out.extend_from_slice(b"connect, listen, spawn, sleep, timeout: functions lists all that can be called\n");
        out.extend_from_slice(b"Ctrl-C abandons what goes on, Ctrl-D leaves\n");
        false
    }
}

/// A session that runs.
struct Served {
    control: Arc<UnixStream>,
    thread: JoinHandle<()>,
    /// The tasks of the session have ended.
    ended: Option<Arc<Event>>,
}

impl Served {
    fn start(theirs: UnixStream, greets: bool) -> io::Result<Served> {
        let (control, stop) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        stop.set_nonblocking(true)?;
        let control = Arc::new(control);
        let (evaluator, ended) = evaluator(&control)?;
        let commands = commands()?;
        let stream = Stream::Unix(theirs);
        stream.set_nonblocking()?;
        let limits = Limits {
            sessions: 1,
            idle: FOR_EVER,
            stalled: FOR_EVER,
            prompt_after: Duration::from_millis(20),
            ..Limits::STANDARD
        };
        let run = move || {
            let _own = Own::new();
            let now = Instant::now();
            let ticket = Ticket::new("own terminal".into(), now);
            ticket.raised(Tier::Act);
            let session = Session::new(stream, limits, Rights::own(), Some(ticket), now);
            let session = session.with_evaluator(evaluator.map(|new| new()));
            let mut session = if greets { session } else { session.waiting_for_a_line() };
            session.greet(commands, now);
            session.write(now);
            Console::of_one(session, stop, commands, limits, None).run();
        };
        let thread = std::thread::Builder::new().name("coro-repl".into()).spawn(run)?;
        Ok(Served { control, thread, ended })
    }

    fn end(self) {
        tell(&self.control, STOP);
        self.wait();
    }

    fn wait(self) {
        let _ = self.thread.join();
        if let Some(ended) = self.ended {
            ended.wait_timeout(LAST_PATIENCE);
        }
    }
}

/// Made on the console thread.
type Maker = Box<dyn FnOnce() -> Box<dyn Evaluate> + Send>;

#[cfg(feature = "script")]
fn evaluator(control: &Arc<UnixStream>) -> io::Result<(Option<Maker>, Option<Arc<Event>>)> {
    let control = control.clone();
    let (evaluator, ended) = crate::script::start_repl(Box::new(move || tell(&control, super::console::WAKE)))?;
    Ok((Some(Box::new(move || Box::new(evaluator))), Some(ended)))
}

/// There are only commands; they need a runtime all the same.
#[cfg(not(feature = "script"))]
fn evaluator(_control: &Arc<UnixStream>) -> io::Result<(Option<Maker>, Option<Arc<Event>>)> {
    drop(crate::scheduler::Builder::new().spawn(|| ())?);
    Ok((None, None))
}

/// If it is full the console will look anyway.
fn tell(control: &UnixStream, what: u8) {
    let _ = unixsock::send(control, &[what]);
}

/// Ends the session, should the caller be cancelled.
struct Stops(Arc<UnixStream>);

impl Drop for Stops {
    fn drop(&mut self) {
        tell(&self.0, STOP);
    }
}

/// Moves bytes until the session ends.
fn pump(ours: &UnixStream, interrupts: Option<&TypedInterrupts>) -> io::Result<()> {
    let is_terminal = io::stdin().is_terminal();
    // Not through the standard library's buffer, of which `poll` knows nothing.
    let mut input = io::stdin().as_fd().try_clone_to_owned().ok().map(File::from);
    let mut pending: Vec<u8> = Vec::new();
    let mut bytes = vec![0; MOST_PENDING];
    let mut ended = false;
    loop {
        let reads = input.as_ref().filter(|_| pending.len() < MOST_PENDING);
        let mut watches = vec![Watch::new(ours, true, !pending.is_empty())];
        watches.extend(interrupts.map(|interrupts| Watch::new(interrupts, true, false)));
        watches.extend(reads.map(|input| Watch::new(input, true, false)));
        unixsock::poll(&mut watches, None)?;
        let (stirred, typed) = (watches[0].stirred(), reads.is_some() && watches.last().is_some_and(Watch::stirred));
        drop(watches);
        if interrupts.is_some_and(TypedInterrupts::came) {
            if ended {
                return Ok(());
            }
            pending.clear();
            pending.push(CTRL_C);
        }
        if stirred {
            match unixsock::send(ours, &pending) {
                Ok(length) => drop(pending.drain(..length)),
                Err(error) if is_temporary(&error) => {}
                // What it said before it left is still to be read.
                Err(_) => pending.clear(),
            }
            match (&*ours).read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    if !show(&bytes[..length])? {
                        return Ok(());
                    }
                }
                Err(error) if is_temporary(&error) => {}
                Err(_) => return Ok(()),
            }
        }
        if let Some(file) = input.as_mut().filter(|_| typed) {
            match file.read(&mut bytes) {
                Err(error) if is_temporary(&error) => {}
                Ok(0) | Err(_) => {
                    input = None;
                    // The last line of a file need not have an end.
                    pending.push(if is_terminal { CTRL_D } else { b'\n' });
                }
                Ok(length) => pending.extend_from_slice(&bytes[..length]),
            }
        }
        if input.is_none() && pending.is_empty() && !ended {
            ended = true;
            ours.shutdown(Shutdown::Write)?;
        }
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// False if nobody reads any more.
fn show(bytes: &[u8]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error),
    }
}

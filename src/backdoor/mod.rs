//! The backdoor: a unix socket on which the running process answers questions, for `socat`, `nc` or `ask`; on request a
//! port of 127.0.0.1 too, for `telnet`.
//!
//! The path a question takes: `sys::private_socket` makes the socket, `console` accepts on a thread of its own and checks the peer,
//! `session` takes its bytes apart with `telnet` and `line`, `table` finds the command among those that were registered as
//! `Commands` and asks `rights`, and the command finds the answer, a piece at a time.
//!
//! Invariants: nothing listens until the program or its environment asks for it, and never if `CORO_BACKDOOR=off` is set;
//! only this user and root get an answer; sessions, lines, buffers and waiting are bounded by `Limits`; no worker runs any
//! of it.
//!
//! Must not know: the scheduler, tasks, stacks, what a command means (`crate::commands` is named for its types only).

#![forbid(unsafe_code)]

pub(crate) mod attach;
mod bind;
mod builder;
mod burden;
mod console;
mod line;
mod output;
pub(crate) mod repl;
mod rights;
mod session;
mod stream;
mod table;
mod telnet;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::Duration;

pub use builder::Builder;
pub(crate) use builder::as_the_environment_says;

pub use crate::commands::Tier;
use crate::commands::{Answer, Command, Evaluate};
use crate::sys::claim::Claim;
use crate::sys::{fork, private_socket};
use console::{Console, Door};
use stream::Listener;

/// What the layers around it answer with. All are called on the console thread, never at the same time by one server.
pub(crate) struct Commands {
    /// What can be asked, but for `help` and `quit`.
    pub(crate) table: &'static [Command],
    /// One line that greets a client. It must not begin with `coro: `, by which clients know a refusal.
    pub(crate) banner: fn() -> String,
    /// What a prompt begins with, such as `demo[4711]`.
    pub(crate) name: fn() -> String,
    /// What is shown before the first prompt, and only to those who get one: to people, not to programs that send their
    /// first command at once.
    pub(crate) welcome: fn() -> Box<dyn Answer>,
    /// What evaluates a session's lines that are no command, if anything does.
    pub(crate) evaluator: Option<fn() -> Box<dyn Evaluate>>,
}

static COMMANDS: OnceLock<Commands> = OnceLock::new();

/// Says who answers, before the first [`serve`]. The first call counts.
pub(crate) fn register(commands: Commands) {
    let _ = COMMANDS.set(commands);
}

/// Bounds of one server. Everything a client can make grow has one.
#[derive(Debug, Clone, Copy)]
struct Limits {
    sessions: usize,
    /// Without a command for this long, a session ends.
    idle: Duration,
    /// A client that takes no byte for this long, though some wait, is dropped.
    stalled: Duration,
    /// How long a session must be idle before it shows a prompt.
    prompt_after: Duration,
    /// How long a client may take to notice that its session ended.
    linger: Duration,
    /// Root gets no answer.
    owner_only: bool,
    /// Without a report handler standard error is told who comes and goes.
    aloud: bool,
    /// How long an expression may compute and sleep, where that is less than usual.
    expression: Option<Duration>,
}

impl Limits {
    const STANDARD: Self = Self {
        sessions: 8,
        idle: Duration::from_secs(600),
        stalled: Duration::from_secs(10),
        prompt_after: Duration::from_millis(100),
        linger: Duration::from_millis(500),
        owner_only: false,
        aloud: false,
        expression: None,
    };
}

/// A server made by [`serve`], [`serve_default`] or a [`Builder`].
///
/// Dropping it does **not** end it: a program that never wants to can ignore it. The socket's file is removed by
/// [`close`](Server::close) and when the process exits normally, if it is still the one made here. A process that is
/// killed leaves the file; the next server on that path replaces it.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    tcp: Option<SocketAddr>,
    /// `None` if the environment switched it off, or serves this very path itself.
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    claim: std::mem::ManuallyDrop<Claim>,
    control: UnixStream,
    thread: JoinHandle<()>,
}

impl Server {
    /// The socket's path, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The address on which it serves TCP, if it does ([`Builder::tcp_loopback`]).
    pub fn tcp_addr(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Removes the socket's file, ends all sessions, also in the middle of an answer, and waits for the console thread.
    ///
    /// In a child that was forked after [`serve`] it does nothing: the server belongs to the parent.
    pub fn close(self) {
        let Some(Running { claim, mut control, thread }) = self.running else { return };
        if !claim.is_ours() {
            // The thread exists in the parent only; its handle must not be used here, not even to let go of it.
            std::mem::forget(thread);
            return;
        }
        // First the name, then the socket: while the name leads to a live socket, no other server takes it for stale.
        drop(std::mem::ManuallyDrop::into_inner(claim));
        if control.write_all(b"s").is_ok() {
            let _ = thread.join();
        }
    }
}

/// Serves the backdoor on a unix socket at `path`, with mode 0600, on a thread of its own named `coro-console`.
///
/// Commands are lines, and `help` lists them: `printf 'where_all\n' | socat - UNIX-CONNECT:PATH`. Who sends nothing at once is
/// shown `status` and a prompt.
/// Only this user and root are answered. Whoever can connect can see the names and stacks of all tasks.
///
/// With `CORO_BACKDOOR=off` (or `0`) in the environment nothing is served, whatever the program says: one line on standard
/// error says so, and the [`Server`] returned does nothing.
///
/// # Errors
///
/// The messages say what to do. [`NotFound`](io::ErrorKind::NotFound): the directory does not exist.
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied): the directory belongs to somebody other than this user and root, or others
/// can write to it, as in `/tmp`. [`AddrInUse`](io::ErrorKind::AddrInUse): a live process serves this path.
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists): something other than a socket is there, which is left alone. A dead socket of this
/// user is replaced. [`InvalidInput`](io::ErrorKind::InvalidInput): the path is too long for a unix socket (107 bytes on Linux).
/// [`NotConnected`](io::ErrorKind::NotConnected): there is no runtime yet that could answer.
pub fn serve(path: impl AsRef<Path>) -> io::Result<Server> {
    Builder::new().unix(path).serve()
}

/// Like [`serve`], on a path of its own choice, and prints it with the line that connects to it to standard error.
///
/// The path is `$XDG_RUNTIME_DIR/coro/PID.sock`; if that variable does not name a directory of this user,
/// `coro-UID/PID.sock` in the directory for temporary files. The directory is made with mode 0700, or checked. If the
/// environment (`CORO_BACKDOOR=1`) has had that path served already, this is no error, and the [`Server`] returned does nothing.
///
/// # Errors
///
/// Those of [`serve`]; [`PermissionDenied`](io::ErrorKind::PermissionDenied) also if the directory found is open to others.
pub fn serve_default() -> io::Result<Server> {
    let path = absolute(&bind::default_path())?;
    if builder::is_served(&path) {
        return Ok(Server { path, tcp: None, running: None });
    }
    let server = Builder::new().serve()?;
    if server.running.is_some() {
        let path = server.path.display();
        // A closed standard error is no reason to fail, nor to panic as `eprintln` would.
        let _ = writeln!(io::stderr(), "coro: backdoor on {path}\nsocat -t60 - UNIX-CONNECT:{path}");
    }
    Ok(server)
}

fn registered() -> io::Result<&'static Commands> {
    fork::refuse()?;
    crate::wiring::commands();
    COMMANDS.get().ok_or_else(|| {
        let message =
            "no runtime has started in this process; call this inside coro::run, or after a first coro::spawn";
        io::Error::new(io::ErrorKind::NotConnected, message)
    })
}

/// The path must hold when the program changes its directory, for the removal at exit.
fn absolute(path: &Path) -> io::Result<PathBuf> {
    std::path::absolute(path)
        .map_err(|error| io::Error::new(error.kind(), format!("no path for the backdoor: {error}")))
}

fn inert(path: PathBuf) -> Server {
    let _ = writeln!(io::stderr(), "coro: backdoor is off (CORO_BACKDOOR), not serving {}", path.display());
    Server { path, tcp: None, running: None }
}

/// A server as its builder wants it.
struct Asked {
    path: PathBuf,
    commands: &'static Commands,
    limits: Limits,
    ceiling: Option<Tier>,
    welcome: Option<String>,
    /// Listens already.
    tcp: Option<Listener>,
}

#[cfg(test)]
fn serve_with(path: PathBuf, commands: &'static Commands, limits: Limits) -> io::Result<Server> {
    serve_asked(Asked { path, commands, limits, ceiling: None, welcome: None, tcp: None })
}

fn serve_asked(asked: Asked) -> io::Result<Server> {
    let Asked { path, commands, limits, ceiling, welcome, tcp } = asked;
    let (listener, claim) = private_socket::bind(&path)?;
    let (control, stop) = UnixStream::pair()?;
    stop.set_nonblocking(true)?;
    let address = match &tcp {
        Some(Listener::Tcp(listener)) => Some(listener.local_addr()?),
        _ => None,
    };
    let mut doors = vec![Door::new(Listener::Unix(listener), ceiling.unwrap_or(Tier::Act), path.display().to_string())];
    if let (Some(tcp), Some(address)) = (tcp, address) {
        doors.push(Door::new(tcp, ceiling.unwrap_or(Tier::Read), address.to_string()));
    }
    // Made there, since answers need not be able to change threads.
    let spares = console::spares();
    let run = move || {
        let _own = crate::sys::threads::Own::new();
        Console::new(doors, stop, commands, limits, welcome, spares).run();
    };
    let thread = std::thread::Builder::new().name("coro-console".into()).spawn(run)?;
    // From here on the file stays until `close` or exit, also when the server is dropped.
    let claim = std::mem::ManuallyDrop::new(claim);
    Ok(Server { path, tcp: address, running: Some(Running { claim, control, thread }) })
}

//! Sessions that a signal asks for: no listener, no path, until somebody who may signal this process calls.
//!
//! A call, step by step:
//! 1. The client binds and listens on `attach-PID-NUMBER.sock`, PID being ours and NUMBER its own choice, in one of the
//!    [`places`]: a directory of this process's user with mode 0700.
//! 2. It sends the signal with a value whose upper half is a mark and whose lower half is NUMBER. The handler writes NUMBER to
//!    a pipe and returns.
//! 3. The thread `coro-attach`, which waits there, looks for that socket, checks the directory and the socket, connects, and
//!    looks whose listener it has reached. The client looks who has connected.
//! 4. What follows is a session like any other. The connection's end is all that is left behind.
//!
//! The client sends the signal again until somebody connects, because the kernel drops one while another of its kind is
//! pending; a number that was answered is not answered again.
//!
//! Invariants: nothing is sent before the other end's user is known to be ours or root; a call can make this process
//! connect only to sockets in its user's own directories. Without a call there is nothing that others could reach.
//!
//! Must not know: sessions, commands, what sends the signal.

#![forbid(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use super::console::{self, Console, Door};
use super::stream::Listener;
use super::{Limits, Tier, bind, registered};
use crate::sys::{attach_signal, stderr, threads, unixsock};

/// How often the thread looks whether the program has put a handler over ours. A client has more patience than that.
const TEND: Duration = Duration::from_secs(1);

/// So many of the last numbers are known not to be answered twice.
const REMEMBERED: usize = 32;

/// What was chosen, and by which process: a child that was forked before any runtime has started may begin anew.
struct Chosen {
    process: u32,
    signals: Vec<i32>,
}

static CHOSEN: Mutex<Chosen> = Mutex::new(Chosen { process: 0, signals: Vec::new() });

fn chosen() -> MutexGuard<'static, Chosen> {
    CHOSEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a client of this user, or of root, can have a console session of this process by a signal: `SIGURG`, queued with
/// a mark. Nothing listens meanwhile.
///
/// The process then connects to the client's private socket, after a look at whose it is, and serves a session like those of
/// [`backdoor::serve`](crate::backdoor::serve), on a thread of its own named `coro-attach`, also while every worker is
/// stuck. Beginning and end of each session go to the report handler as [`Report::Attach`](crate::report::Report::Attach),
/// else to standard error.
///
/// A handler that the program has for the signal, installed before or after this call, is kept: whatever comes without the
/// mark goes there. `SIGURG` is ignored by default, so a signal to a process that never called this does nothing. System
/// calls that are never restarted after a handler end early with `EINTR`; std and this crate repeat them. A second call
/// changes nothing, and there is no way back.
///
/// With `CORO_BACKDOOR=off` (or `0`) in the environment nothing is installed, and one line on standard error says so.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) elsewhere than on 64-bit Linux, under Miri, and in a child that was forked after a
/// runtime had started. Otherwise if there is no descriptor or no thread left.
///
/// # Examples
/// ```no_run
/// fn main() -> std::io::Result<()> {
///     coro::console::install_signal_handler()?;
///     coro::run(|| coro::event_loop());
///     Ok(())
/// }
/// ```
pub fn install_signal_handler() -> io::Result<()> {
    install_signal_handler_on(libc::SIGURG)
}

/// As [`install_signal_handler`], by another signal: `SIGTRAP`, `SIGUSR1` or `SIGUSR2`. The client has to be told which.
///
/// Each of them **ends a process that has no handler** for it, so that a wrong process id is not harmless, and `SIGTRAP` is
/// also what debuggers stop at.
///
/// # Errors
/// Those of [`install_signal_handler`]; [`InvalidInput`](ErrorKind::InvalidInput) for any other signal.
pub fn install_signal_handler_on(signal: i32) -> io::Result<()> {
    if !attach_signal::is_choice(signal) {
        let text = format!("signal {signal} is not one to be called by; choose SIGURG, SIGTRAP, SIGUSR1 or SIGUSR2");
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    if bind::switched_off() {
        stderr::write("coro: backdoor is off (CORO_BACKDOOR), no sessions by signal\n");
        return Ok(());
    }
    let commands = registered()?;
    if cfg!(not(target_pointer_width = "64")) {
        // The mark does not fit a signal's value.
        return Err(io::Error::new(
            ErrorKind::Unsupported,
            "sessions by signal take a 64-bit system; serve a unix socket",
        ));
    }
    let mut chosen = chosen();
    if chosen.process != std::process::id() {
        let calls = Calls::new()?;
        let door = Door::new(Listener::Called(calls), Tier::Act, "by signal".into());
        // The other end is dropped: nobody tells the thread to stop.
        let (_, stop) = UnixStream::pair()?;
        stop.set_nonblocking(true)?;
        let spares = console::spares();
        let limits = Limits { aloud: true, ..Limits::STANDARD };
        let run = move || {
            let _own = threads::Own::new();
            Console::new(vec![door], stop, commands, limits, None, spares).run();
        };
        // The program's own signals are not for this thread.
        stderr::without_signals(|| std::thread::Builder::new().name("coro-attach".into()).spawn(run))?;
        *chosen = Chosen { process: std::process::id(), signals: Vec::new() };
    }
    attach_signal::ensure(signal)?;
    if !chosen.signals.contains(&signal) {
        chosen.signals.push(signal);
    }
    Ok(())
}

/// What sessions by signal may do at most, and whether root has any; see [`limit_signal_sessions`].
static CEILING: AtomicU8 = AtomicU8::new(Tier::Act as u8);
static OWNER_ONLY: AtomicBool = AtomicBool::new(false);

/// Sessions by signal that begin from now on may do at most what `ceiling` allows, and if `owner_only` not even root has
/// one. At first they may do everything, and root may come. It does not matter whether
/// [`install_signal_handler`] was called before.
///
/// Whoever may signal a process may also end it, and with the rights of a debugger change it; the limit is against slips
/// of the hand.
///
/// # Examples
/// ```
/// coro::console::limit_signal_sessions(coro::console::Tier::Read, true);
/// ```
pub fn limit_signal_sessions(ceiling: Tier, owner_only: bool) {
    CEILING.store(ceiling as u8, Ordering::SeqCst);
    OWNER_ONLY.store(owner_only, Ordering::SeqCst);
}

pub(super) fn limits() -> (Tier, bool) {
    let ceiling = CEILING.load(Ordering::SeqCst);
    let tier = [Tier::Read, Tier::Probe].into_iter().find(|tier| *tier as u8 == ceiling).unwrap_or(Tier::Act);
    (tier, OWNER_ONLY.load(Ordering::SeqCst))
}

/// Where clients may put their sockets, in the order in which they are looked for. Nobody can tell which of them a client
/// takes: its environment may be another than ours.
fn places() -> Vec<PathBuf> {
    let folder = format!("coro-{}", unixsock::effective_uid());
    let mut places: Vec<PathBuf> = bind::default_path().parent().map(Path::to_owned).into_iter().collect();
    for directory in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        let place = directory.join(&folder);
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// What stands in a listener's place: whoever calls is connected to.
#[derive(Debug)]
pub(super) struct Calls {
    signals: attach_signal::Calls,
    places: Vec<PathBuf>,
    /// One that found no descriptor to be answered with.
    unanswered: Cell<Option<u32>>,
    answered: RefCell<VecDeque<u32>>,
    /// When the handlers are to be looked at.
    tend_at: Cell<Option<Instant>>,
}

impl Calls {
    fn new() -> io::Result<Calls> {
        Ok(Calls {
            signals: attach_signal::Calls::new()?,
            places: places(),
            unanswered: Cell::new(None),
            answered: RefCell::default(),
            tend_at: Cell::new(None),
        })
    }

    /// A connection to the next client that has called.
    ///
    /// # Errors
    /// `EAGAIN` if nobody has. An error without a number says why a call was not answered, and the next may be.
    pub(super) fn accept(&self) -> io::Result<UnixStream> {
        while let Some(caller) = self.unanswered.take().or_else(|| self.signals.next()) {
            if self.answered.borrow().contains(&caller) {
                continue;
            }
            match self.connect(caller) {
                Err(error) if is_for_want_of_descriptors(&error) => {
                    self.unanswered.set(Some(caller));
                    return Err(error);
                }
                outcome => {
                    let mut answered = self.answered.borrow_mut();
                    if answered.len() == REMEMBERED {
                        answered.pop_front();
                    }
                    answered.push_back(caller);
                    return outcome;
                }
            }
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn connect(&self, caller: u32) -> io::Result<UnixStream> {
        let name = format!("attach-{}-{caller}.sock", std::process::id());
        let mut problem = None;
        for place in &self.places {
            match connect_in(place, &place.join(&name)) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if problem.is_none() && !is_for_want_of_descriptors(&error) => problem = Some(error),
                outcome => return outcome,
            }
        }
        Err(problem.unwrap_or_else(|| {
            let places: Vec<String> = self.places.iter().map(|place| place.display().to_string()).collect();
            refusal(format!("a call: there is no {name} in {}", places.join(", ")))
        }))
    }

    /// When [`Calls::tend`] next has something to do.
    pub(super) fn deadline(&self) -> Instant {
        self.tend_at.get().unwrap_or_else(Instant::now)
    }

    /// Sees to it that calls still arrive.
    pub(super) fn tend(&self, now: Instant) {
        if self.tend_at.get().is_none_or(|when| now >= when) {
            self.tend_at.set(Some(now + TEND));
            for signal in &chosen().signals {
                // It is tried again; who calls meanwhile is told by the client.
                let _ = attach_signal::ensure(*signal);
                attach_signal::unblock(*signal);
            }
        }
    }
}

impl AsFd for Calls {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

fn is_for_want_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

fn refusal(message: String) -> io::Error {
    io::Error::other(message)
}

/// Connects to a client's socket, if it and its directory are as they should be; `NotFound` if one of them is not there.
fn connect_in(place: &Path, path: &Path) -> io::Result<UnixStream> {
    let missing = || io::Error::from(ErrorKind::NotFound);
    let shown = path.display();
    // Not following links, here and below: somebody else may have put one into a directory for everyone.
    match fs::symlink_metadata(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(refusal(format!("a call: cannot look at the directory of {shown}: {error}"))),
        Ok(_) => {}
    }
    bind::check_private(place).map_err(|error| refusal(format!("a call: {error}")))?;
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Err(missing()),
        Err(error) => return Err(refusal(format!("a call: cannot look at {shown}: {error}"))),
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        let kind = if found.is_symlink() { "a symbolic link" } else { "not a socket" };
        return Err(refusal(format!("a call: {shown} is {kind}")));
    }
    if found.uid() != unixsock::effective_uid() {
        return Err(refusal(format!("a call: the socket {shown} belongs to user {}", found.uid())));
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A client whose backlog is full must not hold up the sessions of others.
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::unix(path)?) {
        Ok(()) => Ok(UnixStream::from(OwnedFd::from(socket))),
        Err(error) => Err(refusal(format!("a call: nobody answers at {shown}: {error}"))),
    }
}

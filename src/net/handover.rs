//! Replacing a server by a new process while clients go on connecting: the sockets are handed over, not opened again.
//!
//! A listening socket is one object of the kernel, with one queue of connections. The old process gives the new one
//! descriptors of it; for a while both accept from that queue, then the old one stops. No connection is refused, none is
//! reset, none waits longer than any other.
//!
//! ```no_run
//! use coro::net::{TcpListener, WorkerListeners, handover};
//! use std::os::fd::AsFd;
//!
//! fn main() -> std::io::Result<()> {
//!     coro::run(|| {
//!         let path = "/run/app/handover.sock";
//!         // The predecessor's sockets, or the first ones.
//!         let mut taken = handover::take(path)?;
//!         let listeners = match &mut taken {
//!             Some(taken) => WorkerListeners::from(taken.sockets().tcp_listeners("http")),
//!             None => WorkerListeners::shared(TcpListener::bind("0.0.0.0:8080")?)?,
//!         };
//!         let serving = listeners.serve("http", |_stream, _peer| { /* … */ })?;
//!         // From `ready` on the predecessor may go.
//!         let offer = match taken {
//!             Some(taken) => taken.ready()?,
//!             None => Some(handover::Offer::bind(path)?),
//!         };
//!         let Some(offer) = offer else { return serving.wait() };
//!         // Parks until a successor is ready, perhaps for months.
//!         let sockets: Vec<_> = serving.listeners().map(|l| ("http", l.as_fd())).collect();
//!         offer.give(&sockets)?;
//!         serving.stop();
//!         serving.wait() // Connections that are there are served to their end.
//!     })
//! }
//! ```
//!
//! **Two ways.** Over a private unix socket ([`Offer`], [`take`]) whoever starts the new process, an operator or a
//! supervisor, need not know the old one. Or the old process starts the new one itself ([`spawn`], [`inherited`]), which gets
//! a connection to it by inheritance and needs no path.
//!
//! **Who may.** The socket has mode 0600 in a directory that nobody else may write to, and each side asks the kernel who
//! the other is: the same user, or root, or nothing is said.
//!
//! **Three steps.** The predecessor sends the sockets, the successor says that it is ready, the predecessor says that they
//! are the successor's. Until then the predecessor goes on serving, and whatever happens to the successor leaves it as it
//! was; if the predecessor dies after the first step, the successor has all it needs.
//!
//! **What is shared.** The mode of the kernel's socket is: do not give a handed-over socket to std's types, which would put it
//! into blocking mode for both, and do not [`close`](super::TcpListener::close) it, which shuts it down for both. Drop it.
//!
//! Invariants: descriptors are close-on-exec from the moment at which they arrive. Must not know: what is served.

#![forbid(unsafe_code)]

use std::env;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::PassedSockets;
use super::unix::{UCred, UnixListener, UnixStream};
use crate::blocking::blocking;
use crate::scheduler;
use crate::scheduler::io::interrupted;
use crate::scheduler::suspend::{here, shield};
use crate::sys::claim::Claim;
use crate::sys::inherited::{self, NotTaken};
use crate::sys::message::{self, MOST_DESCRIPTORS};
use crate::sys::{self, private_socket, unixsock};

/// How long the other side may take for a message that it has no reason to think about.
const PROMPT: Duration = Duration::from_secs(10);
/// How long a successor may take until it is ready, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

const GREETING: &str = "coro-handover 1";
const READY: &[u8; 6] = b"ready\n";
const YOURS: &[u8; 6] = b"yours\n";
const KEPT: &[u8; 6] = b"kept!\n";

const LONGEST_NAME: usize = 255;
/// Room for the first line and the names of as many sockets as one message carries.
const LONGEST_HEADER: usize = 64 + MOST_DESCRIPTORS * (LONGEST_NAME + 1);
/// Names the inherited connection: `descriptor:number of the socket`.
const VARIABLE: &str = "CORO_HANDOVER";

/// The readiness to hand sockets over to a successor that asks for them at a path.
///
/// The path is removed when this value is dropped, unless a successor has it.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
    /// `None` once a successor serves the path.
    claim: Mutex<Option<Claim>>,
    patience: Duration,
}

impl Offer {
    /// Waits for successors at `path`, in a directory of this user or root that nobody else may write to. A dead socket
    /// there is replaced.
    ///
    /// # Errors
    /// `AddrInUse` if another process serves the path (it did not hand over: it is busy, or started at the same time);
    /// otherwise of the system, with what to do.
    #[track_caller]
    pub fn bind(path: impl AsRef<Path>) -> io::Result<Offer> {
        let path = std::path::absolute(path)?;
        let (listener, claim) = private_socket::bind(&path)?;
        let listener = UnixListener::from(listener);
        // It came in non-blocking mode, which was not this program's wish.
        listener.set_nonblocking(false)?;
        Ok(Offer { listener, path, claim: Mutex::new(Some(claim)), patience: PATIENCE })
    }

    /// How long a successor may take from getting the sockets to being ready; 60 s at the start.
    pub fn patience(mut self, limit: Duration) -> Offer {
        self.patience = limit;
        self
    }

    /// Waits for a successor, gives it `sockets` with their names (at most 252) and this offer's path, and returns when it
    /// is ready: who it is. Then it is time to stop accepting, to finish, and to end. They stay open here.
    ///
    /// A successor that is another user's, that does not get ready in time or dies leaves everything as it was; a line on
    /// stderr says so, and the wait goes on for the next. In the views it is an `accept` at the path or a `read` from the
    /// successor's process.
    ///
    /// # Errors
    /// `InvalidInput` for a name that is empty, longer than 255 bytes, or has a colon or control character in it, or for too
    /// many sockets; `AlreadyExists` if a successor has them already; of the system.
    ///
    /// # Cancellation
    /// The first interrupt is an error, later ones unwind; the offer stands.
    pub fn give(&self, sockets: &[(&str, BorrowedFd<'_>)]) -> io::Result<UCred> {
        let header = header(true, sockets)?;
        if self.claim.lock().unwrap_or_else(PoisonError::into_inner).is_none() {
            return Err(io::Error::new(ErrorKind::AlreadyExists, "a successor has the sockets already"));
        }
        loop {
            let (stream, _) = self.listener.accept()?;
            match self.give_one(&stream, &header, sockets) {
                Ok(who) => {
                    if let Some(claim) = self.claim.lock().unwrap_or_else(PoisonError::into_inner).take() {
                        claim.hand_on();
                    }
                    return Ok(who);
                }
                Err(e) if interrupted() => return Err(e),
                Err(e) => report(&format!("the sockets of {} stay here: {e}", self.path.display())),
            }
        }
    }

    fn give_one(&self, stream: &UnixStream, header: &str, sockets: &[(&str, BorrowedFd<'_>)]) -> io::Result<UCred> {
        let who = trusted(stream)?;
        let fds: Vec<_> = std::iter::once(self.listener.as_fd()).chain(sockets.iter().map(|s| s.1)).collect();
        give_over(stream, header, &fds, self.patience)?;
        Ok(who)
    }
}

/// Asks for the sockets of the process that has an [`Offer`] at `path`; `None` if nobody has.
///
/// # Errors
/// `PermissionDenied` if that process is another user's; `TimedOut` if it does not answer within 10 s (it is busy handing over
/// to somebody else, or has not called [`Offer::give`]); of the system.
///
/// # Cancellation
/// The first interrupt is an error, later ones unwind; the predecessor goes on as before.
#[track_caller]
pub fn take(path: impl AsRef<Path>) -> io::Result<Option<Taken>> {
    let path = std::path::absolute(path)?;
    let stream = match UnixStream::connect(&path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        connected => connected?,
    };
    Ok(Some(Taken::receive(stream, Some(path))?))
}

/// Starts `command` as the successor, gives it `sockets` as [`Offer::give`] does, and returns when it is ready. It finds
/// them with [`inherited`].
///
/// # Errors
/// As [`Offer::give`] for the names; of the system, if the program cannot be started; `TimedOut` if it is not ready within
/// `patience`, `UnexpectedEof` if it ended before. It is killed then, and the sockets stay here.
///
/// # Cancellation
/// As [`Offer::give`]; a successor that was not ready yet notices and cannot become it.
pub fn spawn(mut command: Command, sockets: &[(&str, BorrowedFd<'_>)], patience: Duration) -> io::Result<Child> {
    let header = header(false, sockets)?;
    let (ours, theirs) = UnixStream::pair()?;
    let theirs = OwnedFd::from(theirs);
    let number = sys::socket::number(theirs.as_fd()).unwrap_or(0);
    command.env(VARIABLE, format!("{}:{number}", std::os::fd::AsRawFd::as_raw_fd(&theirs)));
    inherited::keep(&mut command, theirs);
    // The command, and with it our copy of the successor's end, is dropped there: then its death ends our wait.
    if let Some(h) = here() {
        h.checkpoint_io()?;
    }
    // What has begun would else leave a child behind that nobody knows of.
    let mut child = shield(|| blocking(move || command.spawn()))??;
    let fds: Vec<_> = sockets.iter().map(|s| s.1).collect();
    match give_over(&ours, &header, &fds, patience) {
        Ok(()) => Ok(child),
        Err(e) => {
            let _ = child.kill();
            // Also where an interrupt was the error, which is to be told and not raised here.
            let _ = shield(|| blocking(move || child.wait()));
            Err(e)
        }
    }
}

/// The sockets of the process that started this one by [`spawn`]; `None` if none did.
///
/// The environment variable `CORO_HANDOVER` tells it, and is believed only if what it names was inherited and is that very
/// socket.
///
/// # Errors
/// As [`take`]; `AlreadyExists` at the second call.
///
/// # Cancellation
/// As [`take`].
#[track_caller]
pub fn inherited() -> io::Result<Option<Taken>> {
    let Some((fd, number)) = env::var(VARIABLE).ok().and_then(|v| parse_variable(&v)) else { return Ok(None) };
    match inherited::take(fd, number) {
        Ok(owned) => {
            let stream = UnixStream::from(owned);
            stream.set_nonblocking(false)?;
            Ok(Some(Taken::receive(stream, None)?))
        }
        Err(NotTaken::Before) => {
            let text = "the sockets of the process that started this one have been taken before";
            Err(io::Error::new(ErrorKind::AlreadyExists, text))
        }
        // Left over in the environment of a process that was started by somebody else.
        Err(NotTaken::Closed | NotTaken::OpenedHere | NotTaken::Another) => Ok(None),
    }
}

fn parse_variable(value: &str) -> Option<(i32, Option<u64>)> {
    let (fd, number) = value.split_once(':')?;
    let number: u64 = number.parse().ok()?;
    // Where the kernel numbers no sockets, having been inherited must do.
    Some((fd.parse().ok()?, (number != 0).then_some(number)))
}

/// What a predecessor has given. Dropped without [`ready`](Taken::ready), it leaves the predecessor in charge.
#[derive(Debug)]
pub struct Taken {
    sockets: PassedSockets,
    stream: UnixStream,
    predecessor: UCred,
    /// The listener of the predecessor's offer, and its path.
    offer: Option<(UnixListener, PathBuf)>,
}

impl Taken {
    /// The sockets, to be taken out by name.
    pub fn sockets(&mut self) -> &mut PassedSockets {
        &mut self.sockets
    }

    /// Who gave them.
    pub fn predecessor(&self) -> UCred {
        self.predecessor
    }

    /// Tells the predecessor that this process serves from now on, and returns when it has agreed: with its offer, so that
    /// the next successor finds this process at the same path, or nothing if there is no path.
    ///
    /// # Errors
    /// `TimedOut` if the predecessor has waited for too long and goes on itself: then this process must not serve.
    ///
    /// # Cancellation
    /// The first interrupt is an error, later ones unwind; the predecessor may have stopped.
    pub fn ready(self) -> io::Result<Option<Offer>> {
        let mut answer = *KEPT;
        self.stream.set_read_timeout(Some(PROMPT))?;
        // A predecessor that no longer listens may have said something before.
        match (&self.stream).write_all(READY) {
            Err(e) if !is_gone(&e) => return Err(e),
            _ => {}
        }
        match (&self.stream).read_exact(&mut answer) {
            Ok(()) if answer == *YOURS => {}
            Ok(()) => {
                let text = "the predecessor has waited for too long and goes on serving; start the successor again";
                return Err(io::Error::new(ErrorKind::TimedOut, text));
            }
            // It has died. What it gave is whole, and nobody else serves.
            Err(e) if is_gone(&e) => {}
            Err(e) => return Err(e),
        }
        let Some((listener, path)) = self.offer else { return Ok(None) };
        match Claim::of(&path) {
            Ok(claim) => Ok(Some(Offer { listener, path, claim: Mutex::new(Some(claim)), patience: PATIENCE })),
            // A predecessor that ended on its own has taken the file with it.
            Err(_) => Offer::bind(path).map(Some),
        }
    }

    #[track_caller]
    fn receive(stream: UnixStream, path: Option<PathBuf>) -> io::Result<Taken> {
        let predecessor = trusted(&stream)?;
        stream.set_read_timeout(Some(PROMPT))?;
        stream.set_write_timeout(Some(PROMPT))?;
        let (names, with_offer, fds) = read_header(&stream).map_err(|e| match e.kind() {
            // What an expired limit of a socket gives.
            ErrorKind::WouldBlock => {
                let text = "the predecessor does not hand over: it has not called give, or has another successor";
                io::Error::new(ErrorKind::TimedOut, text)
            }
            _ => e,
        })?;
        let mut fds = fds.into_iter();
        let offer = match (with_offer, path) {
            (true, Some(path)) => {
                let listener = UnixListener::from(fds.next().ok_or_else(|| garbled("no offer"))?);
                listener.set_nonblocking(false)?;
                Some((listener, path))
            }
            (false, _) => None,
            (true, None) => return Err(garbled("an offer without a path")),
        };
        let mut sockets = PassedSockets::default();
        if fds.len() != names.len() {
            return Err(garbled(&format!("{} sockets for {} names", fds.len(), names.len())));
        }
        for (name, fd) in names.into_iter().zip(fds) {
            sockets.push(name, fd);
        }
        Ok(Taken { sockets, stream, predecessor, offer })
    }
}

/// Whether the other side has closed its end.
fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// Who is at the other end, if that is this user or root.
fn trusted(stream: &UnixStream) -> io::Result<UCred> {
    let who = stream.peer_cred()?;
    if who.uid == unixsock::effective_uid() || who.uid == 0 {
        return Ok(who);
    }
    let pid = who.pid.map_or(String::new(), |pid| format!(" (process {pid})"));
    let text = format!("user {}{pid} is at the other end, who is neither this user nor root", who.uid);
    Err(io::Error::new(ErrorKind::PermissionDenied, text))
}

/// Until it is decided otherwise: the sockets stay here. The successor is told so, also if the wait for it is interrupted;
/// without a word it would take this process for dead.
struct Undecided<'a>(&'a UnixStream);

impl Drop for Undecided<'_> {
    fn drop(&mut self) {
        // Six bytes find room, and a successor that has gone need not be told.
        let _ = message::send_descriptors(self.0.as_fd(), KEPT, &[]);
    }
}

/// Sends everything, waits for the word and gives the last one.
fn give_over(stream: &UnixStream, header: &str, fds: &[BorrowedFd<'_>], patience: Duration) -> io::Result<()> {
    let undecided = Undecided(stream);
    let mut stream = stream;
    let header = header.as_bytes();
    let mut word = [0; READY.len()];
    let mut talk = || {
        stream.set_write_timeout(Some(PROMPT))?;
        let sent = stream.send_with_fds(header, fds)?;
        stream.write_all(&header[sent..])?;
        stream.set_read_timeout(Some(patience.max(Duration::from_millis(1))))?;
        stream.read_exact(&mut word)
    };
    talk().map_err(|e| match e.kind() {
        ErrorKind::WouldBlock => {
            io::Error::new(ErrorKind::TimedOut, format!("the successor was not ready within {patience:?}"))
        }
        _ if is_gone(&e) => io::Error::new(ErrorKind::UnexpectedEof, "the successor went away before it was ready"),
        _ => e,
    })?;
    if word != *READY {
        return Err(garbled("it is not the word that was expected"));
    }
    // In one piece, without waiting: from here on the sockets are the successor's, interrupt or not.
    message::send_descriptors(stream.as_fd(), YOURS, &[])?;
    std::mem::forget(undecided);
    Ok(())
}

/// The first line and the names.
fn header(offer: bool, sockets: &[(&str, BorrowedFd<'_>)]) -> io::Result<String> {
    let invalid = |text: String| Err(io::Error::new(ErrorKind::InvalidInput, text));
    let mut text = format!("{GREETING} {} {}\n", u8::from(offer), sockets.len());
    if sockets.len() >= MOST_DESCRIPTORS {
        return invalid(format!("{} sockets are too many: at most {}", sockets.len(), MOST_DESCRIPTORS - 1));
    }
    for (name, _) in sockets {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(|c| c == ':' || c.is_control()) {
            return invalid(format!(
                "{name:?} is no name for a socket: 1 to {LONGEST_NAME} bytes, no colon or control"
            ));
        }
        let _ = writeln!(text, "{name}");
    }
    Ok(text)
}

/// The names, whether the offer's listener comes first, and all descriptors.
fn read_header(stream: &UnixStream) -> io::Result<(Vec<String>, bool, Vec<OwnedFd>)> {
    let (mut bytes, mut fds) = (Vec::new(), Vec::new());
    loop {
        let mut buf = [0; 4096];
        let (n, lost) = stream.recv_with_fds(&mut buf, &mut fds)?;
        if lost {
            let text = "this process may not have so many descriptors: raise RLIMIT_NOFILE";
            return Err(io::Error::new(ErrorKind::QuotaExceeded, text));
        }
        if n == 0 {
            return Err(io::Error::new(
                ErrorKind::UnexpectedEof,
                "the predecessor went away before it gave its sockets",
            ));
        }
        bytes.extend_from_slice(&buf[..n]);
        if let Some((names, offer)) = parse_header(&bytes)? {
            return Ok((names, offer, fds));
        }
        if bytes.len() > LONGEST_HEADER {
            return Err(garbled("it does not end"));
        }
    }
}

/// `None`: there is more to come.
fn parse_header(bytes: &[u8]) -> io::Result<Option<(Vec<String>, bool)>> {
    let text = std::str::from_utf8(bytes);
    let mut lines = match &text {
        Ok(text) => text.split_inclusive('\n'),
        // The rest of a character may be on its way.
        Err(e) if e.error_len().is_none() => return Ok(None),
        Err(_) => return Err(garbled("it is no text")),
    };
    let first = lines.next().unwrap_or_default();
    let Some(first) = first.strip_suffix('\n') else { return Ok(None) };
    let counts = first.strip_prefix(GREETING).and_then(|rest| rest.strip_prefix(' ')).and_then(|c| c.split_once(' '));
    let counts = counts.and_then(|(offer, n)| Some((offer.parse::<u8>().ok()? != 0, n.parse::<usize>().ok()?)));
    let Some((offer, n)) = counts.filter(|(_, n)| *n < MOST_DESCRIPTORS) else {
        return Err(garbled(&format!("it begins with {first:?}")));
    };
    let names: Vec<String> = lines.filter_map(|l| Some(l.strip_suffix('\n')?.to_owned())).collect();
    match names.len() {
        have if have < n => Ok(None),
        have if have > n => Err(garbled("it has too many names")),
        _ => Ok(Some((names, offer))),
    }
}

fn garbled(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("the other side's message is none of a hand-over: {what}"))
}

fn report(text: &str) {
    let id = scheduler::current().map_or(0, |t| t.id());
    sys::stderr::print(id, &format!("hand-over: {}", text.escape_debug()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_wherever_it_is_cut() {
        let whole = "coro-handover 1 1 2\nhttp\nä b\n".as_bytes();
        for cut in 0..whole.len() {
            assert_eq!(parse_header(&whole[..cut]).unwrap(), None, "cut at {cut}");
        }
        let names = vec!["http".to_owned(), "ä b".to_owned()];
        assert_eq!(parse_header(whole).unwrap(), Some((names, true)));
        assert_eq!(parse_header(b"coro-handover 1 0 0\n").unwrap(), Some((vec![], false)));
        for wrong in ["coro-handover 2 0 0\n", "x\n", "coro-handover 1 0 253\n", "coro-handover 1 0 0\nextra\n"] {
            assert_eq!(parse_header(wrong.as_bytes()).unwrap_err().kind(), ErrorKind::InvalidData, "{wrong}");
        }
        assert_eq!(parse_header(b"coro-handover 1 0 1\n\xff\xff").unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn names_that_a_unit_could_not_have_are_refused() {
        let (a, _b) = UnixStream::pair().unwrap();
        assert!(header(false, &[("http", a.as_fd())]).unwrap().ends_with("\nhttp\n"));
        for name in ["", "a:b", "a\nb", "\u{1b}[2J", &"x".repeat(256)] {
            let e = header(false, &[(name, a.as_fd())]).unwrap_err();
            assert_eq!(e.kind(), ErrorKind::InvalidInput);
            assert!(!e.to_string().contains('\u{1b}'), "{e}");
        }
        assert_eq!(header(true, &vec![("a", a.as_fd()); 253]).unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    #[test]
    fn the_variable_names_a_descriptor_and_a_socket() {
        assert_eq!(parse_variable("9:77"), Some((9, Some(77))));
        assert_eq!(parse_variable("9:0"), Some((9, None)));
        for wrong in ["", "9", ":", "a:1", "9:-1"] {
            assert_eq!(parse_variable(wrong), None, "{wrong}");
        }
    }
}

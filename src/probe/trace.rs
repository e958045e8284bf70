//! The call log of sockets: each call when it begins and when it returns, on every socket or on those that are asked for.
//!
//! Invariants: a trace is a probe like any other on points of this crate's own, so that it ends as probes do and leaves nothing. Bytes
//! that go through a socket are shown only where they were asked for.
//!
//! Must not know: commands; who takes the lines.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::attach::{Attach, Attached, ProbeError, attach_to};
use super::call::Call;
use super::event::{Event, Events};
use super::instrument::Instrument;
use super::sink::Sink;
use super::stop::Answer;
use super::{pattern, text};
use crate::inspect::{self, Waiter};
use crate::io::{self, unflushed::unflushed};
use crate::net;
use crate::observe::{self, Begun, Point, Shown};
use crate::scheduler::suspend::here;
use crate::tb;
use crate::value::Value;

/// What `probe show` calls the instrument of a trace.
pub(super) const WRITTEN: &str = "trace";

/// The points of this crate's own.
pub(super) fn points() -> impl Iterator<Item = &'static Point> {
    net::woven::points().chain(io::buffered::points())
}

impl Begun for Call {
    fn over(self: Box<Self>, result: Shown<'_>, failed: bool) {
        refuse(self.returned(result, failed));
    }
}

/// These calls cannot be given another result than their own.
fn refuse(answer: Option<Answer>) {
    answer.into_iter().for_each(|answer| answer.refused("this point cannot be given one"));
}

/// Says what becomes of calls at those points; before any of them is watched.
pub(super) fn weave() {
    observe::begin_with(|point, arguments| {
        let mut call = Call::begin(point, arguments);
        refuse(call.answer());
        call.is_on().then(|| Box::new(call) as Box<dyn Begun>)
    });
}

/// Begins to describe a call log of sockets: every connect, accept, recv, peek, send, shutdown and close of [`net`](crate::net), when it
/// begins and when it returns, so that one that waits is seen while it does.
///
/// ```text
/// fd 9.recv(8192), peer 127.0.0.1:7000, #17
/// fd 9.recv(8192) => 37 in 1.2 ms, peer 127.0.0.1:7000, #17
/// ```
///
/// Calls that wait already when it begins are told first (`fd 9.recv(…) waits for 3.21 s`). So are writes into a
/// [`BufWriter`](crate::io::BufWriter) or [`LineWriter`](crate::io::LineWriter), unless a peer or a descriptor is asked for; and a read of a task
/// whose writers hold what nobody has sent is marked: `37 bytes unflushed`.
///
/// While nobody traces, a call of a socket is one relaxed load and a branch slower than it would be without this.
///
/// # Examples
/// ```
/// use coro::net::unix::UnixStream;
/// use std::io::Write;
///
/// let trace = coro::probe::net().bytes(16).keep_lines().start().unwrap();
/// let (mut ours, _theirs) = UnixStream::pair().unwrap();
/// ours.write_all(b"hello\n").unwrap();
/// let lines = trace.lines();
/// assert!(lines[0].contains(".send(6 \"hello\\n\")") && lines[1].contains(".send(6) => 6 in "), "{lines:?}");
/// ```
pub fn net() -> Trace {
    Trace {
        filters: Vec::new(),
        peer: None,
        task: None,
        fd: None,
        bytes: 0,
        stack: false,
        lifespan: None,
        keep: false,
        session: None,
    }
}

/// Begins a call log of all sockets on stderr, for as long as the process lasts: what `net` in `CORO_PROBES` stands for.
///
/// # Errors
/// If the thread that ends probes cannot be started.
pub(super) fn net_for_ever() -> Result<(), String> {
    let trace = net().start().map_err(|e| e.to_string())?;
    trace.leave();
    Ok(())
}

/// A call log of sockets that has not begun yet; see [`net()`].
#[must_use = "nothing is logged before `start`"]
#[derive(Debug)]
pub struct Trace {
    /// As they are written at the console.
    filters: Vec<String>,
    peer: Option<String>,
    task: Option<u64>,
    fd: Option<RawFd>,
    bytes: usize,
    stack: bool,
    pub(super) lifespan: Option<Duration>,
    keep: bool,
    session: Option<(u64, Arc<Sink>)>,
}

impl Trace {
    /// Only calls on sockets whose other end is called like that: `127.0.0.1:7000`, `127.0.0.1`, a path, with `*` for anything. Accepting has
    /// no peer before it returns, and is left out.
    pub fn peer(mut self, pattern: impl Into<String>) -> Trace {
        let pattern = pattern.into();
        self.filters.push(format!("peer={pattern}"));
        self.peer = Some(pattern);
        self
    }

    /// Only calls of that task.
    pub fn task(mut self, id: u64) -> Trace {
        self.filters.push(format!("task={id}"));
        self.task = Some(id);
        self
    }

    /// Only calls on that descriptor.
    pub fn fd(mut self, fd: RawFd) -> Trace {
        self.filters.push(format!("fd={fd}"));
        self.fd = Some(fd);
        self
    }

    /// Shows up to so many bytes of what is sent and received, escaped. Without this only their number is shown.
    pub fn bytes(mut self, most: usize) -> Trace {
        self.filters.push(format!("bytes={most}"));
        self.bytes = most;
        self
    }

    /// Shows where each call was made, in one line.
    pub fn stack(mut self) -> Trace {
        self.filters.push("stack".to_owned());
        self.stack = true;
        self
    }

    /// It is over after so long.
    pub fn lifespan(mut self, lifespan: Duration) -> Trace {
        self.lifespan = Some(lifespan);
        self
    }

    /// Lines are kept for [`Attached::lines`], up to 256 KiB, and not written to stderr.
    pub fn keep_lines(mut self) -> Trace {
        self.keep = true;
        self
    }

    /// For the console: it ends with that session, and lines go to it.
    pub(super) fn of_session(mut self, session: u64, sink: &Arc<Sink>) -> Trace {
        self.session = Some((session, sink.clone()));
        self
    }

    /// How it is called in lists: `net peer=10.0.0.7`.
    pub(super) fn name(&self) -> String {
        self.filters.iter().fold("net".to_owned(), |name, filter| name + " " + filter)
    }

    /// Begins the log.
    ///
    /// # Errors
    /// If the thread that ends probes cannot be started.
    pub fn start(self) -> Result<Attached, ProbeError> {
        let name = format!("trace {}", self.name());
        let Trace { peer, task, fd, bytes, stack, lifespan, keep, session, .. } = self;
        let wanted = Arc::new(Wanted { peer, task, fd });
        let mut attach: Attach = attach_to("coro::net::*|coro::io::*").named(name);
        if keep {
            attach = attach.keep_lines();
        }
        if let Some((session, sink)) = &session {
            attach = attach.of_session(*session, sink);
        }
        if let Some(lifespan) = lifespan {
            attach = attach.lifespan(lifespan);
        }
        if !wanted.is_everything() {
            let wanted = wanted.clone();
            attach = attach.only(move |event| {
                let fd = match event.value("fd") {
                    Some(Value::Int(fd)) => RawFd::try_from(fd).ok(),
                    _ => None,
                };
                wanted.names(event.task(), fd, || plain(event, "peer"))
            });
        }
        let sink = attach.sink();
        let told = Arc::new(Told { listens: AtomicBool::new(true), begun: Mutex::default() });
        let log = CallLog { sink: sink.clone(), bytes, stack, told: told.clone() };
        let attached = attach.with(WRITTEN, log).start()?;
        // What waits already has begun before anybody looked.
        for (fd, peer, waiter) in inspect::all_waiting() {
            let peer = peer.unwrap_or_default();
            if !told.has(waiter.task, fd) && wanted.names(waiter.task, Some(fd), || peer.clone()) {
                sink.line(|| waits_already(fd, &peer, &waiter));
            }
        }
        told.listens.store(false, Ordering::Relaxed);
        told.begun().clear();
        Ok(attached)
    }
}

/// The calls that were told while a trace began, so that those that wait then are not told again.
struct Told {
    /// It still begins.
    listens: AtomicBool,
    begun: Mutex<Vec<(u64, i64)>>,
}

impl Told {
    fn begun(&self) -> MutexGuard<'_, Vec<(u64, i64)>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, task: u64, fd: RawFd) -> bool {
        self.begun().contains(&(task, fd.into()))
    }

    fn note(&self, event: &Event<'_>) {
        if self.listens.load(Ordering::Relaxed)
            && event.kind() == Events::CALL
            && let Some(Value::Int(fd)) = event.value("fd")
        {
            self.begun().push((event.task(), fd));
        }
    }
}

/// Which calls are meant.
struct Wanted {
    peer: Option<String>,
    task: Option<u64>,
    fd: Option<RawFd>,
}

impl Wanted {
    fn is_everything(&self) -> bool {
        self.peer.is_none() && self.task.is_none() && self.fd.is_none()
    }

    fn names(&self, task: u64, fd: Option<RawFd>, peer: impl FnOnce() -> String) -> bool {
        self.task.is_none_or(|wanted| task == wanted)
            && self.fd.is_none_or(|wanted| fd == Some(wanted))
            && self.peer.as_ref().is_none_or(|wanted| is_peer(wanted, &peer()))
    }
}

/// `fd 9.recv(…) waits for 3.21 s, peer 127.0.0.1:7000, #17, 37 bytes unflushed`.
fn waits_already(fd: RawFd, peer: &str, waiter: &Waiter) -> String {
    let call = match waiter.wants {
        "read" => "recv",
        "write" => "send",
        other => other,
    };
    let mut out = format!("fd {fd}.{call}(…) waits for {}", text::duration(waiter.age));
    if !peer.is_empty() {
        let _ = write!(out, ", peer {peer}");
    }
    let _ = write!(out, ", #{}", waiter.task);
    let held = if waits_for_others(call) { unflushed(waiter.task) } else { 0 };
    if held > 0 {
        let _ = write!(out, ", {held} bytes unflushed");
    }
    out
}

/// Whether such a call may have to wait for what the other side says.
fn waits_for_others(call: &str) -> bool {
    matches!(call, "recv" | "peek")
}

/// Whether a pattern names that address, with its port or without.
fn is_peer(wanted: &str, peer: &str) -> bool {
    let without_port = peer.rsplit_once(':').map_or(peer, |(ip, _)| ip);
    let without_brackets = without_port.trim_start_matches('[').trim_end_matches(']');
    [peer, without_port, without_brackets].iter().any(|text| pattern::fits(wanted.as_bytes(), text.as_bytes()))
}

/// A value as text without quotes; empty if there is none.
fn plain(event: &Event<'_>, name: &str) -> String {
    match event.value(name) {
        Some(Value::Text(text)) => text,
        Some(value) => text::value(&value),
        None => String::new(),
    }
}

/// Writes a line for each call that begins and for each that is over.
struct CallLog {
    sink: Arc<Sink>,
    bytes: usize,
    stack: bool,
    told: Arc<Told>,
}

impl Instrument for CallLog {
    fn events(&self) -> Events {
        Events::CALL | Events::END
    }

    fn needs_arguments(&self) -> bool {
        true
    }

    fn observe(&self, event: &Event<'_>) {
        self.told.note(event);
        self.sink.line(|| self.line(event));
    }

    fn report(&self) -> Value {
        let (told, lost) = self.sink.counts();
        Value::map([("lines", Value::of(told)), ("lost", Value::of(lost))])
    }

    fn text(&self) -> Option<String> {
        let (told, lost) = self.sink.counts();
        Some(match lost {
            0 => format!("trace {told} lines"),
            _ => format!("trace {told} lines, and {lost} for which there was no room"),
        })
    }
}

impl CallLog {
    /// `fd 9.recv(8192) => 37 in 1.2 ms, peer 127.0.0.1:7000, #17`, `BufWriter<TcpStream>.write(37) => 37 in 80 ns, #17`.
    fn line(&self, event: &Event<'_>) -> String {
        let point = event.point();
        let call = point.name().rsplit("::").next().unwrap_or_default();
        let of_socket = point.arguments().first() == Some(&"fd");
        let mut out = match of_socket {
            true => format!("fd {}.{call}(", plain(event, "fd")),
            false => format!("{}.{call}(", plain(event, "into")),
        };
        if let Some(given) = point.arguments().last().filter(|name| !matches!(**name, "into" | "peer")) {
            out.push_str(&plain(event, given));
        }
        let begins = event.kind() == Events::CALL;
        if begins {
            self.push_bytes(event, &mut out);
        }
        out.push(')');
        if !begins {
            match event.result_text() {
                None => out.push_str(" ~ unwinds"),
                Some(result) => {
                    let _ = write!(out, " {} {result}", if event.is_err() { "~" } else { "=>" });
                    self.push_bytes(event, &mut out);
                }
            }
            if let Some(elapsed) = event.elapsed() {
                let _ = write!(out, " in {}", text::duration(elapsed));
            }
        }
        let peer = plain(event, "peer");
        if !peer.is_empty() {
            let _ = write!(out, ", peer {peer}");
        }
        if let Some(h) = here() {
            let _ = write!(out, ", #{}", h.id());
            // What a task waits for may never come while it holds what it has to say.
            let held = if waits_for_others(call) && begins || !of_socket && !begins { unflushed(h.id()) } else { 0 };
            if held > 0 {
                let _ = write!(out, ", {held} bytes unflushed");
            }
        }
        if self.stack && begins {
            let _ = write!(out, " {}", tb::stack_string());
        }
        out
    }

    /// The first bytes, as far as they were asked for.
    fn push_bytes(&self, event: &Event<'_>, out: &mut String) {
        let Some((first, all)) = event.bytes().filter(|_| self.bytes > 0) else { return };
        let shown = &first[..first.len().min(self.bytes)];
        let more = if shown.len() < all { "…" } else { "" };
        let _ = write!(out, " \"{}\"{more}", shown.escape_ascii());
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::super::stop::{What, stops};
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "there are no sockets")]
    fn a_socket_call_that_was_given_another_result_says_that_it_kept_its_own() {
        let (mut ours, _theirs) = net::unix::UnixStream::pair().expect("two sockets");
        let of = i64::from(std::os::fd::AsRawFd::as_raw_fd(&ours));
        let breaks = attach_to("coro::net::send").keep_lines().instruments("break(call, end)");
        let breaks = breaks.only(move |event| event.value("fd") == Some(Value::Int(of))).start().expect("a probe");
        let sender = std::thread::spawn(move || ours.write(b"hello"));
        let deadline = std::time::Instant::now() + Duration::from_secs(30);
        let mut told = Vec::new();
        while told.len() < 2 {
            assert!(std::time::Instant::now() < deadline, "{told:?}");
            stops(Some(breaks.id())).iter().for_each(|stop| stop.release(Some(What::Returning("3".to_owned()))));
            told.extend(breaks.lines().into_iter().filter(|line| line.starts_with("the function went on")));
            std::thread::yield_now();
        }
        assert_eq!(sender.join().expect("no panic").expect("sent"), 5);
        assert_eq!(told, [(); 2].map(|()| "the function went on with its own result: this point cannot be given one"));
    }

    #[test]
    fn peers_are_named_with_their_ports_or_without() {
        for (wanted, peer, is) in [
            ("127.0.0.1", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:8", "127.0.0.1:80", false),
            ("::1", "[::1]:80", true),
            ("127.*", "127.0.0.1:80", true),
            ("/tmp/*", "/tmp/socket", true),
            ("127.0.0.1", "", false),
        ] {
            assert_eq!(is_peer(wanted, peer), is, "{wanted} for {peer}");
        }
    }
}

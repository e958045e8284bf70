//! The call logs of sockets, of locks, of channels and of timers: each call when it begins and when it returns, on everything of that
//! kind or on what is asked for.
//!
//! Invariants: a trace is a probe like any other on points of this crate's own, so that it ends as probes do and leaves nothing. Bytes
//! that go through a socket are shown only where they were asked for.
//!
//! Must not know: commands; who takes the lines.

#![forbid(unsafe_code)]

use std::collections::HashSet;
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
use crate::inspect::{self, WaitNow, Waiter};
use crate::io::{self, unflushed::unflushed};
use crate::observe::{self, Begun, Point, Shown, WaitKind};
use crate::scheduler::suspend::here;
use crate::value::Value;
use crate::{net, sync, tb, time};

/// What `probe show` calls the instrument of a trace.
pub(super) const WRITTEN: &str = "trace";

/// The points of this crate's own.
pub(super) fn points() -> impl Iterator<Item = &'static Point> {
    net::woven::points().chain(io::buffered::points()).chain(sync::woven::points()).chain(time::woven::points())
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
    Trace::of(Traced::Net)
}

/// As [`net()`], of locks: every lock, read, write, acquire and wait of a [`Mutex`](crate::sync::Mutex), an
/// [`RwLock`](crate::sync::RwLock), a [`Semaphore`](crate::sync::Semaphore) or a [`Condvar`](crate::sync::Condvar) when it begins and when
/// it returns, with who holds it; every try, unlock and release when it was done.
///
/// ```text
/// lock("db pool" src/db.rs:31), held by #17, #9
/// lock("db pool" src/db.rs:31) => () in 3.20 s, #9
/// unlock("db pool" src/db.rs:31), #9
/// ```
///
/// A program may lock a million times a second: [`named`](Trace::named) and [`waits`](Trace::waits) leave what somebody is after. While
/// nobody traces, locking and unlocking are one relaxed load and a branch slower each.
///
/// # Examples
/// ```
/// use coro::sync::Mutex;
///
/// let pool = Mutex::new(0).named("db pool");
/// let trace = coro::probe::locks().named("db *").keep_lines().start().unwrap();
/// drop(pool.lock());
/// let lines = trace.lines();
/// assert!(lines[0].starts_with("lock(\"db pool\" ") && lines[2].starts_with("unlock(\"db pool\" "), "{lines:?}");
/// ```
pub fn locks() -> Trace {
    Trace::of(Traced::Locks)
}

/// As [`net()`], of channels: every send and receive of [`mpsc`](crate::sync::mpsc), [`mpmc`](crate::sync::mpmc) and
/// [`oneshot`](crate::sync::oneshot) when it begins, with how many messages are queued, and when it returns, with the type of the message;
/// every try when it was done; and when the last sender or the last receiver has gone. What a [`select!`](crate::select!) has chosen is told
/// when it was done.
///
/// ```text
/// recv("jobs" src/main.rs:31), 0 queued, #9
/// recv("jobs" src/main.rs:31) => <app::Job> in 3.20 s, #9
/// close("jobs" src/main.rs:31) by the last sender, #4
/// ```
pub fn channels() -> Trace {
    Trace::of(Traced::Channels)
}

/// As [`net()`], of [`sleep`](crate::sleep)s and [`timeout`](crate::timeout)s.
///
/// ```text
/// timeout(5s), #9
/// sleep(50ms), #9
/// sleep(50ms) => () in 50.1 ms, #9
/// timeout(5s) ~ expired in 5.00 s, #9
/// ```
pub fn timers() -> Trace {
    Trace::of(Traced::Timers)
}

/// The log that is called so at the console and in `CORO_PROBES`.
pub(crate) fn of_word(word: &str) -> Option<Trace> {
    [Traced::Net, Traced::Locks, Traced::Channels, Traced::Timers]
        .into_iter()
        .find(|what| what.word() == word)
        .map(Trace::of)
}

/// Begins a call log on stderr, for as long as the process lasts: what its word in `CORO_PROBES` stands for.
///
/// # Errors
/// If the thread that ends probes cannot be started.
pub(super) fn for_ever(trace: Trace) -> Result<(), String> {
    let trace = trace.start().map_err(|e| e.to_string())?;
    trace.leave();
    Ok(())
}

/// What a call log is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Traced {
    Net,
    Locks,
    Channels,
    Timers,
}

impl Traced {
    fn word(self) -> &'static str {
        match self {
            Traced::Net => "net",
            Traced::Locks => "locks",
            Traced::Channels => "channels",
            Traced::Timers => "timers",
        }
    }

    /// Its points.
    fn pattern(self) -> &'static str {
        match self {
            Traced::Net => "coro::net::*|coro::io::*",
            Traced::Locks => {
                "coro::sync::lock|coro::sync::try_lock|coro::sync::read|coro::sync::try_read|coro::sync::write|coro::sync::try_write|\
                 coro::sync::unlock|coro::sync::acquire|coro::sync::try_acquire|coro::sync::release|coro::sync::wait"
            }
            Traced::Channels => {
                "coro::sync::send|coro::sync::try_send|coro::sync::recv|coro::sync::try_recv|coro::sync::close"
            }
            Traced::Timers => "coro::time::*",
        }
    }

    /// Whether a wait of that kind is one of its calls.
    fn waits_for(self) -> fn(WaitKind) -> bool {
        match self {
            Traced::Net => |_| false,
            Traced::Locks => |kind| {
                use WaitKind::{Condvar, Lock, ReadLock, Semaphore, WriteLock};
                matches!(kind, Lock | ReadLock | WriteLock | Semaphore | Condvar)
            },
            Traced::Channels => {
                |kind| matches!(kind, WaitKind::Send | WaitKind::Recv | WaitKind::Oneshot | WaitKind::Select)
            }
            Traced::Timers => |kind| kind == WaitKind::Sleep,
        }
    }
}

/// A call log that has not begun yet; see [`net()`], [`locks()`], [`channels()`] and [`timers()`].
#[must_use = "nothing is logged before `start`"]
#[derive(Debug)]
pub struct Trace {
    what: Traced,
    /// As they are written at the console.
    filters: Vec<String>,
    /// A filter that does not go with what is traced.
    wrong: Option<&'static str>,
    named: Option<String>,
    waits: bool,
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
    fn of(what: Traced) -> Trace {
        Trace {
            what,
            filters: Vec::new(),
            wrong: None,
            named: None,
            waits: false,
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

    /// A filter for these only.
    fn filter(&mut self, written: String, word: &'static str, goes_with: &[Traced]) {
        self.filters.push(written);
        if !goes_with.contains(&self.what) {
            self.wrong.get_or_insert(word);
        }
    }

    /// Only calls on locks or channels of that name or made in that line: `db pool`, `src/db.rs:31`, with `*` for anything; the
    /// beginning of a path may be left out.
    pub fn named(mut self, pattern: impl Into<String>) -> Trace {
        let pattern = pattern.into();
        self.filter(format!("name={pattern}"), "name", &[Traced::Locks, Traced::Channels]);
        self.named = Some(pattern);
        self
    }

    /// Only calls on locks or channels that have to wait: for a holder, for room, for a message.
    pub fn waits(mut self) -> Trace {
        self.filter("waits".to_owned(), "waits", &[Traced::Locks, Traced::Channels]);
        self.waits = true;
        self
    }

    /// Only calls on sockets whose other end is called like that: `127.0.0.1:7000`, `127.0.0.1`, a path, with `*` for anything. Accepting has
    /// no peer before it returns, and is left out.
    pub fn peer(mut self, pattern: impl Into<String>) -> Trace {
        let pattern = pattern.into();
        self.filter(format!("peer={pattern}"), "peer", &[Traced::Net]);
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
        self.filter(format!("fd={fd}"), "fd", &[Traced::Net]);
        self.fd = Some(fd);
        self
    }

    /// Shows up to so many bytes of what is sent and received, escaped. Without this only their number is shown.
    pub fn bytes(mut self, most: usize) -> Trace {
        self.filter(format!("bytes={most}"), "bytes", &[Traced::Net]);
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
        self.filters.iter().fold(self.what.word().to_owned(), |name, filter| name + " " + filter)
    }

    /// Begins the log.
    ///
    /// # Errors
    /// If the thread that ends probes cannot be started, or if a filter does not go with what is traced.
    pub fn start(self) -> Result<Attached, ProbeError> {
        let name = format!("trace {}", self.name());
        let Trace { what, peer, task, fd, named, waits, bytes, stack, lifespan, keep, session, wrong, .. } = self;
        if let Some(filter) = wrong {
            let goes_with = if matches!(filter, "name" | "waits") { "locks and channels" } else { "net" };
            let word = what.word();
            return Err(ProbeError(format!("{word} have no {filter}: that goes with a trace of {goes_with}")));
        }
        let wanted = Arc::new(Wanted { peer, task, fd, named, waits });
        let mut attach: Attach = attach_to(what.pattern()).named(name);
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
                    && wanted.names_object(|| [plain(event, "name"), plain(event, "place")])
                    && (!wanted.waits || event.value("busy") == Some(Value::Bool(true)))
            });
        }
        let sink = attach.sink();
        let told = Arc::new(Told { listens: AtomicBool::new(true), begun: Mutex::default() });
        let log = CallLog { sink: sink.clone(), bytes, stack, told: told.clone() };
        let attached = attach.with(WRITTEN, log).start()?;
        // What waits already has begun before anybody looked.
        match what {
            Traced::Net => {
                for (fd, peer, waiter) in inspect::all_waiting() {
                    let peer = peer.unwrap_or_default();
                    if !told.has(waiter.task, Some(fd)) && wanted.names(waiter.task, Some(fd), || peer.clone()) {
                        sink.line(|| waits_already(fd, &peer, &waiter));
                    }
                }
            }
            _ => {
                let (found, more) = inspect::who_waits(what.waits_for(), MOST_WAITS);
                for wait in found.iter().filter(|wait| !told.has(wait.task, None) && wanted.names_wait(wait)) {
                    sink.line(|| format!("{} waits for {}, #{}", wait.text, text::duration(wait.age), wait.task));
                }
                if more > 0 {
                    sink.line(|| format!("{more} more tasks wait, not as long as those; tasks shows them"));
                }
            }
        }
        told.listens.store(false, Ordering::Relaxed);
        told.begun().clear();
        Ok(attached)
    }
}

/// So many of those that wait already are told when a trace begins.
const MOST_WAITS: usize = 1000;

/// The calls that were told while a trace began, so that those that wait then are not told again.
struct Told {
    /// It still begins.
    listens: AtomicBool,
    /// Tasks, and the descriptors of calls on sockets.
    begun: Mutex<HashSet<(u64, Option<i64>)>>,
}

impl Told {
    fn begun(&self) -> MutexGuard<'_, HashSet<(u64, Option<i64>)>> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, task: u64, fd: Option<RawFd>) -> bool {
        self.begun().contains(&(task, fd.map(i64::from)))
    }

    fn note(&self, event: &Event<'_>) {
        if self.listens.load(Ordering::Relaxed) && event.kind() == Events::CALL {
            let fd = match event.value("fd") {
                Some(Value::Int(fd)) => Some(fd),
                _ => None,
            };
            self.begun().insert((event.task(), fd));
        }
    }
}

/// Which calls are meant.
struct Wanted {
    peer: Option<String>,
    task: Option<u64>,
    fd: Option<RawFd>,
    named: Option<String>,
    waits: bool,
}

impl Wanted {
    fn is_everything(&self) -> bool {
        self.peer.is_none() && self.task.is_none() && self.fd.is_none() && self.named.is_none() && !self.waits
    }

    /// Whether an object of that name and place is meant; the beginning of a path may be left out.
    fn names_object(&self, object: impl FnOnce() -> [String; 2]) -> bool {
        self.named.as_ref().is_none_or(|wanted| {
            let [name, place] = object();
            let fits = |text: &str| pattern::fits(wanted.as_bytes(), text.as_bytes());
            !name.is_empty() && fits(&name)
                || fits(&place)
                || place.match_indices('/').any(|(at, _)| fits(&place[at + 1..]))
        })
    }

    /// Whether that wait is meant, by its task and what it is for.
    fn names_wait(&self, wait: &WaitNow) -> bool {
        let place = |site: &inspect::Site| format!("{}:{}", site.file, site.line);
        let is_meant = |(name, site): &(Option<&str>, inspect::Site)| {
            self.names_object(|| [name.unwrap_or_default().to_owned(), place(site)])
        };
        self.task.is_none_or(|wanted| wait.task == wanted)
            && (self.named.is_none() || wait.objects.iter().any(is_meant))
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

/// The name of the call, without where it stands.
fn last_word(point: &'static Point) -> &'static str {
    point.name().rsplit("::").next().unwrap_or_default()
}

/// Whether such a call never waits: it is told when it was done.
fn is_done_at_once(point: &'static Point) -> bool {
    let call = last_word(point);
    // Of sockets `close` is a call like others.
    matches!(call, "unlock" | "release") || call.starts_with("try_") || point.arguments().last() == Some(&"by")
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
        // What never waits is told when it was done.
        if event.kind() == Events::CALL && is_done_at_once(event.point()) {
            return;
        }
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
        let call = last_word(point);
        let first = point.arguments().first().copied().unwrap_or_default();
        let of_socket = first == "fd";
        if !matches!(first, "fd" | "into") {
            return self.line_of_other(event, call, first);
        }
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

    /// `lock("db pool" src/db.rs:31), held by #17, #9`, `recv("jobs" src/jobs.rs:7) => <app::Job> in 3.2 s, #9`, `sleep(50ms), #9`.
    fn line_of_other(&self, event: &Event<'_>, call: &str, first: &str) -> String {
        let begins = event.kind() == Events::CALL;
        let mut out = format!("{call}(");
        if first == "name" {
            let name = plain(event, "name");
            if !name.is_empty() {
                let _ = write!(out, "\"{}\" ", name.escape_debug());
            }
            out.push_str(&plain(event, "place"));
        } else {
            out.push_str(&plain(event, first));
        }
        out.push(')');
        let at_once = is_done_at_once(event.point());
        match event.result_text() {
            _ if begins => {}
            None => out.push_str(" ~ unwinds"),
            Some(result) if event.is_err() => _ = write!(out, " ~ {result}"),
            Some(result) if !at_once || result != "()" => _ = write!(out, " => {result}"),
            Some(_) => {}
        }
        if let Some(elapsed) = event.elapsed().filter(|_| !at_once) {
            let _ = write!(out, " in {}", text::duration(elapsed));
        }
        // What it found, where that says why it waits.
        let found = |name: &str| Some(plain(event, name)).filter(|text| !text.is_empty());
        if begins || at_once {
            for (name, before, after) in [
                ("held_by", ", held by ", ""),
                ("wanted", ", ", " wanted"),
                ("free", ", ", " free"),
                ("given", ", ", " given back"),
                ("queued", ", ", " queued"),
                ("by", " by the ", ""),
            ] {
                if let Some(text) = found(name) {
                    let _ = write!(out, "{before}{text}{after}");
                }
            }
        }
        if let Some(h) = here() {
            let _ = write!(out, ", #{}", h.id());
        }
        if self.stack && (begins || at_once) {
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
            for stop in stops(Some(breaks.id())) {
                stop.release(Some(What::Returning("3".to_owned())));
            }
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

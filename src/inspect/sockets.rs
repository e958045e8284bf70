//! The sockets of `net`: each one, those of one place in the source, those of one peer, and what waits on them.
//!
//! Read from the table that `net` keeps, without a lock. The kernel is asked for what it alone knows (the state of a
//! connection), one call per socket and only here; what it said counts only if the descriptor was the same socket
//! before and after.
//!
//! Must not know: how the table is kept, or who asks.

#![forbid(unsafe_code)]

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::time::Duration;

use super::capture::Captured;
use super::snapshot::Site;
use super::sweep::cells;
use super::text::{Age, Escaped, push_escaped, push_number};
use crate::net::endpoint::Endpoint;
use crate::net::table::{self, Kind, Seen};
use crate::observe::{WaitKind, WaitReason};
use crate::sys::{self, clock};
use crate::task::state::Life;

/// What a socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum SocketKind {
    /// [`TcpListener`](crate::net::TcpListener).
    TcpListener,
    /// [`TcpStream`](crate::net::TcpStream).
    TcpStream,
    /// [`UdpSocket`](crate::net::UdpSocket).
    Udp,
    /// [`UnixListener`](crate::net::unix::UnixListener).
    UnixListener,
    /// [`UnixStream`](crate::net::unix::UnixStream).
    UnixStream,
    /// [`UnixDatagram`](crate::net::unix::UnixDatagram).
    UnixDatagram,
    /// [`PipeReader`](crate::io::PipeReader): no socket, but a descriptor like one.
    PipeReader,
    /// [`PipeWriter`](crate::io::PipeWriter).
    PipeWriter,
    /// [`ChildStdin`](crate::process::ChildStdin).
    ChildStdin,
    /// [`ChildStdout`](crate::process::ChildStdout).
    ChildStdout,
    /// [`ChildStderr`](crate::process::ChildStderr).
    ChildStderr,
}

impl SocketKind {
    /// As views print it: `tcp`, `tcp listener`, `udp`…
    pub fn word(self) -> &'static str {
        match self {
            SocketKind::TcpListener => "tcp listener",
            SocketKind::TcpStream => "tcp",
            SocketKind::Udp => "udp",
            SocketKind::UnixListener => "unix listener",
            SocketKind::UnixStream => "unix",
            SocketKind::UnixDatagram => "unix datagram",
            SocketKind::PipeReader => "pipe reader",
            SocketKind::PipeWriter => "pipe writer",
            SocketKind::ChildStdin => "child stdin",
            SocketKind::ChildStdout => "child stdout",
            SocketKind::ChildStderr => "child stderr",
        }
    }
}

impl From<Kind> for SocketKind {
    fn from(kind: Kind) -> SocketKind {
        match kind {
            Kind::TcpListener => SocketKind::TcpListener,
            Kind::TcpStream => SocketKind::TcpStream,
            Kind::Udp => SocketKind::Udp,
            Kind::UnixListener => SocketKind::UnixListener,
            Kind::UnixStream => SocketKind::UnixStream,
            Kind::UnixDatagram => SocketKind::UnixDatagram,
            Kind::PipeReader => SocketKind::PipeReader,
            Kind::PipeWriter => SocketKind::PipeWriter,
            Kind::ChildStdin => SocketKind::ChildStdin,
            Kind::ChildStdout => SocketKind::ChildStdout,
            Kind::ChildStderr => SocketKind::ChildStderr,
        }
    }
}

/// A task that waits on a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct Waiter {
    /// Its id.
    pub task: u64,
    /// Its name.
    pub name: Option<String>,
    /// For what: `read`, `write`, `accept` or `connect`.
    pub wants: &'static str,
    /// For how long.
    pub age: Duration,
}

impl fmt::Display for Waiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.task)?;
        if let Some(name) = &self.name {
            write!(f, " \"{}\"", Escaped(name))?;
        }
        write!(f, " {} {}", self.wants, Age(self.age))
    }
}

/// One socket of [`coro::net`](crate::net). Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SocketReport {
    /// Its lowest descriptor.
    pub fd: RawFd,
    /// The descriptors of its clones.
    pub clones: Vec<RawFd>,
    /// What it is.
    pub kind: SocketKind,
    /// This end's address, or the path of a unix socket.
    pub local: Option<String>,
    /// The other end's.
    pub peer: Option<String>,
    /// The other end's IP address.
    pub peer_ip: Option<IpAddr>,
    /// The process at the other end of a unix socket.
    pub peer_pid: Option<u32>,
    /// The state of a TCP connection as the kernel names it (`established`, `close wait`…); Linux only.
    pub state: Option<&'static str>,
    /// Of a TCP listener: connections that wait to be accepted, and how many may; Linux only.
    pub backlog: Option<(u32, u32)>,
    /// Of a listener: connections accepted.
    pub accepted: u64,
    /// Since it was made.
    pub age: Duration,
    /// Since something was last read, written or accepted, exact to a slice.
    pub idle: Duration,
    /// Bytes read.
    pub bytes_in: u64,
    /// Bytes written.
    pub bytes_out: u64,
    /// The task that made it, which may have ended; 0 for a plain thread.
    pub opener: u64,
    /// That task's name, if it has not ended.
    pub opener_name: Option<String>,
    /// Where it was accepted, connected, bound or taken over.
    pub site: Option<Site>,
    /// Tasks that wait on it.
    pub waiting: Vec<Waiter>,
}

impl fmt::Display for SocketReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd {}", self.fd)?;
        for clone in &self.clones {
            write!(f, "+{clone}")?;
        }
        write!(f, " {}", self.kind.word())?;
        if let Some(local) = &self.local {
            write!(f, " {}", Escaped(local))?;
        }
        if let Some(peer) = &self.peer {
            write!(f, " → {}", Escaped(peer))?;
        }
        match (self.peer_pid, &self.peer) {
            (Some(pid), None) => write!(f, " → pid {pid}")?,
            (Some(pid), Some(_)) => write!(f, " (pid {pid})")?,
            _ => {}
        }
        if let Some((waiting, most)) = self.backlog {
            write!(f, " backlog {waiting} of {most}")?;
        } else if let Some(state) = self.state {
            write!(f, " {state}")?;
        }
        write!(f, ", age {}, idle {}", Age(self.age), Age(self.idle))?;
        match self.kind {
            SocketKind::TcpListener | SocketKind::UnixListener => write!(f, ", accepted {}", self.accepted)?,
            _ => write!(f, ", in {} B, out {} B", self.bytes_in, self.bytes_out)?,
        }
        if let Some(site) = self.site {
            write!(f, ", opened at {}:{}", Escaped(site.file), site.line)?;
        }
        match (self.opener, &self.opener_name) {
            (0, _) => f.write_str(" by a plain thread")?,
            (id, None) => write!(f, " by #{id}")?,
            (id, Some(name)) => write!(f, " by #{id} \"{}\"", Escaped(name))?,
        }
        for (i, waiter) in self.waiting.iter().enumerate() {
            write!(f, "{}{waiter}", if i == 0 { "; waiting: " } else { ", " })?;
        }
        Ok(())
    }
}

/// The sockets that were opened at one place in the source. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct SiteSockets {
    /// Where they were accepted, connected, bound or taken over.
    pub site: Option<Site>,
    /// What they are.
    pub kind: SocketKind,
    /// How many there are.
    pub sockets: usize,
    /// How many descriptors they have, those of clones included.
    pub descriptors: usize,
    /// Age of the oldest.
    pub oldest: Duration,
    /// The longest that one of them has been idle.
    pub longest_idle: Duration,
    /// On how many of them somebody waits.
    pub waited_on: usize,
    /// How many of them the other end has closed (`close wait`): the program has not.
    pub closed_by_peer: usize,
}

impl fmt::Display for SiteSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sockets, self.kind.word())?;
        if self.descriptors > self.sockets {
            write!(f, " ({} descriptors)", self.descriptors)?;
        }
        if let Some(site) = self.site {
            write!(f, " opened at {}:{}", Escaped(site.file), site.line)?;
        }
        write!(f, ", oldest {}, idle up to {}", Age(self.oldest), Age(self.longest_idle))?;
        write!(f, ", waited on {}", self.waited_on)?;
        if self.closed_by_peer > 0 {
            write!(f, ", closed by the peer {}", self.closed_by_peer)?;
        }
        Ok(())
    }
}

/// The sockets that are connected to one peer. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct PeerReport {
    /// An IP address, or `pid N` for a process at unix sockets.
    pub peer: String,
    /// Sockets connected to it.
    pub sockets: usize,
    /// Tasks that wait for it.
    pub waiting: usize,
    /// How long the first of them has waited.
    pub oldest_wait: Option<Duration>,
    /// Bytes read from it, by the sockets that there are.
    pub bytes_in: u64,
    /// Bytes written to it.
    pub bytes_out: u64,
}

impl fmt::Display for PeerReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} sockets, {} waiting", Escaped(&self.peer), self.sockets, self.waiting)?;
        if let Some(oldest) = self.oldest_wait {
            write!(f, ", the oldest for {}", Age(oldest))?;
        }
        write!(f, ", in {} B, out {} B", self.bytes_in, self.bytes_out)
    }
}

/// One direction of one descriptor, and who waits for it. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub struct EventReport {
    /// The descriptor.
    pub fd: RawFd,
    /// `read` (what accepts, too) or `write` (what connects, too).
    pub direction: &'static str,
    /// Between which addresses: `127.0.0.1:9000 → 127.0.0.1:52110`; empty if not known.
    pub socket: String,
    /// The tasks that wait, the one that has waited longest first.
    pub waiting: Vec<Waiter>,
}

impl fmt::Display for EventReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fd {} {}", self.fd, self.direction)?;
        if !self.socket.is_empty() {
            write!(f, " {}", self.socket)?;
        }
        for (i, waiter) in self.waiting.iter().enumerate() {
            write!(f, "{}{waiter}", if i == 0 { ": " } else { ", " })?;
        }
        Ok(())
    }
}

/// What the tasks of the process say about descriptors.
#[derive(Default)]
struct Tasks {
    /// By descriptor and serial number of the socket.
    waiting: HashMap<(RawFd, u32), Vec<Waiter>>,
    names: HashMap<u64, Option<String>>,
}

impl Tasks {
    /// Walks all tasks once, for those that wait on descriptors and for the names of `wanted`.
    fn look(wanted: &HashSet<u64>) -> Tasks {
        let mut tasks = Tasks::default();
        let mut c = Captured::new();
        c.wants_stack = false;
        for cell in cells() {
            let word = cell.state.snapshot();
            // A first look without a window: most tasks are of no interest here.
            let several = |kind| matches!(kind, WaitKind::Select | WaitKind::Future);
            let on_one = |wait: WaitReason| wait.as_descriptor().is_some() || several(wait.kind);
            let waits = || word.life() == Life::Parked && on_one(cell.wait());
            if !(wanted.contains(&word.id()) || waits()) || !c.capture(cell, Some(word.id())) {
                continue;
            }
            let name = c.name().map(str::to_owned);
            let choices = c.waiting.choices.iter().flatten().map(|(reason, _)| *reason);
            let parked = c.doing == super::capture::Doing::Parked;
            let waits = std::iter::once(c.wait).chain(choices).filter(|_| parked);
            for (wait, on) in waits.filter_map(|wait| Some((wait, wait.as_descriptor()?))) {
                let (wants, age) = (wait.kind.word(), clock::since(c.since));
                let waiter = Waiter { task: c.id, name: name.clone(), wants, age };
                tasks.waiting.entry(on).or_default().push(waiter);
            }
            if wanted.contains(&c.id) {
                tasks.names.insert(c.id, name);
            }
        }
        tasks.waiting.values_mut().for_each(|w| w.sort_by_key(|w| std::cmp::Reverse(w.age)));
        tasks
    }
}

/// Every socket of [`coro::net`](crate::net) that is open, and every end of a pipe of [`coro::io`](crate::io) and
/// [`coro::process`](crate::process), by descriptor.
///
/// Sockets that come or go meanwhile may be missing. Tasks that wait are listed; plain threads are not.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
///     let at = listener.local_addr().unwrap().to_string();
///     let all = coro::inspect::sockets();
///     let mine = all.iter().find(|s| s.local.as_deref() == Some(&*at)).unwrap();
///     assert_eq!(mine.site.unwrap().file, file!());
/// });
/// ```
pub fn sockets() -> Vec<SocketReport> {
    let mut found: HashMap<u32, usize> = HashMap::new();
    let mut all: Vec<(u32, SocketReport)> = Vec::new();
    for (fd, seen) in table::all() {
        match found.entry(seen.serial) {
            Entry::Occupied(at) => all[*at.get()].1.clones.push(fd),
            Entry::Vacant(place) => {
                place.insert(all.len());
                all.push((seen.serial, report(fd, &seen)));
            }
        }
    }
    let openers = all.iter().map(|(_, s)| s.opener).filter(|id| *id != 0).collect();
    let mut tasks = Tasks::look(&openers);
    for (serial, s) in &mut all {
        s.opener_name = tasks.names.get(&s.opener).cloned().flatten();
        for fd in std::iter::once(&s.fd).chain(&s.clones) {
            s.waiting.append(&mut tasks.waiting.remove(&(*fd, *serial)).unwrap_or_default());
        }
    }
    all.into_iter().map(|(_, s)| s).collect()
}

/// Everybody who waits on a descriptor now, with it and what is at its other end; who has waited longest comes first.
#[cfg_attr(not(feature = "probe"), allow(dead_code, reason = "traces begin with it"))]
pub(crate) fn all_waiting() -> Vec<(RawFd, Option<String>, Waiter)> {
    let tasks = Tasks::look(&HashSet::new());
    let peer = |(fd, serial)| {
        let seen = table::find(fd, serial)?;
        end_text(seen.peer).or_else(|| seen.peer.process().map(|pid| format!("pid {pid}")))
    };
    let on = |(on, waiters): ((RawFd, u32), Vec<Waiter>)| {
        let peer = peer(on);
        waiters.into_iter().map(move |waiter| (on.0, peer.clone(), waiter))
    };
    let mut all: Vec<_> = tasks.waiting.into_iter().flat_map(on).collect();
    all.sort_by_key(|(.., waiter)| std::cmp::Reverse(waiter.age));
    all
}

fn report(fd: RawFd, seen: &Seen) -> SocketReport {
    let tcp = matches!(seen.kind, Kind::TcpListener | Kind::TcpStream);
    let state = tcp.then(|| sys::socket::tcp_state(fd)).flatten();
    let backlog = (seen.kind == Kind::TcpListener).then(|| sys::socket::backlog(fd)).flatten();
    // The kernel was asked about this socket if the number is still its own.
    let asked = table::find(fd, seen.serial).is_some();
    let [first, second] = seen.traffic;
    let listens = seen.kind.is_listener();
    SocketReport {
        fd,
        clones: Vec::new(),
        kind: seen.kind.into(),
        local: end_text(seen.local),
        peer: end_text(seen.peer),
        peer_ip: seen.peer.ip(),
        peer_pid: seen.peer.process(),
        state: state.filter(|_| asked).and_then(tcp_word),
        backlog: backlog.filter(|_| asked).map(|b| (b.waiting, b.most)),
        accepted: if listens { first } else { 0 },
        age: clock::since(seen.opened),
        idle: clock::since(seen.active),
        bytes_in: if listens { 0 } else { first },
        bytes_out: second,
        opener: seen.opener,
        opener_name: None,
        site: seen.site.map(Site::from),
        waiting: Vec::new(),
    }
}

/// The kernel's states, from `net/tcp_states.h`.
fn tcp_word(state: u8) -> Option<&'static str> {
    const WORDS: [&str; 12] = [
        "established",
        "syn sent",
        "syn received",
        "fin wait 1",
        "fin wait 2",
        "time wait",
        "closed",
        "close wait",
        "last ack",
        "listen",
        "closing",
        "syn received",
    ];
    WORDS.get(usize::from(state).checked_sub(1)?).copied()
}

/// As data: nothing is escaped.
fn end_text(end: Endpoint) -> Option<String> {
    match end {
        Endpoint::Path(..) => end.path().map(str::to_owned),
        end => is_shown(end).then(|| {
            let mut text = String::new();
            push_end(end, &mut text);
            text
        }),
    }
}

/// The open sockets, counted by where they were opened, the largest number first: a leak stands at the top.
///
/// # Examples
/// ```
/// coro::run(|| {
///     let leak: Vec<_> = (0..9).map(|_| coro::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
///     let sites = coro::inspect::sockets_by_site();
///     assert!(sites.iter().any(|s| s.sockets == 9 && s.site.unwrap().file == file!()), "{sites:?}");
///     drop(leak);
/// });
/// ```
pub fn sockets_by_site() -> Vec<SiteSockets> {
    let mut by_site: HashMap<(Option<Site>, SocketKind), SiteSockets> = HashMap::new();
    for s in sockets() {
        let group = by_site.entry((s.site, s.kind)).or_insert(SiteSockets {
            site: s.site,
            kind: s.kind,
            sockets: 0,
            descriptors: 0,
            oldest: Duration::ZERO,
            longest_idle: Duration::ZERO,
            waited_on: 0,
            closed_by_peer: 0,
        });
        group.sockets += 1;
        group.descriptors += 1 + s.clones.len();
        group.oldest = group.oldest.max(s.age);
        group.longest_idle = group.longest_idle.max(s.idle);
        group.waited_on += usize::from(!s.waiting.is_empty());
        group.closed_by_peer += usize::from(s.state == Some("close wait"));
    }
    let mut all: Vec<SiteSockets> = by_site.into_values().collect();
    let place = |g: &SiteSockets| g.site.map(|s| (s.file, s.line));
    all.sort_by(|a, b| (b.descriptors, place(a), a.kind).cmp(&(a.descriptors, place(b), b.kind)));
    all
}

/// The peers that sockets are connected to, with the tasks that wait for them; the most waited for first.
pub fn peers() -> Vec<PeerReport> {
    let mut by_peer: BTreeMap<String, PeerReport> = BTreeMap::new();
    for s in sockets() {
        let peer = match (s.peer_ip, s.peer_pid) {
            (Some(ip), _) => ip.to_string(),
            (None, Some(pid)) => format!("pid {pid}"),
            (None, None) => continue,
        };
        let group = by_peer.entry(peer.clone()).or_insert(PeerReport {
            peer,
            sockets: 0,
            waiting: 0,
            oldest_wait: None,
            bytes_in: 0,
            bytes_out: 0,
        });
        group.sockets += 1;
        group.waiting += s.waiting.len();
        group.oldest_wait = group.oldest_wait.max(s.waiting.iter().map(|w| w.age).max());
        group.bytes_in += s.bytes_in;
        group.bytes_out += s.bytes_out;
    }
    let mut all: Vec<PeerReport> = by_peer.into_values().collect();
    all.sort_by_key(|p| std::cmp::Reverse((p.waiting, p.sockets)));
    all
}

/// The event map: every descriptor on which tasks wait, by direction, with those tasks.
///
/// Made from what the tasks say that they wait for, so a wait that has ended, by a time limit, a cancellation or the
/// closing of its socket, is gone from here.
pub fn events() -> Vec<EventReport> {
    let mut map: BTreeMap<(RawFd, bool, u32), Vec<Waiter>> = BTreeMap::new();
    for ((fd, serial), waiting) in Tasks::look(&HashSet::new()).waiting {
        for waiter in waiting {
            let write = matches!(waiter.wants, "write" | "connect");
            map.entry((fd, write, serial)).or_default().push(waiter);
        }
    }
    let event = |((fd, write, serial), waiting)| {
        let mut socket = String::new();
        if let Some(seen) = table::find(fd, serial) {
            push_ends(&seen, &mut socket);
            socket.drain(..usize::from(socket.starts_with(' ')));
        }
        EventReport { fd, direction: if write { "write" } else { "read" }, socket, waiting }
    };
    map.into_iter().map(event).collect()
}

/// Both ends as a wait shows them, each word after a space: ` 127.0.0.1:9000 → 127.0.0.1:52110`, ` unix /run/x.sock → pid 123`.
fn push_ends(seen: &Seen, out: &mut String) {
    match seen.kind {
        Kind::Udp => out.push_str(" udp"),
        kind if kind.is_unix() => out.push_str(" unix"),
        kind => {
            if let Some(word) = kind.pipe_word() {
                out.push(' ');
                out.push_str(word);
            }
        }
    }
    if is_shown(seen.local) {
        out.push(' ');
        push_end(seen.local, out);
    }
    let process = seen.peer.process();
    if is_shown(seen.peer) {
        out.push_str(" → ");
        push_end(seen.peer, out);
        if let Some(pid) = process {
            out.push_str(" (pid ");
            push_number(pid.into(), out);
            out.push(')');
        }
    } else if let Some(pid) = process {
        out.push_str(" → pid ");
        push_number(pid.into(), out);
    }
    if seen.kind.is_listener() && seen.backlog > 0 {
        out.push_str(" (backlog ");
        push_number(seen.backlog.into(), out);
        out.push(')');
    }
}

fn is_shown(end: Endpoint) -> bool {
    !matches!(end, Endpoint::None | Endpoint::Unnamed(_))
}

/// A dump writes a hundred thousand of these, most of them IPv4: no formatting machinery.
fn push_end(end: Endpoint, out: &mut String) {
    match end {
        Endpoint::Ip(SocketAddr::V4(a)) => {
            for (i, part) in a.ip().octets().into_iter().enumerate() {
                if i > 0 {
                    out.push('.');
                }
                push_number(part.into(), out);
            }
            out.push(':');
            push_number(a.port().into(), out);
        }
        Endpoint::Ip(a) => {
            let _ = write!(out, "{a}");
        }
        Endpoint::Path(..) => push_escaped(end.path().unwrap_or_default(), out),
        Endpoint::Unlisted => out.push_str("(path not kept)"),
        Endpoint::None | Endpoint::Unnamed(_) => {}
    }
}

/// What a wait on a descriptor says after its first word, if it is one: ` fd 9 127.0.0.1:9000 → 127.0.0.1:52110`. Addresses
/// come from the table of sockets, never from the kernel; a descriptor that is another socket by now has none.
pub(super) fn socket_text(wait: WaitReason, out: &mut String) {
    let Some((fd, serial)) = wait.as_descriptor() else { return };
    out.push_str(" fd ");
    push_number(fd as u64, out);
    match table::find(fd, serial) {
        Some(seen) => push_ends(&seen, out),
        None if fd == 0 && serial == 0 => out.push_str(" stdin"),
        None => {}
    }
}

/// The descriptor that a task waits on, and the peer there.
pub(super) fn descriptor_and_peer(wait: WaitReason) -> (Option<RawFd>, Option<String>) {
    let Some((fd, serial)) = wait.as_descriptor() else { return (None, None) };
    let peer = match wait.kind {
        WaitKind::Accept => None,
        _ => table::find(fd, serial).and_then(|seen| match (end_text(seen.peer), seen.peer.process()) {
            (None, Some(pid)) => Some(format!("pid {pid}")),
            (peer, _) => peer,
        }),
    };
    (Some(fd), peer)
}

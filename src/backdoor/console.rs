//! The console thread: one `poll(2)` loop over the listeners and their sessions.
//!
//! Invariants: no call in the loop blocks except `poll`; the thread runs commands a step at a time, session by session, and
//! looks at the sockets again after [`WORK_PER_TURN`] or one longer step; it ends only when the server is closed, never by
//! a panic; nothing is sent to a peer before its user id is known to be ours or root's.
//!
//! Must not know: the scheduler, what commands mean, where the socket's path came from.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use super::attach::{self, Calls};
use super::line::{escape, escape_up_to};
use super::rights::Rights;
use super::session::Session;
use super::stream::{Listener, Peer, Stream};
use super::{Commands, Limits};
use crate::commands::Tier;
use crate::commands::sessions::Ticket;
use crate::report::{self, Report};
use crate::sys::courtesy::{Allowance, Courtesy};
use crate::sys::fork::Own;
use crate::sys::pace::Pace;
use crate::sys::unixsock::{self, Watch};

/// How long commands run before the sockets are looked at again, unless a single step takes longer.
const WORK_PER_TURN: Duration = Duration::from_millis(5);

/// How long the listener is left alone when connections cannot be accepted: it stays readable and would spin the loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Descriptors held back for the time when the process has no others: one to serve a session with, just when someone
/// needs to look inside, and one to refuse the next.
const SPARES: usize = 2;

/// How much is told of why a call was not answered; there are paths in it.
const LONGEST_REASON: usize = 400;

/// What answers may take of a machine without a free CPU before they have to leave it to others; see [`Courtesy`]. A dump of a
/// hundred thousand tasks is 0.15 s.
static ALLOWANCE: Allowance = Allowance::new(Duration::from_secs(1));

/// Whether the loop goes on.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    Next,
    Stop,
}

/// One way in.
pub(super) struct Door {
    /// A forked child must keep no listener that nobody serves.
    _own: Own,
    listener: Listener,
    /// What those who come in here may do at most.
    ceiling: Tier,
    /// For messages.
    shown: String,
}

impl Door {
    pub(super) fn new(listener: Listener, ceiling: Tier, shown: String) -> Door {
        Door { _own: Own::new(listener.as_fd().as_raw_fd()), listener, ceiling, shown }
    }
}

impl Door {
    /// Whether it is a signal that brings clients here.
    fn calls(&self) -> Option<&Calls> {
        match &self.listener {
            Listener::Called(calls) => Some(calls),
            _ => None,
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.listener.shutdown();
    }
}

pub(super) struct Console {
    doors: Vec<Door>,
    /// A byte means stop, unless it is [`WAKE`]; its end means that nobody can say so any more.
    control: Option<UnixStream>,
    commands: &'static Commands,
    limits: Limits,
    /// The program's own words to people.
    welcome: Option<String>,
    sessions: Vec<Session>,
    /// The session that works first in the next turn.
    first: usize,
    courtesy: Courtesy,
    /// Answers that take long go on then.
    heavy_from: Option<Instant>,
    pace: Pace,
    /// All answers go on then: in a few milliseconds.
    rests_until: Option<Instant>,
    spares: Vec<File>,
    accept_from: Option<Instant>,
    complained: Option<Instant>,
}

impl Console {
    pub(super) fn new(
        doors: Vec<Door>,
        control: UnixStream,
        commands: &'static Commands,
        limits: Limits,
        welcome: Option<String>,
        spares: Vec<File>,
    ) -> Self {
        let mut console = Self {
            doors,
            control: Some(control),
            commands,
            limits,
            welcome,
            sessions: Vec::new(),
            first: 0,
            courtesy: Courtesy::new(&ALLOWANCE),
            heavy_from: None,
            pace: Pace::new(Instant::now()),
            rests_until: None,
            spares,
            accept_from: None,
            complained: None,
        };
        console.refill_spares();
        console
    }

    /// A console for one session that is there already; it ends with it.
    pub(super) fn of_one(
        session: Session,
        control: UnixStream,
        commands: &'static Commands,
        limits: Limits,
        welcome: Option<String>,
    ) -> Self {
        let mut console = Console::new(Vec::new(), control, commands, limits, welcome, Vec::new());
        console.sessions.push(session);
        console
    }

    /// Serves until the server is closed.
    pub(super) fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.turn())) {
                Ok(Turn::Next) => {}
                Ok(Turn::Stop) => return,
                // Commands are guarded in the session, so this is a fault in here. Sessions may be in any state.
                Err(payload) => {
                    std::mem::forget(payload);
                    self.sessions.clear();
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let now = Instant::now();
        if self.heavy_from.is_some_and(|from| from <= now) {
            self.heavy_from = self.courtesy.paused(now).map(|more| now + more);
        }
        let stirred = match self.wait() {
            Ok(stirred) => stirred,
            // Out of memory, at worst: everything is tried as if it were ready.
            Err(_) => {
                std::thread::sleep(ACCEPT_PAUSE);
                Stirred {
                    control: false,
                    doors: vec![true; self.doors.len()],
                    sessions: vec![true; self.sessions.len()],
                }
            }
        };
        let now = Instant::now();
        self.doors.iter().filter_map(Door::calls).for_each(|calls| calls.tend(now));
        if stirred.control && self.told_to_stop() {
            return Turn::Stop;
        }
        for (index, _) in stirred.sessions.iter().enumerate().filter(|(_, stirred)| **stirred) {
            let session = &mut self.sessions[index];
            if session.wants_to_read() {
                let begin = session.floods().then(Instant::now);
                session.read(now);
                if let Some(begin) = begin {
                    self.account(index, begin, Instant::now());
                }
            }
            self.sessions[index].write(now);
        }
        let commands = self.commands;
        let welcome = self.welcome.as_deref();
        self.sessions.iter_mut().for_each(|session| session.tick(commands, welcome, now));
        // Before the listener: a place or descriptor that has just become free is there for the next client.
        self.sweep();
        for (door, _) in stirred.doors.iter().enumerate().filter(|(_, stirred)| **stirred) {
            self.accept(door, now);
        }
        self.work();
        self.sweep();
        if self.doors.is_empty() && self.sessions.is_empty() { Turn::Stop } else { Turn::Next }
    }

    /// Lets go of sessions that are over.
    fn sweep(&mut self) {
        self.sessions.retain(|session| !session.is_over());
        self.refill_spares();
    }

    /// Waits for sockets or deadlines; not at all while a command can go on.
    fn wait(&mut self) -> io::Result<Stirred> {
        let now = Instant::now();
        let accepting = self.accept_from.is_none_or(|from| now >= from);
        let (can_work, heavy) = self.workload(now);
        let paused = self.heavy_from.is_some_and(|from| now < from);
        let rests = self.rests_until.filter(|until| now < *until);
        let timeout = if can_work && rests.is_none() {
            Some(Duration::ZERO)
        } else {
            let pause = if accepting { None } else { self.accept_from };
            let pause = pause.into_iter().chain(heavy).chain(rests);
            let tending = self.doors.iter().filter_map(Door::calls).map(Calls::deadline);
            let deadlines = self.sessions.iter().filter_map(Session::deadline).chain(pause).chain(tending);
            deadlines.min().map(|when| when.saturating_duration_since(now))
        };
        let mut watches = Vec::with_capacity(1 + self.doors.len() + self.sessions.len());
        let control = self.control.as_ref().map(|control| watches.push(Watch::new(control, true, false)));
        let doors = if accepting { self.doors.len() } else { 0 };
        watches.extend(self.doors[..doors].iter().map(|door| Watch::new(&door.listener, true, false)));
        let mut watched = vec![false; self.sessions.len()];
        for (session, watched) in self.sessions.iter().zip(&mut watched) {
            let held_up = session.floods() && (rests.is_some() || paused && session.is_heavy());
            let (read, write) = (session.wants_to_read() && !held_up, session.wants_to_write());
            // Never with neither: a hang-up is reported unasked, and would spin the loop while a command runs.
            if read || write {
                *watched = true;
                watches.push(Watch::new(session.stream(), read, write));
            }
        }
        unixsock::poll(&mut watches, timeout)?;
        let mut outcomes = watches.iter().map(Watch::stirred);
        Ok(Stirred {
            control: control.is_some_and(|()| outcomes.next().unwrap_or(false)),
            doors: outcomes.by_ref().take(doors).collect(),
            sessions: watched.into_iter().map(|watched| watched && outcomes.next().unwrap_or(false)).collect(),
        })
    }

    fn told_to_stop(&mut self) -> bool {
        let Some(mut control) = self.control.as_ref() else { return false };
        let mut told = [0];
        match control.read(&mut told) {
            Ok(0) => {
                self.control = None;
                false
            }
            Ok(_) => told[0] != WAKE,
            Err(_) => false,
        }
    }

    /// Whether a session can work now, and when those that have to leave the CPU to others can, if there are any.
    fn workload(&self, now: Instant) -> (bool, Option<Instant>) {
        let pause = self.heavy_from.filter(|from| now < *from);
        let (mut can_work, mut heavy) = (false, None);
        for session in &self.sessions {
            match pause {
                Some(from) if session.is_heavy() && (session.wants_to_work() || session.floods()) => heavy = Some(from),
                _ => can_work |= session.wants_to_work(),
            }
        }
        (can_work, heavy)
    }

    /// Lets the sessions work in turn, beginning with another one each time.
    fn work(&mut self) {
        let begin = Instant::now();
        let mut now = begin;
        loop {
            if self.rests_until.is_some_and(|until| now < until) {
                return;
            }
            let count = self.sessions.len();
            let paused = self.heavy_from.is_some_and(|from| now < from);
            let can_work = |session: &Session| session.wants_to_work() && !(paused && session.is_heavy());
            let Some(index) = (0..count).map(|i| (self.first + i) % count).find(|&i| can_work(&self.sessions[i]))
            else {
                return;
            };
            let session = &mut self.sessions[index];
            session.work(self.commands, now);
            let then = std::mem::replace(&mut now, Instant::now());
            self.account(index, then, now);
            self.first = index + 1;
            if now - begin >= WORK_PER_TURN {
                return;
            }
        }
    }

    /// A session has been worked for from then until now.
    fn account(&mut self, index: usize, then: Instant, now: Instant) {
        let (session, took) = (&mut self.sessions[index], now - then);
        session.count(took, now);
        self.rests_until = self.pace.worked(now).map(|pause| now + pause).or(self.rests_until);
        if session.is_heavy()
            && let Some(pause) = self.courtesy.worked(took, now)
        {
            self.heavy_from = Some(now + pause);
        }
    }

    fn accept(&mut self, door: usize, now: Instant) {
        self.accept_from = None;
        for _ in 0..2 * self.limits.sessions {
            match self.doors[door].listener.accept() {
                Ok(stream) => self.admit(door, stream, Room::for_more(), now),
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return,
                    Some(libc::EINTR | libc::ECONNABORTED) => {}
                    Some(libc::EMFILE | libc::ENFILE) => return self.accept_with_spare(door, now),
                    // A call that leads nowhere.
                    None => self.complain(door, &escape_up_to(error.to_string().as_bytes(), LONGEST_REASON), now),
                    _ => return self.accept_from = Some(now + ACCEPT_PAUSE),
                },
            }
        }
    }

    /// The process has no descriptor left. Gives up a spare one for the connection; the last is only for a refusal.
    fn accept_with_spare(&mut self, door: usize, now: Instant) {
        let room = match self.spares.pop() {
            Some(spare) => {
                drop(spare);
                Room { last: self.spares.is_empty() }
            }
            None => return self.accept_from = Some(now + ACCEPT_PAUSE),
        };
        // Another thread may have been faster; then the next connection waits, too.
        match self.doors[door].listener.accept() {
            Ok(stream) => self.admit(door, stream, room, now),
            Err(_) => self.accept_from = Some(now + ACCEPT_PAUSE),
        }
        self.refill_spares();
    }

    fn admit(&mut self, door: usize, stream: Stream, room: Room, now: Instant) {
        let us = unixsock::effective_uid();
        let called = self.doors[door].calls().map(|_| attach::limits());
        let by_signal = if called.is_some() { " by signal" } else { "" };
        let (ceiling, owner_only) = called.unwrap_or((self.doors[door].ceiling, self.limits.owner_only));
        let shown = |peer: Peer| Peer { shown: peer.shown + by_signal, ..peer };
        let peer = match stream.peer().map(shown) {
            Ok(peer) if peer.uid == us || (peer.uid == 0 && !owner_only) => peer,
            Ok(peer) => {
                return self.complain(door, &format!("a connection of user {} ({})", peer.uid, peer.shown), now);
            }
            Err(error) => return self.complain(door, &format!("a connection of an unknown user ({error})"), now),
        };
        if stream.set_nonblocking().is_err() {
            return;
        }
        let (open, limit) = (self.sessions.iter().filter(|session| session.is_open()).count(), self.limits.sessions);
        let why = if room.last {
            Some("coro: no file descriptors left in this process; end another session first".to_owned())
        } else if open >= limit {
            Some(format!("coro: too many sessions, the limit is {limit}; end one of them first"))
        } else {
            None
        };
        let ticket = why.is_none().then(|| Ticket::new(peer.shown, now));
        let who = ticket.as_ref().map(Ticket::name).unwrap_or_default();
        let rights = Rights::new(ceiling, who);
        let mut session = Session::new(stream, self.limits, rights, ticket, now);
        match why {
            Some(why) => session.turn_away(&why, now),
            None => session.greet(self.commands, now),
        }
        session.write(now);
        // Those turned away and those that ended linger a moment, but neither on the last descriptor nor in any number: then the oldest
        // goes, which has most likely read what it was told. Whoever is let go with bytes that nobody has read sees a reset instead.
        if !session.is_open() && room.last {
            return;
        }
        if self.sessions.len() >= 2 * limit
            && let Some(oldest) = self.sessions.iter().position(|session| !session.is_open())
        {
            drop(self.sessions.remove(oldest));
        }
        self.sessions.push(session);
    }

    /// One line to standard error about a connection that was closed without a word, at most one a second.
    fn complain(&mut self, door: usize, what: &str, now: Instant) {
        if self.complained.is_none_or(|last| now >= last + Duration::from_secs(1)) {
            self.complained = Some(now);
            let door = escape(self.doors[door].shown.as_bytes());
            let refused = || format!("backdoor {door}: refused {what}");
            if !report::deliver(|| Report::Audit(refused())) {
                unixsock::write_stderr_if_ready(&format!("coro: {}\n", refused()));
            }
        }
    }

    fn refill_spares(&mut self) {
        fill(&mut self.spares);
    }
}

/// Descriptors kept for when the process has none left. Taken before the console's thread begins: by the time it runs,
/// a busy server may have used up all there were.
pub(super) fn spares() -> Vec<File> {
    let mut spares = Vec::with_capacity(SPARES);
    fill(&mut spares);
    spares
}

fn fill(spares: &mut Vec<File>) {
    while spares.len() < SPARES {
        match File::open("/dev/null") {
            Ok(spare) => spares.push(spare),
            Err(_) => return,
        }
    }
}

/// Which descriptors showed something.
struct Stirred {
    control: bool,
    doors: Vec<bool>,
    sessions: Vec<bool>,
}

/// Told to a console's control: look at the sessions, something was said.
pub(super) const WAKE: u8 = b'w';

/// What is left of the process's descriptors.
struct Room {
    /// This connection took the last.
    last: bool,
}

impl Room {
    fn for_more() -> Self {
        Self { last: false }
    }
}

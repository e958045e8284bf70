//! What a parked task waits for, in words and as fields. From the copy only; nothing here is inside a window.
//!
//! `lock "db pool" src/db.rs:31 held by #17 "db writer" for 3.2s, timeout in 1.2s`
//!
//! Names of other tasks are looked up once per view and within a budget of time; without a name the number stands alone.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant};

use super::capture::{Captured, Doing};
use super::row::push_id;
use super::snapshot::{Party, Wait};
use super::sockets::{descriptor_and_peer, socket_text};
use super::text::{Age, Escaped, push_age};
use super::waiting::{Channel, Seen, State, name_of, readers};
use crate::observe::{Detail, FileCall, THREAD, WaitKind, WaitReason};
use crate::scheduler::{self, shared};
use crate::sys::clock;

/// How long a view looks for names of holders, in all. One look takes some nanoseconds per task of the process.
const BUDGET: Duration = Duration::from_millis(50);
/// Names of types are cut after so many bytes: those of combinators grow without bound.
const LONGEST_TYPE: usize = 160;
/// At most so many readers of one lock are named.
const NAMED_READERS: usize = 3;

/// What a view knows of other tasks than the one that it shows.
#[derive(Debug, Default)]
pub(super) struct Others {
    names: HashMap<u64, Option<String>>,
    spent: Duration,
    /// Who holds what for reading, by the locks' addresses.
    readers: Option<HashMap<usize, Vec<u64>>>,
    /// How long jobs of the blocking pool have run, by the tasks that wait for them.
    jobs: Option<HashMap<u64, Duration>>,
    /// By runtime, of which there are few.
    clocks: Vec<TimerClock>,
}

/// The timer clock of a runtime, read some time ago.
#[derive(Debug)]
struct TimerClock {
    runtime: u32,
    /// When it began; `None` for a runtime that is gone.
    epoch: Option<Instant>,
    /// What it showed, and when, in ticks.
    read: Option<(u64, u64)>,
}

/// For so long a timer clock is not read again: its time follows from the ticks since.
const CLOCK_KEPT: Duration = Duration::from_millis(10);

impl Others {
    /// The name of a task, if it has one and there is still time to look for it.
    pub(super) fn name(&mut self, id: u64) -> Option<&str> {
        if self.spent < BUDGET && !self.names.contains_key(&id) {
            let begun = Instant::now();
            self.names.insert(id, name_of(id));
            self.spent += begun.elapsed();
        }
        self.names.get(&id)?.as_deref()
    }

    fn readers(&mut self, lock: usize) -> &[u64] {
        let all = self.readers.get_or_insert_with(|| {
            let mut all: HashMap<usize, Vec<u64>> = HashMap::new();
            readers(|id, locks| {
                for lock in locks.into_iter().filter(|l| *l != 0) {
                    let ids = all.entry(lock).or_default();
                    if ids.last() != Some(&id) {
                        ids.push(id);
                    }
                }
            });
            all
        });
        all.get(&lock).map_or(&[], Vec::as_slice)
    }

    fn job(&mut self, task: u64) -> Option<Duration> {
        let jobs = self.jobs.get_or_insert_with(|| {
            crate::blocking::blocking_stats().running.iter().map(|job| (job.task, job.age)).collect()
        });
        jobs.get(&task).copied()
    }

    /// Nanoseconds of the timer clock of the runtime that the task belongs to, when it was looked at.
    fn timer_now(&mut self, c: &Captured) -> Option<u64> {
        let id = shared::worker_at(c.owner)?.runtime.load(std::sync::atomic::Ordering::Relaxed);
        let known = self.clocks.iter().position(|clock| clock.runtime == id);
        let place = known.unwrap_or_else(|| {
            self.clocks.push(TimerClock { runtime: id, epoch: scheduler::runtime::epoch_of(id), read: None });
            self.clocks.len() - 1
        });
        let clock = &mut self.clocks[place];
        let epoch = clock.epoch?;
        if let Some((time, at)) = clock.read {
            let since = clock::duration(c.at.saturating_sub(at));
            if since <= CLOCK_KEPT {
                return Some(time + since.as_nanos() as u64);
            }
        }
        let time = epoch.elapsed().as_nanos() as u64;
        clock.read = Some((time, clock::ticks()));
        Some(time)
    }
}

/// Who that is; `None` for nobody.
pub(super) fn party(who: u64) -> Option<Party> {
    match who {
        0 => None,
        t if t & THREAD != 0 => Some(Party::Thread((t & !THREAD) as i32)),
        id => Some(Party::Task(id)),
    }
}

/// How long ago that was; `None` if it is not known.
pub(super) fn ago(ticks: u64) -> Option<Duration> {
    (ticks != 0).then(|| clock::since(ticks))
}

/// The wait as fields: `text` is what [`describe`] wrote, `object` where the object is in the list. Of a running task it is
/// what the kernel shows.
pub(super) fn fields(c: &Captured, kind: &'static str, text: String, object: Option<usize>) -> Wait {
    if c.doing != Doing::Parked {
        return Wait { kind, text, object: None, fd: None, peer: None, left: None, timeout_left: None };
    }
    let (left, timeout_left) = left(c);
    let (fd, peer) = descriptor_and_peer(c.io());
    Wait { kind, text, object, fd, peer, left, timeout_left }
}

/// Time left of the wait's own limit, or of a sleep; and of the nearest `timeout` around it.
fn left(c: &Captured) -> (Option<Duration>, Option<Duration>) {
    let until = if c.wait.kind == WaitKind::Sleep { c.wait.detail } else { c.waiting.until };
    let own = (until != 0).then(|| c.others.borrow_mut().timer_now(c)).flatten();
    let own = own.map(|now| Duration::from_nanos(until.saturating_sub(now)));
    (own, c.waiting.timeout.map(|t| t.saturating_duration_since(Instant::now())))
}

/// The whole of a parked task's wait in words.
pub(super) fn describe(c: &Captured, out: &mut String) {
    let mut writer = Writer { c, others: &mut c.others.borrow_mut(), out };
    // A `String` takes everything.
    let _ = writer.wait().and_then(|()| writer.unflushed()).and_then(|()| writer.limits());
}

/// `"name" file:line`, with a blank before it.
pub(super) fn place(seen: &Seen, out: &mut String) -> fmt::Result {
    if let Some(name) = seen.name {
        write!(out, " \"{}\"", Escaped(name))?;
    }
    write!(out, " {}:{}", Escaped(seen.site.file()), seen.site.line())
}

fn count(n: u64, one: &str, many: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {many}") }
}

/// `16 of 16 messages`, `3 messages`; nothing for a channel that holds none.
pub(super) fn messages(ch: &Channel) -> String {
    match ch.capacity {
        Some(0) => "holds no messages".to_owned(),
        Some(most) => format!("{} of {}", ch.length, count(most as u64, "message", "messages")),
        None => count(ch.length as u64, "message", "messages"),
    }
}

/// `2 senders`.
pub(super) fn senders(ch: &Channel) -> String {
    count(ch.senders.into(), "sender", "senders")
}

/// `1 receiver`.
pub(super) fn receivers(ch: &Channel) -> String {
    count(ch.receivers.into(), "receiver", "receivers")
}

/// `last send by #4, 3.2s ago`; without a name, for a view of the object alone.
pub(super) fn last(what: &str, (who, at): (u64, u64)) -> String {
    let by = match party(who) {
        None => return String::new(),
        Some(Party::Task(id)) => format!("#{id}"),
        Some(Party::Thread(tid)) => format!("thread {tid}"),
    };
    match ago(at) {
        Some(ago) => format!("last {what} by {by}, {} ago", Age(ago)),
        None => format!("last {what} by {by}"),
    }
}

struct Writer<'a> {
    c: &'a Captured,
    others: &'a mut Others,
    out: &'a mut String,
}

impl Writer<'_> {
    fn wait(&mut self) -> fmt::Result {
        if self.c.wait.kind == WaitKind::Select {
            return self.choices();
        }
        self.one(self.c.wait, self.c.waiting.object)
    }

    /// ` over 3: recv channel "jobs" src/a.rs:7 (…) | join #5 | …`
    fn choices(&mut self) -> fmt::Result {
        let known = self.c.waiting.choices.iter().flatten();
        write!(self.out, "{} over {}", WaitKind::Select.word(), self.c.waiting.number)?;
        for (i, (reason, seen)) in known.enumerate() {
            self.out.push_str(if i == 0 { ": " } else { " | " });
            self.one(*reason, *seen)?;
        }
        Ok(())
    }

    /// One thing that is waited for.
    fn one(&mut self, wait: WaitReason, object: Option<Seen>) -> fmt::Result {
        let (kind, detail) = (wait.kind, wait.detail);
        if let Some(describe) = kind.words().and_then(|w| w.describe) {
            self.out.push_str(kind.word());
            return describe(detail, self.out);
        }
        self.out.push_str(match kind {
            WaitKind::Send => "send channel",
            WaitKind::Recv => "recv channel",
            other => other.word(),
        });
        match kind {
            WaitKind::Read | WaitKind::Write | WaitKind::Accept | WaitKind::Connect => {
                socket_text(wait, self.out);
                Ok(())
            }
            WaitKind::Join => {
                self.out.push(' ');
                push_id(detail, self.out);
                self.name(detail)
            }
            WaitKind::Scope => write!(self.out, " ({} left)", count(self.c.waiting.number, "child", "children")),
            WaitKind::Signal => write!(self.out, " {detail}"),
            WaitKind::Sleep => self.sleep(detail),
            WaitKind::Stack => write!(self.out, ": {}", std::io::Error::from_raw_os_error(detail as i32)),
            WaitKind::Signals => {
                (1..=64u32).filter(|n| detail & 1 << (n - 1) != 0).enumerate().try_for_each(|(i, n)| {
                    self.out.write_str(if i == 0 { " " } else { ", " })?;
                    crate::sys::signal_name::write(n as i32, self.out)
                })
            }
            WaitKind::Child => {
                write!(self.out, " pid {}", detail >> 32)?;
                self.quoted()
            }
            WaitKind::Spawn | WaitKind::Breakpoint => self.quoted(),
            WaitKind::File => {
                let call = FileCall::from_extra(self.c.waiting.number);
                write!(self.out, " {}", call.word())?;
                self.quoted()?;
                // A lock that another task has asked for has no job of this one.
                if call == FileCall::Lock && self.others.job(self.c.id).is_none() { Ok(()) } else { self.job() }
            }
            WaitKind::Blocking => self.job(),
            kind if kind.detail() == Detail::Text => self.quoted(),
            kind => match object {
                Some(seen) => self.object(kind, &seen),
                None => Ok(()),
            },
        }
    }

    /// The text that is waited for.
    fn quoted(&mut self) -> fmt::Result {
        match self.c.waiting.text() {
            Some(text) => write!(self.out, " \"{}\"", Escaped(text)),
            None => Ok(()),
        }
    }

    /// What becomes of the job on the blocking pool.
    fn job(&mut self) -> fmt::Result {
        match self.others.job(self.c.id) {
            Some(age) => write!(self.out, " that has run for {}", Age(age)),
            None => self.out.write_str(" that waits for a thread"),
        }
    }

    fn sleep(&mut self, deadline: u64) -> fmt::Result {
        let Some(now) = self.others.timer_now(self.c) else { return Ok(()) };
        // Its worker looks at timers between slices only.
        match now.checked_sub(deadline).filter(|late| *late > 10_000_000) {
            Some(late) => {
                self.out.push_str(" overdue ");
                push_age(Duration::from_nanos(late), self.out);
            }
            None => {
                self.out.push(' ');
                push_age(Duration::from_nanos(deadline.saturating_sub(now)), self.out);
                self.out.push_str(" left");
            }
        }
        Ok(())
    }

    fn object(&mut self, kind: WaitKind, seen: &Seen) -> fmt::Result {
        if kind == WaitKind::Future {
            return self.future(seen);
        }
        place(seen, self.out)?;
        let used = (seen.owner, seen.since);
        match (kind, seen.state) {
            (WaitKind::Lock, _) => self.holder("held", seen),
            (WaitKind::Once, _) => self.holder("run", seen),
            (WaitKind::ReadLock | WaitKind::WriteLock, State::Readers(n)) if seen.owner == 0 && n > 0 => {
                self.readers(seen.address, n)
            }
            (WaitKind::ReadLock | WaitKind::WriteLock, _) => self.holder("held", seen),
            (WaitKind::Send, State::Channel(ch)) => {
                // A sender that waits without a capacity waits for whoever receives.
                let about = if ch.capacity == Some(0) { receivers(&ch) } else { messages(&ch) };
                self.about(&about, "recv", ch.received, "nothing received yet")
            }
            (WaitKind::Recv, State::Channel(ch)) => self.about(&senders(&ch), "send", used, "nothing sent yet"),
            (WaitKind::Semaphore, State::Count(free, _)) => {
                let about =
                    format!("{} free, wants {}", count(free as u64, "permit", "permits"), self.c.waiting.number);
                self.about(&about, "taken", used, "")
            }
            (WaitKind::Barrier, State::Count(come, wanted)) => write!(self.out, " ({come} of {wanted} have come)"),
            (WaitKind::WaitGroup, State::Count(n, _)) => self.about(&format!("{n} left"), "done", used, ""),
            (WaitKind::Event, _) => self.about("", "set", used, ""),
            (WaitKind::Condvar, _) => {
                let mut about = String::new();
                if let Some(lock) = &self.c.waiting.with {
                    about.push_str("with lock");
                    place(lock, &mut about)?;
                }
                self.about(&about, "notified", used, "never notified")
            }
            _ => Ok(()),
        }
    }

    /// ` app::fetch::{{closure}} src/main.rs:31 (read fd 9 a → b; for 12.3s, polled 4 times; last woken by #4 "reader", 1.2s ago)`
    fn future(&mut self, seen: &Seen) -> fmt::Result {
        let name = seen.name.unwrap_or_default();
        let end = (0..=LONGEST_TYPE.min(name.len())).rev().find(|i| name.is_char_boundary(*i)).unwrap_or(0);
        let more = if end < name.len() { "…" } else { "" };
        write!(self.out, " {}{more} {}:{}", Escaped(&name[..end]), Escaped(seen.site.file()), seen.site.line())?;
        let State::Count(polls, begun) = seen.state else { return Ok(()) };
        let polls = count(polls as u64, "time", "times");
        let mut about = String::new();
        // Of a choice these are its arms.
        let own = self.c.wait.kind == WaitKind::Future;
        if let (true, Some((io, _))) = (own, self.c.waiting.choices[0]) {
            about.push_str(io.kind.word());
            socket_text(io, &mut about);
            about.push_str("; ");
        }
        if let Some(ago) = ago(begun as u64) {
            write!(about, "for {}, ", Age(ago))?;
        }
        write!(about, "polled {polls}")?;
        self.about(&about, "woken", (seen.owner, seen.since), "never woken")
    }

    /// ` (2 senders; last send by #4 "reader", 3.2s ago)`
    fn about(&mut self, about: &str, what: &str, (who, at): (u64, u64), never: &str) -> fmt::Result {
        let last = if who == 0 { never } else { "last" };
        if about.is_empty() && last.is_empty() {
            return Ok(());
        }
        let between = if about.is_empty() || last.is_empty() { "" } else { "; " };
        write!(self.out, " ({about}{between}{last}")?;
        if who != 0 {
            write!(self.out, " {what} by ")?;
            self.who(who)?;
            if let Some(ago) = ago(at) {
                write!(self.out, ", {} ago", Age(ago))?;
            }
        }
        self.out.write_char(')')
    }

    fn holder(&mut self, held: &str, seen: &Seen) -> fmt::Result {
        if seen.owner == 0 {
            return Ok(());
        }
        write!(self.out, " {held} by ")?;
        self.who(seen.owner)?;
        match ago(seen.since) {
            Some(ago) => write!(self.out, " for {}", Age(ago)),
            None => Ok(()),
        }
    }

    fn readers(&mut self, lock: usize, n: u32) -> fmt::Result {
        let known: Vec<u64> = self.others.readers(lock).iter().take(NAMED_READERS + 1).copied().collect();
        match known[..] {
            [id] if n == 1 => {
                write!(self.out, " read-held by ")?;
                self.who(id)
            }
            _ => {
                write!(self.out, " read-held by {n}")?;
                for (i, id) in known.iter().enumerate() {
                    match i {
                        0 => write!(self.out, " (#{id}")?,
                        NAMED_READERS => write!(self.out, ", …")?,
                        _ => write!(self.out, ", #{id}")?,
                    }
                }
                if known.is_empty() { Ok(()) } else { self.out.write_char(')') }
            }
        }
    }

    fn who(&mut self, who: u64) -> fmt::Result {
        match party(who) {
            Some(Party::Task(id)) => {
                write!(self.out, "#{id}")?;
                self.name(id)
            }
            Some(Party::Thread(0)) | None => self.out.write_str("a plain thread"),
            Some(Party::Thread(tid)) => write!(self.out, "thread {tid}"),
        }
    }

    fn name(&mut self, id: u64) -> fmt::Result {
        match self.others.name(id) {
            Some(name) => write!(self.out, " \"{}\"", Escaped(name)),
            None => Ok(()),
        }
    }

    /// Whoever waits for an answer and holds what it would be the answer to: `18 bytes unflushed`.
    fn unflushed(&mut self) -> fmt::Result {
        #[cfg(feature = "probe")]
        if self.c.wait.kind == WaitKind::Read {
            let held = crate::io::unflushed::unflushed(self.c.id);
            if held > 0 {
                write!(self.out, ", {held} bytes unflushed")?;
            }
        }
        Ok(())
    }

    /// What will end the wait if nothing else does.
    fn limits(&mut self) -> fmt::Result {
        let until = self.c.waiting.until;
        if until != 0
            && self.c.wait.kind != WaitKind::Sleep
            && let Some(now) = self.others.timer_now(self.c)
        {
            write!(self.out, " for at most {} more", Age(Duration::from_nanos(until.saturating_sub(now))))?;
        }
        if let Some(at) = self.c.waiting.timeout {
            match at.saturating_duration_since(Instant::now()) {
                Duration::ZERO => self.out.write_str(", timeout overdue")?,
                left => write!(self.out, ", timeout in {}", Age(left))?,
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(miri)))]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::observe::{Object, WaitReason, WaitWords};
    use crate::scheduler::suspend;

    static EXIT: WaitWords =
        WaitWords { word: "exit of", detail: Detail::Number, describe: Some(|pid, out| write!(out, " process {pid}")) };
    static GATE: WaitWords = WaitWords { word: "gate", detail: Detail::Object, describe: None };
    static NAME: WaitWords = WaitWords { word: "record", detail: Detail::Text, describe: None };

    /// What a view says of a task that waits for that.
    fn seen(rt: &crate::scheduler::runtime::Runtime, wait: impl FnOnce() + Send + 'static) -> String {
        let task = rt.spawn(wait);
        let end = Instant::now() + Duration::from_secs(10);
        let text = loop {
            match super::super::line::where_is(task.id()).map(|t| t.wait) {
                Some(text) if !text.is_empty() => break text,
                _ => assert!(Instant::now() < end, "it never waited"),
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        let _ = task.task().cancel_now();
        drop(task.join());
        text
    }

    #[test]
    fn kinds_that_modules_bring_are_shown_without_being_known_here() {
        let rt = crate::scheduler::runtime::Runtime::builder().workers(1).build().unwrap();
        let [exit, gate, name] = [&EXIT, &GATE, &NAME].map(|words| WaitKind::register(words).unwrap());
        assert_eq!(seen(&rt, move || suspend::wait(WaitReason::new(exit, 17))), "exit of process 17");
        let line = line!() + 2;
        let text = seen(&rt, move || {
            let mut object = Object::new();
            object.set_name("north");
            suspend::wait(WaitReason::object(gate, &object));
        });
        assert_eq!(text, format!("gate \"north\" {}:{line}", file!()));
        let text = seen(&rt, move || {
            let wanted = String::from("a.b");
            suspend::wait(WaitReason::text(name, &wanted.as_str()));
        });
        assert_eq!(text, "record \"a.b\"");
    }
}

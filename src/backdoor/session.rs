//! One client's conversation: lines in, answers out, a prompt for people.
//!
//! States: *open* (takes commands) → *ending* (says what is left to say) → *lingering* (has said all, throws away what
//! still comes, so that the client reads the last words before an error) → *over*. A client that closes its side first
//! goes from *open* to *over* once everything it asked for is answered and sent.
//!
//! Invariants: answers come in the order of their commands; a client that sends its first command before a prompt was due
//! gets the banner and answers, nothing else; an answer is asked for more only while less than
//! [`PULL_BELOW`] bytes wait to be sent, and not before the time that it says itself; input is read only while no
//! complete line waits, or a little of it while an answer is made, because an interrupt comes among it; a panic in a command
//! ends that command and nothing else.
//!
//! Must not know: the listener, other sessions, how an answer is found.

use std::any::Any;
use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::burden::Burden;
use super::line::{Line, Lines, MAX_LINE, escape, escape_up_to};
use super::output::{Output, PULL_BELOW};
use super::rights::Rights;
use super::stream::Stream;
use super::table::{self, Outcome};
use super::telnet::{Piece, Telnet};
use super::{Commands, Limits};
use crate::commands::sessions::Ticket;
use crate::commands::{Answer, Evaluate, Expression, Tier, When};
use crate::report::{self, Report};
use crate::sys::fork::Own;
use crate::sys::stderr;

/// What is shown of a command in the list of sessions, in characters.
const LAST_SHOWN: usize = 60;

/// A command may be written over several lines, each but the last ending with a backslash; so long altogether.
const LONGEST_COMMAND: usize = 4 * MAX_LINE;

/// Lines of probes come that often.
#[cfg(feature = "probe")]
const BETWEEN_ASIDES: Duration = Duration::from_millis(50);

/// So often is read at once from a client whose bytes are thrown away.
const READS_OF_FLOOD: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    Ending,
    Lingering { until: Instant },
    Over,
}

/// A prompt is only for someone who waits: input that comes without one being shown gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Prompt {
    /// To be shown once the session has been idle for a while.
    Wanted,
    Due(Instant),
    Shown,
}

/// The command being answered.
struct Running {
    name: &'static str,
    answer: Option<Box<dyn Answer>>,
    /// Its lines are JSON already.
    json: bool,
    /// When it is to be asked for more.
    when: When,
}

impl Running {
    fn new(name: &'static str, answer: Box<dyn Answer>, json: bool) -> Running {
        Running { name, answer: Some(answer), json, when: When::Now }
    }
}

impl Drop for Running {
    /// Also when the client goes away in the middle; a panic in here must not reach the loop.
    fn drop(&mut self) {
        let answer = self.answer.take();
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(answer))) {
            std::mem::forget(payload);
        }
    }
}

pub(super) struct Session {
    /// A forked child must not keep the connection open when the session ends.
    _own: Own,
    stream: Stream,
    limits: Limits,
    phase: Phase,
    /// Its place in the list; none for who is turned away.
    ticket: Option<Ticket>,
    rights: Rights,
    /// Answers come in lines of JSON.
    json: bool,
    /// What is in them is the text for people, also where a command has a form in JSON.
    lines: bool,
    telnet: Telnet,
    input: Lines,
    /// The lines so far of a command that goes on.
    begun: Vec<u8>,
    /// By Ctrl-D: a command that goes on is not meant any more.
    left: bool,
    output: Output,
    running: Option<Running>,
    burden: Burden,
    /// Once there was a line for it.
    evaluator: Option<Box<dyn Evaluate>>,
    #[cfg(feature = "probe")]
    probes: crate::probe::SessionProbes,
    prompt: Prompt,
    /// The welcome was shown, or is not for this client: it came with its first command.
    welcomed: bool,
    /// When the last command came, for the idle limit. Bytes of an unfinished line do not count: a slow sender is idle.
    commanded: Instant,
    /// When bytes last left, or the buffer was last empty, for the limit on dead readers.
    progressed: Instant,
}

impl Session {
    /// A session that has its place in the list, or turns somebody away.
    pub(super) fn new(stream: Stream, limits: Limits, rights: Rights, ticket: Option<Ticket>, now: Instant) -> Self {
        if let Some(ticket) = &ticket {
            tell(&limits, || format!("{} began", ticket.name()));
        }
        Self {
            _own: Own::new(stream.as_fd().as_raw_fd()),
            stream,
            limits,
            phase: Phase::Open,
            ticket,
            rights,
            json: false,
            lines: false,
            telnet: Telnet::default(),
            input: Lines::default(),
            begun: Vec::new(),
            left: false,
            output: Output::default(),
            running: None,
            burden: Burden::new(now),
            evaluator: None,
            #[cfg(feature = "probe")]
            probes: crate::probe::SessionProbes::new(),
            prompt: Prompt::Wanted,
            welcomed: false,
            commanded: now,
            progressed: now,
        }
    }

    /// With somebody for its expressions who is there from the beginning.
    pub(super) fn with_evaluator(mut self, evaluator: Option<Box<dyn Evaluate>>) -> Session {
        self.evaluator = evaluator;
        self
    }

    /// For a program: no word after the banner, and no prompt, before it has sent a line.
    pub(super) fn waiting_for_a_line(mut self) -> Session {
        (self.prompt, self.welcomed) = (Prompt::Shown, true);
        self
    }

    /// Begins with the banner, made one line.
    pub(super) fn greet(&mut self, commands: &Commands, now: Instant) {
        let banner = catch_unwind(AssertUnwindSafe(commands.banner)).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            String::from("coro")
        });
        self.say(&banner.replace(|c: char| c.is_control(), " "), now);
    }

    /// Says why there is no session, and ends.
    pub(super) fn turn_away(&mut self, why: &str, now: Instant) {
        self.say(why, now);
        self.phase = Phase::Ending;
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Whether this counts towards the limit of sessions.
    pub(super) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    pub(super) fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    pub(super) fn wants_to_read(&self) -> bool {
        let room = match self.phase {
            Phase::Open => !self.input.has_line() || (self.running.is_some() && self.input.has_room()),
            Phase::Lingering { .. } => true,
            Phase::Ending | Phase::Over => false,
        };
        room && !self.input.has_ended()
    }

    pub(super) fn wants_to_write(&self) -> bool {
        !self.output.is_empty() && self.phase != Phase::Over
    }

    /// Whether [`Session::work`] has something to do and room for its outcome.
    pub(super) fn wants_to_work(&self) -> bool {
        let ready = match &self.running {
            Some(Running { when: When::Now, .. }) => true,
            Some(Running { when: When::NotBefore(time), .. }) => Instant::now() >= *time,
            Some(Running { when: When::AllSent, .. }) => self.output.is_empty(),
            None => self.input.has_line() || self.has_open_end(),
        };
        ready && self.phase == Phase::Open && self.output.len() < PULL_BELOW
    }

    /// It has taken so much of the console thread, until now.
    pub(super) fn count(&mut self, time: Duration, now: Instant) {
        self.burden.add(time, now);
    }

    /// Whether it has taken so much that it goes on only while there is time to spare.
    pub(super) fn is_heavy(&self) -> bool {
        self.burden.is_heavy()
    }

    /// Whether its client sends what can only be thrown away. Then it may wait to be read; else it must not, because what interrupts an
    /// answer has to be heard.
    pub(super) fn floods(&self) -> bool {
        self.input.is_skipping()
    }

    /// Reads once, of a flood some more; the kernel keeps the rest.
    pub(super) fn read(&mut self, now: Instant) {
        let asks = self.asks();
        let mut bytes = [0; MAX_LINE];
        for _ in 0..READS_OF_FLOOD {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.input.end(),
                Ok(_) if self.phase != Phase::Open => {}
                Ok(length) => self.take_in(&bytes[..length], now),
                Err(error) if is_temporary(error.kind()) => break,
                Err(_) => self.phase = Phase::Over,
            }
            if !self.floods() || !self.wants_to_read() {
                break;
            }
        }
        if !asks && self.asks() {
            self.burden.asked(now);
        }
        self.settle(now);
    }

    /// Whether it waits for something, as far as it has said.
    fn asks(&self) -> bool {
        self.running.is_some() || self.input.has_line() || self.floods()
    }

    fn take_in(&mut self, bytes: &[u8], now: Instant) {
        if let Prompt::Due(_) = self.prompt {
            self.prompt = Prompt::Wanted;
        }
        let mut telnet = std::mem::take(&mut self.telnet);
        telnet.split(bytes, |piece| match piece {
            Piece::Text(text) => self.input.push(text),
            Piece::Interrupt => self.interrupt(now),
            Piece::End => {
                // It only ever leaves: what was begun is not meant any more.
                self.input.forget_unfinished();
                self.left = true;
                if self.prompt == Prompt::Shown && self.input.is_empty() && !self.json {
                    self.push(b"\n", now);
                }
                self.input.end();
            }
            Piece::Reply(reply) => self.output.answer_telnet(reply),
        });
        self.telnet = telnet;
    }

    /// Ctrl-C: no more of the answer, and nothing of what was asked after it.
    fn interrupt(&mut self, now: Instant) {
        self.input.clear();
        self.begun.clear();
        let running = self.running.take();
        if running.is_some() {
            self.output.cut();
        } else if self.prompt == Prompt::Shown && !self.json {
            self.push(b"\n", now);
        }
        self.output.end_line();
        if let Some(running) = running {
            self.complain(&format!("{}: interrupted", running.name), now);
            self.done(running.name, now);
        }
        self.prompt = Prompt::Wanted;
    }

    /// Sends what the client takes now.
    pub(super) fn write(&mut self, now: Instant) {
        while self.wants_to_write() {
            match self.stream.send(self.output.waiting()) {
                Ok(length) => {
                    self.output.sent(length);
                    self.progressed = now;
                }
                Err(error) if is_temporary(error.kind()) => break,
                Err(_) => self.phase = Phase::Over,
            }
        }
        self.settle(now);
    }

    /// Takes one step: a line, or some more of an answer.
    pub(super) fn work(&mut self, commands: &Commands, now: Instant) {
        if !self.wants_to_work() {
            return;
        }
        match self.running.take() {
            Some(running) => self.go_on(running, now),
            None => {
                self.prompt = Prompt::Wanted;
                self.welcomed = true;
                self.commanded = now;
                let whole = self.input.has_whole_line();
                match self.input.take() {
                    Some(Line::Text(_)) if !whole && self.rights.tier() > Tier::Read => self.refuse_unfinished(now),
                    Some(Line::Text(line)) => self.line(&line, commands, now),
                    Some(Line::TooLong) => {
                        self.begun.clear();
                        self.complain(&format!("input: line too long, the limit is {MAX_LINE} bytes"), now);
                        self.done("input", now);
                    }
                    None if self.left => self.begun.clear(),
                    None if self.rights.tier() > Tier::Read => self.refuse_unfinished(now),
                    None => {
                        let whole = std::mem::take(&mut self.begun);
                        self.begin(&whole, commands, now);
                    }
                }
            }
        }
        self.write(now);
    }

    /// The client has gone in the middle of a line, perhaps with its connection: what could change something is not guessed
    /// from its beginning.
    fn refuse_unfinished(&mut self, now: Instant) {
        self.begun.clear();
        self.complain(
            "input: the last line has no end and was not run; a session above read has to end its lines",
            now,
        );
        self.done("input", now);
    }

    /// A line came: a command, or some of one.
    fn line(&mut self, line: &[u8], commands: &Commands, now: Instant) {
        let goes_on = match line.strip_suffix(b"\\") {
            Some(part) => Some((part, b' ')),
            None => self.is_unfinished(line, commands).then_some((line, b'\n')),
        };
        if let Some((part, joint)) = goes_on {
            if self.begun.len() + part.len() > LONGEST_COMMAND {
                self.begun.clear();
                self.complain(&format!("input: command too long, the limit is {LONGEST_COMMAND} bytes"), now);
                self.done("input", now);
                return;
            }
            self.begun.extend_from_slice(part);
            self.begun.push(joint);
            return;
        }
        if self.begun.is_empty() {
            self.begin(line, commands, now);
        } else {
            let mut whole = std::mem::take(&mut self.begun);
            whole.extend_from_slice(line);
            self.begin(&whole, commands, now);
        }
    }

    /// Whether an expression goes on in the next line. An empty line ends it.
    fn is_unfinished(&mut self, line: &[u8], commands: &Commands) -> bool {
        let whole = [self.begun.as_slice(), line].concat();
        let Ok(whole) = str::from_utf8(&whole) else { return false };
        if line.trim_ascii().is_empty() || !table::is_expression(whole, commands) {
            return false;
        }
        self.evaluator(commands).is_some_and(|evaluator| evaluator.is_open(whole))
    }

    fn evaluator(&mut self, commands: &Commands) -> Option<&mut Box<dyn Evaluate>> {
        if self.evaluator.is_none() {
            self.evaluator = commands.evaluator.map(|new| new());
        }
        self.evaluator.as_mut()
    }

    fn evaluate(&mut self, text: &str, unknown: String, commands: &Commands, now: Instant) {
        const NAME: &str = "expression";
        let (json, lines, limit, rights) = (self.json, self.lines, self.limits.expression, self.rights.clone());
        let permit = Arc::new(move |needed, name: &str, arguments: &str, typed: &str| {
            let typed = escape_up_to(typed.as_bytes(), usize::MAX);
            rights.allow(needed, name, &format!("{name}({arguments}) in: {typed}"))
        });
        let Some(evaluator) = self.evaluator(commands) else { return };
        let begin = || evaluator.begin(Expression { text, json, lines, permit, limit, unknown });
        match catch_unwind(AssertUnwindSafe(begin)) {
            Ok(Ok(answer)) => self.go_on(Running::new(NAME, answer, json), now),
            Ok(Err(complaint)) => {
                self.complain(&complaint, now);
                self.done(NAME, now);
            }
            Err(payload) => self.tell_panic(NAME, payload, now),
        }
    }

    fn begin(&mut self, line: &[u8], commands: &Commands, now: Instant) {
        let shown = line.trim_ascii();
        if let Some(ticket) = &self.ticket
            && !shown.is_empty()
        {
            ticket.asked(&escape_up_to(shown, LAST_SHOWN), now);
        }
        let (rights, json) = (&mut self.rights, self.json && !self.lines);
        #[cfg(feature = "probe")]
        let probes = Some(&self.probes);
        #[cfg(not(feature = "probe"))]
        let probes = std::marker::PhantomData;
        match catch_unwind(AssertUnwindSafe(|| table::run(line, commands, rights, json, probes))) {
            Ok(None) => {}
            Ok(Some((name, Outcome::Answer(answer)))) => {
                self.go_on(Running::new(name, answer, false), now);
            }
            Ok(Some((name, Outcome::Json(answer)))) => {
                self.go_on(Running::new(name, answer, true), now);
            }
            Ok(Some((_, Outcome::Evaluate { text, unknown }))) => self.evaluate(&text, unknown, commands, now),
            Ok(Some((name, Outcome::Say(text)))) => {
                self.say(text.trim_end_matches('\n'), now);
                self.done(name, now);
            }
            Ok(Some((name, Outcome::Complain(text)))) => {
                self.complain(text.trim_end_matches('\n'), now);
                self.done(name, now);
            }
            Ok(Some((name, Outcome::Switch { json, lines }))) => {
                (self.json, self.lines) = (json, lines);
                self.done(name, now);
            }
            Ok(Some((_, Outcome::End))) => self.phase = Phase::Ending,
            Err(payload) => {
                self.tell_panic(&escape(line), payload, now);
                self.done("input", now);
            }
        }
        if let Some(ticket) = &self.ticket {
            ticket.raised(self.rights.tier());
        }
    }

    fn go_on(&mut self, mut running: Running, now: Instant) {
        let Some(answer) = &mut running.answer else { return };
        // A chunk of its own: what an answer does to its buffer cannot touch what was said before.
        let mut chunk = Vec::new();
        let outcome = catch_unwind(AssertUnwindSafe(|| answer.more(&mut chunk).then(|| answer.when())));
        // What was said before the answer comes before it.
        self.hear_asides(now);
        if self.json && !running.json {
            let what = if answer.is_wrong() { "error" } else { "line" };
            self.push(&in_json(what, &String::from_utf8_lossy(&chunk)), now);
        } else {
            self.push(&chunk, now);
        }
        match outcome {
            Ok(Some(when)) => {
                running.when = when;
                self.running = Some(running);
            }
            Ok(None) => {
                self.output.end_line();
                self.commanded = now;
                self.done(running.name, now);
            }
            Err(payload) => {
                self.tell_panic(running.name, payload, now);
                self.done(running.name, now);
            }
        }
    }

    /// For programs: the answer is whole.
    fn done(&mut self, name: &str, now: Instant) {
        if self.json {
            self.push(&in_json("done", name), now);
        }
    }

    fn tell_panic(&mut self, command: &str, payload: Box<dyn Any + Send>, now: Instant) {
        let text = match payload.downcast_ref::<String>() {
            Some(text) => text.as_str(),
            None => payload.downcast_ref::<&str>().copied().unwrap_or("no message"),
        };
        let line = format!("{command}: this command panicked, the session goes on: {}", escape(text.as_bytes()));
        // Dropping a payload runs foreign code, which may panic again.
        std::mem::forget(payload);
        self.output.end_line();
        self.complain(&line, now);
    }

    /// Passes on what was said that belongs to no answer.
    fn hear_asides(&mut self, now: Instant) {
        if self.phase != Phase::Open || self.output.len() >= PULL_BELOW {
            return;
        }
        if let Some(lines) = self.evaluator.as_mut().and_then(|evaluator| evaluator.aside()) {
            self.say_aside("line", lines.trim_end_matches('\n'), now);
        }
        #[cfg(feature = "probe")]
        for line in self.probes.lines(PULL_BELOW) {
            self.say_aside("probe", &line, now);
        }
    }

    fn say_aside(&mut self, what: &str, lines: &str, now: Instant) {
        if self.prompt == Prompt::Shown && !self.json {
            self.push(b"\n", now);
        }
        self.output.end_line();
        self.tell_lines(what, lines, now);
        self.prompt = Prompt::Wanted;
    }

    /// When to look for lines of probes again.
    fn next_aside(&self) -> Option<Instant> {
        #[cfg(feature = "probe")]
        if self.phase == Phase::Open && self.output.len() < PULL_BELOW && self.probes.is_active() {
            return Some(Instant::now() + BETWEEN_ASIDES);
        }
        None
    }

    /// Deadlines that have passed.
    pub(super) fn tick(&mut self, commands: &Commands, welcome: Option<&str>, now: Instant) {
        self.hear_asides(now);
        if !self.output.is_empty() && now >= self.progressed + self.limits.stalled {
            self.phase = Phase::Over;
        }
        if let Phase::Lingering { until } = self.phase
            && now >= until
        {
            self.phase = Phase::Over;
        }
        if let Prompt::Due(when) = self.prompt
            && now >= when
            && self.is_idle()
        {
            if self.json {
                self.prompt = Prompt::Shown;
            } else if self.welcomed {
                let prompt = match &*self.begun {
                    [] => format!("{} {}> ", (commands.name)(), self.rights.tier()),
                    _ => "... ".to_owned(),
                };
                self.push(prompt.as_bytes(), now);
                // The client's own line end follows it, on the client's screen.
                self.output.within_line = false;
                self.prompt = Prompt::Shown;
                self.write(now);
            } else {
                self.welcome(commands, welcome, now);
            }
        }
        if self.is_waiting() && now >= self.commanded + self.limits.idle {
            if self.prompt == Prompt::Shown && !self.json {
                self.push(b"\n", now);
            }
            let minutes = self.limits.idle.as_secs().div_ceil(60).max(1);
            self.turn_away(&format!("closed: no command for {minutes} minutes"), now);
            self.write(now);
        }
        self.settle(now);
    }

    /// Begins what comes before the first prompt; the prompt stays due and follows at its end.
    fn welcome(&mut self, commands: &Commands, words: Option<&str>, now: Instant) {
        self.welcomed = true;
        for line in words.into_iter().flat_map(str::lines) {
            self.say(&escape_up_to(line.as_bytes(), MAX_LINE), now);
        }
        match catch_unwind(AssertUnwindSafe(commands.welcome)) {
            Ok(answer) => self.running = Some(Running::new("status", answer, false)),
            Err(payload) => self.tell_panic("status", payload, now),
        }
    }

    /// When [`Session::tick`] or [`Session::work`] next has something to do, unless bytes come or go before.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let lingering = match self.phase {
            Phase::Lingering { until } => Some(until),
            _ => None,
        };
        let prompt = match self.prompt {
            Prompt::Due(when) if self.is_idle() => Some(when),
            _ => None,
        };
        let stalled = (!self.output.is_empty()).then(|| self.progressed + self.limits.stalled);
        let idle = self.is_waiting().then(|| self.commanded + self.limits.idle);
        let answer = match &self.running {
            // Without room for it the answer waits for the client alone.
            Some(Running { when: When::NotBefore(time), .. }) if self.output.len() < PULL_BELOW && self.is_open() => {
                Some(*time)
            }
            _ => None,
        };
        [lingering, prompt, stalled, idle, answer, self.next_aside()].into_iter().flatten().min()
    }

    /// A command goes on in a line that will not come.
    fn has_open_end(&self) -> bool {
        self.input.has_ended() && !self.begun.is_empty()
    }

    /// Everything asked was answered and sent.
    fn is_waiting(&self) -> bool {
        let asked = self.running.is_some() || self.input.has_line() || self.has_open_end();
        self.phase == Phase::Open && !asked && self.output.is_empty()
    }

    /// Waiting, and the client has not begun its next line either.
    fn is_idle(&self) -> bool {
        self.is_waiting() && self.input.is_empty() && !self.input.has_ended()
    }

    /// Moves on to the next state if the present one is done.
    fn settle(&mut self, now: Instant) {
        if self.is_waiting() && self.input.has_ended() {
            self.phase = Phase::Over;
        }
        if self.phase == Phase::Ending && self.output.is_empty() {
            self.stream.shutdown(Shutdown::Write);
            self.phase = Phase::Lingering { until: now + self.limits.linger };
        }
        if matches!(self.phase, Phase::Lingering { .. }) && self.input.has_ended() {
            self.phase = Phase::Over;
        }
        if self.prompt == Prompt::Wanted && self.is_idle() {
            self.prompt = Prompt::Due(now + self.limits.prompt_after);
        }
    }

    /// Adds one or more lines, given without the last one's end.
    fn say(&mut self, text: &str, now: Instant) {
        self.tell_lines("line", text, now);
    }

    /// As [`Session::say`], about what could not be done.
    fn complain(&mut self, text: &str, now: Instant) {
        self.tell_lines("error", text, now);
    }

    fn tell_lines(&mut self, what: &str, text: &str, now: Instant) {
        if self.json {
            self.push(&in_json(what, text), now);
        } else {
            self.push(text.as_bytes(), now);
        }
        self.output.end_line();
    }

    fn push(&mut self, bytes: &[u8], now: Instant) {
        if self.output.is_empty() {
            self.progressed = now;
        }
        self.output.push(bytes);
    }
}

impl Drop for Session {
    /// Ends the connection even if a forked child still has a copy of the descriptor.
    fn drop(&mut self) {
        self.stream.shutdown(Shutdown::Both);
        if let Some(ticket) = &self.ticket {
            tell(&self.limits, || format!("{} ended", ticket.name()));
        }
    }
}

/// Tells the report handler who comes and goes. Without one nobody is told, unless it is to be aloud: scripts come every few
/// seconds.
fn tell(limits: &Limits, what: impl Fn() -> String) {
    if !report::deliver(|| Report::Attach(what())) && limits.aloud {
        stderr::write(&format!("coro: {}\n", what()));
    }
}

/// Each line of `text` as `{"what":"line"}`.
fn in_json(what: &str, text: &str) -> Vec<u8> {
    let mut out = String::with_capacity(text.len() + text.len() / 8 + 16);
    for line in text.lines() {
        let _ = write!(out, "{{\"{what}\":\"");
        for c in line.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                // Also what only a terminal would obey; names are escaped before they come here.
                c if c.is_control() => {
                    let _ = write!(out, "\\u{:04x}", u32::from(c));
                }
                c => out.push(c),
            }
        }
        out.push_str("\"}\n");
    }
    out.into_bytes()
}

fn is_temporary(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

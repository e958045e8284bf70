//! One session with a server: questions out, answers in, and where each ends.
//!
//! The session is put into the form `#lines`: every line of an answer comes as `{"line":"…"}`, what could not be done as
//! `{"error":"…"}`, and `{"done":"…"}` after each. What was asked for as `--json` comes as it is, a row a line: no row's name
//! is one of those three. A server that does not know the form is told from the others at the beginning.
//!
//! The server waits for more of an expression whose brackets are not closed. An empty line, which has no answer of its own, says
//! that there is no more.
//!
//! An interrupt is the byte of Ctrl-C and `#lines` once more: the server forgets what it was doing and what was asked
//! after it, so the second `{"done":"#lines"}` is the end, wherever the first found it.
//!
//! Must not know: what questions and answers mean, terminals.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::target::{self, Connection, Target};

/// The banner never begins with this; a server that refuses to serve does.
const REFUSAL: &str = "coro: ";

/// And a server of ours says this of itself.
const OURS: &str = "help lists the commands";

/// Lines that may come before a server has heard what is wanted.
const LONGEST_WELCOME: usize = 1000;

/// What the form is called that this session is in.
const FORM: &str = "#lines";

/// How long a read waits before whoever listens is told that nothing came.
const BREATH: Duration = Duration::from_millis(100);

/// A line longer than this comes from no server of ours.
const LONGEST_LINE: u64 = 64 << 20;

/// What a server says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said<'a> {
    /// A line of the answer, without its end.
    Line(&'a str),
    /// A row in JSON, as it came.
    Row(&'a str),
    /// Why there is no answer, or no more of it.
    Error(&'a str),
    /// Nothing, for so long since the last word.
    Nothing(Duration),
}

/// Why a session could not go on.
#[derive(Debug)]
pub(crate) struct Broken(pub(crate) String);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Session {
    input: BufReader<UnixStream>,
    /// The line that is being read.
    line: Vec<u8>,
    /// `demo pid 4711, coro 0.1.0, 2 workers; help lists the commands`
    pub(crate) banner: String,
    name: String,
    pid: Option<u32>,
    interrupt: Interrupt,
}

impl Session {
    /// Connects and waits for the other end to be ready. After a second of waiting `waiting` is told why that may be, once.
    pub(crate) fn open(target: &Target, mut waiting: impl FnMut(&str)) -> Result<Session, String> {
        let mut told = false;
        let begun = Instant::now();
        let mut impatient = |name: &str, pid: Option<u32>| {
            if !told && begun.elapsed() >= Duration::from_secs(1) {
                told = true;
                waiting(&silence(name, pid));
            }
            true
        };
        Session::connected(target.connect()?, &mut impatient)
    }

    /// The same, but gives up after `limit`.
    pub(crate) fn open_within(target: &Target, limit: Duration) -> Result<Session, String> {
        let begun = Instant::now();
        Session::connected(target.connect()?, &mut |_, _| begun.elapsed() < limit)
    }

    /// With whoever is at the other end of that stream.
    pub(crate) fn over(stream: UnixStream, name: &str) -> Result<Session, String> {
        Session::connected(Connection { stream, name: name.to_owned(), pid: None }, &mut |_, _| true)
    }

    fn connected(connection: Connection, go_on: &mut dyn FnMut(&str, Option<u32>) -> bool) -> Result<Session, String> {
        let Connection { stream, name, pid } = connection;
        let broke = |error: io::Error| format!("{name}: the connection broke ({error})");
        stream.set_read_timeout(Some(BREATH)).map_err(broke)?;
        let interrupt = Interrupt::new(stream.try_clone().map_err(broke)?);
        // Whoever turns us away may have closed already; what it said is still to be read.
        let _ = (&stream).write_all(format!("{FORM}\n").as_bytes());
        let input = BufReader::with_capacity(64 * 1024, stream);
        let mut session = Session { input, line: Vec::new(), banner: String::new(), name, pid, interrupt };
        let banner = session.first_line(go_on)?;
        if banner.starts_with(REFUSAL) {
            return Err(banner);
        }
        session.banner = banner;
        let done = format!("{{\"done\":\"{FORM}\"}}");
        let is_ours = session.banner.contains(OURS);
        for _ in 0..if is_ours { LONGEST_WELCOME } else { 1 } {
            // A server that thought that we only wait has begun to welcome us, and its prompt has no end.
            if session.first_line(go_on)?.ends_with(&done) {
                return Ok(session);
            }
        }
        Err(format!("{}: this is no server of coro's, or of another version: \"{}\"", session.name, session.banner))
    }

    fn first_line(&mut self, go_on: &mut dyn FnMut(&str, Option<u32>) -> bool) -> Result<String, String> {
        loop {
            match self.read_line() {
                Ok(Some(0)) => return Err(format!("{}: closed without a word", self.name)),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    return Err(format!("{}: closed without a word", self.name));
                }
                Ok(Some(_)) => {
                    let text = String::from_utf8_lossy(&self.line).trim_end().to_owned();
                    self.line.clear();
                    return Ok(crate::terminal::plain(&text));
                }
                Ok(None) if go_on(&self.name, self.pid) => {}
                Ok(None) => return Err(silence(&self.name, self.pid)),
                Err(error) => return Err(self.broke(&error)),
            }
        }
    }

    fn broke(&self, error: &io::Error) -> String {
        format!("{}: the connection broke ({error})", self.name)
    }

    /// What the program is called, and its id: `demo[4711]`.
    pub(crate) fn program(&self) -> String {
        match self.banner.split_once(" pid ") {
            Some((name, rest)) => {
                let pid: String = rest.chars().take_while(char::is_ascii_digit).collect();
                format!("{name}[{pid}]")
            }
            None => self.banner.clone(),
        }
    }

    /// Who may end an answer of this session early.
    pub(crate) fn interrupt(&self) -> Interrupt {
        self.interrupt.clone()
    }

    /// Asks, and hands over what is said until the answer has ended. While `hear` returns false, or after an interrupt, the
    /// rest of the answer is not wanted: the server is told so, and only its last words still come.
    ///
    /// `question` must be one line and not blank: a blank line has no answer.
    pub(crate) fn ask(&mut self, question: &str, mut hear: impl FnMut(Said<'_>) -> bool) -> Result<(), Broken> {
        debug_assert!(!question.trim().is_empty() && !question.contains(['\n', '\r']));
        self.interrupt.begin();
        let outcome = self.exchange(question, &mut hear);
        self.interrupt.forget();
        outcome
    }

    fn exchange(&mut self, question: &str, hear: &mut dyn FnMut(Said<'_>) -> bool) -> Result<(), Broken> {
        let end = if question.contains(['(', '[', '{', '`', '/', '#']) { "\n\n" } else { "\n" };
        if let Err(error) = self.input.get_mut().write_all(format!("{question}{end}").as_bytes()) {
            // What it said before it left.
            while let Ok(Some(1..)) = self.read_line() {
                deliver(&std::mem::take(&mut self.line), hear);
            }
            return Err(Broken(self.broke(&error)));
        }
        let mut last = Instant::now();
        loop {
            match self.read_line() {
                Ok(Some(0)) => return Err(Broken(format!("{}: the server closed the session", self.name))),
                Ok(Some(_)) => {}
                Ok(None) => {
                    if !hear(Said::Nothing(last.elapsed())) {
                        self.interrupt.send();
                    }
                    continue;
                }
                Err(error) => return Err(Broken(self.broke(&error))),
            }
            last = Instant::now();
            let line = std::mem::take(&mut self.line);
            match deliver(&line, hear) {
                Delivered::GoOn => {}
                Delivered::Enough => _ = self.interrupt.send(),
                // What came before an interrupt found its end is not it.
                Delivered::Done(of) if of != FORM && self.interrupt.end() => {}
                Delivered::Done(_) => return Ok(()),
            }
            // The same allocation again.
            self.line = line;
            self.line.clear();
        }
    }

    /// Reads on until a line is whole: its length, 0 at the end of input; `None` if nothing came for a while.
    fn read_line(&mut self) -> io::Result<Option<usize>> {
        loop {
            let room = LONGEST_LINE.saturating_sub(self.line.len() as u64);
            return match (&mut self.input).take(room).read_until(b'\n', &mut self.line) {
                Ok(_) if self.line.len() as u64 >= LONGEST_LINE => Err(io::Error::other("a line without an end")),
                Ok(_) => Ok(Some(self.line.len())),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(None),
                Err(error) => Err(error),
            };
        }
    }

    /// No more questions.
    pub(crate) fn close(self) {
        let _ = self.input.get_ref().shutdown(Shutdown::Both);
    }
}

fn silence(name: &str, pid: Option<u32>) -> String {
    match pid {
        Some(pid) if target::is_stopped(pid) => {
            format!("{name}: process {pid} is stopped and cannot answer; kill -CONT {pid} lets it go on")
        }
        _ => format!("{name}: no answer; the process may be stopped, or its console busy"),
    }
}

enum Delivered {
    GoOn,
    /// The rest is not wanted.
    Enough,
    /// The answer to this command is whole.
    Done(String),
}

fn deliver(line: &[u8], hear: &mut dyn FnMut(Said<'_>) -> bool) -> Delivered {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches(['\n', '\r']);
    let ours = ["{\"line\":", "{\"error\":", "{\"done\":"].iter().any(|begin| text.starts_with(begin));
    let parsed: Option<HashMap<String, String>> = ours.then(|| serde_json::from_str(text).ok()).flatten();
    let wanted = match parsed.as_ref().and_then(|it| it.iter().next()) {
        Some((what, text)) => match what.as_str() {
            "done" => return Delivered::Done(text.clone()),
            "error" => hear(Said::Error(text)),
            _ => hear(Said::Line(text)),
        },
        None if text.starts_with('{') => hear(Said::Row(text)),
        None => hear(Said::Line(text)),
    };
    if wanted { Delivered::GoOn } else { Delivered::Enough }
}

/// The way to end an answer early, from any thread.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt {
    stream: Arc<UnixStream>,
    state: Arc<Mutex<Asking>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asking {
    No,
    Yes,
    /// And was interrupted.
    Interrupted,
}

/// What an interrupt found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// No answer is being waited for.
    Nothing,
    /// An answer, whose end was asked for.
    Answer,
    /// An answer whose end was asked for before and has not come.
    Deaf,
}

impl Interrupt {
    fn new(stream: UnixStream) -> Interrupt {
        Interrupt { stream: Arc::new(stream), state: Arc::new(Mutex::new(Asking::No)) }
    }

    fn state(&self) -> MutexGuard<'_, Asking> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the answer that is coming, if one is.
    pub(crate) fn send(&self) -> Found {
        let mut state = self.state();
        match *state {
            Asking::No => Found::Nothing,
            Asking::Interrupted => Found::Deaf,
            Asking::Yes => {
                *state = Asking::Interrupted;
                // Few bytes, which always have room; that the connection broke is seen by who reads.
                let _ = (&*self.stream).write_all(format!("\x03{FORM}\n").as_bytes());
                Found::Answer
            }
        }
    }

    fn begin(&self) {
        *self.state() = Asking::Yes;
    }

    fn forget(&self) {
        *self.state() = Asking::No;
    }

    /// An end came. Whether it is not the last, because there was an interrupt.
    fn end(&self) -> bool {
        let mut state = self.state();
        let interrupted = *state == Asking::Interrupted;
        if !interrupted {
            *state = Asking::No;
        }
        interrupted
    }
}

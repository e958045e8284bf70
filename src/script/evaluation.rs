//! Evaluates the expressions of one session, on a thread of its own.
//!
//! The session's side is [`Evaluator`], and [`Waiting`] for the expression that goes on; both live on the console thread and
//! never wait. The thread begins with the first expression, takes the next ones from its [`Desk`], and ends after
//! [`IDLE`] without any. A thread whose expression was abandoned is given no more, and ends when it returns.
//!
//! Invariants: an expression is evaluated by one thread, and its outcome told once; what an abandoned one leaves is not
//! kept.
//!
//! Must not know: sockets, what expressions mean.

#![forbid(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::control::{Control, Form, MOST_LEFT_BEHIND, left_behind};
use super::engine::{Asked, Kept, Outcome, Packages};
use super::limits::{LEAST_STACK, Limits, STACK};
use super::{show, source};
use crate::commands::{Answer, Begun, Evaluate, Expression, FIRST_LOOK, When, next_look};
use crate::panic;
use crate::scheduler::runtime::payload_text;
use crate::sys::threads::Own;

/// How long a thread waits for the next expression.
const IDLE: Duration = Duration::from_secs(5);

/// When a session is first told where its expression is, and how often then.
const FIRST_WORD: Duration = Duration::from_secs(2);
const NEXT_WORD: Duration = Duration::from_secs(10);

/// Bytes of a whole answer, with what was printed.
const MOST_ANSWER: usize = 4 << 20;

/// Bytes of one piece of an answer.
const PIECE: usize = 32 * 1024;

/// Expressions of one session.
pub(crate) struct Evaluator {
    kept: Arc<Mutex<Kept>>,
    thread: Option<Thread>,
}

struct Thread {
    desk: Arc<Desk>,
    limits: Limits,
    /// What it was given last.
    last: Arc<Control>,
}

/// Where a thread finds its next expression.
#[derive(Default)]
struct Desk {
    tray: Mutex<Tray>,
    filled: Condvar,
}

#[derive(Default)]
struct Tray {
    next: Option<Arc<Asked>>,
    /// The thread has gone, or is not to come back.
    closed: bool,
}

impl Desk {
    fn tray(&self) -> MutexGuard<'_, Tray> {
        self.tray.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.tray().closed = true;
        self.filled.notify_one();
    }

    /// Whether the thread will take it.
    fn put(&self, asked: Arc<Asked>) -> bool {
        let mut tray = self.tray();
        if tray.closed {
            return false;
        }
        tray.next = Some(asked);
        self.filled.notify_one();
        true
    }

    /// The next expression; `None` if none came, and none will be taken any more.
    fn take(&self) -> Option<Arc<Asked>> {
        let until = Instant::now() + IDLE;
        let mut tray = self.tray();
        loop {
            if let Some(asked) = tray.next.take() {
                return Some(asked);
            }
            let left = until.saturating_duration_since(Instant::now());
            if tray.closed || left.is_zero() {
                tray.closed = true;
                return None;
            }
            tray = self.filled.wait_timeout(tray, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Thread {
    /// The session has gone, or its thread is stuck.
    fn drop(&mut self) {
        self.desk.close();
    }
}

impl Evaluator {
    pub(crate) fn new() -> Evaluator {
        Evaluator { kept: Arc::default(), thread: None }
    }

    /// Gives an expression to the thread, which is started if there is none or the one there is has not come back.
    fn give(&mut self, expression: &Expression<'_>) -> io::Result<Arc<Control>> {
        let control = Arc::new(Control::answering(expression));
        let asked = |limits| {
            Arc::new(Asked {
                typed: expression.text.to_owned(),
                permit: expression.permit.clone(),
                control: control.clone(),
                limits: Limits::within(limits, expression.limit),
                in_repl: false,
            })
        };
        if let Some(thread) = &mut self.thread
            && thread.last.is_finished()
            && thread.desk.put(asked(thread.limits))
        {
            thread.last = control.clone();
            return Ok(control);
        }
        self.thread = None;
        let desk = Arc::new(Desk::default());
        let mut stack = STACK;
        let limits = loop {
            let limits = Limits::new(stack);
            let (desk, kept) = (desk.clone(), self.kept.clone());
            let thread = std::thread::Builder::new().name("coro-eval".into()).stack_size(stack);
            match thread.spawn(move || serve(&desk, &kept)) {
                Ok(_) => break limits,
                // There is less address space; the limits follow.
                Err(_) if stack / 2 >= LEAST_STACK => stack /= 2,
                Err(error) => return Err(error),
            }
        };
        desk.put(asked(limits));
        self.thread = Some(Thread { desk, limits, last: control.clone() });
        Ok(control)
    }
}

impl Evaluate for Evaluator {
    fn is_open(&self, text: &str) -> bool {
        source::is_open(text)
    }

    fn begin(&mut self, expression: Expression<'_>) -> Begun {
        let left = left_behind();
        if left >= MOST_LEFT_BEHIND {
            return Err(format!(
                "not evaluated: {left} expressions that were abandoned have not come back from functions of the program"
            ));
        }
        match self.give(&expression) {
            Ok(control) => Ok(Box::new(Waiting::new(control, expression))),
            Err(error) => Err(format!("not evaluated: no thread for it: {error}")),
        }
    }
}

/// What the thread does.
fn serve(desk: &Desk, kept: &Mutex<Kept>) {
    let _own = Own::new();
    let packages = Packages::new();
    while let Some(asked) = desk.take() {
        let before = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut after = before;
        let evaluate = || catch_unwind(AssertUnwindSafe(|| asked.evaluate(&packages, &mut after)));
        // A panic of the engine is no panic of the program; those of the program's own functions are told.
        let outcome = panic::silently(true, evaluate);
        let outcome = outcome.unwrap_or_else(|payload| {
            let text = format!("the evaluation panicked: {}", payload_text(&*payload));
            std::mem::forget(payload);
            Outcome::Failed(text)
        });
        if !asked.control.is_abandoned() && matches!(outcome, Outcome::Value(..)) {
            *kept.lock().unwrap_or_else(PoisonError::into_inner) = after;
        }
        asked.control.finish(outcome);
    }
}

/// Whole lines, up to [`MOST_ANSWER`] bytes.
struct Written<'a> {
    out: String,
    form: &'a Form,
    cut: bool,
}

impl Written<'_> {
    fn push(&mut self, piece: &str) {
        self.cut |= self.out.len() + piece.len() > MOST_ANSWER;
        if !self.cut {
            self.out.push_str(piece);
        }
    }

    /// Lines of text; in JSON each as the value of `what`.
    fn lines(&mut self, what: &str, text: &str) {
        if !self.form.json {
            return self.push(&show::text(&super::Value::Text(text.to_owned())));
        }
        for line in text.lines() {
            self.push(&format!("{{\"{what}\":{}}}\n", show::json_text(line)));
            if self.cut {
                break;
            }
        }
    }
}

/// The whole answer.
pub(super) fn written(form: &Form, outcome: Outcome, printed: &str) -> String {
    let mut all = Written { out: String::new(), form, cut: false };
    if let Some(lines) = printed.strip_suffix('\n') {
        all.lines("line", lines);
    }
    match outcome {
        Outcome::Unknown => all.lines("error", form.unknown.trim_end()),
        Outcome::Failed(text) => all.lines("error", &text),
        Outcome::Value(value, mut notes) => {
            if form.lines {
                all.lines("line", &show::text(&value));
            } else if form.json {
                let (text, left_out) = show::json(&value);
                all.push(&format!("{{\"value\":{text}}}\n"));
                if left_out {
                    notes.push("the value is not whole: it is too long or too deep".into());
                }
            } else {
                all.push(&show::text(&value));
            }
            notes.iter().for_each(|text| all.push(&note(form, text)));
        }
    }
    if all.cut {
        let text = format!("the rest was left out: an answer has at most {} MiB", MOST_ANSWER >> 20);
        all.out += &note(form, &text);
    }
    all.out
}

fn note(form: &Form, text: &str) -> String {
    if form.lines {
        return format!("{{\"line\":{}}}\n", show::json_text(&format!("… {text}")));
    }
    if form.json {
        return format!("{{\"note\":{}}}\n", show::json_text(text));
    }
    show::text(&super::Value::Text(format!("… {text}")))
}

/// The answer to an expression, while it is evaluated and after.
pub(super) struct Waiting {
    control: Arc<Control>,
    form: Form,
    next_word: Instant,
    next_look: Instant,
    /// Once it is known.
    answer: Option<Vec<u8>>,
    sent: usize,
}

impl Answer for Waiting {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(answer) = &self.answer {
            let rest = &answer[self.sent..];
            let piece = if rest.len() <= PIECE {
                rest
            } else {
                // Whole lines, if they are not too long for that.
                let end = rest[..PIECE].iter().rposition(|b| *b == b'\n').map_or(PIECE, |end| end + 1);
                &rest[..end]
            };
            out.extend_from_slice(piece);
            self.sent += piece.len();
            return self.sent < answer.len();
        }
        if let Some(answer) = self.control.take() {
            self.answer = Some(answer.into_bytes());
            return true;
        }
        let now = Instant::now();
        let lasted = now.saturating_duration_since(self.control.begun());
        if now >= self.next_word {
            self.next_word = now + NEXT_WORD;
            let word = self.word(lasted);
            out.extend_from_slice(note(&self.form, &word).as_bytes());
        }
        self.next_look = now + next_look(lasted);
        true
    }

    fn when(&self) -> When {
        match self.answer {
            None => When::NotBefore(self.next_look.min(self.next_word)),
            Some(_) => When::Now,
        }
    }
}

impl Waiting {
    pub(super) fn new(control: Arc<Control>, expression: Expression<'_>) -> Waiting {
        Waiting {
            next_word: control.begun() + FIRST_WORD,
            next_look: control.begun() + FIRST_LOOK,
            control,
            form: Form { json: expression.json, lines: expression.lines, unknown: expression.unknown },
            answer: None,
            sent: 0,
        }
    }

    /// Where the expression is.
    fn word(&self, lasted: Duration) -> String {
        let lasted = lasted.as_secs_f64();
        match self.control.phase() {
            Some((name, since)) => {
                format!("after {lasted:.1}s still in {name}(), for {:.1}s; Ctrl-C abandons it", since.as_secs_f64())
            }
            None => format!("after {lasted:.1}s still computing, in no function of the program; Ctrl-C abandons it"),
        }
    }
}

impl Drop for Waiting {
    /// Finished, interrupted, or nobody listens any more.
    fn drop(&mut self) {
        if self.answer.is_none() {
            self.control.abandon();
        }
    }
}

//! What the program says of itself while a line is typed: tasks, functions, settings, classes.
//!
//! Asked on a thread of its own over a connection of its own, so that neither the line nor its session waits for more than
//! [`PATIENCE`]; an answer that comes later is there for the next Tab. The connection is made at the first question and
//! ended after [`LINGER`] without one: a program serves only so many sessions. If it cannot be had, there is nothing to
//! complete but what is known without it.
//!
//! Must not know: what the answers mean, the terminal.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::target::Target;
use crate::wire::{Said, Session};

/// Who presses Tab does not wait longer.
const PATIENCE: Duration = Duration::from_millis(200);
/// How long an answer is good.
const FRESH: Duration = Duration::from_secs(1);
/// How long the connection is kept without a question.
const LINGER: Duration = Duration::from_secs(10);
/// How long one may take to be made, and an answer to come.
const LIMIT: Duration = Duration::from_secs(2);
/// After a failure so long nothing is tried.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// Lines of an answer that are of use.
const MOST: usize = 5000;
/// Answers that are kept.
const KEPT: usize = 32;

/// An answer's lines.
pub(super) type Lines = Arc<Vec<String>>;

#[derive(Debug, Default)]
struct Desk {
    /// The question that is to be asked next.
    wanted: Option<String>,
    kept: HashMap<String, (Instant, Lines)>,
    has_thread: bool,
    ended: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Facts {
    target: Target,
    desk: Arc<(Mutex<Desk>, Condvar)>,
}

fn lock(desk: &Mutex<Desk>) -> MutexGuard<'_, Desk> {
    desk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Facts {
    pub(super) fn new(target: Target) -> Facts {
        Facts { target, desk: Arc::default() }
    }

    /// The lines of the answer to `question`: new ones if they come in time, else the last ones, else none.
    pub(super) fn ask(&self, question: &str) -> Lines {
        let asked = Instant::now();
        let mut desk = lock(&self.desk.0);
        let is_fresh = |desk: &Desk, than: Instant| desk.kept.get(question).is_some_and(|(when, _)| *when >= than);
        if asked.checked_sub(FRESH).is_none_or(|than| !is_fresh(&desk, than)) {
            desk.wanted = Some(question.to_owned());
            if !std::mem::replace(&mut desk.has_thread, true) {
                let (target, shared) = (self.target.clone(), self.desk.clone());
                let thread = std::thread::Builder::new().name("completion".into());
                desk.has_thread = thread.spawn(move || serve(&target, &shared)).is_ok();
            }
            self.desk.1.notify_all();
            while desk.has_thread && !is_fresh(&desk, asked) {
                let left = PATIENCE.saturating_sub(asked.elapsed());
                if left.is_zero() {
                    break;
                }
                desk = self.desk.1.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        desk.kept.get(question).map(|(_, lines)| lines.clone()).unwrap_or_default()
    }

    /// As if that had been answered, for a while.
    #[cfg(test)]
    pub(super) fn keep(&self, question: &str, lines: &[&str]) {
        let lines = lines.iter().map(|line| (*line).to_owned()).collect();
        let when = Instant::now() + Duration::from_secs(60);
        lock(&self.desk.0).kept.insert(question.to_owned(), (when, Arc::new(lines)));
    }
}

impl Drop for Facts {
    fn drop(&mut self) {
        lock(&self.desk.0).ended = true;
        self.desk.1.notify_all();
    }
}

fn serve(target: &Target, (desk, changed): &(Mutex<Desk>, Condvar)) {
    let mut session: Option<Session> = None;
    let mut failed: Option<Instant> = None;
    loop {
        let question = {
            let mut desk = lock(desk);
            let until = Instant::now() + LINGER;
            loop {
                if desk.ended {
                    break None;
                }
                if let Some(question) = desk.wanted.take() {
                    break Some(question);
                }
                let left = until.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    desk.has_thread = false;
                    break None;
                }
                desk = changed.wait_timeout(desk, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        };
        let Some(question) = question else {
            if let Some(session) = session {
                session.close();
            }
            return;
        };
        if session.is_none() && failed.is_none_or(|when| when.elapsed() >= AFTER_FAILURE) {
            session = Session::open_within(target, LIMIT).ok();
            failed = session.is_none().then(Instant::now);
        }
        let answer = session.as_mut().map(|session| lines(session, &question));
        let answer = match answer {
            Some(Some(answer)) => answer,
            Some(None) => {
                session = None;
                failed = Some(Instant::now());
                Vec::new()
            }
            None => Vec::new(),
        };
        let mut desk = lock(desk);
        if desk.kept.len() >= KEPT {
            desk.kept.clear();
        }
        desk.kept.insert(question, (Instant::now(), Arc::new(answer)));
        changed.notify_all();
    }
}

/// `None` if the session is of no use any more.
fn lines(session: &mut Session, question: &str) -> Option<Vec<String>> {
    let mut lines = Vec::new();
    let begun = Instant::now();
    let asked = session.ask(question, |said| {
        match said {
            Said::Line(line) => lines.push(crate::terminal::plain(line)),
            Said::Row(json) => lines.push(json.to_owned()),
            Said::Error(_) | Said::Nothing(_) => {}
        }
        lines.len() < MOST && begun.elapsed() < LIMIT
    });
    asked.ok().map(|()| lines)
}

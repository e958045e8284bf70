//! The thread that asks: everything once a second, and what is known of the task that somebody looks at.
//!
//! Invariant: at most one question is on its way, and the next round of them begins no sooner than four times as long after
//! the last one as that took, so that a process with very many tasks does not spend its time on being looked at.
//!
//! Must not know: the screen.

#![forbid(unsafe_code)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::model::{Look, Looks, Rows};
use crate::terminal::plain;
use crate::wire::{Broken, Said, Session};

/// From the beginning of one round to that of the next.
pub(super) const EVERY: Duration = Duration::from_secs(1);

/// The second round comes sooner, because shares of time take two.
const SECOND: Duration = Duration::from_millis(300);

/// What was found out.
#[derive(Debug)]
pub(super) enum News {
    Look(Look),
    /// All that is known of one task.
    Task {
        id: u64,
        lines: Vec<String>,
    },
    /// The program has no JSON: why, and what it says instead.
    Text {
        why: String,
        lines: Vec<String>,
    },
    /// No more will come.
    Gone(String),
}

#[derive(Debug, Default)]
struct Wanted {
    task: Option<u64>,
    paused: bool,
    /// Something changed since the last look at this.
    changed: bool,
    ended: bool,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Feed {
    wanted: Arc<(Mutex<Wanted>, Condvar)>,
    news: Receiver<News>,
}

fn lock(wanted: &Mutex<Wanted>) -> MutexGuard<'_, Wanted> {
    wanted.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Feed {
    pub(super) fn start(session: Session) -> std::io::Result<Feed> {
        let wanted = Arc::new((Mutex::new(Wanted::default()), Condvar::new()));
        let (tell, news) = channel();
        let asker = Asker { session, wanted: wanted.clone(), tell, looks: Looks::default(), is_first: true };
        std::thread::Builder::new().name("asker".into()).spawn(move || asker.run())?;
        Ok(Feed { wanted, news })
    }

    /// What came since the last call.
    pub(super) fn news(&self) -> impl Iterator<Item = News> + '_ {
        self.news.try_iter()
    }

    /// Which task somebody looks at.
    pub(super) fn look_at(&self, task: Option<u64>) {
        self.change(|wanted| {
            let differs = wanted.task != task;
            wanted.task = task;
            differs
        });
    }

    pub(super) fn pause(&self, paused: bool) {
        self.change(|wanted| {
            wanted.paused = paused;
            !paused
        });
    }

    fn change(&self, change: impl FnOnce(&mut Wanted) -> bool) {
        let mut wanted = lock(&self.wanted.0);
        if change(&mut wanted) {
            wanted.changed = true;
            self.wanted.1.notify_all();
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.change(|wanted| {
            wanted.ended = true;
            true
        });
    }
}

struct Asker {
    session: Session,
    wanted: Arc<(Mutex<Wanted>, Condvar)>,
    tell: Sender<News>,
    looks: Looks,
    is_first: bool,
}

impl Asker {
    fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let (task, paused) = {
                let mut wanted = lock(&self.wanted.0);
                wanted.changed = false;
                (wanted.task, wanted.paused)
            };
            let begun = Instant::now();
            let mut outcome = Ok(());
            if begun >= next && !paused {
                outcome = self.look();
                let every = if std::mem::take(&mut self.is_first) { SECOND } else { EVERY };
                next = begun + every.max(begun.elapsed() * 5);
            }
            if let (Ok(()), Some(id)) = (&outcome, task) {
                outcome = self.task(id);
            }
            if let Err(Broken(why)) = outcome {
                let _ = self.tell.send(News::Gone(plain(&why)));
                return;
            }
            if self.wait_until(next) {
                return self.session.close();
            }
        }
    }

    /// Until it is time for the next round, or something else is wanted. True: nothing any more.
    fn wait_until(&self, next: Instant) -> bool {
        let mut wanted = lock(&self.wanted.0);
        loop {
            let left = next.saturating_duration_since(Instant::now());
            if wanted.ended || wanted.changed || (left.is_zero() && !wanted.paused) {
                return wanted.ended;
            }
            let left = if wanted.paused { EVERY } else { left };
            wanted = self.wanted.1.wait_timeout(wanted, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn look(&mut self) -> Result<(), Broken> {
        let mut rows = Rows::new();
        let mut refused = None;
        for question in ["workers --json", "where_all --json"] {
            self.session.ask(question, |said| {
                match said {
                    Said::Row(line) => rows.add(line),
                    Said::Error(why) => refused = Some(plain(why)),
                    Said::Line(_) | Said::Nothing(_) => {}
                }
                true
            })?;
        }
        let news = match refused {
            Some(why) => News::Text { why, lines: self.lines("status")? },
            None => News::Look(self.looks.finish(rows)),
        };
        // Nobody listens any more: the next wait ends this.
        let _ = self.tell.send(news);
        Ok(())
    }

    fn task(&mut self, id: u64) -> Result<(), Broken> {
        let lines = self.lines(&format!("where {id}"))?;
        let _ = self.tell.send(News::Task { id, lines });
        Ok(())
    }

    fn lines(&mut self, question: &str) -> Result<Vec<String>, Broken> {
        let mut lines = Vec::new();
        self.session.ask(question, |said| {
            if let Said::Line(text) | Said::Error(text) = said {
                lines.push(plain(text));
            }
            true
        })?;
        Ok(lines)
    }
}

//! The thread that asks: everything once a second, and what is known of the task that somebody looks at.
//!
//! Of a process with very many tasks only the first are asked for, in the order in which they are shown: all of them would be
//! tens of megabytes a second.
//!
//! Invariant: at most one question is on its way, and the next round of them begins no sooner than four times as long after
//! the last one as that kept the process busy, so that it does not spend its time on being looked at.
//!
//! Must not know: the screen.

#![forbid(unsafe_code)]

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::model::{Look, Looks, Order, Rows, State};
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

#[derive(Debug)]
struct Wanted {
    task: Option<u64>,
    view: View,
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
        let view = View { order: Order::Share, filter: String::new() };
        let none = Wanted { task: None, view: view.clone(), paused: false, changed: false, ended: false };
        let wanted = Arc::new((Mutex::new(none), Condvar::new()));
        let (tell, news) = channel();
        let asker = Asker {
            session,
            wanted: wanted.clone(),
            tell,
            looks: Looks::default(),
            view,
            is_first: true,
            is_many: false,
        };
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

    /// What of all tasks.
    pub(super) fn show(&self, order: Order, filter: &str) {
        self.change(|wanted| {
            let differs = wanted.view.order != order || wanted.view.filter != filter;
            if differs {
                wanted.view = View { order, filter: filter.to_owned() };
            }
            differs
        });
    }

    pub(super) fn pause(&self, paused: bool) {
        self.change(|wanted| std::mem::replace(&mut wanted.paused, paused) && !paused);
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

/// With more tasks than that only the first of them are asked for, in the order in which they are shown.
pub(super) const MANY: u64 = 3000;

/// How many are then shown.
pub(super) const MOST: usize = 500;

/// What somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) order: Order,
    pub(super) filter: String,
}

/// How an answer ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    Refused(String),
    /// `go_on` wanted no more of it.
    Dropped,
}

/// Asks for rows. While nothing comes `go_on` is asked whether they are still wanted.
pub(super) fn listen(
    session: &mut Session,
    question: &str,
    mut hear: impl FnMut(&str),
    go_on: impl Fn() -> bool,
) -> Result<End, Broken> {
    let mut end = End::Whole;
    session.ask(question, |said| {
        match said {
            Said::Row(line) => hear(line),
            Said::Error(why) if end == End::Whole => end = End::Refused(plain(why)),
            Said::Nothing(_) if !go_on() => {
                end = End::Dropped;
                return false;
            }
            Said::Error(_) | Said::Line(_) | Said::Nothing(_) => {}
        }
        true
    })?;
    Ok(end)
}

/// What shows the tasks of a program with very many: asked one after the other until that is enough. Tasks that ran are found by
/// looking twice, `pause` apart.
pub(super) fn questions(view: &View, pause: Duration) -> Vec<String> {
    let sort = match view.order {
        Order::Share | Order::RunTime => "run",
        Order::Wait => "age",
        // Numbers are given in the order of spawning.
        Order::Age | Order::Id => "id",
    };
    let filter: String = view.filter.chars().filter(|c| !matches!(c, '"' | '\\')).collect();
    if filter.trim().is_empty() {
        return match view.order {
            // And if few ran, those that ran most so far.
            Order::Share => {
                vec![format!("top {}ms --json", pause.as_millis()), format!("tasks sort=run limit={MOST} --json")]
            }
            _ => vec![format!("tasks sort={sort} limit={MOST} --json")],
        };
    }
    if State::ALL.iter().any(|state| state.word() == filter) {
        return vec![format!("tasks state={filter} sort={sort} limit={MOST} --json")];
    }
    ["name", "wait"].map(|field| format!("tasks {field}~\"{filter}\" sort={sort} limit={MOST} --json")).to_vec()
}

struct Asker {
    session: Session,
    wanted: Arc<(Mutex<Wanted>, Condvar)>,
    tell: Sender<News>,
    looks: Looks,
    /// What was looked for last.
    view: View,
    is_first: bool,
    /// There are so many tasks that not all were asked for.
    is_many: bool,
}

impl Asker {
    fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let (task, paused, view) = {
                let mut wanted = lock(&self.wanted.0);
                wanted.changed = false;
                (wanted.task, wanted.paused, wanted.view.clone())
            };
            let begun = Instant::now();
            let mut outcome = Ok(());
            // With few tasks another view is made of what is there.
            let is_new = std::mem::replace(&mut self.view, view) != self.view && self.is_many;
            if (begun >= next || is_new) && !paused {
                let every = if std::mem::take(&mut self.is_first) { SECOND } else { EVERY };
                match self.look() {
                    // By its own clock, or by ours if that is more than the pause that it made.
                    Ok(Some(took)) => next = begun + every.max(took * 5),
                    Ok(None) => next = begun,
                    Err(broken) => outcome = Err(broken),
                }
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

    /// How long the process was kept busy; `None` if something else was wanted meanwhile.
    fn look(&mut self) -> Result<Option<Duration>, Broken> {
        let begun = Instant::now();
        let mut rows = Rows::new();
        let wanted = self.wanted.clone();
        let go_on = || !lock(&wanted.0).changed;
        let mut end = listen(&mut self.session, "status --json", |line| rows.add(line), || true)?;
        self.is_many = rows.tasks() > MANY;
        let mut paused = Duration::ZERO;
        if end == End::Whole && !self.is_many {
            end = listen(&mut self.session, "tasks --json", |line| rows.add(line), || true)?;
        } else if end == End::Whole {
            let first = self.looks.is_first();
            if first {
                // Something to be seen at once.
                let _ = self.tell.send(News::Look(rows.numbers()));
            }
            let pause = if first { SECOND } else { EVERY };
            for question in questions(&self.view, pause) {
                paused += if question.starts_with("top ") { pause } else { Duration::ZERO };
                end = listen(&mut self.session, &question, |line| rows.add(line), go_on)?;
                if end != End::Whole || rows.are_enough() {
                    break;
                }
            }
        }
        let news = match end {
            End::Dropped => return Ok(None),
            End::Refused(why) => News::Text { why, lines: self.lines("status")? },
            End::Whole => News::Look(self.looks.finish(rows)),
        };
        // Nobody listens any more: the next wait ends this.
        let _ = self.tell.send(news);
        Ok(Some(begun.elapsed().saturating_sub(paused)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_very_many_tasks_those_are_asked_for_that_are_shown() {
        let of = |order: Order, filter: &str| questions(&View { order, filter: filter.into() }, EVERY);
        assert_eq!(of(Order::Share, ""), ["top 1000ms --json", "tasks sort=run limit=500 --json"]);
        assert_eq!(of(Order::Wait, ""), ["tasks sort=age limit=500 --json"]);
        assert_eq!(of(Order::Age, "parked"), ["tasks state=parked sort=id limit=500 --json"]);
        assert_eq!(
            of(Order::Share, "db \"w"),
            ["tasks name~\"db w\" sort=run limit=500 --json", "tasks wait~\"db w\" sort=run limit=500 --json"]
        );
    }
}

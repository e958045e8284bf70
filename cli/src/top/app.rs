//! What is being looked at, and what keys do.
//!
//! What is chosen is a place in the list, so that who looks at its beginning goes on to see who is first. While the stack of
//! a task is open, that task stays chosen wherever a new look puts it; when it has ended, the one at its place is.
//!
//! Must not know: the terminal beyond its keys, the connection.

#![forbid(unsafe_code)]

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::feed::News;
use super::model::{Look, Order, Task, sort};

/// What follows a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(super) enum Then {
    GoOn,
    Leave,
}

/// The whole stack of the chosen task.
#[derive(Debug, Default)]
pub(super) struct Detail {
    /// Of which task the lines are.
    pub(super) id: u64,
    pub(super) lines: Vec<String>,
    pub(super) scroll: usize,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct App {
    pub(super) program: String,
    /// What else the banner says: version and workers.
    pub(super) about: String,
    pub(super) order: Order,
    pub(super) look: Option<Look>,
    /// Indices into the look's tasks, as they are shown.
    pub(super) rows: Vec<usize>,
    /// The id of the task in the chosen row.
    chosen: Option<u64>,
    /// The chosen row.
    pub(super) at: usize,
    /// The first row on the screen.
    pub(super) first: usize,
    /// Rows that the screen has, as last drawn.
    pub(super) page: usize,
    pub(super) detail: Option<Detail>,
    /// Calls of the runtime are shown in it, too.
    pub(super) is_whole: bool,
    pub(super) filter: String,
    /// The filter is being typed.
    pub(super) typing: bool,
    paused: bool,
    pub(super) helping: bool,
    /// Instead of a look.
    pub(super) text: Option<(String, Vec<String>)>,
    pub(super) gone: Option<String>,
}

impl App {
    pub(super) fn new(program: String, banner: &str) -> App {
        let about = banner.split_once(", ").map_or("", |(_, rest)| rest);
        App {
            program,
            about: about.split(';').next().unwrap_or_default().to_owned(),
            order: Order::Share,
            look: None,
            rows: Vec::new(),
            chosen: None,
            at: 0,
            first: 0,
            page: 1,
            detail: None,
            is_whole: false,
            filter: String::new(),
            typing: false,
            paused: false,
            helping: false,
            text: None,
            gone: None,
        }
    }

    /// The task whose stack is shown.
    pub(super) fn looked_at(&self) -> Option<u64> {
        self.detail.as_ref().and(self.chosen)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    pub(super) fn hear(&mut self, news: News) {
        match news {
            // What was on its way when somebody held still.
            News::Look(_) if self.paused && self.look.is_some() => {}
            News::Look(look) => {
                self.look = Some(look);
                self.text = None;
                self.arrange();
            }
            News::Task { id, lines } => {
                if let Some(detail) = &mut self.detail {
                    if detail.id != id {
                        detail.scroll = 0;
                    }
                    (detail.id, detail.lines) = (id, lines);
                }
            }
            News::Text { why, lines } => self.text = Some((why, lines)),
            News::Gone(why) => self.gone = Some(why),
        }
    }

    /// Sorts and filters, and finds the chosen task again.
    fn arrange(&mut self) {
        let Some(look) = &self.look else { return };
        let filter = self.filter.to_lowercase();
        let matches = |task: &Task| {
            let texts = [task.name.as_str(), task.wait.as_str(), task.state.word()];
            filter.is_empty() || texts.iter().any(|text| text.to_lowercase().contains(&filter))
        };
        let tasks = &look.tasks;
        self.rows = (0..tasks.len()).filter(|row| matches(&tasks[*row])).collect();
        sort(&mut self.rows, tasks, self.order);
        let followed = self.looked_at();
        let found = followed.and_then(|id| self.rows.iter().position(|row| tasks[*row].id == id));
        match found {
            Some(at) => self.at = at,
            None => self.choose(self.at),
        }
    }

    fn choose(&mut self, at: usize) {
        self.at = at.min(self.rows.len().saturating_sub(1));
        let Some(look) = &self.look else { return };
        self.chosen = self.rows.get(self.at).map(|row| look.tasks[*row].id);
    }

    fn sort_by(&mut self, order: Order) {
        self.order = order;
        // Who asks for an order wants to see its first.
        self.at = 0;
        self.arrange();
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Then {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Then::Leave;
        }
        if self.typing {
            self.type_filter(key.code);
            return Then::GoOn;
        }
        if std::mem::take(&mut self.helping) {
            return if key.code == KeyCode::Char('q') { Then::Leave } else { Then::GoOn };
        }
        match key.code {
            KeyCode::Char('q') => return Then::Leave,
            KeyCode::Esc if self.detail.is_some() => self.detail = None,
            KeyCode::Esc if !self.filter.is_empty() => {
                self.filter.clear();
                self.arrange();
            }
            KeyCode::Esc => return Then::Leave,
            KeyCode::Enter => {
                let is_open = self.detail.is_some();
                self.detail = (!is_open && self.chosen.is_some()).then(Detail::default);
            }
            KeyCode::Char('?' | 'h') | KeyCode::F(1) => self.helping = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('.') => self.is_whole = !self.is_whole,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.at.saturating_sub(1)),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.at + 1),
            KeyCode::Home | KeyCode::Char('g') => self.choose(0),
            KeyCode::End | KeyCode::Char('G') => self.choose(usize::MAX),
            KeyCode::PageUp => self.turn(false),
            KeyCode::PageDown => self.turn(true),
            KeyCode::Char(c) => {
                if let Some((_, order, _)) = Order::ALL.iter().find(|(key, ..)| *key == c) {
                    self.sort_by(*order);
                }
            }
            _ => {}
        }
        Then::GoOn
    }

    /// By a page: in the stack, if one is shown, else in the list.
    fn turn(&mut self, down: bool) {
        let by = |at: usize, page: usize| if down { at.saturating_add(page) } else { at.saturating_sub(page) };
        match &mut self.detail {
            // Drawing keeps it within the text.
            Some(detail) => detail.scroll = by(detail.scroll, 5),
            None => self.choose(by(self.at, self.page.max(1))),
        }
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.typing = false;
                self.filter.clear();
            }
            KeyCode::Backspace => _ = self.filter.pop(),
            KeyCode::Char(c) if self.filter.len() < 64 => self.filter.push(c),
            _ => {}
        }
        self.arrange();
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::model::{Looks, Rows};
    use super::*;

    /// A program with a few tasks.
    pub(in super::super) fn look(tasks: &[(u64, &str, &str)]) -> News {
        let mut rows = Rows::new();
        rows.add(r#"{"head":{"took":{"secs":0,"nanos":2000000}}}"#);
        rows.add(
            r#"{"status":{"workers":[
                {"runtime":0,"index":0,"current":2,"slice_age":{"secs":3,"nanos":200000000},"runnable":5,"live":40,"load":1.0},
                {"runtime":0,"index":1,"current":0,"asleep":true,"runnable":0,"live":38,"load":0.25}]}}"#,
        );
        for (id, name, more) in tasks {
            rows.add(&format!(r#"{{"task":{{"id":{id},"name":"{name}","age":{{"secs":{id},"nanos":0}},{more}}}}}"#));
        }
        News::Look(Looks::default().finish(rows))
    }

    const TASKS: &[(u64, &str, &str)] = &[
        (1, "main", r#""state":"Parked","run_time":{"secs":1,"nanos":0}"#),
        (2, "hog", r#""state":{"Running":{"worker":0}},"run_time":{"secs":9,"nanos":0}"#),
        (3, "db writer", r#""state":"Parked","run_time":{"secs":2,"nanos":0},"wait":{"text":"lock \"pool\""}"#),
    ];

    fn press(app: &mut App, codes: &[KeyCode]) {
        for code in codes {
            assert_eq!(app.key(KeyEvent::new(*code, KeyModifiers::NONE)), Then::GoOn, "{code:?}");
        }
    }

    fn ids(app: &App) -> Vec<u64> {
        let look = app.look.as_ref().expect("a look");
        app.rows.iter().map(|row| look.tasks[*row].id).collect()
    }

    #[test]
    fn a_task_stays_chosen_while_its_stack_is_open() {
        let mut app = App::new("demo[1]".into(), "demo pid 1, coro 0.1.0, 2 workers; help lists the commands");
        assert_eq!(app.about, "coro 0.1.0, 2 workers");
        app.hear(look(TASKS));
        assert_eq!(ids(&app), [2, 3, 1]);
        press(&mut app, &[KeyCode::Down, KeyCode::Enter]);
        assert_eq!(app.looked_at(), Some(3));
        let mut more = TASKS.to_vec();
        more.push((4, "late", r#""state":"Parked","run_time":{"secs":5,"nanos":0}"#));
        app.hear(look(&more));
        assert_eq!((ids(&app), app.at, app.looked_at()), (vec![2, 4, 3, 1], 2, Some(3)));
        // It ends: the row at its place is chosen instead.
        more.remove(2);
        app.hear(look(&more));
        assert_eq!((ids(&app), app.looked_at()), (vec![2, 4, 1], Some(1)));
        press(&mut app, &[KeyCode::Esc, KeyCode::Home]);
        more.push((9, "hungry", r#""state":"Parked","run_time":{"secs":50,"nanos":0}"#));
        app.hear(look(&more));
        assert_eq!((ids(&app), app.at), (vec![9, 2, 4, 1], 0));
        more.pop();
        app.hear(look(&more));
        press(&mut app, &[KeyCode::Char('w')]);
        assert_eq!((ids(&app), app.looked_at(), app.at), (vec![4, 1, 2], None, 0));
    }

    #[test]
    fn a_filter_shows_what_contains_it_and_escape_takes_it_back() {
        let mut app = App::new("demo[1]".into(), "");
        app.hear(look(TASKS));
        press(&mut app, &[KeyCode::Char('/'), KeyCode::Char('L'), KeyCode::Char('o'), KeyCode::Enter]);
        assert_eq!((ids(&app), app.typing), (vec![3], false));
        press(&mut app, &[KeyCode::Esc]);
        assert_eq!(ids(&app).len(), 3);
        assert_eq!(app.key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE)), Then::Leave);
        assert_eq!(app.key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)), Then::Leave);
    }

    #[test]
    fn who_holds_still_sees_no_new_look() {
        let mut app = App::new("demo[1]".into(), "");
        app.hear(look(TASKS));
        press(&mut app, &[KeyCode::Char(' ')]);
        app.hear(look(&TASKS[..1]));
        assert_eq!(ids(&app).len(), 3);
        press(&mut app, &[KeyCode::Char(' ')]);
        app.hear(look(&TASKS[..1]));
        assert_eq!(ids(&app).len(), 1);
    }
}

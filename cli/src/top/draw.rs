//! The screen of `top`.
//!
//! From above: the program, its tasks in numbers, its workers, the list, the stack of the chosen task if it is open, keys. The
//! list is made for 80 columns; from [`WIDE`] on it has more. Only rows that are seen are made, since there may be very many.
//!
//! Must not know: where what is shown came from, what keys do.

#![forbid(unsafe_code)]

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span, Text};
use ratatui::widgets::{Block, Borders, Cell, Clear, Paragraph, Row, Table, Wrap};

use super::app::App;
use super::model::{Look, Order, State, Task, Worker, span};

/// Columns from which the list shows more of them.
const WIDE: u16 = 120;

/// Columns up to which it has only what matters most.
const NARROW: u16 = 70;

/// Less than this cannot be drawn into.
const LEAST: (u16, u16) = (40, 8);

/// Columns of a task's state.
const STATE: u16 = 9;

/// Columns of a worker's bar.
const BAR: usize = 10;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BAR_OF_TITLE: Style = Style::new().add_modifier(Modifier::REVERSED);

const HELP: &str = "c r w a i   sort by CPU, run time, wait, age, id
up down     choose a task; also j k, PgUp PgDn, Home End
Enter       all of it and its stack; PgUp PgDn scroll in it
.           the whole stack, with the calls of the runtime
Esc         closes the stack, drops the filter, leaves
/           show tasks whose name, state or wait contains a text
space       hold still, and go on
q           leave

CPU%  share of the time between the last two looks
TIME  run time in all      FOR  time in this state
AGE   since its first slice; a name in brackets is the class";

pub(super) fn draw(app: &mut App, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("{} by {} is too small", area.width, area.height);
        return frame.render_widget(Paragraph::new(text), area);
    }
    let workers = app.look.as_ref().map_or(0, |look| look.workers.len());
    let most = usize::from(area.height / 4).max(1);
    let worker_rows = workers.min(most);
    let [title, numbers, load, body, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(worker_rows as u16),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(area);
    draw_title(app, frame, title);
    if let Some((why, lines)) = &app.text {
        let note = Line::styled(format!("{why}. Without it there is no list, only this:"), BOLD);
        let all = [note, Line::default()].into_iter().chain(lines.iter().map(|line| Line::raw(line.as_str())));
        let [_, below] = Layout::vertical([Constraint::Length(1), Constraint::Fill(1)]).areas(numbers.union(body));
        frame.render_widget(Paragraph::new(Text::from_iter(all)).wrap(Wrap { trim: false }), below);
    } else if let Some(look) = &app.look {
        frame.render_widget(counts(app, look, area.width < NARROW), numbers);
        draw_workers(look, frame, load);
        match app.detail {
            Some(_) => {
                let shares = [Constraint::Fill(2), Constraint::Fill(3)];
                let [list, stack] = Layout::vertical(shares).areas(body);
                draw_list(app, frame, list);
                draw_stack(app, frame, stack);
            }
            None => draw_list(app, frame, body),
        }
    } else {
        frame.render_widget(Paragraph::new("waiting for the first answer"), body);
    }
    draw_keys(app, frame, keys);
    if app.helping {
        draw_help(frame, area);
    }
}

fn draw_title(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let right = match (&app.gone, app.is_paused()) {
        (Some(_), _) => "GONE ".to_owned(),
        (None, true) => "HELD, space goes on ".to_owned(),
        (None, false) => format!("by {} ", app.order.word()),
    };
    let left = format!(" {}  {}", app.program, app.about);
    let room = usize::from(area.width).saturating_sub(right.len() + 1);
    let left = cut(&left, room);
    let line = format!("{left}{:1$} {right}", "", room - width_of(&left));
    frame.render_widget(Paragraph::new(line).style(BAR_OF_TITLE), area);
}

fn counts(app: &App, look: &Look, is_narrow: bool) -> Line<'static> {
    let mut text = if is_narrow { look.short_text() } else { look.text() };
    if !app.filter.is_empty() && !app.typing {
        text += &format!("; {} with \"{}\"", app.rows.len(), app.filter);
    }
    Line::raw(text)
}

fn draw_workers(look: &Look, frame: &mut Frame<'_>, area: Rect) {
    let rows = usize::from(area.height);
    let shown = if look.workers.len() > rows { rows.saturating_sub(1) } else { rows };
    let mut lines: Vec<Line<'_>> =
        look.workers.iter().take(shown).map(|worker| worker_line(look, worker, area.width < NARROW)).collect();
    let rest = &look.workers[shown.min(look.workers.len())..];
    if !rest.is_empty() {
        let mean = rest.iter().map(|worker| worker.load).sum::<f64>() / rest.len() as f64;
        let runnable: u64 = rest.iter().map(|worker| worker.runnable).sum();
        lines.push(Line::raw(format!(
            "{} more workers, load {:.0}% each, {runnable} runnable",
            rest.len(),
            mean * 100.0
        )));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn worker_line<'a>(look: &'a Look, worker: &'a Worker, is_narrow: bool) -> Line<'a> {
    let full = (worker.load * BAR as f64).round() as usize;
    let bar = format!("{}{}", "|".repeat(full), " ".repeat(BAR.saturating_sub(full)));
    let colour = if worker.load > 0.9 { Style::new().fg(Color::Red) } else { Style::new().fg(Color::Green) };
    let load = format!("{:.0}%", worker.load * 100.0);
    let mut line = match is_narrow {
        true => Line::from(vec![
            Span::raw(format!("worker {:<3}", worker.place)),
            Span::styled(format!("{load:>4} "), colour),
        ]),
        false => Line::from(vec![
            Span::raw(format!("worker {:<3} [", worker.place)),
            Span::styled(bar, colour),
            Span::raw(format!("]{load:>5} {:>3} runnable of {} ", worker.runnable, worker.live)),
        ]),
    };
    match worker.slice_age {
        Some(lasts) if worker.current != 0 => {
            let name =
                look.tasks.iter().find(|task| task.id == worker.current).map(Task::shown_name).unwrap_or_default();
            let style = if lasts.as_secs() > 0 { BOLD.fg(Color::Red) } else { Style::new() };
            line.push_span(Span::styled(format!("runs #{} for {} {name}", worker.current, span(lasts)), style));
        }
        _ if worker.asleep => line.push_span(Span::styled("asleep", DIM)),
        _ => {}
    }
    line
}

fn draw_list(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let Some(look) = &app.look else { return };
    // One line is the header.
    app.page = usize::from(area.height).saturating_sub(1).max(1);
    app.first = app.first.clamp((app.at + 1).saturating_sub(app.page), app.at);
    app.first = app.first.min(app.rows.len().saturating_sub(app.page));
    let columns = Columns::new(app, look, area.width);
    let seen = app.rows.iter().enumerate().skip(app.first).take(app.page);
    let rows = seen.map(|(place, row)| {
        let style = if place == app.at { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        columns.row(&look.tasks[*row]).style(style)
    });
    frame.render_widget(Table::new(rows, columns.widths()).header(columns.header(app.order)).column_spacing(1), area);
}

/// One column of the list: its title, columns of the screen, what it is sorted by.
type Column = (&'static str, u16, Option<Order>, fn(&Task) -> String);

/// What the list shows at some width.
struct Columns {
    /// All but the state, the name and what is waited for; the first is the id.
    figures: Vec<Column>,
    name: usize,
    wait: usize,
}

impl Columns {
    fn new(app: &App, look: &Look, width: u16) -> Columns {
        let id = look.tasks.iter().map(|task| task.id).max().unwrap_or(0).max(1000).ilog10() + 1;
        let mut figures: Vec<Column> = vec![("ID", id as u16, Some(Order::Id), |task| task.id.to_string())];
        let all: [Column; 7] = [
            ("CPU%", 4, Some(Order::Share), Task::shown_share),
            ("TIME", 6, Some(Order::RunTime), |task| span(task.run_time)),
            ("FOR", 6, Some(Order::Wait), |task| span(task.since)),
            ("AGE", 6, Some(Order::Age), |task| task.age.map_or_else(|| "-".to_owned(), span)),
            ("SLICES", 9, None, |task| task.slices.to_string()),
            ("LONGEST", 7, None, |task| span(task.longest_slice)),
            ("WORKER", 6, None, |task| task.worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string())),
        ];
        // A narrow screen has what the list is sorted by.
        let sorted = if app.order == Order::Id { Order::Wait } else { app.order };
        figures.extend(all.into_iter().filter(|(_, _, order, _)| match width {
            ..NARROW => *order == Some(sorted),
            NARROW..WIDE => order.is_some(),
            WIDE.. => true,
        }));
        let taken: u16 = figures.iter().map(|(_, columns, ..)| columns + 1).sum();
        let room = usize::from(width.saturating_sub(taken + STATE + 2));
        // As much as names take, and less if there is something else to say.
        let seen = app.rows.iter().skip(app.first).take(app.page).map(|row| &look.tasks[*row]);
        let widest = seen.map(|task| width_of(&task.shown_name())).max().unwrap_or(0).max(4);
        let name = widest.min(if width < NARROW { room * 2 / 3 } else { room / 2 });
        Columns { figures, name, wait: room - name }
    }

    fn widths(&self) -> Vec<Constraint> {
        let mut all: Vec<u16> = self.figures.iter().map(|(_, columns, ..)| *columns).collect();
        all.insert(1, STATE);
        all.extend([self.name as u16, self.wait as u16]);
        all.into_iter().map(Constraint::Length).collect()
    }

    fn header(&self, order: Order) -> Row<'static> {
        let left = |text: &'static str| Cell::from(Line::styled(text, BOLD));
        let mut cells: Vec<Cell<'_>> = Vec::new();
        for (title, _, sorts, _) in &self.figures {
            let style = if *sorts == Some(order) { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
            cells.push(Cell::from(Line::styled(*title, style).right_aligned()));
        }
        cells.insert(1, left("STATE"));
        cells.extend([left("NAME"), left(if self.wait < 9 { "WAITS" } else { "WAITS FOR" })]);
        Row::new(cells)
    }

    fn row(&self, task: &Task) -> Row<'static> {
        let state = match task.state {
            State::Running => Style::new().fg(Color::Red),
            State::Runnable => Style::new().fg(Color::Yellow),
            State::Unstarted => DIM,
            State::Parked => Style::new(),
        };
        let figure = |(.., text): &Column| Cell::from(Line::raw(text(task)).right_aligned());
        let mut cells: Vec<Cell<'_>> = self.figures.iter().map(figure).collect();
        cells.insert(1, Cell::from(Span::styled(task.state.word(), state)));
        let name = if task.is_named { Style::new().fg(Color::Green) } else { DIM };
        cells.push(Cell::from(Span::styled(short(&task.shown_name(), self.name), name)));
        cells.push(Cell::from(short(&task.wait, self.wait)));
        Row::new(cells)
    }
}

fn width_of(text: &str) -> usize {
    Span::raw(text).width()
}

/// `text` in so many columns: what does not fit is left out, and a mark tells so.
fn short(text: &str, columns: usize) -> String {
    if width_of(text) <= columns {
        return text.to_owned();
    }
    let mut out = cut(text, columns.saturating_sub(1));
    out.push('…');
    out
}

fn draw_stack(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let chosen = app.looked_at();
    let Some(detail) = &mut app.detail else { return };
    let title = chosen.map(|id| format!(" #{id} ")).unwrap_or_default();
    let block = Block::new().borders(Borders::TOP).title(title);
    let inside = block.inner(area);
    // Of another task until its own comes.
    let is_his = Some(detail.id) == chosen;
    let lines: Vec<Line<'_>> = match is_his {
        true => detail.lines.iter().filter_map(|line| shown_line(line, app.is_whole, inside.width)).collect(),
        false => vec![Line::styled("asking", DIM)],
    };
    let width = usize::from(inside.width).max(1);
    let rows: usize = lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    detail.scroll = detail.scroll.min(rows.saturating_sub(usize::from(inside.height)));
    let scroll = u16::try_from(detail.scroll).unwrap_or(u16::MAX);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0)).block(block);
    frame.render_widget(text, area);
}

/// A line of what is known of a task. Calls of the runtime, which have a dot, are there if the whole stack is wanted; files
/// stand behind the functions where there is no room for a column of them.
fn shown_line(line: &str, is_whole: bool, width: u16) -> Option<Line<'_>> {
    let number = line.trim_start();
    let rest = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_call = line.starts_with("  ") && rest.len() < number.len();
    let is_folded = is_call && rest.starts_with(" . ");
    if is_folded && !is_whole {
        return None;
    }
    if !is_call {
        let heading = "the whole stack, innermost first";
        return Some(match line.trim_start().strip_prefix(heading) {
            Some(_) if !is_whole => Line::raw(format!("  {heading}, without the runtime's calls; . shows them:")),
            _ => Line::raw(line),
        });
    }
    let style = if is_folded { DIM } else { Style::new() };
    if width_of(line) <= usize::from(width) {
        return Some(Line::styled(line, style));
    }
    let (call, file) = line.rsplit_once("  ").unwrap_or((line, ""));
    let call = call.trim_end();
    // The last folder and the file, if the whole path makes it too long.
    let fits = |file: &str| width_of(call) + 2 + width_of(file) <= usize::from(width);
    let file = match file.rmatch_indices('/').nth(1) {
        Some((at, _)) if !fits(file) => &file[at + 1..],
        _ => file,
    };
    Some(Line::styled(format!("{call}  {file}"), style))
}

fn draw_keys(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let text = match (&app.gone, app.typing) {
        (Some(why), _) => format!(" {why}; what was last seen is above. q leaves"),
        (None, true) => format!(" show only: {}_   Enter keeps it, Esc drops it", app.filter),
        (None, false) if app.detail.is_some() => {
            " Esc closes  PgUp PgDn scroll  . whole stack  up down other task  q leave".to_owned()
        }
        (None, false) => " q leave  ? help  c r w a i sort  Enter stack  / filter  space hold".to_owned(),
    };
    frame.render_widget(Paragraph::new(cut(&text, area.width.into())).style(BAR_OF_TITLE), area);
}

fn draw_help(frame: &mut Frame<'_>, area: Rect) {
    let width = HELP.lines().map(str::len).max().unwrap_or(0) as u16 + 4;
    let height = HELP.lines().count() as u16 + 2;
    let (width, height) = (width.min(area.width), height.min(area.height));
    let at = Rect::new((area.width - width) / 2, (area.height - height) / 2, width, height);
    frame.render_widget(Clear, at);
    let lines = HELP.lines().map(|line| Line::raw(format!(" {line}")));
    frame.render_widget(
        Paragraph::new(Text::from_iter(lines)).block(Block::bordered().title(" any key goes back ")),
        at,
    );
}

/// The beginning of `text` that takes at most so many columns.
fn cut(text: &str, columns: usize) -> String {
    let mut left = columns;
    let fits = |c: &char| {
        let takes = width_of(c.encode_utf8(&mut [0; 4]));
        let fits = takes <= left;
        left = left.saturating_sub(takes);
        fits
    };
    text.chars().take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    use super::super::app::tests::look;
    use super::super::feed::News;
    use super::*;

    const TASKS: &[(u64, &str, &str)] = &[
        (
            1,
            "main",
            r#""state":"Parked","run_time":{"secs":0,"nanos":40000},"started":{"secs":60,"nanos":0},"wait":{"text":"event_loop"}"#,
        ),
        (
            2,
            "hog",
            r#""state":{"Running":{"worker":0}},"run_time":{"secs":9,"nanos":0},"started":{"secs":70,"nanos":0},"worker":0,"slices":7"#,
        ),
        (
            3,
            "db writer with a name that is too long for it",
            r#""state":"Runnable","run_time":{"secs":2,"nanos":0},"wait":null"#,
        ),
    ];

    fn screen(app: &mut App, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a terminal");
        terminal.draw(|frame| draw(app, frame)).expect("drawn");
        let text = terminal.backend().to_string();
        text.lines().map(|line| line.trim_matches('"').trim_end().to_owned()).collect()
    }

    fn app() -> App {
        let mut app = App::new("demo[1]".into(), "demo pid 1, coro 0.1.0, 2 workers; help lists the commands");
        app.hear(look(TASKS));
        app
    }

    fn press(app: &mut App, code: KeyCode) {
        let _ = app.key(KeyEvent::new(code, KeyModifiers::NONE));
    }

    #[test]
    fn eighty_columns_have_everything_that_matters() {
        let expected = " demo[1]  coro 0.1.0, 2 workers                                          by CPU
3 tasks: 1 running, 1 runnable, 0 unstarted, 1 parked; took 2ms
worker 0   [||||||||||] 100%   5 runnable of 40 runs #2 for 3.2s hog
worker 1   [|||       ]  25%   0 runnable of 38 asleep
  ID STATE     CPU%   TIME    FOR    AGE NAME                WAITS FOR
   2 running      -   9.0s   2.0s  70.0s hog
   3 runnable     -   2.0s   3.0s      - db writer with a n…
   1 parked       -   40us   1.0s  60.0s main                event_loop";
        assert_eq!(screen(&mut app(), 80, 24)[..8].join("\n"), expected);
    }

    #[test]
    fn a_wide_screen_has_more_columns_and_longer_names() {
        let lines = screen(&mut app(), 200, 24);
        assert!(lines[4].contains("SLICES LONGEST WORKER NAME"), "{lines:#?}");
        assert!(lines[6].ends_with("db writer with a name that is too long for it"), "{lines:#?}");
    }

    #[test]
    fn a_narrow_screen_has_what_matters_most() {
        let mut app = app();
        press(&mut app, KeyCode::Char('w'));
        let expected = " demo[1]  coro 0.1.0, 2 workers by wait
3 tasks: 1 running, 1 runnable, 1 parked
worker 0  100% runs #2 for 3.2s hog
worker 1   25% asleep
  ID STATE        FOR NAME        WAITS
   3 runnable    3.0s db writer …
   1 parked      1.0s main        event…
   2 running     2.0s hog";
        assert_eq!(screen(&mut app, 40, 10)[..8].join("\n"), expected);
    }

    #[test]
    fn wide_characters_take_their_columns() {
        let task = |name: &'static str| (5, name, r#""state":"Parked","wait":{"text":"lock"}"#);
        for (name, shown) in [
            ("データベース接続プールの書き込み", "データベース接続プ… lock"),
            ("🚀🚀 launch", "🚀🚀 launch lock"),
            ("👨\\u200d👩", "👨\\u{200d}👩 lock"),
        ] {
            let mut app = App::new("日本[1]".into(), "");
            app.hear(look(&[task(name)]));
            let lines = screen(&mut app, 80, 24);
            // A wide character hides the cell behind it.
            let text = lines[5].split("\" Hidden").next().unwrap_or_default().replace(' ', "");
            assert!(text.ends_with(&shown.replace(' ', "")), "{name}: {lines:#?}");
        }
        assert_eq!(
            (short("日本語", 5), short("日本語", 6), short("日本語", 4)),
            ("日本…".into(), "日本語".into(), "日…".into())
        );
    }

    #[test]
    fn calls_of_the_runtime_are_shown_when_they_are_wanted() {
        let lines = [
            "#2 parked 3.2s \"x\" sleep",
            "  the whole stack, innermost first; what the line above leaves out has a dot:",
            "   0 . coro::scheduler::suspend::Here::park                          /home/me/coro/src/scheduler/suspend.rs:141",
            "   1   app::db::fetch                                                /home/me/app/src/db.rs:31",
        ];
        let mut app = app();
        press(&mut app, KeyCode::Enter);
        app.hear(News::Task { id: 2, lines: lines.map(str::to_owned).to_vec() });
        let few = screen(&mut app, 80, 24).join("\n");
        assert!(few.contains("\n   1   app::db::fetch  /home/me/app/src/db.rs:31\n"), "{few}");
        assert!(!few.contains("suspend") && few.contains("without the runtime's calls; . shows them"), "{few}");
        press(&mut app, KeyCode::Char('.'));
        let all = screen(&mut app, 80, 24).join("\n");
        assert!(all.contains("\n   0 . coro::scheduler::suspend::Here::park  scheduler/suspend.rs:141\n"), "{all}");
    }

    #[test]
    fn no_size_is_too_small_or_too_large() {
        let mut app = app();
        press(&mut app, KeyCode::Enter);
        app.hear(News::Task { id: 2, lines: vec!["x".repeat(500); 40] });
        app.helping = true;
        for (width, height) in [(1, 1), (40, 8), (41, 9), (80, 10), (300, 100)] {
            let lines = screen(&mut app, width, height);
            assert_eq!(lines.len(), usize::from(height));
        }
        assert_eq!(screen(&mut app, 39, 8)[0], "39 by 8 is too small");
    }

    #[test]
    fn the_stack_of_the_chosen_task_is_shown_and_scrolled() {
        let mut app = app();
        press(&mut app, KeyCode::Enter);
        assert!(screen(&mut app, 80, 24).join("\n").contains("asking"));
        app.hear(News::Task { id: 2, lines: (0..40).map(|n| format!("frame {n}")).collect() });
        let lines = screen(&mut app, 80, 24);
        assert!(
            lines.iter().any(|line| line.starts_with(" #2 ──")) && lines.contains(&"frame 0".to_owned()),
            "{lines:#?}"
        );
        for _ in 0..20 {
            press(&mut app, KeyCode::PageDown);
        }
        let lines = screen(&mut app, 80, 24);
        assert!(lines[22] == "frame 39" && !lines.contains(&"frame 0".to_owned()), "{lines:#?}");
        // Another task's lines are not shown as this one's.
        press(&mut app, KeyCode::Down);
        assert!(screen(&mut app, 80, 24).join("\n").contains("asking"));
    }

    #[test]
    fn many_tasks_are_a_page_at_a_time() {
        let tasks: Vec<(u64, &str, &str)> = (1..=100).map(|id| (id, "t", r#""state":"Parked""#)).collect();
        let mut app = App::new("demo[1]".into(), "");
        app.hear(look(&tasks));
        let shown = |app: &mut App| {
            let lines = screen(app, 80, 24);
            let ids: Vec<u64> =
                lines[5..23].iter().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
            (ids[0], ids[ids.len() - 1])
        };
        assert_eq!(shown(&mut app), (1, 18));
        press(&mut app, KeyCode::PageDown);
        assert_eq!(shown(&mut app), (2, 19));
        press(&mut app, KeyCode::End);
        assert_eq!(shown(&mut app), (83, 100));
        press(&mut app, KeyCode::Home);
        assert_eq!(shown(&mut app), (1, 18));
    }

    #[test]
    fn what_is_wrong_is_said_on_the_screen() {
        let mut app = app();
        app.hear(News::Gone("the server closed the session".into()));
        let lines = screen(&mut app, 80, 24);
        assert!(lines[0].ends_with("GONE") && lines[23].contains("the server closed the session"), "{lines:#?}");
        app.hear(News::Text { why: "this program was built without JSON".into(), lines: vec!["tasks 3".into()] });
        let lines = screen(&mut app, 80, 24);
        assert!(lines.iter().any(|line| line.starts_with("this program was built without JSON. ")), "{lines:#?}");
        assert!(lines.contains(&"tasks 3".to_owned()), "{lines:#?}");
    }
}

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

/// Less than this cannot be drawn into.
const LEAST: (u16, u16) = (40, 8);

/// Columns of a worker's bar.
const BAR: usize = 10;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const BAR_OF_TITLE: Style = Style::new().add_modifier(Modifier::REVERSED);

const HELP: &str = "c r w a i   sort by CPU, run time, wait, age, id
up down     choose a task; also j k, PgUp PgDn, Home End
Enter       its whole stack; PgUp PgDn scroll in it
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
        frame.render_widget(counts(app, look), numbers);
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
    let line = format!("{:room$} {right}", cut(&left, room));
    frame.render_widget(Paragraph::new(line).style(BAR_OF_TITLE), area);
}

fn counts(app: &App, look: &Look) -> Line<'static> {
    let mut text = format!("{} tasks:", look.tasks.len());
    for (n, state) in State::ALL.into_iter().enumerate() {
        let count = look.tasks.iter().filter(|task| task.state == state).count();
        text += &format!("{} {count} {}", if n == 0 { "" } else { "," }, state.word());
    }
    text += &format!("; took {}", span(look.took));
    if !app.filter.is_empty() && !app.typing {
        text += &format!("; {} with \"{}\"", app.rows.len(), app.filter);
    }
    Line::raw(text)
}

fn draw_workers(look: &Look, frame: &mut Frame<'_>, area: Rect) {
    let rows = usize::from(area.height);
    let shown = if look.workers.len() > rows { rows.saturating_sub(1) } else { rows };
    let mut lines: Vec<Line<'_>> = look.workers.iter().take(shown).map(|worker| worker_line(look, worker)).collect();
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

fn worker_line<'a>(look: &'a Look, worker: &'a Worker) -> Line<'a> {
    let full = (worker.load * BAR as f64).round() as usize;
    let bar = format!("{}{}", "|".repeat(full), " ".repeat(BAR.saturating_sub(full)));
    let colour = if worker.load > 0.9 { Style::new().fg(Color::Red) } else { Style::new().fg(Color::Green) };
    let mut line = Line::from(vec![
        Span::raw(format!("worker {:<3} [", worker.place)),
        Span::styled(bar, colour),
        Span::raw(format!("]{:>4.0}% {:>3} runnable of {} ", worker.load * 100.0, worker.runnable, worker.live)),
    ]);
    match worker.slice_age {
        Some(lasts) if worker.current != 0 => {
            let name = look.tasks.iter().find(|task| task.id == worker.current).map(shown_name).unwrap_or_default();
            let style = if lasts.as_secs() > 0 { BOLD.fg(Color::Red) } else { Style::new() };
            line.push_span(Span::styled(format!("runs #{} for {} {name}", worker.current, span(lasts)), style));
        }
        _ if worker.asleep => line.push_span(Span::styled("asleep", DIM)),
        _ => {}
    }
    line
}

/// A name as it is; the class of one without in brackets, without the path of its file.
fn shown_name(task: &Task) -> String {
    match task.is_named {
        true => task.name.clone(),
        false => format!("({})", task.name.rsplit('/').next().unwrap_or_default()),
    }
}

fn draw_list(app: &mut App, frame: &mut Frame<'_>, area: Rect) {
    let Some(look) = &app.look else { return };
    // One line is the header.
    app.page = usize::from(area.height).saturating_sub(1).max(1);
    app.first = app.first.clamp((app.at + 1).saturating_sub(app.page), app.at);
    app.first = app.first.min(app.rows.len().saturating_sub(app.page));
    let is_wide = area.width >= WIDE;
    let widest = look.tasks.iter().map(|task| task.id).max().unwrap_or(0).max(1000).ilog10() + 1;
    let mark = |order: Order, text: &str| {
        let style = if order == app.order { BOLD.add_modifier(Modifier::UNDERLINED) } else { BOLD };
        Cell::from(Line::styled(text.to_owned(), style).right_aligned())
    };
    let left = |text: &str| Cell::from(Line::styled(text.to_owned(), BOLD));
    let mut header =
        vec![mark(Order::Id, "ID"), left("STATE"), mark(Order::Share, "CPU%"), mark(Order::RunTime, "TIME")];
    header.extend([mark(Order::Wait, "FOR"), mark(Order::Age, "AGE")]);
    let mut widths: Vec<Constraint> = [widest as u16, 9, 4, 6, 6, 6].map(Constraint::Length).to_vec();
    if is_wide {
        header.extend(["SLICES", "LONGEST", "WORKER"].map(|text| Cell::from(Line::styled(text, BOLD).right_aligned())));
        widths.extend([9, 7, 6].map(Constraint::Length));
    }
    header.extend([left("NAME"), left("WAITS FOR")]);
    widths.extend([Constraint::Fill(2), Constraint::Fill(3)]);
    let seen = app.rows.iter().enumerate().skip(app.first).take(app.page);
    let rows = seen.map(|(place, row)| {
        let style = if place == app.at { Style::new().add_modifier(Modifier::REVERSED) } else { Style::new() };
        Row::new(cells(&look.tasks[*row], is_wide)).style(style)
    });
    frame.render_widget(Table::new(rows, widths).header(Row::new(header)).column_spacing(1), area);
}

fn cells(task: &Task, is_wide: bool) -> Vec<Cell<'static>> {
    let right = |text: String| Cell::from(Line::raw(text).right_aligned());
    let state = match task.state {
        State::Running => Style::new().fg(Color::Red),
        State::Runnable => Style::new().fg(Color::Yellow),
        State::Unstarted => DIM,
        State::Parked => Style::new(),
    };
    let share = match task.share {
        None => "-".to_owned(),
        Some(share) if share >= 0.9995 => "100".to_owned(),
        Some(share) => format!("{:.1}", share * 100.0),
    };
    let mut cells = vec![
        right(task.id.to_string()),
        Cell::from(Span::styled(task.state.word(), state)),
        right(share),
        right(span(task.run_time)),
        right(span(task.since)),
        right(task.age.map_or_else(|| "-".to_owned(), span)),
    ];
    if is_wide {
        let worker = task.worker.map_or_else(|| "-".to_owned(), |worker| worker.to_string());
        cells.extend([right(task.slices.to_string()), right(span(task.longest_slice)), right(worker)]);
    }
    let name = if task.is_named { Style::new().fg(Color::Green) } else { DIM };
    cells.extend([Cell::from(Span::styled(shown_name(task), name)), Cell::from(task.wait.clone())]);
    cells
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
        true => detail.lines.iter().map(|line| Line::raw(line.as_str())).collect(),
        false => vec![Line::styled("asking", DIM)],
    };
    let width = usize::from(inside.width).max(1);
    let rows: usize = lines.iter().map(|line| line.width().div_ceil(width).max(1)).sum();
    detail.scroll = detail.scroll.min(rows.saturating_sub(usize::from(inside.height)));
    let scroll = u16::try_from(detail.scroll).unwrap_or(u16::MAX);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false }).scroll((scroll, 0)).block(block);
    frame.render_widget(text, area);
}

fn draw_keys(app: &App, frame: &mut Frame<'_>, area: Rect) {
    let text = match (&app.gone, app.typing) {
        (Some(why), _) => format!(" {why}; what was last seen is above. q leaves"),
        (None, true) => format!(" show only: {}_   Enter keeps it, Esc drops it", app.filter),
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

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns).collect()
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
  ID STATE     CPU%   TIME    FOR    AGE NAME            WAITS FOR
   2 running      -   9.0s   2.0s  70.0s hog
   3 runnable     -   2.0s   3.0s      - db writer with
   1 parked       -   40us   1.0s  60.0s main            event_loop";
        assert_eq!(screen(&mut app(), 80, 24)[..8].join("\n"), expected);
    }

    #[test]
    fn a_wide_screen_has_more_columns_and_longer_names() {
        let lines = screen(&mut app(), 200, 24);
        assert!(lines[4].contains("SLICES LONGEST WORKER NAME"), "{lines:#?}");
        assert!(lines[6].ends_with("db writer with a name that is too long for it"), "{lines:#?}");
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

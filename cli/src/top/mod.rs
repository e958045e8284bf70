//! `coro top`: the tasks and workers of a program, live.
//!
//! `feed` asks on a thread of its own, `model` makes tasks of what comes, `app` is what is looked at and what keys do,
//! `draw` puts that on the screen. Here the two ends meet: events of the terminal and news of the program.

#![forbid(unsafe_code)]

mod app;
mod draw;
mod feed;
mod model;
mod once;

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use rustix::event::{PollFd, PollFlags, Timespec};
use signal_hook::consts::{SIGHUP, SIGTERM};

use crate::target::Target;
use crate::{Failure, Outcome, ask};
use app::{App, Then};
use feed::Feed;

pub(crate) const USAGE: &str = "usage: coro top PID|PATH [--once|--json]
The tasks of a program, live: what each does, what it waits for, how much it runs; and its workers.
  --once       what there is to see, as text to standard output, after a second
  --json       the same as JSON, one object a line: head, status, and a task with its share for each
  c r w a i    sort by CPU (share of the last second), run time, wait, age, id
  up down      choose a task (also j k, PgUp PgDn, Home End)
  Enter        all that is known of it and its stack; PgUp PgDn then scroll in it. Esc closes
  .            the whole stack, with the calls of the runtime
  /            show only tasks whose name, state or wait contains a text
  space        hold still, and go on
  ?  q         help; leave
It asks once a second, less often if that keeps the program busy for more than a fifth of it. Of more than 3000 tasks
the first 500 are shown, in the order that was asked for; by CPU those that ran.
Exit codes: 0 ended by you, 1 not reached or no terminal, 2 called wrongly.";

/// How long the terminal is waited for before news of the program are looked for.
const TICK: Duration = Duration::from_millis(50);
/// How often somebody looks whether the terminal is still there.
const LOOKS: Duration = Duration::from_millis(500);

pub(crate) fn run(mut arguments: lexopt::Parser) -> Outcome {
    use lexopt::prelude::{Long, Value};
    let (mut named, mut once, mut json) = (None, false, false);
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("once") => once = true,
            Long("json") => json = true,
            Value(word) if named.is_none() => named = Some(Target::of(&word).map_err(Failure::Usage)?),
            other => return Err(other.unexpected().into()),
        }
    }
    let target = named.ok_or_else(ask::which)?;
    if once || json {
        return once::run(ask::open(&target)?, json);
    }
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(Failure::Failed(
            "this needs a terminal; without one there are: coro top PID|PATH --once, and --json for programs".into(),
        ));
    }
    let failed = |error: io::Error| Failure::Failed(format!("the terminal failed ({error})"));
    // Before the screen is taken: why there is nothing to see belongs on the screen from before.
    let session = ask::open(&target)?;
    let app = App::new(session.program(), &session.banner);
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, ended.clone()).map_err(failed)?;
    }
    let feed = Feed::start(session).map_err(failed)?;
    std::thread::Builder::new()
        .name("terminal".into())
        .spawn({
            let ended = ended.clone();
            move || end_without_terminal(&ended)
        })
        .map_err(failed)?;
    let mut terminal = ratatui::try_init().map_err(failed)?;
    let outcome = watch(&mut terminal, app, &feed, &ended);
    ratatui::restore();
    outcome.map_err(failed)
}

/// Ends the process when its terminal has gone, or it was told to end and does not. crossterm goes on reading from a terminal
/// whose other end is closed, at full speed and for ever, so that the loop below never hears of it.
fn end_without_terminal(ended: &AtomicBool) -> ! {
    loop {
        std::thread::sleep(LOOKS);
        let stdin = io::stdin();
        let mut watched = [PollFd::new(&stdin, PollFlags::empty())];
        let asked = rustix::event::poll(&mut watched, Some(&Timespec::default())).is_ok();
        let gone = asked && watched[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL);
        if gone || ended.load(Ordering::Relaxed) {
            // Time to leave in the usual way.
            std::thread::sleep(LOOKS);
            ratatui::restore();
            std::process::exit(1);
        }
    }
}

fn watch(terminal: &mut ratatui::DefaultTerminal, mut app: App, feed: &Feed, ended: &AtomicBool) -> io::Result<()> {
    let mut is_stale = true;
    while !ended.load(Ordering::Relaxed) {
        for news in feed.news() {
            app.hear(news);
            is_stale = true;
        }
        if std::mem::take(&mut is_stale) {
            terminal.draw(|frame| draw::draw(&mut app, frame))?;
        }
        if !event::poll(TICK)? {
            continue;
        }
        is_stale = true;
        match event::read()? {
            Event::Key(key) if key.kind != KeyEventKind::Release => match app.key(key) {
                Then::Leave => break,
                Then::GoOn => {}
            },
            _ => {}
        }
        feed.look_at(app.looked_at());
        if !app.typing {
            feed.show(app.order, &app.filter);
        }
        feed.pause(app.is_paused());
    }
    Ok(())
}

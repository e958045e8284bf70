//! `coro::tracing` with what people have: spans on functions, layers, lines of text.
#![cfg(not(miri))]

#[path = "../../util/mod.rs"]
mod util;

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use coro::report::set_report_handler;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::prelude::*;
use util::{until, within};

const LIMIT: Duration = Duration::from_secs(30);

/// What the subscriber has written. It is the process's: whoever looks names what only he writes.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no poison").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn with(&self, word: &str) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().expect("no poison").clone()).expect("text");
        text.lines().filter(|line| line.contains(word)).map(masked).collect()
    }
}

/// Without ids and times.
fn masked(line: &str) -> String {
    let mut out = String::new();
    for (n, part) in line.split("id=").enumerate() {
        out.push_str(if n > 0 { "id=N" } else { "" });
        out.push_str(if n > 0 { part.trim_start_matches(|c: char| c.is_ascii_digit()) } else { part });
    }
    out.trim().to_owned()
}

/// One at a time has the process's runtime, and its report handler.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn lines() -> &'static Lines {
    static LINES: OnceLock<Lines> = OnceLock::new();
    LINES.get_or_init(|| {
        let lines = Lines::default();
        let to = lines.clone();
        let text = tracing_subscriber::fmt::layer().with_ansi(false).with_timer(()).with_target(false);
        let text = text.with_span_events(FmtSpan::CLOSE).with_writer(move || to.clone());
        tracing_subscriber::registry().with(coro::tracing::layer()).with(text).init();
        lines
    })
}

#[tracing::instrument]
fn outer(who: u32) {
    coro::thread::yield_now();
    inner(who + 1);
    tracing::info!("out of it {who}");
}

#[tracing::instrument(skip_all)]
fn inner(who: u32) {
    for _ in 0..3 {
        coro::sleep(Duration::from_millis(1));
        tracing::info!("within {who}");
    }
}

#[test]
fn spans_stay_with_their_task() {
    let (_turn, lines) = (turn(), lines());
    within(LIMIT, || {
        coro::runner().workers(1).run(|| {
            let task = |who: u32| coro::Builder::new().name(format!("walker {who}")).spawn(move || outer(who)).unwrap();
            let tasks: Vec<_> = [10, 20, 30].map(task).into_iter().collect();
            // Beside them, on the same worker.
            for _ in 0..10 {
                tracing::info!("beside the walkers");
                coro::thread::yield_now();
            }
            tasks.into_iter().for_each(|task| task.join().unwrap());
        });
    });
    for who in [10, 20, 30] {
        let head = format!("INFO task{{id=N name=\"walker {who}\"}}:outer{{who={who}}}:");
        assert_eq!(lines.with(&format!("within {}", who + 1)), vec![format!("{head}inner: within {}", who + 1); 3]);
        assert_eq!(lines.with(&format!("out of it {who}")), [format!("{head} out of it {who}")]);
    }
    assert_eq!(lines.with("beside the walkers"), vec!["INFO task{id=N name=\"main\"}: beside the walkers"; 10]);
}

#[test]
fn what_was_not_left_ends_with_its_task_and_panics_leave_in_order() {
    let (_turn, lines) = (turn(), lines());
    within(LIMIT, || {
        coro::runner().workers(1).run(|| {
            coro::spawn(|| std::mem::forget(tracing::info_span!("forgotten").entered())).join().unwrap();
            let failed = coro::spawn(|| {
                let _a = tracing::info_span!("first").entered();
                let caught = std::panic::catch_unwind(|| {
                    let _b = tracing::info_span!("second").entered();
                    coro::thread::yield_now();
                    panic!("leaves it");
                });
                assert!(caught.is_err());
                tracing::info!("after the panic");
                // Ended in another order than begun.
                let (c, d) = (tracing::info_span!("third").entered(), tracing::info_span!("fourth").entered());
                coro::thread::yield_now();
                drop(c);
                coro::thread::yield_now();
                tracing::info!("in the fourth");
                drop(d);
                tracing::info!("in the first again");
            });
            failed.join().unwrap();
            tracing::info!("none of them");
        });
    });
    assert_eq!(lines.with("after the panic"), ["INFO task{id=N}:first: after the panic"]);
    assert_eq!(lines.with("in the fourth"), ["INFO task{id=N}:first:third:fourth: in the fourth"]);
    assert_eq!(lines.with("in the first again"), ["INFO task{id=N}:first: in the first again"]);
    assert_eq!(lines.with("none of them"), ["INFO task{id=N name=\"main\"}: none of them"]);
}

#[test]
fn labels_are_fields_and_a_task_that_ends_closes_its_span() {
    let (_turn, lines) = (turn(), lines());
    within(LIMIT, || {
        coro::run(|| {
            coro::spawn(|| {
                coro::set_label("req", 4711);
                tracing::info!("labelled");
                coro::sleep(Duration::from_millis(50));
            })
            .join()
            .unwrap();
        });
    });
    assert_eq!(lines.with("labelled"), ["INFO task{id=N labels=\"req=4711\"}: labelled"]);
    // With the time that the task ran, not that in which it waited.
    until(LIMIT, "it is closed", || !lines.with("labels=\"req=4711\"}: close ").is_empty());
    let closed = &lines.with("labels=\"req=4711\"}: close ")[0];
    let (head, idle) = closed.split_once(" time.idle=").expect("times");
    assert!(head.contains(" time.busy="), "{closed}");
    let (number, unit) = idle.split_at(idle.find(|c: char| c.is_alphabetic()).expect("a unit"));
    let least = if unit == "ms" { 50.0 } else { 0.0 };
    assert!(matches!(unit, "ms" | "s") && number.parse::<f64>().expect("a number") >= least, "{closed}");
}

#[test]
fn stalls_and_panics_are_events() {
    let (_turn, lines) = (turn(), lines());
    set_report_handler(Some(coro::tracing::report_handler()));
    within(LIMIT, || {
        coro::run(|| {
            let panics = coro::Builder::new().name("breaks").spawn(|| panic!("of the bridge")).unwrap();
            assert!(panics.join().is_err());
            let stalls = coro::Builder::new().name("spins for the bridge").spawn(|| {
                coro::set_own_latency_warning(Duration::from_millis(20));
                let begun = std::time::Instant::now();
                while begun.elapsed() < Duration::from_millis(200) {}
            });
            stalls.unwrap().join().unwrap();
        });
    });
    until(LIMIT, "the panic is told", || !lines.with("panic \"of the bridge\"").is_empty());
    let told = &lines.with("panic \"of the bridge\"")[0];
    assert!(told.starts_with("ERROR task ") && told.contains("task.name=\"breaks\" location=\"tests/"), "{told}");
    let stalls = || lines.with("High Latency: (").into_iter().filter(|line| line.contains("spins for the bridge"));
    until(LIMIT, "the stall is told", || stalls().any(|line| line.contains("lasted_seconds=0.")));
    assert!(stalls().all(|line| line.starts_with("WARN High Latency: (")));
}

//! Breakpoints: who stops, who is told, and how each goes on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::console::Value;
use coro::probe::{Event, Events, Instrument, attach_to, break_at};

use super::util::{runtime, until, within};
use super::{LIMIT, alone, app};

#[test]
fn a_task_stands_at_a_breakpoint_and_goes_on_as_it_is_told() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let charge = |account: &'static str, cents| coro::spawn(move || app::charge(account, cents));
            let breakpoint = break_at("app::charge").condition("cents > 100").start().unwrap();
            // Not that one.
            assert_eq!(charge("ada", 100).join().unwrap().unwrap(), 100);
            let task = charge("ada", 250);
            let hit = breakpoint.wait(LIMIT).unwrap();
            // Only the task waits, on the only worker; where it is can be seen.
            assert_eq!((hit.task(), hit.kind(), hit.value("cents")), (task.id(), Events::CALL, Some(Value::of(250))));
            assert_eq!(hit.text(), "probe::app::charge(account=\"ada\", cents=250) begins");
            let view = hit.stack().expect("it is there");
            let wait = "breakpoint \"probe::app::charge(account=\\\"ada\\\", cents=250) begins\" for at most ";
            assert!(view.wait.starts_with(wait), "{}", view.wait);
            assert!(view.to_string().contains("app::charge") || view.to_string().contains("charge|"), "{view}");
            hit.release();
            assert_eq!(task.join().unwrap().unwrap(), 250);
            // With another result, which the function does not come to; with an error; with what cannot be.
            let watch = attach_to("app::breakpoint").count().start().unwrap();
            let task = charge("ada", 251);
            breakpoint.wait(LIMIT).unwrap().returning("7");
            assert_eq!(task.join().unwrap().unwrap(), 7);
            let task = charge("ada", 252);
            breakpoint.wait(LIMIT).unwrap().fail("the bank is closed");
            assert_eq!(task.join().unwrap().unwrap_err().to_string(), "the bank is closed");
            assert_eq!(watch.hits().0, 0, "its body did not run");
            let task = charge("ada", 253);
            breakpoint.wait(LIMIT).unwrap().returning("seven");
            assert_eq!(task.join().unwrap().unwrap(), 253);
            assert_eq!(watch.hits().0, 1);
            // Whoever stands there when it is dropped goes on; so does a cancelled one.
            let tasks = [charge("bob", 300), charge("eve", 301)];
            let hits = [breakpoint.wait(LIMIT).unwrap(), breakpoint.wait(LIMIT).unwrap()];
            tasks[1].cancel();
            until(LIMIT, "it unwinds", || tasks[1].is_finished());
            assert_eq!(breakpoint.hits(), 6);
            drop(breakpoint);
            let [bob, eve] = tasks;
            assert_eq!(bob.join().unwrap().unwrap(), 300);
            assert!(eve.join().is_err());
            drop(hits);
        });
    });
}

#[test]
fn breakpoints_at_the_end_at_a_mark_and_for_a_while() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            // What it returns can still be changed when it is known.
            let at_end = break_at("app::charge").at(Events::RETURN).condition("failed").times(1).start().unwrap();
            let task = coro::spawn(|| app::charge("", 5));
            let hit = at_end.wait(LIMIT).unwrap();
            assert!(
                hit.text().starts_with("probe::app::charge(account=\"\", cents=5) ~ Err(Custom {"),
                "{}",
                hit.text()
            );
            hit.returning("Ok(5)");
            assert_eq!(task.join().unwrap().unwrap(), 5);
            // Once was enough.
            assert!(app::charge("", 5).is_err());
            assert!(at_end.wait(Duration::from_millis(1)).unwrap_err().to_string().contains("its 1 hits are used up"));
            // A place in the code; the first two who come by are let through.
            let at_mark = break_at("app::breakpoint").after(2).start().unwrap();
            for _ in 0..2 {
                app::charge("ada", 1).unwrap();
            }
            let task = coro::spawn(|| app::charge("eve", 1));
            let hit = at_mark.wait(LIMIT).unwrap();
            assert_eq!(hit.value("account"), Some(Value::of("eve")));
            drop(hit);
            task.join().unwrap().unwrap();
            drop(at_mark);
            // Nobody releases it: it goes on by itself, and is not there any more for whoever looks later.
            let short = break_at("app::charge").timeout(Duration::from_millis(20)).start().unwrap();
            let begun = Instant::now();
            app::charge("ada", 1).unwrap();
            assert!(begun.elapsed() >= Duration::from_millis(20));
            assert!(short.wait(Duration::ZERO).is_err() && short.hits() == 1);
            drop(short);
            // A plain thread stops as well, and who must not wait does not, nor does it take the place of one who does.
            let once = break_at("app::charge").times(1).start().unwrap();
            coro::no_switch(|| app::charge("ada", 1)).unwrap();
            let thread = std::thread::spawn(|| app::charge("thread", 1));
            let hit = once.wait(LIMIT).unwrap();
            assert_eq!((hit.task(), hit.value("account"), once.hits()), (0, Some(Value::of("thread")), 1));
            drop(hit);
            thread.join().unwrap().unwrap();
        });
    });
    let never = std::panic::catch_unwind(|| drop(break_at("app::charge").start().unwrap()));
    let text = never.unwrap_err();
    let text = text.downcast_ref::<String>().expect("text");
    assert!(text.ends_with("on app::charge: nobody ever came by this breakpoint"), "{text}");
    drop(break_at("app::charge").optional().start().unwrap());
}

#[test]
fn a_task_stops_at_each_of_two_breakpoints_at_one_place() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let [first, second] = [(); 2].map(|()| break_at("app::charge").start().unwrap());
            let task = coro::spawn(|| app::charge("ada", 1));
            first.wait(LIMIT).unwrap().returning("7");
            second.wait(LIMIT).unwrap().returning("8");
            assert_eq!(task.join().unwrap().unwrap(), 8);
            let task = coro::spawn(|| app::charge("ada", 1));
            first.wait(LIMIT).unwrap().returning("7");
            second.wait(LIMIT).unwrap().release();
            assert_eq!(task.join().unwrap().unwrap(), 7);
        });
    });
}

#[test]
fn nobody_stands_where_nobody_can_release_it() {
    static STAGE: AtomicU64 = AtomicU64::new(0);
    struct Held;
    impl Instrument for Held {
        fn observe(&self, _: &Event<'_>) {
            STAGE.store(1, Ordering::SeqCst);
            until(LIMIT, "the breakpoint has gone", || STAGE.load(Ordering::SeqCst) == 2);
        }
    }
    let _alone = alone();
    // The last hit is asked for, the breakpoint goes, and only then somebody comes to stand there.
    let once = break_at("app::charge").times(1).timeout(LIMIT * 2).start().unwrap();
    let _held = attach_to("app::charge").instrument(Held).start().unwrap();
    let thread = std::thread::spawn(|| app::charge("ada", 1));
    until(LIMIT, "it has asked", || STAGE.load(Ordering::SeqCst) == 1);
    assert_eq!(once.hits(), 1);
    drop(once);
    STAGE.store(2, Ordering::SeqCst);
    within(LIMIT, || assert_eq!(thread.join().unwrap().unwrap(), 1));
}

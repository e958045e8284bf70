//! Tracebacks: the caller's stack, errors and caught panics with all of it, and others' backtraces inside a task.

#![cfg(target_os = "linux")]

mod util;

use std::error::Error;
use std::time::Duration;

use coro::tb::{self, Captured, Traced, TracedError};
use util::{again, finish, role, runtime};

const LIMIT: Duration = Duration::from_secs(20);

#[inline(never)]
fn inner<T>(f: impl FnOnce() -> T) -> T {
    let value = f();
    std::hint::black_box(());
    value
}

/// Runs `f` in a task of its own runtime.
fn on<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    runtime(1).block_on(f)
}

#[test]
fn the_callers_own_stack_begins_with_the_caller_and_ends_at_the_tasks_base() {
    let (text, frames) = on(|| (inner(tb::stack_string), inner(tb::stack)));
    let names: Vec<&str> = text.split("] [").collect();
    assert!(names[0].contains("tests/tb.rs inner|"), "{text}");
    assert!(names[1].contains("::{closure}|"), "{text}");
    assert_eq!(names.len(), 2, "{text}");
    assert!(!text.contains("src/tb") && !text.contains("task/") && !text.contains("0x"), "{text}");
    assert!(frames[0].function.ends_with("inner"), "{frames:?}");
    assert!(frames.iter().all(|f| f.file.as_deref().is_some_and(|f| f.ends_with("tests/tb.rs"))), "{frames:?}");
    // On a plain thread too.
    let text = inner(tb::stack_string);
    assert!(text.contains("inner|") && !text.contains("0xfff"), "{text}");
}

#[test]
fn what_was_captured_reads_the_same_later_and_elsewhere() {
    let (kept, first) = on(|| {
        coro::spawn_named("keeps", || {
            let kept = inner(Captured::here);
            let first = format!("{kept} {}", kept.spawned_at().unwrap());
            (kept, first)
        })
        .join()
        .unwrap()
    });
    // Its task and runtime have ended.
    assert_eq!(format!("{kept} {}", kept.spawned_at().unwrap()), first);
    assert!(first.contains("inner|") && kept.task_name() == Some("keeps") && kept.task() > 0, "{first}");
    let long = format!("{kept:#}");
    assert!(long.contains(&format!("  spawned by #{}, which has ended, at tests/tb.rs:", kept.parent())), "{long}");
    assert_eq!(kept.lineage(), [kept.parent()]);
}

#[inline(never)]
fn fetch() -> Result<u32, TracedError> {
    "seven".parse::<u32>().traced()
}

#[inline(never)]
fn serve() -> Result<u32, Box<dyn Error + Send + Sync>> {
    let n = fetch().traced()?;
    Ok(n + 1)
}

/// Numbers and the directory replaced.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let mut digits = false;
    for c in text.replace(&format!("{}/", env!("CARGO_MANIFEST_DIR")), "").chars() {
        if !(digits && c.is_ascii_digit()) {
            out.push(if c.is_ascii_digit() { 'N' } else { c });
        }
        digits = c.is_ascii_digit();
    }
    out
}

#[test]
fn an_error_has_its_stack_from_where_it_arose_through_where_it_was_caught_to_who_spawned_the_task() {
    let error = on(|| coro::spawn_named("req", || inner(serve).unwrap_err()).join().unwrap());
    assert_eq!(error.to_string(), "invalid digit found in string");
    let traced = error.downcast_ref::<TracedError>().expect("traced");
    assert!(traced.get_ref().downcast_ref::<std::num::ParseIntError>().is_some());
    assert_eq!(traced.caught_at().count(), 1);
    let text = masked(&format!("{error:?}"));
    let wanted = "\
invalid digit found in string
  raised at tests/tb.rs:N in task #N \"req\"
    tb::fetch at tests/tb.rs:N
    tb::serve at tests/tb.rs:N  <- caught at tests/tb.rs:N
    tb::inner at tests/tb.rs:N
    tb::an_error_has_its_stack_from_where_it_arose_through_where_it_was_caught_to_who_spawned_the_task::{{closure}}::{{closure}} at tests/tb.rs:N
  spawned by #N, which has ended, at tests/tb.rs:N
";
    assert_eq!(text, wanted);
}

#[test]
fn an_error_that_is_handed_to_another_task_shows_both_stacks_and_no_call_twice() {
    let error = on(|| {
        let handed = coro::spawn_named("raises", || inner(fetch)).join().unwrap();
        handed.traced().unwrap_err()
    });
    let text = masked(&format!("{error:?}"));
    assert_eq!(text.matches("tb::fetch at").count(), 1, "{text}");
    let (raised, caught) =
        text.split_once("  caught at tests/tb.rs:N in task #N \"main\"\n").unwrap_or_else(|| panic!("{text}"));
    assert!(
        raised.contains("raised at tests/tb.rs:N in task #N \"raises\"\n") && raised.contains("tb::inner at"),
        "{text}"
    );
    assert!(caught.contains("{{closure}} at tests/tb.rs:N\n  spawned by a plain thread at"), "{text}");
}

#[derive(Debug)]
struct Outer(std::num::ParseIntError);

impl std::fmt::Display for Outer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the answer is unreadable")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

#[test]
fn a_traced_error_stands_in_for_the_one_it_has() {
    let outer = || "x".parse::<u32>().map_err(Outer);
    let error = outer().traced().unwrap_err();
    assert_eq!(error.to_string(), "the answer is unreadable");
    assert_eq!(error.source().unwrap().to_string(), "invalid digit found in string");
    assert!(format!("{error:?}").contains("\n  because invalid digit found in string\n"), "{error:?}");
    assert!(error.into_inner().downcast::<Outer>().is_ok());
    // Plain text and boxes too; caught over and over it does not grow without bound.
    let mut passed: Result<(), TracedError> = Err::<(), _>("plain words").traced();
    for _ in 0..100 {
        passed = passed.traced();
    }
    let error = passed.unwrap_err();
    assert!(error.caught_at().count() == 16 && error.to_string() == "plain words", "{error:?}");
    assert_eq!(Ok::<_, TracedError>(7).traced().unwrap(), 7);
}

#[inline(never)]
fn fails() {
    panic!("half-way");
}

#[inline(never)]
fn catches() -> String {
    std::panic::catch_unwind(|| inner(fails)).unwrap_err();
    tb::traceback_string()
}

#[test]
fn a_panic_that_was_caught_has_its_whole_stack() {
    if role().as_deref() != Some("caught") {
        let mut command = again("a_panic_that_was_caught_has_its_whole_stack", "caught");
        command.env_remove("RUST_BACKTRACE");
        let output = finish(command, LIMIT);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{err}");
        return;
    }
    on(|| {
        assert_eq!(tb::traceback_string(), "");
        let other = coro::spawn(|| {
            coro::yield_slice();
            drop(std::panic::catch_unwind(|| panic!("of another task")));
        });
        let text = masked(&inner(catches));
        other.join().unwrap();
        let (first, rest) = text.split_once(" at tests/tb.rs:N:N ").unwrap_or_else(|| panic!("{text}"));
        assert_eq!(first, "panic \"half-way\"");
        // Also the calls outside of the one that caught it.
        let frames: Vec<&str> = rest.split("] [").map(|f| f.trim_matches(['[', ']'])).collect();
        assert_eq!(&frames[..2], ["tests/tb.rs fails|N", "tests/tb.rs inner|N"], "{text}");
        assert!(
            frames.contains(&"tests/tb.rs catches|N") && frames.iter().filter(|f| f.contains("inner")).count() == 2,
            "{text}"
        );
        assert_eq!(tb::traceback().unwrap().message, "half-way");
        assert!(tb::traceback().unwrap().innermost().unwrap().function.ends_with("fails"));
    });
}

#[test]
fn backtraces_of_std_and_of_the_backtrace_crate_end_at_the_tasks_base() {
    let (stds, others) = on(|| {
        coro::spawn(|| {
            let stds = inner(|| std::backtrace::Backtrace::force_capture().to_string());
            let others = inner(backtrace::Backtrace::new);
            (stds, others)
        })
        .join()
        .unwrap()
    });
    let names: Vec<&str> = stds.lines().filter(|l| !l.trim_start().starts_with("at ")).collect();
    assert!(names.iter().any(|n| n.contains("tb::inner")), "{names:?}");
    assert!(names.last().unwrap().contains("__coro_task_base") && !stds.contains("<unknown>"), "{names:?}");
    // As at the end of a plain thread's, the unwinder may add a frame without an address, which is not shown.
    let last = others.frames().iter().rfind(|f| !f.ip().is_null()).unwrap().symbols();
    assert!(last.iter().any(|s| s.name().is_some_and(|n| n.to_string().contains("__coro_task_base"))), "{others:?}");
}

#[test]
fn errors_of_anyhow_have_clean_backtraces_and_can_be_traced() {
    if role().as_deref() != Some("anyhow") {
        let mut command = again("errors_of_anyhow_have_clean_backtraces_and_can_be_traced", "anyhow");
        command.env("RUST_LIB_BACKTRACE", "1");
        let output = finish(command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let (stack, traced) = on(|| {
        let fails = || inner(|| anyhow::Context::context("x".parse::<u32>(), "no number"));
        (fails().unwrap_err().backtrace().to_string(), fails().traced().unwrap_err())
    });
    let last = stack.lines().rfind(|l| !l.trim_start().starts_with("at ")).unwrap_or_default();
    assert!(stack.contains("tb::inner") && last.contains("__coro_task_base"), "{stack}");
    assert!(!stack.contains("<unknown>"), "{stack}");
    let text = format!("{traced:?}");
    assert!(text.starts_with("no number\n  because invalid digit found in string\n  raised at tests/tb.rs:"), "{text}");
}

#[test]
fn the_spawns_stack_is_kept_on_request() {
    if role().as_deref() != Some("spawn stacks") {
        let mut command = again("the_spawns_stack_is_kept_on_request", "spawn stacks");
        command.env("CORO_SPAWN_STACKS", "1");
        let output = finish(command, LIMIT);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        return;
    }
    let kept = on(|| inner(|| coro::spawn(Captured::here)).join().unwrap());
    let frames = kept.spawn_frames();
    assert!(frames.iter().any(|f| f.function.ends_with("tb::inner")), "{frames:?}");
    assert!(format!("{kept:#}").contains("tb::inner at"), "{kept:#}");
}

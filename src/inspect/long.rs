//! One task with all that is known of it, its whole stack in particular.
//!
//! ```text
//! #17 parked 3.2s "db writer" lock "db pool" src/db.rs:31 held by #4 for 3.1s [src/db.rs fetch|31] [src/main.rs serve|88]
//!   spawned at src/main.rs:40 by #1
//!   began 5.1s ago; 41 slices, 3ms in all, the longest 1ms; at most 40us from a wake-up to its slice; 3 KiB of stack in use
//!   the whole stack, innermost first; what the line above leaves out has a dot:
//!    0 . coro::scheduler::suspend::Here::park                   coro/src/scheduler/suspend.rs:141
//!    1   app::db::fetch::<u8, alloc::vec::Vec<u8>>              src/db.rs:31
//! ```
//!
//! Names are whole here: the generic arguments that other views leave out, and files with their folders.
//!
//! Must not know: how tasks are looked at, where the text goes.

#![forbid(unsafe_code)]

use std::fmt::Write as _;

use super::collect;
use super::condensed::push_escaped as push_visible;
use super::frames::{frames, stack_text};
use super::row::{Row, push_id};
use super::snapshot::{Frame, Stack, Task};
use super::text::{Style, push_age, push_escaped, push_number};

/// Functions are padded to that many characters, so that files stand in a column where they can.
const FUNCTIONS: usize = 60;
/// Calls that are written of each end of a deep stack.
const MOST_CALLS: usize = 100;

/// The answer to `where ID`, for the console; `None` if there is no such task.
pub(crate) fn one(id: u64) -> Option<String> {
    let (task, stack) = collect::one(id)?;
    let mut out = String::with_capacity(4096);
    write_task(&task, stack.as_ref(), &mut out);
    if let Some(stack) = &stack {
        write_calls(&stack.frames, stack.complete, &mut out);
        out.push_str(&frames().footer());
    }
    Some(out)
}

fn write_task(task: &Task, stack: Option<&Stack>, out: &mut String) {
    let row = Row {
        id: task.id,
        name: task.name.as_deref(),
        state: task.state,
        age: task.age,
        wait: task.wait.as_ref().map_or("", |wait| &wait.text),
        stack: stack.map_or("", |stack| &stack.condensed),
        spawned_at: task.spawned_at,
    };
    row.write(task.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())), Style::PLAIN, out);
    out.push_str("\n  spawned");
    if let Some(site) = task.spawned_at {
        out.push_str(" at ");
        push_escaped(site.file, out);
        out.push(':');
        push_number(site.line.into(), out);
    }
    out.push_str(" by ");
    match task.parent {
        0 => out.push_str("a plain thread"),
        parent => push_id(parent, out),
    }
    out.push('\n');
    if !task.spawn_stack.is_empty() {
        _ = writeln!(out, "  from {}", stack_text(&task.spawn_stack));
    }
    if task.spawned_at.is_none_or(|site| *task.class != *site.to_string()) {
        out.push_str("  class ");
        push_escaped(&task.class, out);
        out.push('\n');
    }
    let Some(began) = task.started else { return };
    out.push_str("  began ");
    push_age(began, out);
    out.push_str(" ago; ");
    push_number(task.slices, out);
    out.push_str(if task.slices == 1 { " slice, " } else { " slices, " });
    push_age(task.run_time, out);
    out.push_str(" in all, the longest ");
    push_age(task.longest_slice, out);
    out.push_str("; at most ");
    push_age(task.longest_delay, out);
    out.push_str(" from a wake-up to its slice");
    if task.stack_used > 0 {
        out.push_str("; ");
        push_number(task.stack_used.div_ceil(1024) as u64, out);
        out.push_str(" KiB of stack in use");
    }
    out.push('\n');
}

/// The calls of a stack, one a line.
fn write_calls(calls: &[Frame], complete: bool, out: &mut String) {
    out.push_str("  the whole stack, innermost first; what the line above leaves out has a dot:\n");
    let width = calls.len().saturating_sub(1).to_string().len().max(2);
    for (at, call) in calls.iter().enumerate() {
        if at >= MOST_CALLS && at + MOST_CALLS < calls.len() {
            if at == MOST_CALLS {
                _ = writeln!(out, "  {:>width$}   {} more calls", "...", calls.len() - 2 * MOST_CALLS);
            }
            continue;
        }
        _ = write!(out, "  {at:>width$} {} ", if call.folded { '.' } else { ' ' });
        let mut name = String::new();
        push_visible(&call.function, &mut name);
        if call.file.is_none() && call.module.is_none() {
            _ = writeln!(out, "{name}");
            continue;
        }
        _ = write!(out, "{name:FUNCTIONS$}  ");
        match (&call.file, &call.module) {
            (Some(file), _) => push_visible(file, out),
            (None, Some(module)) => {
                out.push_str("in ");
                push_visible(module, out);
            }
            (None, None) => {}
        }
        if let Some(line) = call.line {
            _ = write!(out, ":{line}");
        }
        out.push('\n');
    }
    if !complete {
        out.push_str("  ... and cannot be followed further\n");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::line::TaskState;
    use super::super::snapshot::{Site, Wait};
    use super::*;

    fn call(function: &str, file: Option<(&str, u32)>, folded: bool) -> Frame {
        Frame {
            address: 1,
            function: function.into(),
            module: Some("app".into()),
            file: file.map(|(file, _)| file.into()),
            line: file.map(|(_, line)| line).filter(|&line| line > 0),
            folded,
        }
    }

    #[test]
    fn one_task_in_full() {
        let task = Task {
            id: 17,
            name: Some("db writer".into()),
            class: "writers".into(),
            labels: vec![("req".into(), "9".into())],
            state: TaskState::Parked,
            age: Duration::from_millis(3200),
            runtime: 0,
            worker: Some(1),
            parent: 1,
            spawned_at: Some(Site { file: "app/src/main.rs", line: 40 }),
            spawn_stack: Vec::new(),
            wait: Some(Wait {
                kind: "read",
                text: "read fd 9".into(),
                object: None,
                fd: Some(9),
                peer: None,
                left: None,
                timeout_left: None,
            }),
            slices: 41,
            run_time: Duration::from_millis(3),
            started: Some(Duration::from_millis(5100)),
            longest_slice: Duration::from_millis(1),
            longest_delay: Duration::from_micros(40),
            stack_used: 2100,
            stack: Some(0),
        };
        let frames = vec![
            call("coro::context::switch", Some(("coro/src/context.rs", 116)), true),
            call("<app::Conn<app::Tls> as app::Fetch<u8>>::fetch::<[u8; 4]>", Some(("app/src/db.rs", 31)), false),
            call("app::evil\u{1b}[2J\n", Some(("app/src/db.rs", 0)), false),
            call("app+0x1f", None, true),
        ];
        let condensed = "[src/db.rs Conn::fetch|31]".into();
        let stack = Stack { frames, complete: false, condensed, count: 1 };
        let mut out = String::new();
        write_task(&task, Some(&stack), &mut out);
        write_calls(&stack.frames, stack.complete, &mut out);
        let expected = r#"#17 parked 3.2s "db writer" req=9 read fd 9 [src/db.rs Conn::fetch|31]
  spawned at app/src/main.rs:40 by #1
  class writers
  began 5.1s ago; 41 slices, 3ms in all, the longest 1ms; at most 40us from a wake-up to its slice; 3 KiB of stack in use
  the whole stack, innermost first; what the line above leaves out has a dot:
   0 . coro::context::switch                                         coro/src/context.rs:116
   1   <app::Conn<app::Tls> as app::Fetch<u8>>::fetch::<[u8; 4]>     app/src/db.rs:31
   2   app::evil\u{1b}[2J\n                                          app/src/db.rs
   3 . app+0x1f                                                      in app
  ... and cannot be followed further
"#;
        assert_eq!(out, expected);
    }

    #[test]
    fn a_deep_stack_is_shown_at_both_ends() {
        let frames: Vec<Frame> = (0..300).map(|at| call(&format!("f{at}"), None, false)).collect();
        let mut out = String::new();
        write_calls(&frames, true, &mut out);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!((lines.len(), lines[101]), (202, "  ...   100 more calls"));
        assert!(lines[100].starts_with("   99   f99 ") && lines[102].starts_with("  200   f200 "), "{out}");
    }

    #[cfg(all(target_os = "linux", not(any(miri, coro_thread_context))))]
    #[test]
    fn generic_arguments_stand_in_the_long_view_only() {
        #[inline(never)]
        fn rest<T: Default + std::fmt::Debug>() -> String {
            crate::scheduler::suspend::park();
            format!("{:?}", T::default())
        }
        let rt = crate::scheduler::runtime::Runtime::builder().workers(1).build().unwrap();
        let task = rt.spawn(rest::<Vec<u16>>);
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !super::super::line::where_is(task.id()).is_some_and(|t| t.state == TaskState::Parked) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        let text = one(task.id()).expect("the task");
        let (line, rest) = text.split_once('\n').unwrap();
        assert!(line.contains("long.rs rest|") && !line.contains("u16"), "{text}");
        assert!(rest.contains("::rest::<alloc::vec::Vec<u16"), "{text}");
        assert_eq!(one(u64::MAX), None);
        assert!(task.task().unpark());
        assert_eq!(task.join().unwrap(), "[]");
    }
}

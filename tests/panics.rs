//! Panics of tasks: told once, by whom the program chose, with the whole stack; and what a storm of them writes.

#![cfg(target_os = "linux")]

mod util;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use coro::report::{Report, set_report_handler};
use util::{again, finish, role, runtime};

const LIMIT: Duration = Duration::from_secs(20);

/// Runs this program again in a role and returns what it wrote to stderr.
fn child_with(role: &str, backtrace: Option<&str>, lives: bool) -> String {
    let mut command = again("roles", role);
    // Names that are looked up for the first time take long in a build for tests.
    command.env_remove("RUST_BACKTRACE").env_remove("CORO_SPAWN_STACKS").env("CORO_LATENCY_MS", "0");
    if let Some(value) = backtrace {
        command.env("RUST_BACKTRACE", value).env("CORO_SPAWN_STACKS", "1");
    }
    let output = finish(command, LIMIT);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), lives, "{role}: {:?}\n{err}", output.status);
    err
}

fn child(role: &str) -> String {
    child_with(role, None, true)
}

#[test]
fn roles() {
    match role().as_deref() {
        Some("default") => default_line(),
        Some("own hook") => own_hook(),
        Some("later hook") => later_hook(),
        Some("chained hook") => chained_hook(),
        Some("notifier") => notifier(),
        Some("bad notifier") => bad_notifier(),
        Some("handler") => handler(),
        Some("bad handler") => bad_handler(),
        Some("slow handler") => slow_handler(),
        Some("storm") => storm(),
        Some("first task") => coro::run(|| panic!("the first task")),
        Some("plain thread") => plain_thread(),
        Some("double") => double(),
        Some("small stack") => small_stack(),
        Some("job") => job(),
        Some("job notified") => job_notified(),
        Some("long message") => long_message(),
        _ => {}
    }
}

/// Times, ids, columns and directories replaced, so that the text can be compared.
fn masked(text: &str) -> String {
    let mut out = String::new();
    let text = text.replace(&format!("{}/", env!("CARGO_MANIFEST_DIR")), "");
    for line in text.lines() {
        let line = match line.split_once(":\t") {
            Some((id, rest)) if rest.len() > 24 && id.parse::<u64>().is_ok() => format!("ID:\tTIME{}", &rest[24..]),
            _ => line.to_owned(),
        };
        let mut rest = line.as_str();
        let mut masked = String::new();
        while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
            let end = rest[at..].find(|c: char| !c.is_ascii_digit()).map_or(rest.len(), |n| at + n);
            masked.push_str(&rest[..at]);
            masked.push('N');
            rest = &rest[end..];
        }
        masked.push_str(rest);
        out.push_str(&masked);
        out.push('\n');
    }
    out
}

#[inline(never)]
fn fetch() {
    panic!("no \"row\"\n");
}

#[inline(never)]
fn serve() {
    fetch();
    std::hint::black_box(());
}

fn default_line() {
    coro::run(|| {
        coro::spawn_named("db \x1b[31mwriter", serve).join().unwrap_err();
        // std tells of a panic that is caught later as well, because nobody knows that it will be.
        coro::spawn(|| drop(std::panic::catch_unwind(serve))).join().unwrap();
        // Whoever throws it on has told it already.
        let again = || std::panic::resume_unwind(std::panic::catch_unwind(serve).unwrap_err());
        coro::spawn(again).join().unwrap_err();
        // An unwind that no hook saw.
        coro::spawn(|| std::panic::resume_unwind(Box::new(7))).join().unwrap_err();
    });
}

#[test]
fn by_default_one_line_is_written_and_std_writes_nothing() {
    let stack = "[tests/panics.rs fetch|N] [tests/panics.rs serve|N]";
    let text = masked(&child("default"));
    let mut lines = text.lines();
    let mut next = || lines.next().unwrap_or_default();
    let begin = format!("panic \"no \\\"row\\\"\\n\" at tests/panics.rs:N:N {stack}");
    assert_eq!(next(), format!(r"ID:	TIME task N (db \u{{Nb}}[Nmwriter): {begin}"), "{text}");
    assert_eq!(next(), format!("ID:\tTIME task N (): {begin} [tests/panics.rs default_line::{{closure}}|N]"), "{text}");
    assert_eq!(next(), format!("ID:\tTIME task N (): {begin} [tests/panics.rs default_line::{{closure}}|N]"), "{text}");
    assert_eq!(next(), "ID:\tTIME task N (): panic \"(a payload that is no text)\"", "{text}");
    assert_eq!(lines.next(), None, "{text}");
}

#[test]
fn with_rust_backtrace_there_is_a_line_for_each_call_and_who_spawned_the_task() {
    let text = masked(&child_with("default", Some("1"), true));
    let wanted = r#"ID:	TIME task N (db \u{Nb}[Nmwriter): panic "no \"row\"\n" at tests/panics.rs:N:N
    panics::fetch at tests/panics.rs:N
    panics::serve at tests/panics.rs:N
  spawned by #N "main" at tests/panics.rs:N
    coro::scheduler::spawn::spawn_named at src/scheduler/spawn.rs:N
    panics::default_line::{{closure}} at tests/panics.rs:N
  #N spawned by a plain thread at tests/panics.rs:N
"#;
    let names = |text: &str| -> Vec<String> { text.lines().take(7).map(str::to_owned).collect() };
    let (seen, wanted) = (names(&text), names(wanted));
    // Which call of the runtime stands for the spawn depends on what was inlined.
    for (i, (seen, wanted)) in seen.iter().zip(&wanted).enumerate() {
        if i == 4 {
            assert!(seen.starts_with("    coro::") && seen.contains("spawn"), "{text}");
        } else {
            assert_eq!(seen, wanted, "line {i} of\n{text}");
        }
    }
    let whole = child_with("default", Some("full"), true);
    assert!(whole.contains("catch_unwind"), "{whole}");
}

fn own_hook() {
    std::panic::set_hook(Box::new(|i| eprintln!("HOOK {}", i.location().unwrap().line() > 0)));
    coro::run(|| {
        coro::spawn_named("dies", serve).join().unwrap_err();
        coro::spawn_named("catches", || drop(std::panic::catch_unwind(serve))).join().unwrap();
    });
}

#[test]
fn a_hook_of_the_program_is_called_and_only_what_ends_a_task_is_told_beside_it() {
    let text = child("own hook");
    assert_eq!(text.matches("HOOK true\n").count(), 2, "{text}");
    assert_eq!((text.matches(": panic \"no").count(), text.matches("(dies): panic").count()), (1, 1), "{text}");
    assert!(text.contains("[tests/panics.rs fetch|") && !text.contains("panicked at"), "{text}");
}

fn later_hook() {
    coro::run(|| {
        std::panic::set_hook(Box::new(|_| eprintln!("HOOK")));
        coro::spawn_named("dies", serve).join().unwrap_err();
        coro::spawn_named("catches", || drop(std::panic::catch_unwind(serve))).join().unwrap();
    });
}

#[test]
fn a_hook_that_took_the_place_of_ours_is_left_there() {
    let text = child("later hook");
    assert_eq!(text.matches("HOOK\n").count(), 2, "{text}");
    assert_eq!(text.matches("task ").count(), 1, "{text}");
    assert!(text.contains("(dies): panic \"no \\\"row\\\"\\n\"\n"), "neither place nor stack: {text}");
}

fn chained_hook() {
    coro::run(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |i| {
            eprintln!("HOOK");
            before(i);
        }));
        coro::spawn_named("dies", serve).join().unwrap_err();
    });
}

#[test]
fn a_hook_that_calls_ours_gets_our_line_in_the_place_of_stds() {
    let text = child("chained hook");
    assert_eq!((text.matches("HOOK\n").count(), text.matches("task ").count()), (1, 1), "{text}");
    assert!(text.contains("(dies): panic") && text.contains("fetch|") && !text.contains("panicked at"), "{text}");
}

fn notifier() {
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = seen.clone();
    coro::set_panic_notifier(Some(Arc::new(move |p| {
        let frames = p.captured.expect("a stack").frames();
        let lineage = p.lineage();
        log.lock().unwrap().push(format!(
            "{} {:?} {} {} {} {:?}",
            p.name.unwrap_or("-"),
            p.message(),
            p.location.unwrap_or("-"),
            p.stack(),
            frames.len(),
            lineage.len()
        ));
    })));
    coro::run(|| {
        coro::spawn_named("outer", || coro::spawn_named("inner", serve).join().unwrap_err()).join().unwrap();
        coro::spawn_named("catches", || drop(std::panic::catch_unwind(serve))).join().unwrap();
    });
    let seen = seen.lock().unwrap();
    let wanted = r#"inner "no \"row\"\n" tests/panics.rs:N:N [tests/panics.rs fetch|N] [tests/panics.rs serve|N] N N"#;
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(masked(&seen[0]).trim_end(), wanted);
    assert!(seen[0].ends_with(" 2 2"), "two frames, two ancestors: {}", seen[0]);
    // Also the caught one is remembered.
    let kinds = coro::report::panics();
    assert!(kinds.len() == 1 && kinds[0].count == 2 && kinds[0].stack.contains("fetch|"), "{kinds:?}");
}

#[test]
fn a_notifier_is_told_once_and_nothing_is_written() {
    assert_eq!(child("notifier"), "");
}

fn bad_notifier() {
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    coro::set_panic_notifier(Some(Arc::new(|_| {
        CALLS.fetch_add(1, Ordering::SeqCst);
        panic!("the notifier itself");
    })));
    coro::run(|| (0..2).for_each(|_| drop(coro::spawn_named("dies", serve).join().unwrap_err())));
    assert_eq!(CALLS.load(Ordering::SeqCst), 2);
}

#[test]
fn a_notifier_that_panics_leaves_it_to_the_default() {
    let text = masked(&child("bad notifier"));
    let first = r#"ID:	TIME the panic notifier panicked itself, with "the notifier itself" at tests/panics.rs:N:N; what it was told goes to stderr"#;
    let line = r#"ID:	TIME task N (dies): panic "no \"row\"\n" at tests/panics.rs:N:N [tests/panics.rs fetch|N] [tests/panics.rs serve|N]"#;
    assert_eq!(text, format!("{first}\n{line}\n{line}\n"));
}

fn handler() {
    let (sender, reports) = mpsc::channel();
    let old = set_report_handler(Some(Arc::new(move |r| {
        assert!(coro::current().is_none(), "the handler runs outside of tasks");
        sender.send(r.clone()).unwrap();
    })));
    assert!(old.is_none());
    let (site, child) = coro::run(|| {
        coro::set_label("req", "17");
        coro::inherit_labels(true);
        let t = coro::spawn_named("dies", serve);
        let id = t.id();
        t.join().unwrap_err();
        (line!() - 3, id)
    });
    let Ok(Report::Panic(p)) = reports.recv_timeout(LIMIT) else { panic!("no report") };
    assert_eq!((p.task.id, p.task.name.as_deref(), p.message.as_str()), (child, Some("dies"), "no \"row\"\n"));
    assert_eq!(p.task.spawned_at, format!("tests/panics.rs:{site}"));
    assert_eq!((p.task.labels, p.task.lineage.len()), (vec![("req".to_owned(), "17".to_owned())], 1));
    assert!(p.stack.contains("fetch|") && p.location.unwrap().starts_with("tests/panics.rs:"), "{}", p.stack);
    assert!(set_report_handler(None).is_some());
}

#[test]
fn a_report_handler_gets_it_as_a_value_on_a_thread_of_its_own() {
    assert_eq!(child("handler"), "");
}

fn bad_handler() {
    set_report_handler(Some(Arc::new(|_| panic!("the handler itself"))));
    coro::run(|| (0..20).for_each(|_| drop(coro::spawn_named("dies", serve).join().unwrap_err())));
}

#[test]
fn a_report_handler_that_panics_is_told_of_once() {
    let text = child("bad handler");
    assert_eq!(text.matches("the report handler panicked").count(), 1, "{text}");
    assert_eq!(text.matches("the handler itself").count(), 1, "{text}");
    assert_eq!(text.matches("(dies): panic").count(), 7, "{text}");
}

fn slow_handler() {
    static GO: AtomicBool = AtomicBool::new(false);
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    set_report_handler(Some(Arc::new(|_| {
        while !GO.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        CALLS.fetch_add(1, Ordering::SeqCst);
    })));
    let rt = runtime(1);
    // The worker is held up by none of them.
    rt.block_on(|| (0..1000).for_each(|_| drop(coro::spawn(|| panic!("x")).join().unwrap_err())));
    GO.store(true, Ordering::SeqCst);
    util::until(LIMIT, "those that were not dropped", || CALLS.load(Ordering::SeqCst) >= 256);
}

#[test]
fn a_report_handler_that_is_slow_loses_reports_and_that_is_told() {
    let text = child("slow handler");
    let lost = text
        .strip_prefix("coro: ")
        .and_then(|t| t.strip_suffix(" reports were dropped: the report handler is too slow\n"));
    let lost: u32 = lost.and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{text}"));
    assert!((742..=744).contains(&lost), "{lost}");
}

fn storm() {
    coro::runner().workers(2).run(|| {
        for _ in 0..100 {
            let tasks: Vec<_> = (0..100).map(|_| coro::spawn(serve)).collect();
            tasks.into_iter().for_each(|t| drop(t.join().unwrap_err()));
        }
        let kinds = coro::report::panics();
        assert!(kinds.len() == 1 && kinds[0].count == 10_000, "{kinds:?}");
    });
}

#[test]
fn a_storm_of_panics_does_not_flood_stderr() {
    let text = child("storm");
    let lines = text.lines().count();
    assert!((10..40).contains(&lines), "{lines} lines:\n{text}");
    let suppressed: usize = text
        .lines()
        .filter_map(|l| {
            l.split_once(" (")?.1.split_once(" (")?.1.split_once(" more of that place")?.0.parse::<usize>().ok()
        })
        .sum();
    assert!(suppressed > 4_000 && suppressed + lines <= 10_000, "{suppressed} suppressed, {lines} lines");
}

#[test]
fn the_first_tasks_panic_is_out_before_the_process_ends() {
    let text = masked(&child_with("first task", None, false));
    // The test harness repeats a failed test's name on stdout only.
    assert_eq!(
        text,
        "ID:\tTIME task N (main): panic \"the first task\" at tests/panics.rs:N:N [tests/panics.rs roles::{closure}|N]\n"
    );
}

fn plain_thread() {
    let _rt = runtime(1);
    coro::set_panic_notifier(Some(Arc::new(|_| {})));
    std::thread::Builder::new().name("plain".into()).spawn(|| panic!("not in a task")).unwrap().join().unwrap_err();
}

#[test]
fn outside_of_tasks_std_tells_as_ever() {
    let text = child("plain thread");
    assert!(text.contains("thread 'plain'") && text.contains("panicked at tests/panics.rs"), "{text}");
    assert!(!text.contains("task "), "{text}");
}

fn double() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("second");
        }
    }
    coro::run(|| {
        coro::spawn_named("dies", || {
            let _bad = Bad;
            panic!("first")
        })
        .join()
        .unwrap_err()
    });
}

#[test]
fn a_panic_while_unwinding_ends_the_process_but_not_unheard() {
    let text = child_with("double", None, false);
    let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what:?} is not in {text}"));
    assert!(place("(dies): panic \"first\"") < place("(dies): panic \"second\""), "{text}");
    place("panic in a destructor during cleanup");
}

fn small_stack() {
    #[inline(never)]
    fn down(n: u32) -> u32 {
        let pad = std::hint::black_box([n; 128]);
        if n == 0 { panic!("deep down") } else { down(n - 1) + pad[3] }
    }
    coro::run(|| {
        let t = coro::Builder::new().name("deep").stack_size(64 * 1024).spawn(|| down(40)).unwrap();
        t.join().unwrap_err();
    });
}

fn job() {
    coro::run(|| {
        let asks = || coro::blocking(serve).unwrap();
        coro::spawn_named("asks", asks).join().unwrap_err();
        let catches = move || {
            std::panic::catch_unwind(asks).unwrap_err();
            coro::tb::traceback_string()
        };
        let text = coro::spawn_named("catches", catches).join().unwrap();
        assert!(
            text.starts_with("panic \"no \\\"row\\\"\\n\" at tests/panics.rs:") && text.contains("serve|"),
            "{text}"
        );
    });
}

#[test]
fn a_panic_of_a_blocking_job_is_told_once_as_one_of_its_task() {
    let text = masked(&child("job"));
    let rest = r#": panic "no \"row\"\n" at tests/panics.rs:N:N [tests/panics.rs fetch|N] [tests/panics.rs serve|N]"#;
    assert_eq!(text, format!("ID:\tTIME task N (asks){rest}\nID:\tTIME task N (catches){rest}\n"));
    assert_eq!(child("job notified"), "");
}

fn job_notified() {
    static SEEN: Mutex<Vec<String>> = Mutex::new(Vec::new());
    coro::set_panic_notifier(Some(Arc::new(|p| {
        let lineage = p.lineage().len();
        SEEN.lock().unwrap().push(format!("{:?} {} {} {lineage}", p.name, p.location.is_some(), p.stack()));
    })));
    job();
    let seen = SEEN.lock().unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    assert_eq!(
        masked(&seen[0]).trim_end(),
        "Some(\"asks\") true [tests/panics.rs fetch|N] [tests/panics.rs serve|N] N"
    );
}

fn long_message() {
    let text = "ä".repeat(1_000_000);
    coro::run(|| coro::spawn_named("dies", move || panic!("{text}")).join().unwrap_err());
}

#[test]
fn a_message_without_end_is_cut() {
    let text = child("long message");
    let rest = text.trim_start_matches(|c| c != 'ä').trim_start_matches('ä');
    assert!(rest.starts_with("\" and 1995904 bytes more at tests/panics.rs:"), "{} bytes: {rest}", text.len());
}

#[test]
fn a_panic_with_little_stack_left_is_told() {
    let text = child("small stack");
    assert!(text.contains("(deep): panic \"deep down\"") && text.matches("down|").count() == 41, "{text}");
}

//! Which frames of a stack a reader wants to see: what kind of code each is, and which of them are folded away.
//!
//! Invariants: what is not known counts as the program's own and is shown; of a stack something is always left.
//!
//! It must not know: how frames are found or written.
#![forbid(unsafe_code)]

use super::symbols::Frame;

/// What kind of code a frame is, as far as folding is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// The program's own code, and anything not known to be something else.
    User,
    /// A standard library function that says something, such as `read_exact`; the C library.
    Std,
    /// What this crate offers to its users, such as `coro::net::TcpStream::read`.
    Api,
    /// Inside of this crate: scheduler, switch, park, wake.
    Machinery,
    /// The same where it is certain that nobody outside calls it: never what a task waits in, also where a tail call has taken the
    /// frame of the function away that was called.
    Inner,
    /// Frames that only pass a call on: closure shims, panic machinery, thread and program start.
    Glue,
}

/// Modules of this crate whose functions nobody outside calls.
const MACHINERY: &[&str] = &[
    "backdoor",
    "context",
    "inspect",
    "latency",
    "observe",
    "panic",
    "park",
    "probe",
    "reactor",
    "scheduler",
    "script",
    "stack",
    "sys",
    "task",
    "timer",
    "trace",
    "wake",
];

/// Files of this crate in which nothing is offered to anybody outside, as paths, but for what [`OFFERED`] names. A test holds both
/// against the sources.
const INSIDE: &[&str] = &[
    "blocking::in_order",
    "blocking::job",
    "io::raw",
    "io::unflushed",
    "net::accept",
    "net::endpoint",
    "net::known",
    "net::socket",
    "net::table",
    "net::unix::address",
    "net::woven",
    "scheduler::alarm",
    "scheduler::fresh",
    "scheduler::handover",
    "scheduler::idle",
    "scheduler::inbox",
    "scheduler::io",
    "scheduler::linger",
    "scheduler::maintain",
    "scheduler::marks",
    "scheduler::poll_io",
    "scheduler::readiness",
    "scheduler::run_queue",
    "scheduler::shared",
    "scheduler::slice",
    "scheduler::spare",
    "scheduler::stall",
    "scheduler::stretch",
    "scheduler::suspend",
    "scheduler::timeout",
    "scheduler::unwinding",
    "scheduler::wake",
    "scheduler::waker",
    "scheduler::worker",
    "sync::channel",
    "sync::const_new",
    "sync::gate",
    "sync::held",
    "sync::live",
    "sync::poison",
    "sync::raw_condvar",
    "sync::raw_mutex",
    "sync::raw_rwlock",
    "sync::ticket",
    "sync::waiters",
    "sync::woven",
    "time::woven",
];

/// Functions in those files that are offered all the same.
const OFFERED: &[&str] = &[
    // What a macro there makes for types of other files.
    "net::socket::close",
    "net::socket::set_deny_simultaneous",
    "scheduler::io::set_own_selfishness",
    "scheduler::io::set_selfishness",
    "scheduler::suspend::is_cancel",
    "scheduler::suspend::is_cancelled",
    "scheduler::suspend::no_switch",
    "scheduler::suspend::park",
    "scheduler::suspend::shield",
    "scheduler::suspend::yield_slice",
];

/// Prefixes of standard library paths that are glue.
const GLUE_PATHS: &[&str] = &[
    "core::ops::function::",
    "core::panic::unwind_safe::",
    "core::panicking::",
    "std::panic::AssertUnwindSafe",
    "std::panic::catch_unwind",
    "std::panic::panic_any",
    "std::panic::resume_unwind",
    "std::panicking::",
    "std::rt::",
    "std::sys::backtrace::",
    "std::sys_common::backtrace::",
    "std::sys::thread::",
    "std::sys::pal::unix::thread::",
];

/// Last path segments that are glue inside the standard library, with or without a path.
const GLUE_NAMES: &[&str] = &[
    "__rust_begin_short_backtrace",
    "__rust_end_short_backtrace",
    "call",
    "call_mut",
    "call_once",
    "catch_unwind",
    "do_call",
    "drop_in_place",
    "lang_start",
    "lang_start_internal",
    "thread_start",
    "try_fold",
];

/// Functions without a path that are glue wherever they lie.
const GLUE_SYMBOLS: &[&str] = &[
    "__clone",
    "__clone3",
    "__coro_call_on",
    "__libc_start_call_main",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__libc_start_main@@GLIBC_2.34",
    "__rust_try",
    "_start",
    "clone3",
    "coro_task_entry",
    "rust_begin_unwind",
    "rust_panic",
    "start_thread",
];

/// Libraries of the C runtime: their frames end no task's stack and are nobody's own code.
const C_RUNTIME: &[&str] = &["ld-linux", "ld-musl", "libc.", "libc-", "libpthread", "linux-vdso"];

/// Crates whose frames are [`Class::Std`] unless they are glue.
const STD_CRATES: &[&str] = &["std", "core", "alloc"];

/// Runtime-internal: dropped wherever folding finds it, but for the one frame next to user code.
#[cfg(test)]
pub(crate) fn is_internal(frame: &Frame) -> bool {
    matches!(classify(&frame.named()), Class::Machinery | Class::Inner | Class::Glue)
}

/// What [`classify`] looks at; what is not known is empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Named<'a> {
    pub(crate) function: &'a str,
    pub(crate) is_named: bool,
    pub(crate) module: &'a str,
    pub(crate) file: &'a str,
}

impl Frame {
    pub(crate) fn named(&self) -> Named<'_> {
        Named {
            function: &self.function,
            is_named: self.is_named,
            module: self.module.as_deref().unwrap_or(""),
            file: self.file.as_deref().unwrap_or(""),
        }
    }
}

/// Sorts a frame by the tables above. Debug information reduced to line tables gives names without a
/// path; then the file decides. Allocates nothing.
pub(crate) fn classify(frame: &Named<'_>) -> Class {
    let Named { function: name, module, file, .. } = *frame;
    if C_RUNTIME.iter().any(|library| module.starts_with(library)) {
        return if GLUE_SYMBOLS.contains(&name) { Class::Glue } else { Class::Std };
    }
    if !frame.is_named {
        return Class::User;
    }
    let path = type_path(name);
    let last = segments(name).next_back().unwrap_or(name);
    if name.contains("as core::ops::function::Fn") || name.contains("impl core::ops::function::Fn") {
        return Class::Glue;
    }
    // The compiler's own symbols, such as `__rustc::rust_begin_unwind`.
    if name.starts_with("__rustc::") {
        return Class::Glue;
    }
    if name.contains("coro::tb::") || file.ends_with("src/tb/traced.rs") {
        // How a traceback takes its stack.
        return Class::Glue;
    }
    let (krate, rest) = path.split_once("::").unwrap_or(("", path));
    let in_std_file = std_file(file).is_some();
    if STD_CRATES.contains(&krate) || (krate.is_empty() && in_std_file) {
        let is_glue = GLUE_PATHS.iter().any(|prefix| path.starts_with(prefix)) || GLUE_NAMES.contains(&last);
        return if is_glue { Class::Glue } else { Class::Std };
    }
    if krate == "backtrace" {
        // How the panic hook takes its stack.
        return Class::Glue;
    }
    if krate == "rhai" || file.contains("/rhai-1.") {
        // What evaluates expressions, on its way from one step to another.
        return Class::Glue;
    }
    if krate == "coro" {
        // This crate's own tests stand for its users.
        if rest.split("::").any(|part| part.ends_with("tests")) {
            return Class::User;
        }
        // What an expression of a repl called: the expression itself is no frame.
        if rest.starts_with("script::repl::") {
            return Class::User;
        }
        let module = rest.split("::").next().unwrap_or(rest);
        if module == "panic" {
            // The panic hook, on its way to the stack above.
            return Class::Glue;
        }
        if INSIDE.iter().any(|inside| is_within(rest, inside)) && !OFFERED.iter().any(|name| is_within(rest, name)) {
            return Class::Inner;
        }
        return if MACHINERY.contains(&module) { Class::Machinery } else { Class::Api };
    }
    // `main` without a path is the C entry point; Rust's is `program::main`.
    if krate.is_empty() && (GLUE_SYMBOLS.contains(&name) || (name == "main" && file.is_empty())) {
        return Class::Glue;
    }
    Class::User
}

/// Whether a path is another one or lies in it.
fn is_within(path: &str, other: &str) -> bool {
    path.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Which frames of a stack a reader wants to see.
///
/// - Up to the first user frame: what this crate did inside is dropped; its outermost frame stays,
///   as the call that waits. If that is one that nobody outside can have called, the frame of the call is not on the stack, because
///   its last act was a jump to this one: then the user's comes first.
/// - Further out: machinery, what is inside and glue are dropped, calls of this crate's interface stay.
/// - Outside of the last user frame: everything is dropped.
/// - Without any user frame, as in a task of this crate's own, its interface takes the place of the user's code; without that nothing is
///   dropped, so that a stack is never empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Folding {
    /// This crate's outermost frame inside of the first user frame, and the last user frame, or one that stands for it.
    bounds: Option<(Option<usize>, usize)>,
}

impl Folding {
    pub(crate) fn of(classes: &[Class]) -> Folding {
        Folding::by(classes.iter().copied())
    }

    pub(super) fn by(classes: impl DoubleEndedIterator<Item = Class> + ExactSizeIterator + Clone) -> Folding {
        let is_user = |class: Class| class == Class::User;
        let is_ours = |class: Class| matches!(class, Class::Api | Class::Machinery | Class::Inner);
        let bounds = classes.clone().position(is_user).map(|first| {
            let last = classes.clone().rposition(is_user).unwrap_or(first);
            let call = classes.clone().take(first).enumerate().rfind(|&(_, class)| is_ours(class));
            (call.map(|(at, _)| at), last)
        });
        let interface = || classes.clone().rposition(|class| class == Class::Api).map(|last| (None, last));
        Folding { bounds: bounds.or_else(interface) }
    }

    pub(crate) fn keeps(&self, at: usize, class: Class) -> bool {
        match self.bounds {
            None => true,
            Some((Some(call), _)) if at <= call => at == call && class != Class::Inner,
            Some((_, last)) => at <= last && !matches!(class, Class::Machinery | Class::Inner | Class::Glue),
        }
    }
}

/// `("std", "io/mod.rs")` for `…/library/std/src/io/mod.rs`.
pub(super) fn std_file(path: &str) -> Option<(&str, &str)> {
    let (_, rest) = path.split_once("library/")?;
    let (krate, rest) = rest.split_once("/src/")?;
    STD_CRATES.contains(&krate).then_some((krate, rest))
}

/// The type that a qualified path is about: `a::B` for `<a::B as c::D>::m`, `<impl c::D for &a::B>`
/// and `<a::B>::m`; other paths as they are.
pub(super) fn type_path(name: &str) -> &str {
    let Some(inner) = name.strip_prefix('<') else {
        return name;
    };
    let inner = inner.split(" as ").next().unwrap_or(inner);
    let inner = inner.rsplit(" for ").next().unwrap_or(inner);
    let mut path = inner.trim_end_matches('>').trim_start_matches(['&', '*', '<', '(', '[']);
    while let Some(shorter) = ["mut ", "const ", "dyn ", "impl "].iter().find_map(|w| path.strip_prefix(w)) {
        path = shorter.trim_start_matches(['&', '*', '<']);
    }
    path.trim_end_matches([')', ']'])
}

/// As many segments as any path has that people write; of a longer one the last.
const MOST_SEGMENTS: usize = 32;

/// Splits at `::` outside of brackets.
pub(super) fn segments(name: &str) -> impl DoubleEndedIterator<Item = &str> {
    let (mut parts, mut count) = ([""; MOST_SEGMENTS], 0);
    let mut push = |part| {
        if count == MOST_SEGMENTS {
            parts.copy_within(1.., 0);
            count -= 1;
        }
        parts[count] = part;
        count += 1;
    };
    let (mut depth, mut start) = (0usize, 0);
    let bytes = name.as_bytes();
    for (at, &byte) in bytes.iter().enumerate() {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if at > 0 && bytes[at - 1] == b'-' => {}
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b':' if depth == 0 && at >= start && bytes.get(at + 1) == Some(&b':') => {
                push(&name[start..at]);
                start = at + 2;
            }
            _ => {}
        }
    }
    push(&name[start.min(name.len())..]);
    parts.into_iter().take(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str, line: u32) -> Frame {
        Frame {
            function: function.into(),
            is_named: true,
            module: None,
            file: (!file.is_empty()).then(|| file.into()),
            line: (line > 0).then_some(line),
            column: None,
            is_near: false,
        }
    }

    #[test]
    fn classes() {
        use Class::*;
        let std = "/rustc/abc/library/core/src/ops/function.rs";
        for (function, file, class) in [
            ("app::db::fetch", "src/db.rs", User),
            ("coroner::fetch", "src/db.rs", User),
            ("<app::Conn as std::io::Read>::read", "src/db.rs", User),
            ("std::io::Read::read_exact", std, Std),
            ("read_exact", std, Std),
            ("<std::net::tcp::TcpStream as std::io::Read>::read", std, Std),
            ("coro::net::tcp::TcpStream::read", "src/net.rs", Api),
            ("<coro::net::TcpStream as std::io::Read>::read", "src/net.rs", Api),
            ("coro::time::sleep", "src/time.rs", Api),
            ("coro::scheduler::worker::Worker::run", "s.rs", Inner),
            ("coro::scheduler::suspend::sleep_until", "src/scheduler/suspend.rs", Inner),
            ("coro::scheduler::suspend::Here::park", "src/scheduler/suspend.rs", Inner),
            ("coro::scheduler::suspend::yield_slice", "src/scheduler/suspend.rs", Machinery),
            ("coro::scheduler::suspend::no_switch::{closure#0}", "src/scheduler/suspend.rs", Machinery),
            ("coro::scheduler::suspend::park", "src/scheduler/suspend.rs", Machinery),
            ("coro::scheduler::suspend::park_until", "src/scheduler/suspend.rs", Inner),
            ("coro::scheduler::join::JoinHandle<T>::join", "src/scheduler/join.rs", Machinery),
            ("coro::time::sleep_until", "src/time/mod.rs", Api),
            ("coro::net::socket::Socket<S>::read::{{closure}}", "src/net/socket.rs", Inner),
            ("coro::net::woven::<impl coro::net::socket::Socket<S>>::receiving_watched", "src/net/woven.rs", Inner),
            ("<&coro::net::tcp::TcpStream as std::io::Read>::read", "src/net/socket.rs", Api),
            ("coro::net::sockets::read", "src/net/sockets.rs", Api),
            ("coro::context::switch", "s.rs", Machinery),
            ("coro::task::park::{closure#0}", "s.rs", Machinery),
            ("coro::net::tests::reads", "s.rs", User),
            ("core::ops::function::FnOnce::call_once", std, Glue),
            ("core::ptr::drop_in_place", std, Glue),
            ("core::ops::function::FnOnce::call_once{{vtable.shim}}", std, Glue),
            ("<alloc::boxed::Box as core::ops::function::FnOnce>::call_once", std, Glue),
            ("<core::panic::unwind_safe::AssertUnwindSafe as core::ops::function::FnOnce>::call_once", std, Glue),
            ("<app::serve::{closure#0} as core::ops::function::FnOnce>::call_once::{shim:vtable#0}", "s.rs", Glue),
            ("call_once", std, Glue),
            ("std::panicking::catch_unwind::do_call", std, Glue),
            ("std::panic::catch_unwind", std, Glue),
            ("__rust_try", "", Glue),
            ("__rustc::rust_begin_unwind", std, Glue),
            ("coro_task_entry", "", Glue),
            ("main", "", Glue),
            ("app::main", "src/main.rs", User),
            ("main", "src/main.rs", User),
            ("call", "src/main.c", User),
        ] {
            assert_eq!(classify(&frame(function, file, 1).named()), class, "{function}");
        }
        let inside = |module: &str, name: &str| Frame {
            is_named: !name.contains('+'),
            module: Some(module.into()),
            ..frame(name, "", 0)
        };
        for (module, function, class) in [
            ("libc.so.6", "libc.so.6+0x1f", Std),
            ("libc.so.6", "__GI___qsort_r", Std),
            ("libc.so.6", "__clone3", Glue),
            ("app", "app+0x1f", User),
        ] {
            assert_eq!(classify(&inside(module, function).named()), class, "{function}");
        }
        assert!(is_internal(&frame("__rust_try", "", 0)));
        assert!(!is_internal(&frame("coro::time::sleep", "", 0)));
        assert!(is_internal(&frame("rhai::eval::stmt::Engine::eval_stmt", "", 0)));
        assert!(!is_internal(&frame("coro::script::repl::Flow::sleep", "", 0)));
    }

    /// What is hidden is offered to nobody, and nothing of what is offered is hidden.
    #[test]
    #[cfg(not(miri))]
    fn nothing_is_inside_that_is_offered() {
        let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
        let read =
            |path: &str| std::fs::read_to_string(format!("{root}{path}")).unwrap_or_else(|e| panic!("{path}: {e}"));
        let mut offered = Vec::new();
        for &inside in INSIDE {
            let public = ["fn", "unsafe fn", "const fn", "async fn", "struct", "enum", "union", "trait", "type"];
            let text = read(&format!("{}.rs", inside.replace("::", "/")));
            for line in text.lines() {
                let item = public
                    .iter()
                    .find_map(|kind| line.trim_start().strip_prefix("pub ")?.strip_prefix(kind)?.strip_prefix(' '));
                let name = item.and_then(|item| item.split(|c: char| !c.is_alphanumeric() && c != '_').next());
                offered.extend(name.map(|name| format!("{inside}::{name}")));
            }
        }
        offered.sort();
        assert_eq!(offered, OFFERED);
        // The scheduler's other files: each offers something, or it belongs into the list.
        for entry in std::fs::read_dir(format!("{root}scheduler")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let Some(name) = name.strip_suffix(".rs").filter(|name| *name != "mod") else { continue };
            let path = format!("scheduler::{name}");
            let offers =
                read(&format!("scheduler/{name}.rs")).lines().any(|line| line.trim_start().starts_with("pub "));
            assert!(offers || INSIDE.contains(&&*path), "{path}");
        }
    }
}

//! The architecture, checked: the layer order, where unsafe code may be, where the scheduler calls upward, how long a
//! file is and how it begins. `ARCHITECTURE.md` shows the same picture in words.
//!
//! The checks are plain functions over a file's path and text, so that each is also shown to fail on a bad sample.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// From the lowest to the highest; layers of one row do not know each other.
const LAYERS: &[&[&str]] = &[
    &["sys"],
    &["value"],
    &["observe"],
    &["stack", "context", "timer"],
    &["task"],
    &["reactor"],
    &["scheduler"],
    &["time", "blocking"],
    &["net", "sync", "thread"],
    &["io", "signal", "fs"],
    &["process"],
    &["os", "future"],
    &["select", "hyper"],
    &["inspect"],
    &["tb"],
    &["report"],
    &["latency", "panic", "tracing"],
    &["probe"],
    &["commands"],
    &["script"],
    &["backdoor"],
];

/// `src/wiring.rs` ties low layers to high ones; these two files alone may name it.
const MAY_NAME_WIRING: &[&str] = &["scheduler/mod.rs", "backdoor/mod.rs"];

/// Layers whose whole business is unsafe code.
const UNSAFE_LAYERS: &[&str] = &["sys", "stack", "context", "task", "reactor"];

/// Every other file that may hold unsafe code. Each must hold some, so that the list does not outlive its reasons.
const UNSAFE_FILES: &[&str] = &[
    "inspect/capture.rs",
    "inspect/collect.rs",
    "inspect/facts.rs",
    "inspect/lineage.rs",
    "inspect/modules.rs",
    "inspect/overflow.rs",
    "inspect/status.rs",
    "inspect/running/mailbox.rs",
    "inspect/running/mod.rs",
    "inspect/waiting.rs",
    "inspect/walk_tests.rs",
    "io/raw.rs",
    "net/raw.rs",
    "observe/hooks.rs",
    "panic/mod.rs",
    "probe/watchers.rs",
    "process/pre_exec.rs",
    "scheduler/alarm.rs",
    "scheduler/enter.rs",
    "scheduler/fresh.rs",
    "scheduler/inbox.rs",
    "scheduler/io.rs",
    "scheduler/join.rs",
    "scheduler/labels.rs",
    "scheduler/maintain.rs",
    "scheduler/readiness.rs",
    "scheduler/run_queue.rs",
    "scheduler/runtime.rs",
    "scheduler/shared.rs",
    "scheduler/slice.rs",
    "scheduler/spare.rs",
    "scheduler/spawn.rs",
    "scheduler/suspend.rs",
    "scheduler/timeout.rs",
    "scheduler/unwinding.rs",
    "scheduler/wake.rs",
    "scheduler/worker.rs",
    "select/arms.rs",
    "select/mod.rs",
    "sync/channel.rs",
    "sync/choice.rs",
    "sync/gate.rs",
    "sync/lazy_lock.rs",
    "sync/live.rs",
    "sync/mutex.rs",
    "sync/once_lock.rs",
    "sync/oneshot.rs",
    "sync/raw_condvar.rs",
    "sync/raw_mutex.rs",
    "sync/raw_rwlock.rs",
    "sync/reentrant.rs",
    "sync/rwlock.rs",
    "sync/semaphore.rs",
    "sync/ticket.rs",
    "sync/waiters.rs",
    "tb/capture.rs",
    "thread/builder.rs",
    "wiring.rs",
];

/// What calls upward from the scheduler: each name, the files that use it, and how often. At most ten in all.
const UPWARD_CALLS: &[(&str, &[(&str, usize)])] =
    &[("SLICE_OVERRUN.get", &[("scheduler/slice.rs", 1)]), ("(UPWARD.", &[("scheduler/mod.rs", 4)])];
const MOST_UPWARD_CALLS: usize = 10;

const LONGEST_FILE: usize = 800;
/// How the head of a longer file begins to say why.
const EXCUSE: &str = "Longer than 800 lines because";

fn rank(layer: &str) -> Option<usize> {
    LAYERS.iter().position(|row| row.contains(&layer))
}

/// The layer that a file under `src` belongs to; `None` for `lib.rs` and `wiring.rs`.
fn layer_of(file: &str) -> Option<&str> {
    let first = file.split('/').next().unwrap_or(file);
    (first != file).then_some(first)
}

/// Blanks comments, and the contents of strings and character literals, but keeps every line break.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let name = |c: char| c.is_alphanumeric() || c == '_';
    let blank = |out: &mut String, from: usize, to: usize| {
        out.extend(chars[from..to.min(chars.len())].iter().map(|c| if *c == '\n' { '\n' } else { ' ' }));
    };
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
                blank(&mut out, start, i);
            }
            '/' if at(i + 1) == '*' => {
                let mut depth = 0;
                loop {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                    if depth == 0 || i >= chars.len() {
                        break;
                    }
                }
                blank(&mut out, start, i);
            }
            'r' | 'b' | 'c' if (start == 0 || !name(at(start - 1))) && raw_hashes(&chars, i).is_some() => {
                let (mut j, hashes) = raw_hashes(&chars, i).unwrap_or((i, 0));
                loop {
                    if j >= chars.len() || at(j) == '"' && (1..=hashes).all(|k| at(j + k) == '#') {
                        break;
                    }
                    j += 1;
                }
                i = j + 1 + hashes;
                blank(&mut out, start, i);
            }
            '"' => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
                blank(&mut out, start, i);
            }
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => {
                // A character; a lifetime has no second quote there.
                i += if at(i + 1) == '\\' { 3 } else { 2 };
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
                blank(&mut out, start, i);
            }
            c => {
                out.push(c);
                i += 1;
            }
        }
    }
    out
}

/// For `r"`, `r#"`, `br##"` and the like at `i`: where the contents begin, and how many hashes there are.
fn raw_hashes(chars: &[char], mut i: usize) -> Option<(usize, usize)> {
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    if matches!(at(i), 'b' | 'c') {
        i += 1;
    }
    if at(i) != 'r' {
        return None;
    }
    i += 1;
    let mut hashes = 0;
    while at(i) == '#' {
        (i, hashes) = (i + 1, hashes + 1);
    }
    (at(i) == '"').then_some((i + 1, hashes))
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// The first names of what stands after `crate::`: one, or all of `{a, b::c, …}`.
fn heads(after: &str) -> Vec<&str> {
    let after = after.trim_start();
    let Some(group) = after.strip_prefix('{') else { return vec![identifier(after)] };
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                found.push(identifier(group[begin..i].trim_start()));
                begin = i + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

/// Every name that a file takes from the crate's root, with its line: `crate::x`, and `super::x` for a layer `x`.
fn root_names(code: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for prefix in ["crate::", "super::"] {
        for (i, _) in code.match_indices(prefix) {
            let whole = !code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$');
            let line = code[..i].matches('\n').count() + 1;
            for name in heads(&code[i + prefix.len()..]) {
                // `super::x` reaches another layer only if `x` is called like one.
                if whole && (prefix == "crate::" || rank(name).is_some()) {
                    found.push((line, name));
                }
            }
        }
    }
    found
}

fn check_arrows(file: &str, text: &str) -> Vec<String> {
    let Some(layer) = layer_of(file) else { return Vec::new() };
    let Some(mine) = rank(layer) else {
        return vec![format!("src/{file}: {layer} stands in no row of LAYERS; add it there and to ARCHITECTURE.md")];
    };
    let code = code_of(text);
    let mut wrong = Vec::new();
    for (line, name) in root_names(&code) {
        let complaint = match rank(name) {
            _ if name == layer => continue,
            Some(theirs) if theirs < mine => continue,
            Some(theirs) if theirs == mine => "a sibling, which it must not know",
            Some(_) => "a higher layer",
            // A macro that is exported has no other path.
            None if name.starts_with("__") => continue,
            None if name == "wiring" && MAY_NAME_WIRING.contains(&file) => continue,
            None => "no layer; name the module where it is defined",
        };
        wrong.push(format!("src/{file}:{line}: {layer} uses crate::{name}: {complaint}"));
    }
    wrong
}

fn has_word(code: &str, word: &str) -> bool {
    code.match_indices(word).any(|(i, _)| {
        let part = |c: char| c.is_alphanumeric() || c == '_';
        !code[..i].ends_with(part) && !code[i + word.len()..].starts_with(part)
    })
}

fn forbids(code: &str) -> bool {
    code.contains("#![forbid(unsafe_code)]")
}

fn check_unsafe(files: &BTreeMap<String, String>) -> Vec<String> {
    let code: BTreeMap<&str, String> = files.iter().map(|(f, t)| (f.as_str(), code_of(t))).collect();
    // The attribute in a folder's `mod.rs` holds for every file below it.
    let covered = |file: &str| {
        let mut folders = Path::new(file).ancestors().skip(1).filter_map(Path::to_str).filter(|f| !f.is_empty());
        forbids(&code[file]) || folders.any(|f| code.get(format!("{f}/mod.rs").as_str()).is_some_and(|c| forbids(c)))
    };
    let mut wrong = Vec::new();
    for (file, code) in &code {
        let unsafe_layer = layer_of(file).is_some_and(|l| UNSAFE_LAYERS.contains(&l));
        let named = UNSAFE_FILES.contains(file);
        match (has_word(code, "unsafe"), named) {
            (true, false) if !unsafe_layer => {
                wrong.push(format!("src/{file}: unsafe code outside the layers and files named for it"));
            }
            (false, true) => wrong.push(format!("src/{file}: holds no unsafe code; take it off UNSAFE_FILES")),
            _ => {}
        }
        // A module file cannot forbid what a file below it is named for.
        let folder = file.strip_suffix("mod.rs").or((*file == "lib.rs").then_some(""));
        let parent = folder.is_some_and(|folder| UNSAFE_FILES.iter().any(|f| f.starts_with(folder)));
        if !unsafe_layer && !named && !parent && !covered(file) {
            wrong.push(format!("src/{file}: begins without #![forbid(unsafe_code)]"));
        }
    }
    wrong
}

fn check_upward_calls(files: &BTreeMap<String, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut total = 0;
    for (call, allowed) in UPWARD_CALLS {
        for (file, text) in files {
            let found = code_of(text).matches(call).count();
            let expected = allowed.iter().find(|(f, _)| f == file).map_or(0, |(_, n)| *n);
            total += found;
            if found != expected {
                wrong.push(format!("src/{file}: calls {call} {found} times, UPWARD_CALLS says {expected}"));
            }
        }
    }
    if total > MOST_UPWARD_CALLS {
        wrong.push(format!("{total} upward calls, the limit is {MOST_UPWARD_CALLS}"));
    }
    wrong
}

fn check_form(file: &str, text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let lines = text.lines().count();
    let head: String = text.lines().take_while(|l| l.starts_with("//!")).collect();
    if lines > LONGEST_FILE && !head.contains(EXCUSE) {
        wrong.push(format!(
            "{file}: {lines} lines, the limit is {LONGEST_FILE}: split it, or say in its head \"{EXCUSE} …\""
        ));
    }
    let said = text.lines().next().and_then(|l| l.strip_prefix("//! ")).is_some_and(|l| !l.trim().is_empty());
    if !said {
        wrong.push(format!("{file}: does not open with a //! line that says what it is for"));
    }
    wrong
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.map(|e| e.expect("a readable folder")) {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_some_and(|n| n != "target") {
                rust_files(&path, found);
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(folder: &str) -> BTreeMap<String, String> {
    let base = root().join(folder);
    let mut paths = Vec::new();
    rust_files(&base, &mut paths);
    let name = |p: &Path| p.strip_prefix(&base).expect("below the folder").to_str().expect("UTF-8").replace('\\', "/");
    paths.iter().map(|p| (name(p), fs::read_to_string(p).expect("a readable file"))).collect()
}

fn sources() -> BTreeMap<String, String> {
    let files = read("src");
    assert!(files.len() > 60, "the sources were not found: {} files", files.len());
    files
}

#[track_caller]
fn none(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn arrows_point_downward() {
    none(sources().iter().flat_map(|(f, t)| check_arrows(f, t)).collect());
}

#[test]
fn unsafe_code_lies_where_it_may() {
    none(check_unsafe(&sources()));
}

/// std's output macros take locks that a task may hold across a wait, and panic where nobody reads.
fn check_output(file: &str, text: &str) -> Vec<String> {
    let code = code_of(text);
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let test = file.contains("tests");
    let found = |m: &&&str| !test && has_word(code, m) && code.contains(&format!("{m}!"));
    let macros = ["println", "print", "eprintln", "eprint", "dbg"];
    macros.iter().filter(found).map(|m| format!("src/{file}: uses {m}!; write through sys::stderr")).collect()
}

#[test]
fn nothing_is_printed_through_stds_locks() {
    none(sources().iter().flat_map(|(f, t)| check_output(f, t)).collect());
}

#[test]
fn the_scheduler_calls_upward_in_few_places() {
    none(check_upward_calls(&sources()));
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    let folders = ["src", "tests", "examples", "benches"];
    let files = folders.iter().flat_map(|d| read(d).into_iter().map(move |(f, t)| (format!("{d}/{f}"), t)));
    none(files.flat_map(|(f, t)| check_form(&f, &t)).collect());
}

#[test]
fn every_folder_is_a_layer_and_the_page_shows_the_order() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let rows: Vec<String> = LAYERS
        .iter()
        .map(|row| if row.len() == 1 { row[0].to_owned() } else { format!("{{{}}}", row.join(", ")) })
        .collect();
    let order = rows.join(" → ");
    assert!(page.contains(&order), "ARCHITECTURE.md does not show the order that is enforced:\n{order}");
    for layer in LAYERS.iter().copied().flatten() {
        assert!(root().join("src").join(layer).is_dir(), "LAYERS names {layer}, which is no folder of src");
        assert!(page.contains(&format!("**`src/{layer}`**")), "ARCHITECTURE.md says nothing of src/{layer}");
    }
}

/// The checkers themselves, on samples that must fail.
mod checkers {
    use super::*;

    fn files(list: &[(&str, &str)]) -> BTreeMap<String, String> {
        list.iter().map(|(f, t)| ((*f).to_owned(), (*t).to_owned())).collect()
    }

    #[test]
    fn an_upward_arrow_is_found_in_every_disguise() {
        for bad in [
            "use crate::scheduler::Worker;",
            "use crate::{\n    sys::clock,\n    scheduler::{run, Worker},\n};",
            "fn f() { crate::net::listen() }",
            "use super::inspect;",
            "fn f() { super::super::backdoor::serve() }",
            "use crate::wiring::UPWARD;",
            "use crate::spawn;",
            "const S: &str = r#\"a \" quote\"#; use crate::net::X;",
            "const C: char = '\"'; use crate::net::X; const D: char = '\"';",
        ] {
            assert_eq!(check_arrows("task/cell.rs", bad).len(), 1, "{bad}");
        }
        let found = check_arrows("task/cell.rs", "//! Head.\n\nuse crate::scheduler::Worker;\n");
        assert_eq!(found, ["src/task/cell.rs:3: task uses crate::scheduler: a higher layer"]);
    }

    #[test]
    fn siblings_and_unknown_folders_are_found() {
        assert_eq!(check_arrows("net/tcp.rs", "use crate::sync::Mutex;").len(), 1);
        assert_eq!(check_arrows("nowhere/mod.rs", "").len(), 1);
    }

    #[test]
    fn what_may_be_named_is_let_through() {
        for good in [
            "use crate::sys::clock;",
            "use crate::task::state::State;",
            "use crate::{context::Ctx, stack::Stack};",
            "use super::state::State;",
            "/// See [`crate::net::TcpStream`].\n/* crate::net */\nconst S: &str = \"crate::net\";",
            "fn f<'a>(x: &'a str) -> &'a str { x }",
        ] {
            assert_eq!(check_arrows("task/cell.rs", good), [""; 0], "{good}");
        }
        assert_eq!(check_arrows("scheduler/mod.rs", "use crate::wiring::UPWARD;"), [""; 0]);
        assert_eq!(check_arrows("wiring.rs", "use crate::backdoor;"), [""; 0]);
    }

    #[test]
    fn unsafe_code_in_a_wrong_place_is_found() {
        let sneaked = files(&[("time/mod.rs", "//! T.\nfn f() { unsafe { g() } }")]);
        // Both: the code, and the missing attribute.
        assert_eq!(check_unsafe(&sneaked).len(), 2);
        let bare = files(&[("time/mod.rs", "//! T.\nfn f() {}")]);
        assert_eq!(check_unsafe(&bare).len(), 1);
        let stale = files(&[("sync/mutex.rs", "//! M.\n// unsafe in words only\n")]);
        assert_eq!(check_unsafe(&stale).len(), 1);
        let fine = files(&[
            ("net/mod.rs", "//! S.\n#![forbid(unsafe_code)]\n"),
            ("net/parallel.rs", "//! Covered by the folder's attribute.\n"),
            ("net/tests/deep.rs", "//! Also two folders down.\n"),
            ("sync/mod.rs", "//! Cannot forbid: files below it are named.\n"),
            ("sys/mem.rs", "//! M.\nunsafe fn f() {}\n"),
        ]);
        assert_eq!(check_unsafe(&fine), [""; 0]);
    }

    #[test]
    fn printing_is_found_in_code_only() {
        for bad in ["fn f() { println!(); }", "fn f() { std::eprint!(\"x\") }", "fn f() { dbg!(1); }"] {
            assert_eq!(check_output("sync/mutex.rs", bad).len(), 1, "{bad}");
        }
        for good in ["/// println!()\n", "fn f() { sprintln!(); }", "const S: &str = \"dbg!\";"] {
            assert_eq!(check_output("sync/mutex.rs", good), [""; 0], "{good}");
        }
        assert_eq!(check_output("sync/tests.rs", "fn f() { println!(); }"), [""; 0]);
    }

    #[test]
    fn a_further_upward_call_is_found() {
        let mut all = files(&[
            ("scheduler/slice.rs", "if let Some(r) = SLICE_OVERRUN.get() {}"),
            ("scheduler/mod.rs", "(UPWARD.a)(); (UPWARD.b)(); (UPWARD.c)(); (UPWARD.d)();"),
        ]);
        assert_eq!(check_upward_calls(&all), [""; 0]);
        all.insert("scheduler/io.rs".into(), "(UPWARD.init)();".into());
        assert_eq!(check_upward_calls(&all).len(), 1);
    }

    #[test]
    fn long_and_silent_files_are_found() {
        assert_eq!(check_form("x.rs", "//! Fine.\n"), [""; 0]);
        assert_eq!(check_form("x.rs", "use std::io;\n").len(), 1);
        let long = "//! Long.\n".repeat(LONGEST_FILE + 1);
        assert_eq!(check_form("x.rs", &long).len(), 1);
        assert_eq!(check_form("x.rs", &format!("//! Words.\n//! {EXCUSE} of this.\n{long}")), [""; 0]);
        assert_eq!(check_form("x.rs", &format!("//! Words.\n\nconst S: &str = \"{EXCUSE}\";\n{long}")).len(), 1);
    }
}

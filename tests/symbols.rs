//! Names on a bad night: the executable deleted or replaced, no descriptors, no symbols, no debug information, the
//! loader's lock held by a thread that stands still. Each child is a copy of this program with one of these faults.

#![cfg(all(target_os = "linux", not(coro_thread_context)))]

mod util;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use util::{finish, role, runtime, said, until};

const LONG: Duration = Duration::from_secs(60);

/// CPU time for the first dump of a process, which reads the debug information: of a build that is not optimised, and by
/// code that is not either. By the clock it depends on what else the machine does.
const LONGEST_DUMP: Duration = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });

/// What the advice takes this build's profile for.
const PROFILE: &str = if cfg!(debug_assertions) { "dev" } else { "release" };

/// The line on which the task waits.
const PLACE: u32 = line!() + 5;

#[inline(never)]
fn the_place() -> u64 {
    let ballast = std::hint::black_box([7u64; 4]);
    coro::sleep(Duration::from_secs(1000));
    std::hint::black_box(&ballast).iter().sum()
}

/// The line on which the task calls it, as part of another function.
const INLINED: u32 = line!() + 4;

#[inline(always)]
fn inlined_into_the_task() -> u64 {
    std::hint::black_box(the_place())
}

/// The line on which the task does that.
const CALLED: u32 = line!() + 5;

/// Two kinds of generic argument, one of them a closure: neither is shown.
#[inline(never)]
fn task<T: Default, F: FnOnce(u64)>(f: F) -> T {
    f(inlined_into_the_task());
    T::default()
}

/// Waits inside a function of the C library, whose file is not the executable.
#[cfg(target_env = "gnu")]
fn in_the_c_library() {
    unsafe extern "C-unwind" fn compare(_: *const libc::c_void, _: *const libc::c_void) -> libc::c_int {
        coro::sleep(Duration::from_secs(1000));
        0
    }
    unsafe extern "C-unwind" {
        fn qsort(
            base: *mut libc::c_void,
            count: usize,
            size: usize,
            compare: unsafe extern "C-unwind" fn(*const libc::c_void, *const libc::c_void) -> libc::c_int,
        );
    }
    let mut numbers = [2u32, 1];
    // SAFETY: an array and its size; the comparison touches nothing. Unwinding through it loses nothing.
    unsafe { qsort(numbers.as_mut_ptr().cast(), 2, 4, compare) };
}

/// A folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("coro-symbols-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What a copy of this program says in a role, after `change` was done to the copy.
fn copy_says(role: &str, change: impl FnOnce(&Path) -> bool) -> Option<String> {
    let folder = Folder::new(role);
    let copy = folder.0.join("program");
    // By a child: a file that this process has open for writing, while another test forks, cannot be run.
    assert!(Command::new("cp").arg(std::env::current_exe().unwrap()).arg(&copy).status().unwrap().success());
    if !change(&copy) {
        return None;
    }
    let mut command = Command::new(&copy);
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]).env("CORO_TEST_ROLE", role);
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    let output = finish(command, LONG);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{role}: {:?}\n{text}", output.status);
    Some(text)
}

/// The dump that a child wrote, from its marks.
fn dump_in(text: &str) -> &str {
    let (_, rest) = text.split_once("DUMP\n").unwrap_or_else(|| panic!("no dump in\n{text}"));
    rest.split_once("END\n").unwrap_or_else(|| panic!("no end in\n{text}")).0
}

/// The line of the task that waits in `the_place`.
fn sleeper(dump: &str) -> &str {
    dump.lines().find(|line| line.contains("\"sleeper\"")).unwrap_or_else(|| panic!("no sleeper in\n{dump}"))
}

/// That the sleeper's stack is whole, every call with its line, inlined ones too.
#[track_caller]
fn has_lines(text: &str) {
    let dump = dump_in(text);
    assert!(dump.starts_with('#'), "advice without need: {dump}");
    let line = sleeper(dump);
    let (_, stack) = line.split_once(" [").unwrap();
    let (api, stack) = stack.split_once("] [").unwrap();
    let (file, place) = api.split_once('|').unwrap();
    assert!(file == "time/mod.rs sleep" && place.parse::<u32>().is_ok(), "{line}");
    let (stack, closure) = stack.rsplit_once(" [").unwrap();
    let expected = format!(
        "tests/symbols.rs the_place|{PLACE}] [tests/symbols.rs inlined_into_the_task|{INLINED}] \
         [tests/symbols.rs task|{CALLED}]"
    );
    assert_eq!(stack, expected, "{line}");
    if cfg!(target_env = "gnu") {
        let line = dump.lines().find(|line| line.contains("\"sorter\"")).unwrap();
        // With the C library's debug files around, more of it is known; `qsort_r` is what everybody may call.
        assert!(line.contains("[tests/symbols.rs compare|") && line.contains(" qsort_r|"), "{line}");
    }
    let place = closure.strip_prefix("tests/symbols.rs child::{closure}|").and_then(|rest| rest.strip_suffix(']'));
    assert!(place.is_some_and(|place| place.parse::<u32>().is_ok()), "{line}");
}

/// Every child: a runtime with a parked task, the fault, then the first dump of the process.
#[test]
fn child() {
    let Some(role) = role() else { return };
    let rt = runtime(1);
    spawn(&rt, "sleeper", || task::<(), _>(|n| assert!(n > 0)));
    #[cfg(target_env = "gnu")]
    spawn(&rt, "sorter", in_the_c_library);
    // Looks at counters only: the first symbol is asked for after the fault.
    until(LONG, "the task sleeps", || {
        let of = |name: &str| if name == "sorter" && !cfg!(target_env = "gnu") { 1 } else { slices(name) };
        of("sleeper") == 1 && of("sorter") == 1
    });
    let me = std::env::current_exe().unwrap();
    let mut files = Vec::new();
    match &*role {
        "deleted" => std::fs::remove_file(&me).unwrap(),
        "replaced" => {
            let other = me.with_extension("new");
            std::fs::write(&other, "another program").unwrap();
            std::fs::rename(&other, &me).unwrap();
        }
        "descriptors" => {
            while let Ok(file) = File::open("/dev/null") {
                files.push(file);
                let limit = libc::rlimit { rlim_cur: 64, rlim_max: 64 };
                // SAFETY: a valid limit.
                unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
            }
            assert!(File::open(&me).is_err());
        }
        "loader" => wedge_the_loader(&rt),
        _ => {}
    }
    let (begun, cpu) = (Instant::now(), cpu_time());
    let mut dump = Vec::new();
    coro::inspect::where_all_to(&mut dump, coro::inspect::Style::PLAIN).unwrap();
    let (took, cpu) = (begun.elapsed(), cpu_time() - cpu);
    drop(files);
    println!("DUMP\n{}END", String::from_utf8_lossy(&dump));
    // First, since whoever panics wants that lock.
    RELEASED.store(true, Ordering::Release);
    println!("{role}: {cpu:?} of CPU time in {took:?}");
    assert!(cpu < LONGEST_DUMP && took < LONG / 2, "the dump took {cpu:?} of CPU time in {took:?}");
    drop(rt);
}

/// Of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How many slices of a class have ended.
fn slices(class: &str) -> u64 {
    let all = coro::inspect::classes();
    all.iter().find(|c| &*c.class == class).map_or(0, |c| c.slice_lengths.count())
}

/// A task with its name as its class.
fn spawn(rt: &coro::Runtime, name: &'static str, f: impl FnOnce() + Send + 'static) {
    rt.block_on(move || drop(coro::Builder::new().name(name).class(name).spawn(f).unwrap()));
}

static WEDGED: AtomicBool = AtomicBool::new(false);
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Keeps the only worker inside a callback of `dl_iterate_phdr`, which holds the loader's lock.
fn wedge_the_loader(rt: &coro::Runtime) {
    unsafe extern "C" fn spin(_: *mut libc::dl_phdr_info, _: usize, _: *mut libc::c_void) -> libc::c_int {
        WEDGED.store(true, Ordering::Release);
        while !RELEASED.load(Ordering::Acquire) {
            std::hint::spin_loop();
        }
        1
    }
    spawn(rt, "wedged", || {
        // SAFETY: the callback touches nothing but two flags.
        unsafe { libc::dl_iterate_phdr(Some(spin), std::ptr::null_mut()) };
    });
    until(LONG, "the worker holds the loader's lock", || WEDGED.load(Ordering::Acquire));
}

#[test]
fn executable_deleted() {
    has_lines(&copy_says("deleted", |_| true).unwrap());
}

#[test]
fn executable_replaced() {
    has_lines(&copy_says("replaced", |_| true).unwrap());
}

#[test]
fn no_descriptors() {
    has_lines(&copy_says("descriptors", |_| true).unwrap());
}

#[test]
fn loader_lock_held() {
    let text = copy_says("loader", |_| true).unwrap();
    has_lines(&text);
    assert!(dump_in(&text).lines().any(|line| line.contains("\"wedged\"") && line.contains("running")), "{text}");
}

/// Runs a tool of binutils; false, and says so, where it is missing.
fn tool(command: &mut Command) -> Option<String> {
    match command.output() {
        Ok(output) if output.status.success() => Some(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(output) => panic!("{command:?}: {}", said(&output)),
        Err(error) => {
            println!("skipped: {command:?}: {error}");
            None
        }
    }
}

#[test]
fn stripped() {
    let Some(text) = copy_says("stripped", |copy| tool(Command::new("strip").arg(copy)).is_some()) else { return };
    let dump = dump_in(&text);
    assert!(
        dump.starts_with(&format!(
            "no names: this build is stripped. For names and lines, put into Cargo.toml:\n    [profile.{PROFILE}]\n    \
             debug = 1\n    strip = false\n#"
        )),
        "{dump}"
    );
    let footer = dump.lines().nth_back(1).unwrap();
    let (before, rest) = footer.split_once("build id ").unwrap();
    let (id, rest) = rest.split_once(')').unwrap();
    assert_eq!(
        format!("{before}ID{rest}"),
        "program is stripped (ID; the file from before says what program+0x1234 is: addr2line -Cfipe program 0x1234"
    );
    assert!(id.len() >= 16 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    // The numbers are good for the file that was not stripped.
    let line = sleeper(dump);
    let offsets: Vec<&str> = line.split("[program+").skip(1).filter_map(|rest| rest.split(']').next()).collect();
    assert!(offsets.len() > 2, "{line}");
    let mut command = Command::new("addr2line");
    command.args(["-Cfie"]).arg(std::env::current_exe().unwrap()).args(&offsets);
    let Some(names) = tool(&mut command) else { return };
    assert!(names.contains("symbols::the_place"), "{offsets:?}\n{names}");
    assert!(names.contains(&format!("tests/symbols.rs:{PLACE}")), "{offsets:?}\n{names}");
}

#[test]
fn no_debug_information() {
    let strip = |copy: &Path| tool(Command::new("strip").arg("--strip-debug").arg(copy)).is_some();
    let Some(text) = copy_says("nodebug", strip) else { return };
    let dump = dump_in(&text);
    let advice = "no lines: this build keeps no debug information. For lines and inlined calls, put into Cargo.toml:";
    let setting = "debug = 1    # or \"line-tables-only\": smaller, inlined calls without their paths";
    assert!(dump.starts_with(&format!("{advice}\n    [profile.{PROFILE}]\n    {setting}\n#")), "{dump}");
    assert!(sleeper(dump).contains("[symbols the_place|?] [symbols task|?]"), "{dump}");
}

/// The debug information in a file of its own, as distributions ship it.
#[test]
fn separate_debug_file() {
    let split = |copy: &Path| {
        let debug = copy.with_extension("debug");
        let objcopy = || Command::new("objcopy");
        tool(objcopy().arg("--only-keep-debug").arg(copy).arg(&debug)).is_some()
            && tool(Command::new("strip").arg(copy)).is_some()
            && tool(objcopy().arg(format!("--add-gnu-debuglink={}", debug.display())).arg(copy)).is_some()
    };
    if let Some(text) = copy_says("separate", split) {
        has_lines(&text);
    }
}

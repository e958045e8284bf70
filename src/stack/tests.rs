//! What only a process can show: overflow reports, limits, memory going back.
//!
//! Each case runs in a child: this same test binary, told by a variable which case to play.

use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::overflow::{self, TaskDescription};
use super::*;

const CASE: &str = "CORO_STACK_TEST_CASE";

/// Runs a case in a child process.
fn play(case: &str, env: &[(&str, &str)]) -> Output {
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "stack::tests::child", "--nocapture", "--test-threads=1"]).env(CASE, case);
    for name in ["CORO_STACK_GUARDS", "CORO_STACK_KB", "CORO_MAX_TASKS"] {
        child.env_remove(name);
    }
    child.envs(env.iter().copied()).output().unwrap()
}

#[track_caller]
fn died_by(out: &Output, signal: libc::c_int) -> String {
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    assert_eq!(out.status.signal(), Some(signal), "{:?}\n{text}", out.status);
    text
}

#[track_caller]
fn ended_well(out: &Output) {
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && stdout.contains("1 passed"), "{:?}\n{stdout}\n{stderr}", out.status);
}

/// Both ways to guard; a kernel without the light one skips it audibly.
fn modes() -> Vec<&'static str> {
    match GuardMode::current().unwrap() {
        GuardMode::Madvise => vec!["madvise", "mprotect"],
        GuardMode::Mprotect => {
            eprintln!("this kernel has no light guards: only mprotect is tested");
            vec!["mprotect"]
        }
    }
}

#[test]
fn overflow_names_task_and_size() {
    for mode in modes() {
        for case in ["overflow", "jump"] {
            let text = died_by(&play(case, &[("CORO_STACK_GUARDS", mode)]), libc::SIGABRT);
            let line = "coro: task #17 \"db \\u{1b}[31mwriter\" overflowed its stack of 192 KiB (fault at 0x";
            assert!(text.contains(line) && text.contains("CORO_STACK_KB"), "{mode} {case}: {text}");
            assert!(text.contains("frames: sane"), "{mode} {case}: {text}");
        }
    }
    let text = died_by(&play("overflow", &[("CORO_STACK_KB", "64")]), libc::SIGABRT);
    assert!(text.contains("stack of 64 KiB"), "{text}");
}

#[test]
fn overflow_without_a_description_says_a_task() {
    let text = died_by(&play("overflow-unnamed", &[]), libc::SIGABRT);
    assert!(text.contains("coro: a task overflowed its stack of 192 KiB (fault at 0x"), "{text}");
}

#[test]
fn overflow_on_a_worker_thread_is_reported() {
    let text = died_by(&play("overflow-thread", &[]), libc::SIGABRT);
    assert!(text.contains("coro: task #17"), "{text}");
}

#[test]
fn a_stray_access_to_a_guard_is_no_overflow() {
    let text = died_by(&play("stray", &[]), libc::SIGSEGV);
    assert!(text.contains("touched the guard of another task's stack") && !text.contains("overflowed"), "{text}");
}

#[test]
fn a_fault_while_reporting_ends_it() {
    let text = died_by(&play("nested", &[]), libc::SIGABRT);
    assert!(text.contains("task #17") && text.contains("another fault while reporting"), "{text}");
}

#[test]
fn a_report_that_hangs_is_cut_off() {
    let text = died_by(&play("hang", &[]), libc::SIGALRM);
    assert!(text.contains("task #17"), "{text}");
}

#[test]
fn other_overflows_reach_std() {
    for (case, thread) in [("std-main", "thread 'main'"), ("std-thread", "thread '<un")] {
        let text = died_by(&play(case, &[]), libc::SIGABRT);
        assert!(
            text.contains(thread) && text.contains("has overflowed its stack") && !text.contains("coro:"),
            "{case}: {text}"
        );
    }
}

#[test]
fn other_faults_and_signals_kill_as_before() {
    for case in ["null", "null-on-task", "kill", "kill-default", "null-default", "null-ignored"] {
        let text = died_by(&play(case, &[]), libc::SIGSEGV);
        assert!(!text.contains("coro:"), "{case}: {text}");
    }
    ended_well(&play("kill-ignored", &[]));
    assert_eq!(play("null-own-handler", &[]).status.code(), Some(42));
    assert_eq!(play("null-own-plain-handler", &[]).status.code(), Some(43));
}

#[test]
fn signals_land_on_the_alternate_stack() {
    for mode in modes() {
        ended_well(&play("storm", &[("CORO_STACK_GUARDS", mode)]));
    }
}

#[test]
fn the_mapping_limit_gives_an_error_and_mappings_come_back() {
    ended_well(&play("mapping-limit", &[("CORO_STACK_GUARDS", "mprotect")]));
}

#[test]
fn wrong_settings_are_errors() {
    ended_well(&play("bad-guards", &[("CORO_STACK_GUARDS", "none")]));
    ended_well(&play("bad-size", &[("CORO_STACK_KB", "much")]));
    ended_well(&play("max-tasks", &[("CORO_MAX_TASKS", "100")]));
    ended_well(&play("bad-max-tasks", &[("CORO_MAX_TASKS", "0")]));
}

#[test]
fn limited_address_space_gives_errors_and_leaves_room() {
    for mode in modes() {
        ended_well(&play("address-space", &[("CORO_STACK_GUARDS", mode)]));
    }
}

#[test]
fn trim_returns_memory_and_page_tables() {
    for mode in modes() {
        ended_well(&play("trim", &[("CORO_STACK_GUARDS", mode)]));
    }
}

/// Not a test of its own: plays the case the parent asks for.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    let default = || default_class().unwrap();
    match case.as_str() {
        "overflow" => overflow_on(default(), || recurse(1)),
        "jump" => overflow_on(default(), jump),
        "overflow-thread" => {
            std::thread::spawn(move || overflow_on(default_class().unwrap(), || recurse(1))).join().unwrap()
        }
        "overflow-unnamed" => {
            overflow::install().unwrap();
            let _alt = AltStack::install().unwrap();
            run_on(&StackPool::new().take(default()).unwrap(), || recurse(1));
        }
        "stray" => {
            let mut pool = StackPool::new();
            let other = pool.take(default()).unwrap();
            STRAY.store(other.limit() - 8, Ordering::Relaxed);
            TOP.store(usize::MAX, Ordering::Relaxed);
            overflow_on(default(), || poke(STRAY.load(Ordering::Relaxed)));
        }
        "nested" => {
            overflow::frames_with(|_, _, _| poke(0), || ());
            REPORT.store(1, Ordering::Relaxed);
            overflow_on(default(), || recurse(1));
        }
        "hang" => {
            fn for_ever() {
                loop {
                    std::hint::spin_loop();
                }
            }
            overflow::frames_with(|_, _, _| for_ever(), for_ever);
            REPORT.store(1, Ordering::Relaxed);
            overflow_on(default(), || recurse(1));
        }
        "std-main" => {
            // The test harness gives tests a thread of their own; a signal gets us onto the main one.
            extern "C" fn overflow_here(_: libc::c_int) {
                recurse(1);
            }
            overflow::install().unwrap();
            // SAFETY: the handler only uses up its stack; the main thread's id is the process's.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = overflow_here as *const () as usize;
                assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
                assert_eq!(libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::getpid(), libc::SIGUSR1), 0);
            }
            std::thread::sleep(Duration::from_secs(10));
        }
        "std-thread" => {
            overflow::install().unwrap();
            drop(AltStack::install().unwrap());
            // Also shows that std's alternate stack is back after ours.
            std::thread::spawn(|| {
                drop(AltStack::install().unwrap());
                recurse(1)
            })
            .join()
            .unwrap();
        }
        "null" => {
            overflow::install().unwrap();
            poke(0);
        }
        "null-on-task" => overflow_on(default(), || poke(0)),
        "null-default" | "kill-default" => {
            before(libc::SIG_DFL, 0);
            overflow::install().unwrap();
            if case == "null-default" { poke(0) } else { kill() }
        }
        "null-ignored" | "kill-ignored" => {
            before(libc::SIG_IGN, 0);
            overflow::install().unwrap();
            if case == "null-ignored" { poke(0) } else { kill() }
        }
        "null-own-handler" => {
            extern "C" fn own(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
                // SAFETY: called by the system, or by a handler that passes its arguments on; ends the process.
                unsafe { libc::_exit(if (*info).si_addr().is_null() && !context.is_null() { 42 } else { 1 }) }
            }
            before(own as *const () as usize, libc::SA_SIGINFO);
            overflow::install().unwrap();
            poke(0);
        }
        "null-own-plain-handler" => {
            extern "C" fn own(_: libc::c_int) {
                // SAFETY: ends the process.
                unsafe { libc::_exit(43) }
            }
            before(own as *const () as usize, 0);
            overflow::install().unwrap();
            poke(0);
        }
        "kill" => {
            overflow::install().unwrap();
            // SAFETY: a signal to this process; any thread may get it.
            unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) };
            std::thread::sleep(Duration::from_secs(10));
        }
        "storm" => {
            static COUNT: AtomicUsize = AtomicUsize::new(0);
            extern "C" fn count(_: libc::c_int) {
                let here = std::hint::black_box(0u8);
                if slot_of((&raw const here).addr()).is_none() {
                    COUNT.fetch_add(1, Ordering::Relaxed);
                }
            }
            // SAFETY: the handler only adds to an atomic.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = count as *const () as usize;
                action.sa_flags = libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()), 0);
            }
            let _alt = AltStack::install().unwrap();
            let mut pool = StackPool::new();
            let stack = pool.take(class_for(1).unwrap()).unwrap();
            run_on(&stack, || {
                for _ in 0..100_000 {
                    // SAFETY: the handler is ours.
                    unsafe { libc::raise(libc::SIGUSR1) };
                }
            });
            assert_eq!(COUNT.load(Ordering::Relaxed), 100_000, "on the alternate stack");
            pool.give(stack);
        }
        "mapping-limit" => mapping_limit(),
        "bad-guards" => {
            for text in [
                StackPool::new().take(default()).unwrap_err().to_string(),
                try_reserve(default()).unwrap_err().to_string(),
                stats().unwrap_err().to_string(),
            ] {
                assert!(text.contains("CORO_STACK_GUARDS") && text.contains("madvise or mprotect"), "{text}");
            }
        }
        "bad-size" => assert!(default_class().unwrap_err().to_string().contains("CORO_STACK_KB=\"much\"")),
        "max-tasks" => {
            let mut held = 0;
            let error = loop {
                match try_reserve_many(default(), 64) {
                    Ok(n) => held += n,
                    Err(error) => break error,
                }
            };
            assert_eq!((held, error.kind()), (100, std::io::ErrorKind::QuotaExceeded));
            assert!(error.to_string().contains("raise or unset CORO_MAX_TASKS"), "{error}");
            let other = class_for(1).unwrap();
            assert!(try_reserve(other).is_err(), "the limit counts all classes");
            release(default());
            try_reserve(other).unwrap();
        }
        "bad-max-tasks" => assert!(try_reserve(default()).unwrap_err().to_string().contains("CORO_MAX_TASKS=\"0\"")),
        "address-space" => {
            let limit = libc::rlimit { rlim_cur: 1 << 30, rlim_max: 1 << 30 };
            // SAFETY: limits this process only.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
            let mut pool = StackPool::new();
            let mut all = Vec::new();
            let error = loop {
                match pool.take(default()) {
                    Ok(stack) => all.push(stack),
                    Err(error) => break error,
                }
            };
            assert!(error.to_string().contains("ulimit -v"), "{error}");
            let (granted, huge) = (try_reserve_many(default(), 1 << 20).unwrap(), class_for(64 << 20).unwrap());
            assert!(all.len() == 1024 && granted > 512, "a quarter of the limit");
            assert!(pool.take(huge).is_ok() || try_reserve(huge).is_err());
            drop(vec![1u8; 64 << 20]);
        }
        "trim" => trim(),
        "figures" => figures(),
        other => panic!("no case {other}"),
    }
}

static STRAY: AtomicUsize = AtomicUsize::new(0);
static TOP: AtomicUsize = AtomicUsize::new(0);
static REPORT: AtomicUsize = AtomicUsize::new(0);

/// Runs `f`, which faults, on a fresh stack of a worker that is set up completely.
fn overflow_on(class: ClassId, f: fn()) {
    overflow::install().unwrap();
    overflow::install().unwrap();
    let _alt = AltStack::install().unwrap();
    let mut pool = StackPool::new();
    let (below, stack) = (pool.take(class).unwrap(), pool.take(class).unwrap());
    assert_eq!(below.slot_top() + class::GUARD, stack.limit());
    let _ = TOP.compare_exchange(0, stack.slot_top(), Ordering::Relaxed, Ordering::Relaxed);
    overflow::describe_with(|task: &mut TaskDescription| {
        let name = b"db \x1b[31mwriter";
        task.name[..name.len()].copy_from_slice(name);
        (task.known, task.id, task.name_len, task.slot_top) = (true, 17, name.len(), TOP.load(Ordering::Relaxed));
    });
    if REPORT.load(Ordering::Relaxed) == 0 {
        overflow::frames_with(
            |regs, low, top| {
                let sane = regs.ip != 0
                    && regs.sp < top
                    && regs.sp + (1 << 20) > low
                    && top - low == TOP_SIZE.load(Ordering::Relaxed);
                let _ = writeln!(std::io::stderr(), "frames: {}", if sane { "sane" } else { "wrong" });
            },
            || (),
        );
    }
    TOP_SIZE.store(stack.usable_size(), Ordering::Relaxed);
    run_on(&stack, f);
    std::process::exit(1);
}

static TOP_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Calls `f` on another stack.
fn run_on(stack: &Stack, f: fn()) {
    #[allow(improper_ctypes_definitions, reason = "both sides are Rust")]
    extern "C" fn call(f: fn()) {
        f();
    }
    // SAFETY: the stack is ours and unused, r12 survives the call.
    unsafe {
        std::arch::asm!(
            "mov r12, rsp", "mov rsp, {top}", "call {call}", "mov rsp, r12",
            top = in(reg) stack.top(), call = sym call, in("rdi") f as usize,
            out("r12") _, clobber_abi("C"),
        );
    }
}

#[allow(unconditional_recursion, reason = "that is the point")]
fn recurse(depth: u64) {
    let frame = std::hint::black_box([depth; 32]);
    recurse(frame[3] + 1);
    std::hint::black_box(&frame);
}

/// A frame of 60 KiB more than there is, without a stack probe, as C compilers make it.
fn jump() {
    let below = TOP_SIZE.load(Ordering::Relaxed) + (60 << 10);
    // SAFETY: the write lands in the guard and ends the process.
    unsafe {
        std::arch::asm!("mov r12, rsp", "sub rsp, {below}", "mov qword ptr [rsp], 1", "mov rsp, r12", below = in(reg) below, out("r12") _);
    }
}

fn poke(addr: usize) {
    // SAFETY: faults and ends the process.
    unsafe { std::arch::asm!("mov byte ptr [{0}], 1", in(reg) addr) };
}

/// Sends the signal to this thread, so that it has come when the call returns.
fn kill() {
    // SAFETY: the tests are about what this does.
    unsafe { libc::raise(libc::SIGSEGV) };
}

/// Replaces std's handler, as an application may have done before the runtime starts.
fn before(handler: usize, flags: libc::c_int) {
    // SAFETY: the handlers passed here are async-signal-safe and match the flags.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        (action.sa_sigaction, action.sa_flags) = (handler, flags);
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
    }
}

fn touch(stack: &Stack) {
    // SAFETY: the stack is ours and unused.
    unsafe { stack.top().sub(8).write_volatile(1) };
}

/// Resident memory and page tables in KiB.
fn memory() -> (usize, usize) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (field("VmRSS:"), field("VmPTE:"))
}

fn maps() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn mapping_limit() {
    let class = default_class().unwrap();
    let most = crate::sys::mem::max_map_count().unwrap() / 2 / 2;
    let mut pool = StackPool::new();
    let mut all = Vec::new();
    let error = loop {
        match pool.take(class) {
            Ok(stack) => all.push(stack),
            Err(error) => break error,
        }
    };
    assert_eq!(all.len(), most);
    let text = error.to_string();
    assert!(text.contains("vm.max_map_count") && text.contains(&format!("at least {}", 4 * (most + 1))), "{text}");
    let figures = stats().unwrap();
    assert_eq!(
        (figures.guard_mappings, figures.guards, figures.classes[0].in_use),
        (2 * most, GuardMode::Mprotect, most)
    );
    assert!(maps() > 2 * most - 64);
    // Other memory is not starved.
    assert!(crate::sys::mem::map(4096, crate::sys::mem::Access::ReadWrite).is_ok());
    let mut held = 0;
    while let Ok(n) = try_reserve_many(class, 1000) {
        held += n;
    }
    assert_eq!(held, most);
    assert!(try_reserve(class).unwrap_err().to_string().contains("vm.max_map_count"));
    all.into_iter().for_each(|stack| pool.give(stack));
    while pool.trim_step(0) {}
    assert_eq!(stats().unwrap().guard_mappings, 0);
    assert!(maps() < 200, "{} mappings left", maps());
    let stack = pool.take(class).unwrap();
    touch(&stack);
    pool.give(stack);
}

fn trim() {
    let class = default_class().unwrap();
    let light = GuardMode::current().unwrap() == GuardMode::Madvise;
    let count = if light { 120_000 } else { 16_000 };
    let mut pool = StackPool::new();
    let mut all = Vec::with_capacity(count);
    let lines = maps();
    let start = memory();
    for round in 0..2 {
        for _ in 0..count {
            let stack = pool.take(class).unwrap();
            touch(&stack);
            all.push(stack);
        }
        let full = memory();
        assert!(full.0 - start.0 > count * 4 && full.1 > start.1 + count / 4, "{start:?} {full:?}");
        assert!(!light || maps() < lines + 20, "{} mappings", maps());
        // Every other slab stays: retired ones must merge with their neighbours again, or mappings run out.
        let slots = class.geometry().slots;
        let stays = |stack: &mut Stack| slot_of(stack.limit()).unwrap().index.is_multiple_of(2 * slots);
        let held: Vec<_> = all.extract_if(.., stays).collect();
        all.drain(..).for_each(|stack| pool.give(stack));
        while pool.trim_step(0) {}
        assert!(!light || maps() < lines + 20, "{} mappings", maps());
        held.into_iter().for_each(|stack| pool.give(stack));
        while pool.trim_step(0) {}
        let end = memory();
        eprintln!("round {round}: KiB resident, page tables: {start:?}, full {full:?}, trimmed {end:?}");
        assert!(end.0 < start.0 + 6000 && end.1 < start.1 + 400, "{start:?} {full:?} {end:?}");
        assert!(maps() < lines + 20, "{} mappings", maps());
    }
}

/// `cargo test --release -- --ignored --nocapture figures`
#[test]
#[ignore = "measures"]
fn print_figures() {
    let out = play("figures", &[]);
    eprintln!("{}", String::from_utf8_lossy(&out.stderr));
    ended_well(&out);
}

fn figures() {
    let class = default_class().unwrap();
    let mut pool = StackPool::new();
    let per = |from: Instant, n: usize| from.elapsed().as_secs_f64() * 1e9 / n as f64;
    for live in [0, 1, 63, 1000] {
        let held: Vec<_> = (0..live).map(|_| pool.take(class).unwrap()).collect();
        let n = 10_000_000;
        let from = Instant::now();
        for _ in 0..n {
            let stack = pool.take(class).unwrap();
            std::hint::black_box(stack.top());
            pool.give(stack);
        }
        eprintln!("take + give, {live} others in use: {:.2} ns", per(from, n));
        held.into_iter().for_each(|stack| pool.give(stack));
    }
    let mut wave = Vec::with_capacity(1000);
    let from = Instant::now();
    for _ in 0..10_000 {
        for _ in 0..1000 {
            wave.push(pool.take(class).unwrap());
        }
        wave.drain(..).for_each(|stack| pool.give(stack));
    }
    eprintln!("take + give in waves of 1,000: {:.2} ns", per(from, 10_000_000));
    while pool.trim_step(0) {}
    let (lines, start) = (maps(), memory());
    let count = 1_000_000;
    let mut all = Vec::with_capacity(count);
    let from = Instant::now();
    for _ in 0..count {
        all.push(pool.take(class).unwrap());
    }
    eprintln!("fresh slot, untouched: {:.0} ns", per(from, count));
    let from = Instant::now();
    all.iter().for_each(touch);
    eprintln!("first touch: {:.0} ns", per(from, count));
    let full = memory();
    eprintln!("1,000,000 in use: {} mappings ({lines} before), resident + tables {} KiB each", maps(), {
        (full.0 + full.1 - start.0 - start.1) as f64 / count as f64
    });
    // As tasks end: in no order.
    let mut seed = 88172645463325252u64;
    for i in (1..count).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        all.swap(i, (seed % (i as u64 + 1)) as usize);
    }
    let from = Instant::now();
    all.drain(..).for_each(|stack| pool.give(stack));
    eprintln!("give in random order: {:.0} ns", per(from, count));
    let from = Instant::now();
    let (mut steps, mut longest) = (0, 0.0f64);
    loop {
        let step = Instant::now();
        if !pool.trim_step(0) {
            break;
        }
        longest = longest.max(step.elapsed().as_secs_f64());
        steps += 1;
    }
    eprintln!("trim: {:.2} s in {steps} steps, the longest {:.0} us", from.elapsed().as_secs_f64(), longest * 1e6);
    drop(all);
    eprintln!(
        "KiB resident, page tables: before {start:?}, full {full:?}, trimmed {:?}; {} mappings",
        memory(),
        maps()
    );
    let from = Instant::now();
    for i in 0..1_000_000usize {
        std::hint::black_box(slot_of(std::hint::black_box(i)));
    }
    eprintln!("slot_of: {:.1} ns", per(from, 1_000_000));
}

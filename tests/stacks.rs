//! What only a process can show of task stacks: overflow reports, foreign faults, limits, memory going back.
//!
//! Each case runs in a child: this program again, told by a variable which case to play.

mod util;

use std::os::unix::process::ExitStatusExt;
use std::process::Output;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use util::{again, finish, role, runtime, said, until};

const LONG: Duration = Duration::from_secs(60);
const PATHS: [&str; 2] = ["madvise", "mprotect"];

fn play(case: &str, env: &[(&str, &str)]) -> Output {
    let mut command = again("child", case);
    command.envs(env.iter().copied());
    finish(command, LONG)
}

/// Whether this kernel has light guards. Without them that half of a test says that it was left out.
fn has(path: &str) -> bool {
    let there = path == "mprotect" || play("nothing", &[("CORO_STACK_GUARDS", path)]).status.success();
    if !there {
        eprintln!("this kernel refuses CORO_STACK_GUARDS={path}: not tested");
    }
    there
}

fn paths() -> impl Iterator<Item = &'static str> {
    PATHS.into_iter().filter(|path| has(path))
}

#[track_caller]
fn died_by(output: &Output, signal: libc::c_int) -> String {
    let text = said(output);
    assert_eq!(output.status.signal(), Some(signal), "{:?}\n{text}", output.status);
    text
}

#[track_caller]
fn ended_well(case: &str, env: &[(&str, &str)]) -> String {
    let output = play(case, env);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{case} {env:?}: {:?}\n{text}", output.status);
    text
}

#[track_caller]
fn contains(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in:\n{text}");
    }
}

#[test]
fn an_overflow_names_the_task_its_stack_and_its_frames() {
    for path in paths() {
        let text = died_by(&play("overflow", &[("CORO_STACK_GUARDS", path)]), libc::SIGABRT);
        contains(&text, &["coro: task #", "\"deep \\u{1b}[31mdiver\" overflowed its stack of 192 KiB (fault at 0x"]);
        contains(&text, &["Builder::stack_size", "CORO_STACK_KB"]);
        whole(&text);
        let text = died_by(&play("overflow-large", &[("CORO_STACK_GUARDS", path)]), libc::SIGABRT);
        contains(&text, &["overflowed its stack of 1024 KiB"]);
        whole(&text);
    }
    let text = died_by(&play("overflow", &[("CORO_STACK_KB", "64")]), libc::SIGABRT);
    contains(&text, &["stack of 64 KiB"]);
    // On the second slice, when the task has been parked in between, and with other workers at work.
    let text = died_by(&play("overflow-later", &[]), libc::SIGABRT);
    contains(&text, &["\"sleeper\" overflowed its stack of 192 KiB"]);
    whole(&text);
}

/// Both ends of the stack are there: who recursed, and who began with it; with lines, unless the machine was too slow.
#[track_caller]
fn whole(text: &str) {
    let frames: Vec<&str> = text.lines().filter(|l| l.starts_with("coro:   ")).collect();
    assert_eq!(frames.len(), 49, "{text}");
    assert!(
        frames[..24].iter().all(|l| l.contains("[tests/stacks.rs descend|") || l.contains("[descend+0x")),
        "{text}"
    );
    assert!(frames[0].starts_with("coro:      0 [") && frames[24].ends_with(" frames ..."), "{text}");
    assert!(frames[25..].iter().any(|l| l.contains("child::{closure}")), "{text}");
    assert!(frames[48].contains("task_main"), "{text}");
}

#[test]
fn a_frame_without_probes_hits_the_guard() {
    for path in paths() {
        let text = died_by(&play("jump", &[("CORO_STACK_GUARDS", path)]), libc::SIGABRT);
        contains(&text, &["\"jumper\" overflowed its stack of 16 KiB"]);
        assert!(!text.contains("a neighbour was overwritten"), "{text}");
    }
}

#[test]
fn overflows_of_threads_and_other_faults_end_as_without_us() {
    for (case, thread) in [("overflow-thread", "thread 'plain'"), ("overflow-here", "thread '")] {
        let text = died_by(&play(case, &[]), libc::SIGABRT);
        contains(&text, &[thread, "has overflowed its stack"]);
        assert!(!text.contains("coro: "), "{case}: {text}");
    }
    for case in ["null-in-task", "null-on-thread", "kill-in-task", "kill-on-thread"] {
        let text = died_by(&play(case, &[]), libc::SIGSEGV);
        assert!(!text.contains("coro: "), "{case}: {text}");
    }
}

#[test]
fn recursion_just_below_the_limit_works() {
    for path in paths() {
        ended_well("just-below", &[("CORO_STACK_GUARDS", path)]);
    }
}

#[test]
fn a_hundred_thousand_tasks_park_without_mappings() {
    if has("madvise") {
        println!("{}", ended_well("hundred-thousand", &[("CORO_STACK_GUARDS", "madvise")]));
    }
}

#[test]
fn the_limit_of_mappings_is_an_error_that_names_the_setting() {
    println!("{}", ended_well("mapping-limit", &[("CORO_STACK_GUARDS", "mprotect")]));
}

#[test]
fn little_address_space_is_an_error_and_never_a_crash() {
    for path in paths() {
        println!("{}", ended_well("address-space", &[("CORO_STACK_GUARDS", path)]));
    }
    // So little that not even a runtime may fit.
    println!("{}", ended_well("no-space", &[]));
}

#[test]
fn memory_returns_after_a_burst() {
    for path in paths() {
        println!("{}", ended_well("burst", &[("CORO_STACK_GUARDS", path)]));
    }
}

#[test]
fn wrong_settings_are_clear_errors() {
    for (name, values, words) in [
        ("CORO_STACK_KB", &["0", "much", "-1", "", "99999999"][..], "CORO_STACK_KB"),
        ("CORO_STACK_GUARDS", &["none", "", "MADVISE"][..], "set it to madvise or mprotect"),
        ("CORO_WORKERS", &["two", "", "-3", "1.5"][..], "CORO_WORKERS"),
        ("CORO_WORKERS", &["0", "100000"][..], "from 1 to"),
        ("CORO_MAX_TASKS", &["0", "many", ""][..], "CORO_MAX_TASKS"),
    ] {
        for value in values {
            let text = ended_well("setting", &[(name, value)]);
            contains(&text, &["refused: ", words]);
            // A program that does not look at errors gets a panic with the same words, in bounded time.
            let output = play("setting-run", &[(name, value)]);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(101), "{name}={value}: {:?}\n{text}", output.status);
            contains(&text, &["coro::run cannot start", words]);
        }
    }
    let text = ended_well("max-tasks", &[("CORO_MAX_TASKS", "100")]);
    contains(&text, &["the limit of 100 tasks", "CORO_MAX_TASKS"]);
    for size in [0, usize::MAX, (64 << 20) + 1] {
        let error = runtime(1).block_on(move || coro::Builder::new().stack_size(size).spawn(|| ()).unwrap_err());
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
        contains(&error.to_string(), &["ask for"]);
        assert!(coro::Runtime::builder().workers(1).stack_size(size).build().is_err());
    }
    assert!(coro::Runtime::builder().workers(0).build().unwrap_err().to_string().contains("from 1 to"));
}

/// Recursion that the optimiser leaves alone; touches every page on its way.
#[inline(never)]
fn descend(levels: usize) -> usize {
    let mut frame = [0u8; 512];
    std::hint::black_box(&mut frame);
    let below = if levels == 0 { 0 } else { descend(levels - 1) };
    std::hint::black_box(&mut frame);
    below + usize::from(frame[0]) + 1
}

/// Recursion to a depth in bytes below `top`.
#[inline(never)]
fn descend_to(top: usize, depth: usize) {
    let mut frame = [0u8; 64];
    let here = std::hint::black_box(&mut frame).as_ptr().addr();
    if top - here < depth {
        descend_to(top, depth);
    }
    std::hint::black_box(&mut frame);
}

/// What a C compiler makes of a large local without stack probes: the stack pointer moves 60 KiB at once, and the first
/// write is at the far end.
#[inline(never)]
fn jump() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: none: that is the point. The stack pointer is put back; what is written lies below it.
    unsafe {
        std::arch::asm!("sub rsp, 61440", "mov qword ptr [rsp], 0x5a5a5a5a", "add rsp, 61440");
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("sub sp, sp, #15, lsl #12", "str xzr, [sp]", "add sp, sp, #15, lsl #12");
    }
}

fn fault() {
    // SAFETY: none: the process is to die of it.
    unsafe { std::ptr::null_mut::<u8>().with_addr(8).write_volatile(1) };
}

fn kill() {
    // SAFETY: sends a signal to ourselves.
    unsafe { libc::kill(libc::getpid(), libc::SIGSEGV) };
    std::thread::sleep(Duration::from_secs(20));
}

/// Resident memory and page tables, in bytes.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = |name: &str| -> usize {
        let line = status.lines().find(|l| l.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    };
    (kib("VmRSS:") + kib("VmPTE:")) << 10
}

fn address_space() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().next().unwrap().parse::<usize>().unwrap() * 4096
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

static PARKED: AtomicUsize = AtomicUsize::new(0);

/// A task that counts itself and parks until it is told to end; it then shows that its stack is still its own.
fn waits() -> std::io::Result<coro::JoinHandle<usize>> {
    coro::Builder::new().spawn(|| {
        let mark = std::hint::black_box([coro::current().unwrap().id(); 16]);
        PARKED.fetch_add(1, Ordering::Relaxed);
        coro::park();
        let me = coro::current().unwrap().id();
        assert!(std::hint::black_box(mark).iter().all(|id| *id == me), "somebody wrote on this stack");
        1
    })
}

/// Waiting tasks until `most` or the first refusal.
fn fill(most: usize) -> (Vec<coro::JoinHandle<usize>>, Option<std::io::Error>) {
    let mut tasks = Vec::new();
    while tasks.len() < most {
        match waits() {
            Ok(task) => tasks.push(task),
            Err(e) => return (tasks, Some(e)),
        }
        if tasks.len() % 1000 == 0 {
            coro::yield_slice();
        }
    }
    (tasks, None)
}

fn all_parked(n: usize) {
    until(LONG, "all tasks park", || PARKED.load(Ordering::Relaxed) == n);
}

fn end(tasks: Vec<coro::JoinHandle<usize>>) -> usize {
    for task in &tasks {
        assert!(task.task().unpark());
    }
    PARKED.store(0, Ordering::Relaxed);
    tasks.into_iter().map(|t| t.join().expect("an earlier task goes on working")).sum()
}

fn limit_address_space(bytes: usize) {
    let limit = libc::rlimit { rlim_cur: bytes as libc::rlim_t, rlim_max: bytes as libc::rlim_t };
    // SAFETY: the structure lives across the call.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) }, 0);
}

/// Not a test of its own: plays the case that the parent asks for.
#[test]
fn child() {
    let Some(case) = role() else { return };
    match case.as_str() {
        "nothing" => runtime(1).block_on(|| ()),
        "overflow" => runtime(2).block_on(|| {
            let _ = coro::spawn_named("deep \x1b[31mdiver", || descend(100_000)).join();
        }),
        "overflow-large" => runtime(2).block_on(|| {
            let _ = coro::Builder::new().stack_size(1 << 20).spawn(|| descend(100_000)).unwrap().join();
        }),
        "overflow-later" => runtime(2).block_on(|| {
            let others: Vec<_> = (0..20)
                .map(|_| {
                    coro::spawn(|| {
                        loop {
                            coro::yield_slice();
                        }
                    })
                })
                .collect();
            let sleeper = coro::spawn_named("sleeper", || {
                coro::sleep(Duration::from_millis(20));
                descend(100_000)
            });
            let _ = sleeper.join();
            drop(others);
        }),
        "jump" => runtime(1).block_on(|| {
            // Neighbours on both sides, who would notice.
            let small = || coro::Builder::new().stack_size(16 << 10);
            let neighbours = |n: usize| -> Vec<_> {
                (0..n)
                    .map(|_| {
                        small()
                            .spawn(|| {
                                let mark = std::hint::black_box([0xabu8; 1 << 10]);
                                coro::park();
                                if std::hint::black_box(mark).iter().any(|b| *b != 0xab) {
                                    eprintln!("a neighbour was overwritten");
                                }
                            })
                            .unwrap()
                    })
                    .collect()
            };
            let before = neighbours(8);
            coro::yield_slice();
            let jumper = small().name("jumper").spawn(|| {
                coro::sleep(Duration::from_millis(5));
                jump();
            });
            let after = neighbours(8);
            let _ = jumper.unwrap().join();
            for task in before.iter().chain(&after) {
                task.task().unpark();
            }
            before.into_iter().chain(after).for_each(|t| t.join().unwrap());
        }),
        "overflow-thread" => {
            runtime(1).block_on(|| ());
            let thread = std::thread::Builder::new().name("plain".into()).spawn(|| descend(10_000_000)).unwrap();
            let _ = thread.join();
        }
        "overflow-here" => {
            let _rt = runtime(1);
            descend(10_000_000);
        }
        "null-in-task" => runtime(1).block_on(fault),
        "null-on-thread" => {
            let _rt = runtime(1);
            std::thread::spawn(fault).join().unwrap();
        }
        "kill-in-task" => runtime(1).block_on(kill),
        "kill-on-thread" => {
            let _rt = runtime(1);
            kill();
        }
        "just-below" => runtime(1).block_on(|| {
            for kib in [16, 64, 192, 1024] {
                for _ in 0..50 {
                    let task = coro::Builder::new().stack_size(kib << 10).spawn(move || {
                        let top = 0u8;
                        let top = std::hint::black_box(&top) as *const u8 as usize;
                        // What the runtime's own frames and the deepest call need stays: 3 KiB.
                        descend_to(top, (kib << 10) - (3 << 10));
                    });
                    task.unwrap().join().expect("it fits");
                }
            }
        }),
        "hundred-thousand" => runtime(2).block_on(|| {
            const N: usize = 100_000;
            let (before, start) = (memory(), Instant::now());
            let (tasks, refused) = fill(N);
            assert!(refused.is_none(), "{refused:?}");
            all_parked(N);
            let each = (memory() - before) / N;
            println!("{N} tasks in {:?}: {each} bytes each, {} mappings", start.elapsed(), mappings());
            assert!(mappings() < 150, "{} mappings", mappings());
            assert!(each < 5500, "{each} bytes each");
            assert_eq!(end(tasks), N);
        }),
        "mapping-limit" => runtime(2).block_on(|| {
            let most: usize = std::fs::read_to_string("/proc/sys/vm/max_map_count").unwrap().trim().parse().unwrap();
            let (tasks, refused) = fill(most);
            let n = tasks.len();
            let text = refused.expect("a limit is met").to_string();
            contains(&text, &["vm.max_map_count", &format!("{most}"), "sysctl -w vm.max_map_count="]);
            all_parked(n);
            println!("{n} tasks with {} mappings, then: {text}", mappings());
            assert!(n > most / 4 - 2000 && mappings() < most * 3 / 4, "{n} tasks, {} mappings", mappings());
            // The program itself still has room, and the tasks that exist work on.
            std::thread::spawn(|| drop(vec![1u8; 10 << 20])).join().unwrap();
            assert_eq!(end(tasks), n);
            // The place is there again.
            let (again, _) = fill(n / 2);
            assert_eq!(again.len(), n / 2);
            all_parked(n / 2);
            assert_eq!(end(again), n / 2);
        }),
        "address-space" => {
            limit_address_space(address_space() + (768 << 20));
            runtime(2).block_on(|| {
                let (tasks, refused) = fill(200_000);
                let n = tasks.len();
                let text = refused.expect("a limit is met").to_string();
                println!("{n} tasks, then: {text}");
                contains(&text, &["stacks of 192 KiB", "ulimit -v"]);
                assert!(n > 100, "{n}");
                all_parked(n);
                assert_eq!(end(tasks), n);
            });
        }
        "no-space" => {
            // From nothing upwards: each attempt gives a runtime or an error.
            let base = address_space();
            let limit = libc::rlimit { rlim_cur: (base + (1 << 20)) as libc::rlim_t, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: the structure lives across the calls.
            let set = |mib: usize| unsafe {
                let limit = libc::rlimit { rlim_cur: (base + (mib << 20)) as libc::rlim_t, ..limit };
                assert_eq!(libc::setrlimit(libc::RLIMIT_AS, &limit), 0);
            };
            let mut refused = 0;
            for mib in [2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512] {
                set(mib);
                let built = coro::Runtime::builder().workers(2).build();
                let outcome = built.and_then(|rt| {
                    // From a plain thread, so that an error of the first spawn is one, not a panic.
                    let task = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rt.spawn(|| 7)));
                    let value = match task {
                        Ok(task) => task.join().unwrap(),
                        Err(_) => return Err(std::io::Error::other("spawn panicked, as documented")),
                    };
                    assert_eq!(value, 7);
                    Ok(())
                });
                set(4096);
                if let Err(e) = outcome {
                    refused += 1;
                    println!("with {mib} MiB: {e}");
                }
            }
            assert!(refused > 0 && refused < 13, "{refused}");
        }
        "burst" => {
            let light = std::env::var("CORO_STACK_GUARDS").unwrap() == "madvise";
            let n = if light { 50_000 } else { 10_000 };
            let rt = runtime(2);
            let once = |n: usize| {
                rt.block_on(move || {
                    let (tasks, refused) = fill(n);
                    assert!(refused.is_none(), "{refused:?}");
                    all_parked(n);
                    assert_eq!(end(tasks), n);
                });
            };
            once(100);
            let (before, maps) = (memory(), mappings());
            for round in 0..2 {
                let start = Instant::now();
                once(n);
                let peak = memory();
                until(Duration::from_secs(10), "the memory goes back", || memory() < before + (16 << 20));
                println!(
                    "{n} tasks, round {round}: {} KiB before, {} KiB after their end, {} KiB after {:?}; mappings {maps} -> {}",
                    before >> 10,
                    peak >> 10,
                    memory() >> 10,
                    start.elapsed(),
                    mappings()
                );
            }
        }
        "setting" => {
            let outcome = coro::Runtime::builder().build().and_then(|rt| {
                // The limit on tasks is looked at by the first spawn.
                let task = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rt.spawn(|| ())));
                task.map(drop).map_err(|payload| {
                    std::io::Error::other(payload.downcast_ref::<String>().cloned().unwrap_or_default())
                })
            });
            println!("refused: {}", outcome.expect_err("a wrong value is refused"));
        }
        "setting-run" => coro::run(|| ()),
        "max-tasks" => runtime(2).block_on(|| {
            let (tasks, refused) = fill(1000);
            println!("{} tasks, then: {}", tasks.len(), refused.expect("the limit is met"));
            // This task is one of them, and credits may lie with the other worker.
            assert!(tasks.len() >= 50 && tasks.len() < 100, "{}", tasks.len());
            all_parked(tasks.len());
            end(tasks);
        }),
        other => panic!("no case {other:?}"),
    }
}

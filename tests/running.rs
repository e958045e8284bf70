//! Stacks of tasks that run right now, whatever their threads are doing.
//!
//! Longer than 800 lines because all of it shares the culprits, and the turn that they take at two CPUs.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::hint::black_box;
use std::io::{BufRead as _, Write as _};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use coro::{TaskState, TaskWhere};
use util::{again, finish, passes, role, runtime, said, until, within};

const LONG: Duration = Duration::from_secs(20);

/// `where_is` as soon as it satisfies `enough`; panics with the last answer.
#[track_caller]
fn seen(id: u64, what: &str, enough: impl Fn(&TaskWhere) -> bool) -> TaskWhere {
    let deadline = Instant::now() + LONG;
    let mut last = None;
    while Instant::now() < deadline {
        if let Some(t) = coro::where_is(id) {
            if enough(&t) {
                return t;
            }
            last = Some(t);
        }
        std::thread::yield_now();
    }
    panic!("never {what}; last: {}", last.map(|t| t.to_string()).unwrap_or_default());
}

fn is_running(t: &TaskWhere) -> bool {
    matches!(t.state, TaskState::Running { .. })
}

/// The tests of this file take turns: there are two CPUs, and most of them keep one busy.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    // Reading debug information for the first time takes a while.
    assert!(runtime(1).spawn(|| coro::where_all().len()).join().unwrap() >= 1);
    turn
}

/// Followed to its base.
fn is_whole(t: &TaskWhere) -> bool {
    !t.stack.is_empty() && !t.stack.ends_with("[...]")
}

/// `[running.rs NAME|LINE]` is in the stack.
fn has_frame(t: &TaskWhere, function: &str, line: u32) -> bool {
    t.stack.split("] [").any(|f| f.contains("running.rs") && f.contains(&format!("{function}|{line}")))
}

/// Where `function` stands, by name only.
fn has_function(t: &TaskWhere, function: &str) -> bool {
    t.stack.contains(&format!("{function}|"))
}

/// How many of `samples` looks at the task, while it runs, follow its stack to the base and find the function.
fn share_of_whole(id: u64, samples: u32, function: &str) -> f64 {
    let (mut all, mut whole) = (0, 0);
    let mut odd = Vec::new();
    while all < samples {
        let t = coro::where_is(id).expect("the task goes on until it is told to stop");
        if !is_running(&t) {
            continue;
        }
        all += 1;
        if is_whole(&t) && has_function(&t, function) {
            whole += 1;
        } else if odd.len() < 3 {
            odd.push(t.to_string());
        }
    }
    eprintln!("{function}: {whole} of {all} whole; others: {odd:#?}");
    f64::from(whole) / f64::from(all)
}

/// Runs `culprit` in a task until `look` has seen enough of it.
fn while_it_runs(culprit: impl FnOnce(&AtomicBool) + Send + 'static, look: impl FnOnce(u64) + Send + 'static) {
    within(LONG * 2, move || {
        let runtime = runtime(1);
        let stop = Arc::new(AtomicBool::new(false));
        let task = runtime.spawn({
            let stop = stop.clone();
            move || culprit(&stop)
        });
        look(task.id());
        stop.store(true, Ordering::Relaxed);
        task.join().unwrap();
    });
}

static SPIN_LINE: AtomicU32 = AtomicU32::new(0);

#[inline(never)]
#[rustfmt::skip]
fn culprit_spin(stop: &AtomicBool) {
    let mut n = 0u64;
    SPIN_LINE.store(line!() + 1, Ordering::Relaxed);
    while !stop.load(Ordering::Relaxed) { n = black_box(n.wrapping_add(1)); }
}

#[test]
fn a_task_in_an_endless_loop() {
    let _turn = turn();
    while_it_runs(culprit_spin, |id| {
        for _ in 0..20 {
            let t = seen(id, "whole", |t| is_running(t) && is_whole(t));
            if !has_function(&t, "culprit_spin") {
                // Its first instructions.
                continue;
            }
            assert!(has_function(&t, "a_task_in_an_endless_loop") || t.stack.contains("while_it_runs"), "{t}");
            assert_eq!(t.wait, "", "{t}");
        }
        let line = SPIN_LINE.load(Ordering::Relaxed);
        seen(id, "in its loop, with the line", |t| is_whole(t) && has_frame(t, "culprit_spin", line));
    });
}

#[inline(never)]
fn culprit_sleep(for_how_long: Duration) {
    std::thread::sleep(for_how_long);
    black_box(());
}

#[test]
fn a_task_in_the_sleep_of_std() {
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(1);
        let task = runtime.spawn(|| {
            let begun = Instant::now();
            culprit_sleep(Duration::from_millis(500));
            begun.elapsed()
        });
        let t = seen(task.id(), "asleep", |t| is_whole(t) && has_function(t, "culprit_sleep") && !t.wait.is_empty());
        assert_eq!(t.wait, "blocked in clock_nanosleep", "{t}");
        assert!(t.to_string().contains(" blocked in clock_nanosleep ["), "{t}");
        assert!(task.join().unwrap() >= Duration::from_millis(500), "cut short");
    });
}

/// A pipe: reading end, writing end.
fn pipe() -> [i32; 2] {
    let mut fds = [-1; 2];
    // SAFETY: room for two descriptors.
    assert_eq!(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_CLOEXEC) }, 0);
    fds
}

/// Reads one byte with the plain call: what it returned, and errno.
#[inline(never)]
fn culprit_read(fd: i32) -> (isize, u8, i32) {
    let mut byte = 0u8;
    // SAFETY: one byte into a live variable.
    let n = unsafe { libc::read(fd, (&raw mut byte).cast(), 1) };
    (black_box(n), byte, std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

#[test]
fn a_task_in_a_blocking_read_is_not_disturbed() {
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(1);
        let [read, write] = pipe();
        let task = runtime.spawn(move || culprit_read(read));
        for _ in 0..200 {
            let t = seen(task.id(), "blocked", |t| is_whole(t) && t.wait == "blocked in read");
            assert!(has_function(&t, "culprit_read"), "{t}");
        }
        // SAFETY: one byte from a live variable.
        assert_eq!(unsafe { libc::write(write, [42u8].as_ptr().cast(), 1) }, 1);
        let (n, byte, _) = task.join().unwrap();
        assert_eq!((n, byte), (1, 42));
        for fd in [read, write] {
            // SAFETY: our own descriptor.
            unsafe { libc::close(fd) };
        }
    });
}

/// Waits for the descriptor without end: 1, or -1 when it was interrupted.
#[inline(never)]
fn culprit_poll(fd: i32) -> i32 {
    let mut p = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one entry.
    black_box(unsafe { libc::poll(&mut p, 1, -1) })
}

/// A signal would end this call, whatever the handler's flags: the kernel's answer must do.
#[test]
fn a_call_that_a_signal_would_end_goes_on() {
    static WAITS: AtomicI32 = AtomicI32::new(0);
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(1);
        let [read, write] = pipe();
        let task = runtime.spawn(move || {
            // SAFETY: no preconditions.
            WAITS.store(unsafe { libc::syscall(libc::SYS_gettid) } as i32, Ordering::SeqCst);
            culprit_poll(read)
        });
        // Before it waits there would be a signal, and it may come just in time to end the call.
        until(LONG, "the wait", || {
            let thread = WAITS.load(Ordering::SeqCst);
            let call = std::fs::read_to_string(format!("/proc/self/task/{thread}/syscall"));
            let ours = [libc::SYS_ppoll, POLL].map(|nr| format!("{nr} "));
            thread != 0 && call.is_ok_and(|c| ours.iter().any(|nr| c.starts_with(nr)))
        });
        for _ in 0..200 {
            let t = coro::where_is(task.id()).expect("it waits");
            assert!(is_whole(&t) && has_function(&t, "culprit_poll"), "{t}");
            assert!(["blocked in poll", "blocked in ppoll"].contains(&&*t.wait), "{t}");
        }
        // SAFETY: one byte from a live variable.
        assert_eq!(unsafe { libc::write(write, [42u8].as_ptr().cast(), 1) }, 1);
        assert_eq!(task.join().unwrap(), 1, "interrupted");
        for fd in [read, write] {
            // SAFETY: our own descriptor.
            unsafe { libc::close(fd) };
        }
    });
}

#[cfg(target_arch = "x86_64")]
const POLL: i64 = libc::SYS_poll;
#[cfg(not(target_arch = "x86_64"))]
const POLL: i64 = libc::SYS_ppoll;

#[inline(never)]
fn culprit_malloc(stop: &AtomicBool) {
    let mut size = 16;
    while !stop.load(Ordering::Relaxed) {
        drop(black_box(vec![1u8; size]));
        size = if size > 1 << 20 { 16 } else { size * 2 };
    }
}

#[test]
fn a_task_in_malloc() {
    let _turn = turn();
    while_it_runs(culprit_malloc, |id| {
        seen(id, "in its loop", |t| has_function(t, "culprit_malloc"));
        let share = share_of_whole(id, 400, "culprit_malloc");
        assert!(share >= 0.99, "{share}");
    });
}

#[inline(never)]
fn culprit_panic(depth: u32) -> u32 {
    if depth == 0 {
        std::panic::resume_unwind(Box::new(7u32));
    }
    black_box(culprit_panic(depth - 1)) + 1
}

#[inline(never)]
fn culprit_catch(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        assert!(std::panic::catch_unwind(|| culprit_panic(5)).is_err());
    }
}

#[test]
fn a_task_in_the_unwinder() {
    let _turn = turn();
    while_it_runs(culprit_catch, |id| {
        seen(id, "in its loop", |t| has_function(t, "culprit_catch"));
        // Some 98.5 % are: fifteen runs of 400 looks had 97.0 to 99.3. What is left out is mostly a few instructions of libgcc's.
        let share = share_of_whole(id, 400, "culprit_catch");
        assert!(share >= 0.96, "{share}");
    });
}

#[inline(never)]
fn culprit_yield(stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        coro::yield_slice();
    }
}

#[test]
fn a_task_that_does_nothing_but_switch() {
    let _turn = turn();
    while_it_runs(culprit_yield, |id| {
        seen(id, "in its loop", |t| has_function(t, "culprit_yield"));
        let share = share_of_whole(id, 1000, "culprit_yield");
        assert!(share >= 0.99, "{share}");
    });
}

fn thread_cpu_time() -> Duration {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: plain data, which the call fills.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) }, 0);
    Duration::new(t.tv_sec as u64, t.tv_nsec as u32)
}

/// Wants a lock that somebody else holds.
#[inline(never)]
fn culprit_lock(lock: &std::sync::Mutex<()>) {
    drop(black_box(lock.lock()));
}

#[test]
fn every_worker_is_stuck_beside_ten_thousand_parked_tasks() {
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(4);
        let about_to_park = Arc::new(AtomicU32::new(0));
        let parked: Vec<_> = (0..10_000)
            .map(|_| {
                let about_to_park = about_to_park.clone();
                runtime.spawn(move || {
                    about_to_park.fetch_add(1, Ordering::Relaxed);
                    coro::park();
                })
            })
            .collect();
        until(LONG, "all parked", || about_to_park.load(Ordering::Relaxed) == 10_000);
        let stop = Arc::new(AtomicBool::new(false));
        let lock = Arc::new(std::sync::Mutex::new(()));
        let held = lock.lock().unwrap();
        let [read, write] = pipe();
        let spin = || {
            let stop = stop.clone();
            runtime.spawn(move || culprit_spin(&stop))
        };
        let wants = lock.clone();
        let stuck = [
            ("culprit_spin", spin()),
            ("culprit_spin", spin()),
            (
                "culprit_read",
                runtime.spawn(move || {
                    culprit_read(read);
                }),
            ),
            ("culprit_lock", runtime.spawn(move || culprit_lock(&wants))),
        ];
        until(LONG, "all stuck", || {
            stuck.iter().all(|(culprit, t)| coro::where_is(t.id()).is_some_and(|t| has_function(&t, culprit)))
        });
        // Until it is as it should be: the machine may be busy with other things as well.
        let mut last = String::new();
        until(LONG, "a whole answer within a second", || {
            let (begun, cpu) = (Instant::now(), thread_cpu_time());
            let mut text = Vec::new();
            coro::inspect::where_all_to(&mut text, coro::inspect::Style::PLAIN).unwrap();
            let (wall, cpu) = (begun.elapsed(), thread_cpu_time() - cpu);
            // A debug build on a machine that does other things as well: then only what it takes itself can be judged.
            let took = if cfg!(debug_assertions) { cpu } else { wall };
            let text = String::from_utf8(text).unwrap();
            let line = |(culprit, t): &(&str, coro::JoinHandle<()>)| {
                let line = text.lines().find(|l| l.starts_with(&format!("#{} running", t.id())))?;
                // Function and line, followed to the task's base.
                let named = line.split("] [").any(|f| f.contains("running.rs") && f.contains(&format!("{culprit}|")));
                (named && !line.ends_with("[...]")).then_some(line)
            };
            let lines: Vec<_> = stuck.iter().filter_map(line).collect();
            let parked = text.lines().filter(|l| l.contains(" parked ") && l.contains("running.rs")).count();
            last = format!(
                "{wall:?}, {cpu:?} on the CPU, {parked} parked\n{}\n{}",
                lines.join("\n"),
                text.lines().next_back().unwrap_or_default()
            );
            let good = lines.len() == 4 && parked >= 10_000 && took < Duration::from_secs(1);
            if !good {
                eprintln!("not yet: {last}");
            }
            good
        });
        eprintln!("10,004 tasks, 4 of them stuck: {last}");
        stop.store(true, Ordering::Relaxed);
        drop(held);
        // SAFETY: one byte from a live variable.
        assert_eq!(unsafe { libc::write(write, [42u8].as_ptr().cast(), 1) }, 1);
        stuck.into_iter().for_each(|(_, t)| t.join().unwrap());
        assert!(parked.iter().all(|t| t.task().unpark()));
        parked.into_iter().for_each(|t| t.join().unwrap());
        for fd in [read, write] {
            // SAFETY: our own descriptor.
            unsafe { libc::close(fd) };
        }
    });
}

fn mask(how: i32, signal: i32) {
    // SAFETY: a set that `sigemptyset` makes; the mask is this thread's own.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::pthread_sigmask(how, &set, std::ptr::null_mut());
    }
}

#[inline(never)]
fn culprit_masked(stop: &AtomicBool) {
    mask(libc::SIG_BLOCK, libc::SIGURG);
    culprit_spin(stop);
    mask(libc::SIG_UNBLOCK, libc::SIGURG);
    // The signals that were held back come now, and nobody waits for them any more.
    for _ in 0..3 {
        coro::yield_slice();
    }
}

/// Digits made alike.
fn masked(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            c if c.is_ascii_digit() && out.ends_with('N') => {}
            c if c.is_ascii_digit() => out.push('N'),
            c => out.push(c),
        }
    }
    out
}

#[test]
fn a_thread_that_blocks_the_signal_is_shown_as_the_kernel_sees_it() {
    let _turn = turn();
    while_it_runs(culprit_masked, |id| {
        let t = seen(id, "without an answer", |t| is_running(t) && !t.wait.is_empty());
        assert_eq!(
            masked(&t.wait),
            "no answer within N ms (the thread blocks signal N): state R running or runnable, N.N s on the CPU",
            "{t}"
        );
        assert!(t.stack.is_empty(), "{t}");
        let begun = Instant::now();
        for _ in 0..20 {
            let _ = coro::where_is(id);
        }
        eprintln!("a thread that does not answer: {:?} each", begun.elapsed() / 20);
    });
}

#[test]
fn the_calling_task_sees_its_own_stack() {
    let _turn = turn();
    #[inline(never)]
    fn ask_about_myself() -> TaskWhere {
        let me = coro::current().expect("a task").id();
        black_box(coro::where_all().into_iter().find(|t| t.id == me).expect("myself"))
    }
    within(LONG * 2, || {
        let t = runtime(2).spawn(ask_about_myself).join().unwrap();
        assert!(is_running(&t) && is_whole(&t), "{t}");
        assert!(has_function(&t, "ask_about_myself"), "{t}");
    });
}

#[test]
fn tasks_may_ask_about_each_other() {
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(2);
        let stop = Arc::new(AtomicBool::new(false));
        let spinning = runtime.spawn({
            let stop = stop.clone();
            move || culprit_spin(&stop)
        });
        let id = spinning.id();
        let asking = runtime.spawn(move || {
            for _ in 0..500 {
                seen(id, "spinning", |t| is_whole(t) && has_function(t, "culprit_spin"));
            }
        });
        asking.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        spinning.join().unwrap();
    });
}

/// The kernel's number of this thread.
fn thread_id() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}

/// The signal, from a sender who knows nothing of us.
fn send(thread: i32, signal: i32) {
    // SAFETY: plain system calls.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal) };
}

/// Uses most of the smallest stack, waits there, and says whether anybody else wrote into it.
#[inline(never)]
fn culprit_deep(outermost: usize, thread: &AtomicI32, stop: &AtomicBool) -> bool {
    let mine = black_box([0x5a5a_5a5a_u32; 64]);
    let fine = if outermost - mine.as_ptr().addr() < 9 << 10 {
        culprit_deep(outermost, thread, stop)
    } else {
        thread.store(thread_id(), Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
        true
    };
    fine && black_box(mine).iter().all(|word| *word == 0x5a5a_5a5a)
}

/// Two ask at once while a third sends the same signal as fast as it can.
#[test]
fn a_storm_of_the_signal_at_the_smallest_stack() {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    let _turn = turn();
    within(LONG * 2, || {
        let runtime = runtime(1);
        let stop = Arc::new(AtomicBool::new(false));
        let deep = stop.clone();
        let task = runtime.block_on(move || {
            let deep = move || culprit_deep((&raw const deep).addr(), &THREAD, &deep);
            coro::Builder::new().stack_size(1).spawn(deep).unwrap()
        });
        let id = task.id();
        until(LONG, "deep in its stack", || THREAD.load(Ordering::Relaxed) != 0);
        let done = AtomicBool::new(false);
        let (sent, whole) = std::thread::scope(|scope| {
            let storm = scope.spawn(|| {
                let mut sent = 0u64;
                while !done.load(Ordering::Relaxed) {
                    send(THREAD.load(Ordering::Relaxed), libc::SIGURG);
                    sent += 1;
                }
                sent
            });
            let ask = || {
                let (begun, mut whole) = (Instant::now(), 0);
                while whole < 300 || begun.elapsed() < Duration::from_millis(300) {
                    assert!(begun.elapsed() < LONG, "only {whole} whole answers");
                    let t = coro::where_is(id).expect("it goes on until it is told to stop");
                    assert!(is_running(&t), "{t}");
                    whole += u32::from(is_whole(&t) && has_function(&t, "culprit_deep"));
                }
                whole
            };
            let askers = [scope.spawn(ask), scope.spawn(ask)];
            let whole: u32 = askers.into_iter().map(|a| a.join().unwrap()).sum();
            done.store(true, Ordering::Relaxed);
            (storm.join().unwrap(), whole)
        });
        eprintln!("{sent} signals sent by others, {whole} whole answers meanwhile");
        stop.store(true, Ordering::Relaxed);
        assert!(task.join().unwrap(), "somebody wrote into the task's frames");
    });
}

/// Threads end and others begin, perhaps with the same number, while they are asked.
#[test]
fn workers_that_end_while_they_are_asked() {
    let _turn = turn();
    within(LONG * 2, || {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| {
                let mut found = 0;
                while !done.load(Ordering::Relaxed) {
                    found += coro::where_all().iter().filter(|t| has_function(t, "culprit_short")).count();
                }
                found
            });
            for _ in 0..150 {
                #[inline(never)]
                fn culprit_short() {
                    let begun = Instant::now();
                    while begun.elapsed() < Duration::from_millis(1) {
                        black_box(());
                    }
                }
                runtime(1).spawn(culprit_short).join().unwrap();
            }
            done.store(true, Ordering::Relaxed);
            eprintln!("found {} times", asker.join().unwrap());
        });
    });
}

/// What the process does about a signal.
fn action(signal: i32) -> libc::sigaction {
    // SAFETY: plain data, which the call fills.
    unsafe {
        let mut now: libc::sigaction = std::mem::zeroed();
        assert_eq!(libc::sigaction(signal, std::ptr::null(), &mut now), 0);
        now
    }
}

/// Puts a handler there and returns what was there before.
fn install(signal: i32, handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void)) -> libc::sigaction {
    let before = action(signal);
    // SAFETY: plain data; the handlers of this file only count and call on.
    unsafe {
        let mut new: libc::sigaction = std::mem::zeroed();
        new.sa_sigaction = handler as *const () as usize;
        new.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(signal, &new, std::ptr::null_mut()), 0);
    }
    before
}

static FIRST: AtomicU32 = AtomicU32::new(0);
static SECOND: AtomicU32 = AtomicU32::new(0);
/// What the second handler has displaced.
static BELOW: AtomicUsize = AtomicUsize::new(0);

extern "C" fn first(_: i32, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    FIRST.fetch_add(1, Ordering::SeqCst);
}

/// One that calls on, as handlers that came later should.
extern "C" fn second(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    SECOND.fetch_add(1, Ordering::SeqCst);
    // SAFETY: the address of a handler of this form, stored before this one was installed.
    let below: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) =
        unsafe { std::mem::transmute(BELOW.load(Ordering::SeqCst)) };
    below(signal, info, context);
}

/// Runs in a process of its own.
fn handlers_of_the_program() {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    install(libc::SIGURG, first);
    while_it_runs(
        |stop| {
            THREAD.store(thread_id(), Ordering::SeqCst);
            culprit_spin(stop);
        },
        |id| {
            let look = || drop(seen(id, "spinning", |t| is_whole(t) && has_function(t, "culprit_spin")));
            let counts = || (FIRST.load(Ordering::SeqCst), SECOND.load(Ordering::SeqCst));
            let foreign = |then: (u32, u32)| {
                send(THREAD.load(Ordering::SeqCst), libc::SIGURG);
                until(LONG, "the program's own handler is called", || counts() == then);
            };
            (0..50).for_each(|_| look());
            assert_eq!(counts(), (0, 0), "our signals are nobody else's");
            foreign((1, 0));
            foreign((2, 0));
            BELOW.store(action(libc::SIGURG).sa_sigaction, Ordering::SeqCst);
            let ours = install(libc::SIGURG, second).sa_sigaction;
            foreign((3, 1));
            // Asking puts ours on top again; the others go on as before, in the order in which they came.
            (0..50).for_each(|_| look());
            assert_eq!(action(libc::SIGURG).sa_sigaction, ours);
            assert_eq!(counts(), (3, 1));
            foreign((4, 2));
            foreign((5, 3));
            (0..50).for_each(|_| look());
            assert_eq!(counts(), (5, 3));
        },
    );
}

fn is_default(signal: i32) -> bool {
    action(signal).sa_sigaction == libc::SIG_DFL
}

fn another_signal() {
    while_it_runs(culprit_spin, |id| {
        seen(id, "spinning", |t| is_whole(t) && has_function(t, "culprit_spin"));
        assert!(is_default(libc::SIGURG) && !is_default(libc::SIGRTMIN() + 3));
    });
}

fn no_signal() {
    while_it_runs(culprit_spin, |id| {
        let t = seen(id, "running", is_running);
        assert!(t.stack.is_empty() && t.wait.is_empty(), "{t}");
        assert!(is_default(libc::SIGURG));
    });
    // The kernel is asked all the same.
    within(LONG, || {
        let runtime = runtime(1);
        let task = runtime.spawn(|| culprit_sleep(Duration::from_millis(300)));
        // As far as its stack can be followed without registers.
        seen(task.id(), "asleep", |t| t.stack.contains("sleep|") && t.wait == "blocked in clock_nanosleep");
        task.join().unwrap();
    });
}

fn in_child(name: &str, settings: &[(&str, &str)]) -> String {
    let mut command = again("child", name);
    command.env_remove("CORO_STACK_SIGNAL").envs(settings.iter().copied());
    let output = finish(command, LONG * 2);
    let text = said(&output);
    assert!(output.status.success() && text.contains("1 passed"), "{name}: {:?}\n{text}", output.status);
    text
}

#[test]
fn the_program_keeps_its_own_handlers() {
    let _turn = turn();
    in_child("handlers", &[]);
}

#[test]
fn the_signal_can_be_another_one_or_none() {
    let _turn = turn();
    in_child("another", &[("CORO_STACK_SIGNAL", "SIGRTMIN+3")]);
    in_child("none", &[("CORO_STACK_SIGNAL", "off")]);
    let text = in_child("default", &[("CORO_STACK_SIGNAL", "KILL")]);
    assert!(text.contains("CORO_STACK_SIGNAL is \"KILL\"; set it to a signal that may be caught"), "{text}");
}

/// Spins where the loader's lock is held.
#[inline(never)]
unsafe extern "C" fn culprit_callback(_: *mut libc::dl_phdr_info, _: usize, stop: *mut libc::c_void) -> i32 {
    // SAFETY: what `loader` passed along.
    culprit_spin(unsafe { &*stop.cast::<AtomicBool>() });
    1
}

fn loader() {
    while_it_runs(
        |stop| {
            let stop = ptr::from_ref(stop).cast_mut().cast();
            // SAFETY: the callback reads a flag that lives longer.
            unsafe { libc::dl_iterate_phdr(Some(culprit_callback), stop) };
        },
        |id| {
            let line = SPIN_LINE.load(Ordering::Relaxed);
            let t = seen(id, "in the callback", |t| is_whole(t) && has_function(t, "culprit_callback"));
            assert!(has_frame(&t, "culprit_spin", line) || SPIN_LINE.load(Ordering::Relaxed) != line, "{t}");
            let begun = Instant::now();
            assert!(coro::where_all().iter().any(|t| t.id == id && has_function(t, "culprit_callback")));
            eprintln!("a dump while the loader's lock is held: {:?}", begun.elapsed());
        },
    );
}

#[test]
fn a_task_that_holds_the_lock_of_the_loader() {
    let _turn = turn();
    passes("child", "loader", LONG * 2);
}

/// In a process whose worker somebody else stops.
fn stopped() {
    static THREAD: AtomicI32 = AtomicI32::new(0);
    while_it_runs(
        |stop| {
            THREAD.store(thread_id(), Ordering::SeqCst);
            culprit_spin(stop);
        },
        |id| {
            until(LONG, "the task runs", || THREAD.load(Ordering::SeqCst) != 0);
            seen(id, "spinning", |t| has_function(t, "culprit_spin"));
            println!("\nTHREAD {}", THREAD.load(Ordering::SeqCst));
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
            if line == "look\n" {
                let t = seen(id, "stopped", |t| is_running(t) && !t.wait.is_empty());
                println!("\nSEEN {}; {}", t.wait, t.stack);
                std::io::stdin().read_line(&mut line).unwrap();
            }
        },
    );
}

#[test]
fn a_worker_that_a_debugger_has_stopped() {
    let _turn = turn();
    let mut child = again("child", "stopped").stdin(std::process::Stdio::piped()).spawn().unwrap();
    let (mut to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut lines = std::io::BufReader::new(from).lines().map(|line| line.unwrap());
    let mut after = |word: &str| lines.find_map(|l| l.strip_prefix(word).map(str::to_owned)).expect("a line with it");
    let thread: libc::pid_t = after("THREAD ").parse().unwrap();
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: asks for the right to stop a thread of our own child.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, thread, nothing, nothing) } != 0 {
        println!("skipped: a debugger is not allowed here: {}", std::io::Error::last_os_error());
        to.write_all(b"end\n").unwrap();
        assert!(child.wait().unwrap().success());
        return;
    }
    // SAFETY: stops it, and waits until it has.
    unsafe {
        assert_eq!(libc::ptrace(libc::PTRACE_INTERRUPT, thread, nothing, nothing), 0);
        assert_eq!(libc::waitpid(thread, ptr::null_mut(), libc::__WALL), thread);
    }
    to.write_all(b"look\n").unwrap();
    let text = after("SEEN ");
    // SAFETY: lets it go on.
    assert_eq!(unsafe { libc::ptrace(libc::PTRACE_DETACH, thread, nothing, nothing) }, 0);
    to.write_all(b"end\n").unwrap();
    assert!(child.wait().unwrap().success());
    eprintln!("{text}");
    let says = masked(&text);
    let alone = says.starts_with("stopped by a debugger; ") && text.contains("culprit_spin|");
    let asked = says.starts_with("no answer within N ms: state t stopped by a debugger");
    assert!(alone || asked, "{text}");
}

#[test]
fn child() {
    match role().as_deref() {
        None => {}
        Some("handlers") => handlers_of_the_program(),
        Some("another") => another_signal(),
        Some("none") => no_signal(),
        Some("default") => while_it_runs(culprit_spin, |id| {
            seen(id, "spinning", |t| is_whole(t) && has_function(t, "culprit_spin"));
            assert!(!is_default(libc::SIGURG));
        }),
        Some("loader") => loader(),
        Some("stopped") => stopped(),
        Some(other) => panic!("no role {other}"),
    }
}

//! What goes wrong in other runtimes: std's locks held across a wait, waits in places that allow none, and fork. What
//! would end the process, or hang, is played in a child.

mod harness;

use std::cell::RefCell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use coro::sync::Mutex;
use coro::sync::mpsc::{Receiver, Sender, channel};
use harness::{child, runtime, task_until, until, until_parked};

#[test]
fn a_coro_lock_may_be_held_across_a_wait() {
    runtime(1).block_on(|| {
        let lock = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..3)
            .map(|i| {
                let lock = lock.clone();
                coro::spawn_local(move || {
                    for _ in 0..10 {
                        let mut held = lock.lock().unwrap();
                        let before = held.len();
                        coro::yield_slice();
                        assert_eq!(held.len(), before, "two tasks held the lock");
                        held.push(i);
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(lock.lock().unwrap().len(), 30);
    });
}

#[test]
fn a_std_lock_held_across_a_wait_is_seen_from_outside() {
    child("std_lock_across_a_wait").passed();
}

/// Two tasks of one worker: the second blocks the worker, so that the first never gives the lock back. Nobody can mend
/// that, but a dump from elsewhere must still answer and name both.
fn std_lock_across_a_wait() {
    #[inline(never)]
    fn holds_it_and_waits(lock: &StdMutex<()>) {
        let _held = lock.lock().unwrap();
        coro::sleep(Duration::from_secs(1000));
        std::hint::black_box(lock);
    }
    let lock: &'static StdMutex<()> = Box::leak(Box::default());
    let rt = runtime(1);
    let holder = rt.spawn(|| holds_it_and_waits(lock));
    until_parked(holder.task(), "sleep");
    let begun = Arc::new(AtomicBool::new(false));
    let b = begun.clone();
    let blocker = rt.spawn(move || {
        b.store(true, Ordering::SeqCst);
        drop(lock.lock());
    });
    until("the second task blocks", || begun.load(Ordering::SeqCst));
    let asked = Instant::now();
    let all = coro::where_all();
    assert!(asked.elapsed() < Duration::from_secs(5), "the dump took {:?}", asked.elapsed());
    let of = |id| all.iter().find(|t| t.id == id).unwrap_or_else(|| panic!("task {id} is not in {all:?}"));
    assert!(of(holder.id()).stack.contains("holds_it_and_waits"), "{:?}", of(holder.id()));
    assert!(matches!(of(blocker.id()).state, coro::TaskState::Running { .. }), "{:?}", of(blocker.id()));
    leave(0);
}

#[test]
fn dumps_and_reports_do_not_take_stds_output_locks() {
    child("output_locks").passed();
}

fn output_locks() {
    let rt = runtime(2);
    let holder = rt.spawn(|| {
        let _out = std::io::stdout().lock();
        let _err = std::io::stderr().lock();
        coro::sleep(Duration::from_secs(1000));
    });
    until_parked(holder.task(), "sleep");
    let other = rt.spawn(|| {
        coro::print_stderr("written beside a holder of the lock");
        coro::write_stderr("and this\n");
        coro::where_all().len()
    });
    let done = Instant::now();
    while !other.is_finished() {
        if done.elapsed() > Duration::from_secs(10) {
            leave(1);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let text: String = coro::where_all().iter().map(ToString::to_string).collect();
    leave(if other.join().unwrap() >= 2 && text.contains("sleep") { 0 } else { 2 });
}

/// Ends the process without the ends of runtimes, which could not come.
fn leave(code: i32) -> ! {
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(code) }
}

#[test]
fn a_workers_own_thread_local_may_wait_in_its_destructor() {
    struct Waits(Receiver<u8>, Arc<Mutex<u32>>, Sender<u32>);
    impl Drop for Waits {
        fn drop(&mut self) {
            // The worker has ended: this is a plain thread by now.
            let got = self.0.recv().map_or(0, u32::from);
            coro::sleep(Duration::from_millis(1));
            coro::yield_slice();
            let sum = got + *self.1.lock().unwrap();
            let _ = self.2.send(sum);
        }
    }
    thread_local!(static WAITS: RefCell<Option<Waits>> = const { RefCell::new(None) });
    let (feed, fed) = channel();
    let (tell, told) = channel();
    let lock = Arc::new(Mutex::new(100));
    let l = lock.clone();
    let rt = runtime(1);
    rt.block_on(move || WAITS.set(Some(Waits(fed, l, tell))));
    let held = lock.lock().unwrap();
    let ends = std::thread::spawn(move || drop(rt));
    feed.send(7).unwrap();
    drop(held);
    ends.join().unwrap();
    assert_eq!(told.recv(), Ok(107));
}

#[test]
fn a_panic_hook_that_waits_blocks_its_worker_and_ends_nothing() {
    let ended = child("hook_that_waits").passed();
    assert!(!ended.err.contains("aborts the process"), "{ended:#?}");
}

fn hook_that_waits() {
    let lock: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
    let (waiting, panicked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (w, p) = (waiting.clone(), panicked.clone());
    std::panic::set_hook(Box::new(move |_| {
        w.store(true, Ordering::SeqCst);
        coro::sleep(Duration::from_millis(1));
        *lock.lock().unwrap_or_else(|e| e.into_inner()) += 1;
        p.fetch_add(1, Ordering::SeqCst);
    }));
    let rt = runtime(1);
    rt.block_on(move || {
        // Held by a plain thread while the first hook wants it; meanwhile the other task must not run: its panic
        // would abort the process.
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let locked = Arc::new(AtomicBool::new(false));
        let l = locked.clone();
        let plain = std::thread::spawn(move || {
            let _held = lock.lock().unwrap();
            l.store(true, Ordering::SeqCst);
            let _ = wait.recv();
            std::thread::sleep(Duration::from_millis(5));
        });
        task_until("the lock is held", || locked.load(Ordering::SeqCst));
        let tasks = [coro::spawn_local(|| panic!("one")), coro::spawn_local(|| panic!("two"))];
        let w = waiting.clone();
        let releases = std::thread::spawn(move || {
            until("the hook waits", || w.load(Ordering::SeqCst));
            release.send(()).unwrap();
        });
        for t in tasks {
            let e: Result<(), _> = t.join();
            assert!(e.is_err());
        }
        plain.join().unwrap();
        releases.join().unwrap();
        assert_eq!(*lock.lock().unwrap(), 2);
        assert_eq!(panicked.load(Ordering::SeqCst), 2);
        assert!(!std::thread::panicking());
    });
}

#[test]
fn a_panic_hook_that_waits_for_its_own_worker_is_told_of() {
    let ended = child("hook_that_waits_for_its_worker").passed();
    assert!(ended.err.contains("waits in a panic hook for what did not come within 100ms"), "{ended:#?}");
}

fn hook_that_waits_for_its_worker() {
    let lock: &'static Mutex<u32> = Box::leak(Box::new(Mutex::new(0)));
    std::panic::set_hook(Box::new(move |_| *lock.lock().unwrap_or_else(|e| e.into_inner()) += 1));
    runtime(1).block_on(move || {
        let held = lock.lock().unwrap();
        let t = coro::spawn_local(|| panic!("one"));
        // It blocks the worker for a while, then lets this task go on, which ends its wait.
        until_parked(t.task(), "lock");
        drop(held);
        let e: Result<(), _> = t.join();
        assert!(e.is_err());
        assert_eq!(*lock.lock().unwrap(), 1);
    });
}

#[test]
fn a_wait_in_a_signal_handler_is_refused_with_words() {
    let ended = child("wait_in_a_handler").err_and_signal(libc::SIGABRT);
    assert!(ended.contains("may not wait in a signal handler"), "{ended}");
}

trait Aborted {
    fn err_and_signal(self, signal: i32) -> String;
}

impl Aborted for harness::Ended {
    #[track_caller]
    fn err_and_signal(self, signal: i32) -> String {
        assert_eq!(self.signal, Some(signal), "{self:#?}");
        self.err
    }
}

fn wait_in_a_handler() {
    extern "C" fn handler(_: libc::c_int) {
        coro::yield_slice();
    }
    // SAFETY: a handler that does what none may do; that is what is tested.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
    runtime(1).block_on(|| {
        coro::spawn_local(|| panic!("the handler let another task run"));
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(libc::SIGUSR2) };
        panic!("the handler came back");
    });
}

#[test]
fn a_handler_on_the_tasks_own_stack_may_even_wait() {
    child("wait_in_a_handler_on_the_stack").passed();
}

/// Nobody should, but with the task in code of its own the handler is only a call like any other.
fn wait_in_a_handler_on_the_stack() {
    extern "C" fn handler(_: libc::c_int) {
        coro::yield_slice();
    }
    // SAFETY: the signal is raised by the task itself, so nothing is interrupted half way.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as *const () as usize;
        assert_eq!(libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()), 0);
    }
    runtime(1).block_on(|| {
        let other = coro::spawn_local(|| 5);
        // SAFETY: a signal to this thread.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert!(other.is_finished(), "the handler did not wait");
        assert_eq!(other.join().unwrap(), 5);
    });
}

#[test]
fn no_switch_nests() {
    runtime(1).block_on(|| {
        let ran = coro::spawn_local(|| 1);
        coro::no_switch(|| {
            coro::no_switch(|| ());
            assert!(
                std::panic::catch_unwind(coro::yield_slice).is_err(),
                "the outer no_switch ended with the inner one"
            );
        });
        coro::yield_slice();
        assert!(ran.is_finished());
    });
}

/// Forks; `f` is what the child does, and ends with its exit status. The parent gets the status.
#[track_caller]
fn forked(f: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child only does what a test asks it to, and leaves by `_exit`.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0, "fork failed");
    if pid == 0 {
        let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).unwrap_or(99);
        leave(status);
    }
    status_of(pid)
}

#[track_caller]
fn status_of(pid: libc::pid_t) -> i32 {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let mut status = 0;
        // SAFETY: our own child.
        match unsafe { libc::waitpid(pid, &mut status, libc::WNOHANG) } {
            0 => {}
            n if n == pid && libc::WIFEXITED(status) => return libc::WEXITSTATUS(status),
            n => panic!("waitpid gave {n}, status {status:#x}"),
        }
        if Instant::now() > end {
            // SAFETY: our own child, not yet waited for.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("the forked child hangs");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn text(payload: &(dyn std::any::Any + Send)) -> &str {
    payload.downcast_ref::<String>().map_or_else(|| payload.downcast_ref::<&str>().unwrap_or(&"?"), String::as_str)
}

/// What every child of a process with a runtime must find. Gives an exit status that tells which was wrong.
fn nothing_hangs(of_the_parent: Option<coro::JoinHandle<()>>) -> i32 {
    if coro::current().is_some() || coro::current_worker().is_some() {
        return 10;
    }
    match coro::Builder::new().spawn(|| ()) {
        Err(e) if e.to_string().contains("forked") => {}
        _ => return 11,
    }
    match coro::thread::Builder::new().spawn(|| ()) {
        Err(e) if e.to_string().contains("forked") => {}
        _ => return 12,
    }
    if !coro::Runtime::builder().build().is_err_and(|e| e.to_string().contains("forked")) {
        return 13;
    }
    let run = std::panic::catch_unwind(|| coro::run(|| ()));
    if !run.is_err_and(|p| text(&*p).contains("forked")) {
        return 14;
    }
    if let Some(t) = of_the_parent {
        let join = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| t.join()));
        if !join.is_err_and(|p| text(&*p).contains("forked")) {
            return 15;
        }
    }
    let served = coro::backdoor::serve(std::env::temp_dir().join("never.sock"));
    if !served.is_err_and(|e| e.to_string().contains("forked")) {
        return 16;
    }
    // As on any plain thread: what needs no worker works.
    let lock = Mutex::new(1);
    *lock.lock().unwrap() += 1;
    coro::sleep(Duration::from_millis(1));
    coro::yield_slice();
    coro::thread::current().unpark();
    coro::thread::park();
    let (send, receive) = channel();
    let t = std::thread::spawn(move || send.send(5));
    if receive.recv() != Ok(5) || t.join().is_err() {
        return 17;
    }
    let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
    a.write_all(b"x").unwrap();
    let mut byte = [0];
    b.read_exact(&mut byte).unwrap();
    0
}

#[test]
fn a_fork_on_a_plain_thread() {
    child("fork_on_a_plain_thread").passed();
}

fn fork_on_a_plain_thread() {
    let rt = runtime(2);
    let parks = rt.spawn(coro::park);
    until_parked(parks.task(), "park");
    let task = parks.task();
    let mut handle = Some(parks);
    let taken = &mut handle;
    // The child has a copy of everything, so it may take what the parent keeps.
    assert_eq!(forked(move || nothing_hangs(taken.take())), 0);
    let mut rt = Some(rt);
    let runtime = &mut rt;
    // The end of the parent's runtime is none of the child's.
    assert_eq!(
        forked(move || i32::from(runtime.take().is_none_or(|r| {
            drop(r);
            false
        }))),
        0
    );
    // The parent goes on.
    assert!(task.unpark());
    handle.unwrap().join().unwrap();
    assert_eq!(rt.unwrap().block_on(|| coro::spawn(|| 3).join().unwrap()), 3);
}

#[test]
fn a_fork_in_a_task() {
    child("fork_in_a_task").passed();
}

fn fork_in_a_task() {
    coro::run(|| {
        let beside = coro::spawn(coro::park);
        until_parked(beside.task(), "park");
        let (mut a, mut b) = coro::net::unix::UnixStream::pair().unwrap();
        // Registered with the worker's poll, by a wait.
        let reader = coro::spawn_local(move || {
            let mut bytes = [0; 2];
            b.read_exact(&mut bytes).unwrap();
            b.read_exact(&mut bytes[..1]).unwrap();
            bytes
        });
        a.write_all(b"1").unwrap();
        coro::yield_slice();
        let task = beside.task();
        let mut handle = Some(beside);
        let taken = &mut handle;
        let inner = coro::timeout(Duration::from_secs(100), || {
            coro::scope(|_| {
                coro::shield(|| {
                    forked(|| {
                        // The child closes what is registered in the parent's poll.
                        nothing_hangs(taken.take())
                    })
                })
            })
        });
        assert_eq!(inner.unwrap(), 0);
        // A scope that is left in the child: its tasks are not there, and waiting for them would never end.
        let parent = std::process::id();
        let left = std::panic::catch_unwind(|| {
            coro::scope(|s| {
                let t = s.spawn(coro::park);
                until_parked(t.task(), "park");
                // SAFETY: the child leaves below.
                let pid = unsafe { libc::fork() };
                if pid != 0 {
                    t.cancel();
                }
                pid
            })
        });
        if std::process::id() != parent {
            leave(i32::from(!left.is_err_and(|p| text(&*p).contains("forked"))));
        }
        assert_eq!(status_of(left.unwrap()), 0);
        a.write_all(b"23").unwrap();
        assert_eq!(reader.join().unwrap()[0], b'3');
        assert!(task.unpark());
        handle.unwrap().join().unwrap();
    });
}

#[test]
fn a_child_that_closes_its_sockets_does_not_silence_the_parents() {
    child("child_closes_its_sockets").passed();
}

fn child_closes_its_sockets() {
    runtime(1).block_on(|| {
        let (mut a, b) = coro::net::unix::UnixStream::pair().unwrap();
        let b = Arc::new(b);
        let reads = b.clone();
        let reader = coro::spawn_local(move || {
            let mut byte = [0];
            (&*reads).read_exact(&mut byte).unwrap();
            byte[0]
        });
        until_parked(reader.task(), "read");
        let copy = b.as_raw_fd();
        let mut held = Some(b);
        let gone = &mut held;
        let status = forked(move || {
            // The child's copy of the socket, with what it knows of the parent's poll, really goes.
            let b = gone.take().unwrap();
            // SAFETY: the child's copy of the reader's reference is never used: its task does not exist there.
            unsafe { Arc::decrement_strong_count(Arc::as_ptr(&b)) };
            drop(b);
            // SAFETY: asks whether the number is still open.
            i32::from(unsafe { libc::fcntl(copy, libc::F_GETFD) } != -1)
        });
        assert_eq!(status, 0, "the child's copy was not closed");
        a.write_all(b"x").unwrap();
        assert_eq!(reader.join().unwrap(), b'x');
    });
}

#[test]
fn a_task_that_returns_in_the_child_ends_the_child() {
    child("return_in_the_child").passed();
}

fn return_in_the_child() {
    let rt = runtime(2);
    for (panics, expected) in [(false, 0), (true, 101)] {
        let pid = rt.block_on(move || {
            coro::spawn(move || {
                // SAFETY: the child returns into the runtime, which ends it.
                let pid = unsafe { libc::fork() };
                assert!(pid != 0 || !panics, "a panic in the child");
                pid
            })
            .join()
            .unwrap()
        });
        assert_eq!(status_of(pid), expected);
    }
}

#[test]
fn a_child_keeps_no_descriptor_of_the_runtime() {
    child("descriptors_of_a_child").passed();
}

fn descriptors_of_a_child() {
    let directory = std::env::temp_dir().join(format!("coro-fork-{}", std::process::id()));
    std::fs::create_dir(&directory).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(&directory, mode).unwrap();
    let path = directory.join("door.sock");
    let rt = runtime(2);
    let server = coro::backdoor::serve(&path).unwrap();
    let mut session = std::os::unix::net::UnixStream::connect(&path).unwrap();
    session.read_exact(&mut [0]).unwrap();
    let kept = forked(|| {
        let mut kept = 0;
        for fd in std::fs::read_dir("/proc/self/fd").unwrap() {
            let to = std::fs::read_link(fd.unwrap().path()).unwrap_or_default();
            let to = to.to_string_lossy();
            // Two sockets of the test's own: the client of the session, and the server's control.
            kept += i32::from(to.contains("eventpoll") || to.contains("epoll"));
        }
        kept
    });
    assert_eq!(kept, 0, "polls are shared with the child");
    // The server ends while a child lives that was forked before: nobody may connect to it any more.
    // SAFETY: the child only sleeps.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        std::thread::sleep(Duration::from_secs(15));
        leave(0);
    }
    let held = std::os::unix::net::UnixStream::connect(&path).unwrap();
    server.close();
    let mut rest = Vec::new();
    session.read_to_end(&mut rest).expect("the session's end is seen while a child lives");
    drop(held);
    // SAFETY: our own child.
    unsafe { libc::kill(pid, libc::SIGKILL) };
    drop(rt);
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn nothing_is_inherited_by_a_program_that_is_executed() {
    child("descriptors_of_a_program").passed();
}

fn descriptors_of_a_program() {
    let list = |pre_exec: bool| {
        let mut command = std::process::Command::new("ls");
        command.arg("/proc/self/fd");
        if pre_exec {
            // SAFETY: the closure does nothing; it makes std fork instead of spawning.
            unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, || Ok(())) };
        }
        String::from_utf8(command.output().expect("ls runs").stdout).unwrap()
    };
    // Whoever started this test may have left something open.
    let before = list(false);
    coro::run(|| {
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = coro::spawn(move || coro::net::TcpStream::connect(address).unwrap());
        let (accepted, _) = listener.accept().unwrap();
        let client = client.join().unwrap();
        let pair = coro::net::unix::UnixStream::pair().unwrap();
        let clone = client.try_clone().unwrap();
        for pre_exec in [false, true] {
            assert_eq!(list(pre_exec), before, "forked: {pre_exec}");
        }
        drop((accepted, pair, clone));
    });
}

#[test]
#[ignore = "run by the tests above as a process of its own"]
fn child_process() {
    match harness::case().expect("a case").as_str() {
        "std_lock_across_a_wait" => std_lock_across_a_wait(),
        "output_locks" => output_locks(),
        "hook_that_waits" => hook_that_waits(),
        "hook_that_waits_for_its_worker" => hook_that_waits_for_its_worker(),
        "wait_in_a_handler_on_the_stack" => wait_in_a_handler_on_the_stack(),
        "wait_in_a_handler" => wait_in_a_handler(),
        "fork_on_a_plain_thread" => fork_on_a_plain_thread(),
        "fork_in_a_task" => fork_in_a_task(),
        "child_closes_its_sockets" => child_closes_its_sockets(),
        "return_in_the_child" => return_in_the_child(),
        "descriptors_of_a_child" => descriptors_of_a_child(),
        "descriptors_of_a_program" => descriptors_of_a_program(),
        other => panic!("no case {other}"),
    }
}

//! The pool for blocking calls as a program sees it: in the views, at its limits, when the system refuses threads, and
//! at the end of the process. What changes the process happens in children.

mod harness;

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use harness::{PATIENCE, child, command, runtime, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

/// Threads of the pool, as the system sees them.
fn pool_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    // A thread may end between the listing and the look.
    let comm = |t: io::Result<std::fs::DirEntry>| std::fs::read_to_string(t.ok()?.path().join("comm")).ok();
    tasks.filter_map(comm).filter(|c| c.trim_end() == "coro-blocking").count()
}

#[test]
fn the_views_show_who_waits_and_the_worker_goes_on() {
    let rt = runtime(1);
    let (tell, told) = mpsc::channel::<()>();
    let waiter = rt.spawn(move || coro::blocking(move || told.recv().is_err()));
    until_parked(waiter.task(), "blocking job");
    until("it runs", || coro::blocking_stats().running.iter().any(|j| j.task == waiter.id()));
    let job = coro::blocking_stats().running.into_iter().find(|j| j.task == waiter.id()).unwrap();
    assert!(job.site.file().ends_with("blocking.rs") && job.age < PATIENCE, "{job:?}");
    let ticks = rt.block_on(|| (0..20).map(|_| coro::sleep(Duration::from_micros(100))).count());
    assert_eq!(ticks, 20);
    assert!(!waiter.is_finished());
    drop(tell);
    assert!(waiter.join().unwrap().unwrap());
}

/// Inside a job there is no task: locks and channels block its thread, and meet tasks of the one worker.
#[test]
fn a_job_uses_locks_and_channels_as_a_plain_thread_does() {
    runtime(1).block_on(|| {
        let lock = Arc::new(coro::sync::Mutex::new(1));
        let (tell, told) = coro::sync::mpsc::channel();
        let held = lock.lock().unwrap();
        let (l, t) = (lock.clone(), tell.clone());
        let job = coro::spawn(move || {
            coro::blocking(move || {
                t.send(0).unwrap();
                assert!(coro::current().is_none());
                *l.lock().unwrap() += 1;
                t.send(*l.lock().unwrap()).unwrap();
            })
        });
        // The job has begun, and waits for the lock, which this task holds across the wait.
        assert_eq!(told.recv(), Ok(0));
        coro::sleep(Duration::from_millis(1));
        assert!(!job.is_finished() && told.try_recv().is_err());
        drop(held);
        assert_eq!(told.recv(), Ok(2));
        job.join().unwrap().unwrap();
    });
}

#[test]
fn sockets_take_names() {
    runtime(1).block_on(|| {
        let listener = coro::net::TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let peer = coro::spawn(move || listener.accept().unwrap().1);
        let c = coro::net::TcpStream::connect(("localhost", port)).unwrap();
        assert_eq!(peer.join().unwrap(), c.local_addr().unwrap());
        let e = coro::net::TcpStream::connect("no port").unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (io::ErrorKind::InvalidInput, "invalid socket address"));
        let e = coro::net::TcpListener::bind("localhost:x").unwrap_err();
        assert_eq!((e.kind(), e.to_string().as_str()), (io::ErrorKind::InvalidInput, "invalid port value"));
    });
}

#[test]
fn no_thread_before_the_first_job_and_none_after_ten_idle_seconds() {
    child("life").passed();
}

fn life_child() {
    coro::run(|| {
        let listener = coro::net::TcpListener::bind("127.0.0.1:0").unwrap();
        drop(coro::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        assert_eq!((pool_threads(), coro::blocking_stats().threads), (0, 0));
        let jobs: Vec<_> =
            (0..3).map(|_| coro::spawn(|| coro::blocking(|| std::thread::sleep(Duration::from_millis(20))))).collect();
        jobs.into_iter().for_each(|j| j.join().unwrap().unwrap());
        assert!((1..=3).contains(&pool_threads()));
    });
    let idle = Instant::now();
    until("all threads of the pool have left", || pool_threads() == 0 && coro::blocking_stats().threads == 0);
    assert!(idle.elapsed() > Duration::from_secs(9), "they left after {:?}", idle.elapsed());
    assert_eq!(coro::run(|| coro::blocking(|| 5).unwrap()), 5, "the next job has a thread again");
}

#[test]
fn the_environment_bounds_the_pool() {
    let with = |case: &str, value: &str| {
        let mut c = command(case);
        c.env("CORO_BLOCKING_THREADS", value);
        harness::wait(case, c.spawn().unwrap()).passed()
    };
    with("limit", "2");
    for wrong in ["0", "lots", ""] {
        let e = with("wrong-limit", wrong);
        let said = format!("CORO_BLOCKING_THREADS is {wrong:?}; set it to a number from 1 to");
        assert!(e.out.contains(&said), "{e:#?}");
    }
}

fn limit_child() {
    let most = Arc::new((AtomicUsize::new(0), AtomicUsize::new(0)));
    coro::run(|| {
        let jobs: Vec<_> = (0..40)
            .map(|_| {
                let most = most.clone();
                let job = move || {
                    most.1.fetch_max(most.0.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(1));
                    most.0.fetch_sub(1, Ordering::SeqCst);
                };
                coro::spawn(move || coro::blocking(job).unwrap())
            })
            .collect();
        jobs.into_iter().for_each(|j| j.join().unwrap());
    });
    assert_eq!((most.1.load(Ordering::SeqCst), coro::blocking_stats().limit), (2, 2));
    assert_eq!(coro::set_blocking_threads(7), 2);
    assert_eq!(coro::set_blocking_threads(0), 7);
    assert_eq!(coro::set_blocking_threads(512), 1);
}

/// A filter in the kernel that refuses every new thread of this process; false where that cannot be had.
#[cfg(target_os = "linux")]
fn refuse_threads() -> bool {
    const ALLOW: u32 = 0x7fff_0000;
    const EAGAIN: u32 = 0x0005_0000 | libc::EAGAIN as u32;
    let (load, equal, give) = (0x20, 0x15, 0x06);
    let at = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    // The number of the system call; the two that make threads jump to the last line.
    let mut lines = [
        at(load, 0, 0),
        at(equal, 2, libc::SYS_clone as u32),
        at(equal, 1, libc::SYS_clone3 as u32),
        at(give, 0, ALLOW),
        at(give, 0, EAGAIN),
    ];
    let program = libc::sock_fprog { len: lines.len() as u16, filter: lines.as_mut_ptr() };
    const SET_MODE_FILTER: libc::c_long = 1;
    const ALL_THREADS: libc::c_long = 1;
    // SAFETY: the program lives across the calls, which copy it.
    unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, ALL_THREADS, &raw const program) == 0
    }
}

#[cfg(not(target_os = "linux"))]
fn refuse_threads() -> bool {
    false
}

fn refused(filter: bool) -> bool {
    if filter {
        let taken = std::thread::Builder::new().spawn(|| ()).map(|t| t.join());
        assert_eq!(taken.unwrap_err().raw_os_error(), Some(libc::EAGAIN), "the filter refuses nothing");
    } else {
        println!("SKIPPED: this system has no filter that refuses threads: {}", io::Error::last_os_error());
    }
    filter
}

#[test]
fn without_threads_a_job_is_an_error_that_says_what_to_do() {
    let e = child("refused").passed();
    print!("{}", e.out);
}

fn refused_child() {
    coro::run(|| {
        if !refused(refuse_threads()) {
            return;
        }
        // All at once, so that several try to start a thread at the same time.
        let dropped = Arc::new(AtomicUsize::new(0));
        struct Counts(Arc<AtomicUsize>);
        impl Drop for Counts {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let jobs: Vec<_> = (0..50)
            .map(|_| {
                let c = Counts(dropped.clone());
                coro::spawn(move || {
                    coro::blocking(move || {
                        drop(c);
                        unreachable!("there is no thread to run it")
                    })
                })
            })
            .collect();
        for job in jobs {
            let e: io::Error = job.join().unwrap().unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::QuotaExceeded);
            let text = e.to_string();
            assert!(text.contains("no thread could be started") && text.contains("(os error 11)"), "{text}");
            assert!(text.contains("raise the limit on threads"), "{text}");
        }
        assert_eq!(dropped.load(Ordering::SeqCst), 50);
        let s = coro::blocking_stats();
        assert_eq!((s.threads, s.queued, s.running.len()), (0, 0, 0));
        let e = coro::net::TcpStream::connect("localhost:1").unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::QuotaExceeded, "{e}");
        // The other one who needs a thread; SIGINT stays with `run`.
        let e = coro::ctrl_c().unwrap_err();
        assert!(e.kind() == io::ErrorKind::QuotaExceeded && e.to_string().contains("(os error 11)"), "{e}");
        println!("refused as expected");
    });
}

#[test]
fn with_too_few_threads_jobs_wait_for_those_there_are() {
    let e = child("refused-later").passed();
    print!("{}", e.out);
}

fn refused_later_child() {
    coro::run(|| {
        let (tells, held): (Vec<_>, Vec<_>) = (0..2)
            .map(|_| {
                let (tell, told) = mpsc::channel::<()>();
                (tell, coro::spawn(move || coro::blocking(move || told.recv().is_err()).unwrap()))
            })
            .unzip();
        harness::task_until("both run", || coro::blocking_stats().running.len() == 2);
        if !refused(refuse_threads()) {
            return;
        }
        let later: Vec<_> = (0..100).map(|i| coro::spawn(move || coro::blocking(move || i).unwrap())).collect();
        harness::task_until("they wait", || coro::blocking_stats().queued == 100);
        drop(tells);
        assert!(held.into_iter().all(|h| h.join().unwrap()));
        assert_eq!(later.into_iter().map(|l| l.join().unwrap()).sum::<i32>(), 4950);
        assert_eq!(coro::blocking_stats().threads, 2);
    });
}

/// Neither `run` nor the process waits for a job that nobody waits for.
#[test]
fn a_job_that_never_ends_keeps_no_process_alive() {
    let e = child("endless").passed();
    assert!(e.out.contains("run returned") && !e.err.contains("left a task behind"), "{e:#?}");
    assert!(e.took < Duration::from_secs(8), "{:?}", e.took);
}

fn endless_child() {
    coro::run(|| {
        let waiter = coro::spawn(|| coro::blocking(|| std::thread::sleep(LONG)));
        until_parked(waiter.task(), "blocking job");
        harness::task_until("it runs", || !coro::blocking_stats().running.is_empty());
    });
    println!("run returned");
}

#[test]
fn a_forked_child_runs_the_job_itself() {
    child("forked").passed();
}

fn forked_child() {
    coro::run(|| {
        assert_eq!(coro::blocking(|| 1).unwrap(), 1);
        // SAFETY: the child calls what it tests, and ends.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // The pool's threads are not in the child, which is a plain thread: the job runs on it.
            let me = std::thread::current().id();
            let fine = coro::blocking(move || std::thread::current().id() == me).is_ok_and(|here| here);
            // SAFETY: ends the child without running anything of its parent's.
            unsafe { libc::_exit(if fine { 42 } else { 1 }) };
        }
        let mut status = 0;
        // SAFETY: our own child.
        assert_eq!(unsafe { libc::waitpid(pid, &mut status, 0) }, pid);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "{status:#x}");
        assert_eq!(coro::blocking(|| 2).unwrap(), 2);
    });
}

#[test]
#[ignore = "runs only as a child of the other tests"]
fn child_process() {
    match harness::case().as_deref() {
        Some("life") => life_child(),
        Some("limit") => limit_child(),
        Some("wrong-limit") => {
            let e = coro::run(|| coro::blocking(|| ())).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
            println!("{e}");
        }
        Some("refused") => refused_child(),
        Some("refused-later") => refused_later_child(),
        Some("endless") => endless_child(),
        Some("forked") => forked_child(),
        other => panic!("no such case: {other:?}"),
    }
}

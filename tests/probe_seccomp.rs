//! Probes in a program that the system refuses `membarrier(2)`, as filters of system calls do: they do the same, at the price of a barrier
//! for each look at a list.
#![cfg(all(target_os = "linux", not(miri)))]

mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use coro::probe::{Event, Events, Instrument, attach_to};
use util::{again, finish, role, runtime, said, until, within};

const LIMIT: Duration = Duration::from_secs(60);

#[coro::probe]
fn busy(n: u64) -> u64 {
    n.wrapping_mul(3)
}

/// How many there are.
static ALIVE: AtomicU64 = AtomicU64::new(0);

/// Looks at what it is told, and is counted until it is freed.
struct Counted(Arc<AtomicU64>);

impl Counted {
    fn new(seen: Arc<AtomicU64>) -> Counted {
        ALIVE.fetch_add(1, Ordering::Relaxed);
        Counted(seen)
    }
}

impl Instrument for Counted {
    fn events(&self) -> Events {
        Events::CALL
    }

    fn observe(&self, event: &Event<'_>) {
        assert!(event.value("n").is_some());
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Ordering::Release);
    }
}

/// From now on `membarrier` fails with `errno` on this thread and on those that it starts.
fn refuse_barriers(errno: i32) {
    let (load, equal, give) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let mut filter = [
        // The number of the call is the first word of `struct seccomp_data`.
        statement(load, 0),
        libc::sock_filter { jf: 1, ..statement(equal, libc::SYS_membarrier as u32) },
        statement(give, libc::SECCOMP_RET_ERRNO | errno as u32),
        statement(give, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which is as long as it says; the last call takes two numbers.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
        assert_eq!(libc::syscall(libc::SYS_membarrier, 0, 0), -1);
    }
    assert_eq!(std::io::Error::last_os_error().raw_os_error(), Some(errno));
}

/// Probes come and go while tasks and a thread pass their point. Whether all of them were freed at the end; it is waited for if so is said.
fn come_and_go(waits: bool) -> bool {
    let runtime = runtime(2);
    let over = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(AtomicU64::new(0));
    let passes = {
        let (over, calls) = (over.clone(), calls.clone());
        move || {
            for n in 0.. {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                assert_eq!(busy(n), n * 3);
                calls.fetch_add(1, Ordering::Relaxed);
                coro::thread::yield_now();
            }
        }
    };
    let tasks: Vec<_> = (0..3).map(|_| runtime.spawn(passes.clone())).collect();
    let thread = std::thread::spawn(passes);
    for _ in 0..100 {
        let seen = Arc::new(AtomicU64::new(0));
        let probe = attach_to("busy").instrument(Counted::new(seen.clone())).cost(100.0).start().unwrap();
        let count = attach_to("busy").count().start().unwrap();
        until(LIMIT, "both see calls", || seen.load(Ordering::Relaxed) > 10 && count.hits().0 > 10);
        assert_eq!((probe.ended(), count.ended()), (None, None));
        drop(probe);
        let before = calls.load(Ordering::Relaxed);
        let at_end = seen.load(Ordering::Relaxed);
        until(LIMIT, "calls go on", || calls.load(Ordering::Relaxed) > before + 10);
        // What had begun may have come to its end; nothing begins.
        assert!(seen.load(Ordering::Relaxed) <= at_end + 4);
    }
    over.store(true, Ordering::Relaxed);
    tasks.into_iter().for_each(|task| task.join().expect("its results were right"));
    thread.join().expect("so were the thread's");
    if waits {
        until(LIMIT, "all are freed", || ALIVE.load(Ordering::Acquire) == 0);
    }
    ALIVE.load(Ordering::Acquire) == 0
}

fn child(test: &str) {
    for errno in ["EPERM", "ENOSYS"] {
        let output = finish(again(test, errno), LIMIT * 2);
        assert!(output.status.success(), "{errno}: {}", said(&output));
        assert!(said(&output).contains("1 passed"), "{errno}: {}", said(&output));
    }
}

fn errno(role: &str) -> i32 {
    if role == "EPERM" { libc::EPERM } else { libc::ENOSYS }
}

#[test]
fn probes_work_where_barriers_are_refused() {
    let Some(role) = role() else { return child("probes_work_where_barriers_are_refused") };
    refuse_barriers(errno(&role));
    within(LIMIT, || assert!(come_and_go(true), "nothing is left"));
}

/// A filter that a program sets after its start, when probes have come already.
#[test]
fn probes_work_where_barriers_are_refused_from_some_time_on() {
    let Some(role) = role() else { return child("probes_work_where_barriers_are_refused_from_some_time_on") };
    drop(attach_to("busy").count().start().unwrap());
    refuse_barriers(errno(&role));
    // Who may still read an old list cannot be known any more, so they stay.
    within(LIMIT, || assert!(!come_and_go(false), "lists were freed under who may read them"));
}

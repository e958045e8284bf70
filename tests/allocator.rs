//! A global allocator that waits for locks of coro, which none should: harmless where nothing of the runtime is half
//! done, else told of in words. (A test program of its own, because a program has one allocator.)

mod harness;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use coro::sync::Mutex;
use harness::{child, runtime, task_until, until, until_parked};

struct Waits;

#[global_allocator]
static ALLOCATOR: Waits = Waits;

const NEVER: u32 = 0;
const IN_TASKS: u32 = 1;
const OUTSIDE_OF_TASKS: u32 = 2;
const RECURSES: u32 = 3;

static WHEN: AtomicU32 = AtomicU32::new(NEVER);
static BEGUN: AtomicBool = AtomicBool::new(false);
static WAITED: AtomicUsize = AtomicUsize::new(0);
/// The worker's thread, for waits outside of tasks.
static WORKER: AtomicI32 = AtomicI32::new(0);
static LOCK: Mutex<u32> = Mutex::new(0);

fn thread_id() -> i32 {
    // SAFETY: no preconditions.
    unsafe { libc::gettid() }
}

/// What waits may itself allocate; that must not wait again.
fn wait_if_asked() {
    static WAITING: AtomicBool = AtomicBool::new(false);
    let asked = match WHEN.load(Ordering::Relaxed) {
        IN_TASKS => coro::current().is_some(),
        OUTSIDE_OF_TASKS => thread_id() == WORKER.load(Ordering::Relaxed) && coro::current().is_none(),
        _ => false,
    };
    if asked && !WAITING.swap(true, Ordering::SeqCst) {
        if coro::current().is_some() {
            coro::yield_slice();
        }
        BEGUN.store(true, Ordering::SeqCst);
        drop(LOCK.lock());
        WAITED.fetch_add(1, Ordering::SeqCst);
        WAITING.store(false, Ordering::SeqCst);
    }
}

/// An allocation of this size calls itself without end, with the lock held.
const DEEP: usize = 12_345;

fn locked(size: usize) {
    static LOCKED: AtomicBool = AtomicBool::new(false);
    if WHEN.load(Ordering::Relaxed) != RECURSES {
        return;
    }
    while LOCKED.swap(true, Ordering::Acquire) {
        std::hint::spin_loop();
    }
    if size == DEEP {
        descend(1_000_000);
    }
    LOCKED.store(false, Ordering::Release);
}

#[inline(never)]
fn descend(n: u64) -> u64 {
    let pad = std::hint::black_box([n; 64]);
    if n == 0 { 0 } else { descend(n - 1) + pad[7] }
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Waits {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        wait_if_asked();
        locked(layout.size());
        // SAFETY: forwarded.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: forwarded.
        unsafe { System.dealloc(at, layout) }
    }
}

#[test]
fn a_wait_in_an_allocation_of_a_task_is_a_wait_like_any_other() {
    child("in_a_task").passed();
}

fn in_a_task() {
    runtime(1).block_on(|| {
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                coro::spawn_local(move || {
                    for n in 0..20 {
                        assert_eq!(*std::hint::black_box(Box::new(i * n)), i * n);
                    }
                })
            })
            .collect();
        let held = LOCK.lock().unwrap();
        WHEN.store(IN_TASKS, Ordering::SeqCst);
        coro::yield_slice();
        coro::yield_slice();
        WHEN.store(NEVER, Ordering::SeqCst);
        drop(held);
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert!(WAITED.load(Ordering::SeqCst) > 0, "no allocation waited");
    });
}

#[test]
fn a_wait_in_an_allocation_of_the_runtime_does_no_silent_harm() {
    let ended = child_ended("in_the_runtime");
    let words = ended.err.contains("a worker's own loop panicked") && ended.err.contains("global allocator");
    assert!(ended.code == Some(0) || (ended.signal == Some(libc::SIGABRT) && words), "{ended:#?}");
}

fn child_ended(case: &str) -> harness::Ended {
    harness::wait(case, harness::command(case).spawn().expect("a child starts"))
}

/// Timers, spawns and the run queue grow, and every growth lets other tasks run in the middle of it.
fn in_the_runtime() {
    let rt = runtime(1);
    let done = Arc::new(AtomicUsize::new(0));
    let d = done.clone();
    rt.block_on(move || {
        WHEN.store(IN_TASKS, Ordering::SeqCst);
        for i in 0..2000u64 {
            let done = d.clone();
            drop(coro::spawn(move || {
                coro::sleep(Duration::from_millis(20 + i % 7));
                done.fetch_add(1, Ordering::SeqCst);
            }));
        }
        task_until("the tasks have slept", || d.load(Ordering::SeqCst) > 1000);
        WHEN.store(NEVER, Ordering::SeqCst);
    });
    assert!(WAITED.load(Ordering::SeqCst) > 0, "no allocation waited");
}

#[test]
fn an_overflow_inside_an_allocator_that_holds_a_lock_still_has_its_frames() {
    let ended = child_ended("recurses");
    assert_eq!(ended.signal, Some(libc::SIGABRT), "{ended:#?}");
    assert!(ended.took < Duration::from_secs(10), "{ended:#?}");
    let (_, frames) = ended.err.split_once("no lines: they did not come in time").expect("it is said");
    assert!(ended.err.contains("\"deep\" overflowed its stack of 192 KiB"), "{ended:#?}");
    assert!(frames.contains("coro:      0 [") && frames.matches("descend+0x").count() > 20, "{ended:#?}");
    // Also who asked for the memory.
    assert!(frames.contains("frames ...\n") && frames.contains("asks_for_memory"), "{ended:#?}");
}

fn recurses() {
    #[inline(never)]
    fn asks_for_memory() {
        std::hint::black_box(Vec::<u8>::with_capacity(DEEP));
    }
    runtime(1).block_on(|| {
        let task = coro::spawn_named("deep", || {
            WHEN.store(RECURSES, Ordering::SeqCst);
            asks_for_memory();
        });
        let _ = task.join();
    });
}

#[test]
fn a_worker_that_waits_outside_of_its_tasks_is_told_of() {
    let ended = child("outside_of_tasks").passed();
    assert!(ended.err.contains("a worker waits for a lock or channel of coro while it runs no task"), "{ended:#?}");
}

fn outside_of_tasks() {
    let rt = runtime(1);
    let parked: Vec<_> = (0..600).map(|_| rt.spawn(coro::thread::park)).collect();
    for t in &parked {
        until_parked(t.task(), "park");
    }
    rt.block_on(|| WORKER.store(thread_id(), Ordering::SeqCst));
    // More than the run queue has room for come through the inbox while the worker is busy: its loop makes room.
    let go = Arc::new(AtomicBool::new(false));
    let busy = Arc::new(AtomicBool::new(false));
    let (g, b) = (go.clone(), busy.clone());
    let hog = rt.spawn(move || {
        b.store(true, Ordering::SeqCst);
        while !g.load(Ordering::SeqCst) {
            std::hint::spin_loop();
        }
    });
    until("the worker is busy", || busy.load(Ordering::SeqCst));
    for t in &parked {
        assert!(t.task().unpark());
    }
    let held = LOCK.lock().unwrap();
    WHEN.store(OUTSIDE_OF_TASKS, Ordering::SeqCst);
    go.store(true, Ordering::SeqCst);
    until("the worker waits", || BEGUN.load(Ordering::SeqCst));
    assert!(!parked.iter().any(coro::JoinHandle::is_finished), "nothing waited");
    drop(held);
    until("the wait is over", || WAITED.load(Ordering::SeqCst) > 0);
    WHEN.store(NEVER, Ordering::SeqCst);
    hog.join().unwrap();
    parked.into_iter().for_each(|t| t.join().unwrap());
}

#[test]
#[ignore = "run by the tests above as a process of its own"]
fn child_process() {
    match harness::case().expect("a case").as_str() {
        "in_a_task" => in_a_task(),
        "in_the_runtime" => in_the_runtime(),
        "outside_of_tasks" => outside_of_tasks(),
        "recurses" => recurses(),
        other => panic!("no case {other}"),
    }
}

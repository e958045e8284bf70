//! A task that is stuck inside the global allocator, with its lock, is reported all the same: whoever reports must not
//! allocate. A program of its own, because the allocator is.
#![cfg(all(target_os = "linux", not(any(miri, coro_thread_context, coro_asan))))]

mod util;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use util::{again, finish, role, runtime, said};

/// One lock around everything, which an allocation of one odd size keeps for long.
struct Locked;

static LOCK: AtomicBool = AtomicBool::new(false);
const ODD: usize = 777_777;
const HELD: Duration = Duration::from_millis(250);

fn locked<T>(f: impl FnOnce() -> T) -> T {
    while LOCK.swap(true, Ordering::Acquire) {
        std::thread::yield_now();
    }
    let value = f();
    LOCK.store(false, Ordering::Release);
    value
}

#[inline(never)]
fn held_for_long() {
    // CPU time: on a busy machine it lasts longer.
    let now = || {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call fills the time.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let end = now() + HELD;
    while now() < end {
        std::hint::spin_loop();
    }
}

// SAFETY: everything is the system's allocator's.
unsafe impl GlobalAlloc for Locked {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        locked(|| {
            if layout.size() == ODD {
                held_for_long();
            }
            // SAFETY: forwarded.
            unsafe { System.alloc(layout) }
        })
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: forwarded.
        locked(|| unsafe { System.dealloc(at, layout) });
    }
}

#[global_allocator]
static ALLOCATOR: Locked = Locked;

#[test]
fn a_task_that_holds_the_allocators_lock_is_told_at_once() {
    if role().is_some() {
        coro::set_latency_warning(Duration::from_millis(50));
        runtime(1).block_on(|| {
            coro::spawn_named("allocates", || drop(std::hint::black_box(Vec::<u8>::with_capacity(ODD))))
                .join()
                .unwrap();
        });
        std::process::exit(0);
    }
    let test = "a_task_that_holds_the_allocators_lock_is_told_at_once";
    let text = said(&finish(again(test, "allocates"), Duration::from_secs(30)));
    let told: Vec<&str> = text.lines().filter(|l| l.contains("name='allocates'")).collect();
    let first = told.first().unwrap_or_else(|| panic!("{text}"));
    // Only while the lock is held does the slice go on.
    assert!(first.contains("s so far) ") && first.contains("[held_for_long+0x"), "{text}");
}

//! What watches a task that has too little stack left: it runs on another one, and what is seen of that.

mod util;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use coro::probe::{Event, Events, Instrument, attach_to, break_at};

use util::{again, finish, role, runtime, said, until, within};

const LIMIT: Duration = Duration::from_secs(30);

mod app {
    #[coro::probe]
    pub(crate) fn fails(n: u32) -> u32 {
        assert!(n > 0, "none");
        n
    }

    #[coro::probe]
    pub(crate) fn busy(n: u64) -> u64 {
        n.wrapping_mul(3)
    }

    #[coro::probe]
    pub(crate) fn charge(account: &str, cents: u64) -> Result<u64, std::io::Error> {
        coro::breakpoint!(account = account);
        if account.is_empty() { Err(std::io::Error::other("no account")) } else { Ok(cents) }
    }
}

/// Tests that count what everybody does, one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Conditions are expressions.
const CONDITIONS: bool = cfg!(feature = "script");

const OWN: usize = 64 << 10;

/// Where the stack ends at the moment. Not where a variable lies: the sanitizer has those in a heap of its own.
#[inline(always)]
fn stack_pointer() -> usize {
    let at: usize;
    // SAFETY: reads one register.
    unsafe {
        #[cfg(target_arch = "x86_64")]
        std::arch::asm!("mov {}, rsp", out(reg) at, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "aarch64")]
        std::arch::asm!("mov {}, sp", out(reg) at, options(nomem, nostack, preserves_flags));
    }
    at
}

/// Calls `f` where so many bytes of the task's stack are left, or little less.
fn with_left<T>(left: usize, f: &dyn Fn() -> T) -> T {
    #[inline(never)]
    fn deeper<T>(top: usize, used: usize, f: &dyn Fn() -> T) -> T {
        let bytes = std::hint::black_box([1u8; 512]);
        let result = if top - stack_pointer() > used { f() } else { deeper(top, used, f) };
        std::hint::black_box(&bytes);
        result
    }
    deeper(stack_pointer(), OWN - left, f)
}

/// Too little for any instrument, and enough for what the program does itself.
const LITTLE: usize = if cfg!(coro_asan) { 40 << 10 } else { 14 << 10 };

/// The same for a panic of the task's own: with RUST_BACKTRACE=1 the test harness's hook prints a backtrace, and std takes the longer names of
/// its functions apart by recursion. 14 KiB are too little for that; with optimisation an instrument has enough then.
const LITTLE_FOR_A_PANIC: usize = if cfg!(coro_asan) { LITTLE } else { 30 << 10 };

fn in_small_task<T: Send + 'static>(runtime: &coro::Runtime, f: impl FnOnce() -> T + Send + 'static) -> T {
    let small = move || coro::Builder::new().name("small").stack_size(OWN).spawn(f).expect("a task").join();
    runtime.block_on(small).expect("it is unaffected")
}

/// Uses more stack than there is left.
struct Large(AtomicU64);

impl Instrument for Large {
    fn observe(&self, _: &Event<'_>) {
        let bytes = std::hint::black_box([3u8; 24 << 10]);
        self.0.fetch_add(u64::from(bytes[bytes.len() / 2]), Ordering::Relaxed);
    }

    fn text(&self) -> Option<String> {
        Some(format!("large {}", self.0.load(Ordering::Relaxed)))
    }
}

#[test]
fn what_watches_a_task_with_little_stack_left_runs_on_another_one() {
    let _alone = alone();
    within(LIMIT, || {
        let runtime = runtime(2);
        let log = attach_to("app::busy").keep_lines().log().start().unwrap();
        let light = attach_to("app::busy").count().start().unwrap();
        let large = attach_to("app::busy").instrument(Large(AtomicU64::new(0))).cost(100.0).start().unwrap();
        let stack = attach_to("app::busy").instruments("stack").start().unwrap();
        let condition = "[1, 2].filter(|x| x > n).len() == 1 && task > 0";
        let chosen = attach_to("app::busy").count().cost(100.0);
        let chosen = if CONDITIONS { chosen.condition(condition) } else { chosen };
        let chosen = chosen.start().unwrap();
        // As it is, and with little left.
        assert_eq!(in_small_task(&runtime, || (app::busy(1), with_left(LITTLE, &|| app::busy(1)))), (3, 3));
        for probe in [&log, &light, &large, &stack, &chosen] {
            assert_eq!((probe.hits().0, probe.ended()), (2, None));
        }
        assert_eq!(
            log.lines().iter().map(|line| line.contains("busy(n=1) => 3 in ")).collect::<Vec<_>>(),
            [true, true]
        );
        assert_eq!(large.text(), "large 6");
        // The frames of the task are there, as if there were one stack.
        let stacks = stack.text();
        assert!(stacks.starts_with("stack 2 different"), "{stacks}");
        let deep = stacks.lines().find(|line| line.contains("deeper|")).unwrap_or_else(|| panic!("{stacks}"));
        assert!(deep.contains("in_small_task") || deep.contains("runs_on_another_one"), "{deep}");
        assert!(!stacks.contains("__coro_call_on"), "{stacks}");
        drop((log, large, stack, chosen));
        // Many of them, on both workers, that give way in between.
        let log =
            attach_to("app::busy").keep_lines().log_of(Events::CALL | Events::RETURN).cost(100.0).start().unwrap();
        let tasks: Vec<_> = (0..4u64)
            .map(|task| {
                let each = move || {
                    for n in 0..200 {
                        let n = task * 1000 + n;
                        assert_eq!(with_left(LITTLE, &|| app::busy(n)), n * 3);
                        coro::thread::yield_now();
                    }
                };
                let small = coro::Builder::new().stack_size(OWN);
                runtime.block_on(move || small.spawn(each)).expect("a task")
            })
            .collect();
        tasks.into_iter().for_each(|task| task.join().expect("its results were right"));
        assert_eq!((light.hits().0, log.hits().0, log.ended()), (802, 1600, None));
    });
}

#[test]
fn what_goes_wrong_on_the_other_stack_reaches_nobody() {
    struct Wrong(fn());
    impl Instrument for Wrong {
        fn observe(&self, _: &Event<'_>) {
            self.0();
        }
    }
    #[derive(Clone, Copy)]
    struct Shown;
    impl std::fmt::Debug for Shown {
        fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            panic!("it is not to be seen")
        }
    }
    #[coro::probe]
    fn takes(shown: Shown) -> u8 {
        let _ = shown;
        7
    }
    let _alone = alone();
    within(LIMIT, || {
        let runtime = runtime(1);
        let beside = attach_to("app::busy").count().start().unwrap();
        for (wrong, why) in [
            (Wrong(|| panic!("boom")), "an instrument panicked: boom"),
            (Wrong(|| coro::sleep(Duration::from_millis(1))), "an instrument panicked: this task may not wait here"),
            (Wrong(|| assert_eq!(app::busy(5), 15)), ""),
            (Wrong(|| assert!(std::panic::catch_unwind(|| panic!("caught")).is_err())), ""),
        ] {
            let probe = attach_to("app::busy").instrument(wrong).cost(100.0).start().unwrap();
            let twice = || (with_left(LITTLE, &|| app::busy(2)), app::busy(3));
            assert_eq!(in_small_task(&runtime, twice), (6, 9));
            assert!(probe.ended().unwrap_or_default().starts_with(why), "{:?}", probe.ended());
            assert_eq!(
                (probe.hits().0, probe.ended().is_some()),
                (if why.is_empty() { 2 } else { 1 }, !why.is_empty())
            );
        }
        assert_eq!((beside.hits().0, beside.ended()), (8, None));
        // What shows an argument that is kept.
        let probe = attach_to("takes").keep_lines().log().start().unwrap();
        assert_eq!(in_small_task(&runtime, || (with_left(LITTLE, &|| takes(Shown)), takes(Shown))), (7, 7));
        let why = probe.ended().unwrap_or_default();
        assert!(why.starts_with("an argument panicked when it was shown: it is not to be seen"), "{why}");
        // The task's own panic is its own.
        let caught = || std::panic::catch_unwind(|| with_left(LITTLE_FOR_A_PANIC, &|| app::fails(0))).is_err();
        let probe = attach_to("app::fails").keep_lines().log_of(Events::CALL | Events::END).start().unwrap();
        assert!(in_small_task(&runtime, caught));
        assert_eq!((probe.hits().0, probe.ended()), (2, None));
    });
}

#[test]
fn a_task_with_little_stack_left_stands_at_a_breakpoint_on_its_own() {
    let _alone = alone();
    within(LIMIT, || {
        let runtime = runtime(1);
        runtime.block_on(|| {
            let breakpoint = break_at("app::charge");
            let breakpoint = if CONDITIONS { breakpoint.condition("cents == 250") } else { breakpoint };
            let breakpoint = breakpoint.start().unwrap();
            let charge = |cents| {
                let charge = move || with_left(LITTLE + (10 << 10), &|| app::charge("ada", cents).unwrap());
                coro::Builder::new().stack_size(OWN).spawn(charge).unwrap()
            };
            // Two at once: what watches them is done with before they wait.
            let tasks = [charge(250), charge(250)];
            let hits = [breakpoint.wait(LIMIT).unwrap(), breakpoint.wait(LIMIT).unwrap()];
            if CONDITIONS {
                assert_eq!(charge(251).join().unwrap(), 251);
            }
            for hit in &hits {
                let view = hit.stack().expect("it is there").to_string();
                assert!(view.contains("deeper") && !view.contains("[...]"), "{view}");
            }
            let [first, second] = hits;
            first.returning("7");
            second.release();
            let mut results = tasks.map(|task| task.join().unwrap());
            results.sort_unstable();
            assert_eq!(results, [7, 250]);
        });
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_task_is_seen_while_what_watches_it_runs_on_another_stack() {
    struct Spins {
        began: Arc<AtomicBool>,
        go: Arc<AtomicBool>,
        sleeps: bool,
    }
    impl Instrument for Spins {
        #[inline(never)]
        fn observe(&self, _: &Event<'_>) {
            self.began.store(true, Ordering::Release);
            while !self.go.load(Ordering::Acquire) {
                if self.sleeps {
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
    }
    let _alone = alone();
    within(LIMIT, || {
        let runtime = runtime(1);
        for sleeps in [false, true] {
            let (began, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
            let spins = Spins { began: began.clone(), go: go.clone(), sleeps };
            let probe = attach_to("app::busy").instrument(spins).start().unwrap();
            let small = || coro::Builder::new().stack_size(OWN).spawn(|| with_left(LITTLE, &|| app::busy(4))).unwrap();
            let task = runtime.block_on(small);
            until(LIMIT, "it runs", || began.load(Ordering::Acquire));
            let mut seen = 0;
            // Wherever in the loop it is.
            for _ in 0..20 {
                let view = coro::where_is(task.id()).expect("it is there");
                // The frames of that stack, and a word that there are more; never others.
                assert!(view.stack.contains("observe|") && view.stack.ends_with("[...]"), "{view}");
                assert!(!view.stack.contains("deeper|") && !view.stack.contains("__coro_call_on"), "{view}");
                seen += 1;
            }
            go.store(true, Ordering::Release);
            assert_eq!((task.join().unwrap(), seen), (12, 20));
            drop(probe);
        }
    });
}

#[test]
#[cfg(target_os = "linux")]
fn an_overflow_of_the_other_stack_says_whose_it_is() {
    struct Endless;
    impl Instrument for Endless {
        fn observe(&self, _: &Event<'_>) {
            recurses(1);
        }
    }
    #[inline(never)]
    #[allow(unconditional_recursion, reason = "that is the point")]
    fn recurses(depth: u64) {
        let frame = std::hint::black_box([depth; 32]);
        recurses(frame[3] + 1);
        std::hint::black_box(&frame);
    }
    if role().is_none() {
        let output = finish(again("an_overflow_of_the_other_stack_says_whose_it_is", "overflows"), LIMIT);
        let text = said(&output);
        let is = |words: &str| assert!(text.contains(words), "{words:?} is missing in:\n{text}");
        let size = if cfg!(coro_asan) { 512 } else { 192 };
        is(&format!("\"small\": what watches it overflowed the stack of {size} KiB (fault at 0x"));
        is("coro: an instrument or a condition of a probe, or what shows a value, takes more than that");
        is("recurses");
        assert!(!text.contains("Builder::stack_size") && !text.contains("another task's stack"), "{text}");
        return;
    }
    let _probe = attach_to("app::busy").instrument(Endless).start().unwrap();
    in_small_task(&runtime(1), || with_left(LITTLE, &|| app::busy(1)));
}

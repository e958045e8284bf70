//! `coro::thread`: who a thread is, parking, names, scopes with std's signatures, and task locals.

mod harness;

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as StdMutex};
use std::time::{Duration, Instant};

use coro::sync::mpsc::channel;
use coro::thread::{self, LocalKey, Thread};
use harness::{child, runtime, task_until, until, until_parked};

const LONG: Duration = Duration::from_secs(1000);

/// Runs `f` on a plain thread, in a task of one worker, and in a task of four.
fn everywhere(f: fn()) {
    std::thread::spawn(f).join().expect("on a plain thread");
    for workers in [1, 4] {
        runtime(workers).block_on(f);
    }
}

#[test]
fn types_are_as_free_as_stds() {
    fn free<T: Send + Sync + UnwindSafe + RefUnwindSafe + Unpin>() {}
    fn shared<T: Send + Sync>() {}
    fn caught<T: RefUnwindSafe>() {}
    free::<Thread>();
    free::<thread::ThreadId>();
    free::<thread::AccessError>();
    free::<thread::Builder>();
    free::<coro::Task>();
    // What is not `Send` may be in a key, and (never really) in a handle's type.
    shared::<LocalKey<std::rc::Rc<u8>>>();
    shared::<thread::JoinHandle<Cell<u8>>>();
    shared::<thread::JoinHandle<std::rc::Rc<u8>>>();
    shared::<coro::ScopedJoinHandle<'static, Cell<u8>>>();
    free::<coro::ScopedJoinHandle<'static, u8>>();
    caught::<coro::thread::Scope<'static, 'static>>();
    free::<coro::JoinHandle<u8>>();
    free::<thread::JoinHandle<u8>>();
    assert_eq!(size_of::<Option<thread::ThreadId>>(), size_of::<thread::ThreadId>());
}

#[test]
fn identity() {
    everywhere(|| {
        let me = thread::current();
        assert_eq!(me.id(), thread::current().id());
        let mut ids = HashSet::from([me.id()]);
        for _ in 0..100 {
            let t = thread::spawn(|| thread::current().id());
            let id = t.thread().id();
            assert_eq!(t.task().id(), t.thread().task().unwrap().id());
            assert_eq!(t.join().unwrap(), id, "the handle names the task that runs");
            assert!(ids.insert(id), "an id came twice: {id:?}");
        }
        let os = std::thread::spawn(|| thread::current().id()).join().unwrap();
        assert!(ids.insert(os));
        let text = format!("{me:?}");
        assert!(text.starts_with("Thread { id: ThreadId(") && text.contains("name: "), "{text}");
    });
}

#[test]
fn names() {
    everywhere(|| {
        assert_eq!(thread::spawn(|| thread::current().name().map(str::to_owned)).join().unwrap(), None);
        let t = thread::Builder::new().name("ada lovelace".into()).spawn(|| {
            let here = thread::current();
            assert_eq!(coro::current_name().as_deref(), Some("ada lovelace"));
            here.name().unwrap().to_owned()
        });
        let t = t.unwrap();
        assert_eq!(t.thread().name(), Some("ada lovelace"));
        let kept = t.thread().clone();
        assert_eq!(t.join().unwrap(), "ada lovelace");
        // The name outlives the task and its cell.
        assert_eq!(kept.name(), Some("ada lovelace"));
        kept.unpark();
        let named = coro::spawn_named("by the root", thread::current);
        assert_eq!(named.join().unwrap().name(), Some("by the root"));
        let nul = catch_unwind(|| thread::Builder::new().name("ada l\0velace".into()).spawn(|| {}));
        let payload = nul.expect_err("a NUL in a name");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"thread name may not contain interior null bytes"));
        thread::scope(|s| {
            let t = thread::Builder::new().name("child".into()).stack_size(0).spawn_scoped(s, thread::current).unwrap();
            assert_eq!(t.thread().name(), Some("child"));
            assert_eq!(t.thread().task(), Some(t.task()));
            let own = t.join().unwrap();
            assert_eq!(own.name(), Some("child"));
        });
    });
    runtime(1).block_on(|| assert_eq!(thread::current().name(), Some("main")));
}

#[test]
fn stack_sizes() {
    everywhere(|| {
        let deep = thread::Builder::new().stack_size(1024 * 1024).spawn(|| {
            let room = std::hint::black_box([1u8; 300 * 1024]);
            room.iter().map(|b| usize::from(*b)).sum::<usize>()
        });
        assert_eq!(deep.unwrap().join().unwrap(), 300 * 1024);
        let huge = thread::Builder::new().stack_size(usize::MAX / 2).spawn(|| ());
        assert!(huge.is_err(), "a stack of half the address space");
    });
}

#[test]
fn unpark_before_park_is_kept_once() {
    everywhere(|| {
        for _ in 0..100 {
            thread::current().unpark();
            thread::current().unpark();
            thread::park();
        }
        // Two unparks are one token: the next wait lasts.
        let begun = Instant::now();
        thread::park_timeout(Duration::from_millis(20));
        assert!(begun.elapsed() >= Duration::from_millis(20) || coro::current().is_none(), "a token came twice");
        thread::current().unpark();
        thread::park_timeout(LONG);
        thread::current().unpark();
        thread::park_timeout(Duration::MAX);
    });
}

/// A task that never has to wait keeps neither its time limit nor its cancellation nor the worker from the others.
#[test]
fn a_token_at_every_park_holds_up_nobody() {
    fn spins(park: fn()) {
        loop {
            thread::current().unpark();
            park();
        }
    }
    let (say, said) = std::sync::mpsc::channel();
    // On a thread that is left behind when it never ends.
    std::thread::spawn(move || {
        runtime(1).block_on(move || {
            for park in [thread::park, || thread::park_timeout(LONG)] {
                assert!(coro::timeout(Duration::from_millis(10), || spins(park)).is_err());
                say.send("expired").unwrap();
                let spinning = thread::spawn(move || spins(park));
                thread::yield_now();
                // Others of the worker run meanwhile, this one for a start.
                assert_eq!(spinning.cancel(), coro::CancelOutcome::Requested);
                assert!(coro::is_cancel(&*spinning.join().unwrap_err()));
                say.send("cancelled").unwrap();
            }
        });
    });
    for what in ["expired", "cancelled"].repeat(2) {
        assert_eq!(said.recv_timeout(Duration::from_secs(15)), Ok(what));
    }
}

#[test]
fn unpark_from_anywhere() {
    everywhere(|| {
        for round in 0..50 {
            let parent = thread::current();
            let flag = Arc::new(AtomicBool::new(false));
            let other = flag.clone();
            let wake = move || {
                other.store(true, Ordering::SeqCst);
                parent.unpark();
            };
            let (mut task, mut os) = (None, None);
            if round % 2 == 0 {
                task = Some(thread::spawn(wake));
            } else {
                os = Some(std::thread::spawn(wake));
            }
            while !flag.load(Ordering::SeqCst) {
                if round % 3 == 0 { thread::park() } else { thread::park_timeout(LONG) }
            }
            if let Some(t) = task {
                t.join().unwrap();
            }
            if let Some(t) = os {
                t.join().unwrap();
            }
            // A token that came after the loop saw the flag must not disturb the next round's count.
            thread::park_timeout(Duration::ZERO);
        }
    });
}

#[test]
fn a_token_is_not_eaten_by_other_waits() {
    runtime(1).block_on(|| {
        let (send, receive) = channel::<u8>();
        let waiting = thread::spawn(move || {
            let got = receive.recv().unwrap();
            thread::park();
            got
        });
        until_parked(waiting.task(), "recv");
        waiting.thread().unpark();
        coro::yield_slice();
        assert!(!waiting.is_finished(), "an unpark ended a recv");
        send.send(7).unwrap();
        assert_eq!(waiting.join().unwrap(), 7);
    });
}

#[test]
fn sleeping_for_ever_lasts_and_can_be_cancelled() {
    runtime(1).block_on(|| {
        for forever in [Duration::MAX, Duration::new(u64::MAX, 0)] {
            let t = thread::spawn(move || thread::sleep(forever));
            let p = thread::spawn(move || thread::park_timeout(forever));
            until_parked(t.task(), "sleep");
            until_parked(p.task(), "park");
            thread::sleep(Duration::from_millis(5));
            assert!(!t.is_finished() && !p.is_finished());
            assert_eq!(t.cancel(), coro::CancelOutcome::Requested);
            assert_eq!(p.task().cancel(), coro::CancelOutcome::Requested);
            assert!(coro::is_cancel(&*t.join().unwrap_err()) && coro::is_cancel(&*p.join().unwrap_err()));
        }
    });
}

#[test]
fn sleeps_and_yields() {
    everywhere(|| {
        let begun = Instant::now();
        thread::sleep(Duration::from_millis(3));
        thread::sleep_until(begun + Duration::from_millis(6));
        #[allow(deprecated, reason = "mirrored because std has it")]
        thread::sleep_ms(2);
        #[allow(deprecated, reason = "mirrored because std has it")]
        thread::park_timeout_ms(2);
        thread::yield_now();
        assert!(begun.elapsed() >= Duration::from_millis(8));
        assert!(thread::available_parallelism().unwrap().get() >= 1);
    });
}

#[test]
fn panicking_is_the_tasks_own() {
    runtime(1).block_on(|| {
        struct Waits(coro::sync::mpsc::Receiver<()>, coro::sync::mpsc::Sender<bool>);
        impl Drop for Waits {
            fn drop(&mut self) {
                self.1.send(thread::panicking()).unwrap();
                let _ = self.0.recv();
            }
        }
        let (go, wait) = channel();
        let (tell, told) = channel();
        let unwinds = thread::spawn(move || {
            let _waits = Waits(wait, tell);
            panic!("on purpose");
        });
        assert!(told.recv().unwrap(), "a destructor of a panic");
        assert!(std::thread::panicking(), "std's answer is the thread's: this test is pointless otherwise");
        assert!(!thread::panicking(), "another task unwinds, not this one");
        assert!(!thread::spawn(thread::panicking).join().unwrap());
        go.send(()).unwrap();
        assert!(unwinds.join().is_err());
        assert!(!thread::panicking());
    });
}

#[test]
fn scopes() {
    everywhere(|| {
        let mut numbers = [1, 2, 3];
        let sum = AtomicUsize::new(0);
        let last = thread::scope(|s| {
            for n in &mut numbers {
                let sum = &sum;
                // Scopes nest: a child spawns its siblings.
                s.spawn(move || {
                    *n *= 2;
                    let n = *n;
                    s.spawn(move || sum.fetch_add(n, Ordering::SeqCst));
                });
            }
            thread::Builder::new().spawn_scoped(s, || 5).unwrap().join().unwrap()
        });
        assert_eq!((numbers, sum.into_inner(), last), ([2, 4, 6], 12, 5));
        let failed = catch_unwind(|| thread::scope(|s| _ = s.spawn(|| panic!("on purpose"))));
        let payload = failed.expect_err("a child panicked");
        assert_eq!(payload.downcast_ref::<&str>(), Some(&"a scoped thread panicked"));
        // Whoever joins knows already.
        thread::scope(|s| assert!(s.spawn(|| panic!("on purpose")).join().is_err()));
    });
}

#[test]
fn spawn_unchecked_borrows() {
    everywhere(|| {
        let text = String::from("borrowed");
        // SAFETY: joined below, before `text` goes.
        let t = unsafe { thread::Builder::new().spawn_unchecked(|| text.len()) }.unwrap();
        assert_eq!(t.join().unwrap(), 8);
    });
}

coro::thread_local! {
    /// With documentation.
    static COUNT: Cell<u32> = const { Cell::new(1) };
    pub(crate) static LIST: RefCell<Vec<u32>> = RefCell::new(vec![1, 2, 3]);
    #[allow(dead_code, reason = "attributes are kept")]
    static UNUSED: () = ();
}
coro::thread_local!(static INITS: Cell<u32> = initial());
coro::thread_local!();

static INITIAL: AtomicUsize = AtomicUsize::new(0);

fn initial() -> Cell<u32> {
    INITIAL.fetch_add(1, Ordering::SeqCst);
    Cell::new(7)
}

#[test]
fn locals_are_the_tasks_own() {
    everywhere(|| {
        COUNT.set(5);
        LIST.with_borrow_mut(|l| l.push(4));
        let tasks: Vec<_> = (0..20)
            .map(|i| {
                thread::spawn(move || {
                    assert_eq!(COUNT.get(), 1);
                    for _ in 0..10 {
                        COUNT.with(|c| {
                            c.set(c.get() + i);
                            // Others of this worker do the same now.
                            coro::yield_slice();
                        });
                    }
                    assert_eq!(LIST.replace(vec![i]), [1, 2, 3]);
                    coro::yield_slice();
                    assert_eq!(LIST.take(), [i]);
                    COUNT.get()
                })
            })
            .collect();
        for (i, t) in tasks.into_iter().enumerate() {
            assert_eq!(t.join().unwrap(), 1 + 10 * i as u32);
        }
        assert_eq!(COUNT.get(), 5);
        assert_eq!(LIST.with_borrow(|l| l.clone()), [1, 2, 3, 4]);
        assert_eq!(COUNT.replace(6), 5);
        assert_eq!(COUNT.take(), 6);
        LIST.set(Vec::new());
        assert!(LIST.take().is_empty());
    });
}

#[test]
fn set_needs_no_initialiser() {
    runtime(1).block_on(|| {
        let before = INITIAL.load(Ordering::SeqCst);
        thread::spawn(|| {
            INITS.set(3);
            assert_eq!(INITS.get(), 3);
        })
        .join()
        .unwrap();
        assert_eq!(INITIAL.load(Ordering::SeqCst), before);
        assert_eq!(thread::spawn(|| INITS.get()).join().unwrap(), 7);
        assert_eq!(INITIAL.load(Ordering::SeqCst), before + 1);
    });
}

/// Writes its name into a list when it goes.
struct Says(&'static str, Arc<StdMutex<Vec<&'static str>>>);

impl Drop for Says {
    fn drop(&mut self) {
        self.1.lock().unwrap().push(self.0);
    }
}

coro::thread_local! {
    static FIRST: RefCell<Option<Says>> = const { RefCell::new(None) };
    static SECOND: RefCell<Option<Says>> = const { RefCell::new(None) };
    static MAKER: RefCell<Option<MakesAnother>> = const { RefCell::new(None) };
}

struct MakesAnother(Arc<StdMutex<Vec<&'static str>>>);

impl Drop for MakesAnother {
    fn drop(&mut self) {
        // Its own key is gone, another one can still be made.
        assert!(MAKER.try_with(|_| ()).is_err(), "a value that is being destroyed was handed out");
        assert_eq!(format!("{:?}", MAKER.try_with(|_| ())), "Err(AccessError)");
        assert!(catch_unwind(|| MAKER.with(|_| ())).is_err());
        FIRST.set(Some(Says("made late", self.0.clone())));
        self.0.lock().unwrap().push("maker");
    }
}

#[test]
fn locals_end_with_their_task_before_the_join() {
    everywhere(|| {
        let said = Arc::new(StdMutex::new(Vec::new()));
        let s = said.clone();
        thread::spawn(move || {
            FIRST.set(Some(Says("first", s.clone())));
            SECOND.set(Some(Says("second", s.clone())));
            s.lock().unwrap().push("closure");
        })
        .join()
        .unwrap();
        assert_eq!(*said.lock().unwrap(), ["closure", "second", "first"]);
        said.lock().unwrap().clear();
        let s = said.clone();
        thread::spawn(move || MAKER.set(Some(MakesAnother(s)))).join().unwrap();
        assert_eq!(*said.lock().unwrap(), ["maker", "made late"]);
        // On a plain thread they go with the thread.
        said.lock().unwrap().clear();
        let s = said.clone();
        let plain = std::thread::spawn(move || {
            SECOND.set(Some(Says("second", s.clone())));
            MAKER.set(Some(MakesAnother(s)));
        });
        plain.join().unwrap();
        assert_eq!(*said.lock().unwrap(), ["maker", "made late", "second"]);
    });
}

#[test]
fn locals_of_a_task_that_unwinds_or_never_starts() {
    runtime(1).block_on(|| {
        let said = Arc::new(StdMutex::new(Vec::new()));
        let s = said.clone();
        let panics = thread::spawn(move || {
            FIRST.set(Some(Says("panicked", s)));
            panic!("on purpose");
        });
        assert!(panics.join().is_err());
        let s = said.clone();
        let cancelled = thread::spawn(move || {
            FIRST.set(Some(Says("cancelled", s)));
            thread::park();
        });
        until_parked(cancelled.task(), "park");
        cancelled.cancel();
        assert!(cancelled.join().is_err());
        assert_eq!(*said.lock().unwrap(), ["panicked", "cancelled"]);
        // What an unstarted task owns is dropped in the task, which may use locals for it.
        struct Uses(Says);
        impl Drop for Uses {
            fn drop(&mut self) {
                FIRST.set(Some(Says("local of an unstarted task", self.0.1.clone())));
            }
        }
        let uses = Uses(Says("captured", said.clone()));
        let unstarted = thread::spawn(move || drop(uses));
        assert_eq!(unstarted.cancel(), coro::CancelOutcome::NeverStarts);
        assert!(unstarted.join().is_err());
        assert_eq!(said.lock().unwrap()[2..], ["captured", "local of an unstarted task"]);
    });
}

coro::thread_local! {
    static WAITS: RefCell<Option<WaitsAtTheEnd>> = const { RefCell::new(None) };
    static PANICS: RefCell<Option<PanicsAtTheEnd>> = const { RefCell::new(None) };
}

struct WaitsAtTheEnd(coro::sync::mpsc::Receiver<u8>, Arc<StdMutex<Vec<u8>>>);

impl Drop for WaitsAtTheEnd {
    fn drop(&mut self) {
        while let Ok(n) = self.0.recv() {
            coro::sleep(Duration::from_millis(1));
            self.1.lock().unwrap().push(n);
        }
    }
}

struct PanicsAtTheEnd;

impl Drop for PanicsAtTheEnd {
    fn drop(&mut self) {
        panic!("a local's destructor, on purpose");
    }
}

#[test]
fn a_locals_destructor_may_wait_and_is_not_interrupted() {
    runtime(1).block_on(|| {
        let (send, receive) = channel();
        let got = Arc::new(StdMutex::new(Vec::new()));
        let g = got.clone();
        let task = thread::spawn(move || {
            WAITS.set(Some(WaitsAtTheEnd(receive, g)));
            thread::park();
        });
        until_parked(task.task(), "park");
        // Cancelled: the closure unwinds at once, the destructor does not.
        task.cancel();
        until_parked(task.task(), "recv");
        assert_eq!(task.cancel(), coro::CancelOutcome::AlreadyRequested);
        for n in 0..3 {
            send.send(n).unwrap();
            coro::yield_slice();
        }
        assert!(!task.is_finished(), "the destructor was cut short");
        drop(send);
        assert!(coro::is_cancel(&*task.join().unwrap_err()));
        assert_eq!(*got.lock().unwrap(), [0, 1, 2]);
    });
}

#[test]
fn a_locals_destructor_that_panics_is_told_of() {
    child("a_locals_destructor_that_panics").passed();
}

fn a_locals_destructor_that_panics() {
    let seen = Arc::new(StdMutex::new(Vec::new()));
    let log = seen.clone();
    coro::set_panic_notifier(Some(Arc::new(move |p| log.lock().unwrap().push(p.message().to_owned()))));
    let said = Arc::new(StdMutex::new(Vec::new()));
    let s = said.clone();
    runtime(1).block_on(move || {
        let t = thread::spawn(move || {
            FIRST.set(Some(Says("the other one", s)));
            PANICS.set(Some(PanicsAtTheEnd));
            11
        });
        // The closure's result stands, and the worker goes on.
        assert_eq!(t.join().unwrap(), 11);
        assert_eq!(thread::spawn(|| 12).join().unwrap(), 12);
    });
    assert_eq!(*said.lock().unwrap(), ["the other one"]);
    assert_eq!(*seen.lock().unwrap(), ["a local's destructor, on purpose"]);
}

#[test]
fn an_initialiser_may_use_its_key_panic_or_wait() {
    coro::thread_local! {
        static TWICE: Cell<u32> = {
            if DEPTH.replace(DEPTH.get() + 1) == 0 {
                TWICE.set(100);
                coro::yield_slice();
            }
            Cell::new(DEPTH.get())
        };
        static DEPTH: Cell<u32> = const { Cell::new(0) };
        static FAILS: Cell<u32> = { assert!(DEPTH.get() > 2, "not yet"); Cell::new(3) };
    }
    everywhere(|| {
        thread::spawn(|| {
            assert_eq!(TWICE.get(), 1, "the outer value replaces the inner one");
            assert!(catch_unwind(|| FAILS.get()).is_err());
            DEPTH.set(3);
            assert_eq!(FAILS.get(), 3, "after a panic the next use tries again");
        })
        .join()
        .unwrap();
    });
}

#[test]
fn current_in_a_locals_destructor() {
    coro::thread_local!(static NAMES: RefCell<Option<Names>> = const { RefCell::new(None) });
    struct Names(Arc<StdMutex<Option<String>>>);
    impl Drop for Names {
        fn drop(&mut self) {
            *self.0.lock().unwrap() = thread::current().name().map(str::to_owned);
        }
    }
    everywhere(|| {
        let name = Arc::new(StdMutex::new(None));
        let n = name.clone();
        let t = thread::Builder::new().name("test".into()).spawn(move || NAMES.set(Some(Names(n))));
        t.unwrap().join().unwrap();
        assert_eq!(name.lock().unwrap().as_deref(), Some("test"));
    });
}

#[test]
fn a_worker_outside_of_tasks_has_locals_of_its_own() {
    // std's thread-local of a worker is dropped by the worker's thread, after its last task.
    coro::thread_local!(static VALUE: Cell<u32> = const { Cell::new(1) });
    thread_local!(static STDS: RefCell<Option<ReadsOurs>> = const { RefCell::new(None) });
    struct ReadsOurs(Arc<AtomicUsize>);
    impl Drop for ReadsOurs {
        fn drop(&mut self) {
            self.0.store(VALUE.try_with(|v| v.get() as usize).unwrap_or(99), Ordering::SeqCst);
        }
    }
    let seen = Arc::new(AtomicUsize::new(0));
    let s = seen.clone();
    let rt = runtime(1);
    rt.block_on(move || {
        VALUE.set(50);
        STDS.set(Some(ReadsOurs(s)));
    });
    drop(rt);
    until("the worker's thread-local went", || seen.load(Ordering::SeqCst) != 0);
    assert_eq!(seen.load(Ordering::SeqCst), 1, "the task's value, or none, instead of the thread's");
}

#[test]
fn many_keys_in_many_tasks() {
    struct Counted(Arc<AtomicUsize>, usize);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    // Keys are statics; leaked ones do as well.
    let keys: Vec<&'static LocalKey<RefCell<Option<Counted>>>> =
        (0..100).map(|_| &*Box::leak(Box::new(LocalKey::__new(|| RefCell::new(None))))).collect();
    let alive = Arc::new(AtomicUsize::new(0));
    let rt = runtime(2);
    let a = alive.clone();
    rt.block_on(move || {
        let tasks: Vec<_> = (0..50)
            .map(|i| {
                let (keys, alive) = (keys.clone(), a.clone());
                thread::spawn(move || {
                    for (n, key) in keys.iter().enumerate().skip(i) {
                        alive.fetch_add(1, Ordering::SeqCst);
                        key.set(Some(Counted(alive.clone(), i * 1000 + n)));
                        coro::yield_slice();
                    }
                    for (n, key) in keys.iter().enumerate() {
                        key.with_borrow(|v| assert_eq!(v.as_ref().map(|c| c.1), (n >= i).then_some(i * 1000 + n)));
                    }
                })
            })
            .collect();
        tasks.into_iter().for_each(|t| t.join().unwrap());
        assert_eq!(a.load(Ordering::SeqCst), 0, "values outlived their tasks");
    });
}

#[test]
fn a_detached_thread_goes_on() {
    runtime(1).block_on(|| {
        let done = Arc::new(AtomicBool::new(false));
        let d = done.clone();
        drop(thread::spawn(move || d.store(true, Ordering::SeqCst)));
        task_until("a detached task ran", || done.load(Ordering::SeqCst));
    });
}

#[test]
fn a_join_that_fails_says_why() {
    everywhere(|| {
        let e = thread::spawn(|| panic!("a {} one", std::hint::black_box("formatted"))).join().unwrap_err();
        assert_eq!(e.downcast_ref::<String>().map(String::as_str), Some("a formatted one"));
        let e = thread::spawn(|| std::panic::panic_any(413u16)).join().unwrap_err();
        assert_eq!(e.downcast_ref::<u16>(), Some(&413));
        let r: thread::Result<u8> = catch_unwind(AssertUnwindSafe(|| 1));
        assert_eq!(r.unwrap(), 1);
    });
}

#[test]
#[ignore = "run by the tests above as a process of its own"]
fn child_process() {
    match harness::case().expect("a case").as_str() {
        "a_locals_destructor_that_panics" => a_locals_destructor_that_panics(),
        other => panic!("no case {other}"),
    }
}

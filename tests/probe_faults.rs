//! Instruments that go wrong while every worker is busy: the program is unaffected, they are off, and the reason is shown.
#![cfg(all(target_os = "linux", not(miri)))]

#[path = "probe/session.rs"]
mod session;
mod util;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use coro::console::Value;
use coro::probe::{Event, Events, Instrument, attach_to, register_instrument};
use session::Session;
use util::sockets::Directory;
use util::{runtime, until, within};

const LIMIT: Duration = Duration::from_secs(60);
const WORKERS: usize = 2;

#[coro::probe]
fn serve(n: u64) -> Result<u64, String> {
    if n.is_multiple_of(7) { Err(format!("{n} is refused")) } else { Ok(n * 2 + 1) }
}

/// Does this with each event, and counts them.
struct Does(fn(u64), AtomicU64);

impl Instrument for Does {
    fn events(&self) -> Events {
        Events::CALL | Events::END
    }

    fn observe(&self, _: &Event<'_>) {
        (self.0)(self.1.fetch_add(1, Ordering::Relaxed));
    }

    fn report(&self) -> Value {
        Value::map([("began", Value::of(self.1.load(Ordering::Relaxed)))])
    }
}

/// In the middle of the load, not at its beginning.
fn panics(n: u64) {
    assert!(n < 500, "it cannot go on");
}

/// Longer than the second that it may.
fn is_slow(n: u64) {
    if n == 700 {
        std::thread::sleep(Duration::from_millis(1100));
    }
}

/// Small pieces, large ones, and pieces that stay.
fn allocates(_: u64) {
    let begun = Instant::now();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    while begun.elapsed() < Duration::from_millis(2) {
        kept.extend((0..64).map(|i| vec![i; 32 << (i % 8)]));
        kept.push(vec![1; 1 << 20]);
        if kept.len() > 1000 {
            kept.clear();
        }
    }
    std::hint::black_box(&kept);
}

#[test]
fn a_panicking_a_slow_and_an_allocating_instrument_under_full_load() {
    for (name, does) in [("panics", panics as fn(u64)), ("is_slow", is_slow), ("allocates", allocates)] {
        register_instrument(name, move |_| Ok(Box::new(Does(does, AtomicU64::new(0)))))
    }
    within(LIMIT, || {
        let runtime = runtime(WORKERS);
        let directory = Directory::new();
        let path = directory.at("s");
        let (stop, called) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let calls = attach_to("serve").count().count_of(Events::END).histogram().start().expect("a probe");
        let refused =
            attach_to("serve").count_of(Events::RETURN).condition("failed").cost(100.0).start().expect("a probe");
        let (listening, over) = (path.clone(), stop.clone());
        let console = runtime.spawn(move || {
            let _backdoor = coro::backdoor::serve(&listening).expect("a backdoor");
            until(LIMIT, "it is over", || over.load(Ordering::Relaxed));
        });
        // More tasks than workers, which do nothing else and give way now and then: no worker ever rests.
        let load: Vec<_> = (0..WORKERS as u64 * 2)
            .map(|task| {
                let (stop, called) = (stop.clone(), called.clone());
                runtime.spawn(move || {
                    let (mut n, mut refused) = (task << 32, 0);
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        match serve(n) {
                            Ok(served) => assert!(!n.is_multiple_of(7) && served == n * 2 + 1, "{served} for {n}"),
                            Err(text) => {
                                assert!(n.is_multiple_of(7) && text == format!("{n} is refused"), "{text} for {n}");
                                refused += 1;
                            }
                        }
                        called.fetch_add(1, Ordering::Relaxed);
                        if n.is_multiple_of(64) {
                            coro::thread::yield_now();
                        }
                    }
                    (n - (task << 32), refused)
                })
            })
            .collect();
        until(LIMIT, "it listens", || std::os::unix::net::UnixStream::connect(&path).is_ok());
        let mut session = Session::open(&path);
        session.ask("enable probe");
        until(LIMIT, "there is load", || called.load(Ordering::Relaxed) > 1000);
        let ids: Vec<String> = ["panics", "is_slow", "allocates"]
            .map(|name| {
                let attached = session.ask(&format!("probe attach serve {name} count"));
                let id = attached[0].strip_prefix("probe ").and_then(|rest| rest.split([' ', ':']).next());
                id.unwrap_or_else(|| panic!("{attached:?}")).to_owned()
            })
            .to_vec();
        let whys = ["an instrument panicked: it cannot go on", "one hit has taken 1.", "% of a CPU, "];
        // Each says so where its lines go, whichever is the first.
        let mut told: Vec<String> = (0..ids.len()).map(|_| session.told()).collect();
        let ended = called.load(Ordering::Relaxed);
        for (id, why) in ids.iter().zip(whys) {
            let head = format!("probe {id} is over: ");
            let at = told.iter().position(|line| line.starts_with(&head)).unwrap_or_else(|| panic!("{id}: {told:?}"));
            let line = told.swap_remove(at);
            assert!(line.contains(why), "{line}");
            let shown = session.ask(&format!("probe show {id}"));
            let reason = line.strip_prefix(&head).and_then(|line| line.rsplit_once("; ")).expect("hits").0;
            assert!(shown[0].starts_with(&format!("{id} ")) && shown[0].contains(" hits: "), "{shown:?}");
            assert!(shown[0].ends_with(reason), "{reason}: {shown:?}");
            // What they had found is there as well.
            assert!(shown[1].contains("began=") || shown[1].contains("began"), "{shown:?}");
            let listed = session.ask("probe show");
            assert!(
                listed.iter().any(|listed| listed.starts_with(&format!("{id} ")) && listed.ends_with(reason)),
                "{listed:?}"
            );
        }
        // The load goes on.
        until(LIMIT, "more calls", || called.load(Ordering::Relaxed) > ended + 1000);
        stop.store(true, Ordering::Relaxed);
        let done: Vec<(u64, u64)> = load.into_iter().map(|task| task.join().expect("its results were right")).collect();
        console.join().expect("no panic");
        let (all, failed) = done.iter().fold((0, 0), |(all, failed), (n, refused)| (all + n, failed + refused));
        let count = Value::map([("count", Value::of(all))]);
        let report = calls.report();
        assert_eq!((&report[0], &report[1], report[2].get("count")), (&count, &count, Some(&Value::of(all))));
        assert_eq!((calls.hits().0, calls.ended()), (2 * all, None));
        assert_eq!((refused.hits().0, refused.ended()), (failed, None));
    });
}

//! Probes: what a running program logs, counts and shows, changed without a restart; and that none of it reaches the program.

#[path = "probe/breakpoints.rs"]
mod breakpoints;
#[path = "probe/light.rs"]
mod light;
mod util;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use coro::console::{Function, Tier, Value};
use coro::probe::{self, Event, Events, Instrument, Point, Shown, attach_to, break_at, mark};
use util::{Rng, role, runtime, until, within};

const LIMIT: Duration = Duration::from_secs(30);

mod app {
    pub(crate) struct Cache<T>(pub(crate) T);

    pub(crate) trait Store {
        fn put(&self, key: &str) -> Result<u32, String>;
    }

    impl<T: Copy> Cache<T> {
        #[coro::probe]
        pub(crate) fn get(&self, key: &str, n: u32) -> Option<u32> {
            if key.is_empty() {
                return None;
            }
            Some(n + 1)
        }
    }

    impl<T> Store for Cache<T> {
        #[coro::probe(skip(self))]
        fn put(&self, key: &str) -> Result<u32, String> {
            let n = key.parse::<u32>().map_err(|e| e.to_string())?;
            Ok(n)
        }
    }

    #[coro::probe(redact(password), result = false)]
    pub(crate) fn log_in(user: &str, password: &str) -> String {
        format!("{user}:{password}")
    }

    #[coro::probe]
    pub(crate) fn generic<T: std::fmt::Debug, U>(t: T, _u: U) -> (T, u8) {
        (t, 1)
    }

    #[coro::probe]
    pub(crate) fn fails(n: u32) -> u32 {
        assert!(n > 0, "none");
        n
    }

    #[coro::probe(name = "app/renamed")]
    pub(crate) fn plain(mut n: u64, text: String) -> impl Iterator<Item = u64> {
        n += text.len() as u64;
        0..n
    }

    #[coro::probe]
    pub(crate) fn busy(n: u64) -> u64 {
        n.wrapping_mul(3)
    }

    #[coro::probe]
    pub(crate) fn slow() {
        coro::probe::mark!("first");
        coro::sleep(std::time::Duration::from_millis(20));
        coro::probe::mark!("second", rows = 7, name = "ada");
    }

    #[coro::probe]
    pub(crate) fn charge(account: &str, cents: u64) -> Result<u64, std::io::Error> {
        coro::breakpoint!(account = account);
        if account.is_empty() { Err(std::io::Error::other("no account")) } else { Ok(cents) }
    }

    #[coro::probe]
    pub(crate) fn waits(gate: &coro::sync::Semaphore) {
        gate.acquire().forget();
    }
}

use app::{Cache, Store as _};

/// Tests that look at the list of probes, or count what everybody does, one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Without the time.
fn masked(line: &str) -> String {
    match line.rsplit_once(" in ") {
        Some((before, _)) => before.to_owned(),
        None => line.to_owned(),
    }
}

fn lines(probe: &probe::Attached) -> Vec<String> {
    probe.lines().iter().map(|line| masked(line)).collect()
}

#[test]
fn a_probe_is_attached_by_name_and_told_of_calls() {
    let _alone = alone();
    let probe = attach_to("app::Cache::*").keep_lines().log_of(Events::CALL | Events::END).count().start().unwrap();
    assert_eq!(probe.points().len(), 2);
    let cache = Cache(1u8);
    assert_eq!((cache.get("a", 2), cache.get("", 2)), (Some(3), None));
    assert_eq!((cache.put("7"), cache.put("x").is_err()), (Ok(7), true));
    probe.stop();
    cache.get("b", 2);
    assert_eq!(
        lines(&probe),
        [
            "probe::app::Cache::get(self=<probe::app::Cache<u8>>, key=\"a\", n=2) begins",
            "probe::app::Cache::get(self=<probe::app::Cache<u8>>, key=\"a\", n=2) => Some(3)",
            "probe::app::Cache::get(self=<probe::app::Cache<u8>>, key=\"\", n=2) begins",
            "probe::app::Cache::get(self=<probe::app::Cache<u8>>, key=\"\", n=2) => None",
            "probe::app::Cache::put(key=\"7\") begins",
            "probe::app::Cache::put(key=\"7\") => Ok(7)",
            "probe::app::Cache::put(key=\"x\") begins",
            "probe::app::Cache::put(key=\"x\") ~ Err(\"invalid digit found in string\")",
        ]
    );
    assert_eq!(probe.report()[1], Value::map([("count", Value::of(4))]));
    assert_eq!(probe.ended(), Some("taken away"));
}

#[test]
fn values_are_shown_by_what_they_are_and_secrets_are_not() {
    let _alone = alone();
    let probe = attach_to("app::log_in").keep_lines().log().start().unwrap();
    assert_eq!(app::log_in("ada", "secret"), "ada:secret");
    assert_eq!(lines(&probe), ["probe::app::log_in(user=\"ada\", password=<redacted>) => <redacted>"]);
    let probe = attach_to("generic").keep_lines().log().start().unwrap();
    struct Silent;
    app::generic(vec![1], Silent);
    assert_eq!(
        lines(&probe),
        [format!("probe::app::generic(t=[1], u=<U>) => {}", "<(alloc::vec::Vec<i32>, u8)>")].map(|line| line
            .replace("<U>", &format!("<{}>", std::any::type_name::<Silent>()))
            .replace("<(alloc::vec::Vec<i32>, u8)>", "([1], 1)"))
    );
    let probe = attach_to("app/renamed").keep_lines().log().start().unwrap();
    assert_eq!(app::plain(1, "ab".into()).count(), 3);
    assert!(lines(&probe)[0].starts_with("app/renamed(n=1, text=\"ab\") => "), "{:?}", probe.lines());
}

#[test]
fn a_panic_ends_a_call_too() {
    let _alone = alone();
    let probe = attach_to("app::fails").keep_lines().log().count_of(Events::PANIC).start().unwrap();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            assert!(coro::spawn(|| app::fails(0)).join().is_err());
            // A cancelled task unwinds as well.
            let gate = Arc::new(coro::sync::Semaphore::new(0));
            let waiting = attach_to("app::waits").keep_lines().log().start().unwrap();
            let task = coro::spawn({
                let gate = gate.clone();
                move || app::waits(&gate)
            });
            coro::yield_slice();
            task.cancel();
            assert!(task.join().is_err());
            assert_eq!(waiting.lines().len(), 1);
            assert!(waiting.hits().0 == 1 && gate.available_permits() == 0);
        });
    });
    assert_eq!(lines(&probe), ["probe::app::fails(n=0) ~ unwinds"]);
    assert_eq!(probe.report()[1], Value::map([("count", Value::of(1))]));
}

#[test]
fn what_is_called_nothing_is_told_with_what_is_called_nearly_so() {
    let _alone = alone();
    let wrong = attach_to("app::bussy").count().start().unwrap_err().to_string();
    assert_eq!(wrong, "no probe point is called app::bussy; there is probe::app::busy");
    assert_eq!(
        attach_to("busy").start().unwrap_err().to_string(),
        "a probe needs an instrument: log, count, hist, rate, stack, top(ARG) or hot"
    );
    let wrong = attach_to("busy").instruments("hust").start().unwrap_err().to_string();
    assert!(wrong.starts_with("there is no instrument hust; there are log, count, hist"), "{wrong}");
    let wrong = attach_to("busy").instruments("log(begin)").start().unwrap_err().to_string();
    assert_eq!(wrong, "log: begin is no event; there are call, return, panic, end and mark");
}

#[test]
fn a_call_that_began_before_is_not_told() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let gate = Arc::new(coro::sync::Semaphore::new(0));
            let task = coro::spawn({
                let gate = gate.clone();
                move || app::waits(&gate)
            });
            coro::yield_slice();
            let probe = attach_to("app::waits").keep_lines().log().start().unwrap();
            gate.add_permits(1);
            task.join().unwrap();
            assert_eq!(probe.hits(), (0, 0));
            gate.add_permits(1);
            app::waits(&gate);
            assert_eq!(probe.hits(), (1, 0));
        });
    });
}

#[test]
fn instruments_of_the_program_hold_state_and_act() {
    static LIMIT_OF_CACHE: AtomicU64 = AtomicU64::new(10);
    struct Incr {
        by: u64,
    }
    impl Instrument for Incr {
        fn observe(&self, event: &Event<'_>) {
            let Some(Value::Int(n)) = event.value("n") else { return };
            LIMIT_OF_CACHE.fetch_add(self.by * n as u64, Ordering::Relaxed);
        }

        fn report(&self) -> Value {
            Value::of(LIMIT_OF_CACHE.load(Ordering::Relaxed))
        }
    }
    let _alone = alone();
    probe::register_instrument("incr", |words| match words {
        [by] => by.parse().map(|by| Box::new(Incr { by }) as Box<dyn Instrument>).map_err(|e| e.to_string()),
        _ => Err("incr wants one number".to_owned()),
    });
    let probe = attach_to("app::busy").instruments("incr(2) count").start().unwrap();
    app::busy(3);
    assert_eq!(probe.report(), [Value::of(16), Value::map([("count", Value::of(1))])]);
    assert_eq!(attach_to("app::busy").instruments("incr").start().unwrap_err().to_string(), "incr wants one number");
}

#[test]
fn a_probe_does_nothing_after_its_time_or_its_hits() {
    let _alone = alone();
    let span = Duration::from_millis(100);
    let last = Arc::new(Mutex::new(None::<Instant>));
    struct Last(Arc<Mutex<Option<Instant>>>);
    impl Instrument for Last {
        fn observe(&self, _: &Event<'_>) {
            *self.0.lock().unwrap() = Some(Instant::now());
        }
    }
    let before = Instant::now();
    let timed = attach_to("app::busy").instrument(Last(last.clone())).lifespan(span).start().unwrap();
    let after = Instant::now();
    let counted = attach_to("app::busy").count().hits(5).start().unwrap();
    while before.elapsed() < span * 2 {
        let (begun, told) = (Instant::now(), *last.lock().unwrap());
        app::busy(1);
        // The probe's clock is another one.
        let late = begun > after + span + Duration::from_millis(5);
        assert!(!late || *last.lock().unwrap() == told, "{:?} after its beginning", begun - after);
        assert!(timed.ended().is_none() || before.elapsed() >= span - Duration::from_millis(5));
    }
    assert!(last.lock().unwrap().is_some(), "it was told");
    assert_eq!(timed.ended(), Some("its 100.0 ms are over"));
    assert_eq!((counted.hits().0, counted.ended()), (5, Some("its 5 hits are used up")));
    let hits = timed.hits();
    app::busy(1);
    assert_eq!(timed.hits(), hits);
    until(LIMIT, "they are swept", || probe::points().iter().all(|point| !point.is_watched()));
}

#[test]
fn rates_and_samples_are_bounded() {
    let _alone = alone();
    let sampled = attach_to("app::busy").keep_lines().log().every(10).start().unwrap();
    let bounded = attach_to("app::busy").keep_lines().log().per_second(3).start().unwrap();
    (0..100).for_each(|n| assert_eq!(app::busy(n), n * 3));
    assert_eq!(sampled.hits().0, 10);
    let (counted, suppressed) = bounded.hits();
    assert!((3..=6).contains(&counted) && counted + suppressed == 100, "{counted} {suppressed}");
    // A sample has something of each kind.
    let both = attach_to("app::busy").keep_lines().instruments("count hist log(call, end)").every(4).start().unwrap();
    (0..8).for_each(|n| assert_eq!(app::busy(n), n * 3));
    let count = |at: usize| both.report()[at].get("count").cloned();
    assert_eq!((count(0), count(1)), (Some(Value::of(2)), Some(Value::of(2))));
    let told = lines(&both);
    let of =
        |n: u64| [" begins".to_owned(), format!(" => {}", n * 3)].map(|what| format!("probe::app::busy(n={n}){what}"));
    assert_eq!(told, [of(0), of(4)].concat());
}

#[test]
fn histograms_top_values_stacks_and_rates() {
    let _alone = alone();
    let probe =
        attach_to("app::*").instruments("hist top(n) stack rate").when(|event| event.point().name().ends_with("busy"));
    let probe = probe.start().unwrap();
    for n in 0..100 {
        app::busy(n % 3);
    }
    app::log_in("a", "b");
    let [Value::Map(_), Value::List(top), Value::List(stacks), Value::Map(_)] = &probe.report()[..] else {
        panic!("{:?}", probe.report())
    };
    assert_eq!((top.len(), top[0].get("value"), top[0].get("count")), (3, Some(&Value::of("0")), Some(&Value::of(34))));
    assert_eq!(stacks.len(), 1);
    let text = probe.text();
    assert!(text.contains("hist 100 calls") && text.contains("top n\n         34  0"), "{text}");
    assert!(text.contains("histograms_top_values_stacks_and_rates"), "{text}");
}

#[test]
fn marks_show_where_a_call_spends_its_time() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let probe = attach_to("app::slow").keep_lines().hot_spots().log_of(Events::MARK).start().unwrap();
            let mark = attach_to("app::second").keep_lines().instruments("log count top(rows)").start().unwrap();
            app::slow();
            app::slow();
            let Value::List(spots) = &probe.report()[0] else { panic!("{:?}", probe.report()) };
            let names: Vec<(String, String)> = spots
                .iter()
                .map(|spot| (spot.get("from").cloned(), spot.get("to").cloned()))
                .map(|names| match names {
                    (Some(Value::Text(from)), Some(Value::Text(to))) => (from, to),
                    other => panic!("{other:?}"),
                })
                .collect();
            // The slowest first; the others take next to nothing.
            assert_eq!(spots.len(), 3);
            assert!(
                names[0].0.starts_with("first tests/probe.rs:") && names[0].1.starts_with("second tests/probe.rs:")
            );
            assert_eq!(spots[0].get("count"), Some(&Value::of(2)));
            assert!(names.iter().any(|(from, _)| from.starts_with("begin tests/probe.rs:")), "{names:?}");
            assert!(names.iter().any(|(_, to)| to == "end"), "{names:?}");
            let told = probe.lines();
            assert_eq!(told.len(), 4);
            assert!(told[1].starts_with("probe::app::slow/second rows=7, name=\"ada\" after "), "{told:?}");
            assert_eq!(mark.lines().len(), 2);
            assert!(mark.text().ends_with("count 2\ntop rows\n          2  7"), "{}", mark.text());
            assert!(probe.text().contains("<- the worst single one"), "{}", probe.text());
        });
    });
}

#[test]
fn marks_that_a_pattern_names_besides_their_function_are_told_once() {
    let _alone = alone();
    let probe = attach_to("app::*").keep_lines().hot_spots().log_of(Events::MARK).start().unwrap();
    let itself = attach_to("app::*").keep_lines().instruments("log").start().unwrap();
    let counted = attach_to("app::first|app::second").count().start().unwrap();
    app::slow();
    let Value::List(spots) = &probe.report()[0] else { panic!("{:?}", probe.report()) };
    // From the beginning, between the marks, to the end.
    assert_eq!(spots.len(), 3, "{spots:?}");
    let told = probe.lines();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[1].starts_with("probe::app::slow/second rows=7, name=\"ada\" after "), "{told:?}");
    assert_eq!(probe.hits().0, 3, "two marks and an end");
    // Who asks for more than marks is told of them by their names.
    let told = itself.lines();
    assert!(told.len() == 3 && told[1].starts_with("probe::app::second rows=7, name="), "{told:?}");
    assert_eq!(counted.hits().0, 2);
}

#[test]
fn an_instrument_that_goes_wrong_is_the_end_of_its_probe_and_of_nothing_else() {
    struct Wrong(fn());
    impl Instrument for Wrong {
        fn observe(&self, _: &Event<'_>) {
            self.0();
        }

        fn report(&self) -> Value {
            panic!("its report as well")
        }
    }
    impl Drop for Wrong {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("and its end");
            }
        }
    }
    let _alone = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let beside = attach_to("app::busy").count().start().unwrap();
            for (wrong, why) in [
                (Wrong(|| panic!("boom")), "an instrument panicked: boom"),
                (Wrong(|| coro::sleep(Duration::from_millis(1))), "an instrument panicked: "),
                (Wrong(|| std::thread::sleep(Duration::from_millis(1100))), "one hit has taken 1.1"),
            ] {
                let probe = attach_to("app::busy").instrument(wrong).start().unwrap();
                assert_eq!(app::busy(2), 6);
                assert_eq!(app::busy(3), 9);
                assert!(probe.ended().is_some_and(|ended| ended.starts_with(why)), "{:?}", probe.ended());
                assert_eq!(probe.hits().0, 1);
            }
            assert_eq!(beside.hits().0, 6);
            assert_eq!(beside.ended(), None);
        });
    });
}

#[test]
fn an_argument_that_goes_wrong_when_it_is_shown_is_so_too() {
    struct Wrong(fn());
    impl std::fmt::Debug for Wrong {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0();
            f.write_str("shown")
        }
    }
    #[coro::probe]
    fn takes(wrong: &Wrong) -> u8 {
        let _ = wrong;
        7
    }
    let _alone = alone();
    within(LIMIT, || {
        runtime(2).block_on(|| {
            let beside = attach_to("takes").count().count_of(Events::END).start().unwrap();
            for (wrong, why) in [
                (Wrong(|| panic!("boom")), "an argument panicked when it was shown: boom"),
                (Wrong(|| coro::sleep(Duration::from_millis(1))), "an argument panicked when it was shown: "),
            ] {
                let probe = attach_to("takes").keep_lines().log().start().unwrap();
                assert_eq!((takes(&wrong), takes(&wrong)), (7, 7));
                assert!(probe.ended().is_some_and(|ended| ended.starts_with(why)), "{:?}", probe.ended());
                assert_eq!((probe.hits().0, probe.lines().len()), (0, 0));
            }
            assert_eq!((beside.hits().0, beside.ended()), (8, None));
        });
    });
}

#[test]
fn an_instrument_that_takes_more_than_its_share_is_ended() {
    struct Heavy;
    impl Instrument for Heavy {
        fn observe(&self, _: &Event<'_>) {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {
                std::hint::black_box(vec![0u8; 1 << 16]);
            }
        }
    }
    let _alone = alone();
    let probe = attach_to("app::busy").instrument(Heavy).cost(0.2).start().unwrap();
    let begun = Instant::now();
    until(LIMIT, "it is ended", || {
        app::busy(1);
        probe.ended().is_some()
    });
    assert!(begun.elapsed() >= Duration::from_millis(900), "two windows of half a second");
    let why = probe.ended().unwrap();
    assert!(why.contains("% of a CPU") && why.contains("20 % are allowed"), "{why}");
}

#[test]
fn the_deepest_conditions_fit_where_they_are_run() {
    let _alone = alone();
    let nested = format!("{}n + 1{} == 2 && [1, [2, [3]]].len() == 2", "(".repeat(8), ")".repeat(8));
    let called = "n == [1, 2].map(|x| [x].map(|y| [y].filter(|z| z > 0).len()).len()).len() - 1";
    for condition in [&*nested, called] {
        // On the task's own stack, and on another one.
        for size in [128 << 10, 64 << 10] {
            let probe = attach_to("app::busy").count().condition(condition).start().unwrap();
            within(LIMIT, move || {
                runtime(1).block_on(|| {
                    let task = coro::Builder::new().stack_size(size).spawn(|| app::busy(1)).unwrap();
                    task.join().unwrap();
                });
            });
            assert_eq!((probe.hits().0, probe.ended()), (1, None), "{condition}");
        }
    }
}

#[test]
fn points_that_an_instrument_passes_are_passed_in_silence() {
    struct Recursive;
    impl Instrument for Recursive {
        fn events(&self) -> Events {
            Events::CALL | Events::END
        }

        fn observe(&self, _: &Event<'_>) {
            app::busy(7);
        }
    }
    let _alone = alone();
    let probe = attach_to("app::busy").instrument(Recursive).count().start().unwrap();
    app::busy(1);
    assert_eq!(probe.report()[1], Value::map([("count", Value::of(1))]));
}

#[test]
fn conditions_are_expressions_over_what_is_known() {
    let _alone = alone();
    within(LIMIT, || {
        runtime(1).block_on(|| {
            let count = |condition: &str| attach_to("app::Cache::get").count().condition(condition).start().unwrap();
            let probes = [count("key == \"a\" && n > 1"), count("n % 2 == 0"), count("task > 0 && event == \"call\"")];
            let at_end =
                attach_to("Cache::put").keep_lines().log().condition("failed && elapsed >= 0.0").start().unwrap();
            let cache = Cache(0);
            for n in 0..4 {
                cache.get(if n < 3 { "a" } else { "b" }, n);
            }
            assert_eq!(probes.each_ref().map(|p| p.hits().0), [1, 2, 4]);
            cache.put("1").unwrap();
            cache.put("x").unwrap_err();
            assert_eq!(at_end.hits().0, 1);
            // Numbers that an expression does not hold exactly are compared all the same, and shown as they are.
            let big = attach_to("app::busy").keep_lines().instruments("log top(n)").condition("n > 5").start().unwrap();
            for n in [6, u64::MAX, 5] {
                app::busy(n);
            }
            let told: Vec<String> =
                big.lines().iter().filter_map(|line| line.split(" => ").next().map(str::to_owned)).collect();
            assert_eq!(told, ["probe::app::busy(n=6)", "probe::app::busy(n=18446744073709551615)"]);
            assert!(big.text().contains("1  18446744073709551615"), "{}", big.text());
            // A function that comes later is known to conditions that come after it, also where there were some before.
            let between = |least: i64, n: i64, most: i64| least <= n && n < most;
            Function::new("is_between", between).tier(Tier::Read).register();
            let late = attach_to("app::busy").count().condition("is_between(1, n, 3)").start().unwrap();
            (0..5).for_each(|n| assert_eq!(app::busy(n), n * 3));
            assert_eq!((late.hits().0, late.ended()), (2, None));
            // Wrong ones: at once, or at the first event.
            let wrong = attach_to("app::busy").count().condition("n >").start().unwrap_err().to_string();
            assert!(wrong.starts_with("condition \"n >\": "), "{wrong}");
            for (condition, why) in [
                ("n + 1", "it gives 2, and neither true nor false"),
                ("m == 1", "Variable not found: m"),
                ("{ let n = 0; while true { n += 1; } true }", "too many operations"),
            ] {
                let probe = match attach_to("app::busy").count().condition(condition).start() {
                    Ok(probe) => probe,
                    // No loops in an expression.
                    Err(_) if condition.contains("while") => continue,
                    Err(e) => panic!("{e}"),
                };
                assert_eq!(app::busy(1), 3);
                let ended = probe.ended().unwrap_or_else(|| panic!("{condition}"));
                assert!(ended.contains(why), "{ended}");
            }
        });
    });
}

#[test]
fn a_point_that_comes_later_is_watched_from_its_first_call_on() {
    let _alone = alone();
    assert!(attach_to("plugin::spell").count().start().is_err());
    let probe = attach_to("plugin::spell").count().later().start().unwrap();
    assert!(probe.points().is_empty());
    let point = Point::register("plugin::spell", &["words"]);
    assert_eq!(point.call(&[Shown::Int(2)], || "done"), "done");
    assert_eq!(probe.hits().0, 1);
    assert_eq!(probe.points().len(), 1);
}

/// In a forked child the parent's thread that ends probes is not.
#[test]
#[cfg(target_os = "linux")]
fn a_forked_child_ends_its_probes_itself() {
    if role().is_none() {
        util::passes("a_forked_child_ends_its_probes_itself", "forks", LIMIT);
        return;
    }
    let _before = attach_to("app::busy").count().lifespan(Duration::from_secs(600)).start().unwrap();
    // Held while something is forked, its lock would stay so: it sleeps for a while now.
    let mut asleep = 0;
    until(LIMIT, "the thread that ends probes sleeps", || {
        let state = std::fs::read_dir("/proc/self/task").unwrap().find_map(|task| {
            let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).ok()?;
            stat.split_once("(coro-probe) ").map(|(_, rest)| rest.starts_with('S'))
        });
        asleep = if state == Some(true) { asleep + 1 } else { 0 };
        asleep == 10
    });
    // SAFETY: the child attaches a probe, waits for it for a bounded time, and ends.
    let status = unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::alarm(10);
            let own = attach_to("app::slow").count().lifespan(Duration::from_millis(20)).start().unwrap();
            while own.ended().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            libc::_exit(0);
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(child, &raw mut status, 0), child);
        status
    };
    assert_eq!(status, 0);
}

#[test]
fn nothing_begins_after_the_end() {
    let _alone = alone();
    static OBSERVED: AtomicU64 = AtomicU64::new(0);
    static STAGE: AtomicU64 = AtomicU64::new(0);
    struct Late;
    impl Instrument for Late {
        fn observe(&self, _: &Event<'_>) {
            OBSERVED.fetch_add(1, Ordering::SeqCst);
        }
    }
    let slow = |_: &Event<'_>| {
        STAGE.store(1, Ordering::SeqCst);
        until(LIMIT, "it has been taken away", || STAGE.load(Ordering::SeqCst) == 2);
        true
    };
    let probe = attach_to("app::busy").instrument(Late).when(slow).start().unwrap();
    let call = std::thread::spawn(|| app::busy(1));
    until(LIMIT, "it decides", || STAGE.load(Ordering::SeqCst) == 1);
    probe.stop();
    STAGE.store(2, Ordering::SeqCst);
    assert_eq!(call.join().unwrap(), 3);
    assert_eq!((OBSERVED.load(Ordering::SeqCst), probe.hits()), (0, (0, 0)));
    // A short life that begins after a long one, at a point that nobody passes, is over in time also.
    let _long = attach_to("app::busy").count().lifespan(Duration::from_secs(600)).start().unwrap();
    for _ in 0..5 {
        let short = attach_to("app::slow").count().lifespan(Duration::from_millis(5)).start().unwrap();
        until(Duration::from_secs(10), "it is over", || short.ended().is_some());
    }
}

#[test]
fn points_are_passed_to_the_very_end_of_a_thread() {
    struct Last;
    impl Drop for Last {
        fn drop(&mut self) {
            app::busy(1);
        }
    }
    thread_local! {
        static FIRST: Last = const { Last };
        static SECOND: Last = const { Last };
    }
    let _alone = alone();
    let count = attach_to("app::busy").count().start().unwrap();
    let asked = attach_to("app::busy").keep_lines().log().condition("n == 1").start().unwrap();
    let stops = break_at("app::busy").timeout(Duration::from_millis(1)).start().unwrap();
    let thread = std::thread::spawn(|| {
        FIRST.with(|_| ());
        app::busy(1);
        SECOND.with(|_| ());
    });
    thread.join().unwrap();
    assert_eq!((count.hits().0, asked.hits().0, asked.ended(), stops.hits()), (3, 3, None, 3));
}

/// Attach, detach and expire at random, while tasks of two workers call: nothing is left, no call is lost or altered.
#[test]
fn random_comings_and_goings_leave_nothing_behind() {
    let _alone = alone();
    within(Duration::from_secs(60), || {
        let runtime = runtime(2);
        let stop = Arc::new(AtomicBool::new(false));
        let exact = attach_to("app::busy").count().count_of(Events::RETURN).start().unwrap();
        let callers: Vec<_> = (0..6)
            .map(|_| {
                let stop = stop.clone();
                runtime.spawn(move || {
                    let cache = Cache(());
                    let mut n = 0u32;
                    while !stop.load(Ordering::Relaxed) {
                        n += 1;
                        assert_eq!(app::busy(u64::from(n)), u64::from(n) * 3);
                        assert_eq!(cache.get("k", n), Some(n + 1));
                        assert_eq!(cache.put("5"), Ok(5));
                        if n.is_multiple_of(64) {
                            coro::yield_slice();
                        }
                    }
                    u64::from(n)
                })
            })
            .collect();
        let mut rng = Rng::from_environment();
        let mut held = Vec::new();
        for _ in 0..1000 {
            match rng.below(5) {
                0 | 1 => {
                    let pattern = ["app::busy", "Cache::*", "app::*"][rng.below(3)];
                    let mut attach = attach_to(pattern).keep_lines();
                    attach = match rng.below(5) {
                        0 => attach.count(),
                        1 => attach.histogram().hits(rng.below(1000) as u64),
                        2 => attach.log().lifespan(Duration::from_micros(rng.below(3000) as u64)),
                        3 => attach.top("n").count_of(Events::END),
                        _ => attach.count().when(|event| event.value("n").is_some()),
                    };
                    held.push(attach.start().unwrap());
                }
                2 | 3 if !held.is_empty() => {
                    let which = rng.below(held.len());
                    drop(held.swap_remove(which));
                }
                _ => std::thread::sleep(Duration::from_micros(rng.below(300) as u64)),
            }
            if held.len() > 12 {
                held.clear();
            }
        }
        drop(held);
        stop.store(true, Ordering::Relaxed);
        let calls: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
        let all = Value::map([("count", Value::of(calls))]);
        assert_eq!(exact.report(), [all.clone(), all]);
    });
    until(LIMIT, "nothing is watched", || probe::points().iter().all(|point| !point.is_watched()));
    let thread = || {
        std::fs::read_dir("/proc/self/task").unwrap().any(|task| {
            let name = std::fs::read_to_string(task.unwrap().path().join("comm")).unwrap_or_default();
            name.trim() == "coro-probe"
        })
    };
    if cfg!(target_os = "linux") {
        until(LIMIT, "the thread that ends probes has gone", || !thread());
    }
    mark!("over");
}

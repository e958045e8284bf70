//! Calls that go through something else: wrappers with the original, for everybody, for one tree of tasks, for one value; and that
//! nothing of them is left.

mod util;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coro::probe::{self, Events, Point, Proxy, Recording, attach_to, record, replay, wrap};
use util::{Rng, runtime, until, within};

const LIMIT: Duration = Duration::from_secs(30);

mod shop {
    use std::fmt::Debug;
    use std::sync::Arc;

    #[coro::probe(wrap)]
    pub(crate) fn price(item: &str, n: u32) -> u64 {
        item.len() as u64 * u64::from(n)
    }

    #[coro::probe(wrap)]
    pub(crate) fn longest<'a>(mut all: Vec<&'a str>, (least, _): (usize, u8), _: &()) -> Option<&'a str> {
        all.retain(|text| text.len() >= least);
        let found = all.into_iter().max_by_key(|text| text.len())?;
        Some(found)
    }

    #[coro::probe(wrap)]
    pub(crate) fn first(text: &str) -> &str {
        &text[..1]
    }

    #[coro::probe(wrap)]
    pub(crate) fn fibonacci(n: u64) -> u64 {
        if n < 2 { n } else { fibonacci(n - 1) + fibonacci(n - 2) }
    }

    #[coro::probe(wrap)]
    pub(crate) fn show<T: Debug + 'static>(value: T) -> String {
        format!("{value:?}")
    }

    #[coro::probe(wrap)]
    pub(crate) fn same(n: u64) -> u64 {
        n
    }

    #[coro::probe(wrap)]
    pub(crate) fn wait(gate: &Arc<coro::sync::Semaphore>, _n: u64) {
        gate.acquire().forget();
    }

    /// Nobody else has these names.
    #[coro::probe(wrap)]
    pub(crate) fn named(original: u64, layer: u64, (inner, wrapper): (u64, u64), result: u64) -> u64 {
        ((original * 10 + layer) * 10 + inner) * 100 + wrapper * 10 + result
    }

    #[coro::probe(wrap)]
    pub(crate) fn gift(cents: u64) -> u64 {
        cents
    }

    #[coro::probe]
    pub(crate) fn only_watched() {}

    #[derive(Debug, Default)]
    pub(crate) struct Stock {
        pub(crate) rows: Vec<(String, u32)>,
    }

    pub(crate) trait Count {
        fn count(&self) -> usize;
    }

    impl Count for Stock {
        #[coro::probe(wrap)]
        fn count(&self) -> usize {
            self.rows.len()
        }
    }

    impl Stock {
        #[coro::probe(wrap)]
        pub(crate) fn new(rows: &[(&str, u32)]) -> Stock {
            Stock { rows: rows.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect() }
        }

        #[coro::probe(wrap)]
        pub(crate) fn of(&self, item: &str) -> Option<&u32> {
            self.rows.iter().find(|row| row.0 == item).map(|row| &row.1)
        }

        #[coro::probe(wrap)]
        pub(crate) fn take(&mut self, item: &str, n: u32) -> Result<&mut u32, String> {
            let row = self.rows.iter_mut().find(|row| row.0 == item).ok_or_else(|| format!("no {item}"))?;
            row.1 = row.1.checked_sub(n).ok_or("not enough")?;
            Ok(&mut row.1)
        }

        #[coro::probe(wrap)]
        pub(crate) fn shared(self: Arc<Self>) -> usize {
            Arc::strong_count(&self)
        }

        #[coro::probe(wrap)]
        pub(crate) fn sold(mut self) -> Stock {
            self.rows.clear();
            self
        }
    }

    /// A type of whatever lives long enough.
    pub(crate) struct Cell<T>(pub(crate) T);

    impl<T: Copy + 'static> Cell<T> {
        #[coro::probe(wrap)]
        pub(crate) fn get(&self) -> T {
            self.0
        }
    }
}

use shop::{Cell, Count as _, Stock, price, same};

/// One at a time: they wrap the same functions, for everybody.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[track_caller]
fn nothing_is_left() {
    // A bundle stays.
    let others = probe::points().into_iter().filter(|point| !point.name().ends_with("shop::gift"));
    let left: Vec<_> = others.filter(|point| point.is_watched()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_wrapper_inspects_alters_replaces_and_skips() {
    let _alone = alone();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let inspect = {
        let seen = seen.clone();
        wrap!("shop::price", |price, item: &str, n: u32| -> u64 {
            let cents = price(item, n);
            seen.lock().unwrap().push((item.to_owned(), n, cents));
            cents
        })
    };
    let inspect = inspect.start().unwrap();
    assert_eq!(price("tea", 2), 6);
    let alter = wrap!("shop::price", |price, item: &str, n: u32| -> u64 { price(&item.to_uppercase(), n + 1) + 100 });
    let alter = alter.start().unwrap();
    // The newest one is outside.
    assert_eq!(price("tea", 2), 109);
    let skip = wrap!("shop::price", |_price, _item: &str, _n: u32| -> u64 { 0 }).start().unwrap();
    assert_eq!(price("tea", 2), 0);
    let twice = wrap!("shop::price", |price, item: &str, n: u32| -> u64 { price(item, n) + price(item, n) });
    let twice = twice.start().unwrap();
    assert_eq!(price("tea", 2), 0);
    // In any order.
    drop(skip);
    assert_eq!(price("tea", 2), 218);
    drop(inspect);
    drop(twice);
    assert_eq!((price("tea", 2), alter.calls()), (109, 4));
    alter.stop();
    assert_eq!((price("tea", 2), alter.calls()), (6, 4));
    let seen = Arc::try_unwrap(seen).expect("the wrapper is gone, with what it had");
    let tea = |item: &str, n, cents| (item.to_owned(), n, cents);
    assert_eq!(seen.into_inner().unwrap(), [tea("tea", 2, 6), tea("TEA", 3, 9), tea("TEA", 3, 9), tea("TEA", 3, 9)]);
    nothing_is_left();
}

#[test]
fn functions_of_all_kinds_are_wrapped() {
    let _alone = alone();
    // References that are returned; patterns; a recursive one, whose inner calls go through it as well, but for the original itself.
    let first = wrap!("first", |first, text: &str| -> &str { first(&text[1..]) }).start().unwrap();
    assert_eq!(shop::first("abc"), "b");
    drop(first);
    let longest =
        wrap!("longest", for<'a> |longest, all: Vec<&'a str>, least: (usize, u8), unit: &()| -> Option<&'a str> {
            longest(all, (least.0 + 2, 0), unit)
        });
    let _longest = longest.start().unwrap();
    assert_eq!(
        (shop::longest(vec!["ab", "abc"], (1, 0), &()), shop::longest(vec!["ab"], (0, 0), &())),
        (Some("abc"), Some("ab"))
    );
    assert_eq!(shop::longest(vec!["ab"], (1, 0), &()), None);
    let fibonacci = wrap!("fibonacci", |fibonacci, n: u64| -> u64 { fibonacci(n) }).start().unwrap();
    assert_eq!((shop::fibonacci(5), fibonacci.calls()), (5, 15));
    let named = wrap!("shop::named", |named, a: u64, b: u64, c: (u64, u64), d: u64| -> u64 { named(a + 1, b, c, d) });
    let _named = named.start().unwrap();
    assert_eq!(shop::named(0, 2, (3, 4), 5), 12_345);

    // Methods: by reference, by value, of a trait, without `self`.
    let _new = wrap!("Stock::new", |new, rows: &[(&str, u32)]| -> Stock {
        let mut stock = new(rows);
        stock.rows.push(("salt".to_owned(), 1));
        stock
    });
    let _new = _new.start().unwrap();
    let mut stock = Stock::new(&[("tea", 3)]);
    assert_eq!(stock.count(), 2);
    let count = wrap!("Stock::count", |count, this: &Stock| -> usize { count(this) * 10 }).start().unwrap();
    assert_eq!(stock.count(), 20);
    let of = wrap!("Stock::of", for<'a> |of, this: &'a Stock, item: &str| -> Option<&'a u32> {
        of(this, if item == "coffee" { "tea" } else { item })
    });
    let _of = of.start().unwrap();
    assert_eq!((stock.of("coffee"), stock.of("milk")), (Some(&3), None));
    let take =
        wrap!("Stock::take", for<'a> |take, this: &'a mut Stock, item: &str, n: u32| -> Result<&'a mut u32, String> {
            if n > 100 { Err("so many?".to_owned()) } else { take(this, item, n) }
        });
    let take = take.start().unwrap();
    *stock.take("tea", 1).unwrap() += 5;
    assert_eq!(stock.take("tea", 101).unwrap_err(), "so many?");
    assert_eq!((stock.of("tea"), take.calls()), (Some(&7), 2));
    let other = Stock::default();
    let other = Mutex::new(Some(other));
    let sold =
        wrap!("Stock::sold", |sold, this: Stock| -> Stock { sold(other.lock().unwrap().take().unwrap_or(this)) });
    let _sold = sold.start().unwrap();
    assert_eq!(stock.sold().rows, []);
    let _shared = wrap!("Stock::shared", |shared, this: Arc<Stock>| -> usize {
        let _one_more = this.clone();
        shared(this)
    });
    let _shared = _shared.start().unwrap();
    assert_eq!(Arc::new(Stock::default()).shared(), 2);
    drop(count);
    assert_eq!(Stock::default().count(), 0);
}

#[test]
fn a_wrapper_is_called_only_for_functions_of_its_type() {
    let _alone = alone();
    let wrong = wrap!("shop::price", |_price, _item: &str, _n: u32| -> u32 { 0 }).start().unwrap();
    assert_eq!((price("tea", 1), price("tea", 1), wrong.calls()), (3, 3, 0));
    assert_eq!(
        wrong.troubles(),
        [
            "calls of doubles::shop::price are not wrapped: it is fn(&str, u32) -> u64, and the wrapper is for fn(&str, u32) -> u32"
        ]
    );
    // Of a generic function, those that have it.
    let bytes = wrap!("Cell::get", |get, this: &Cell<u8>| -> u8 { get(this) + 1 }).start().unwrap();
    assert_eq!((Cell(1u8).get(), Cell(1u16).get(), bytes.calls()), (2, 1, 1));
    assert_eq!(bytes.troubles().len(), 1);
    let text = wrap!("shop::show", |show, value: &'static str| -> String { show(value) + "!" }).start().unwrap();
    assert_eq!((shop::show("a"), shop::show(1)), ("\"a\"!".to_owned(), "1".to_owned()));
    drop((wrong, bytes, text));

    let start = |pattern: &str| wrap!(pattern, |_f| {}).start().map(drop).unwrap_err().to_string();
    assert_eq!(start("shop::longst"), "no probe point is called shop::longst; there is doubles::shop::longest");
    let told = start("shop::only_watched");
    assert!(
        told.starts_with("doubles::shop::only_watched can be watched, but not wrapped: write #[coro::probe(wrap)] on it (tests/doubles.rs:"),
        "{told}"
    );
    nothing_is_left();
}

#[test]
fn enabled_is_asked_at_each_call_and_its_failure_is_told() {
    let _alone = alone();
    static ON: AtomicU64 = AtomicU64::new(0);
    let free = wrap!("shop::price", |_price, _item: &str, _n: u32| -> u64 { 0 });
    let free = free.enabled(|| match ON.load(Ordering::Relaxed) {
        0 => false,
        // It may call what it is about.
        1 => price("tea", 1) == 3,
        2 => std::panic::resume_unwind(Box::new("no such flag")),
        _ => {
            coro::yield_slice();
            true
        }
    });
    let free = free.start().unwrap();
    let mut found = Vec::new();
    for on in [0, 1, 0, 2, 2, 1] {
        ON.store(on, Ordering::Relaxed);
        found.push(price("tea", 2));
    }
    assert_eq!((found, free.calls()), (vec![6, 0, 6, 6, 6, 0], 2));
    assert_eq!(free.troubles(), ["calls of doubles::shop::price are not wrapped: `enabled` panicked: no such flag"]);
    drop(free);
    nothing_is_left();
}

#[test]
fn what_a_wrapper_does_is_the_programs_and_probes_see_the_whole() {
    let _alone = alone();
    let log = attach_to("shop::price").keep_lines().log().count_of(Events::PANIC).start().unwrap();
    let broken = wrap!("shop::price", |price, item: &str, n: u32| -> u64 {
        assert!(n < 10, "too many");
        price(item, n) + same(1)
    });
    let broken = broken.start().unwrap();
    let twice = wrap!("shop::same", |same, n: u64| -> u64 { 2 * same(n) }).start().unwrap();
    assert_eq!(price("tea", 1), 5);
    let outcome = within(LIMIT, || runtime(1).block_on(|| coro::spawn(|| price("tea", 10)).join().map_err(drop)));
    assert_eq!(outcome, Err(()));
    let lines = log.lines();
    assert!(lines[0].starts_with("doubles::shop::price(item=\"tea\", n=1) => 5 in "), "{lines:?}");
    assert!(lines[1].starts_with("doubles::shop::price(item=\"tea\", n=10) ~ unwinds in "), "{lines:?}");
    assert_eq!((broken.calls(), twice.calls()), (2, 1));
}

#[test]
fn a_scope_is_one_tree_of_tasks() {
    let _alone = alone();
    /// Another task, which was there before.
    struct Beside(coro::sync::mpsc::Sender<Job>);
    type Job = (fn() -> u64, coro::sync::mpsc::Sender<u64>);

    impl Beside {
        fn call(&self, f: fn() -> u64) -> u64 {
            let (done, result) = coro::sync::mpsc::channel();
            self.0.send((f, done)).unwrap();
            result.recv().unwrap()
        }
    }

    within(LIMIT, || {
        let runtime = runtime(2);
        let (sender, jobs) = coro::sync::mpsc::channel::<Job>();
        runtime.spawn(move || jobs.iter().for_each(|(f, done)| done.send(f()).unwrap()));
        let beside = Beside(sender);
        let gate = Arc::new(coro::sync::Semaphore::new(0));
        // There before, and beside it.
        let before = runtime.spawn({
            let gate = gate.clone();
            move || {
                gate.acquire().forget();
                same(1)
            }
        });
        let tree = runtime.spawn(move || {
            let ten = wrap!("shop::same", |_same, n: u64| -> u64 { n * 10 }).scoped().start().unwrap();
            coro::set_label("inside", 1);
            assert_eq!(same(1), 10);
            let child = coro::spawn(|| (same(2), coro::spawn_local(|| same(3)).join().unwrap(), coro::labels().len()));
            assert_eq!(child.join().unwrap(), (20, 30, 0));
            let borrowed = 4;
            coro::scope(|s| assert_eq!(s.spawn(|| same(borrowed)).join().unwrap(), 40));
            // Elsewhere on its behalf; on the same thread for somebody else; a thread of the program's own is not in it.
            assert_eq!(coro::blocking(|| same(5)).unwrap(), 50);
            assert_eq!(beside.call(|| coro::blocking(|| same(5)).unwrap()), 5);
            assert_eq!(std::thread::spawn(|| same(6)).join().unwrap(), 6);
            // A scope in the scope, which ends first or last.
            let more = wrap!("shop::same", |same, n: u64| -> u64 { same(n) + 1 }).scoped().start().unwrap();
            assert_eq!((same(1), coro::spawn(|| same(1)).join().unwrap()), (11, 11));
            gate.add_permits(1);
            assert_eq!(before.join().unwrap(), 1);
            let still = coro::spawn(|| {
                coro::park();
                (same(7), coro::spawn(|| same(8)).join().unwrap())
            });
            drop(ten);
            assert_eq!((same(1), coro::spawn(|| same(1)).join().unwrap()), (2, 2));
            let last = wrap!("shop::same", |same, n: u64| -> u64 { same(n) + 5 }).scoped().start().unwrap();
            drop(more);
            assert_eq!(same(1), 6);
            still.task().unpark();
            assert_eq!(still.join().unwrap(), (7, 8), "it was spawned before the last one, and after the others");
            drop(last);
            same(1)
        });
        assert_eq!(tree.join().unwrap(), 1);
    });
    nothing_is_left();
}

#[test]
fn a_scope_of_a_plain_thread_ends_also_with_a_panic() {
    let _alone = alone();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let _ten = wrap!("shop::same", |_same, n: u64| -> u64 { n * 10 }).scoped().start().unwrap();
        let runtime = runtime(1);
        assert_eq!((same(1), runtime.block_on(|| same(2)), runtime.spawn(|| same(3)).join().unwrap()), (10, 20, 30));
        std::panic::resume_unwind(Box::new("over"));
    }));
    assert_eq!(outcome.unwrap_err().downcast_ref(), Some(&"over"));
    nothing_is_left();
    assert_eq!((same(1), runtime(1).block_on(|| same(2))), (1, 2));
    // A task that is cancelled, while a child of it still is in its scope, and goes on.
    within(LIMIT, || {
        let runtime = runtime(1);
        runtime.block_on(|| {
            let go = Arc::new(coro::sync::Semaphore::new(0));
            let task = coro::spawn({
                let go = go.clone();
                move || {
                    let _ten = wrap!("shop::same", |_same, n: u64| -> u64 { n * 10 }).scoped().start().unwrap();
                    let _child = coro::spawn(move || {
                        assert_eq!(same(1), 10);
                        go.add_permits(1);
                        go.acquire_many(2).forget();
                        assert_eq!(same(1), 1);
                        go.add_permits(10);
                    });
                    coro::park();
                }
            });
            until(LIMIT, "the child waits", || go.available_permits() == 1);
            task.cancel();
            assert!(task.join().is_err());
            nothing_is_left();
            go.add_permits(1);
            go.acquire_many(10).forget();
        });
    });
}

#[test]
fn a_point_that_comes_later_is_wrapped_from_its_first_call_on() {
    let _alone = alone();
    let spell = wrap!("plugin::spell", |spell, words: (u32, String)| -> u32 { spell((words.0 + 1, words.1)) });
    let spell = spell.later().start().unwrap();
    assert!(spell.points().is_empty());
    let point = Point::register("plugin::spell", &["words"]);
    let call = |n| point.call_with((n, "a".to_owned()), |(n, text)| n + text.len() as u32);
    assert_eq!((call(1), spell.calls(), spell.points().len()), (3, 1, 1));
    let lines = attach_to("plugin::spell").keep_lines().log().start().unwrap();
    assert_eq!(call(2), 4);
    assert!(lines.lines()[0].starts_with("plugin::spell(words=(2, \"a\")) => 4 in "), "{:?}", lines.lines());
    assert_eq!(point.call(&[], || 1), 1);
    assert!(spell.troubles()[0].contains("called by Point::call, without types"), "{:?}", spell.troubles());
    drop((spell, lines));
    assert_eq!(call(1), 2);
    // A function that there is already.
    let later = wrap!("shop::same", |_same, n: u64| -> u64 { n + 1 }).later().start().unwrap();
    assert_eq!(same(1), 2);
    drop(later);
    nothing_is_left();
}

coro::probe::patch!("gifts", || wrap!("shop::gift", |_gift, _cents: u64| -> u64 { 0 }).start());

#[test]
fn a_bundle_wraps_when_it_is_named() {
    let _alone = alone();
    assert_eq!(shop::gift(3), 3);
    assert_eq!(probe::apply_patch("gifts"), Ok(vec![]));
    assert_eq!(shop::gift(3), 0);
    assert_eq!((probe::apply_patch("gifts"), shop::gift(3)), (Ok(vec![]), 0));
}

#[test]
fn one_value_is_wrapped_and_others_of_its_type_are_not() {
    let _alone = alone();
    let (one, other) = (Arc::new(Stock::default()), Arc::new(Stock::default()));
    let many = wrap!("Stock::count", |count, this: &Stock| -> usize { count(this) + 1000 });
    let many = many.only_for(&one).start().unwrap();
    assert_eq!((one.count(), other.count(), Stock::default().count(), many.calls()), (1000, 0, 0, 1));
    let kept = Arc::downgrade(&one);
    drop(one);
    assert_eq!(kept.upgrade().expect("it is kept for the wrapper").count(), 1000);
    drop(many);
    assert!(kept.upgrade().is_none());
    let nothing = wrap!("Stock::count", |_count, _this: &Stock| -> usize { 0 }).only_for(&Arc::new(()));
    assert!(nothing.start().unwrap_err().to_string().starts_with("values without a size cannot be told apart"));
    nothing_is_left();
}

#[test]
fn a_proxy_is_one_way_to_a_shared_value() {
    let _alone = alone();
    let (one, other) = (Arc::new(Stock::default()), Arc::new(Stock::default()));
    let proxy = Proxy::of(one.clone());
    let proxy = proxy.wrap(wrap!("Stock::count", |count, this: &Stock| -> usize { count(this) + 1000 })).unwrap();
    let proxy =
        proxy.wrap(wrap!("Stock::of", for<'a> |_of, _this: &'a Stock, _item: &str| -> Option<&'a u32> { Some(&7) }));
    let proxy = Arc::new(proxy.unwrap());
    assert_eq!((one.count(), proxy.original().count()), (0, 0));
    assert_eq!(proxy.with(|stock| (stock.count(), stock.of("tea").copied(), other.count())), (1000, Some(7), 0));
    within(LIMIT, {
        let (proxy, one, other) = (proxy.clone(), one.clone(), other.clone());
        move || {
            runtime(2).block_on(|| {
                // At the same time, in another task, it is what it is; so it is within where it was left.
                let (there, back) = (Arc::new(coro::sync::Semaphore::new(0)), Arc::new(coro::sync::Semaphore::new(0)));
                let inside = coro::spawn({
                    let (proxy, one, there, back) = (proxy.clone(), one.clone(), there.clone(), back.clone());
                    move || {
                        let inside = proxy.with(|stock| {
                            let nested = proxy.with(Stock::count);
                            there.add_permits(1);
                            back.acquire().forget();
                            let (one, other) = (one.clone(), other.clone());
                            let child = coro::spawn(move || (one.count(), other.count())).join().unwrap();
                            (nested, stock.count(), child)
                        });
                        (inside, one.count())
                    }
                });
                there.acquire().forget();
                assert_eq!(one.count(), 0);
                back.add_permits(1);
                assert_eq!(inside.join().unwrap(), ((1000, 1000, (1000, 0)), 0));
            });
        }
    });
    // It is left by a panic, too; and a wrapper that is gone takes no other with it.
    let left = catch_unwind(AssertUnwindSafe(|| proxy.with(|_| std::panic::resume_unwind(Box::new("over")))));
    assert_eq!((left.unwrap_err().downcast_ref(), one.count()), (Some(&"over"), 0));
    proxy.wrapped()[0].stop();
    assert_eq!(proxy.with(|stock| (stock.count(), stock.of("tea").copied())), (0, Some(7)));
    let kept = proxy.with(|stock| {
        drop(proxy.clone());
        stock.of("tea").copied()
    });
    assert_eq!(kept, Some(7));
    drop(proxy);
    assert_eq!(Arc::strong_count(&one), 1);
    nothing_is_left();
}

#[test]
fn calls_are_recorded_and_answered_as_they_were() {
    let _alone = alone();
    let recording = Recording::new();
    {
        let _on = record!(recording, "shop::price", |item: &str, n: u32| -> u64).start().unwrap();
        let _new = record!(recording, "Stock::new", |_rows: &[(&str, u32)]| -> Stock).start().unwrap();
        let take = record!(recording, "Stock::count", |this: &Stock| -> usize).start().unwrap();
        assert_eq!((price("tea", 2), price("tea", 2), price("salt", 1)), (6, 6, 4));
        assert_eq!(Stock::new(&[("tea", 3)]).count(), 1);
        assert_eq!(take.calls(), 1);
    }
    price("tea", 3);
    let calls = [
        "shop::price(\"tea\", 2) => 6",
        "shop::price(\"tea\", 2) => 6",
        "shop::price(\"salt\", 1) => 4",
        "Stock::new() => Stock { rows: [(\"tea\", 3)] }",
        "Stock::count(Stock { rows: [(\"tea\", 3)] }) => 1",
    ];
    assert_eq!(recording.calls(), calls);
    assert_eq!(recording.diff(&recording.clone()).to_string(), "");

    // Each recorded call answers one; the function is not called for it.
    let again = recording.replay();
    let below = wrap!("shop::price", |_price, _item: &str, _n: u32| -> u64 { 100 }).start().unwrap();
    let on = replay!(again, "shop::price", |item: &str, n: u32| -> u64).start().unwrap();
    assert_eq!((price("salt", 1), price("tea", 2), price("tea", 2), price("tea", 2)), (4, 6, 6, 100));
    assert_eq!((below.calls(), on.calls(), again.actual().calls().len()), (1, 4, 4));
    assert_eq!(
        again.diff().to_string(),
        format!("missing     {}\nmissing     {}\nunexpected  shop::price(\"tea\", 2) => 100\n", calls[3], calls[4])
    );
    drop(on);
    // A result that cannot be copied is recorded, but cannot answer.
    let no_copies = recording.replay();
    let on = replay!(no_copies, "Stock::new", |_rows: &[(&str, u32)]| -> Stock).start().unwrap();
    assert_eq!(Stock::new(&[("salt", 1)]).rows.len(), 1);
    drop((on, below));
    let diff = no_copies.diff().to_string();
    assert!(diff.contains("different   Stock::new() => Stock { rows: [(\"salt\", 1)] }\n        was Stock::new() => Stock { rows: [(\"tea\", 3)] }\n"), "{diff}");
    nothing_is_left();
}

#[test]
fn a_recorded_call_may_unwind_or_be_under_way() {
    let _alone = alone();
    let fails = wrap!("shop::same", |same, n: u64| -> u64 {
        if n == 0 { std::panic::resume_unwind(Box::new("none")) } else { same(n) }
    });
    let _fails = fails.start().unwrap();
    let recording = Recording::new();
    let on = record!(recording, "shop::same", |n: u64| -> u64).start().unwrap();
    let same_of = |n| catch_unwind(|| same(n)).map_err(drop);
    assert_eq!((same_of(0), same_of(1)), (Err(()), Ok(1)));
    drop(on);
    assert_eq!(recording.calls(), ["shop::same(0) ~ unwinds", "shop::same(1) => 1"]);
    let again = recording.replay();
    let _on = replay!(again, "shop::same", |n: u64| -> u64).start().unwrap();
    assert_eq!((same_of(1), same_of(0)), (Ok(1), Err(())));
    assert!(again.diff().is_empty(), "{:?}", again.diff());

    // From tasks that run at once.
    let waits = Recording::new();
    within(LIMIT, {
        let waits = waits.clone();
        move || {
            runtime(2).block_on(|| {
                let gate = Arc::new(coro::sync::Semaphore::new(0));
                let _on = record!(waits, "shop::wait", |_gate: &Arc<coro::sync::Semaphore>, n: u64|).start().unwrap();
                let tasks: Vec<_> = (0..3)
                    .map(|n| {
                        let gate = gate.clone();
                        coro::spawn(move || shop::wait(&gate, n))
                    })
                    .collect();
                until(LIMIT, "all have begun", || waits.calls().len() == 3);
                assert!(waits.calls().iter().all(|call| call.ends_with(") is under way")), "{waits:?}");
                gate.add_permits(3);
                tasks.into_iter().for_each(|task| task.join().unwrap());
            });
        }
    });
    let mut calls = waits.calls();
    calls.sort();
    assert_eq!(calls, ["shop::wait(0) => ()", "shop::wait(1) => ()", "shop::wait(2) => ()"]);
}

/// Wrappers, scopes and probes at random, while tasks of two workers call: nothing is left, no call is lost, or altered beyond what was
/// asked.
#[test]
fn random_comings_and_goings_leave_nothing_behind() {
    let _alone = alone();
    /// What any wrapper adds is a multiple of this, and no more than there can be of them.
    const STEP: u64 = 1 << 32;
    const MOST: usize = 8;
    let mut rng = Rng::from_environment();
    let dropped = Arc::new(());
    let through = within(Duration::from_secs(60), {
        let dropped = dropped.clone();
        move || {
            let runtime = runtime(2);
            let stop = Arc::new(AtomicBool::new(false));
            let altered = Arc::new(AtomicU64::new(0));
            let callers: Vec<_> = (0..4)
                .map(|i| {
                    let (stop, altered) = (stop.clone(), altered.clone());
                    runtime.spawn(move || {
                        let mut n = 0u64;
                        while !stop.load(Ordering::Relaxed) {
                            n += 1;
                            // Half of them are in a scope of their own now and then.
                            let scoped = (i % 2 == 0 && n.is_multiple_of(16)).then(|| {
                                wrap!("shop::same", |same, n: u64| -> u64 { same(n) + (1 << 60) })
                                    .scoped()
                                    .start()
                                    .unwrap()
                            });
                            let found = same(n);
                            assert_eq!(found >> 60 == 1, scoped.is_some(), "{found:x}");
                            if scoped.is_some() && n.is_multiple_of(64) {
                                assert_eq!(coro::spawn(|| same(0)).join().unwrap() >> 60, 1);
                            }
                            let found = found & ((1 << 60) - 1);
                            assert_eq!(found % STEP, n);
                            assert!(found / STEP <= MOST as u64, "{found:x}");
                            altered.fetch_add(u64::from(found != n), Ordering::Relaxed);
                            if n.is_multiple_of(64) {
                                coro::yield_slice();
                            }
                        }
                        n
                    })
                })
                .collect();
            let (mut wrapped, mut probes, mut calls) = (Vec::new(), Vec::new(), 0);
            for _ in 0..1000 {
                match rng.below(6) {
                    0 | 1 if wrapped.len() < MOST => {
                        let held = dropped.clone();
                        let add = wrap!("shop::same", |same, n: u64| -> u64 {
                            let _held = &held;
                            same(n) + STEP
                        });
                        let flip = AtomicBool::new(false);
                        let add = match rng.below(3) {
                            0 => add,
                            1 => add.enabled(move || flip.fetch_xor(true, Ordering::Relaxed)),
                            _ => add.scoped(),
                        };
                        wrapped.push(add.start().unwrap());
                    }
                    2 if probes.len() < 4 => {
                        let attach = attach_to("shop::*").keep_lines();
                        probes.push(if rng.below(2) == 0 { attach.count() } else { attach.log() }.start().unwrap());
                    }
                    3 | 4 if !wrapped.is_empty() => {
                        let gone = wrapped.swap_remove(rng.below(wrapped.len()));
                        calls += gone.calls();
                        drop(gone);
                    }
                    5 if !probes.is_empty() => drop(probes.swap_remove(rng.below(probes.len()))),
                    _ => std::thread::sleep(Duration::from_micros(rng.below(300) as u64)),
                }
            }
            drop((wrapped, probes));
            // From here on there are none but those of the callers themselves.
            assert_eq!(same(7), 7);
            stop.store(true, Ordering::Relaxed);
            let all: u64 = callers.into_iter().map(|caller| caller.join().unwrap()).sum();
            let altered = altered.load(Ordering::Relaxed);
            assert!(
                altered > 0 && altered < all && calls > 0,
                "{altered} of {all}, {calls} through those that went first"
            );
            all
        }
    });
    eprintln!("{through} calls");
    nothing_is_left();
    assert_eq!(Arc::strong_count(&dropped), 1, "what wrappers had is dropped with them");
}

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/doubles.md");

/// The block of the page that stands behind `<!-- name -->`, and where.
fn block(page: &str, name: &str) -> std::ops::Range<usize> {
    let mark = format!("<!-- {name} -->\n```");
    let at = page.find(&mark).unwrap_or_else(|| panic!("the page has no block {name}")) + mark.len();
    let begin = at + page[at..].find('\n').expect("a line") + 1;
    begin..begin + page[begin..].find("```").expect("its end")
}

/// What the page shows, made here; `CORO_BLESS=1` writes it.
#[test]
#[cfg(not(miri))]
fn what_the_page_says_is_what_happens() {
    mod app {
        pub(super) mod shop {
            #[coro::probe(wrap, name = "app::shop::price")]
            pub(in super::super) fn price(item: &str, n: u32) -> Result<u64, String> {
                if item.is_empty() { Err("no item".into()) } else { Ok(item.len() as u64 * u64::from(n)) }
            }

            #[coro::probe(wrap, name = "app::shop::refund")]
            pub(in super::super) fn refund(cents: u64) -> bool {
                cents < 100
            }
        }
    }
    use app::shop::{price, refund};

    let _alone = alone();
    let mut page = std::fs::read_to_string(PAGE).expect("the page");
    let mut shows = |name: &str, found: String| {
        let range = block(&page, name);
        match std::env::var_os("CORO_BLESS") {
            Some(_) => page.replace_range(range, &found),
            None => assert_eq!(&page[range], found, "block {name} of {PAGE}"),
        }
    };
    let told = |wrapped: &probe::Wrapped| wrapped.troubles().iter().map(|line| format!("coro: {line}\n")).collect();

    let wrong = wrap!("app::shop::price", |_price, _item: &str, _n: u32| -> u64 { 0 }).start().unwrap();
    assert_eq!(price("tea", 1), Ok(3));
    shows("types", told(&wrong));
    drop(wrong);
    let unsure = wrap!("app::shop::price", |_price, _item: &str, _n: u32| -> Result<u64, String> { Ok(0) });
    let unsure = unsure.enabled(|| std::panic::resume_unwind(Box::new("no such flag"))).start().unwrap();
    assert_eq!(price("tea", 1), Ok(3));
    shows("enabled", told(&unsure));
    drop(unsure);

    let recording = Recording::new();
    let on = record!(recording, "app::shop::price", |item: &str, n: u32| -> Result<u64, String>).start().unwrap();
    for (item, n) in [("tea", 2), ("salt", 1), ("cake", 3)] {
        price(item, n).unwrap();
    }
    drop(on);
    shows("recorded", recording.calls().iter().map(|call| format!("{call}\n")).collect());
    let again = recording.replay();
    let on = replay!(again, "app::shop::price", |item: &str, n: u32| -> Result<u64, String>).start().unwrap();
    let more = replay!(again, "app::shop::refund", |cents: u64| -> bool).start().unwrap();
    assert_eq!((price("salt", 1), price("tea", 3), refund(9)), (Ok(4), Ok(9), true));
    drop((on, more));
    shows("diff", again.diff().to_string());

    if std::env::var_os("CORO_BLESS").is_some() {
        std::fs::write(PAGE, page).expect("it is written");
    }
}

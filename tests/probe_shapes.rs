//! Functions of many shapes with `#[coro::probe]`: they compile without a warning, and do what they would without it.
#![cfg(not(miri))]
#![deny(warnings)]
#![forbid(unsafe_code, unreachable_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use coro::probe::{Attached, attach_to};

/// Not to be shown, not to be compared, and with no default.
struct Plain;

struct Row {
    cells: Vec<u8>,
    name: String,
}

impl Row {
    #[coro::probe]
    fn last(&mut self) -> Option<&mut u8> {
        self.cells.last_mut()
    }

    #[coro::probe]
    fn itself(&mut self) -> &mut Self {
        self
    }

    #[coro::probe]
    fn name(self) -> String {
        self.name
    }

    #[coro::probe]
    fn cells(&mut self) -> std::slice::IterMut<'_, u8> {
        self.cells.iter_mut()
    }
}

#[coro::probe]
fn entry(map: &mut HashMap<u8, u8>) -> &mut u8 {
    map.entry(1).or_default()
}

#[coro::probe]
fn longest<'a>(_: u8, texts: &'a mut Vec<String>) -> impl Iterator<Item = &'a mut String> {
    texts.iter_mut().filter(|text| text.len() > 1)
}

#[coro::probe]
fn length() -> impl Fn(&str) -> usize {
    |text| text.len()
}

#[coro::probe]
fn both() -> (impl Fn() -> u8, Box<dyn fmt::Debug>) {
    (|| 1, Box::new(2))
}

#[coro::probe]
fn numbers(fails: bool) -> Result<impl Iterator<Item = u8>, Plain> {
    if fails {
        return Err(Plain);
    }
    Ok(0..3)
}

#[coro::probe]
fn never(why: &str) -> ! {
    panic!("{why}")
}

#[coro::probe]
fn does_not_say_that_it_never_returns() {
    panic!("no")
}

#[coro::probe]
fn elsewhere(#[cfg(windows)] handle: u16, #[cfg(not(windows))] descriptor: u8) -> u8 {
    descriptor
}

#[coro::probe]
fn inner() -> u8 {
    #![allow(unused_variables)]
    let left = 1;
    2
}

#[coro::probe(skip(_later))]
fn patterns((mut first, [second, _]): (u8, [u8; 2]), Row { mut name, .. }: Row, _unused: u8, _later: Plain) -> String {
    first += second;
    name.push_str(&first.to_string());
    name
}

thread_local! {
    static DROPPED: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Told(char);

impl Drop for Told {
    fn drop(&mut self) {
        DROPPED.with_borrow_mut(|dropped| dropped.push(self.0));
    }
}

fn use_of(_: &Told) {}

macro_rules! both_ways {
    ($plain:ident, $probed:ident, ($($arguments:tt)*) $body:block) => {
        fn $plain($($arguments)*) $body
        #[coro::probe]
        fn $probed($($arguments)*) $body
    };
}

both_ways!(in_order, in_order_probed, (a: Told, b: Told, c: Told) {
    use_of(&b);
    use_of(&a);
    drop(c);
});
both_ways!(taken_apart, taken_apart_probed, ((a, b): (Told, Told), _: Told, _c: Told) {
    let local = Told('l');
    use_of(&b);
    let _ = &local;
    drop(a);
});
both_ways!(in_parts, in_parts_probed, (mut pair: (Told, Told), b: Told) {
    use_of(&b);
    pair.1 = Told('n');
    drop(pair.0);
});

fn dropped(f: impl FnOnce()) -> String {
    f();
    DROPPED.with_borrow_mut(std::mem::take)
}

#[test]
fn arguments_are_dropped_as_they_would_be_without_it() {
    let t = Told;
    let plain = [
        dropped(|| in_order(t('a'), t('b'), t('c'))),
        dropped(|| taken_apart((t('a'), t('b')), t('u'), t('c'))),
        dropped(|| in_parts((t('a'), t('b')), t('c'))),
    ];
    let probed = || {
        [
            dropped(|| in_order_probed(t('a'), t('b'), t('c'))),
            dropped(|| taken_apart_probed((t('a'), t('b')), t('u'), t('c'))),
            dropped(|| in_parts_probed((t('a'), t('b')), t('c'))),
        ]
    };
    assert_eq!(probed(), plain);
    let watched = attach_to("*_probed").keep_lines().log().start().unwrap();
    assert_eq!(probed(), plain);
    assert_eq!(watched.hits().0, 3);
}

/// What the probe was told since the last call, without what it took.
fn told(probe: &Attached) -> Vec<String> {
    let short = |line: String| line.replace("probe_shapes::", "").split(" in ").next().unwrap_or_default().to_owned();
    probe.lines().into_iter().map(short).collect()
}

#[test]
fn functions_of_many_shapes_are_watched() {
    let watch = |pattern: &str| attach_to(pattern).keep_lines().log().start().unwrap();
    let row = || Row { cells: vec![1, 2], name: "r".to_owned() };
    let rows = watch("Row::*");
    *row().itself().last().unwrap() += 1;
    assert_eq!(row().cells().count(), 2);
    assert_eq!(row().name(), "r");
    assert_eq!(rows.hits().0, 4);

    let others = watch("probe_shapes::*");
    assert_eq!(entry(&mut HashMap::new()), &0);
    assert_eq!(length()("abc"), 3);
    let (one, two) = both();
    assert_eq!((one(), format!("{two:?}")), (1, "2".to_owned()));
    assert_eq!(numbers(false).ok().map(Iterator::sum::<u8>), Some(3));
    assert!(numbers(true).is_err());
    assert_eq!(longest(0, &mut vec!["a".to_owned(), "bc".to_owned()]).count(), 1);
    assert_eq!(elsewhere(7), 7);
    assert_eq!(inner(), 2);
    assert_eq!(patterns((1, [2, 3]), row(), 4, Plain), "r3");
    let told = told(&others);
    assert_eq!(
        told,
        [
            "entry(map={}) => 0",
            "length() => <impl Fn(&str) -> usize>",
            "both() => <(impl Fn() -> u8, Box<dyn fmt::Debug>)>",
            "numbers(fails=false) => <Result<impl Iterator<Item = u8>, Plain>>",
            "numbers(fails=true) => <Result<impl Iterator<Item = u8>, Plain>>",
            "longest(texts=[\"a\", \"bc\"]) => <impl Iterator<Item = &'a mut String>>",
            "elsewhere(descriptor=7) => 7",
            "inner() => 2",
            "patterns(unused=4) => \"r3\"",
        ]
    );
}

#[test]
fn one_that_never_returns_is_told_as_a_panic() {
    let watched = attach_to("never|does_not_say*").keep_lines().log().start().unwrap();
    assert!(catch_unwind(|| never("so")).is_err());
    assert!(catch_unwind(AssertUnwindSafe(does_not_say_that_it_never_returns)).is_err());
    let told = told(&watched);
    assert!(told[0].starts_with("never(why=\"so\") ~ unwinds"), "{told:?}");
    assert!(told[1].starts_with("does_not_say_that_it_never_returns() ~ unwinds"), "{told:?}");
}

//! The last kinds of panics and stalls, by the place where they happened.
//!
//! Invariants: bounded: at most [`KINDS`] places each, and of each the last message and stack; the place that was not
//! seen for the longest time makes room. Whoever remembers pays for a copy, never for the names of frames: they are
//! looked up by who asks. Must not know: who asks.

#![forbid(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Remembered;
use crate::inspect;

const KINDS: usize = 64;
const LONGEST_SITE: usize = 256;
const LONGEST_MESSAGE: usize = 1024;
const LONGEST_STACK: usize = 16 * 1024;

#[derive(Debug)]
enum Stack {
    Addresses(Vec<usize>),
    Text(Box<str>),
}

#[derive(Debug)]
struct Kind {
    site: Box<str>,
    count: u64,
    first: SystemTime,
    last: SystemTime,
    message: Box<str>,
    stack: Stack,
    shown: Budget,
}

/// Of what one place says, or all together: how much was shown in this minute, and what was not.
#[derive(Debug)]
struct Budget {
    begun: Option<Instant>,
    seen: u64,
    suppressed: u64,
}

/// Shown in any case, per place and minute; of more only the 8th, 16th, 32nd and so on.
const ALWAYS: u64 = 5;
/// The same for all places together: a program may panic in more places than are remembered.
const ALWAYS_TOGETHER: u64 = 60;
const MINUTE: Duration = Duration::from_secs(60);

impl Budget {
    const fn new() -> Budget {
        Budget { begun: None, seen: 0, suppressed: 0 }
    }

    /// Whether one more is shown, and how many before it were not.
    fn take(&mut self, now: Instant, always: u64) -> Option<u64> {
        if self.begun.is_none_or(|b| now.duration_since(b) >= MINUTE) {
            (self.begun, self.seen) = (Some(now), 0);
        }
        self.seen += 1;
        if self.seen <= always || self.seen.is_power_of_two() {
            return Some(std::mem::take(&mut self.suppressed));
        }
        self.suppressed += 1;
        None
    }
}

#[derive(Debug)]
struct Table(Mutex<Vec<Kind>>);

static PANICS: Table = Table::new();
static STALLS: Table = Table::new();

fn cut(text: &str, longest: usize) -> Box<str> {
    let end = (0..=longest.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[..end].into()
}

impl Table {
    const fn new() -> Table {
        Table(Mutex::new(Vec::new()))
    }

    fn kinds(&self) -> MutexGuard<'_, Vec<Kind>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns how often that place was seen, this time included.
    fn add(&self, site: &str, message: &str, stack: Stack) -> u64 {
        let (site, message) = (cut(site, LONGEST_SITE), cut(message, LONGEST_MESSAGE));
        let mut kinds = self.kinds();
        let last = SystemTime::now();
        if let Some(k) = kinds.iter_mut().find(|k| k.site == site) {
            k.count += 1;
            (k.last, k.message, k.stack) = (last, message, stack);
            return k.count;
        }
        if kinds.len() == KINDS
            && let Some(oldest) = (0..KINDS).min_by_key(|i| kinds[*i].last)
        {
            kinds.remove(oldest);
        }
        kinds.push(Kind { site, count: 1, first: last, last, message, stack, shown: Budget::new() });
        1
    }

    fn amend(&self, site: &str, message: &str, stack: &str) {
        let (site, message) = (cut(site, LONGEST_SITE), cut(message, LONGEST_MESSAGE));
        if let Some(k) = self.kinds().iter_mut().find(|k| k.site == site) {
            k.message = message;
            if !stack.is_empty() {
                k.stack = Stack::Text(cut(stack, LONGEST_STACK));
            }
        }
    }

    /// The one seen last comes first.
    fn all(&self) -> Vec<Remembered> {
        let mut raw: Vec<(Remembered, Option<Vec<usize>>)> = Vec::new();
        for k in self.kinds().iter() {
            let (stack, addresses) = match &k.stack {
                Stack::Addresses(a) => (String::new(), Some(a.clone())),
                Stack::Text(t) => (t.to_string(), None),
            };
            let (site, message) = (k.site.to_string(), k.message.to_string());
            raw.push((Remembered { site, count: k.count, first: k.first, last: k.last, message, stack }, addresses));
        }
        raw.sort_by_key(|(r, _)| std::cmp::Reverse(r.last));
        raw.into_iter()
            .map(|(mut r, addresses)| {
                if let Some(a) = addresses {
                    r.stack = inspect::stack_text(&a);
                }
                r
            })
            .collect()
    }
}

/// The last 64 places where tasks panicked, the one that was seen last first. Panics that the task caught itself count.
///
/// Names of frames are looked up now, which may take milliseconds; not for a task that others wait for.
pub fn panics() -> Vec<Remembered> {
    PANICS.all()
}

/// The last 64 places where slices kept their worker for too long, the one that was seen last first.
pub fn stalls() -> Vec<Remembered> {
    STALLS.all()
}

pub(crate) fn remember_panic(site: &str, message: &str, addresses: Vec<usize>) -> u64 {
    PANICS.add(site, message, Stack::Addresses(addresses))
}

/// What was not written to stderr before something that is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suppressed {
    /// Of the same place, since the last one of it.
    pub(crate) of_place: u64,
    /// Of places that by themselves would have been shown, since the last one of any.
    pub(crate) of_all: u64,
}

/// Whether a panic of that place, which has been remembered, is written to stderr, and what before it was not.
pub(crate) fn panic_budget(site: &str) -> Option<Suppressed> {
    static TOGETHER: Mutex<Budget> = Mutex::new(Budget::new());
    let (site, now) = (cut(site, LONGEST_SITE), Instant::now());
    let mut kinds = PANICS.kinds();
    let of_place = kinds.iter_mut().find(|k| k.site == site).map(|k| &mut k.shown);
    take_both(of_place, &mut TOGETHER.lock().unwrap_or_else(PoisonError::into_inner), now)
}

/// The suppressed ones of a place that is no longer remembered are lost to the count of the place, not to that of all.
fn take_both(mut of_place: Option<&mut Budget>, together: &mut Budget, now: Instant) -> Option<Suppressed> {
    let before = of_place.as_mut().map_or(Some(0), |b| b.take(now, ALWAYS))?;
    match together.take(now, ALWAYS_TOGETHER) {
        Some(all) => Some(Suppressed { of_place: before, of_all: all }),
        None => {
            if let Some(b) = of_place {
                b.suppressed += before + 1;
            }
            None
        }
    }
}

/// Once per stall.
pub(crate) fn remember_stall(site: &str, message: &str, stack: &str) -> u64 {
    STALLS.add(site, message, Stack::Text(cut(stack, LONGEST_STACK)))
}

/// There is more to say of the last stall of that place. An empty stack leaves the one that there is.
pub(crate) fn amend_stall(site: &str, message: &str, stack: &str) {
    STALLS.amend(site, message, stack);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_kinds_are_kept_with_count_and_times() {
        let table = Table::new();
        for i in 0..100 {
            assert_eq!(table.add(&format!("src/a.rs:{i}"), "first", Stack::Text("[a]".into())), 1);
            assert_eq!(table.add("src/often.rs:1", &format!("message {i}"), Stack::Text("[b]".into())), i + 1);
        }
        let all = table.all();
        assert_eq!(all.len(), KINDS);
        let often = &all[0];
        assert_eq!((often.site.as_str(), often.count, often.message.as_str()), ("src/often.rs:1", 100, "message 99"));
        assert!(often.first <= often.last);
        table.amend("src/often.rs:1", "more", "[c]");
        table.amend("src/never.rs:1", "nothing", "");
        table.amend("src/often.rs:1", "more", "");
        let often = &table.all()[0];
        assert_eq!((often.message.as_str(), often.stack.as_str(), often.count), ("more", "[c]", 100));
        assert_eq!((all[1].site.as_str(), all[63].site.as_str()), ("src/a.rs:99", "src/a.rs:37"));
    }

    #[test]
    fn a_storm_shows_ever_fewer_and_a_minute_later_begins_anew() {
        let (mut budget, begun) = (Budget::new(), Instant::now());
        let shown: Vec<(u64, u64)> = (1..=40).filter_map(|i| budget.take(begun, 5).map(|s| (i, s))).collect();
        assert_eq!(shown, [(1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (8, 2), (16, 7), (32, 15)]);
        assert_eq!(budget.take(begun + MINUTE, 5), Some(8));
        assert_eq!(budget.take(begun + MINUTE, 5), Some(0));
    }

    #[test]
    fn a_storm_from_many_places_is_thinned_out_as_well() {
        let (mut together, now) = (Budget::new(), Instant::now());
        let mut shown = Vec::new();
        for i in 0..1000 {
            // Each place is new, or was forgotten.
            let mut place = Budget::new();
            let of_place = if i % 2 == 0 { Some(&mut place) } else { None };
            shown.extend(take_both(of_place, &mut together, now));
        }
        let of_all: Vec<u64> = shown.iter().map(|s| s.of_all).filter(|n| *n > 0).collect();
        assert_eq!((shown.len(), of_all), (64, vec![3, 63, 127, 255]));
        // What the limit of all kept back is told with the next one of its place.
        let (mut place, mut full) = (Budget::new(), Budget { begun: Some(now), seen: 64, suppressed: 0 });
        assert_eq!(take_both(Some(&mut place), &mut full, now), None);
        let next = take_both(Some(&mut place), &mut full, now + MINUTE);
        assert_eq!(next, Some(Suppressed { of_place: 1, of_all: 1 }));
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let table = Table::new();
        table.add(&"ä".repeat(1000), &"ö".repeat(10_000), Stack::Text("".into()));
        let all = table.all();
        assert_eq!((all[0].site.len(), all[0].message.len()), (LONGEST_SITE, LONGEST_MESSAGE));
        assert_eq!(table.add(&"ä".repeat(2000), "", Stack::Text("".into())), 2);
    }
}

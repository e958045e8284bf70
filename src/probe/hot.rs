//! Where a call spends its time: between which marks.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use super::event::{Event, Events};
use super::instrument::Instrument;
use super::tally::Tally;
use super::text;
use crate::inspect::condensed::short_file;
use crate::observe::Point;
use crate::sys::clock;
use crate::value::Value;

/// The segments of a function: from its beginning or a mark to the next mark or its end. The slowest of all and the worst
/// single one tell where to look.
#[derive(Default)]
pub(super) struct HotSpots {
    found: Mutex<BTreeMap<Segment, Figures>>,
    /// Passed while another task noted.
    missed: Tally,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    from: String,
    to: String,
}

#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    count: u64,
    total: u64,
    worst: u64,
}

fn place(point: &Point, what: &str) -> String {
    let name = point.name().rsplit("::").next().unwrap_or_default();
    let name = if what.is_empty() { name } else { what };
    format!("{name} {}:{}", short_file(point.file()), point.line())
}

impl HotSpots {
    /// By total time, the most first.
    fn all(&self) -> Vec<(String, String, Figures)> {
        let found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = found.iter().map(|(s, f)| (s.from.clone(), s.to.clone(), *f)).collect();
        all.sort_by_key(|(.., figures)| std::cmp::Reverse(figures.total));
        all
    }
}

impl Instrument for HotSpots {
    fn events(&self) -> Events {
        Events::MARK | Events::END
    }

    fn observe(&self, event: &Event<'_>) {
        let Some((from, ticks)) = event.segment else { return };
        let from = from.map_or_else(|| place(event.point, "begin"), |mark| place(mark, ""));
        let to = match event.mark() {
            Some(mark) => place(mark, ""),
            None => "end".to_owned(),
        };
        let Ok(mut found) = self.found.try_lock() else {
            self.missed.add();
            return;
        };
        let figures = found.entry(Segment { from, to }).or_default();
        figures.count += 1;
        figures.total += ticks;
        figures.worst = figures.worst.max(ticks);
    }

    fn report(&self) -> Value {
        let row = |(from, to, f): (String, String, Figures)| {
            Value::map([
                ("from", Value::Text(from)),
                ("to", Value::Text(to)),
                ("count", Value::of(f.count)),
                ("total", Value::of(clock::duration(f.total))),
                ("worst", Value::of(clock::duration(f.worst))),
            ])
        };
        Value::List(self.all().into_iter().map(row).collect())
    }

    fn text(&self) -> Option<String> {
        let all = self.all();
        let sum: u64 = all.iter().map(|(.., f)| f.total).sum();
        let worst = all.iter().map(|(.., f)| f.worst).max();
        let mut out = "hot".to_owned();
        for (from, to, f) in &all {
            let share = 100.0 * f.total as f64 / sum.max(1) as f64;
            let note = if Some(f.worst) == worst { "  <- the worst single one" } else { "" };
            let _ = write!(
                out,
                "\n  {share:>5.1}%  {} times, {} on average, {} at most  {from} -> {to}{note}",
                f.count,
                text::duration(clock::duration(f.total / f.count.max(1))),
                text::duration(clock::duration(f.worst)),
            );
        }
        if self.missed.sum() > 0 {
            let _ = write!(out, "\n  not counted, as two came at once: {}", self.missed.sum());
        }
        Some(out)
    }
}

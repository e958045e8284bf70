//! Which structure holds a worker's timers: the 4-ary heap that is used, against a wheel and std's heap.
//!
//! `cargo bench --bench timer_structures` prints nanoseconds per timer, medians of five interleaved rounds:
//!
//! * *insert + expire*: so many sleepers of 1 to 1000 ms; whoever wakes sleeps again. The clock goes in steps of
//!   one tick of the wheel, so all three wake as late.
//! * *insert + cancel*: so many time limits of 10 to 30 s, of which a random one is taken back and set anew.
//!
//! The binary heap is std's; it cancels lazily (an entry is skipped when it comes up, and all dead ones are swept out
//! when they are the majority). The wheel is what the library had before. The 4-ary heap knows where each timer lies and removes it at once.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::ptr;
use std::time::{Duration, Instant};

#[allow(dead_code, unreachable_pub, reason = "the heap as the library has it; not all of it is measured")]
#[path = "../src/timer/heap.rs"]
mod heap;
#[allow(dead_code, unreachable_pub, reason = "a candidate as it was in the library; not all of it is measured")]
#[path = "candidates/wheel.rs"]
mod wheel;

use wheel::{RESOLUTION_NS, TimerAction, TimerKey, Wheel};

/// What is compared. A timer is known by a number below the capacity; each is pending at most once.
trait Timers {
    const NAME: &'static str;
    fn with_capacity(n: usize) -> Self;
    fn insert(&mut self, id: u32, deadline: u64);
    fn cancel(&mut self, id: u32);
    /// Takes out one timer that is due.
    fn expire(&mut self, now: u64) -> Option<u32>;
}

struct InWheel {
    wheel: Wheel,
    keys: Vec<TimerKey>,
}

impl Timers for InWheel {
    const NAME: &'static str = "timing wheel";

    fn with_capacity(n: usize) -> InWheel {
        InWheel { wheel: Wheel::new(), keys: vec![TimerKey::NONE; n] }
    }

    fn insert(&mut self, id: u32, deadline: u64) {
        let action = TimerAction { task: ptr::null(), id: id.into(), scope: ptr::null() };
        self.keys[id as usize] = self.wheel.insert(deadline, action);
    }

    fn cancel(&mut self, id: u32) {
        self.wheel.remove(self.keys[id as usize]);
    }

    fn expire(&mut self, now: u64) -> Option<u32> {
        self.wheel.pop_due(now).map(|action| action.id as u32)
    }
}

struct InBinaryHeap {
    heap: BinaryHeap<Reverse<(u64, u32, u32)>>,
    /// The number of the timer's latest insertion; entries with another one are dead.
    latest: Vec<u32>,
    dead: usize,
}

impl Timers for InBinaryHeap {
    const NAME: &'static str = "std binary heap, lazy cancel";

    fn with_capacity(n: usize) -> InBinaryHeap {
        InBinaryHeap { heap: BinaryHeap::with_capacity(n), latest: vec![0; n], dead: 0 }
    }

    fn insert(&mut self, id: u32, deadline: u64) {
        self.heap.push(Reverse((deadline, id, self.latest[id as usize])));
    }

    fn cancel(&mut self, id: u32) {
        self.latest[id as usize] += 1;
        self.dead += 1;
        if self.dead > self.heap.len() / 2 {
            let latest = &self.latest;
            self.heap.retain(|Reverse((_, id, at))| latest[*id as usize] == *at);
            self.dead = 0;
        }
    }

    fn expire(&mut self, now: u64) -> Option<u32> {
        while let Some(Reverse((deadline, id, at))) = self.heap.peek().copied() {
            let alive = self.latest[id as usize] == at;
            if alive && deadline > now {
                return None;
            }
            self.heap.pop();
            if alive {
                return Some(id);
            }
            self.dead -= 1;
        }
        None
    }
}

struct InHeap {
    heap: heap::Timers,
    keys: Vec<heap::TimerKey>,
}

impl Timers for InHeap {
    const NAME: &'static str = "4-ary heap with positions (used)";

    fn with_capacity(n: usize) -> InHeap {
        InHeap { heap: heap::Timers::new(), keys: vec![heap::TimerKey::NONE; n] }
    }

    fn insert(&mut self, id: u32, deadline: u64) {
        let action = heap::TimerAction { task: ptr::null(), id: id.into(), scope: ptr::null() };
        self.keys[id as usize] = self.heap.insert(deadline, action);
    }

    fn cancel(&mut self, id: u32) {
        self.heap.remove(self.keys[id as usize]);
    }

    fn expire(&mut self, now: u64) -> Option<u32> {
        self.heap.pop_due(now).map(|action| action.id as u32)
    }
}

struct Random(u64);

impl Random {
    /// From `low` up to and without `high`, in milliseconds, as nanoseconds.
    fn ms(&mut self, low: u64, high: u64) -> u64 {
        self.below((high - low) * 1_000_000) + low * 1_000_000
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// At least so many timers are counted in one measurement.
const TIMERS: usize = 1_000_000;

/// Fills a structure with sleepers and lets them sleep again and again; nanoseconds each.
fn insert_expire<T: Timers>(pending: usize) -> f64 {
    let (mut timers, mut random) = (T::with_capacity(pending), Random(0x9e37_79b9_7f4a_7c15));
    let mut deadlines = vec![0; pending];
    for id in 0..pending as u32 {
        deadlines[id as usize] = random.ms(1, 1000);
        timers.insert(id, deadlines[id as usize]);
    }
    let (mut now, mut expired, mut start, mut counted) = (0, 0, Instant::now(), 0);
    while expired < pending + TIMERS {
        now += RESOLUTION_NS;
        while let Some(id) = timers.expire(now) {
            let deadline = &mut deadlines[id as usize];
            assert!(*deadline <= now, "{} fired {} ns early", T::NAME, *deadline - now);
            *deadline = now + random.ms(1, 1000);
            timers.insert(id, *deadline);
            expired += 1;
            if expired == pending {
                // Warm, and spread as sleepers are: from here on it counts.
                (start, counted) = (Instant::now(), expired);
            }
        }
    }
    start.elapsed().as_nanos() as f64 / (expired - counted) as f64
}

/// Fills a structure with time limits and takes random ones back; nanoseconds for each taken back and set anew.
fn insert_cancel<T: Timers>(pending: usize) -> f64 {
    let (mut timers, mut random) = (T::with_capacity(pending), Random(0x2545_f491_4f6c_dd1d));
    for id in 0..pending as u32 {
        timers.insert(id, random.ms(10_000, 30_000));
    }
    let (mut now, start) = (0, Instant::now());
    for _ in 0..TIMERS {
        now += 1000;
        assert!(timers.expire(now).is_none(), "{}: no time limit passes in so short a time", T::NAME);
        let id = random.below(pending as u64) as u32;
        timers.cancel(black_box(id));
        timers.insert(id, now + random.ms(10_000, 30_000));
    }
    start.elapsed().as_nanos() as f64 / TIMERS as f64
}

type Measurement = fn(usize) -> f64;

fn main() {
    const PENDING: [usize; 2] = [1_000, 100_000];
    const ROUNDS: usize = 5;
    let structures: [(&str, [Measurement; 2]); 3] = [
        (InWheel::NAME, [insert_expire::<InWheel>, insert_cancel::<InWheel>]),
        (InBinaryHeap::NAME, [insert_expire::<InBinaryHeap>, insert_cancel::<InBinaryHeap>]),
        (InHeap::NAME, [insert_expire::<InHeap>, insert_cancel::<InHeap>]),
    ];
    let mut results = vec![vec![Vec::new(); 4]; structures.len()];
    let begin = Instant::now();
    for round in 0..ROUNDS {
        for (row, (_, work)) in results.iter_mut().zip(&structures) {
            for (column, values) in row.iter_mut().enumerate() {
                values.push(work[column / 2](PENDING[column % 2]));
            }
        }
        if begin.elapsed() > Duration::from_secs(60) {
            println!("stopped after {} rounds of {ROUNDS}: this machine is slow or busy", round + 1);
            break;
        }
    }
    println!("{:30} {:^23} {:^23}", "ns per timer", "insert + expire", "insert + cancel");
    println!("{:30} {:>11} {:>11} {:>11} {:>11}", "pending", PENDING[0], PENDING[1], PENDING[0], PENDING[1]);
    for ((name, _), row) in structures.iter().zip(&mut results) {
        print!("{name:30}");
        for values in row {
            values.sort_by(f64::total_cmp);
            print!(" {:>11.1}", values[values.len() / 2]);
        }
        println!();
    }
}

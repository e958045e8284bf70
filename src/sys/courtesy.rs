//! How much a thread takes of a machine that has other work.
//!
//! Whoever looks inside must not slow down what he looks at, and must be answered at once where there is time to spare or
//! little to do. So work is free while CPUs are free, and while there is an allowance; only what goes on for long on a
//! machine without a free CPU is bounded, to [`SHARE`] of one, all threads together: each waits until what it has taken, and
//! what the others had taken before, is paid for. A lower priority would not do: without privileges there is no
//! way back from it, and threads that the program starts from here would inherit it.
//!
//! That no CPU is free is seen from what is idle beside this work, unless hardly anybody else does anything; where there is less
//! than the machine's (a container's bound), from the time that a thread itself has waited. That alone does not say enough: a
//! server that answers one request after the other sleeps between them, a thread that computes finds its CPU free then, and every
//! request waits for that thread. For the same reason it does not help to ask what others leave: they take less because of it. Where
//! the system does not tell, nothing is bounded.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::Read;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cpus::{self, CpuTimes};

/// Part of one CPU that is left to all work without an allowance: one in so many. An allowance grows as fast, but only while
/// nothing is owed by those that it is for.
const SHARE: u32 = 100;

/// CPU time between two judgements. Shorter ones would take a single late wake-up for a busy machine.
const WINDOW: Duration = Duration::from_millis(20);

/// How long a judgement holds.
const BUSY_FOR: Duration = Duration::from_millis(500);

/// Between two looks at what the machine's CPUs do.
const LOOK_AT_CPUS: Duration = Duration::from_millis(200);

/// The longest pause asked for at once: after it the machine may have time to spare.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// No piece of work adds more to what is owed, however long it was. Pieces are to be shorter than a hundredth of this.
const MOST_OWED: Duration = Duration::from_secs(5);

/// Until when what was taken of a busy machine without an allowance is paid for.
#[derive(Debug)]
struct Debt(Mutex<Option<Instant>>);

/// Of all threads of the process. One for each kind of them would be as many shares as there are kinds.
static DEBT: Debt = Debt(Mutex::new(None));

impl Debt {
    /// Adds so much behind what is owed already; gives when that is paid, too. By then it is that thread's turn again, so
    /// that threads which take the same time each come round as often.
    fn add(&self, time: Duration, now: Instant) -> Instant {
        let mut paid = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid.map_or(now, |paid| paid.max(now));
        *paid.insert(from + (time * (SHARE - 1)).min(MOST_OWED))
    }
}

/// CPU time that may be taken of a busy machine at once; shared by the threads of one kind.
#[derive(Debug)]
pub(crate) struct Allowance {
    most: Duration,
    inner: Mutex<Purse>,
    debt: &'static Debt,
}

#[derive(Debug)]
struct Purse {
    spent: Duration,
    /// It grows from then on; not before what is owed is paid.
    filled: Option<Instant>,
}

impl Allowance {
    pub(crate) const fn new(most: Duration) -> Allowance {
        Allowance::beside(most, &DEBT)
    }

    const fn beside(most: Duration, debt: &'static Debt) -> Allowance {
        Allowance { most, inner: Mutex::new(Purse { spent: Duration::ZERO, filled: None }), debt }
    }

    /// Takes so much. If that was not there: until when whoever took it has to leave the machine to others.
    fn take(&self, time: Duration, now: Instant) -> Option<Instant> {
        let mut purse = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let filled = purse.filled.unwrap_or(now);
        purse.spent = purse.spent.saturating_sub(now.saturating_duration_since(filled) / SHARE);
        purse.filled = Some(filled.max(now));
        // With room for all of it, or what had come back meanwhile would let every second piece pass.
        if purse.spent + time <= self.most {
            purse.spent += time;
            return None;
        }
        let paid = self.debt.add(time, now);
        purse.filled = Some(paid);
        Some(paid)
    }
}

/// Whether the machine's CPUs are busy, for all threads that keep an account.
static CPUS: Mutex<Cpus> = Mutex::new(Cpus::new());

#[derive(Debug)]
struct Cpus {
    /// When they were looked at, and what they had done by then.
    last: Option<(Instant, CpuTimes)>,
    /// CPU time that was taken from here since.
    taken: Duration,
    busy: bool,
}

impl Cpus {
    const fn new() -> Cpus {
        Cpus { last: None, taken: Duration::ZERO, busy: false }
    }

    /// Whether others want them, after so much more was taken. The last look may be long ago: then it is about all that time,
    /// until the next one.
    fn are_busy(&mut self, ran: Duration, now: Instant, times: impl FnOnce() -> Option<CpuTimes>) -> bool {
        let window = self.last.map(|(then, _)| now.saturating_duration_since(then));
        // Of what a thread took since it was asked last, some may lie before the last look.
        self.taken += window.map_or(ran, |window| ran.min(window));
        if window.is_some_and(|window| window < LOOK_AT_CPUS) {
            return self.busy;
        }
        let times = times();
        self.busy = match (window, self.last, times) {
            (Some(window), Some((_, before)), Some(times)) => {
                let idle = times.idle.saturating_sub(before.idle);
                let others = times.busy.saturating_sub(before.busy + self.taken);
                // Ticks are coarse.
                idle < window / 2 && others > window / 8
            }
            _ => false,
        };
        self.last = times.map(|times| (now, times));
        self.taken = Duration::ZERO;
        self.busy
    }
}

/// One thread's account.
#[derive(Debug)]
pub(crate) struct Courtesy {
    allowance: &'static Allowance,
    /// Work that was not looked at yet.
    since: Duration,
    /// What the system said last.
    last: Option<Times>,
    /// Running and waiting since the last judgement.
    window: (Duration, Duration),
    busy_until: Option<Instant>,
    /// When what it has taken is paid for.
    paid: Option<Instant>,
}

impl Courtesy {
    pub(crate) fn new(allowance: &'static Allowance) -> Courtesy {
        Courtesy {
            allowance,
            since: Duration::ZERO,
            last: None,
            window: (Duration::ZERO, Duration::ZERO),
            busy_until: None,
            paid: None,
        }
    }

    /// By the thread that worked for so long, without a pause; how long it is to pause now, if at all. What the thread took beside
    /// this, for those who are not to be held up, counts as well, but never more than as much again: else those who are would never
    /// go on.
    pub(crate) fn worked(&mut self, time: Duration, now: Instant) -> Option<Duration> {
        self.since += time;
        if self.since < WINDOW / 10 {
            return None;
        }
        let worked = std::mem::take(&mut self.since);
        let mut all = CPUS.lock().unwrap_or_else(PoisonError::into_inner);
        self.account(worked, times(), now, |ran| all.are_busy(ran, now, cpus::times))
    }

    /// After a pause: how much longer it has to be. There may be CPUs to spare by now.
    pub(crate) fn paused(&mut self, now: Instant) -> Option<Duration> {
        let mut all = CPUS.lock().unwrap_or_else(PoisonError::into_inner);
        self.rest(now, || all.are_busy(Duration::ZERO, now, cpus::times))
    }

    fn rest(&mut self, now: Instant, are_busy: impl FnOnce() -> bool) -> Option<Duration> {
        let left = self.paid?.checked_duration_since(now).filter(|left| !left.is_zero());
        let waits = self.busy_until.is_some_and(|until| now < until);
        match left {
            Some(left) if waits || are_busy() => Some(left.min(LONGEST_PAUSE)),
            _ => {
                self.paid = None;
                None
            }
        }
    }

    fn account(
        &mut self,
        worked: Duration,
        times: Option<Times>,
        now: Instant,
        are_busy: impl FnOnce(Duration) -> bool,
    ) -> Option<Duration> {
        let times = times?;
        let last = self.last.replace(times).unwrap_or(times);
        let ran = times.ran.saturating_sub(last.ran);
        let busy = are_busy(ran);
        self.window.0 += ran;
        self.window.1 += times.waited.saturating_sub(last.waited);
        if self.window.0 >= WINDOW {
            self.busy_until = (self.window.1 >= self.window.0 / 4).then(|| now + BUSY_FOR);
            self.window = (Duration::ZERO, Duration::ZERO);
        }
        let waits = self.busy_until.is_some_and(|until| now < until);
        if !(busy || waits) {
            return None;
        }
        let paid = self.allowance.take(ran.min(2 * worked), now)?;
        if waits {
            // A thread does not learn while it pauses: the next judgement is to be made of its share, too.
            self.busy_until = Some(paid + BUSY_FOR);
        }
        self.paid = Some(paid);
        Some(paid.saturating_duration_since(now).min(LONGEST_PAUSE))
    }
}

/// Of a thread since it began.
#[derive(Debug, Clone, Copy)]
struct Times {
    ran: Duration,
    /// It could have run, and there was no CPU for it.
    waited: Duration,
}

/// Those of this thread. Linux has them in `/proc/thread-self/schedstat`, in nanoseconds
/// (Documentation/scheduler/sched-stats.rst). Opened each time: the program can do without one more descriptor of ours.
fn times() -> Option<Times> {
    if !cfg!(all(target_os = "linux", not(miri))) {
        return None;
    }
    let mut text = [0; 80];
    let length = File::open("/proc/thread-self/schedstat").ok()?.read(&mut text).ok()?;
    parse(&text[..length])
}

fn parse(text: &[u8]) -> Option<Times> {
    let mut numbers = str::from_utf8(text).ok()?.split_ascii_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok().map(Duration::from_nanos);
    Some(Times { ran: next()?, waited: next()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The pauses asked for, one after the other, on a machine that stays as busy.
    fn pause(courtesy: &mut Courtesy, first: Option<Duration>, busy: bool, now: &mut Instant) {
        let mut pause = first;
        while let Some(time) = pause {
            assert!(time <= LONGEST_PAUSE);
            *now += time;
            pause = courtesy.rest(*now, || busy);
        }
    }

    /// Works for so much CPU time with so much waiting beside each millisecond, and obeys the pauses; how long that took.
    fn work(courtesy: &mut Courtesy, cpu: Duration, waits: Duration, now: &mut Instant) -> Duration {
        let begun = *now;
        let mut times = courtesy.last.unwrap_or(Times { ran: MS, waited: MS });
        courtesy.last = Some(times);
        let until = times.ran + cpu;
        while times.ran < until {
            times = Times { ran: times.ran + 2 * MS, waited: times.waited + 2 * waits };
            *now += 2 * (MS + waits);
            let first = courtesy.account(2 * (MS + waits), Some(times), *now, |_| false);
            pause(courtesy, first, false, now);
        }
        *now - begun
    }

    #[test]
    fn free_cpus_are_used_and_busy_ones_left_to_others_once_the_allowance_is_gone() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ALLOWANCE: Allowance = Allowance::beside(Duration::from_millis(300), &DEBT);
        let mut now = Instant::now();
        let mut courtesy = Courtesy::new(&ALLOWANCE);
        let free = work(&mut courtesy, 5000 * MS, Duration::ZERO, &mut now);
        assert_eq!(free, 5000 * MS);
        // A late wake-up now and then is no busy machine.
        let late = work(&mut courtesy, 1000 * MS, MS / 5, &mut now);
        assert_eq!(late, 1200 * MS);
        let first = work(&mut courtesy, 250 * MS, MS, &mut now);
        assert_eq!(first, 500 * MS);
        // Nothing of the allowance is left: a hundredth, the looks whether it is still so included.
        work(&mut courtesy, 200 * MS, MS, &mut now);
        let busy = work(&mut courtesy, 400 * MS, MS, &mut now);
        assert!(busy > 400 * MS * (SHARE - 1) && busy < 400 * MS * (SHARE + 2), "{busy:?}");
        // Another thread of the kind has no allowance of its own.
        let mut other = Courtesy::new(&ALLOWANCE);
        let busy = work(&mut other, 400 * MS, MS, &mut now);
        assert!(busy > 370 * MS * (SHARE - 1) && busy < 400 * MS * (SHARE + 2), "{busy:?}");
        // It comes back in time, and at once where others stop.
        now += 40_000 * MS;
        assert_eq!(work(&mut courtesy, 250 * MS, MS, &mut now), 500 * MS);
        now += 1000 * MS;
        assert_eq!(work(&mut courtesy, 1000 * MS, Duration::ZERO, &mut now), 1000 * MS);
    }

    /// Threads that work in pieces of such lengths, without end, on a busy machine for so long; what each takes.
    fn together(threads: &mut [(Courtesy, Duration)], time: Duration) -> Vec<Duration> {
        let begun = Instant::now();
        let mut turns: Vec<_> = threads.iter().map(|_| (begun, Duration::ZERO)).collect();
        loop {
            let next = (0..turns.len()).min_by_key(|&i| turns[i].0).expect("a thread");
            let (now, took) = &mut turns[next];
            if *now >= begun + time {
                return turns.into_iter().map(|(_, took)| took).collect();
            }
            let (courtesy, piece) = &mut threads[next];
            courtesy.last = Some(Times { ran: *took, waited: Duration::ZERO });
            *took += *piece;
            *now += *piece;
            let first = courtesy.account(*piece, Some(Times { ran: *took, waited: Duration::ZERO }), *now, |_| true);
            pause(courtesy, first, true, now);
        }
    }

    #[test]
    fn threads_of_all_kinds_have_one_share_and_each_its_part() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ANSWERS: Allowance = Allowance::beside(Duration::from_millis(300), &DEBT);
        static EXPRESSIONS: Allowance = Allowance::beside(Duration::from_millis(100), &DEBT);
        let kinds = [&ANSWERS, &EXPRESSIONS, &EXPRESSIONS];
        let mut threads = kinds.map(|kind| (Courtesy::new(kind), 2 * MS));
        let time = Duration::from_secs(1000);
        let took = together(&mut threads, time);
        let (all, allowed) = (took.iter().sum::<Duration>(), time / SHARE + ANSWERS.most + EXPRESSIONS.most);
        assert!(all > allowed * 95 / 100 && all < allowed * 102 / 100, "{took:?}");
        assert!(took.iter().all(|took| *took > time / SHARE / 4), "{took:?}");
    }

    #[test]
    fn long_pieces_are_paid_for_like_short_ones() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ALLOWANCE: Allowance = Allowance::beside(Duration::ZERO, &DEBT);
        let time = Duration::from_secs(1000);
        for piece in [2 * MS, 20 * MS, 50 * MS] {
            let took = together(&mut [(Courtesy::new(&ALLOWANCE), piece)], time)[0];
            *DEBT.0.lock().expect("nobody else has it") = None;
            assert!(took > time / SHARE * 98 / 100 && took < time / SHARE * 102 / 100, "{piece:?}: {took:?}");
        }
        // One that could not be made shorter ends the pauses of nobody, but it does not stop the session for good.
        let mut courtesy = Courtesy::new(&ALLOWANCE);
        let begun = Instant::now();
        let mut now = begun;
        courtesy.last = Some(Times { ran: MS, waited: MS });
        let first = courtesy.account(1000 * MS, Some(Times { ran: 1001 * MS, waited: MS }), now, |_| true);
        pause(&mut courtesy, first, true, &mut now);
        assert_eq!(now - begun, MOST_OWED);
    }

    #[test]
    fn one_kind_s_debt_leaves_the_other_its_allowance() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ANSWERS: Allowance = Allowance::beside(Duration::from_millis(300), &DEBT);
        static EXPRESSIONS: Allowance = Allowance::beside(Duration::from_millis(100), &DEBT);
        let now = Instant::now();
        assert_eq!(EXPRESSIONS.take(100 * MS, now), None);
        assert_eq!(EXPRESSIONS.take(20 * MS, now), Some(now + 20 * MS * (SHARE - 1)));
        assert_eq!(ANSWERS.take(200 * MS, now), None);
        // What is owed is paid before anything comes back; to the other kind it comes back meanwhile.
        let paid = now + 20 * MS * (SHARE - 1);
        assert_eq!(ANSWERS.take(100 * MS + (paid - now) / SHARE, paid), None);
        assert!(EXPRESSIONS.take(MS, paid).is_some());
    }

    #[test]
    fn a_pause_ends_when_there_is_time_to_spare() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ALLOWANCE: Allowance = Allowance::beside(Duration::ZERO, &DEBT);
        let mut courtesy = Courtesy::new(&ALLOWANCE);
        let (begun, times) = (Instant::now(), Times { ran: MS, waited: MS });
        courtesy.last = Some(times);
        let ran = |ran| Some(Times { ran, ..times });
        assert_eq!(courtesy.account(20 * MS, ran(21 * MS), begun, |_| true), Some(LONGEST_PAUSE));
        let now = begun + LONGEST_PAUSE;
        assert_eq!(courtesy.rest(now, || true), Some(LONGEST_PAUSE));
        assert_eq!(courtesy.rest(now + LONGEST_PAUSE, || false), None);
    }

    #[test]
    fn what_the_thread_does_beside_counts_as_much_again_at_most() {
        static DEBT: Debt = Debt(Mutex::new(None));
        static ALLOWANCE: Allowance = Allowance::beside(Duration::ZERO, &DEBT);
        let mut courtesy = Courtesy::new(&ALLOWANCE);
        let (now, times) = (Instant::now(), Times { ran: MS, waited: MS });
        courtesy.last = Some(times);
        // Two milliseconds for those who have to make way, and so many for others.
        let mut paid = now;
        for (all, counted) in [(2, 2), (3, 3), (300, 4)] {
            let times = Times { ran: courtesy.last.expect("set").ran + all * MS, ..times };
            paid += counted * MS * (SHARE - 1);
            assert!(courtesy.account(2 * MS, Some(times), now, |_| true).is_some());
            assert_eq!(courtesy.paid, Some(paid));
        }
    }

    #[test]
    fn cpus_are_busy_if_none_is_idle_beside_this_work_and_others_work() {
        let mut cpus = Cpus::new();
        let (mut now, mut times) = (Instant::now(), CpuTimes::default());
        // In a second so much is idle, others take so much, and this work; what is said at its end.
        let mut second = |idle: u32, others: u32, taken: u32| {
            let mut said = Vec::new();
            for _ in 0..100 {
                now += 10 * MS;
                times.idle += idle * MS / 100;
                times.busy += (others + taken) * MS / 100;
                said.push(cpus.are_busy(taken * MS / 100, now, || Some(times)));
            }
            said[99]
        };
        // One CPU and nobody else; two, one of them idle; two and many requests to answer.
        assert!(!second(0, 50, 950));
        assert!(!second(950, 50, 1000));
        assert!(second(150, 1810, 40));
        assert!(second(0, 1100, 900));
        // They stop.
        assert!(!second(1900, 60, 40));
        // Nothing is known: nothing is bounded.
        assert!(second(0, 500, 500));
        now += 1000 * MS;
        assert!(!cpus.are_busy(MS, now, || None));
    }

    #[test]
    fn work_from_before_the_last_look_hides_nobody() {
        let mut cpus = Cpus::new();
        let (mut now, mut times) = (Instant::now(), CpuTimes::default());
        assert!(!cpus.are_busy(Duration::ZERO, now, || Some(times)));
        now += 300 * MS;
        // Two CPUs: the thread had one of them, for a second and a half, most of it before the look.
        times.busy += 600 * MS;
        assert!(cpus.are_busy(1500 * MS, now, || Some(times)));
    }

    #[test]
    fn without_the_system_s_figures_nothing_is_bounded() {
        static ALLOWANCE: Allowance = Allowance::new(Duration::ZERO);
        let mut courtesy = Courtesy::new(&ALLOWANCE);
        assert_eq!((0..1000).find_map(|_| courtesy.account(MS, None, Instant::now(), |_| true)), None);
        assert_eq!(courtesy.rest(Instant::now(), || true), None);
        assert!(parse(b"").is_none() && parse(b"12").is_none() && parse(b"x 1").is_none());
        let times = parse(b"1500 2500 3\n").expect("figures");
        assert_eq!((times.ran, times.waited), (Duration::from_nanos(1500), Duration::from_nanos(2500)));
    }

    #[cfg(all(target_os = "linux", not(miri)))]
    #[test]
    fn the_system_tells_how_long_this_thread_ran() {
        let Some(before) = times() else {
            println!("skipped: this kernel has no schedstat");
            return;
        };
        let mut n = 0u64;
        let begun = Instant::now();
        while times().expect("figures").ran < before.ran + 5 * MS {
            n += 1;
            assert!(begun.elapsed() < Duration::from_secs(30), "after {n} looks");
        }
    }
}

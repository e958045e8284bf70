//! All points, all probes, and which probe is at which point.
//!
//! Invariants: what a point's list holds follows from the probes that there are, so that they can go in any order and nothing is
//! left. Nobody who passes a point takes the lock; who notices an end nudges the thread that sweeps. That thread is there while
//! there are probes, and ends those whose time is over. No code of the program's runs under the lock, or on that thread.
//!
//! Must not know: what instruments do, who asks.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::process;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use super::event::Events;
use super::running::{Made, Probe};
use super::text::plain;
use super::watchers::{self, Watcher};
use super::wrapping::Wrapping;
use super::{parting, pattern, stop};
use crate::observe::{Point, PointKind};
use crate::sys::clock;
use crate::sys::threads::Own;

/// Of those that are over, so many are remembered.
const REMEMBERED: usize = 64;

/// So many probes a console session has at a time. Each costs whoever passes its points, and each change of a point's list looks at
/// all.
const MOST_OF_SESSION: usize = 100;

/// Where lists that nobody reads any more may still wait to be freed, it is tried again after so long.
const AGAIN: Duration = Duration::from_millis(20);

/// And after so long where the system had no thread for what is left of probes.
const LATER: Duration = Duration::from_secs(1);

/// For so long is waited for what is left of one that is over.
const LONGEST_REPORT: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// By id.
    probes: Vec<Arc<Probe>>,
    /// How many were ever put into lists.
    turns: u64,
    /// The oldest first.
    wrappings: Vec<Arc<Wrapping>>,
    /// Points that were registered while the program ran.
    registered: Vec<&'static Point>,
    ended: VecDeque<Ended>,
    /// The process whose thread sweeps; a forked child has none of its parent's.
    sweeping: Option<u32>,
}

/// A probe that is over.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) why: String,
    pub(super) hits: u64,
    pub(super) at: SystemTime,
    /// While somebody keeps it.
    probe: Weak<Probe>,
    /// What its instruments had found; `None` until somebody has asked them, which is done without the lock.
    text: Option<String>,
    keeps_stops: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
/// What one that is over had found is known now.
static TOLD: Condvar = Condvar::new();
static LAST: AtomicU64 = AtomicU64::new(0);
static SWEEPER: OnceLock<Mutex<Option<Thread>>> = OnceLock::new();
static NUDGED: AtomicBool = AtomicBool::new(false);

struct Locked(MutexGuard<'static, Option<State>>);

impl std::ops::Deref for Locked {
    type Target = State;

    fn deref(&self) -> &State {
        self.0.as_ref().expect("it was made when it was locked")
    }
}

impl std::ops::DerefMut for Locked {
    fn deref_mut(&mut self) -> &mut State {
        self.0.as_mut().expect("it was made when it was locked")
    }
}

fn lock() -> Locked {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    state.get_or_insert_with(State::default);
    Locked(state)
}

/// Somebody noticed that a probe is over. Takes no lock that others hold for long.
pub(super) fn nudge() {
    NUDGED.store(true, Ordering::Release);
    let sweeper = SWEEPER.get().map(|thread| thread.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(thread) = sweeper.as_deref().and_then(Option::as_ref) {
        thread.unpark();
    }
}

/// Those of the link-time table and those registered since, by name.
pub(super) fn points() -> Vec<&'static Point> {
    all_points(&lock())
}

fn all_points(state: &State) -> Vec<&'static Point> {
    let mut all: Vec<&'static Point> = super::table::linked().chain(state.registered.iter().copied()).collect();
    all.sort_by_key(|point| (point.name(), point.file(), point.line()));
    all
}

/// Makes a point known; probes that wait for one of that name are attached before anybody passes it.
pub(super) fn register(point: &'static Point) {
    let mut state = lock();
    state.registered.push(point);
    for probe in &state.probes {
        settle_points(&state, probe);
    }
    for wrapping in &state.wrappings {
        settle_wrapping(&state, wrapping);
    }
    relist(&state, point);
}

/// Notes which points a probe is attached to.
fn settle_points(state: &State, probe: &Probe) {
    let named = all_points(state).into_iter().filter(|point| pattern::names(&probe.pattern, point)).collect();
    *probe.points.lock().unwrap_or_else(PoisonError::into_inner) = named;
}

/// Makes the list of a point anew.
fn relist(state: &State, point: &'static Point) {
    let here = |probe: &&Arc<Probe>| probe.ended().is_none();
    let named = state.probes.iter().filter(here).filter_map(|probe| {
        let points = probe.points();
        let is_named = points.iter().any(|p| std::ptr::eq(*p, point));
        // A mark within a function that is watched.
        let within = |p: &&&'static Point| p.kind() == PointKind::Function && p.contains(point);
        let marks = point.kind() == PointKind::Mark && probe.events().meet(Events::MARK);
        let inner = points.iter().filter(within).min_by_key(|p| p.height()).copied().filter(|_| marks);
        // Of a mark that the pattern names besides its function, who wants marks only has nothing by itself: it is told as a part of the call.
        let wants_itself = probe.events().meet(Events::CALL | Events::PASSED);
        match inner {
            Some(_) if !is_named || !wants_itself => Some(Watcher { probe: probe.clone(), function: inner }),
            _ => is_named.then(|| Watcher { probe: probe.clone(), function: None }),
        }
    });
    let wrappings = state.wrappings.iter().filter(|wrapping| wrapping.is_at(point)).cloned().collect();
    watchers::replace(point, named.collect(), wrappings);
}

/// The points whose lists a probe may be in.
fn affected(state: &State, probe: &Probe) -> Vec<&'static Point> {
    let points = probe.points();
    let marks = probe.events().meet(Events::MARK);
    let within = |point: &&'static Point| {
        points.iter().any(|p| std::ptr::eq(*p, *point))
            || marks && point.kind() == PointKind::Mark && points.iter().any(|p| p.contains(point))
    };
    all_points(state).into_iter().filter(within).collect()
}

/// Attaches a probe to every point that its pattern names.
///
/// # Errors
/// If there is none and `later` is not said; if there is no thread that could end it; if its session has ended, or has as many as
/// one may have.
pub(super) fn attach(made: Made, later: bool) -> Result<Arc<Probe>, String> {
    super::trace::weave();
    let all = points();
    if !later && !all.iter().any(|point| pattern::names(&made.pattern, point)) {
        return Err(unknown(&made.pattern, all));
    }
    let probe = Arc::new(Probe::new(LAST.fetch_add(1, Ordering::Relaxed) + 1, made));
    let mut state = lock();
    // First, because it sees to what is left of a probe also.
    sweep_from_now_on(&mut state)?;
    if probe.session.is_some() && probe.sink.is_closed() {
        return Err("its session has ended".to_owned());
    }
    let of_session = || state.probes.iter().filter(|other| other.session == probe.session && other.ended().is_none());
    if probe.session.is_some() && of_session().count() >= MOST_OF_SESSION {
        return Err(format!(
            "not attached: this session has {MOST_OF_SESSION} probes, and no session has more; probe detach ends one"
        ));
    }
    settle_points(&state, &probe);
    state.turns += 1;
    probe.take_turn(state.turns);
    // Others may have come meanwhile: instruments were asked in between, which takes as long as they like.
    let place = state.probes.partition_point(|other| other.id() < probe.id());
    state.probes.insert(place, probe.clone());
    affected(&state, &probe).into_iter().for_each(|point| relist(&state, point));
    // The thread that sweeps has to know its time.
    nudge();
    Ok(probe)
}

fn unknown(pattern: &str, all: Vec<&'static Point>) -> String {
    let near = pattern::nearest(pattern, all.into_iter());
    match &*near {
        [] => format!("no probe point is called {pattern}; probe list shows them"),
        near => plain(&format!("no probe point is called {pattern}; there is {}", near.join(", "))),
    }
}

/// Notes which points calls are wrapped at.
fn settle_wrapping(state: &State, wrapping: &Wrapping) {
    let here = |point: &&'static Point| point.can_be_wrapped() && pattern::names(&wrapping.pattern, point);
    wrapping.set_points(all_points(state).into_iter().filter(here).collect());
}

/// Has the calls of every point that its pattern names go through it.
///
/// # Errors
/// If there is none and `later` is not said; if those that there are cannot be wrapped.
pub(super) fn wrap(wrapping: &Arc<Wrapping>, later: bool) -> Result<(), String> {
    let mut state = lock();
    let all = all_points(&state);
    let named: Vec<_> = all.iter().filter(|point| pattern::names(&wrapping.pattern, point)).collect();
    match named.first() {
        None if !later => {
            let others = all.into_iter().filter(|point| point.can_be_wrapped()).collect();
            return Err(unknown(&wrapping.pattern, others));
        }
        Some(first) if !named.iter().any(|point| point.can_be_wrapped()) => {
            return Err(format!(
                "{} can be watched, but not wrapped: write #[coro::probe(wrap)] on it ({}:{})",
                first.name(),
                first.file(),
                first.line()
            ));
        }
        _ => {}
    }
    settle_wrapping(&state, wrapping);
    state.wrappings.push(wrapping.clone());
    wrapping.points().into_iter().for_each(|point| relist(&state, point));
    Ok(())
}

/// Takes it away: when this returns, no call begins to go through it any more.
pub(super) fn unwrap(wrapping: &Arc<Wrapping>) {
    let mut state = lock();
    state.wrappings.retain(|other| !Arc::ptr_eq(other, wrapping));
    wrapping.points().into_iter().for_each(|point| relist(&state, point));
}

/// How many wrappers the calls of a point go through, or some of its calls.
pub(super) fn wrappers_at(point: &Point) -> usize {
    lock().wrappings.iter().filter(|wrapping| wrapping.is_at(point)).count()
}

/// Takes a probe away: what happens when this has returned is told to nobody of it. Who stands at a breakpoint of it goes on, also of one
/// that is over because its hits are. Whether it was there.
pub(super) fn detach(id: u64, why: &str) -> bool {
    let mut state = lock();
    state.ended.iter_mut().filter(|ended| ended.id == id).for_each(|ended| ended.keeps_stops = false);
    let Some(probe) = state.probes.iter().find(|probe| probe.id() == id).cloned() else {
        stop::release_all(id);
        return false;
    };
    probe.lets_go();
    probe.end(why);
    remove_ended(&mut state);
    true
}

/// Has everybody go on who stands at a breakpoint.
pub(super) fn let_everybody_go() {
    let mut state = lock();
    state.probes.iter().filter(|probe| probe.ended().is_some()).for_each(|probe| probe.lets_go());
    state.ended.iter_mut().for_each(|ended| ended.keeps_stops = false);
    stop::release_everybody();
}

/// Takes away all that belong to a session.
pub(super) fn end_session(session: u64) {
    let of = |probe: &&Arc<Probe>| probe.session == Some(session);
    let all: Vec<u64> = lock().probes.iter().filter(of).map(|probe| probe.id()).collect();
    for id in all {
        detach(id, "its session has ended");
    }
}

/// Takes those that are over out of all lists.
fn remove_ended(state: &mut State) {
    let over: Vec<Arc<Probe>> = state.probes.iter().filter(|probe| probe.ended().is_some()).cloned().collect();
    for probe in over {
        let points = affected(state, &probe);
        state.probes.retain(|other| other.id() != probe.id());
        points.into_iter().for_each(|point| relist(state, point));
        if !probe.keeps_stops() {
            stop::release_all(probe.id());
        }
        if probe.session.is_some() {
            let why = probe.ended().unwrap_or_default();
            probe.sink.line(|| format!("probe {} is over: {why}; {} hits", probe.id(), probe.hits().0));
        }
        let ended = Ended {
            id: probe.id(),
            name: probe.name.clone(),
            why: probe.ended().unwrap_or_default().to_owned(),
            hits: probe.hits().0,
            at: SystemTime::now(),
            probe: Arc::downgrade(&probe),
            text: None,
            keeps_stops: probe.keeps_stops(),
        };
        if state.ended.len() == REMEMBERED {
            state.ended.pop_front();
        }
        state.ended.push_back(ended);
    }
}

/// What the instruments of a probe have found, in lines; they may be anybody's code.
pub(super) fn found(probe: &Probe) -> String {
    parting::found(probe.instruments.iter().map(|told| &*told.instrument))
}

/// Whether nobody is to stop for that probe any more.
pub(super) fn is_over(id: u64) -> bool {
    let state = lock();
    match state.probes.iter().find(|probe| probe.id() == id) {
        Some(probe) => probe.ended().is_some() && !probe.keeps_stops(),
        None => !state.ended.iter().any(|ended| ended.id == id && ended.keeps_stops),
    }
}

/// Whether a probe of that session is in the list: attached, or over and not told of yet.
pub(super) fn lists_any_of(session: u64) -> bool {
    lock().probes.iter().any(|probe| probe.session == Some(session))
}

/// Every probe that is attached, by id.
pub(super) fn probes() -> Vec<Arc<Probe>> {
    lock().probes.iter().filter(|probe| probe.ended().is_none()).cloned().collect()
}

/// Those that are over, the last ones.
pub(super) fn ended() -> Vec<Ended> {
    lock().ended.iter().cloned().collect()
}

/// Whether nobody has asked yet what that one had found, and somebody may still want to know.
pub(super) fn wants_text(id: u64) -> bool {
    lock().ended.iter().any(|ended| ended.id == id && ended.text.is_none())
}

/// What the instruments of one that is over had found.
pub(super) fn note_text(id: u64, text: String) {
    if let Some(ended) = lock().ended.iter_mut().find(|ended| ended.id == id) {
        ended.text = Some(text);
    }
    TOLD.notify_all();
}

/// What the instruments of one that is over had found. May run code of the program's, and waits for that which runs elsewhere.
pub(super) fn found_by_ended(id: u64) -> String {
    let until = Instant::now() + LONGEST_REPORT;
    let mut state = lock();
    loop {
        let Some(ended) = state.ended.iter().find(|ended| ended.id == id) else { return String::new() };
        if let Some(text) = &ended.text {
            return text.clone();
        }
        if let Some(probe) = ended.probe.upgrade() {
            drop(state);
            let text = found(&probe);
            note_text(id, text.clone());
            return text;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return format!(
                "what it has found is not known after {} s: its report, or one before it, takes longer",
                LONGEST_REPORT.as_secs()
            );
        }
        state = Locked(TOLD.wait_timeout(state.0, left).unwrap_or_else(PoisonError::into_inner).0);
    }
}

/// Starts the thread that sweeps, if there is none.
fn sweep_from_now_on(state: &mut State) -> Result<(), String> {
    if state.sweeping == Some(process::id()) {
        return Ok(());
    }
    let sweeper = thread::Builder::new().name("coro-probe".into()).spawn(sweep);
    let sweeper = sweeper.map_err(|e| format!("no thread to end probes: {e}"))?;
    *SWEEPER.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner) =
        Some(sweeper.thread().clone());
    state.sweeping = Some(process::id());
    Ok(())
}

/// What that thread does until there is nothing left.
fn sweep() {
    let _own = Own::new();
    loop {
        let pause = {
            let mut state = lock();
            NUDGED.store(false, Ordering::Relaxed);
            let now = clock::ticks();
            state.probes.iter().for_each(|probe| probe.expire(now));
            remove_ended(&mut state);
            watchers::collect();
            let again = match (parting::see_to_it(), watchers::are_any_unread()) {
                (_, true) => Some(AGAIN),
                (false, false) => Some(LATER),
                (true, false) => None,
            };
            if state.probes.is_empty() && again.is_none() && !parting::is_any_alive() {
                state.sweeping = None;
                return;
            }
            // The end of what is left of probes nudges.
            let next = state.probes.iter().filter_map(|probe| probe.left()).min();
            [next.map(|next| next + Duration::from_millis(1)), again].into_iter().flatten().min()
        };
        if !NUDGED.load(Ordering::Acquire) {
            match pause {
                Some(pause) => thread::park_timeout(pause),
                None => thread::park(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::super::attach::{Attach, attach_to};
    use super::super::call::Call;
    use super::super::event::Event;
    use super::super::instrument::Instrument;
    use super::*;
    use crate::observe::Shown;

    /// Is asked what it wants while another probe is attached.
    struct Slow {
        asked: Sender<()>,
        go_on: Mutex<Receiver<()>>,
        once: AtomicBool,
    }

    impl Instrument for Slow {
        fn events(&self) -> Events {
            if !self.once.swap(true, Ordering::Relaxed) {
                self.asked.send(()).expect("somebody waits");
                self.go_on.lock().expect("no poison").recv().expect("somebody says so");
            }
            Events::CALL | Events::END
        }

        fn observe(&self, _: &Event<'_>) {}
    }

    impl Slow {
        /// With who is told that it was asked, and who has it go on.
        fn new() -> (Slow, Receiver<()>, Sender<()>) {
            let ((asked, is_asked), (go, go_on)) = (channel(), channel());
            (Slow { asked, go_on: Mutex::new(go_on), once: AtomicBool::new(false) }, is_asked, go)
        }
    }

    #[test]
    fn probes_stand_by_their_numbers_however_long_their_instruments_take() {
        Point::register("registry_tests::order", &[]);
        let (slow, is_asked, go) = Slow::new();
        let attach = || attach_to("registry_tests::order").named("of the test about order");
        let (first, second) = thread::scope(|s| {
            let first = s.spawn(|| attach().instrument(slow).start().expect("it can be"));
            is_asked.recv().expect("it is asked");
            let second = attach().count().start().expect("it can be");
            go.send(()).expect("it waits");
            (first.join().expect("no panic"), second)
        });
        assert!(first.id() < second.id());
        let of = |probe: &Arc<Probe>| (probe.name == "of the test about order").then(|| probe.id());
        assert_eq!(probes().iter().filter_map(of).collect::<Vec<_>>(), [first.id(), second.id()]);
    }

    #[test]
    fn a_probe_that_was_overtaken_is_not_told_the_end_of_a_call_whose_beginning_it_missed() {
        let point = Point::register("registry_tests::overtaken", &[]);
        let attach = || attach_to("registry_tests::overtaken");
        // Calls of what only counts go another way.
        let count: fn(Attach) -> Attach = |attach| attach.count_of(Events::CALL | Events::END);
        let log: fn(Attach) -> Attach = |attach| attach.keep_lines().log_of(Events::CALL | Events::END);
        for overtakes in [count, log] {
            let (slow, is_asked, go) = Slow::new();
            let (call, first, second) = thread::scope(|s| {
                let first = s.spawn(|| attach().instrument(slow).start().expect("it can be"));
                is_asked.recv().expect("it is asked");
                let second = overtakes(attach()).start().expect("it can be");
                let call = Call::begin(point, &[]);
                go.send(()).expect("it waits");
                (call, first.join().expect("no panic"), second)
            });
            assert!(first.id() < second.id());
            call.returned(Shown::Unit, false);
            assert_eq!((first.hits().0, second.hits().0), (0, 2));
            Call::begin(point, &[]).returned(Shown::Unit, false);
            assert_eq!((first.hits().0, second.hits().0), (2, 4));
        }
    }
}

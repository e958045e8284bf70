//! All points, all probes, and which probe is at which point.
//!
//! Invariants: what a point's list holds follows from the probes that there are, so that they can go in any order and nothing is
//! left. Nobody who passes a point takes the lock; who notices an end nudges the thread that sweeps. That thread is there while
//! there are probes, ends those whose time is over, and drops what instruments hold: their code runs on no worker then.
//!
//! Must not know: what instruments do, who asks.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime};

use super::event::Events;
use super::running::{Made, Probe};
use super::watchers::{self, Watcher};
use super::{pattern, stop};
use crate::observe::{Point, PointKind};
use crate::sys::clock;
use crate::sys::threads::Own;

/// Of those that are over, so many are remembered.
const REMEMBERED: usize = 64;

/// Where lists that nobody reads any more may still wait to be freed, it is tried again after so long.
const AGAIN: Duration = Duration::from_millis(20);

/// So often. Whoever keeps a handle of it longer drops it himself.
const PATIENCE: u32 = 10;

#[derive(Default)]
struct State {
    last: u64,
    probes: Vec<Arc<Probe>>,
    /// Points that were registered while the program ran.
    registered: Vec<&'static Point>,
    ended: VecDeque<Ended>,
    /// Taken out of all lists, which may be read still; and how often that was looked at.
    retired: Vec<(Arc<Probe>, u32)>,
    sweeping: bool,
}

/// A probe that is over.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) why: String,
    pub(super) hits: u64,
    pub(super) at: SystemTime,
    /// What its instruments had found; `None` until somebody has asked them, which is done without the lock.
    text: Option<String>,
    keeps_stops: bool,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);
static CHANGED: Condvar = Condvar::new();
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
        if points.iter().any(|p| std::ptr::eq(*p, point)) {
            return Some(Watcher { probe: probe.clone(), function: None });
        }
        // A mark within a function that is watched.
        let within = |p: &&&'static Point| p.kind() == PointKind::Function && p.contains(point);
        let inner = points.iter().filter(within).min_by_key(|p| p.height()).copied();
        let marks = point.kind() == PointKind::Mark && probe.events().meet(Events::MARK);
        inner.filter(|_| marks).map(|function| Watcher { probe: probe.clone(), function: Some(function) })
    });
    watchers::replace(point, named.collect());
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
/// If there is none and `later` is not said; if there is no thread that could end it.
pub(super) fn attach(made: Made, later: bool) -> Result<Arc<Probe>, String> {
    super::trace::weave();
    let mut state = lock();
    let all = all_points(&state);
    if !later && !all.iter().any(|point| pattern::names(&made.pattern, point)) {
        let near = pattern::nearest(&made.pattern, all.into_iter());
        return Err(match &*near {
            [] => format!("no probe point is called {}; probe list shows them", made.pattern),
            near => format!("no probe point is called {}; there is {}", made.pattern, near.join(", ")),
        });
    }
    sweep_from_now_on(&mut state)?;
    state.last += 1;
    let probe = Arc::new(Probe::new(state.last, made));
    settle_points(&state, &probe);
    state.probes.push(probe.clone());
    affected(&state, &probe).into_iter().for_each(|point| relist(&state, point));
    // The sweeper has to know its time.
    CHANGED.notify_all();
    Ok(probe)
}

/// Takes a probe away: when this returns, nothing of it begins any more. Whether it was there.
pub(super) fn detach(id: u64, why: &str) -> bool {
    let mut state = lock();
    let Some(probe) = state.probes.iter().find(|probe| probe.id() == id).cloned() else { return false };
    probe.end(why);
    remove_ended(&mut state);
    CHANGED.notify_all();
    true
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
            text: None,
            keeps_stops: probe.keeps_stops(),
        };
        if state.ended.len() == REMEMBERED {
            state.ended.pop_front();
        }
        state.ended.push_back(ended);
        state.retired.push((probe, 0));
    }
}

/// What the instruments of a probe have found, in lines; they may be anybody's code.
pub(super) fn found(probe: &Probe) -> String {
    let of = |instrument: &dyn super::Instrument| {
        let text = || instrument.text().unwrap_or_else(|| super::text::value(&instrument.report()));
        catch_unwind(AssertUnwindSafe(text)).unwrap_or_else(|payload| {
            std::mem::forget(payload);
            "its report panicked".to_owned()
        })
    };
    probe
        .instruments
        .iter()
        .map(|instrument| of(&**instrument))
        .filter(|text| !text.is_empty() && text != "()")
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether nobody is to stop for that probe any more.
pub(super) fn is_over(id: u64) -> bool {
    let state = lock();
    match state.probes.iter().find(|probe| probe.id() == id) {
        Some(probe) => probe.ended().is_some() && !probe.keeps_stops(),
        None => !state.ended.iter().any(|ended| ended.id == id && ended.keeps_stops),
    }
}

/// Every probe that is attached, by id.
pub(super) fn probes() -> Vec<Arc<Probe>> {
    lock().probes.iter().filter(|probe| probe.ended().is_none()).cloned().collect()
}

/// Those that are over, the last ones.
pub(super) fn ended() -> Vec<Ended> {
    lock().ended.iter().cloned().collect()
}

/// Asks the instruments of those that are over what they have found, before they are dropped.
fn ask_ended() {
    let unasked: Vec<Arc<Probe>> = {
        let state = lock();
        let asked = |id| state.ended.iter().any(|ended| ended.id == id && ended.text.is_some());
        state.retired.iter().map(|(probe, _)| probe).filter(|probe| !asked(probe.id())).cloned().collect()
    };
    for probe in unasked {
        let text = found(&probe);
        let mut state = lock();
        if let Some(ended) = state.ended.iter_mut().find(|ended| ended.id == probe.id()) {
            ended.text = Some(text);
        }
    }
}

/// What the instruments of one that is over had found.
pub(super) fn found_by_ended(id: u64) -> String {
    ask_ended();
    let state = lock();
    state.ended.iter().find(|ended| ended.id == id).and_then(|ended| ended.text.clone()).unwrap_or_default()
}

/// Starts the thread that sweeps, if there is none.
fn sweep_from_now_on(state: &mut State) -> Result<(), String> {
    if state.sweeping {
        return Ok(());
    }
    let sweeper = thread::Builder::new().name("coro-probe".into()).spawn(sweep);
    let sweeper = sweeper.map_err(|e| format!("no thread to end probes: {e}"))?;
    *SWEEPER.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner) =
        Some(sweeper.thread().clone());
    state.sweeping = true;
    Ok(())
}

/// What that thread does until there is nothing left.
fn sweep() {
    let _own = Own::new();
    loop {
        ask_ended();
        let mut dropped = Vec::new();
        let pause = {
            let mut state = lock();
            NUDGED.store(false, Ordering::Relaxed);
            let now = clock::ticks();
            state.probes.iter().for_each(|probe| probe.expire(now));
            remove_ended(&mut state);
            watchers::collect();
            // Whose lists are gone; others may show it still.
            for (probe, looks) in std::mem::take(&mut state.retired) {
                let unasked = state.ended.iter().any(|ended| ended.id == probe.id() && ended.text.is_none());
                if unasked || Arc::strong_count(&probe) > 1 && looks < PATIENCE {
                    state.retired.push((probe, looks + 1));
                } else {
                    dropped.push(probe);
                }
            }
            if state.probes.is_empty() && state.retired.is_empty() && dropped.is_empty() {
                state.sweeping = false;
                return;
            }
            let next = state.probes.iter().filter_map(|probe| probe.left()).min();
            match (next, state.retired.is_empty() && dropped.is_empty()) {
                (Some(next), true) => Some(next + Duration::from_millis(1)),
                (Some(next), false) => Some(next.min(AGAIN)),
                (None, true) => None,
                (None, false) => Some(AGAIN),
            }
        };
        for probe in dropped {
            if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(probe))) {
                std::mem::forget(payload);
            }
        }
        if !NUDGED.load(Ordering::Acquire) {
            match pause {
                Some(pause) => thread::park_timeout(pause),
                None => thread::park(),
            }
        }
    }
}

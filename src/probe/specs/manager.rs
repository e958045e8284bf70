//! Makes what is there what should be there: [`Manager`].
//!
//! Invariants: one turn at a time, and nobody who only looks waits for one; a probe is attached once for each edit of its spec;
//! code of the program's that runs in a turn (instruments as they are made, stores) ends nothing by a panic.
//!
//! Must not know: where specs come from, who asks.

#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use super::super::attach::Attached;
use super::super::text::plain;
use super::spec::{Refused, Spec};
use super::store::{Entry, Listed, Store};
use crate::scheduler::runtime::payload_text;
use crate::sys::stderr;
use crate::sys::threads::Own;

/// What has become of one spec in this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Applied {
    /// The spec's id.
    pub id: String,
    /// What it is now.
    pub state: State,
    /// Since when it is so, or when that was noticed.
    pub at: SystemTime,
    /// Whether the last turn has changed it.
    pub changed: bool,
}

/// What became of a spec.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// It is attached.
    Attached {
        /// As this probe.
        probe: u64,
    },
    /// It was attached, is over, and stays so until its spec is edited.
    Over {
        /// As this probe.
        probe: u64,
        /// Its time, its hits, its price, a failure.
        why: String,
    },
    /// It is not enabled.
    Disabled,
    /// It is not attached.
    Wrong {
        /// Because of this.
        why: String,
    },
    /// Nobody wants it any more. Only the turn that took it away says so.
    Dropped,
}

impl fmt::Display for Applied {
    /// In one line, without what could steer a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match &self.state {
            State::Attached { probe } if self.changed => format!("attached as probe {probe}"),
            State::Attached { probe } => format!("goes on as probe {probe}"),
            State::Over { probe, why } => format!("probe {probe} is over: {why}; it stays off until it is edited"),
            State::Disabled => "not enabled".to_owned(),
            State::Wrong { why } => why.clone(),
            State::Dropped => "taken away".to_owned(),
        };
        f.write_str(&plain(&format!("{}: {what}", self.id)))
    }
}

/// One that is kept.
struct Kept {
    said: Result<Spec, String>,
    attached: Option<Attached>,
    /// It is not tried again as it is.
    settled: bool,
    /// `None`: nothing was made of it yet.
    state: Option<State>,
    at: SystemTime,
    changed: bool,
}

impl Kept {
    fn new(said: Result<Spec, String>) -> Kept {
        Kept { said, attached: None, settled: false, state: None, at: SystemTime::now(), changed: false }
    }

    fn turn_into(&mut self, state: State) {
        if self.state.as_ref() != Some(&state) {
            self.state = Some(state);
            self.at = SystemTime::now();
            self.changed = true;
        }
    }

    /// Another thing is said of it now.
    fn edit(&mut self, said: Result<Spec, String>) {
        if self.said != said {
            // Before there is another one: what instruments do is not done twice.
            self.release();
            (self.said, self.settled) = (said, false);
        }
    }

    /// Notices that it is over.
    fn look(&mut self) {
        let Some(attached) = &self.attached else { return };
        if let Some(why) = attached.ended().map(str::to_owned) {
            let probe = attached.id();
            self.turn_into(State::Over { probe, why });
            // It is left, not taken away: tasks may stand at the breakpoint that it was.
            self.attached.take().map(Attached::leave);
        }
    }

    /// What it holds may be the program's, and panic when it is dropped.
    fn release(&mut self) {
        if let Some(attached) = self.attached.take()
            && let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(attached)))
        {
            std::mem::forget(payload);
        }
    }

    /// What is to be attached, if that is what is left to do.
    fn wanted(&mut self) -> Option<Spec> {
        let state = match &self.said {
            _ if self.settled => return None,
            Err(why) => State::Wrong { why: why.clone() },
            Ok(spec) if !spec.enabled => State::Disabled,
            Ok(spec) => return Some(spec.clone()),
        };
        self.turn_into(state);
        None
    }

    /// That was tried.
    fn tried(&mut self, outcome: Result<Attached, Refused>) {
        let state = match outcome {
            Ok(attached) => {
                let probe = attached.id();
                (self.attached, self.settled) = (Some(attached), true);
                State::Attached { probe }
            }
            Err(Refused::Wrong(why)) => State::Wrong { why },
            Err(Refused::Failed(why)) => {
                self.settled = true;
                State::Wrong { why: format!("{why}; it stays off until it is edited") }
            }
        };
        self.turn_into(state);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.release();
    }
}

#[derive(Default)]
struct Held {
    kept: BTreeMap<String, Kept>,
    version: Option<String>,
    /// Parts of the store that could not be read, and what else went wrong with it.
    parts: Vec<String>,
    failed: Option<String>,
    /// What was told of that, so that nothing is told twice.
    told: Vec<String>,
    /// The manager is gone, and so is everything that it held.
    stopped: bool,
}

impl Held {
    fn applied(&self) -> Vec<Applied> {
        let one = |(id, kept): (&String, &Kept)| {
            let state = kept.state.clone()?;
            Some(Applied { id: id.clone(), state, at: kept.at, changed: kept.changed })
        };
        self.kept.iter().filter_map(one).collect()
    }

    fn troubles(&self) -> Vec<String> {
        self.parts.iter().chain(&self.failed).cloned().collect()
    }

    /// Takes over what is said now; what was taken away.
    fn edit(&mut self, entries: Vec<Entry>) -> Vec<Applied> {
        let mut wanted: BTreeMap<String, Result<Spec, String>> = BTreeMap::new();
        for Entry { id, spec } in entries {
            match wanted.contains_key(&id) {
                true => wanted.insert(format!("{id} (again)"), Err("is there twice; the first one counts".to_owned())),
                false => wanted.insert(id, spec),
            };
        }
        let mut dropped = Vec::new();
        self.kept.retain(|id, _| {
            let stays = wanted.contains_key(id);
            if !stays {
                let (id, state, at) = (id.clone(), State::Dropped, SystemTime::now());
                dropped.push(Applied { id, state, at, changed: true });
            }
            stays
        });
        for (id, said) in wanted {
            match self.kept.get_mut(&id) {
                Some(kept) => kept.edit(said),
                None => drop(self.kept.insert(id, Kept::new(said))),
            }
        }
        dropped
    }

    /// A turn begins. What is to be attached now, and what was taken away.
    fn begin(&mut self, entries: Option<Vec<Entry>>) -> (Vec<(String, Spec)>, Vec<Applied>) {
        for kept in self.kept.values_mut() {
            kept.changed = false;
            kept.look();
        }
        let dropped = entries.map_or_else(Vec::new, |entries| self.edit(entries));
        let wanted = self.kept.iter_mut().filter_map(|(id, kept)| Some((id.clone(), kept.wanted()?)));
        (wanted.collect(), dropped)
    }
}

/// What the manager and its thread share.
struct Shared {
    store: Option<Box<dyn Store>>,
    /// Tells on stderr what goes wrong, with this before it.
    tell_as: Option<String>,
    /// Held during a turn, which may wait for the store.
    turns: Mutex<()>,
    held: Mutex<Held>,
    stop: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls what may be the program's.
fn guarded<R>(f: impl FnOnce() -> io::Result<R>) -> io::Result<R> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|payload| {
        let text = format!("the store panicked: {}", payload_text(&*payload));
        std::mem::forget(payload);
        Err(io::Error::other(text))
    })
}

impl Shared {
    /// One turn, under the lock for that. `None`: what was said before is still said.
    fn turn(&self, entries: Option<Vec<Entry>>) -> Vec<Applied> {
        let (wanted, dropped) = lock(&self.held).begin(entries);
        for (id, spec) in wanted {
            // Runs code of the program's, while nobody is kept from looking.
            let outcome = spec.attach();
            // Nobody else edits meanwhile, but all may be over; then this is dropped.
            if let Some(kept) = lock(&self.held).kept.get_mut(&id) {
                kept.tried(outcome);
            }
        }
        let mut applied = lock(&self.held).applied();
        applied.extend(dropped);
        applied
    }

    fn refresh(&self) -> io::Result<Vec<Applied>> {
        let store = self.store.as_deref().ok_or_else(no_store)?;
        let _turn = lock(&self.turns);
        let known = lock(&self.held).version.clone();
        let listed = guarded(|| store.list(known.as_deref()));
        let (entries, outcome) = {
            let mut held = lock(&self.held);
            if held.stopped {
                return Ok(Vec::new());
            }
            let (entries, outcome) = match listed {
                Ok(Some(Listed { version, entries, troubles })) => {
                    (held.parts, held.version) = (troubles, Some(version));
                    (Some(entries), Ok(()))
                }
                Ok(None) => (None, Ok(())),
                Err(wrong) => (None, Err(wrong)),
            };
            held.failed = outcome.as_ref().err().map(io::Error::to_string);
            (entries, outcome)
        };
        // Also where nothing else is said: what there was not before may be there now.
        let applied = self.turn(entries);
        let (outcome, record) = {
            let mut held = lock(&self.held);
            if held.stopped {
                return Ok(Vec::new());
            }
            let anew = held.version != known || applied.iter().any(|one| one.changed);
            self.tell(&mut held, &applied);
            (outcome.map(|()| applied.clone()), held.version.clone().filter(|_| anew).map(|v| (v, applied)))
        };
        if let Some((version, applied)) = record
            && let Err(wrong) = guarded(|| store.record(&version, &applied))
        {
            let mut held = lock(&self.held);
            held.failed = Some(format!("what was applied could not be recorded: {wrong}"));
            self.tell(&mut held, &[]);
        }
        outcome
    }

    fn tell(&self, held: &mut Held, applied: &[Applied]) {
        let Some(name) = &self.tell_as else { return };
        let troubles = held.troubles();
        for trouble in troubles.iter().filter(|trouble| !held.told.contains(trouble)) {
            stderr::write(&(plain(&format!("coro: {name}: {trouble}")) + "\n"));
        }
        held.told = troubles;
        let wrong = |one: &&Applied| one.changed && matches!(one.state, State::Wrong { .. } | State::Over { .. });
        for one in applied.iter().filter(wrong) {
            stderr::write(&(plain(&format!("coro: {name}: ")) + &format!("{one}\n")));
        }
    }

    /// What the thread does.
    fn run(&self, interval: Duration) {
        let _own = Own::new();
        loop {
            let held = lock(&self.held);
            let (held, _) = self
                .stop
                .wait_timeout_while(held, interval, |held| !held.stopped)
                .unwrap_or_else(PoisonError::into_inner);
            if held.stopped {
                return;
            }
            drop(held);
            // What goes wrong is among the troubles.
            let _ = self.refresh();
        }
    }
}

fn no_store() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "this manager has no store: make it with Manager::of")
}

/// Attaches what should be attached, and takes away what should not; see the [module](super). Dropping it takes its probes away.
///
/// An instrument as it is made, and a store, may look at the manager that asks them ([`applied`](Manager::applied),
/// [`troubles`](Manager::troubles), [`probe`](Manager::probe)), and see the turn as far as it has come. They must not begin another turn of it
/// ([`apply`](Manager::apply), [`refresh`](Manager::refresh), [`watch`](Manager::watch)): that waits for the present one, and so for themselves.
pub struct Manager {
    shared: Arc<Shared>,
    watched: Mutex<bool>,
}

impl Default for Manager {
    fn default() -> Manager {
        Manager::new()
    }
}

impl Manager {
    /// One without a store: what there should be is said by [`apply`](Manager::apply).
    pub fn new() -> Manager {
        Manager::with(None, None)
    }

    /// One for the specs of a store, which is asked by [`refresh`](Manager::refresh) and [`watch`](Manager::watch).
    pub fn of(store: impl Store) -> Manager {
        Manager::with(Some(Box::new(store)), None)
    }

    /// The same; with `tell_as`, it tells on stderr what goes wrong, each thing once.
    pub(super) fn with(store: Option<Box<dyn Store>>, tell_as: Option<String>) -> Manager {
        let (turns, held, stop) = (Mutex::default(), Mutex::default(), Condvar::new());
        Manager { shared: Arc::new(Shared { store, tell_as, turns, held, stop }), watched: Mutex::default() }
    }

    /// Makes it so that there is what these specs say and nothing else, and says what became of each, by id, and of what was taken
    /// away. With the same specs nothing changes but that those which could not be attached are tried again.
    ///
    /// One that was edited is replaced by another probe, which counts from 0. Of two with the same id the first counts.
    pub fn apply(&self, specs: impl IntoIterator<Item = Spec>) -> Vec<Applied> {
        let entries = specs.into_iter().map(Entry::from).collect();
        let _turn = lock(&self.shared.turns);
        self.shared.turn(Some(entries))
    }

    /// Asks the store, and does what it says; what became of each spec, as [`apply`](Manager::apply) says it.
    ///
    /// # Errors
    /// If there is no store, or it cannot say; then everything stays as it is. Parts of it that cannot be read are no error, but among
    /// the [`troubles`](Manager::troubles).
    pub fn refresh(&self) -> io::Result<Vec<Applied>> {
        self.shared.refresh()
    }

    /// Does the same now, and from now on by itself each time that `interval` has gone by, on a thread of its own that ends with the
    /// manager. What goes wrong is among the [`troubles`](Manager::troubles). The second call does nothing.
    ///
    /// # Errors
    /// If there is no store, or no thread can be had.
    pub fn watch(&self, interval: Duration) -> io::Result<()> {
        if self.shared.store.is_none() {
            return Err(no_store());
        }
        let mut watched = lock(&self.watched);
        if !*watched {
            let _ = self.shared.refresh();
            let shared = self.shared.clone();
            thread::Builder::new().name("coro-specs".into()).spawn(move || shared.run(interval))?;
            *watched = true;
        }
        Ok(())
    }

    /// What has become of each spec until now, by id.
    pub fn applied(&self) -> Vec<Applied> {
        let mut held = lock(&self.shared.held);
        held.kept.values_mut().for_each(Kept::look);
        held.applied()
    }

    /// What could not be read when the store was asked last, and what else went wrong with it.
    pub fn troubles(&self) -> Vec<String> {
        lock(&self.shared.held).troubles()
    }

    /// Shows the probe of a spec, if it is attached. `f` must ask nothing of this manager.
    pub fn probe<R>(&self, id: &str, f: impl FnOnce(&Attached) -> R) -> Option<R> {
        lock(&self.shared.held).kept.get(id).and_then(|kept| kept.attached.as_ref()).map(f)
    }

    /// Whether the store has said something at least once.
    pub(super) fn has_listed(&self) -> bool {
        lock(&self.shared.held).version.is_some()
    }

    /// Whether it does its turns by itself.
    pub(super) fn is_watched(&self) -> bool {
        *lock(&self.watched)
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "manager of {} specs", lock(&self.shared.held).kept.len())
    }
}

impl Drop for Manager {
    fn drop(&mut self) {
        let kept = {
            let mut held = lock(&self.shared.held);
            held.stopped = true;
            std::mem::take(&mut held.kept)
        };
        self.shared.stop.notify_all();
        drop(kept);
    }
}

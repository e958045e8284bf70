//! Jobs that must run one after the other, also where the waiter of one of them has left: what is written to one place of a
//! file, or read from it.
//!
//! Invariants: a job that has its turn runs when every turn before it is over, and a turn that is never used is given back. A task
//! waits for its turn parked, before there is a job: however many wait, the pool has one thread in use. A place is waited for by
//! one at most, as the next one waits for that one.

#![forbid(unsafe_code)]

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::scheduler::suspend::current_unparker;
use crate::scheduler::unpark;
use crate::task::Unparker;

/// Who comes after whom.
#[derive(Debug, Default)]
pub(crate) struct Line(Mutex<Option<Arc<Place>>>);

/// One job's place. Over when it is dropped.
#[derive(Debug)]
pub(crate) struct Turn(Arc<Place>);

#[derive(Debug, Default)]
struct Place {
    state: Mutex<State>,
    left: Condvar,
}

#[derive(Debug, Default)]
struct State {
    over: bool,
    /// The one before, unless that is known to be over.
    before: Option<Arc<Place>>,
    /// The task that waits for this one to be over.
    waiter: Option<Unparker>,
}

/// While the running task waits for that place to be over. Nobody must be woken who does not wait.
struct Waiting<'a>(&'a Place);

impl<'a> Waiting<'a> {
    fn begin(place: &'a Place) -> Waiting<'a> {
        lock(&place.state).waiter = Some(current_unparker());
        Waiting(place)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).waiter = None;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Line {
    pub(crate) const fn new() -> Line {
        Line(Mutex::new(None))
    }

    /// The next turn.
    pub(crate) fn turn(&self) -> Turn {
        let place = Arc::new(Place::default());
        let before = lock(&self.0).replace(place.clone());
        lock(&place.state).before = before.and_then(in_force);
        Turn(place)
    }

    /// Whether every turn is over.
    pub(crate) fn is_idle(&self) -> bool {
        lock(&self.0).clone().and_then(in_force).is_none()
    }
}

/// That place, or the one before it for which it never got to wait; `None` if all are over. So no place leads to more than one
/// other one, however many were given back.
fn in_force(mut place: Arc<Place>) -> Option<Arc<Place>> {
    loop {
        let state = lock(&place.state);
        if !state.over {
            drop(state);
            return Some(place);
        }
        let before = state.before.clone()?;
        drop(state);
        place = before;
    }
}

impl Turn {
    /// As [`wait`](Turn::wait) for a task, which `park` lets wait until what it is given says that it is over.
    pub(super) fn park(&self, mut park: impl FnMut(&mut dyn FnMut() -> bool) -> io::Result<()>) -> io::Result<()> {
        loop {
            let before = lock(&self.0.state).before.clone().and_then(in_force);
            let Some(before) = before else { break };
            let _waiting = Waiting::begin(&before);
            park(&mut || lock(&before.state).over)?;
        }
        lock(&self.0.state).before = None;
        Ok(())
    }

    /// Blocks the thread until every turn before is over.
    pub(crate) fn wait(&self) {
        let mut before = lock(&self.0.state).before.clone();
        while let Some(place) = before {
            let mut state = lock(&place.state);
            while !state.over {
                state = place.left.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            // Of one that never ran: what it would have waited for.
            before = state.before.clone();
        }
        lock(&self.0.state).before = None;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let waiter = {
            let mut state = lock(&self.0.state);
            state.over = true;
            state.waiter.take()
        };
        self.0.left.notify_all();
        waiter.iter().for_each(unpark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_was_given_back_does_not_let_the_next_one_overtake() {
        let line = Line::new();
        assert!(line.is_idle());
        let first = line.turn();
        drop(line.turn());
        assert!(!line.is_idle());
        let third = line.turn();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            third.wait();
            tell.send("third").unwrap();
        });
        assert!(told.try_recv().is_err());
        drop(first);
        assert_eq!(told.recv(), Ok("third"));
        thread.join().unwrap();
        assert!(line.is_idle());
    }

    #[test]
    fn many_turns_given_back_are_no_long_chain() {
        let line = Line::new();
        let first = line.turn();
        (0..1000).for_each(|_| drop(line.turn()));
        assert!(!line.is_idle());
        drop(first);
        assert!(line.is_idle());
        line.turn().wait();
    }
}

//! Jobs that must run one after the other, also where the waiter of one of them has left: what is written to one place of a
//! file, or read from it.
//!
//! Invariant: a job that has its turn runs when every turn before it is over. It can wait for them on its thread, because
//! the pool begins jobs in the order in which they came, and one that never begins gives its turn back.

#![forbid(unsafe_code)]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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
        lock(&self.0.state).over = true;
        self.0.left.notify_all();
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

//! The parties of a test, as tasks, threads, or both.

use std::any::Any;

use crate::harness::runtime;

/// Where the parties run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    OneWorker,
    FourWorkers,
    Threads,
    Mixed,
}

pub(crate) const PLACES: [Place; 4] = [Place::OneWorker, Place::FourWorkers, Place::Threads, Place::Mixed];

/// How somebody ended.
pub(crate) type Ended<T> = Result<T, Box<dyn Any + Send>>;

enum Hand<T> {
    Task(coro::JoinHandle<T>),
    Thread(std::thread::JoinHandle<T>),
}

/// Those who were hired, and what they will give.
pub(crate) struct Crew<T> {
    place: Place,
    rt: Option<coro::Runtime>,
    hands: Vec<Hand<T>>,
}

impl<T: Send + 'static> Crew<T> {
    pub(crate) fn at(place: Place) -> Crew<T> {
        let rt = match place {
            Place::OneWorker => Some(runtime(1)),
            Place::FourWorkers | Place::Mixed => Some(runtime(4)),
            Place::Threads => None,
        };
        Crew { place, rt, hands: Vec::new() }
    }

    /// One more; at a mixed place every third one is a thread.
    pub(crate) fn hire(&mut self, f: impl FnOnce() -> T + Send + 'static) {
        let hand = match &self.rt {
            Some(rt) if self.place != Place::Mixed || !self.hands.len().is_multiple_of(3) => Hand::Task(rt.spawn(f)),
            _ => Hand::Thread(std::thread::spawn(f)),
        };
        self.hands.push(hand);
    }

    pub(crate) fn ended(self) -> Vec<Ended<T>> {
        let join = |hand| match hand {
            Hand::Task(t) => t.join(),
            Hand::Thread(t) => t.join(),
        };
        self.hands.into_iter().map(join).collect()
    }

    /// What all of them gave.
    #[track_caller]
    pub(crate) fn all(self) -> Vec<T> {
        let place = self.place;
        self.ended().into_iter().map(|r| r.unwrap_or_else(|_| panic!("somebody failed: {place:?}"))).collect()
    }
}

//! Commands that run code of the program's: each on a thread of its own, so that code which stands still holds up nobody but who
//! asked.
//!
//! Invariants: an answer that nobody waits for any more is thrown away, and whoever makes it can know; only so many are left behind
//! at a time.
//!
//! Must not know: what is asked.

#![forbid(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::text::clean;
use super::{Answer, Begun, When};
use crate::panic;
use crate::scheduler::runtime::payload_text;
use crate::sys::threads::Own;

/// When who asked is first told that there is no answer yet, and how often then.
const FIRST_WORD: Duration = Duration::from_secs(2);
const NEXT_WORD: Duration = Duration::from_secs(10);

/// When something is first looked at that was begun on another thread.
pub(crate) const FIRST_LOOK: Duration = Duration::from_millis(1);

/// How long after a look comes the next at what has lasted so long: a quarter of that at first, so that it is heard of at once;
/// later a twentieth, because each look wakes the console's thread, and there may be no CPU to spare.
pub(crate) fn next_look(lasted: Duration) -> Duration {
    const SOON: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_millis(250);
    (lasted / 4).clamp(FIRST_LOOK, SOON).max((lasted / 20).min(LONGEST))
}

/// How many may be left behind, in code that does not return, before no more are begun.
const MOST_LEFT_BEHIND: usize = 8;

/// Names are the program's, and so may be what was found.
const LONGEST_LINE: usize = 2000;

static LEFT_BEHIND: AtomicUsize = AtomicUsize::new(0);

/// Lines, or what is wrong.
pub(super) type Said = Result<Vec<String>, String>;

enum State {
    Runs,
    Done(Said),
    /// Nobody waits any more.
    Abandoned,
    Told,
}

/// What the thread and the session share.
struct Desk(Mutex<State>);

impl Desk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins `work` on another thread; it is told how to ask whether the answer is still wanted. `what` is what was asked, for whoever
/// waits.
pub(super) fn elsewhere(
    what: impl Into<String>,
    work: impl FnOnce(&dyn Fn() -> bool) -> Said + Send + 'static,
) -> Begun {
    let left = LEFT_BEHIND.load(Ordering::SeqCst);
    if left >= MOST_LEFT_BEHIND {
        return Err(format!(
            "not done: {left} commands that were abandoned have not come back from code of the program"
        ));
    }
    let desk = Arc::new(Desk(Mutex::new(State::Runs)));
    let serve = {
        let desk = desk.clone();
        move || {
            let _own = Own::new();
            let wanted = || matches!(*desk.state(), State::Runs);
            let work = AssertUnwindSafe(|| work(&wanted));
            let said = panic::silently(true, || catch_unwind(work)).unwrap_or_else(|payload| {
                let text = format!("this command panicked: {}", payload_text(&*payload));
                std::mem::forget(payload);
                Err(text)
            });
            let mut state = desk.state();
            match *state {
                State::Abandoned => drop(LEFT_BEHIND.fetch_sub(1, Ordering::SeqCst)),
                _ => *state = State::Done(said),
            }
        }
    };
    let thread = std::thread::Builder::new().name("coro-ask".into()).spawn(serve);
    thread.map_err(|error| format!("not done: no thread for it: {error}"))?;
    let begun = Instant::now();
    let (next_word, next_look) = (begun + FIRST_WORD, begun + FIRST_LOOK);
    Ok(Box::new(Elsewhere { desk, what: what.into(), begun, next_word, next_look, wrong: false }))
}

struct Elsewhere {
    desk: Arc<Desk>,
    what: String,
    begun: Instant,
    next_word: Instant,
    next_look: Instant,
    wrong: bool,
}

impl Answer for Elsewhere {
    fn more(&mut self, out: &mut Vec<u8>) -> bool {
        let mut state = self.desk.state();
        if let State::Done(_) = *state {
            let State::Done(said) = std::mem::replace(&mut *state, State::Told) else { return false };
            self.wrong = said.is_err();
            let lines = said.unwrap_or_else(|wrong| vec![wrong]);
            for line in lines.iter().flat_map(|line| line.lines()) {
                out.extend_from_slice(clean(line, LONGEST_LINE).as_bytes());
                out.push(b'\n');
            }
            return false;
        }
        drop(state);
        let now = Instant::now();
        let lasted = now.saturating_duration_since(self.begun);
        if now >= self.next_word {
            self.next_word = now + NEXT_WORD;
            let (what, lasted) = (&self.what, lasted.as_secs_f64());
            let word = format!("… after {lasted:.1}s {what} is still in code of the program; Ctrl-C abandons it\n");
            out.extend_from_slice(word.as_bytes());
        }
        self.next_look = now + next_look(lasted);
        true
    }

    fn when(&self) -> When {
        When::NotBefore(self.next_look.min(self.next_word))
    }

    fn is_wrong(&self) -> bool {
        self.wrong
    }
}

impl Drop for Elsewhere {
    /// Finished, interrupted, or nobody listens any more.
    fn drop(&mut self) {
        let mut state = self.desk.state();
        if let State::Runs = *state {
            *state = State::Abandoned;
            LEFT_BEHIND.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_lasted_for_long_is_looked_at_less_often() {
        let looks = [0, 100, 400, 2000, 60_000].map(|lasted| next_look(Duration::from_millis(lasted)).as_millis());
        assert_eq!(looks, [1, 25, 50, 100, 250]);
        // Heard of at most a quarter late, and a twentieth from a second on.
        for lasted in (4..20_000).map(Duration::from_millis) {
            let part = if lasted < Duration::from_secs(1) { 4 } else { 20 };
            assert!(next_look(lasted) <= lasted / part, "{lasted:?}");
        }
    }
}

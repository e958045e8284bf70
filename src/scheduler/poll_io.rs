//! I/O for futures: tried first; what would block leaves the waker at the reactor of the worker that runs the poll.
//!
//! Invariants: as in `io`. The worker looks at its poll between slices only, so between a call that would block and the waker's
//! place nothing is missed. A future keeps no place in a line: it is woken together with the task that is first there, and the
//! kernel decides who gets what has come.

#![forbid(unsafe_code)]

use std::io;
use std::task::{Context, Poll};

use super::suspend::here;
use crate::observe::WaitKind;
use crate::reactor::Direction;
use crate::scheduler::io::{Source, slice_start, spend};

impl Source {
    /// Calls `op` until it does something else than "would block", or says that the future will be woken. `done` as of
    /// [`run_done`](Source::run_done). Time limits and the non-blocking mode of the user are for calls that wait.
    ///
    /// # Errors
    /// As of [`run`](Source::run); `Unsupported` outside of a task, where there is no reactor.
    pub(crate) fn poll_io<T>(
        &self,
        d: Direction,
        cx: &mut Context<'_>,
        mut op: impl FnMut() -> io::Result<T>,
        done: impl Fn(&T, u64) -> bool,
    ) -> Poll<io::Result<T>> {
        let Some(h) = here() else { return Poll::Ready(Err(outside())) };
        h.checkpoint_io()?;
        self.check_open()?;
        let mut id = self.registration(h.worker);
        loop {
            let worth_a_try = id.is_none_or(|id| h.worker.reactor.borrow_mut().is_ready(id, d));
            match if worth_a_try { Some(op()) } else { None } {
                Some(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Some(Err(e)) if e.kind() == io::ErrorKind::WouldBlock => match id {
                    Some(id) => h.worker.reactor.borrow_mut().clear(id, d),
                    // The first event comes at once if something has come in between.
                    None => id = Some(self.register(h.worker)?),
                },
                Some(result) => {
                    let drained = result.as_ref().is_ok_and(|value| done(value, slice_start(&h)));
                    if let Some(id) = id
                        && drained
                    {
                        h.worker.reactor.borrow_mut().clear_after_short_read(id);
                    }
                    spend(&h);
                    return Poll::Ready(result.map_err(|e| self.explain(e)));
                }
                None => {
                    let waker = cx.waker().clone();
                    let left = id.and_then(|id| h.worker.reactor.borrow_mut().add_waker(id, d, waker));
                    drop(left);
                    h.worker.wake_due();
                    let kind = if d == Direction::Read { WaitKind::Read } else { WaitKind::Write };
                    h.local().polled_io.set(self.reason(kind).in_future());
                    // Closed meanwhile, by a waker that was just called or dropped.
                    return match self.check_open() {
                        Ok(()) => Poll::Pending,
                        Err(e) => Poll::Ready(Err(e)),
                    };
                }
            }
        }
    }
}

#[cold]
fn outside() -> io::Error {
    io::Error::new(
        io::ErrorKind::Unsupported,
        "this future does I/O of coro, whose readiness the workers look for: poll it in a task, with coro::future::block_on",
    )
}

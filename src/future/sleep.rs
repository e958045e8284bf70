//! Timers for code that is `async`.

#![forbid(unsafe_code)]

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::scheduler;
use crate::scheduler::alarm::Alarm;

/// A future that is ready after `duration`, in whatever runtime it is polled. One that no [`Instant`] can hold never is.
///
/// In a task the timer is the worker's, as for [`coro::sleep`](crate::sleep()). Polled outside of one, it takes a task of the
/// process-wide runtime, which is started for it as by [`spawn`](crate::spawn).
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// coro::run(|| {
///     let begun = Instant::now();
///     coro::future::block_on(coro::future::sleep(Duration::from_millis(2)));
///     assert!(begun.elapsed() >= Duration::from_millis(2));
/// });
/// ```
pub fn sleep(duration: Duration) -> Sleep {
    Sleep { deadline: Instant::now().checked_add(duration), alarm: None }
}

/// As [`sleep`], until `deadline`.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline: Some(deadline), alarm: None }
}

/// See [`sleep`].
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct Sleep {
    /// `None` never comes.
    deadline: Option<Instant>,
    alarm: Option<Alarm>,
}

impl Sleep {
    /// When it is ready; `None`: never.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        if Instant::now() >= deadline {
            self.alarm = None;
            return Poll::Ready(());
        }
        let alarm = self.alarm.get_or_insert_with(|| Alarm::at(deadline));
        alarm.set_waker(cx.waker());
        if !alarm.is_armed() {
            let bell = alarm.bell();
            // Nobody's child, and it may be dropped unrung.
            let task = scheduler::spawn(move || {
                crate::time::sleep_until(deadline);
                bell.ring();
            });
            alarm.rung_by(task);
        }
        Poll::Pending
    }
}

//! Futures in tasks, and tasks in futures.
//!
//! Straight-line code calls what is `async` with [`block_on`]: the task is parked until the future can go on, and its worker
//! runs others. `async` code waits for a task by its [`JoinHandle`], which is a future in whatever runtime it is polled.
//!
//! ```
//! use coro::future::{block_on, spawn_future};
//!
//! async fn double(n: u32) -> u32 {
//!     n * 2
//! }
//!
//! coro::run(|| {
//!     // A future in a task:
//!     assert_eq!(block_on(double(21)), 42);
//!     // A task in a future:
//!     let sum = async {
//!         let one = coro::spawn(|| 1).await.unwrap();
//!         let two = spawn_future(double(1)).await.unwrap();
//!         one + two
//!     };
//!     assert_eq!(block_on(sum), 3);
//! });
//! ```
//!
//! A future that is polled here has no other runtime around it: what belongs to tokio's own reactor (its sockets, its timers)
//! needs a tokio runtime that was entered; its channels, locks and `JoinHandle`s do not, nor do futures of other crates.
//! [`sleep`] is a timer for `async` code. With the feature `futures-io` the streams of [`net`](crate::net) are `AsyncRead` and
//! `AsyncWrite` (of the crate futures-io).
//!
//! Must not know: sockets, who polls.

#![forbid(unsafe_code)]

mod sleep;

use std::any::type_name;
use std::panic::Location;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub use sleep::{Sleep, sleep, sleep_until};

use crate::scheduler::suspend;
use crate::scheduler::waker::TaskWaker;
use crate::scheduler::{self, JoinHandle};

/// Runs a future to its end: the task is parked while it waits; on a plain thread the thread is blocked.
///
/// The future is polled by the caller, on its own stack, so it may hold what is not `Send`, borrow from the caller, and call
/// whatever parks. Views show such a wait as `future` with the type's name, since when, how often it was polled, and who woke
/// it last. A future that wakes itself while it is polled gives way to other tasks before it is polled again.
///
/// # Panics
/// As the future does.
///
/// # Cancellation
/// Unwinds if an interrupt is due, before it is polled for the first time or where the task would be parked, and drops the
/// future on the way. Its waker may be called later by anybody; it then wakes nobody.
///
/// # Examples
/// ```
/// use std::future::poll_fn;
/// use std::task::Poll;
///
/// coro::run(|| {
///     let mut polls = 0;
///     let third = poll_fn(|cx| {
///         polls += 1;
///         let waker = cx.waker().clone();
///         // From anywhere, at any time.
///         std::thread::spawn(move || waker.wake());
///         if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
///     });
///     assert_eq!(coro::future::block_on(third), 3);
/// });
/// ```
#[track_caller]
pub fn block_on<F: IntoFuture>(future: F) -> F::Output {
    run(future.into_future(), Location::caller())
}

/// Spawns a task that runs the future, as [`spawn`](crate::spawn) with [`block_on`] inside.
///
/// The task is one like any other, with a stack of its own: it may be cancelled, has a place in every view, and its handle can
/// be joined or awaited.
///
/// # Panics
/// As [`spawn`](crate::spawn).
///
/// # Cancellation
/// A task that is cancelled drops its future.
///
/// # Examples
/// ```
/// let answer = coro::run(|| coro::future::spawn_future(async { 6 * 7 }).join().unwrap());
/// assert_eq!(answer, 42);
/// ```
#[track_caller]
pub fn spawn_future<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let site = Location::caller();
    scheduler::spawn(move || run(future, site))
}

fn run<F: Future>(future: F, site: &'static Location<'static>) -> F::Output {
    suspend::checkpoint();
    let mut future = pin!(future);
    let own = TaskWaker::new(type_name::<F>(), site);
    let _end = Closes(&own);
    let waker = Waker::from(own.clone());
    let mut context = Context::from_waker(&waker);
    loop {
        own.begin_poll();
        suspend::begin_poll();
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
        if own.is_woken() {
            scheduler::yield_slice();
        } else {
            suspend::show_polled_io();
            suspend::wait_for(own.reason(), None, || own.is_woken());
        }
    }
}

/// Wakes that come later must not reach what the task waits for next.
struct Closes<'a>(&'a Arc<TaskWaker>);

impl Drop for Closes<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

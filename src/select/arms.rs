//! The arms: what each does at an attempt, and how it has itself be woken.

use std::any::{Any, type_name};
use std::borrow::BorrowMut;
use std::io;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvError, SendError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::{Arm, Inner, Operation};
use crate::net::{Accepts, Polled};
use crate::observe::{WaitKind, WaitReason};
use crate::reactor::Direction;
use crate::scheduler::JoinHandle;
use crate::scheduler::readiness::Readiness;
use crate::scheduler::suspend;
use crate::scheduler::waker::TaskWaker;
use crate::sync::choice::{Choice, Receiving, Sending};
use crate::sync::oneshot::Receiver;
use crate::sync::{Receives, Sends};

/// Gives the result of an arm, which must be there.
#[track_caller]
fn given<T>(result: &mut Option<T>) -> T {
    result.take().expect("the result of an arm is there once, after `wait` has returned the arm's place")
}

/// An attempt, if the arm has no result that nobody has taken yet: that one would be lost.
fn once<T>(result: &mut Option<T>, attempt: impl FnOnce() -> Option<T>) -> bool {
    if result.is_none() {
        *result = attempt();
    }
    result.is_some()
}

macro_rules! arm {
    ([$($generics:tt)*] $arm:ty) => {
        impl<$($generics)*> Arm for $arm {
            fn inner(&mut self) -> Inner<'_> {
                Inner(self)
            }
        }
    };
}

/// What an arm with a place in a channel's line does, but for its time.
macro_rules! in_a_line {
    () => {
        fn attempt(&mut self) -> bool {
            once(&mut self.result, || self.place.attempt())
        }

        unsafe fn enlist(&mut self, choice: &Choice) -> bool {
            // SAFETY: forwarded.
            unsafe { self.place.enlist(choice) }
        }

        fn leave(&mut self) -> bool {
            self.result = self.place.leave();
            self.result.is_some()
        }

        fn reason(&self) -> Option<WaitReason> {
            Some(self.place.reason())
        }
    };
}

/// Receives; see [`recv`].
#[derive(Debug)]
pub struct RecvArm<'a, T> {
    place: Receiving<'a, T>,
    result: Option<Result<T, RecvError>>,
}

/// Receives a message of a channel of [`mpmc`](crate::sync::mpmc) or [`mpsc`](crate::sync::mpsc). That all its senders are gone
/// and it is empty is a result as well, and is there at once.
pub fn recv<T, R: Receives<T> + ?Sized>(receiver: &R) -> RecvArm<'_, T> {
    RecvArm { place: receiver.end().place(), result: None }
}

impl<T> RecvArm<'_, T> {
    /// The message.
    ///
    /// # Errors
    /// When the channel is empty and all senders are gone.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> Result<T, RecvError> {
        given(&mut self.result)
    }
}

arm!(['a, T] RecvArm<'a, T>);

impl<T> Operation for RecvArm<'_, T> {
    in_a_line!();

    fn deadline(&self) -> Option<Instant> {
        self.place.deadline()
    }
}

/// Sends; see [`send`].
#[derive(Debug)]
pub struct SendArm<'a, T> {
    place: Sending<'a, T>,
    result: Option<Result<(), SendError<T>>>,
}

/// Sends a message into a channel of [`mpmc`](crate::sync::mpmc) or [`mpsc`](crate::sync::mpsc), when there is room or somebody
/// to take it. That all receivers are gone is a result as well, and is there at once.
pub fn send<T, S: Sends<T> + ?Sized>(sender: &S, value: T) -> SendArm<'_, T> {
    SendArm { place: sender.end().place(value), result: None }
}

impl<T> SendArm<'_, T> {
    /// Whether it was received or queued.
    ///
    /// # Errors
    /// The message, if all receivers are gone.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> Result<(), SendError<T>> {
        given(&mut self.result)
    }

    /// The message, if it was not sent.
    pub fn into_value(self) -> Option<T> {
        self.place.into_value()
    }
}

arm!(['a, T] SendArm<'a, T>);

impl<T> Operation for SendArm<'_, T> {
    in_a_line!();
}

/// The message of a oneshot channel; see [`oneshot`].
#[derive(Debug)]
pub struct OneshotArm<'a, T> {
    receiver: &'a mut Receiver<T>,
    result: Option<Result<T, RecvError>>,
}

/// Receives the message of a [`oneshot`](crate::sync::oneshot) channel. That its sender has gone without one is a result as well. If
/// another arm ends the wait, the receiver is as before; once it has given its message, that of later ones is an error.
pub fn oneshot<T, R: BorrowMut<Receiver<T>> + ?Sized>(receiver: &mut R) -> OneshotArm<'_, T> {
    OneshotArm { receiver: receiver.borrow_mut(), result: None }
}

impl<T> OneshotArm<'_, T> {
    /// The message.
    ///
    /// # Errors
    /// When the sender went without sending one.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> Result<T, RecvError> {
        given(&mut self.result)
    }
}

arm!(['a, T] OneshotArm<'a, T>);

impl<T> Operation for OneshotArm<'_, T> {
    fn attempt(&mut self) -> bool {
        once(&mut self.result, || self.receiver.attempt())
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        self.receiver.announce(suspend::current_unparker())
    }

    fn is_due(&mut self) -> bool {
        self.receiver.is_due()
    }

    fn leave(&mut self) -> bool {
        self.receiver.withdraw();
        false
    }

    fn reason(&self) -> Option<WaitReason> {
        Some(self.receiver.reason())
    }
}

/// A point in time; see [`after`] and [`at`].
#[derive(Debug)]
pub struct TimeArm {
    /// `None` never comes.
    at: Option<Instant>,
}

/// Goes on after `duration`, counted from this call. One that no [`Instant`] can hold never comes.
pub fn after(duration: Duration) -> TimeArm {
    TimeArm { at: Instant::now().checked_add(duration) }
}

/// Goes on at that time, which may be over.
pub fn at(deadline: Instant) -> TimeArm {
    TimeArm { at: Some(deadline) }
}

impl TimeArm {
    /// Nothing.
    pub fn take(&mut self) {}
}

arm!([] TimeArm);

impl Operation for TimeArm {
    fn attempt(&mut self) -> bool {
        self.at.is_some_and(|at| Instant::now() >= at)
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        true
    }

    fn leave(&mut self) -> bool {
        false
    }

    fn deadline(&self) -> Option<Instant> {
        self.at
    }

    fn reason(&self) -> Option<WaitReason> {
        None
    }
}

/// The end of a task; see [`join`].
#[derive(Debug)]
pub struct JoinArm<'a, T> {
    handle: &'a mut JoinHandle<T>,
    result: Option<Result<T, Box<dyn Any + Send>>>,
}

/// What [`join`] takes: a handle, by way of however many references.
pub trait Joins<T> {
    #[doc(hidden)]
    fn handle(&mut self) -> &mut JoinHandle<T>;
}

impl<T> Joins<T> for JoinHandle<T> {
    fn handle(&mut self) -> &mut JoinHandle<T> {
        self
    }
}

impl<T, J: Joins<T> + ?Sized> Joins<T> for &mut J {
    fn handle(&mut self) -> &mut JoinHandle<T> {
        (**self).handle()
    }
}

/// Waits for the end of a task. The result is taken out of the handle by the arm that ends the wait, and only by that.
///
/// # Panics
/// The attempt does, if the handle has given its result before.
pub fn join<T, J: Joins<T> + ?Sized>(handle: &mut J) -> JoinArm<'_, T> {
    JoinArm { handle: handle.handle(), result: None }
}

impl<T> JoinArm<'_, T> {
    /// As [`JoinHandle::join`].
    ///
    /// # Errors
    /// As [`JoinHandle::join`].
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> Result<T, Box<dyn Any + Send + 'static>> {
        given(&mut self.result)
    }
}

arm!(['a, T] JoinArm<'a, T>);

impl<T> Operation for JoinArm<'_, T> {
    fn attempt(&mut self) -> bool {
        once(&mut self.result, || self.handle.is_finished().then(|| self.handle.take()))
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        // A future that was given up may have left a waker.
        self.handle.unregister();
        self.handle.announce(suspend::current_unparker())
    }

    fn is_due(&mut self) -> bool {
        self.handle.is_finished()
    }

    fn leave(&mut self) -> bool {
        self.handle.unregister();
        false
    }

    fn reason(&self) -> Option<WaitReason> {
        Some(WaitReason::new(WaitKind::Join, self.handle.id()))
    }
}

/// Readiness of a socket; see [`readable`] and [`writable`].
#[derive(Debug)]
pub struct ReadyArm<'a> {
    inner: Readiness<'a>,
    result: Option<io::Result<()>>,
}

/// Goes on when a read or an `accept` would not have to wait: there is something, or an end or an error. Somebody else may be
/// faster, so the read may wait after all. Time limits of the socket are for reads.
pub fn readable<S: Polled + ?Sized>(socket: &S) -> ReadyArm<'_> {
    ReadyArm { inner: reads(socket), result: None }
}

fn reads<S: Polled + ?Sized>(socket: &S) -> Readiness<'_> {
    let parts = socket.parts();
    Readiness::new(parts.source, Direction::Read, parts.kind)
}

/// Goes on when a write would not have to wait: there is room, or an error.
pub fn writable<S: Polled + ?Sized>(socket: &S) -> ReadyArm<'_> {
    ReadyArm { inner: Readiness::new(socket.parts().source, Direction::Write, WaitKind::Write), result: None }
}

impl ReadyArm<'_> {
    /// Nothing.
    ///
    /// # Errors
    /// If the socket was closed, or refuses a second waiter.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> io::Result<()> {
        given(&mut self.result)
    }
}

arm!(['a] ReadyArm<'a>);

impl Operation for ReadyArm<'_> {
    fn attempt(&mut self) -> bool {
        once(&mut self.result, || self.inner.now())
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        // SAFETY: forwarded.
        unsafe { self.inner.enlist() }
    }

    fn is_due(&mut self) -> bool {
        self.inner.is_due()
    }

    fn leave(&mut self) -> bool {
        self.inner.leave();
        false
    }

    fn must_look(&self) -> bool {
        true
    }

    fn reason(&self) -> Option<WaitReason> {
        Some(self.inner.reason())
    }
}

/// A connection; see [`accept`].
#[derive(Debug)]
pub struct AcceptArm<'a, L: Accepts + ?Sized> {
    listener: &'a L,
    site: &'static Location<'static>,
    inner: Readiness<'a>,
    retry: Option<Instant>,
    result: Option<io::Result<L::Connection>>,
}

/// Accepts a connection. Connections aborted in the backlog are skipped; without descriptors it tries again a little later.
#[track_caller]
pub fn accept<L: Accepts + ?Sized>(listener: &L) -> AcceptArm<'_, L> {
    AcceptArm { listener, site: Location::caller(), inner: reads(listener), retry: None, result: None }
}

impl<L: Accepts + ?Sized> AcceptArm<'_, L> {
    /// The connection and its peer's address.
    ///
    /// # Errors
    /// As the listener's `accept`.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> io::Result<L::Connection> {
        given(&mut self.result)
    }
}

/// A pause before the next attempt to accept when there was no descriptor.
const PAUSE: Duration = Duration::from_millis(20);

impl<L: Accepts + ?Sized> Operation for AcceptArm<'_, L> {
    fn attempt(&mut self) -> bool {
        self.retry = None;
        if self.result.is_some() {
            return true;
        }
        self.result = match self.inner.now() {
            None => None,
            Some(Err(e)) => Some(Err(e)),
            Some(Ok(())) => match self.listener.accept_now(self.site) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => None,
                Err(e) if crate::net::no_descriptors(&e) => {
                    self.retry = Some(Instant::now() + PAUSE);
                    None
                }
                result => Some(result),
            },
        };
        self.result.is_some()
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        // Readiness would end the wait at once.
        // SAFETY: forwarded.
        self.retry.is_some() || unsafe { self.inner.enlist() }
    }

    fn is_due(&mut self) -> bool {
        self.retry.is_none() && self.inner.is_due()
    }

    fn leave(&mut self) -> bool {
        self.inner.leave();
        false
    }

    fn deadline(&self) -> Option<Instant> {
        self.retry
    }

    fn must_look(&self) -> bool {
        true
    }

    fn reason(&self) -> Option<WaitReason> {
        Some(self.inner.reason())
    }
}

impl<L: Accepts + ?Sized> Arm for AcceptArm<'_, L> {
    fn inner(&mut self) -> Inner<'_> {
        Inner(self)
    }
}

/// A future; see [`future`].
#[derive(Debug)]
pub struct FutureArm<'a, F: Future + ?Sized> {
    /// The waker is for the task or thread that made the arm.
    _here: PhantomData<*const ()>,
    future: Pin<&'a mut F>,
    waker: Arc<TaskWaker>,
    polled: bool,
    result: Option<F::Output>,
}

/// Polls a future, which goes on where it was if another arm is first: it may be an arm again. One that is ready must not be
/// polled again, as everywhere.
#[track_caller]
pub fn future<F: Future + ?Sized>(future: Pin<&mut F>) -> FutureArm<'_, F> {
    let waker = TaskWaker::new(type_name::<F>(), Location::caller());
    FutureArm { _here: PhantomData, future, waker, polled: false, result: None }
}

impl<F: Future + ?Sized> FutureArm<'_, F> {
    /// What it gave.
    ///
    /// # Panics
    /// If this is not the arm that ended the wait, or a second time.
    pub fn take(&mut self) -> F::Output {
        given(&mut self.result)
    }
}

impl<F: Future + ?Sized> Operation for FutureArm<'_, F> {
    fn attempt(&mut self) -> bool {
        if self.result.is_some() || self.polled && !self.waker.is_woken() {
            return self.result.is_some();
        }
        self.polled = true;
        self.waker.begin_poll();
        let waker = Waker::from(self.waker.clone());
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => false,
            Poll::Ready(value) => {
                self.result = Some(value);
                true
            }
        }
    }

    unsafe fn enlist(&mut self, _: &Choice) -> bool {
        !self.waker.is_woken()
    }

    fn is_due(&mut self) -> bool {
        self.waker.is_woken()
    }

    fn leave(&mut self) -> bool {
        false
    }

    fn reason(&self) -> Option<WaitReason> {
        Some(self.waker.reason())
    }
}

impl<F: Future + ?Sized> Arm for FutureArm<'_, F> {
    fn inner(&mut self) -> Inner<'_> {
        Inner(self)
    }
}

impl<F: Future + ?Sized> Drop for FutureArm<'_, F> {
    fn drop(&mut self) {
        // Wakes that come later must not reach what the task waits for next.
        self.waker.close();
    }
}
